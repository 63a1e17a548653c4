//! A client's own book of the POSIX locks that it holds, to take them again where they are lost or not known yet: on a new
//! connection, on a brick that has joined. By the bricks' rules of merging and splitting, so that both agree.

use std::collections::HashMap;

use mortar_types::fop::{Flock, LockType};
use mortar_types::{ClientId, Fd, Gfid, LkOwner, Pid};

use super::posix::{PosixLock, PosixLocks};
use super::{Caller, Holder, Mode, Range};

/// One lock that is held.
#[derive(Clone, PartialEq, Debug)]
pub struct Held {
    pub gfid: Gfid,
    /// The open file through which it was asked for last.
    pub fd: Fd,
    /// With the owner in it.
    pub flock: Flock,
}

#[derive(Default)]
pub struct Book {
    inodes: HashMap<Gfid, PosixLocks>,
}

impl Book {
    /// The bricks granted this lock, or with [`LockType::Unlock`] took it back. What they would have refused is left out.
    pub fn set(&mut self, gfid: Gfid, fd: Fd, flock: &Flock) {
        let Ok(range) = Range::of_posix(flock.start, flock.len) else { return };
        let holder = holder(&flock.owner);
        let mode = match flock.kind {
            LockType::Read => Mode::Shared,
            LockType::Write => Mode::Exclusive,
            LockType::Unlock => {
                self.change(gfid, |locks| locks.clear(&holder, &range));
                return;
            }
            LockType::Eol => return,
        };
        let caller = Caller { holder, pid: Pid::default() };
        let lock = PosixLock { caller, fd, range, mode, flock_pid: flock.pid };
        self.inodes.entry(gfid).or_default().set(lock);
    }

    /// A FLUSH: all locks of the owner on the inode are gone.
    pub fn flush(&mut self, gfid: Gfid, owner: &LkOwner) {
        self.change(gfid, |locks| locks.release_owner(&holder(owner)));
    }

    /// The open file was closed: locks that came by it are gone.
    pub fn release(&mut self, gfid: Gfid, fd: Fd) {
        self.change(gfid, |locks| locks.release_fd(ClientId::default(), fd));
    }

    /// What is held through an open file.
    pub fn through(&self, gfid: Gfid, fd: Fd) -> Vec<Held> {
        let locks = self.inodes.get(&gfid).into_iter().flat_map(|locks| &locks.granted);
        locks.filter(|lock| lock.fd == fd).map(|lock| Held { gfid, fd, flock: lock.to_flock() }).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.inodes.is_empty()
    }

    fn change(&mut self, gfid: Gfid, change: impl FnOnce(&mut PosixLocks)) {
        let Some(locks) = self.inodes.get_mut(&gfid) else { return };
        change(locks);
        if locks.granted.is_empty() {
            self.inodes.remove(&gfid);
        }
    }
}

fn holder(owner: &LkOwner) -> Holder {
    Holder { client: ClientId::default(), owner: owner.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GFID: Gfid = Gfid([7; 16]);

    fn flock(kind: LockType, owner: u64, start: u64, len: u64) -> Flock {
        Flock { kind, whence: 0, start, len, pid: 9, owner: LkOwner::from_u64(owner) }
    }

    fn ranges(book: &Book, fd: i64) -> Vec<(LockType, u64, u64)> {
        let mut found: Vec<_> =
            book.through(GFID, Fd(fd)).iter().map(|held| (held.flock.kind, held.flock.start, held.flock.len)).collect();
        found.sort_by_key(|(_, start, _)| *start);
        found
    }

    #[test]
    fn an_unlock_in_the_middle_leaves_both_sides() {
        let mut book = Book::default();
        book.set(GFID, Fd(1), &flock(LockType::Write, 1, 0, 0));
        book.set(GFID, Fd(1), &flock(LockType::Unlock, 1, 10, 10));
        assert_eq!(ranges(&book, 1), [(LockType::Write, 0, 10), (LockType::Write, 20, 0)]);
        book.set(GFID, Fd(1), &flock(LockType::Unlock, 1, 0, 0));
        assert!(book.is_empty());
    }

    #[test]
    fn a_lock_taken_again_belongs_to_the_file_it_was_taken_through_last() {
        let mut book = Book::default();
        book.set(GFID, Fd(1), &flock(LockType::Read, 1, 0, 10));
        book.set(GFID, Fd(2), &flock(LockType::Read, 1, 0, 10));
        assert_eq!((ranges(&book, 1).len(), ranges(&book, 2)), (0, vec![(LockType::Read, 0, 10)]));
        book.release(GFID, Fd(1));
        assert_eq!(ranges(&book, 2).len(), 1);
        book.release(GFID, Fd(2));
        assert!(book.is_empty());
    }

    #[test]
    fn a_flush_ends_the_locks_of_its_owner_only() {
        let mut book = Book::default();
        book.set(GFID, Fd(1), &flock(LockType::Read, 1, 0, 10));
        book.set(GFID, Fd(1), &flock(LockType::Read, 2, 0, 10));
        book.flush(GFID, &LkOwner::from_u64(1));
        let left = book.through(GFID, Fd(1));
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].flock, flock(LockType::Read, 2, 0, 10));
        book.set(GFID, Fd(1), &flock(LockType::Write, 2, u64::MAX >> 1 | 1 << 63, 1));
        assert_eq!(book.through(GFID, Fd(1)).len(), 1);
    }
}
