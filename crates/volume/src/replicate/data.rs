//! Changes of contents: under the kept data lock and a dirty mark that stands for the whole burst.
//!
//! The mark is raised with the lock and cleared when the lock is given back, after the data is on the disks. A child
//! that misses a change is accused on the others before the caller hears of success.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use mortar_logic::replicate::changelog::{Changelog, Slot};
use mortar_logic::replicate::verdict::{self, Answer, Mark, Terms};
use mortar_logic::replicate::{Set, SetExt};
use mortar_types::fop::{Fsync, Fxattrop, Xattrop, XattropOp};
use mortar_types::{Context, Dict, Errno, Fd, Gfid, Outcome, Reply, Request, SubvolId, SubvolMap, Value, keys};

use super::Core;
use super::compound::take_unlocked;
use super::fds::OpenFd;
use super::gate::Range;
use super::inode::Inode;
use super::kept::{Grant, Hold, LockKind};
use super::metadata::Marked;
use super::tries::Tries;

/// What stands on the bricks under a data lock.
pub(super) struct Marks {
    /// Where the dirty mark is raised.
    pub(super) dirty: Set,
    /// Who failed a change under this lock: gets nothing more.
    failed: Set,
    /// Who is accused already for the current burst of writes: one count stands for all of them.
    accused: Set,
    /// The outcome of some change is unknown: a heal must clear the mark.
    stay_dirty: bool,
    /// Why the mark could not be raised somewhere.
    refused: Option<Errno>,
    /// Changes that a size would not show are not on disk yet, as a count; and how many of them a flush has covered.
    unstable: u64,
    flushed: u64,
    /// Whose contents were good when the last change under this lock had been made.
    good: Option<Set>,
}

impl Marks {
    pub(super) fn none(children: usize) -> Self {
        let none = Set::filled(children, false);
        Self {
            dirty: none.clone(),
            failed: none.clone(),
            accused: none,
            stay_dirty: false,
            refused: None,
            unstable: 0,
            flushed: 0,
            good: None,
        }
    }
}

impl Marks {
    /// The dirty mark stands where the lock does.
    pub(super) fn raised(dirty: Set) -> Self {
        Self { dirty: dirty.clone(), ..Self::none(dirty.len()) }
    }
}

/// How a change of contents behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Burst {
    /// Shares the burst's accusation. `durable`: the brick syncs before it answers.
    Write { durable: bool },
    /// Makes the burst durable.
    Flush,
    /// Counts on its own. `flush`: must be on disk before the mark goes.
    Alone { flush: bool },
}

/// One change of contents.
pub(super) struct Change {
    pub(super) request: Request,
    pub(super) inode: Arc<Inode>,
    pub(super) fd: Option<Arc<OpenFd>>,
    /// The second file of COPY_FILE_RANGE.
    pub(super) source_fd: Option<Arc<OpenFd>>,
    pub(super) range: Range,
    pub(super) burst: Burst,
}

/// Locked and marked.
struct Begun {
    hold: Hold,
    /// Whose contents are good.
    good: Set,
    /// Where the change goes: a quorum.
    targets: Set,
    /// Why other children are left out.
    refused: Option<Errno>,
}

impl Core {
    /// Raises the dirty mark under a lock just taken.
    pub(super) async fn raise_dirty(&self, inode: &Arc<Inode>, grant: &Grant) -> Outcome<()> {
        let targets = grant.valid(self);
        let raised = self.mark_data(inode, grant, &targets, &self.nobody(), Changelog::in_slot(Slot::Data, 1)).await;
        let mut marks = grant.marks.lock();
        marks.dirty = raised.done.clone();
        marks.refused = raised.errno;
        drop(marks);
        raised.or_errno()
    }

    /// Adds to the counters of a file at `targets`.
    async fn mark_data(&self, inode: &Inode, grant: &Grant, targets: &Set, accused: &Set, dirty: Changelog) -> Marked {
        let dict = self.options.keys.xattrop(&verdict::accusations(accused, Slot::Data), dirty);
        Marked::from(&self.move_counters(inode.gfid, grant.fd(), targets, &dict, None).await)
    }

