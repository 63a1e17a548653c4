//! A brick's disk in memory, as a layer of fops below the brick's real lock layer.
//!
//! What a power cut leaves is legal for a journalling file system: changes of names and xattrs survive in order up to some
//! point at or after the last fsync; contents that were not synced survive or not, block by block.

mod fops;
mod index;
mod tree;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mortar_types::{ClientId, Context, Errno, Fd, Fops, Gfid, Outcome, Reply, Request, Timespec};
use parking_lot::Mutex;

use crate::rng::Rng;

pub use tree::{Node, Tree};

/// States kept for a power cut; older ones count as written back, as a kernel does after some seconds.
const STATES_MAX: usize = 48;
/// Bytes of a block that is written or lost as a whole.
pub const BLOCK_BYTES: usize = 8;

/// What is wrong with the disk now.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sickness {
    /// Changes that need space fail with ENOSPC.
    pub full: bool,
    /// So many of a hundred fops fail with EIO.
    pub eio_percent: u64,
    /// Every fop takes up to so many ms more.
    pub slow_ms: u64,
}

pub struct Disk {
    name: String,
    state: Mutex<State>,
}

struct State {
    tree: Tree,
    /// States that a power cut could bring back, oldest first.
    earlier: VecDeque<Tree>,
    keeps_earlier: bool,
    /// Stores no contents, as GlusterFS's features/arbiter on an arbiter brick.
    is_arbiter: bool,
    /// Open fds of the running process, and whose they are.
    fds: BTreeMap<i64, (Gfid, ClientId)>,
    next_fd: i64,
    virtual_gfids: [Gfid; 3],
    sickness: Sickness,
    rng: Rng,
    /// The brick's clock, for changes that bring no time.
    clock: i64,
    /// Whose fop is performed.
    client: ClientId,
    /// Counts processes: a fop of an older one does nothing more.
    process: u64,
}

impl Disk {
    pub fn new(name: String, mut rng: Rng, keeps_earlier: bool, is_arbiter: bool) -> Arc<Self> {
        let virtual_gfids = [rng.gfid(), rng.gfid(), rng.gfid()];
        let state = State {
            tree: Tree::empty(),
            earlier: VecDeque::new(),
            keeps_earlier,
            is_arbiter,
            fds: BTreeMap::new(),
            next_fd: 0,
            virtual_gfids,
            sickness: Sickness::default(),
            rng,
            clock: 1_000_000,
            client: ClientId::default(),
            process: 0,
        };
        Arc::new(Self { name, state: Mutex::new(state) })
    }

    pub fn set_sickness(&self, sickness: Sickness) {
        self.state.lock().sickness = sickness;
    }

    pub fn jump_clock(&self, seconds: i64) {
        self.state.lock().clock += seconds;
    }

    /// The brick's process ends; with `power_cut` what was not on the platter is lost.
    pub fn stop(&self, power_cut: bool) {
        let mut state = self.state.lock();
        state.process += 1;
        state.fds.clear();
        if power_cut {
            state.lose();
        }
        state.tree.nodes.retain(|_, node| node.nlink > 0);
        let mut rng = state.rng.clone();
        state.virtual_gfids = [rng.gfid(), rng.gfid(), rng.gfid()];
        state.rng = rng;
    }

    /// A client's connection has ended: its files are closed.
    pub fn close_all_of(&self, client: ClientId) {
        let mut state = self.state.lock();
        let open: Vec<i64> = state.fds.iter().filter(|(_, (_, of))| *of == client).map(|(fd, _)| *fd).collect();
        for fd in open {
            state.release(Fd(fd));
        }
    }

    /// A copy of what is on the disk.
    pub fn tree(&self) -> Tree {
        self.state.lock().tree.clone()
    }

    /// Inodes that the index names.
    pub fn indexed(&self) -> usize {
        let state = self.state.lock();
        state.tree.pending.len() + state.tree.dirty.len()
    }
}

#[async_trait]
impl Fops for Disk {
    async fn call(&self, ctx: &Context, request: Request) -> Outcome<Reply> {
        let (wait, process) = {
            let mut state = self.state.lock();
            let slow = state.sickness.slow_ms;
            let wait = if slow == 0 { 0 } else { state.rng.below(slow) };
            (wait, state.process)
        };
        if wait > 0 {
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        let mut state = self.state.lock();
        if state.process != process {
            return Err(Errno::ENOTCONN.into());
        }
        state.check_health(&request)?;
        let time = ctx.time.unwrap_or_else(|| state.now());
        state.client = ctx.client;
        state.perform(request, time, &self.name)
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl State {
    fn check_health(&mut self, request: &Request) -> Result<(), Errno> {
        if self.sickness.eio_percent > 0 && !is_harmless(request) && self.rng.chance(self.sickness.eio_percent) {
            return Err(Errno::EIO);
        }
        if self.sickness.full && needs_space(request) {
            return Err(Errno::ENOSPC);
        }
        Ok(())
    }

    fn now(&mut self) -> Timespec {
        self.clock += 1;
        Timespec::new(self.clock, 0)
    }

    /// The state before a change, for a power cut.
    fn remember(&mut self) {
        if !self.keeps_earlier {
            return;
        }
        if self.earlier.len() == STATES_MAX {
            self.earlier.pop_front();
        }
        self.earlier.push_back(self.tree.clone());
    }

    /// Everything so far is on the platter, but for other files' contents.
    fn commit(&mut self) {
        self.earlier.clear();
    }

    fn lose(&mut self) {
        let at = self.rng.index(self.earlier.len() + 1);
        if let Some(tree) = self.earlier.get(at) {
            self.tree = tree.clone();
        }
        self.earlier.clear();
        let gfids: Vec<Gfid> = self.tree.nodes.keys().copied().collect();
        for gfid in gfids {
            let Some(node) = self.tree.nodes.get(&gfid) else { continue };
            if node.data == node.synced {
                continue;
            }
            let (new, mut data) = (node.data.clone(), node.synced.clone());
            if new.len() > data.len() {
                // Contents reach the platter from the front, size with them.
                let blocks = (new.len() - data.len()).div_ceil(BLOCK_BYTES);
                let kept = self.rng.index(blocks + 1) * BLOCK_BYTES;
                let end = (data.len() + kept).min(new.len());
                data.extend_from_slice(&new[data.len()..end]);
            } else {
                data.truncate(new.len());
            }
            for start in (0..data.len()).step_by(BLOCK_BYTES) {
                let end = (start + BLOCK_BYTES).min(data.len());
                if self.rng.chance(50) {
                    data[start..end].copy_from_slice(&new[start..end]);
                }
            }
            if let Ok(node) = self.tree.get_mut(gfid) {
                node.data.clone_from(&data);
                node.synced = data;
            }
        }
    }
}

/// Closing does not touch the disk.
const fn is_harmless(request: &Request) -> bool {
    matches!(request, Request::Release(_) | Request::Releasedir(_) | Request::Flush(_))
}

const fn needs_space(request: &Request) -> bool {
    matches!(
        request,
        Request::Create(_)
            | Request::Mkdir(_)
            | Request::Mknod(_)
            | Request::Symlink(_)
            | Request::Link(_)
            | Request::Write(_)
            | Request::Setxattr(_)
    )
}
