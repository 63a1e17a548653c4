//! One lock domain of one inode: who holds, who waits, and the order of grants. Inode and entry locks share it.
//!
//! Grant order (GlusterFS `__lock_inodelk`, `__lock_entrylk`): a conflict with a holder waits; so does a conflict with
//! an earlier waiter, unless the caller holds or awaits another lock here (nested locks must not deadlock).

use std::collections::VecDeque;
use std::time::Duration;

use mortar_types::ClientId;

use super::{Caller, Config, Holder, Ticket};

/// What a lock covers.
pub(super) trait Claim {
    /// Whether the two cannot be held by different holders at once.
    fn conflicts(&self, other: &Self) -> bool;
    /// Whether an unlock of `asked` gives this lock back.
    fn is_unlocked_by(&self, asked: &Self) -> bool;
}

pub(super) struct Granted<C> {
    pub(super) caller: Caller,
    pub(super) claim: C,
    /// When its holder was last told that others wait.
    notified: Option<Duration>,
}

impl<C> Granted<C> {
    /// Whether a contention notice is due; if so it counts as sent.
    pub(super) fn take_notice(&mut self, config: &Config, now: Duration) -> bool {
        let due = config.notify_contention
            && self.notified.is_none_or(|last| now.saturating_sub(last) >= config.notify_delay);
        if due {
            self.notified = Some(now);
        }
        due
    }
}

pub(super) struct Waiting<C> {
    pub(super) caller: Caller,
    pub(super) claim: C,
    pub(super) ticket: Ticket,
}

/// What became of an attempt.
pub(super) enum Attempt<C> {
    Granted,
    /// Not now; the request is given back.
    Conflict(Waiting<C>),
}

pub(super) struct Queue<C> {
    pub(super) granted: Vec<Granted<C>>,
    pub(super) waiting: VecDeque<Waiting<C>>,
}

impl<C> Default for Queue<C> {
    fn default() -> Self {
        Self { granted: Vec::new(), waiting: VecDeque::new() }
    }
}

impl<C: Claim> Queue<C> {
    /// Grants the request unless a rule forbids it. Holders that must be told are passed to `notice`.
    pub(super) fn attempt(
        &mut self,
        request: Waiting<C>,
        config: &Config,
        now: Duration,
        notice: &mut dyn FnMut(&Granted<C>),
    ) -> Attempt<C> {
        let holder = &request.caller.holder;
        let mut conflict = false;
        for lock in &mut self.granted {
            if lock.caller.holder != *holder && lock.claim.conflicts(&request.claim) {
                conflict = true;
                if lock.take_notice(config, now) {
                    notice(lock);
                }
            }
        }
        let overtakes = self.waiting.iter().any(|waiter| waiter.claim.conflicts(&request.claim));
        if conflict || (overtakes && !self.is_known(holder)) {
            return Attempt::Conflict(request);
        }
        self.granted.push(Granted { caller: request.caller, claim: request.claim, notified: None });
        Attempt::Granted
    }

    /// Takes the lock that the unlock names; of several equal ones the newest. `false` when the caller holds none.
    pub(super) fn release(&mut self, holder: &Holder, asked: &C) -> bool {
        let found =
            self.granted.iter().rposition(|lock| lock.caller.holder == *holder && lock.claim.is_unlocked_by(asked));
        if let Some(at) = found {
            self.granted.remove(at);
        }
        found.is_some()
    }

    /// Tries every waiter once, oldest first; `may_try` bars some. Returns the tickets that were granted.
    pub(super) fn regrant(
        &mut self,
        config: &Config,
        now: Duration,
        may_try: &dyn Fn(&Caller) -> bool,
        notice: &mut dyn FnMut(&Granted<C>),
    ) -> Vec<Ticket> {
        let mut granted = Vec::new();
        for waiter in std::mem::take(&mut self.waiting) {
            let ticket = waiter.ticket;
            if !may_try(&waiter.caller) {
                self.waiting.push_back(waiter);
                continue;
            }
            match self.attempt(waiter, config, now, notice) {
                Attempt::Granted => granted.push(ticket),
                Attempt::Conflict(waiter) => self.waiting.push_back(waiter),
            }
        }
        granted
    }

    /// Drops all that belongs to the client; the tickets of its waiters.
    pub(super) fn forget_client(&mut self, client: ClientId) -> Vec<Ticket> {
        self.granted.retain(|lock| lock.caller.holder.client != client);
        self.take_waiting(|waiter| waiter.caller.holder.client == client)
    }

    /// Takes the chosen waiters out, oldest first.
    pub(super) fn take_waiting(&mut self, chosen: impl Fn(&Waiting<C>) -> bool) -> Vec<Ticket> {
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
            || self.waiting.iter().any(|waiter| waiter.caller.holder.client == client)
    }

    pub(super) fn len(&self) -> usize {
        self.granted.len() + self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn is_known(&self, holder: &Holder) -> bool {
        self.granted.iter().any(|lock| lock.caller.holder == *holder)
            || self.waiting.iter().any(|waiter| waiter.caller.holder == *holder)
    }
}
