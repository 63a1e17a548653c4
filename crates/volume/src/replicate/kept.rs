//! Kept locks: taken for one operation, used by the following ones, given back when another client wants them.
//!
//! ```text
//!   Free ──hold──▶ Taking ──granted──▶ Held ──last user gone and (wanted, stale or idle)──▶ Releasing ──▶ Free
//! ```
//!
//! Giving back first finishes what was done under the lock (for data: flush, clear the dirty mark), in the background.
//! A brick tells of contention at most once per lock and 5 s, so a notice must never be lost: one that comes while the
//! lock is being taken is remembered. Holding locks is quick: users hold them for one operation, and several locks are
//! taken in the order of their gfids, so nobody waits in a circle.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mortar_logic::replicate::{Set, SetExt};
use mortar_types::{Errno, LkOwner, Outcome, SubvolMap};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Core;
use super::data::Marks;
use super::fds::OpenFd;
use super::inode::Inode;
use super::locks::{LockCall, Target};
use super::names::Names;

/// Locks kept at most; beyond, each is given back after its operation. A brick holds as many for this client.
const KEPT_MAX: usize = 8_192;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LockKind {
    Data,
    Metadata,
    Entry,
}

impl LockKind {
    const fn target(self) -> Target {
        match self {
            Self::Data => Target::Data,
            Self::Metadata => Target::Metadata,
            Self::Entry => Target::Entry(None),
        }
    }
}

/// A lock as granted.
pub(super) struct Grant {
    pub(super) call: LockCall,
    /// The epoch in which a child was asked; a later one means that the lock there is lost.
    asked: SubvolMap<Option<u64>>,
    granted: Set,
    /// Why a child that was asked refused, if one did.
    refused: Option<Errno>,
    taken_at: Instant,
    /// What stands on the bricks under this lock (data only).
    pub(super) marks: Mutex<Marks>,
    /// What the directory's names are (entries only).
    pub(super) names: Names,
}

impl Grant {
    /// Just taken. `marks`: what was raised with it.
    pub(super) fn new(
        call: LockCall,
        asked: SubvolMap<Option<u64>>,
        granted: Set,
        refused: Option<Errno>,
        marks: Marks,
    ) -> Self {
        Self {
            call,
            asked,
            granted,
            refused,
            taken_at: Instant::now(),
            marks: Mutex::new(marks),
            names: Names::default(),
        }
    }

    /// Where the lock still holds.
    pub(super) fn valid(&self, core: &Core) -> Set {
        self.granted
            .map(|id, granted| *granted && core.children.is_up(id) && self.asked[id] == Some(core.children.epoch(id)))
    }

    /// Whether it can serve another operation: no child that could take part is left out, and it is not too old.
    fn is_fresh(&self, core: &Core) -> bool {
        let asked_all =
            core.children.ids().all(|id| !core.children.is_up(id) || self.asked[id] == Some(core.children.epoch(id)));
        asked_all && !self.valid(core).none() && self.taken_at.elapsed() < core.options.keep_age_max
    }

    /// Why the lock may be of no use: what a child said that refused it.
    pub(super) const fn refused(&self) -> Option<Errno> {
        self.refused
    }

    pub(super) fn fd(&self) -> Option<&Arc<OpenFd>> {
        self.call.fd.as_ref()
    }
}

enum Phase {
    Free,
    Taking,
    Held(Arc<Grant>),
    Releasing,
}

pub(super) struct Kept {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    phase: Phase,
    /// Operations under way under the lock.
    users: usize,
    /// Somebody else wants it, or it is of no further use.
    give_back: bool,
    last_used: Instant,
    /// A timer watches for idleness.
    watched: bool,
    /// Until when the whole is not locked, because others work here too.
    contended_until: Option<Instant>,
}

/// One operation's use of a kept lock.
pub(super) struct Hold {
    core: Arc<Core>,
    inode: Arc<Inode>,
    kind: LockKind,
    pub(super) grant: Arc<Grant>,
}

/// What [`Core::hold`] found.
pub(super) enum Held {
    Hold(Hold),
    /// Entry locks only: another client is at work in the directory; lock the single name.
    Contended,
}

impl Kept {
    pub(super) fn new() -> Self {
        let state = State {
            phase: Phase::Free,
            users: 0,
            give_back: false,
            last_used: Instant::now(),
            watched: false,
            contended_until: None,
        };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    pub(super) fn is_free(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Free)
    }

