//! All locks of one inode, and the removal barrier.
//!
//! The barrier (GlusterFS `pl_inode_remove_*`, since 8): an unlink, rmdir or rename onto the inode waits while another
//! client holds an inodelk, and while it waits or runs no new inodelk is granted, except to clients that hold one
//! already. Locks of internal callers (pid below zero) neither hold a removal up nor are held up by one.

use std::time::Duration;

use bytes::Bytes;
use mortar_types::fop::{EntrylkType, Flock};
use mortar_types::{ClientId, Errno, Gfid};

use super::posix::PosixLocks;
use super::queue::{Attempt, Claim, Granted, Queue, Waiting};
use super::{Action, Caller, Config, Contention, Holder, Mode, OnConflict, Range, Ticket};

/// An inodelk: the range, and the flock as it came for notices.
#[derive(Clone, Debug)]
pub(super) struct InodeClaim {
    pub(super) range: Range,
    pub(super) mode: Mode,
    pub(super) flock: Flock,
}

impl Claim for InodeClaim {
    fn conflicts(&self, other: &Self) -> bool {
        self.mode.conflicts(other.mode) && self.range.overlaps(&other.range)
    }

    fn is_unlocked_by(&self, asked: &Self) -> bool {
        self.range == asked.range
    }
}

/// An entrylk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct EntryClaim {
    pub(super) name: Option<Bytes>,
    pub(super) kind: EntrylkType,
}

impl Claim for EntryClaim {
    fn conflicts(&self, other: &Self) -> bool {
        match (&self.name, &other.name) {
            (Some(one), Some(two)) => one == two,
            _ => true,
        }
    }

    fn is_unlocked_by(&self, asked: &Self) -> bool {
        self == asked
    }
}

/// A removal that waits for inodelks.
struct Removal {
    client: ClientId,
    ticket: Ticket,
}

#[derive(Default)]
pub(super) struct Inode {
    pub(super) inodelks: Vec<(Bytes, Queue<InodeClaim>)>,
    pub(super) entrylks: Vec<(Bytes, Queue<EntryClaim>)>,
    pub(super) posix: PosixLocks,
    removals_waiting: Vec<Removal>,
    removals_running: usize,
}

/// What every event needs: limits, the clock, the inode's name, and where actions go.
pub(super) struct Scope<'a> {
    pub(super) config: &'a Config,
    pub(super) now: Duration,
    pub(super) gfid: Gfid,
    pub(super) actions: &'a mut Vec<Action>,
}

impl Inode {
    pub(super) fn inodelk(
        &mut self,
        scope: &mut Scope<'_>,
        domain: Bytes,
        request: Waiting<InodeClaim>,
        on_conflict: OnConflict,
    ) {
        let ticket = request.ticket;
        let barred = self.bars(&request.caller);
        let full = self.is_full(scope.config);
        let queue = domain_mut(&mut self.inodelks, domain.clone());
        let refused = if barred {
            Some(request)
        } else {
            let Scope { config, now, gfid, actions } = scope;
            let mut notice = |lock: &Granted<InodeClaim>| actions.push(inodelk_notice(*gfid, &domain, lock));
            match queue.attempt(request, config, *now, &mut notice) {
                Attempt::Granted => None,
                Attempt::Conflict(request) => Some(request),
            }
        };
        scope.actions.extend(settle(queue, refused, ticket, on_conflict, full));
    }

    pub(super) fn inodelk_unlock(
        &mut self,
        scope: &mut Scope<'_>,
        domain: &Bytes,
        holder: &Holder,
        asked: &InodeClaim,
        ticket: Ticket,
    ) {
        let released = find_domain(&mut self.inodelks, domain).is_some_and(|queue| queue.release(holder, asked));
        if !released {
            scope.actions.push(Action::Deny(ticket, Errno::EINVAL));
            return;
        }
        scope.actions.push(Action::Grant(ticket));
        self.wake_removals(scope);
        self.regrant_inodelks(scope);
    }

    pub(super) fn entrylk(
        &mut self,
        scope: &mut Scope<'_>,
        domain: Bytes,
        request: Waiting<EntryClaim>,
        on_conflict: OnConflict,
    ) {
        let ticket = request.ticket;
        let full = self.is_full(scope.config);
        let queue = domain_mut(&mut self.entrylks, domain.clone());
        let Scope { config, now, gfid, actions } = scope;
        let mut notice = |lock: &Granted<EntryClaim>| actions.push(entrylk_notice(*gfid, &domain, lock));
        let refused = match queue.attempt(request, config, *now, &mut notice) {
            Attempt::Granted => None,
            Attempt::Conflict(request) => Some(request),
        };
        scope.actions.extend(settle(queue, refused, ticket, on_conflict, full));
    }

    pub(super) fn entrylk_unlock(
        &mut self,
        scope: &mut Scope<'_>,
        domain: &Bytes,
        holder: &Holder,
        asked: &EntryClaim,
        ticket: Ticket,
    ) {
        let released = find_domain(&mut self.entrylks, domain).is_some_and(|queue| queue.release(holder, asked));
        if !released {
            scope.actions.push(Action::Deny(ticket, Errno::EINVAL));
            return;
        }
        scope.actions.push(Action::Grant(ticket));
        self.regrant_entrylks(scope);
    }

