//! The table: one entry per inode that has locks, and the clients that may ask for some.

use std::collections::HashMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mortar_types::fop::{Flock, LockType};
use mortar_types::{ClientId, Errno, Fd, Gfid};

use super::clear::{ClearCommand, ClearFilter, ClearType, Cleared};
use super::inode::{EntryClaim, Inode, InodeClaim, Scope};
use super::posix::{PosixLock, PosixWaiter, is_interrupted};
use super::queue::{Claim, Queue, Waiting};
use super::{
    Action, Caller, Config, Entrylk, Inodelk, Mode, OP_VERSION_OWNER_REQUIRED, OnConflict, Posixlk, Range, Ticket,
    is_null_owner,
};

/// The start of the range that GlusterFS's clients lock for metadata; such locks get a domain of their own.
const METADATA_START: u64 = i64::MAX as u64 - 1;
const METADATA_SUFFIX: &[u8] = b":metadata";

/// The lock table. Events: `client_*`, `handle_*` (a fop), `cancel`; questions: `*_count`, [`Self::posix_conflict`].
///
/// The methods take `now` as a duration since any fixed moment.
pub struct LockTable {
    config: Config,
    inodes: HashMap<Gfid, Inode>,
    /// The op-version of each connected client; nobody else is given locks.
    clients: HashMap<ClientId, u32>,
}

impl LockTable {
    pub fn new(config: Config) -> Self {
        Self { config, inodes: HashMap::new(), clients: HashMap::new() }
    }