    /// The grant, while it is held on every child and nobody else wants it.
    pub(super) fn held(&self, core: &Core) -> Option<Arc<Grant>> {
        let state = self.state.lock();
        match &state.phase {
            Phase::Held(grant) if !state.give_back && grant.is_fresh(core) && grant.valid(core).all() => {
                Some(Arc::clone(grant))
            }
            _ => None,
        }
    }

    fn set_contended(&self, for_so_long: Duration) {
        self.state.lock().contended_until = Some(Instant::now() + for_so_long);
    }
}

impl Core {
    /// Takes the lock or joins those who use it. `fd`: the open file through which the bricks find an unlinked inode.
    pub(super) async fn hold(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        kind: LockKind,
        fd: Option<&Arc<OpenFd>>,
    ) -> Outcome<Held> {
        let kept = inode.kept(kind);
        loop {
            let changed = kept.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.join(inode, kind) {
                Join::Hold(hold) => return Ok(Held::Hold(hold)),
                Join::Contended => return Ok(Held::Contended),
                Join::Take => break,
                Join::Wait => changed.await,
            }
        }
        let taken = self.take(inode, kind, fd).await;
        let mut state = kept.state.lock();
        state.last_used = Instant::now();
        let outcome = match taken {
            Ok(Some(grant)) => {
                let grant = Arc::new(grant);
                state.phase = Phase::Held(Arc::clone(&grant));
                state.users = 1;
                self.kept_count.fetch_add(1, Ordering::Relaxed);
                Ok(Held::Hold(Hold { core: Arc::clone(self), inode: Arc::clone(inode), kind, grant }))
            }
            Ok(None) => {
                state.phase = Phase::Free;
                state.contended_until = Some(Instant::now() + self.options.contended_for);
                Ok(Held::Contended)
            }
            Err(failure) => {
                state.phase = Phase::Free;
                Err(failure)
            }
        };
        drop(state);
        kept.changed.notify_waiters();
        outcome
    }

    fn join(self: &Arc<Self>, inode: &Arc<Inode>, kind: LockKind) -> Join {
        let mut state = inode.kept(kind).state.lock();
        match &state.phase {
            Phase::Free => {
                let contended = state.contended_until.is_some_and(|until| Instant::now() < until);
                if kind == LockKind::Entry && contended {
                    return Join::Contended;
                }
                state.phase = Phase::Taking;
                state.give_back = false;
                Join::Take
            }
            Phase::Held(grant) if !state.give_back && grant.is_fresh(self) => {
                let grant = Arc::clone(grant);
                state.users += 1;
                Join::Hold(Hold { core: Arc::clone(self), inode: Arc::clone(inode), kind, grant })
            }
            Phase::Held(_) => {
                state.give_back = true;
                self.release_if_unused(inode, kind, &mut state);
                Join::Wait
            }
            Phase::Taking | Phase::Releasing => Join::Wait,
        }
    }

    /// `None`: refused, because others hold single names (entry locks only).
    async fn take(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        kind: LockKind,
        fd: Option<&Arc<OpenFd>>,
    ) -> Outcome<Option<Grant>> {
        let call = LockCall { gfid: inode.gfid, target: kind.target(), owner: self.new_owner(), fd: fd.cloned() };
        let targets = self.children.up();
        let asked = targets.map(|id, up| up.then(|| self.children.epoch(id)));
        if kind == LockKind::Data
            && let Some(locked) = self.lock_and_mark(&call, &targets).await
        {
            let refused = locked.errno;
            let granted = locked.or_errno()?;
            let marks = Marks::raised(granted.clone());
            return Ok(Some(Grant::new(call, asked, granted, refused, marks)));
        }
        let locked = match self.try_lock(&call, &targets).await {
            Some(locked) => locked,
            None if kind == LockKind::Entry => return Ok(None),
            None => self.wait_lock(&call, &targets).await,
        };
        let refused = locked.errno;
        let granted = locked.or_errno()?;
        let grant = Grant::new(call, asked, granted, refused, Marks::none(self.children.len()));
        if kind == LockKind::Data
            && let Err(failure) = self.raise_dirty(inode, &grant).await
        {
            self.unlock(&grant.call, &grant.granted).await;
            return Err(failure);
        }
        Ok(Some(grant))
    }

