//! Cache invalidation (`features.cache-invalidation`, GlusterFS `xlators/features/upcall`): remembers which clients have
//! lately looked at an inode, and tells them when another client changes it.
//!
//! Off by default, and then a plain pass-through. The memory is bounded: when the inode that was longest unused is
//! forgotten, its clients are told that too, for they could not be told of changes any more.

mod effects;
mod memory;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use mortar_types::fop::{AckReply, Lookup};
use mortar_types::{ClientId, Context, Fops, Gfid, Iatt, Outcome, Pid, Reply, Request, Upcall, UpcallSink};
use parking_lot::{Mutex, RwLock};

use effects::{Effect, Effects};
use memory::Memory;

/// `UP_*` bits (`libglusterfs/src/glusterfs/upcall-utils.h`).
pub mod flags {
    pub const NLINK: u32 = 1;
    pub const MODE: u32 = 2;
    pub const OWN: u32 = 4;
    pub const SIZE: u32 = 8;
    pub const TIMES: u32 = 0x10;
    pub const ATIME: u32 = 0x20;
    pub const PERM: u32 = 0x40;
    pub const RENAME: u32 = 0x80;
    pub const FORGET: u32 = 0x100;
    pub const PARENT_TIMES: u32 = 0x200;
    pub const XATTR: u32 = 0x400;
    pub const XATTR_REMOVED: u32 = 0x800;
}

/// IPC's `op` for this layer (`GF_IPC_TARGET_UPCALL`).
const IPC_TARGET_UPCALL: i32 = 2;

/// The layer's switches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// `features.cache-invalidation`.
    pub enabled: bool,
    /// `features.cache-invalidation-timeout`: who has not looked for so long is not told.
    pub timeout: Duration,
    /// Inodes remembered.
    pub inodes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { enabled: false, timeout: Duration::from_secs(60), inodes_max: 65_536 }
    }
}

/// The layer.
pub struct CacheInvalidation {
    inner: Arc<dyn Fops>,
    /// Copied out of `options`: asked on every fop.
    enabled: AtomicBool,
    options: RwLock<Options>,
    memory: Mutex<Memory>,
    sinks: RwLock<HashMap<ClientId, Arc<dyn UpcallSink>>>,
    started: Instant,
}

impl CacheInvalidation {
    pub fn new(inner: Arc<dyn Fops>, options: Options) -> Arc<Self> {
        Arc::new(Self {
            inner,
            enabled: AtomicBool::new(options.enabled),
            options: RwLock::new(options),
            memory: Mutex::new(Memory::new(options.inodes_max)),
            sinks: RwLock::new(HashMap::new()),
            started: Instant::now(),
        })
    }

    /// Takes changed options. Switched off, everything is forgotten.
    pub fn reconfigure(&self, options: Options) {
        *self.options.write() = options;
        self.enabled.store(options.enabled, Ordering::Relaxed);
        if !options.enabled {
            *self.memory.lock() = Memory::new(options.inodes_max);
        }
    }

    /// Admits a client whose invalidations go to `sink`.
    pub fn connect(&self, client: ClientId, sink: Arc<dyn UpcallSink>) {
        self.sinks.write().insert(client, sink);
    }

    /// Entries of a client that has gone run out by themselves.
    pub fn disconnect(&self, client: ClientId) {
        self.sinks.write().remove(&client);
    }

    async fn watched(&self, ctx: &Context, request: Request) -> Outcome<Reply> {
        let victim = self.victim(&request).await;
        let effects = Effects::of(&request, victim);
        let reply = self.inner.call(ctx, request).await?;
        let effects = effects.completed(&reply);
        let timeout = self.options.read().timeout;
        let now = self.started.elapsed();
        for effect in &effects.changes {
            let others = self.memory.lock().others(effect.gfid, ctx.client, now, timeout);
            self.tell(&others, effect);
        }
        for gfid in effects.seen {
            let forgotten = self.memory.lock().note(gfid, ctx.client, now);
            if let Some((gfid, clients)) = forgotten {
                self.tell(&clients, &Effect::new(gfid, flags::FORGET));
            }
        }
        Ok(reply)
    }

    /// The inode whose link a fop takes away: its other viewers must hear of it.
    async fn victim(&self, request: &Request) -> Option<Gfid> {
        let (parent, name) = match request {
            Request::Unlink(r) => (r.parent, r.name.clone()),
            Request::Rmdir(r) => (r.parent, r.name.clone()),
            Request::Rename(r) => (r.new_parent, r.new_name.clone()),
            _ => return None,
        };
        let lookup = Lookup { gfid: Gfid::NULL, parent, flags: 0, name, xdata: None };
        self.inner.fop(&Context::internal(Pid(0)), lookup).await.ok().map(|reply| reply.stat.gfid)
    }

    fn tell(&self, clients: &[ClientId], effect: &Effect) {
        let sinks: Vec<_> = {
            let known = self.sinks.read();
            clients.iter().filter_map(|client| known.get(client).cloned()).collect()
        };
        for sink in sinks {
            sink.upcall(Upcall::CacheInvalidation {
                gfid: effect.gfid,
                flags: effect.flags,
                stat: effect.stat,
                parent: Iatt::default(),
                old_parent: Iatt::default(),
                xdata: effect.xattrs.clone(),
            });
        }
    }
}

#[async_trait]
impl Fops for CacheInvalidation {
    async fn call(&self, ctx: &Context, request: Request) -> Outcome<Reply> {
        if !self.enabled.load(Ordering::Relaxed) {
            return self.inner.call(ctx, request).await;
        }
        match request {
            // A client tells which xattrs it keeps. All are told of, so there is nothing to remember.
            Request::Ipc(ipc) if ipc.op == IPC_TARGET_UPCALL => Ok(AckReply { xdata: None }.into()),
            request => self.watched(ctx, request).await,
        }
    }

    fn subscribe(&self, sink: Arc<dyn UpcallSink>) {
        self.inner.subscribe(sink);
    }

    fn is_up(&self) -> bool {
        self.inner.is_up()
    }

    fn name(&self) -> &str {
        self.inner.name()
    }
}
