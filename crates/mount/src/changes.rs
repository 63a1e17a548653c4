//! What changed while attributes were on their way: which entries fetched ahead must not be shown any more.
//!
//! A listing fetched ahead of the kernel holds attributes from before requests that this mount answered since. The kernel
//! protects its caches only against what overtakes the READDIRPLUS itself (`fuse_get_attr_version`), so stale sizes in a
//! later answer would cut its idea of a file that was just written, and a removed name would come back. Every change is
//! noted here after the volume did it and before the kernel learns that it is done.
//!
//! Invariant: what a [`Watch`] was made before, and did not see noted, is as the volume had it after the watch was made.
//! Nothing is noted while nobody watches, so writes without listings pay one atomic load.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use mortar_types::{Gfid, Iatt};
use parking_lot::{Mutex, MutexGuard};

/// Changes remembered one by one; beyond them everything counts as changed, which costs a lookup an entry.
const NOTES_MAX: usize = 4096;

/// What a request changes.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Change {
    /// Inodes whose attributes it changes.
    pub inodes: [Option<Gfid>; 3],
    /// Names, in their directories, that lead elsewhere or nowhere after it.
    pub names: [Option<(Gfid, Bytes)>; 2],
    /// Some inode's count of names changes, and only its name is known.
    pub links: bool,
}

#[derive(Debug, Default)]
struct Notes {
    /// Counts changes; the time of this module.
    clock: u64,
    inodes: HashMap<Gfid, u64>,
    /// By directory, so that looking up needs no key of its own.
    names: HashMap<Gfid, HashMap<Bytes, u64>>,
    names_len: usize,
    /// The last change of a count of names.
    links: u64,
    /// The last time that notes were forgotten.
    forgotten: u64,
}

/// The changes of a mount.
#[derive(Debug, Default)]
pub struct Changes {
    watches: AtomicUsize,
    notes: Mutex<Notes>,
}

impl Changes {
    /// Watches from now on: to be called before the volume is asked.
    pub fn watch(self: &Arc<Self>) -> Watch {
        let notes = self.notes.lock();
        // Under the lock, so that the last watch that goes does not clear what this one has begun to collect.
        self.watches.fetch_add(1, Ordering::SeqCst);
        Watch { changes: Arc::clone(self), since: notes.clock }
    }

    /// Notes a change that the volume has done, or may have.
    pub fn note(&self, change: Change) {
        if self.watches.load(Ordering::SeqCst) > 0 {
            self.notes.lock().note(change);
        }
    }
}

impl Notes {
    fn note(&mut self, change: Change) {
        self.clock += 1;
        if self.inodes.len() + self.names_len + change.inodes.len() + change.names.len() > NOTES_MAX {
            self.forget();
        }
        for gfid in change.inodes.into_iter().flatten() {
            self.inodes.insert(gfid, self.clock);
        }
        for (parent, name) in change.names.into_iter().flatten() {
            let before = self.names.entry(parent).or_default().insert(name, self.clock);
            self.names_len += usize::from(before.is_none());
        }
        if change.links {
            self.links = self.clock;
        }
    }

    /// Whatever anybody watches counts as changed from here on.
    fn forget(&mut self) {
        self.inodes.clear();
        self.names.clear();
        self.names_len = 0;
        self.forgotten = self.clock;
    }
}

/// A point in time from which on changes are noted.
#[derive(Debug)]
pub struct Watch {
    changes: Arc<Changes>,
    since: u64,
}

impl Watch {
    /// The changes up to now. Holds a lock: to be dropped before anything waits.
    pub fn look(&self) -> Look<'_> {
        Look { notes: self.changes.notes.lock(), since: self.since }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut notes = self.changes.notes.lock();
        if self.changes.watches.fetch_sub(1, Ordering::SeqCst) == 1 {
            notes.forget();
        }
    }
}

/// What changed since a watch began.
#[derive(Debug)]
pub struct Look<'a> {
    notes: MutexGuard<'a, Notes>,
    since: u64,
}

impl Look<'_> {
    /// Whether nothing at all changed: spares asking entry by entry.
    pub fn is_quiet(&self) -> bool {
        self.notes.clock == self.since
    }

    /// Whether this entry of the directory, as it was when the watch began, may be another one now.
    pub fn is_stale(&self, dir: Gfid, name: &[u8], stat: &Iatt) -> bool {
        let notes = &self.notes;
        let noted = |at: Option<&u64>| at.is_some_and(|at| *at > self.since);
        notes.forgotten > self.since
            || noted(notes.inodes.get(&stat.gfid))
            || noted(notes.names.get(&dir).and_then(|names| names.get(name)))
            || notes.links > self.since && stat.nlink > 1 && !stat.is_dir()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIR: Gfid = Gfid([1; 16]);
    const FILE: Gfid = Gfid([2; 16]);

    fn stat(gfid: Gfid, nlink: u32) -> Iatt {
        Iatt { gfid, nlink, mode: 0o100_644, ..Iatt::default() }
    }

    fn inode(gfid: Gfid) -> Change {
        Change { inodes: [Some(gfid), None, None], ..Change::default() }
    }

    fn name(name: &'static str) -> Change {
        Change { names: [Some((DIR, Bytes::from(name))), None], links: true, ..Change::default() }
    }

    #[test]
    fn a_change_counts_for_who_watched_before_and_not_for_who_watches_after() {
        let changes = Arc::new(Changes::default());
        let before = changes.watch();
        changes.note(inode(FILE));
        let after = changes.watch();
        assert!(before.look().is_stale(DIR, b"f", &stat(FILE, 1)));
        assert!(!before.look().is_stale(DIR, b"g", &stat(Gfid([3; 16]), 1)));
        assert!(!after.look().is_stale(DIR, b"f", &stat(FILE, 1)));
        assert!(after.look().is_quiet() && !before.look().is_quiet());
    }

    #[test]
    fn a_removed_name_is_stale_in_its_directory_only() {
        let changes = Arc::new(Changes::default());
        let watch = changes.watch();
        changes.note(name("f"));
        assert!(watch.look().is_stale(DIR, b"f", &stat(FILE, 1)));
        assert!(!watch.look().is_stale(Gfid([9; 16]), b"f", &stat(FILE, 1)));
    }

    #[test]
    fn a_removed_name_makes_files_with_several_names_stale() {
        let changes = Arc::new(Changes::default());
        let watch = changes.watch();
        changes.note(name("f"));
        assert!(watch.look().is_stale(DIR, b"other-name", &stat(FILE, 2)));
    }

    #[test]
    fn nothing_is_kept_when_nobody_watches() {
        let changes = Arc::new(Changes::default());
        changes.note(inode(FILE));
        assert!(changes.notes.lock().inodes.is_empty());
        let watch = changes.watch();
        changes.note(inode(FILE));
        drop(watch);
        assert!(changes.notes.lock().inodes.is_empty());
        assert!(!changes.watch().look().is_stale(DIR, b"f", &stat(FILE, 1)));
    }

    #[test]
    fn more_changes_than_are_remembered_make_everything_stale() {
        let changes = Arc::new(Changes::default());
        let watch = changes.watch();
        for number in 0..2 * NOTES_MAX as u128 {
            changes.note(inode(Gfid(number.to_be_bytes())));
        }
        let notes = changes.notes.lock();
        assert!(notes.inodes.len() <= NOTES_MAX);
        drop(notes);
        assert!(watch.look().is_stale(DIR, b"x", &stat(Gfid([7; 16]), 1)));
        assert!(!changes.watch().look().is_stale(DIR, b"x", &stat(Gfid([7; 16]), 1)));
    }
}