    /// Keeps the place of the data lock that a CREATE brings along, so that a notice of contention which comes before its
    /// reply is remembered. Must be followed by [`Self::settle_reserved`]. `false`: it is in use, or no more are kept.
    pub(super) fn reserve_data(&self, inode: &Inode) -> bool {
        if !self.may_keep() {
            return false;
        }
        let mut state = inode.data.state.lock();
        if !matches!(state.phase, Phase::Free) {
            return false;
        }
        state.phase = Phase::Taking;
        state.give_back = false;
        true
    }

    /// Ends a reservation: with a lock that nobody uses yet, or without.
    pub(super) fn settle_reserved(self: &Arc<Self>, inode: &Arc<Inode>, grant: Option<Grant>) {
        let mut state = inode.data.state.lock();
        state.last_used = Instant::now();
        match grant {
            Some(grant) => {
                state.phase = Phase::Held(Arc::new(grant));
                self.kept_count.fetch_add(1, Ordering::Relaxed);
                self.rest(inode, LockKind::Data, &mut state);
            }
            None => state.phase = Phase::Free,
        }
        drop(state);
        inode.data.changed.notify_waiters();
    }

    fn may_keep(&self) -> bool {
        self.options.eager_lock && self.kept_count.load(Ordering::Relaxed) <= KEPT_MAX
    }

    /// A lock has no user: it is given back, now or when it has been idle.
    fn rest(self: &Arc<Self>, inode: &Arc<Inode>, kind: LockKind, state: &mut State) {
        if !self.may_keep() {
            state.give_back = true;
        }
        if state.give_back {
            self.release_if_unused(inode, kind, state);
        } else if !state.watched {
            state.watched = true;
            let watch = Self::watch(Arc::downgrade(self), Arc::clone(inode), kind, self.options.keep_idle);
            self.runtime.spawn(watch);
        }
    }

    /// Another client wants the lock.
    pub(super) fn contention(self: &Arc<Self>, inode: &Arc<Inode>, kind: LockKind) {
        let kept = inode.kept(kind);
        if kind == LockKind::Entry {
            kept.set_contended(self.options.contended_for);
        }
        self.give_back(inode, kind);
    }

    /// Lets the lock go as soon as nobody uses it.
    pub(super) fn give_back(self: &Arc<Self>, inode: &Arc<Inode>, kind: LockKind) {
        let mut state = inode.kept(kind).state.lock();
        if matches!(state.phase, Phase::Held(_) | Phase::Taking) {
            state.give_back = true;
            self.release_if_unused(inode, kind, &mut state);
        }
    }

    /// Lets the lock go and waits until the bricks have it back.
    pub(super) async fn give_back_now(self: &Arc<Self>, inode: &Arc<Inode>, kind: LockKind) {
        let kept = inode.kept(kind);
        loop {
            let changed = kept.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            self.give_back(inode, kind);
            if kept.is_free() {
                return;
            }
            changed.await;
        }
    }

    fn release_if_unused(self: &Arc<Self>, inode: &Arc<Inode>, kind: LockKind, state: &mut State) {
        if state.users > 0 || !matches!(state.phase, Phase::Held(_)) {
            return;
        }
        let Phase::Held(grant) = std::mem::replace(&mut state.phase, Phase::Releasing) else { return };
        let (core, inode) = (Arc::clone(self), Arc::clone(inode));
        self.runtime.spawn(async move { core.release(&inode, kind, &grant).await });
    }

    async fn release(self: &Arc<Self>, inode: &Arc<Inode>, kind: LockKind, grant: &Grant) {
        let unlocked = match kind {
            LockKind::Data => self.finish_data(inode, grant).await,
            LockKind::Metadata | LockKind::Entry => self.nobody(),
        };
        // Also where it may be lost: an unlock of nothing is refused without harm, a forgotten lock would stay.
        self.unlock(&grant.call, &grant.granted.and(&self.children.up()).minus(&unlocked)).await;
        self.kept_count.fetch_sub(1, Ordering::Relaxed);
        let kept = inode.kept(kind);
        kept.state.lock().phase = Phase::Free;
        kept.changed.notify_waiters();
    }

