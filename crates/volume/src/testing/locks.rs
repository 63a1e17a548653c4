//! Locks of a brick in memory: inodelk, entrylk and posix locks with the granting order of GlusterFS's locks translator.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use mortar_types::fop::{EntrylkType, Flock};
use mortar_types::{ClientId, Errno, Gfid, LkOwner, Upcall};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// `features.lock-notify-contention-delay`.
const NOTIFY_EVERY: Duration = Duration::from_secs(5);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Space {
    Inode(Gfid, Bytes),
    Entry(Gfid, Bytes),
    Posix(Gfid),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Claim {
    /// Inclusive bytes.
    Range {
        start: u64,
        end: u64,
        write: bool,
        flock: Flock,
    },
    Name(Option<Bytes>),
}

impl Claim {
    fn conflicts(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Range { start, end, write, .. },
                Self::Range { start: other_start, end: other_end, write: other_write, .. },
            ) => start <= other_end && other_start <= end && (*write || *other_write),
            (Self::Name(name), Self::Name(other)) => name.is_none() || other.is_none() || name == other,
            _ => false,
        }
    }

    fn same_range(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Range { start, end, .. }, Self::Range { start: other_start, end: other_end, .. }) => {
                start == other_start && end == other_end
            }
            (Self::Name(name), Self::Name(other)) => name == other,
            _ => false,
        }
    }
}

pub(super) type Owner = (ClientId, LkOwner);

struct Lock {
    owner: Owner,
    claim: Claim,
    notified: Option<Instant>,
}

struct Waiter {
    owner: Owner,
    claim: Claim,
    granted: oneshot::Sender<()>,
}

#[derive(Default)]
struct Queue {
    granted: Vec<Lock>,
    waiting: VecDeque<Waiter>,
}

#[derive(Default)]
pub(super) struct Locks {
    spaces: HashMap<Space, Queue>,
    /// Removals that wait until no other client holds a lock of the inode.
    parked: HashMap<Gfid, Vec<oneshot::Sender<()>>>,
}

/// Whom to tell that somebody waits.
pub(super) type Notices = Vec<(ClientId, Upcall)>;

pub(super) enum Asked {
    Granted,
    Refused,
    Wait(oneshot::Receiver<()>),
}

impl Locks {
    pub(super) fn ask(&mut self, space: &Space, owner: &Owner, claim: Claim, waits: bool) -> (Asked, Notices) {
        let queue = self.spaces.entry(space.clone()).or_default();
        let notices = queue.notices(space, owner, &claim);
        let free = queue.granted.iter().all(|lock| lock.owner == *owner || !lock.claim.conflicts(&claim));
        let known = queue.granted.iter().any(|lock| lock.owner == *owner);
        // Nobody overtakes a waiter, except who already has something here (`locks/inodelk.c`).
        let fair = known || queue.waiting.iter().all(|waiter| !waiter.claim.conflicts(&claim));
        if free && fair {
            queue.granted.push(Lock { owner: owner.clone(), claim, notified: None });
            return (Asked::Granted, notices);
        }
        if !waits {
            return (Asked::Refused, notices);
        }
        let (granted, waiting) = oneshot::channel();
        queue.waiting.push_back(Waiter { owner: owner.clone(), claim, granted });
        (Asked::Wait(waiting), notices)
    }

    /// The removal barrier (`locks/common.c` pl_inode_remove_*): a removal waits for other clients' inode locks, whose
    /// holders are told. `None` when it may go on.
    pub(super) fn park_removal(&mut self, gfid: Gfid, owner: &Owner) -> Option<(oneshot::Receiver<()>, Notices)> {
        let mut notices = Vec::new();
        let mut held = false;
        for (space, queue) in &mut self.spaces {
            let Space::Inode(at, _) = space else { continue };
            if *at == gfid && queue.granted.iter().any(|lock| lock.owner.0 != owner.0) {
                held = true;
                let flock = Flock {
                    kind: mortar_types::fop::LockType::Write,
                    whence: 0,
                    start: 0,
                    len: 0,
                    pid: 0,
                    owner: owner.1.clone(),
                };
                let all = Claim::Range { start: 0, end: u64::MAX, write: true, flock };
                notices.extend(queue.notices(space, owner, &all));
            }
        }
        held.then(|| {
            let (released, waiting) = oneshot::channel();
            self.parked.entry(gfid).or_default().push(released);
            (waiting, notices)
        })
    }

    fn wake_removals(&mut self, space: &Space) {
        if let Space::Inode(gfid, _) = space {
            for released in self.parked.remove(gfid).unwrap_or_default() {
                // Whoever gave up waiting needs no news.
                let _gave_up = released.send(());
            }
        }
    }