    /// (F)XATTROP of `dict` at `targets`, by the open file where there is one.
    pub(super) async fn move_counters(
        &self,
        gfid: Gfid,
        open: Option<&Arc<OpenFd>>,
        targets: &Set,
        dict: &Dict,
        xdata: Option<&Dict>,
    ) -> SubvolMap<Option<Outcome<Reply>>> {
        let ctx = Context::default();
        self.children
            .each(targets, |id| {
                let (op, dict, xdata) = (XattropOp::AddArray, Some(dict.clone()), xdata.cloned());
                let request: Request = match open.and_then(|open| open.peek(id)) {
                    Some(fd) => Fxattrop { gfid, fd, op, dict, xdata }.into(),
                    None => Xattrop { gfid, op, dict, xdata }.into(),
                };
                self.children.get(id).call(&ctx, request)
            })
            .await
    }

    /// Flushes what was written, clears the mark, accuses who was lost on the way. Runs before the lock goes.
    /// Where the lock has gone already, with the mark.
    pub(super) async fn finish_data(&self, inode: &Arc<Inode>, grant: &Grant) -> Set {
        let (dirty, failed, stay_dirty, unflushed, good) = {
            let marks = grant.marks.lock();
            let unflushed = marks.unstable > marks.flushed;
            (marks.dirty.clone(), marks.failed.clone(), marks.stay_dirty, unflushed, marks.good.clone())
        };
        let valid = grant.valid(self);
        let mut clear = dirty.and(&valid).minus(&failed);
        // Who was lost with the mark up may have lost what it acknowledged.
        let mut lost = dirty.minus(&valid).minus(&failed);
        if unflushed && self.options.ensure_durability && !stay_dirty {
            let flushed = self.flush_children(inode, grant, &clear).await;
            lost = lost.or(&clear.minus(&flushed));
            clear = flushed;
        }
        if clear.none() || stay_dirty {
            return self.nobody();
        }
        // What the changes found: a child that was lost meanwhile makes anything remembered old.
        if good.is_some_and(|good| !good.none() && good.and(&clear).none()) {
            // Only stale copies are left: clearing would hide what the lost ones have.
            return self.nobody();
        }
        let minus = Changelog::in_slot(Slot::Data, 1).negated();
        let dict = self.options.keys.xattrop(&verdict::accusations(&lost, Slot::Data), minus);
        let xdata = self.unlock_xdata(&grant.call, &clear);
        let mut replies = self.move_counters(inode.gfid, grant.fd(), &clear, &dict, xdata.as_ref()).await;
        let unlocked = take_unlocked(&mut replies);
        let cleared = Marked::from(&replies);
        if !lost.none() {
            inode.distrust_data(&lost);
        }
        if cleared.done != clear && !matches!(cleared.errno, Some(Errno::ENOENT | Errno::ESTALE)) {
            tracing::warn!(gfid = %inode.gfid, errno = ?cleared.errno, layer = %self.options.name, "a dirty mark stays until a heal");
        }
        unlocked
    }

    /// fdatasync on `targets`; who did.
    async fn flush_children(&self, inode: &Inode, grant: &Grant, targets: &Set) -> Set {
        let (gfid, ctx) = (inode.gfid, Context::default());
        let replies = self
            .children
            .each(targets, |id| {
                let fd = grant.fd().and_then(|open| open.peek(id));
                let xdata = Some(Dict::new().with(keys::BATCH_FSYNC, Value::Uint(1)));
                let request = Fsync { gfid, fd: fd.unwrap_or(Fd::ANONYMOUS), datasync: 1, xdata };
                self.children.get(id).call(&ctx, request.into())
            })
            .await;
        // Removed meanwhile: there is nothing to make durable.
        replies.map(|_, reply| match reply {
            Some(Ok(_)) => true,
            Some(Err(failure)) => matches!(failure.errno, Errno::ENOENT | Errno::ESTALE),
            None => false,
        })
    }