    /// Gives an unused lock back when its time is over. Ends when the lock is in use or gone.
    async fn watch(core: std::sync::Weak<Self>, inode: Arc<Inode>, kind: LockKind, idle: Duration) {
        let kept = inode.kept(kind);
        loop {
            let due = {
                let mut state = kept.state.lock();
                if state.users > 0 || !matches!(state.phase, Phase::Held(_)) {
                    state.watched = false;
                    return;
                }
                let due = state.last_used + idle;
                if due <= Instant::now() {
                    state.watched = false;
                    if let Some(core) = core.upgrade() {
                        state.give_back = true;
                        core.release_if_unused(&inode, kind, &mut state);
                    }
                    return;
                }
                due
            };
            tokio::time::sleep_until(due).await;
        }
    }
}

enum Join {
    Hold(Hold),
    Take,
    Wait,
    Contended,
}

impl Hold {
    /// Where operations under this lock may go.
    pub(super) fn valid(&self) -> Set {
        self.grant.valid(&self.core)
    }

    /// The lock is of no further use after the operations under way.
    pub(super) fn give_back(&self) {
        self.core.give_back(&self.inode, self.kind);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.inode.kept(self.kind).state.lock();
        state.users -= 1;
        state.last_used = Instant::now();
        if state.users > 0 {
            return;
        }
        self.core.rest(&self.inode, self.kind, &mut state);
    }
}

/// A lock on a name for one operation: a share in the directory's kept lock, or one of its own.
pub(super) enum NameLock {
    Kept(Hold),
    Own(OwnLock),
}

pub(super) struct OwnLock {
    core: Arc<Core>,
    call: LockCall,
    asked: SubvolMap<Option<u64>>,
    granted: Set,
    refused: Option<Errno>,
}

impl NameLock {
    /// Of no further use after the operation.
    pub(super) fn give_back(&self) {
        if let Self::Kept(hold) = self {
            hold.give_back();
        }
    }

    /// What is known of the directory's names under the lock.
    pub(super) fn names(&self) -> Option<&Names> {
        match self {
            Self::Kept(hold) => Some(&hold.grant.names),
            Self::Own(_) => None,
        }
    }

    /// Why children may have refused it.
    pub(super) fn refused(&self) -> Option<Errno> {
        match self {
            Self::Kept(hold) => hold.grant.refused(),
            Self::Own(own) => own.refused,
        }
    }

    pub(super) fn valid(&self) -> Set {
        match self {
            Self::Kept(hold) => hold.valid(),
            Self::Own(own) => own.granted.map(|id, granted| {
                *granted && own.core.children.is_up(id) && own.asked[id] == Some(own.core.children.epoch(id))
            }),
        }
    }
}

impl Drop for OwnLock {
    fn drop(&mut self) {
        let (core, call, granted) = (Arc::clone(&self.core), self.call.clone(), self.granted.clone());
        self.core.runtime.spawn(async move { core.unlock(&call, &granted).await });
    }
}

impl Core {
    /// Locks a name (`None`: all names) of a directory for one operation, which has `owner` for all of its names.
    pub(super) async fn hold_name(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        name: Option<bytes::Bytes>,
        owner: &LkOwner,
    ) -> Outcome<NameLock> {
        if let Held::Hold(hold) = self.hold(inode, LockKind::Entry, None).await? {
            return Ok(NameLock::Kept(hold));
        }
        let call = LockCall { gfid: inode.gfid, target: Target::Entry(name), owner: owner.clone(), fd: None };
        let asked = self.children.up().map(|id, up| up.then(|| self.children.epoch(id)));
        let locked = self.lock(&call).await;
        let refused = locked.errno;
        let granted = locked.or_errno()?;
        Ok(NameLock::Own(OwnLock { core: Arc::clone(self), call, asked, granted, refused }))
    }

    /// A lock owner that this client has not used before.
    pub(super) fn new_owner(&self) -> LkOwner {
        LkOwner::from_u64(self.next_owner.fetch_add(1, Ordering::Relaxed))
    }

    /// Data and metadata locks are never refused for contention.
    pub(super) async fn hold_inode(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        kind: LockKind,
        fd: Option<&Arc<OpenFd>>,
    ) -> Outcome<Hold> {
        match self.hold(inode, kind, fd).await? {
            Held::Hold(hold) => Ok(hold),
            Held::Contended => Err(Errno::EAGAIN.into()),
        }
    }
}