    pub(super) fn unlock(&mut self, space: &Space, owner: &Owner, claim: &Claim) -> (Result<(), Errno>, Notices) {
        let Some(queue) = self.spaces.get_mut(space) else { return (Err(Errno::EINVAL), Vec::new()) };
        let at = queue.granted.iter().position(|lock| lock.owner == *owner && lock.claim.same_range(claim));
        let Some(at) = at else { return (Err(Errno::EINVAL), Vec::new()) };
        queue.granted.remove(at);
        let notices = queue.grant_waiting(space);
        if queue.granted.is_empty() && queue.waiting.is_empty() {
            self.spaces.remove(space);
        }
        self.wake_removals(space);
        (Ok(()), notices)
    }

    /// Removes an owner's posix locks within a range.
    pub(super) fn unlock_posix(&mut self, space: &Space, owner: &Owner, claim: &Claim) {
        if let Some(queue) = self.spaces.get_mut(space) {
            let everything = |lock: &Lock| match (&lock.claim, claim) {
                (Claim::Range { start, end, .. }, Claim::Range { start: from, end: to, .. }) => {
                    start <= to && from <= end
                }
                _ => false,
            };
            queue.granted.retain(|lock| lock.owner != *owner || !everything(lock));
            queue.grant_waiting(space);
        }
    }

    /// The first lock of another owner that conflicts.
    pub(super) fn conflict(&self, space: &Space, owner: &Owner, claim: &Claim) -> Option<Flock> {
        let queue = self.spaces.get(space)?;
        queue.granted.iter().find(|lock| lock.owner != *owner && lock.claim.conflicts(claim)).and_then(|lock| {
            match &lock.claim {
                Claim::Range { flock, .. } => Some(flock.clone()),
                Claim::Name(_) => None,
            }
        })
    }

    /// Locks held and waited for on an inode in one domain, or in all of them.
    pub(super) fn count_inode(&self, gfid: Gfid, domain: Option<&Bytes>) -> usize {
        self.spaces
            .iter()
            .filter(|(space, _)| matches!(space, Space::Inode(at, of) if *at == gfid && domain.is_none_or(|d| d == of)))
            .map(|(_, queue)| queue.granted.len() + queue.waiting.len())
            .sum()
    }

    pub(super) fn is_name_locked(&self, gfid: Gfid, name: &Bytes) -> bool {
        let claim = Claim::Name(Some(name.clone()));
        self.spaces.iter().any(|(space, queue)| {
            matches!(space, Space::Entry(at, _) if *at == gfid)
                && queue.granted.iter().any(|lock| lock.claim.conflicts(&claim))
        })
    }

    pub(super) fn count_all(&self) -> usize {
        self.spaces.values().map(|queue| queue.granted.len() + queue.waiting.len()).sum()
    }
}

impl Queue {
    fn notices(&mut self, space: &Space, owner: &Owner, claim: &Claim) -> Notices {
        let now = Instant::now();
        let mut notices = Vec::new();
        for lock in &mut self.granted {
            let muted = lock.notified.is_some_and(|then| now < then + NOTIFY_EVERY);
            if lock.owner == *owner || !lock.claim.conflicts(claim) || muted {
                continue;
            }
            let upcall = match (space, &lock.claim) {
                (Space::Inode(gfid, domain), Claim::Range { flock, .. }) => {
                    Upcall::InodelkContention { gfid: *gfid, flock: flock.clone(), domain: domain.clone() }
                }
                (Space::Entry(gfid, domain), Claim::Name(name)) => Upcall::EntrylkContention {
                    gfid: *gfid,
                    kind: EntrylkType::Write,
                    name: name.clone(),
                    domain: domain.clone(),
                },
                _ => continue,
            };
            lock.notified = Some(now);
            notices.push((lock.owner.0, upcall));
        }
        notices
    }

    fn grant_waiting(&mut self, space: &Space) -> Notices {
        let mut notices = Vec::new();
        let mut still_waiting: VecDeque<Waiter> = VecDeque::new();
        while let Some(waiter) = self.waiting.pop_front() {
            let free =
                self.granted.iter().all(|lock| lock.owner == waiter.owner || !lock.claim.conflicts(&waiter.claim))
                    && still_waiting.iter().all(|other| !other.claim.conflicts(&waiter.claim));
            if !free {
                notices.extend(self.notices(space, &waiter.owner, &waiter.claim));
                still_waiting.push_back(waiter);
            } else if waiter.granted.send(()).is_ok() {
                self.granted.push(Lock { owner: waiter.owner, claim: waiter.claim, notified: None });
            }
        }
        self.waiting = still_waiting;
        notices
    }
}