    pub(super) async fn change_data(self: &Arc<Self>, ctx: &Context, change: Change) -> Outcome<Reply> {
        self.check_quorum(&self.children.up())?;
        let Change { request, inode, fd, source_fd, range, burst } = change;
        let _order = inode.ranges.enter(range).await;
        let mut tries = Tries::default();
        let Begun { hold, good, targets, refused } = loop {
            match self.begin_data(ctx, &inode, fd.as_ref()).await {
                Ok(begun) => break begun,
                Err(failure) => self.may_begin_again(&mut tries, failure)?,
            }
        };
        let unstable_before = hold.grant.marks.lock().unstable;
        let mut replies = self.send_with_fds(ctx, &request, &targets, fd.as_ref(), source_fd.as_ref()).await;
        fail_short_writes(&mut replies);
        let outcomes = outcomes(&replies);
        let terms = Terms { slot: Slot::Data, quorum: self.options.quorum, good: Some(&good), refused };
        let verdict = verdict::judge(&outcomes, &terms);
        self.note_stability(&hold.grant, burst, &replies, unstable_before);
        if replies.iter().any(|(_, reply)| wants_lock(reply.as_ref())) {
            hold.give_back();
        }
        hold.grant.marks.lock().good = Some(good.and(&verdict.done));
        match &verdict.mark {
            Mark::Clean => {}
            Mark::StayDirty => {
                hold.grant.marks.lock().stay_dirty = true;
                inode.forget();
                hold.give_back();
            }
            Mark::Accuse(missed) => {
                inode.distrust_data(missed);
                let newly_failed = missed.and(&targets);
                let to_accuse = {
                    let mut marks = hold.grant.marks.lock();
                    marks.failed = marks.failed.or(&newly_failed);
                    if matches!(burst, Burst::Alone { .. }) { missed.clone() } else { missed.minus(&marks.accused) }
                };
                if !to_accuse.none() {
                    let recorded =
                        self.mark_data(&inode, &hold.grant, &verdict.done, &to_accuse, Changelog::CLEAN).await;
                    if let Err(failure) = recorded.or_errno() {
                        hold.grant.marks.lock().stay_dirty = true;
                        hold.give_back();
                        return Err(failure);
                    }
                    let accused = if matches!(burst, Burst::Alone { .. }) { self.nobody() } else { missed.clone() };
                    hold.grant.marks.lock().accused = accused;
                }
                if !newly_failed.none() {
                    hold.give_back();
                }
            }
        }
        answer(replies, verdict.answer)
    }

    /// All that comes before the change itself.
    async fn begin_data(
        self: &Arc<Self>,
        ctx: &Context,
        inode: &Arc<Inode>,
        fd: Option<&Arc<OpenFd>>,
    ) -> Outcome<Begun> {
        let good = self.known_lately(ctx, inode, fd).await?.readable.data;
        let hold = self.hold_inode(inode, LockKind::Data, fd).await?;
        let (targets, refused) = {
            let marks = hold.grant.marks.lock();
            (hold.valid().and(&marks.dirty).minus(&marks.failed), hold.grant.refused().or(marks.refused))
        };
        let why_not = if !self.options.quorum.is_met(&targets) {
            Errno::ENOTCONN
        } else if good.and(&targets).none() {
            Errno::EIO
        } else {
            return Ok(Begun { hold, good, targets, refused });
        };
        hold.give_back();
        Err(refused.unwrap_or(why_not).into())
    }

    fn note_stability(
        &self,
        grant: &Grant,
        burst: Burst,
        replies: &SubvolMap<Option<Outcome<Reply>>>,
        unstable_before: u64,
    ) {
        let mut marks = grant.marks.lock();
        match burst {
            Burst::Write { durable: true } | Burst::Alone { flush: false } => {}
            // The size shows a lost append, so it need not be flushed (`afr/afr-inode-write.c`).
            Burst::Write { durable: false } => {
                let appends = replies.iter().all(|(_, reply)| match reply {
                    Some(Ok(reply)) => {
                        reply.xdata().and_then(|xdata| xdata.get_u64(keys::WRITE_IS_APPEND)).is_some_and(|yes| yes > 0)
                    }
                    _ => true,
                });
                if !appends {
                    marks.unstable += 1;
                }
            }
            Burst::Alone { flush: true } => marks.unstable += 1,
            Burst::Flush => {
                if replies.iter().all(|(_, reply)| !matches!(reply, Some(Err(_)))) {
                    marks.flushed = marks.flushed.max(unstable_before);
                }
            }
        }
    }

