//! What was read from an inode's xattrs for a listing or a lookup, for as long as the inode is unchanged.
//!
//! A listing asks of every entry its gfid and its kept times: one or two xattr calls an entry, which cost more than the
//! stat. Both are set by setxattr, which moves the inode's ctime (ext4, XFS, btrfs and tmpfs alike), and so do unlink,
//! link and rename. So an inode number with the ctime that it had when its xattrs were read still has those xattrs,
//! whoever else works on the brick. Two changes within one tick of the kernel's clock may get one ctime: what changed less
//! than [`SETTLED_SECONDS`] before the stat is not remembered.
//!
//! Directories are left out: the handle of a directory is an inode of its own, whose loss its ctime does not tell. A
//! file's handle is a link to it.

use std::collections::HashMap;

use mortar_types::{Gfid, Mdata};
use parking_lot::Mutex;
use rustix::fs::Stat;

use super::resolve::is_dir;

/// How old a change must be to be told from a second one by its ctime: far above any tick (10 ms at the most), and above
/// what a clock is usually slewed or stepped by.
const SETTLED_SECONDS: i64 = 2;

/// Shards of the table: enough that threads rarely meet.
const SHARDS: usize = 16;

/// Inodes remembered, about 100 bytes each. Without descriptors, unlike the inode table, so more than it holds.
const INODES_MAX: usize = 131_072;

/// What an inode's xattrs say. Its handle was seen to lead to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Known {
    pub(crate) gfid: Gfid,
    /// `trusted.glusterfs.mdata`, `None` when it has none or the brick keeps none.
    pub(crate) times: Option<Mdata>,
}

/// Seconds and nanoseconds.
type Ctime = (i64, u64);

/// The table, by inode number.
pub(crate) struct KnownTable {
    /// The brick's file system; what is mounted below it has inode numbers of its own.
    dev: u64,
    shards: [Mutex<HashMap<u64, (Ctime, Known)>>; SHARDS],
    shard_max: usize,
}

impl KnownTable {
    pub(crate) fn new(dev: u64) -> Self {
        Self { dev, shards: std::array::from_fn(|_| Mutex::default()), shard_max: INODES_MAX / SHARDS }
    }

    /// What is known of the inode that has these attributes now.
    pub(crate) fn get(&self, stat: &Stat) -> Option<Known> {
        if stat.st_dev != self.dev {
            return None;
        }
        let (ctime, known) = *self.shard(stat.st_ino).lock().get(&stat.st_ino)?;
        (ctime == ctime_of(stat)).then_some(known)
    }

    /// Remembers what was read after `stat` was. `now` is the time of day in seconds from before both: whatever changes the
    /// inode after the stat then gets a later ctime, however long the reading took.
    pub(crate) fn remember(&self, stat: &Stat, now: i64, known: Known) {
        let settled = now.saturating_sub(stat.st_ctime) >= SETTLED_SECONDS;
        if stat.st_dev != self.dev || is_dir(stat) || !settled {
            return;
        }
        let mut shard = self.shard(stat.st_ino).lock();
        if shard.len() >= self.shard_max && !shard.contains_key(&stat.st_ino) {
            // All at once: to keep an order would cost every hit, and reading again is what happened without the table.
            shard.clear();
        }
        shard.insert(stat.st_ino, (ctime_of(stat), known));
    }

    fn shard(&self, ino: u64) -> &Mutex<HashMap<u64, (Ctime, Known)>> {
        &self.shards[(ino % SHARDS as u64) as usize]
    }
}

const fn ctime_of(stat: &Stat) -> Ctime {
    (stat.st_ctime, stat.st_ctime_nsec)
}

/// The time of day, for [`KnownTable::remember`].
pub(crate) fn now() -> i64 {
    rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attributes of a real file, with the inode number and ctime that a test wants.
    fn stat(ino: u64, ctime: Ctime) -> Stat {
        let mut stat = rustix::fs::stat("/proc/self/exe").expect("a test knows its binary");
        (stat.st_ino, stat.st_ctime, stat.st_ctime_nsec) = (ino, ctime.0, ctime.1);
        stat
    }

    fn table() -> KnownTable {
        KnownTable::new(stat(0, (0, 0)).st_dev)
    }

    const KNOWN: Known = Known { gfid: Gfid::TRASH, times: None };

    #[test]
    fn what_did_not_change_is_known() {
        let table = table();
        table.remember(&stat(5, (100, 7)), 102, KNOWN);
        assert_eq!(table.get(&stat(5, (100, 7))), Some(KNOWN));
        assert_eq!(table.get(&stat(6, (100, 7))), None);
    }

    #[test]
    fn any_other_ctime_means_read_again() {
        let table = table();
        table.remember(&stat(5, (100, 7)), 200, KNOWN);
        assert_eq!(table.get(&stat(5, (100, 8))), None);
        assert_eq!(table.get(&stat(5, (99, 7))), None);
    }

    #[test]
    fn what_changed_just_now_is_not_remembered() {
        let table = table();
        table.remember(&stat(5, (100, 7)), 101, KNOWN);
        assert_eq!(table.get(&stat(5, (100, 7))), None);
        // A clock that was set back.
        table.remember(&stat(5, (100, 7)), 50, KNOWN);
        assert_eq!(table.get(&stat(5, (100, 7))), None);
    }

    #[test]
    fn another_file_system_and_directories_are_not_remembered() {
        let table = table();
        let mut other = stat(5, (100, 7));
        other.st_dev += 1;
        table.remember(&other, 200, KNOWN);
        assert_eq!(table.get(&other), None);
        let mut dir = stat(5, (100, 7));
        dir.st_mode = 0o040_755;
        table.remember(&dir, 200, KNOWN);
        assert_eq!(table.get(&dir), None);
    }

    #[test]
    fn the_table_is_bounded() {
        let table = table();
        let mut stat = stat(0, (100, 7));
        for ino in 0..3 * INODES_MAX as u64 {
            stat.st_ino = ino;
            table.remember(&stat, 200, KNOWN);
        }
        let held: usize = table.shards.iter().map(|shard| shard.lock().len()).sum();
        assert!(held <= INODES_MAX, "{held}");
    }
}
