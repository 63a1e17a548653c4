//! The lock table of a brick: inodelk, entrylk and POSIX locks, and the barrier that a removal meets at inodelks.
//!
//! A pure machine: each `handle_*` method of [`LockTable`] is one event and returns every [`Action`] that follows from
//! it, in the order in which they must be carried out. A request is named by the caller's [`Ticket`] and gets exactly
//! one [`Action::Grant`] or [`Action::Deny`], at once or from a later event, unless it is cancelled before. Time is an
//! argument. Rules: GlusterFS `xlators/features/locks` (`docs/compat.md`); where the two differ, the comment says so.
//!
//! Invariants: no two granted locks conflict; a waiter that could be granted is granted by the event that made it
//! possible; an inode without locks, waiters and removals has no entry in the table.

mod book;
mod clear;
mod inode;
mod posix;
mod queue;
mod range;
mod table;

#[cfg(test)]
mod oracle_tests;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use mortar_types::fop::{EntrylkType, Flock};
use mortar_types::{ClientId, Errno, Fd, Gfid, LkOwner, Pid};

pub use book::{Book, Held};
pub use clear::{ClearCommand, ClearFilter, ClearKind, ClearType, Cleared, InvalidClearCommand};
pub use range::Range;
pub use table::LockTable;

/// One lock request until it is answered; the caller numbers them and never uses a number twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Ticket(pub u64);

/// Whose a lock is: two locks of the same holder never conflict (GlusterFS `same_inodelk_owner`).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Holder {
    pub client: ClientId,
    pub owner: LkOwner,
}

/// Who asks: the holder and the process id of the credential, below zero for internal callers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    pub holder: Holder,
    pub pid: Pid,
}

/// Shared locks conflict with exclusive ones, exclusive ones with every other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Shared,
    Exclusive,
}

impl Mode {
    const fn conflicts(self, other: Self) -> bool {
        matches!(self, Self::Exclusive) || matches!(other, Self::Exclusive)
    }
}

/// What a request that meets a conflict does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnConflict {
    /// Waits for its turn.
    Wait,
    /// Fails with EAGAIN.
    Fail,
}

/// A request for, or the return of, an inode lock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inodelk {
    pub gfid: Gfid,
    pub caller: Caller,
    pub domain: Bytes,
    /// As it came; `whence` is ignored as GlusterFS does.
    pub flock: Flock,
}

/// A request for, or the return of, an entry lock. The type never matters for conflicts, but an unlock must name it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entrylk {
    pub gfid: Gfid,
    pub caller: Caller,
    pub domain: Bytes,
    /// `None`: every name of the directory.
    pub name: Option<Bytes>,
    pub kind: EntrylkType,
}

/// A request for, the return of, or a question about a POSIX lock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Posixlk {
    pub gfid: Gfid,
    pub caller: Caller,
    /// The fd it came by: releasing that fd releases the lock.
    pub fd: Fd,
    pub flock: Flock,
}

/// A lock that its holder should give back soon because somebody else wants it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Contention {
    /// `flock` as the holder's request had it.
    Inodelk {
        gfid: Gfid,
        flock: Flock,
        domain: Bytes,
    },
    Entrylk {
        gfid: Gfid,
        kind: EntrylkType,
        name: Option<Bytes>,
        domain: Bytes,
        pid: Pid,
    },
}

/// What the caller must do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// The request succeeded; for a removal: go on, and report its end.
    Grant(Ticket),
    /// The request failed.
    Deny(Ticket, Errno),
    /// Tell the holder.
    Notify { client: ClientId, contention: Contention },
}

/// Limits and switches of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// `features.lock-notify-contention`.
    pub notify_contention: bool,
    /// `features.lock-notify-contention-delay`: the shortest time between two notices about one lock.
    pub notify_delay: Duration,
    /// Requests that may wait on one inode; more are denied with ENOLCK.
    pub waiting_per_inode_max: usize,
    /// Locks that may be held on one inode; more are denied with ENOLCK. Keeps the linear walks short.
    pub granted_per_inode_max: usize,
}

impl Default for Config {
    /// GlusterFS's defaults; its lists have no bound. Ours lie far above what clients of a healthy volume hold.
    fn default() -> Self {
        Self {
            notify_contention: true,
            notify_delay: Duration::from_secs(5),
            waiting_per_inode_max: 16_384,
            granted_per_inode_max: 65_536,
        }
    }
}

/// The client op-version from which an empty lock owner is refused (GlusterFS `pl_is_lk_owner_valid`).
pub const OP_VERSION_OWNER_REQUIRED: u32 = 70_000;

fn is_null_owner(owner: &LkOwner) -> bool {
    owner.0.iter().all(|byte| *byte == 0)
}