    /// fsync: alone and without a lock while every child is there and nothing stands; else as a change, so that who
    /// cannot make it durable is accused of having missed the data.
    pub(super) async fn fsync(self: &Arc<Self>, ctx: &Context, request: Fsync) -> Outcome<Reply> {
        let fd = self.open_fd(request.fd)?;
        let inode = self.inodes.get(request.gfid);
        let request = Request::from(request);
        let up = self.children.up();
        if up.all() && inode.data.is_free() {
            self.check_quorum(&up)?;
            let mut replies = self.send_with_fds(ctx, &request, &up, fd.as_ref(), None).await;
            if replies.iter().all(|(_, reply)| matches!(reply, Some(Ok(_)))) {
                return replies.iter_mut().find_map(|(_, reply)| reply.take()).unwrap_or(Err(Errno::ENOTCONN.into()));
            }
        }
        let change = Change { request, inode, fd, source_fd: None, range: Range::of(0, 0), burst: Burst::Flush };
        self.change_data(ctx, change).await
    }

    /// One request to several children, with each child's own fd in it.
    pub(super) async fn send_with_fds(
        &self,
        ctx: &Context,
        request: &Request,
        targets: &Set,
        fd: Option<&Arc<OpenFd>>,
        source_fd: Option<&Arc<OpenFd>>,
    ) -> SubvolMap<Option<Outcome<Reply>>> {
        self.children.each(targets, |id| self.send_one(ctx, request.clone(), id, fd, source_fd)).await
    }

    pub(super) async fn send_one(
        &self,
        ctx: &Context,
        mut request: Request,
        id: SubvolId,
        fd: Option<&Arc<OpenFd>>,
        source_fd: Option<&Arc<OpenFd>>,
    ) -> Outcome<Reply> {
        if let Some(open) = fd {
            let fd = open.at(self, id).await?;
            super::route::set_fd(&mut request, fd);
        }
        if let (Some(open), Request::CopyFileRange(copy)) = (source_fd, &mut request) {
            copy.fd_in = open.at(self, id).await?;
        }
        self.children.read(ctx, id, request).await
    }
}

/// Asks a change's bricks whether others wait for the lock and whether it only appended.
pub(super) fn ask_contention(xdata: &mut Option<Dict>, domain: &bytes::Bytes) {
    let dict = xdata.get_or_insert_default();
    dict.set(keys::INODELK_DOM_COUNT, Value::Str(domain.clone()));
    dict.set(keys::WRITE_IS_APPEND, Value::Uint(0));
}

/// More than one lock in the domain: somebody else is waiting (the answer's key is not the question's).
fn wants_lock(reply: Option<&Outcome<Reply>>) -> bool {
    matches!(reply, Some(Ok(reply)) if reply.xdata().and_then(|xdata| xdata.get_i64(keys::INODELK_COUNT)) > Some(1))
}

fn fail_short_writes(replies: &mut SubvolMap<Option<Outcome<Reply>>>) {
    let written = replies.map(|_, reply| match reply {
        Some(Ok(Reply::WriteReply(reply))) => Some(reply.written),
        Some(Ok(Reply::CopyReply(reply))) => Some(reply.copied),
        _ => None,
    });
    let short = verdict::short_writes(&written);
    for (id, reply) in replies.iter_mut() {
        if short[id] {
            *reply = Some(Err(Errno::EIO.into()));
        }
    }
}

/// The outcomes as logic judges them.
pub(super) fn outcomes<T>(replies: &SubvolMap<Option<Outcome<T>>>) -> SubvolMap<verdict::Outcome> {
    replies.map(|_, reply| match reply {
        None => verdict::Outcome::NotTried,
        Some(Ok(_)) => verdict::Outcome::Done,
        Some(Err(failure)) => verdict::Outcome::Failed(failure.errno),
    })
}

/// The caller's reply as judged. An error keeps the xdata of a child that failed so.
pub(super) fn answer<T>(mut replies: SubvolMap<Option<Outcome<T>>>, answer: Answer) -> Outcome<T> {
    match answer {
        Answer::From(child) => replies[child].take().unwrap_or(Err(Errno::EIO.into())),
        Answer::Error(errno) => {
            let same = replies.iter_mut().find_map(|(_, reply)| match reply.take() {
                Some(Err(failure)) if failure.errno == errno => Some(failure),
                _ => None,
            });
            Err(same.unwrap_or_else(|| errno.into()))
        }
    }
}

/// A source of lock owners that no other mount of this process uses.
pub(super) fn owner_base() -> AtomicU64 {
    AtomicU64::new((rand::random::<u64>() >> 1) | 1)
}