    /// Lets the removal run unless another client holds inodelks, whose holders are told.
    pub(super) fn removal_begin(&mut self, scope: &mut Scope<'_>, client: ClientId, ticket: Ticket) {
        if !self.holds_up_removal_by(client) {
            self.removals_running += 1;
            scope.actions.push(Action::Grant(ticket));
            return;
        }
        let Scope { config, now, gfid, actions } = scope;
        for (domain, queue) in &mut self.inodelks {
            for lock in queue.granted.iter_mut().filter(|lock| holds_up(&lock.caller, client)) {
                if lock.take_notice(config, *now) {
                    actions.push(inodelk_notice(*gfid, domain, lock));
                }
            }
        }
        if self.removals_waiting.len() >= scope.config.waiting_per_inode_max {
            scope.actions.push(Action::Deny(ticket, Errno::ENOLCK));
        } else {
            self.removals_waiting.push(Removal { client, ticket });
        }
    }

    pub(super) fn removal_end(&mut self, scope: &mut Scope<'_>) {
        self.removals_running = self.removals_running.saturating_sub(1);
        self.regrant_inodelks(scope);
    }

    /// Drops everything of the client; what waited is denied with `errno`.
    pub(super) fn forget_client(&mut self, scope: &mut Scope<'_>, client: ClientId, errno: Errno) {
        let mut waiters = Vec::new();
        for (_, queue) in &mut self.inodelks {
            waiters.extend(queue.forget_client(client));
        }
        for (_, queue) in &mut self.entrylks {
            waiters.extend(queue.forget_client(client));
        }
        waiters.extend(self.posix.forget_client(client));
        waiters.extend(take_removals(&mut self.removals_waiting, |removal| removal.client == client));
        scope.actions.extend(waiters.into_iter().map(|ticket| Action::Deny(ticket, errno)));
        self.settle_all(scope);
    }

    /// Takes one waiter out without an answer.
    pub(super) fn cancel(&mut self, scope: &mut Scope<'_>, ticket: Ticket) {
        for (_, queue) in &mut self.inodelks {
            queue.take_waiting(|waiter| waiter.ticket == ticket);
        }
        for (_, queue) in &mut self.entrylks {
            queue.take_waiting(|waiter| waiter.ticket == ticket);
        }
        self.posix.take_waiting_by(|waiter| waiter.ticket == ticket);
        take_removals(&mut self.removals_waiting, |removal| removal.ticket == ticket);
        self.settle_all(scope);
    }

    /// Wakes and grants whatever can go on.
    pub(super) fn settle_all(&mut self, scope: &mut Scope<'_>) {
        self.wake_removals(scope);
        self.regrant_inodelks(scope);
        self.regrant_entrylks(scope);
        self.regrant_posix(scope);
    }

    pub(super) fn regrant_posix(&mut self, scope: &mut Scope<'_>) {
        scope.actions.extend(self.posix.regrant().into_iter().map(Action::Grant));
    }

    pub(super) fn is_full(&self, config: &Config) -> Fullness {
        let (mut granted, mut waiting) = (self.posix.granted.len(), self.posix.waiting.len());
        for (_, queue) in &self.inodelks {
            granted += queue.granted.len();
            waiting += queue.waiting.len();
        }
        for (_, queue) in &self.entrylks {
            granted += queue.granted.len();
            waiting += queue.waiting.len();
        }
        Fullness { granted: granted >= config.granted_per_inode_max, waiting: waiting >= config.waiting_per_inode_max }
    }

    pub(super) fn mentions(&self, client: ClientId) -> bool {
        self.inodelks.iter().any(|(_, queue)| queue.mentions(client))
            || self.entrylks.iter().any(|(_, queue)| queue.mentions(client))
            || self.posix.mentions(client)
            || self.removals_waiting.iter().any(|removal| removal.client == client)
    }

    /// Drops empty domains; whether nothing is left.
    pub(super) fn tidy(&mut self) -> bool {
        self.inodelks.retain(|(_, queue)| !queue.is_empty());
        self.entrylks.retain(|(_, queue)| !queue.is_empty());
        self.inodelks.is_empty()
            && self.entrylks.is_empty()
            && self.posix.is_empty()
            && self.removals_waiting.is_empty()
            && self.removals_running == 0
    }

    fn wake_removals(&mut self, scope: &mut Scope<'_>) {
        let inodelks = &self.inodelks;
        let woken = take_removals(&mut self.removals_waiting, |removal| {
            !inodelk_callers(inodelks).any(|caller| holds_up(caller, removal.client))
        });
        self.removals_running += woken.len();
        scope.actions.extend(woken.into_iter().map(Action::Grant));
    }

