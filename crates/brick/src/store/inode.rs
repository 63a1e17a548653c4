//! What the store remembers of an inode, and the table of them.
//!
//! An inode here is a cache: forgetting one that nobody uses loses nothing, because everything true is on disk. Invariant: an
//! inode with open fds, or with a fop under way, is never forgotten (somebody else holds its `Arc`), so its locks and
//! its count of fds mean what they say.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use mortar_types::{Gfid, Mdata};
use parking_lot::{Mutex, MutexGuard};

/// Something read from disk once.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cached<T> {
    Unknown,
    Known(T),
}

/// What may be forgotten.
#[derive(Debug)]
pub(crate) struct Memory {
    /// A directory's descriptor: it stays right when the directory is renamed.
    pub(crate) dir: Option<Arc<OwnedFd>>,
    /// A file's descriptor for calls with the anonymous fd.
    pub(crate) anonymous: Option<Arc<OwnedFd>>,
    /// `trusted.glusterfs.mdata`, `None` when it has none.
    pub(crate) mdata: Cached<Option<Mdata>>,
    /// Whether a directory has a default ACL.
    pub(crate) default_acl: Cached<bool>,
    /// The handle was seen to lead here.
    pub(crate) handle_checked: bool,
    /// The handle waits in `.glusterfs/unlink` for the last fd to go.
    pub(crate) parked: bool,
    /// Whether the inode is in `indices/xattrop` and `indices/dirty`.
    pub(crate) indexed: [Cached<bool>; 2],
}

impl Memory {
    const NOTHING: Self = Self {
        dir: None,
        anonymous: None,
        mdata: Cached::Unknown,
        default_acl: Cached::Unknown,
        handle_checked: false,
        parked: false,
        indexed: [Cached::Unknown; 2],
    };
}

/// One inode, shared by all fops on it.
#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) gfid: Gfid,
    /// Open fds, the anonymous one not counted.
    open_fds: AtomicU32,
    /// How often its data failed to reach the disk: fds opened before the last failure answer EIO.
    failures: AtomicU32,
    /// Serialises changes of a directory's entries, so that what was read of a name is still true when it is changed.
    /// Taken before any `serial`; two of them in the order of [`lock_pair`]. Never held across an await.
    entries: Mutex<()>,
    /// Serialises what takes several system calls on this inode: xattrop, handle and last name, release. At most one is
    /// held at a time. Never held across an await.
    serial: Mutex<()>,
    memory: Mutex<Memory>,
}

impl Inode {
    fn new(gfid: Gfid) -> Self {
        Self {
            gfid,
            open_fds: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            entries: Mutex::new(()),
            serial: Mutex::new(()),
            memory: Mutex::new(Memory::NOTHING),
        }
    }

    pub(crate) fn lock_entries(&self) -> MutexGuard<'_, ()> {
        self.entries.lock()
    }

    pub(crate) fn serialise(&self) -> MutexGuard<'_, ()> {
        self.serial.lock()
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock()
    }

    pub(crate) fn open_fds(&self) -> u32 {
        self.open_fds.load(Ordering::Acquire)
    }

    pub(crate) fn count_open(&self) {
        self.open_fds.fetch_add(1, Ordering::AcqRel);
    }

    /// Returns how many are left.
    pub(crate) fn count_close(&self) -> u32 {
        let before = self.open_fds.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "an fd is closed once");
        before.saturating_sub(1)
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failures.load(Ordering::Acquire)
    }

    /// Data may be lost: every fd that is open now must say so from here on.
    pub(crate) fn latch_failure(&self) {
        self.failures.fetch_add(1, Ordering::AcqRel);
        self.memory().anonymous = None;
    }

    /// Forgets everything, when the inode was removed or its gfid begins a new life.
    pub(crate) fn forget(&self) {
        *self.memory() = Memory::NOTHING;
    }
}

/// The entry locks of two directories, always in the order of their gfids so that two fops cannot wait for each other; one
/// guard when both are the same.
pub(crate) fn lock_pair<'a>(one: &'a Inode, two: &'a Inode) -> (MutexGuard<'a, ()>, Option<MutexGuard<'a, ()>>) {
    if std::ptr::eq(one, two) {
        return (one.lock_entries(), None);
    }
    let (first, second) = if one.gfid <= two.gfid { (one, two) } else { (two, one) };
    let guard = first.lock_entries();
    (guard, Some(second.lock_entries()))
}

/// Shards of the table: enough that threads rarely meet.
const SHARDS: usize = 16;

/// All remembered inodes.
pub(crate) struct InodeTable {
    shards: [Mutex<Shard>; SHARDS],
    shard_max: usize,
}

/// Part of the table. `order` holds each key once, oldest first; unused inodes at its head are forgotten.
#[derive(Default)]
struct Shard {
    inodes: HashMap<Gfid, Slot>,
    order: VecDeque<Gfid>,
}

struct Slot {
    inode: Arc<Inode>,
    /// Used since it last came to the head of the order: gets a second round.
    used: bool,
}

impl InodeTable {
    pub(crate) fn new(inodes_max: usize) -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), shard_max: (inodes_max / SHARDS).max(4) }
    }

    /// The inode of this gfid; whether it exists on disk is for the caller to find out.
    pub(crate) fn get(&self, gfid: Gfid) -> Arc<Inode> {
        let mut shard = self.shards[usize::from(gfid.0[15]) % SHARDS].lock();
        if let Some(slot) = shard.inodes.get_mut(&gfid) {
            slot.used = true;
            return slot.inode.clone();
        }
        if shard.inodes.len() >= self.shard_max {
            shard.evict();
        }
        let inode = Arc::new(Inode::new(gfid));
        shard.inodes.insert(gfid, Slot { inode: inode.clone(), used: false });
        shard.order.push_back(gfid);
        inode
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().inodes.len()).sum()
    }
}

impl Shard {
    /// Forgets one inode that nobody uses. Looks at a bounded number: when all those are in use the table grows.
    fn evict(&mut self) {
        const LOOKS_MAX: usize = 32;
        for _ in 0..LOOKS_MAX {
            let Some(gfid) = self.order.pop_front() else { return };
            let Some(slot) = self.inodes.get_mut(&gfid) else { continue };
            // The table's lock is held, so nobody can take the only reference meanwhile.
            let free = Arc::strong_count(&slot.inode) == 1 && slot.inode.open_fds() == 0;
            if free && !slot.used {
                self.inodes.remove(&gfid);
                return;
            }
            slot.used = false;
            self.order.push_back(gfid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_bounded_and_keeps_what_is_in_use() {
        let table = InodeTable::new(64);
        let held = table.get(Gfid::ROOT);
        held.count_open();
        for _ in 0..10_000 {
            table.get(Gfid::random());
        }
        assert!(table.len() <= 64 + SHARDS, "{}", table.len());
        assert!(Arc::ptr_eq(&held, &table.get(Gfid::ROOT)));
    }

    #[test]
    fn two_fops_take_two_locks_in_one_order() {
        let table = InodeTable::new(64);
        let (one, two) = (table.get(Gfid::ROOT), table.get(Gfid::TRASH));
        drop(lock_pair(&one, &two));
        drop(lock_pair(&two, &one));
        assert!(lock_pair(&one, &one).1.is_none());
    }
}
