//! The book of file locks that this mount asked for: whose locks a close must drop, and what an interrupted wait may leave
//! behind.
//!
//! The locks themselves are the bricks'. The book only has to be complete: an owner is noted before its lock is asked
//! for, so a close in the meantime still drops it.

use std::collections::HashMap;

use mortar_types::Gfid;
use mortar_types::fop::LockType;
use parking_lot::Mutex;

use crate::kernel::request::Lock;

/// A range with an inclusive end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    pub start: u64,
    pub end: u64,
}

/// What an owner may have locked on an inode.
#[derive(Debug, Default)]
struct Owned {
    /// The handles that locks were asked through.
    handles: Vec<u64>,
    /// What the bricks granted, without order or overlap.
    held: Vec<Range>,
}

/// Locks by inode and owner.
#[derive(Debug, Default)]
pub struct LockBook {
    owners: Mutex<HashMap<(Gfid, u64), Owned>>,
}

/// The end of a lock "to the end of the file" (Linux `OFFSET_MAX`).
pub const END: u64 = i64::MAX as u64;

/// A request on everything of a file.
pub const fn whole_file(kind: LockType, owner: u64) -> Lock {
    Lock { fh: 0, owner, start: 0, end: END, kind: kind.raw(), pid: 0, flock: false }
}

impl LockBook {
    /// Notes that a lock is about to be asked for.
    pub fn asked(&self, gfid: Gfid, lock: &Lock) {
        let mut owners = self.owners.lock();
        let owned = owners.entry((gfid, lock.owner)).or_default();
        if !owned.handles.contains(&lock.fh) {
            owned.handles.push(lock.fh);
        }
    }

    /// Notes that the bricks locked or unlocked a range.
    pub fn granted(&self, gfid: Gfid, lock: &Lock) {
        let mut owners = self.owners.lock();
        let Some(owned) = owners.get_mut(&(gfid, lock.owner)) else { return };
        let range = Range { start: lock.start, end: lock.end };
        owned.held = subtract(&owned.held, range);
        if lock.kind != LockType::Unlock.raw() {
            owned.held.push(range);
        }
    }

    /// Forgets an owner; whether it may have had locks.
    pub fn take(&self, gfid: Gfid, owner: u64) -> bool {
        let mut owners = self.owners.lock();
        !owners.is_empty() && owners.remove(&(gfid, owner)).is_some()
    }

    /// Forgets the owners that locked through a handle which is being closed for good.
    pub fn owners_through(&self, handle: u64) -> Vec<u64> {
        let mut owners = self.owners.lock();
        let mut found = Vec::new();
        owners.retain(|(_, owner), owned| {
            let through = owned.handles.contains(&handle);
            if through {
                found.push(*owner);
            }
            !through
        });
        found
    }

    /// The parts of a range that its owner does not hold: what to unlock when a lock is granted that nobody waits for
    /// any more. Its owner may have locked some of it again meanwhile, and the bricks merge the locks of an owner.
    pub fn unheld(&self, gfid: Gfid, lock: &Lock) -> Vec<Range> {
        let mut rest = vec![Range { start: lock.start, end: lock.end }];
        if let Some(owned) = self.owners.lock().get(&(gfid, lock.owner)) {
            for held in &owned.held {
                rest = subtract(&rest, *held);
            }
        }
        rest
    }
}

/// `ranges` without `hole`.
fn subtract(ranges: &[Range], hole: Range) -> Vec<Range> {
    let mut rest = Vec::with_capacity(ranges.len() + 1);
    for range in ranges {
        if range.end < hole.start || hole.end < range.start {
            rest.push(*range);
            continue;
        }
        if range.start < hole.start {
            rest.push(Range { start: range.start, end: hole.start - 1 });
        }
        if range.end > hole.end {
            rest.push(Range { start: hole.end + 1, end: range.end });
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lock(kind: LockType, start: u64, end: u64) -> Lock {
        Lock { fh: 1, owner: 9, start, end, kind: kind.raw(), pid: 0, flock: false }
    }

    #[test]
    fn a_close_finds_an_owner_whose_lock_was_only_asked_for() {
        let book = LockBook::default();
        assert!(!book.take(Gfid::ROOT, 9));
        book.asked(Gfid::ROOT, &lock(LockType::Write, 0, 9));
        assert!(book.take(Gfid::ROOT, 9));
        assert!(!book.take(Gfid::ROOT, 9));
    }

    #[test]
    fn the_last_close_finds_the_owners_that_locked_through_the_handle() {
        let book = LockBook::default();
        book.asked(Gfid::ROOT, &lock(LockType::Write, 0, 9));
        assert!(book.owners_through(2).is_empty());
        assert_eq!(book.owners_through(1), [9]);
    }

    #[test]
    fn a_late_grant_leaves_alone_what_was_locked_again() {
        let book = LockBook::default();
        let late = lock(LockType::Write, 0, 99);
        book.asked(Gfid::ROOT, &late);
        book.granted(Gfid::ROOT, &lock(LockType::Write, 10, 19));
        book.granted(Gfid::ROOT, &lock(LockType::Unlock, 15, 16));
        let parts: Vec<_> = book.unheld(Gfid::ROOT, &late).iter().map(|range| (range.start, range.end)).collect();
        assert_eq!(parts, [(0, 9), (15, 16), (20, 99)]);
    }

    proptest! {
        #[test]
        fn subtraction_agrees_with_sets(a in 0_u64..20, b in 0_u64..20, c in 0_u64..20, d in 0_u64..20) {
            let (range, hole) = (Range { start: a.min(b), end: a.max(b) }, Range { start: c.min(d), end: c.max(d) });
            let rest = subtract(&[range], hole);
            for at in 0..21 {
                let inside = |range: &Range| (range.start..=range.end).contains(&at);
                prop_assert_eq!(rest.iter().any(inside), inside(&range) && !inside(&hole));
            }
        }
    }
}