    fn regrant_inodelks(&mut self, scope: &mut Scope<'_>) {
        if self.inodelks.iter().all(|(_, queue)| queue.waiting.is_empty()) {
            return;
        }
        let running = self.removals_running > 0;
        let closed = running || !self.removals_waiting.is_empty();
        let inside: Vec<ClientId> = match closed {
            true => inodelk_callers(&self.inodelks).map(|caller| caller.holder.client).collect(),
            false => Vec::new(),
        };
        let may_try = |caller: &Caller| {
            !closed || caller.pid.is_internal() || (!running && inside.contains(&caller.holder.client))
        };
        let Scope { config, now, gfid, actions } = scope;
        for (domain, queue) in &mut self.inodelks {
            let mut notices = Vec::new();
            let mut notice = |lock: &Granted<InodeClaim>| notices.push(inodelk_notice(*gfid, domain, lock));
            let granted = queue.regrant(config, *now, &may_try, &mut notice);
            actions.extend(granted.into_iter().map(Action::Grant));
            actions.extend(notices);
        }
    }

    fn regrant_entrylks(&mut self, scope: &mut Scope<'_>) {
        let Scope { config, now, gfid, actions } = scope;
        for (domain, queue) in &mut self.entrylks {
            let mut notices = Vec::new();
            let mut notice = |lock: &Granted<EntryClaim>| notices.push(entrylk_notice(*gfid, domain, lock));
            let granted = queue.regrant(config, *now, &|_| true, &mut notice);
            actions.extend(granted.into_iter().map(Action::Grant));
            actions.extend(notices);
        }
    }

    /// Whether the removal barrier keeps the caller from a new inodelk now.
    fn bars(&self, caller: &Caller) -> bool {
        if caller.pid.is_internal() {
            return false;
        }
        let inside = || inodelk_callers(&self.inodelks).any(|other| other.holder.client == caller.holder.client);
        self.removals_running > 0 || (!self.removals_waiting.is_empty() && !inside())
    }

    fn holds_up_removal_by(&self, client: ClientId) -> bool {
        inodelk_callers(&self.inodelks).any(|caller| holds_up(caller, client))
    }
}

/// Which of an inode's bounds are reached.
#[derive(Clone, Copy)]
pub(super) struct Fullness {
    pub(super) granted: bool,
    pub(super) waiting: bool,
}

/// Turns an attempt into its answer, queueing what may wait. A full inode takes back what it granted.
fn settle<C: Claim>(
    queue: &mut Queue<C>,
    refused: Option<Waiting<C>>,
    ticket: Ticket,
    on_conflict: OnConflict,
    full: Fullness,
) -> Option<Action> {
    match (refused, on_conflict) {
        (None, _) if full.granted => {
            queue.granted.pop();
            Some(Action::Deny(ticket, Errno::ENOLCK))
        }
        (None, _) => Some(Action::Grant(ticket)),
        (Some(_), OnConflict::Fail) => Some(Action::Deny(ticket, Errno::EAGAIN)),
        (Some(_), OnConflict::Wait) if full.waiting => Some(Action::Deny(ticket, Errno::ENOLCK)),
        (Some(request), OnConflict::Wait) => {
            queue.waiting.push_back(request);
            None
        }
    }
}

fn inodelk_callers(inodelks: &[(Bytes, Queue<InodeClaim>)]) -> impl Iterator<Item = &Caller> {
    inodelks.iter().flat_map(|(_, queue)| queue.granted.iter().map(|lock| &lock.caller))
}

fn holds_up(holder: &Caller, remover: ClientId) -> bool {
    holder.holder.client != remover && !holder.pid.is_internal()
}

fn take_removals(removals: &mut Vec<Removal>, chosen: impl Fn(&Removal) -> bool) -> Vec<Ticket> {
    removals.extract_if(.., |removal| chosen(removal)).map(|removal| removal.ticket).collect()
}

fn domain_mut<C>(domains: &mut Vec<(Bytes, Queue<C>)>, domain: Bytes) -> &mut Queue<C>
where
    Queue<C>: Default,
{
    let at = domains.iter().position(|(known, _)| *known == domain).unwrap_or_else(|| {
        domains.push((domain, Queue::default()));
        domains.len() - 1
    });
    &mut domains[at].1
}

fn find_domain<'a, C>(domains: &'a mut [(Bytes, Queue<C>)], domain: &Bytes) -> Option<&'a mut Queue<C>> {
    domains.iter_mut().find(|(known, _)| known == domain).map(|(_, queue)| queue)
}

fn inodelk_notice(gfid: Gfid, domain: &Bytes, lock: &Granted<InodeClaim>) -> Action {
    Action::Notify {
        client: lock.caller.holder.client,
        contention: Contention::Inodelk { gfid, flock: lock.claim.flock.clone(), domain: domain.clone() },
    }
}

fn entrylk_notice(gfid: Gfid, domain: &Bytes, lock: &Granted<EntryClaim>) -> Action {
    let EntryClaim { name, kind } = lock.claim.clone();
    Action::Notify {
        client: lock.caller.holder.client,
        contention: Contention::Entrylk { gfid, kind, name, domain: domain.clone(), pid: lock.caller.pid },
    }
}
