//! What the layer remembers of inodes: which copies are readable, kept locks, order among own operations.
//!
//! Bounded: idle inodes are forgotten second-chance fashion; one with a kept lock, an open fd or an operation under way
//! is referenced by it and stays.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mortar_logic::replicate::readable::Readable;
use mortar_logic::replicate::{Set, SetExt};
use mortar_types::{FileType, Gfid};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::gate::{Gate, Name, Range};
use super::kept::{Kept, LockKind};

/// Inodes remembered at most while idle; about 1 KiB each.
const INODES_MAX: usize = 32_768;
/// Inodes looked at for eviction per insertion: two, so that the table shrinks back after a burst of pinned ones.
const EVICTION_STEPS: usize = 2;

pub(super) struct Inode {
    pub(super) gfid: Gfid,
    known: Mutex<Option<Known>>,
    pub(super) data: Kept,
    pub(super) metadata: Kept,
    pub(super) entry: Kept,
    /// Order of changes of contents.
    pub(super) ranges: Arc<Gate<Range>>,
    /// Order of changes of attributes: all of them claim everything.
    pub(super) attributes: Arc<Gate<Range>>,
    /// Order of changes of names.
    pub(super) names: Arc<Gate<Name>>,
    /// How many names the directory had when all were listed last.
    pub(super) names_count: AtomicUsize,
    /// POSIX locks were taken through this layer: closing a file must tell the bricks.
    pub(super) posix_locked: AtomicBool,
    used: AtomicBool,
}

/// What the last lookup said, valid for one generation of children.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) generation: u64,
    pub(super) learnt: Instant,
    pub(super) kind: FileType,
    pub(super) readable: Readable,
}

impl Inode {
    fn new(gfid: Gfid) -> Self {
        Self {
            gfid,
            known: Mutex::new(None),
            data: Kept::new(),
            metadata: Kept::new(),
            entry: Kept::new(),
            ranges: Gate::new(),
            attributes: Gate::new(),
            names: Gate::new(),
            names_count: AtomicUsize::new(0),
            posix_locked: AtomicBool::new(false),
            used: AtomicBool::new(true),
        }
    }

    pub(super) fn kept(&self, kind: LockKind) -> &Kept {
        match kind {
            LockKind::Data => &self.data,
            LockKind::Metadata => &self.metadata,
            LockKind::Entry => &self.entry,
        }
    }

    /// What is known under `generation`.
    pub(super) fn known(&self, generation: u64) -> Option<Known> {
        self.known.lock().as_ref().filter(|known| known.generation == generation).cloned()
    }

    pub(super) fn learn(&self, known: Known) {
        *self.known.lock() = Some(known);
    }

    /// The next reader must ask the bricks again.
    pub(super) fn forget(&self) {
        *self.known.lock() = None;
    }

    /// These missed a change of contents (names, for a directory): no more reads from them.
    pub(super) fn distrust_data(&self, missed: &Set) {
        if let Some(known) = self.known.lock().as_mut() {
            known.readable.data = known.readable.data.minus(missed);
        }
    }

    pub(super) fn distrust_metadata(&self, missed: &Set) {
        if let Some(known) = self.known.lock().as_mut() {
            known.readable.metadata = known.readable.metadata.minus(missed);
        }
    }

    fn is_idle(&self) -> bool {
        self.data.is_free() && self.metadata.is_free() && self.entry.is_free()
    }
}

#[derive(Default)]
pub(super) struct Inodes {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    by_gfid: HashMap<Gfid, Arc<Inode>>,
    /// The clock's hand is the front. Holds exactly the table's gfids.
    order: VecDeque<Gfid>,
}

impl Inodes {
    pub(super) fn get(&self, gfid: Gfid) -> Arc<Inode> {
        let mut table = self.table.lock();
        if let Some(inode) = table.by_gfid.get(&gfid) {
            inode.used.store(true, Ordering::Relaxed);
            return Arc::clone(inode);
        }
        let inode = Arc::new(Inode::new(gfid));
        table.by_gfid.insert(gfid, Arc::clone(&inode));
        table.order.push_back(gfid);
        table.evict();
        inode
    }

    pub(super) fn peek(&self, gfid: Gfid) -> Option<Arc<Inode>> {
        self.table.lock().by_gfid.get(&gfid).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Inode>> {
        let table = self.table.lock();
        table.order.iter().filter_map(|gfid| table.by_gfid.get(gfid).cloned()).collect()
    }
}

impl Table {
    fn evict(&mut self) {
        for _ in 0..EVICTION_STEPS {
            if self.by_gfid.len() <= INODES_MAX {
                return;
            }
            let Some(gfid) = self.order.pop_front() else { return };
            let Some(inode) = self.by_gfid.get(&gfid) else { continue };
            let busy = Arc::strong_count(inode) > 1 || !inode.is_idle();
            if busy || inode.used.swap(false, Ordering::Relaxed) {
                self.order.push_back(gfid);
            } else {
                self.by_gfid.remove(&gfid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_inodes_are_forgotten_and_held_ones_stay() {
        let inodes = Inodes::default();
        let gfid = |n: u64| Gfid(u128::from(n).to_be_bytes());
        let held = inodes.get(gfid(7));
        for n in 0..3 * INODES_MAX as u64 {
            inodes.get(gfid(n + 100));
        }
        assert!(inodes.all().len() <= 2 * INODES_MAX, "{}", inodes.all().len());
        assert!(Arc::ptr_eq(&held, &inodes.peek(gfid(7)).unwrap()));
    }
}
