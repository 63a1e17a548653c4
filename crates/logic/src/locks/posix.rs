//! POSIX record locks of one inode (fcntl(2), flock(2) as a whole-file lock): merge, split, wait.
//!
//! As GlusterFS (`xlators/features/locks/src/common.c`): a waiting request first gives back what its owner holds in the
//! range, so two upgraders cannot deadlock; waiters are tried oldest first and may overtake one another.

use std::collections::VecDeque;

use mortar_types::fop::{Flock, LockType};
use mortar_types::{ClientId, Fd, Pid};

use super::{Caller, Holder, Mode, Range, Ticket};

#[derive(Clone)]
pub(super) struct PosixLock {
    pub(super) caller: Caller,
    pub(super) fd: Fd,
    pub(super) range: Range,
    pub(super) mode: Mode,
    /// The process id in the flock, what F_GETLK tells others.
    pub(super) flock_pid: u32,
}

impl PosixLock {
    pub(super) fn to_flock(&self) -> Flock {
        Flock {
            kind: match self.mode {
                Mode::Shared => LockType::Read,
                Mode::Exclusive => LockType::Write,
            },
            whence: 0,
            start: self.range.start,
            len: self.range.flock_len(),
            pid: self.flock_pid,
            owner: self.caller.holder.owner.clone(),
        }
    }

    fn conflicts(&self, other: &Self) -> bool {
        self.caller.holder != other.caller.holder
            && self.mode.conflicts(other.mode)
            && self.range.overlaps(&other.range)
    }
}

pub(super) struct PosixWaiter {
    pub(super) lock: PosixLock,
    pub(super) ticket: Ticket,
}

#[derive(Default)]
pub(super) struct PosixLocks {
    pub(super) granted: Vec<PosixLock>,
    pub(super) waiting: VecDeque<PosixWaiter>,
}

impl PosixLocks {
    /// The first granted lock that the asked one conflicts with.
    pub(super) fn conflict(&self, asked: &PosixLock) -> Option<&PosixLock> {
        self.granted.iter().find(|lock| lock.conflicts(asked))
    }

    /// Sets the lock: replaces what its holder has in the range, joined with overlapping ranges of the same mode.
    pub(super) fn set(&mut self, mut lock: PosixLock) {
        let holder = lock.caller.holder.clone();
        let mut joined = lock.range;
        self.granted.retain(|old| {
            let joins = old.caller.holder == holder && old.mode == lock.mode && old.range.overlaps(&lock.range);
            if joins {
                joined = joined.hull(&old.range);
            }
            !joins
        });
        self.clear(&holder, &lock.range);
        lock.range = joined;
        self.granted.push(lock);
    }

    /// Gives back the range; what lies outside stays.
    pub(super) fn clear(&mut self, holder: &Holder, hole: &Range) {
        let mut at = 0;
        while at < self.granted.len() {
            let lock = &self.granted[at];
            if lock.caller.holder != *holder || !lock.range.overlaps(hole) {
                at += 1;
                continue;
            }
            let lock = self.granted.remove(at);
            for range in lock.range.without(hole) {
                self.granted.insert(at, PosixLock { range, ..lock.clone() });
                at += 1;
            }
        }
    }

    /// Grants every waiter that nothing stands in the way of, oldest first. A grant can turn its holder's own exclusive
    /// lock into a shared one, so after one the older waiters are looked at again.
    pub(super) fn regrant(&mut self) -> Vec<Ticket> {
        let mut granted = Vec::new();
        loop {
            let before = granted.len();
            for waiter in std::mem::take(&mut self.waiting) {
                if self.conflict(&waiter.lock).is_some() {
                    self.waiting.push_back(waiter);
                } else {
                    granted.push(waiter.ticket);
                    self.set(waiter.lock);
                }
            }
            if granted.len() == before {
                return granted;
            }
        }
    }

    pub(super) fn release_owner(&mut self, holder: &Holder) {
        self.granted.retain(|lock| lock.caller.holder != *holder);
    }

    pub(super) fn release_fd(&mut self, client: ClientId, fd: Fd) {
        self.granted.retain(|lock| lock.caller.holder.client != client || lock.fd != fd);
    }

    pub(super) fn forget_client(&mut self, client: ClientId) -> Vec<Ticket> {
        self.granted.retain(|lock| lock.caller.holder.client != client);
        self.take_waiting(|lock| lock.caller.holder.client == client)
    }

    /// Takes the chosen waiters out, oldest first.
    pub(super) fn take_waiting(&mut self, chosen: impl Fn(&PosixLock) -> bool) -> Vec<Ticket> {
        self.take_waiting_by(|waiter| chosen(&waiter.lock))
    }

    pub(super) fn take_waiting_by(&mut self, chosen: impl Fn(&PosixWaiter) -> bool) -> Vec<Ticket> {
        let mut taken = Vec::new();
        self.waiting.retain(|waiter| {
            let take = chosen(waiter);
            if take {
                taken.push(waiter.ticket);
            }
            !take
        });
        taken
    }

    pub(super) fn mentions(&self, client: ClientId) -> bool {
        self.granted.iter().any(|lock| lock.caller.holder.client == client)
            || self.waiting.iter().any(|waiter| waiter.lock.caller.holder.client == client)
    }

    pub(super) fn len(&self) -> usize {
        self.granted.len() + self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whether an interrupt of `pid` at `client` is meant for the waiter (GlusterFS `clrlk_clear_posixlk`).
pub(super) fn is_interrupted(lock: &PosixLock, client: ClientId, pid: Pid) -> bool {
    lock.caller.holder.client == client && lock.caller.pid == pid
}