    /// Takes new limits and switches for the events to come.
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
    }

    /// The client may ask for locks from now on.
    pub fn client_connected(&mut self, client: ClientId, op_version: u32) {
        self.clients.insert(client, op_version);
    }

    /// Drops everything of the client; its waiting requests are denied with EAGAIN (GlusterFS `pl_client_disconnect_cbk`).
    pub fn client_gone(&mut self, client: ClientId, now: Duration) -> Vec<Action> {
        self.clients.remove(&client);
        let mut gfids: Vec<Gfid> =
            self.inodes.iter().filter(|(_, inode)| inode.mentions(client)).map(|(gfid, _)| *gfid).collect();
        gfids.sort_unstable();
        let mut actions = Vec::new();
        for gfid in gfids {
            self.with_inode(gfid, now, &mut actions, |inode, scope| inode.forget_client(scope, client, Errno::EAGAIN));
        }
        actions
    }

    /// A request for an inode lock; `flock.kind` [`LockType::Unlock`] gives one back.
    pub fn handle_inodelk(
        &mut self,
        request: Inodelk,
        on_conflict: OnConflict,
        ticket: Ticket,
        now: Duration,
    ) -> Vec<Action> {
        let Inodelk { gfid, caller, domain, flock } = request;
        let mode = match flock.kind {
            LockType::Read => Some(Mode::Shared),
            LockType::Write => Some(Mode::Exclusive),
            LockType::Unlock => None,
            LockType::Eol => return deny(ticket, Errno::EOPNOTSUPP),
        };
        let checked = self.check_caller(&caller).and_then(|()| Range::of_inodelk(flock.start, flock.len));
        let range = match checked {
            Ok(range) => range,
            Err(errno) => return deny(ticket, errno),
        };
        let domain = inodelk_domain(domain, &flock);
        let mut actions = Vec::with_capacity(1);
        self.with_inode(gfid, now, &mut actions, |inode, scope| match mode {
            Some(mode) => {
                let claim = InodeClaim { range, mode, flock };
                inode.inodelk(scope, domain, Waiting { caller, claim, ticket }, on_conflict);
            }
            None => {
                let asked = InodeClaim { range, mode: Mode::Exclusive, flock };
                inode.inodelk_unlock(scope, &domain, &caller.holder, &asked, ticket);
            }
        });
        actions
    }

    /// A request for an entry lock.
    pub fn handle_entrylk(
        &mut self,
        request: Entrylk,
        on_conflict: OnConflict,
        ticket: Ticket,
        now: Duration,
    ) -> Vec<Action> {
        let Entrylk { gfid, caller, domain, name, kind } = request;
        if let Err(errno) = self.check_caller(&caller) {
            return deny(ticket, errno);
        }
        let claim = EntryClaim { name, kind };
        let mut actions = Vec::with_capacity(1);
        self.with_inode(gfid, now, &mut actions, |inode, scope| {
            inode.entrylk(scope, domain, Waiting { caller, claim, ticket }, on_conflict);
        });
        actions
    }

    /// Gives an entry lock back: same name, type and holder, otherwise EINVAL.
    pub fn handle_entrylk_unlock(&mut self, request: Entrylk, ticket: Ticket, now: Duration) -> Vec<Action> {
        let Entrylk { gfid, caller, domain, name, kind } = request;
        if let Err(errno) = self.check_caller(&caller) {
            return deny(ticket, errno);
        }
        let asked = EntryClaim { name, kind };
        let mut actions = Vec::with_capacity(1);
        self.with_inode(gfid, now, &mut actions, |inode, scope| {
            inode.entrylk_unlock(scope, &domain, &caller.holder, &asked, ticket);
        });
        actions
    }

    /// A request for a POSIX lock; `flock.kind` [`LockType::Unlock`] gives the range back.
    pub fn handle_posixlk(
        &mut self,
        request: Posixlk,
        on_conflict: OnConflict,
        ticket: Ticket,
        now: Duration,
    ) -> Vec<Action> {
        let gfid = request.gfid;
        let kind = request.flock.kind;
        let lock = match self.check_caller(&request.caller).and_then(|()| posix_lock(request)) {
            Ok(lock) => lock,
            Err(errno) => return deny(ticket, errno),
        };
        let mut actions = Vec::with_capacity(1);
        self.with_inode(gfid, now, &mut actions, |inode, scope| {
            posixlk(inode, scope, kind, lock, on_conflict, ticket);
        });
        actions
    }

    /// F_GETLK: the first lock in the way, `None` when the lock could be had.
    pub fn posix_conflict(&self, request: Posixlk) -> Result<Option<Flock>, Errno> {
        self.check_caller(&request.caller)?;
        let inode = self.inodes.get(&request.gfid);
        let asked = posix_lock(request)?;
        Ok(inode.and_then(|inode| inode.posix.conflict(&asked)).map(PosixLock::to_flock))
    }

    /// FLUSH: the caller's POSIX locks on the inode are dropped. There is no ticket: it cannot fail.
    pub fn handle_flush(&mut self, gfid: Gfid, caller: &Caller, now: Duration) -> Vec<Action> {
        self.with_known_inode(gfid, now, |inode, scope| {
            inode.posix.release_owner(&caller.holder);
            inode.regrant_posix(scope);
        })
    }

    /// RELEASE: the POSIX locks that came by the fd are dropped.
    pub fn handle_release(&mut self, gfid: Gfid, client: ClientId, fd: Fd, now: Duration) -> Vec<Action> {
        self.with_known_inode(gfid, now, |inode, scope| {
            inode.posix.release_fd(client, fd);
            inode.regrant_posix(scope);
        })
    }

    /// A removal of the inode (unlink, rmdir, rename onto it) wants to run. After its [`Action::Grant`] the caller owes
    /// one [`Self::handle_removal_end`].
    pub fn handle_removal_begin(&mut self, gfid: Gfid, client: ClientId, ticket: Ticket, now: Duration) -> Vec<Action> {
        let mut actions = Vec::with_capacity(1);
        self.with_inode(gfid, now, &mut actions, |inode, scope| inode.removal_begin(scope, client, ticket));
        actions
    }

    /// A granted removal has run, with whatever result.
    pub fn handle_removal_end(&mut self, gfid: Gfid, now: Duration) -> Vec<Action> {
        self.with_known_inode(gfid, now, Inode::removal_end)
    }

    /// Clears locks by force. Waiting POSIX requests are denied with EINTR, others with EAGAIN (GlusterFS `clear.c`).
    pub fn handle_clear(&mut self, gfid: Gfid, command: &ClearCommand, now: Duration) -> (Cleared, Vec<Action>) {
        let mut cleared = Cleared::default();
        let actions = self.with_known_inode(gfid, now, |inode, scope| {
            cleared = match command.lock_type {
                ClearType::Inode => clear_domains(&mut inode.inodelks, command, scope, is_named_inodelk),
                ClearType::Entry => clear_domains(&mut inode.entrylks, command, scope, is_named_entrylk),
                ClearType::Posix => clear_posix(inode, command, scope),
            };
            inode.settle_all(scope);
        });
        (cleared, actions)
    }

    /// Takes a waiting request out without an answer: nobody waits for it any more. No effect when it has been answered.
    pub fn cancel(&mut self, gfid: Gfid, ticket: Ticket, now: Duration) -> Vec<Action> {
        self.with_known_inode(gfid, now, |inode, scope| inode.cancel(scope, ticket))
    }

    /// Inode locks held and awaited, in one domain or in all.
    pub fn inodelk_count(&self, gfid: Gfid, domain: Option<&[u8]>) -> usize {
        let Some(inode) = self.inodes.get(&gfid) else { return 0 };
        let chosen = |name: &Bytes| domain.is_none_or(|domain| name == domain);
        inode.inodelks.iter().filter(|(name, _)| chosen(name)).map(|(_, queue)| queue.len()).sum()
    }

    /// Entry locks held and awaited, in all domains.
    pub fn entrylk_count(&self, gfid: Gfid) -> usize {
        let Some(inode) = self.inodes.get(&gfid) else { return 0 };
        inode.entrylks.iter().map(|(_, queue)| queue.len()).sum()
    }

    /// POSIX locks held and awaited.
    pub fn posixlk_count(&self, gfid: Gfid) -> usize {
        self.inodes.get(&gfid).map_or(0, |inode| inode.posix.len())
    }

    /// Whether anybody holds or awaits an entry lock on exactly this name (GlusterFS `check_entrylk_on_basename`).
    pub fn is_name_locked(&self, parent: Gfid, name: &[u8]) -> bool {
        let Some(inode) = self.inodes.get(&parent) else { return false };
        let named = |claim: &EntryClaim| claim.name.as_deref() == Some(name);
        inode.entrylks.iter().any(|(_, queue)| {
            queue.granted.iter().any(|lock| named(&lock.claim))
                || queue.waiting.iter().any(|waiter| named(&waiter.claim))
        })
    }

    /// Whether nobody holds, awaits or removes anything.
    pub fn is_empty(&self) -> bool {
        self.inodes.is_empty()
    }

    fn check_caller(&self, caller: &Caller) -> Result<(), Errno> {
        let op_version = self.clients.get(&caller.holder.client).ok_or(Errno::ENOTCONN)?;
        if *op_version >= OP_VERSION_OWNER_REQUIRED && is_null_owner(&caller.holder.owner) {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    fn with_inode(
        &mut self,
        gfid: Gfid,
        now: Duration,
        actions: &mut Vec<Action>,
        event: impl FnOnce(&mut Inode, &mut Scope<'_>),
    ) {
        let inode = self.inodes.entry(gfid).or_default();
        event(inode, &mut Scope { config: &self.config, now, gfid, actions });
        if inode.tidy() {
            self.inodes.remove(&gfid);
        }
    }

    /// As [`Self::with_inode`], for events that mean nothing to an inode without locks.
    fn with_known_inode(
        &mut self,
        gfid: Gfid,
        now: Duration,
        event: impl FnOnce(&mut Inode, &mut Scope<'_>),
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.inodes.contains_key(&gfid) {
            self.with_inode(gfid, now, &mut actions, event);
        }
        actions
    }
}

fn deny(ticket: Ticket, errno: Errno) -> Vec<Action> {
    vec![Action::Deny(ticket, errno)]
}

/// Moves the metadata range to its own domain (GlusterFS `_pl_convert_volume_for_special_range`).
fn inodelk_domain(domain: Bytes, flock: &Flock) -> Bytes {
    if flock.start != METADATA_START || flock.len != 0 || domain.ends_with(METADATA_SUFFIX) {
        return domain;
    }
    let mut moved = BytesMut::with_capacity(domain.len() + METADATA_SUFFIX.len());
    moved.extend_from_slice(&domain);
    moved.extend_from_slice(METADATA_SUFFIX);
    moved.freeze()
}

fn posix_lock(request: Posixlk) -> Result<PosixLock, Errno> {
    let Posixlk { caller, fd, flock, .. } = request;
    let mode = if flock.kind == LockType::Read { Mode::Shared } else { Mode::Exclusive };
    let range = Range::of_posix(flock.start, flock.len)?;
    Ok(PosixLock { caller, fd, range, mode, flock_pid: flock.pid })
}

fn posixlk(
    inode: &mut Inode,
    scope: &mut Scope<'_>,
    kind: LockType,
    lock: PosixLock,
    on_conflict: OnConflict,
    ticket: Ticket,
) {
    let full = inode.is_full(scope.config);
    if matches!(kind, LockType::Unlock | LockType::Eol) {
        inode.posix.clear(&lock.caller.holder, &lock.range);
        scope.actions.push(Action::Grant(ticket));
    } else if inode.posix.conflict(&lock).is_none() {
        if full.granted {
            scope.actions.push(Action::Deny(ticket, Errno::ENOLCK));
            return;
        }
        inode.posix.set(lock);
        scope.actions.push(Action::Grant(ticket));
    } else if on_conflict == OnConflict::Fail {
        scope.actions.push(Action::Deny(ticket, Errno::EAGAIN));
        return;
    } else if full.waiting {
        scope.actions.push(Action::Deny(ticket, Errno::ENOLCK));
        return;
    } else {
        inode.posix.clear(&lock.caller.holder, &lock.range);
        inode.posix.waiting.push_back(PosixWaiter { lock, ticket });
    }
    inode.regrant_posix(scope);
}

fn is_named_inodelk(claim: &InodeClaim, filter: &ClearFilter) -> bool {
    match filter {
        ClearFilter::Any => true,
        ClearFilter::Range { start, len } => claim.flock.start == *start && claim.flock.len == *len,
        ClearFilter::Name(_) => false,
    }
}

fn is_named_entrylk(claim: &EntryClaim, filter: &ClearFilter) -> bool {
    match filter {
        ClearFilter::Any => true,
        ClearFilter::Range { .. } => false,
        ClearFilter::Name(name) => claim.name.as_deref() == Some(&name[..]),
    }
}

fn clear_domains<C: Claim>(
    domains: &mut [(Bytes, Queue<C>)],
    command: &ClearCommand,
    scope: &mut Scope<'_>,
    is_named: fn(&C, &ClearFilter) -> bool,
) -> Cleared {
    let mut cleared = Cleared::default();
    for (_, queue) in domains {
        if command.kind.blocked() {
            let taken = queue.take_waiting(|waiter| is_named(&waiter.claim, &command.filter));
            cleared.blocked += taken.len() as u64;
            scope.actions.extend(taken.into_iter().map(|ticket| Action::Deny(ticket, Errno::EAGAIN)));
        }
        if command.kind.granted() {
            let before = queue.granted.len();
            queue.granted.retain(|lock| !is_named(&lock.claim, &command.filter));
            cleared.granted += (before - queue.granted.len()) as u64;
        }
    }
    cleared
}

fn clear_posix(inode: &mut Inode, command: &ClearCommand, scope: &mut Scope<'_>) -> Cleared {
    let is_named = |lock: &PosixLock| {
        let in_range = match &command.filter {
            ClearFilter::Any => true,
            ClearFilter::Range { start, len } => lock.range.start == *start && lock.range.flock_len() == *len,
            ClearFilter::Name(_) => false,
        };
        in_range && command.only.is_none_or(|(client, pid)| is_interrupted(lock, client, pid))
    };
    let mut cleared = Cleared::default();
    if command.kind.blocked() {
        let taken = inode.posix.take_waiting(is_named);
        cleared.blocked = taken.len() as u64;
        scope.actions.extend(taken.into_iter().map(|ticket| Action::Deny(ticket, Errno::EINTR)));
    }
    if command.kind.granted() {
        let before = inode.posix.granted.len();
        inode.posix.granted.retain(|lock| !is_named(lock));
        cleared.granted = (before - inode.posix.granted.len()) as u64;
    }
    cleared
}
