//! Changes of attributes: under the kept metadata lock, without a mark while every child takes part.

use std::sync::Arc;

use mortar_logic::replicate::changelog::{Changelog, Slot};
use mortar_logic::replicate::lookup::final_errno;
use mortar_logic::replicate::readable::Readable;
use mortar_logic::replicate::verdict::{self, Mark, Terms};
use mortar_logic::replicate::{Set, SetExt};
use mortar_types::fop::{Xattrop, XattropOp};
use mortar_types::{Context, Dict, Errno, Gfid, Outcome, Reply, Request, SubvolMap};

use super::Core;
use super::data::{answer, outcomes};
use super::fds::OpenFd;
use super::gate::Range;
use super::inode::Inode;
use super::kept::{Hold, LockKind};
use super::tries::Tries;

impl Core {
    pub(super) async fn change_metadata(
        self: &Arc<Self>,
        ctx: &Context,
        request: Request,
        inode: Arc<Inode>,
        fd: Option<Arc<OpenFd>>,
    ) -> Outcome<Reply> {
        self.check_quorum(&self.children.up())?;
        let _order = inode.attributes.enter(Range::ALL).await;
        let mut tries = Tries::default();
        let Begun { hold, readable, targets, refused, marked } = loop {
            match self.begin_metadata(ctx, &inode, fd.as_ref()).await {
                Ok(begun) => break begun,
                Err(failure) => self.may_begin_again(&mut tries, failure)?,
            }
        };
        let replies = self.send_with_fds(ctx, &request, &targets, fd.as_ref(), None).await;
        let good = Some(&readable.metadata);
        let terms = Terms { slot: Slot::Metadata, quorum: self.options.quorum, good, refused };
        let verdict = verdict::judge(&outcomes(&replies), &terms);
        let lower = if marked { Changelog::in_slot(Slot::Metadata, 1).negated() } else { Changelog::CLEAN };
        match &verdict.mark {
            Mark::Clean if !marked => {}
            Mark::Clean => {
                self.mark(inode.gfid, &targets, &self.nobody(), Slot::Metadata, lower, None).await;
            }
            Mark::Accuse(missed) => {
                inode.distrust_metadata(missed);
                let recorded = self.mark(inode.gfid, &verdict.done, missed, Slot::Metadata, lower, None).await;
                hold.give_back();
                recorded.or_errno()?;
            }
            Mark::StayDirty => {
                inode.forget();
                hold.give_back();
            }
        }
        answer(replies, verdict.answer)
    }

    /// All that comes before the change itself.
    async fn begin_metadata(
        self: &Arc<Self>,
        ctx: &Context,
        inode: &Arc<Inode>,
        fd: Option<&Arc<OpenFd>>,
    ) -> Outcome<Begun> {
        let readable = self.known_lately(ctx, inode, fd).await?.readable;
        if readable.metadata.none() {
            return Err(Errno::EIO.into());
        }
        let hold = self.hold_inode(inode, LockKind::Metadata, fd).await?;
        let mut targets = hold.valid();
        let mut refused = hold.grant.refused();
        let marked = !self.options.optimistic_change_log || !targets.all();
        let mark = Changelog::in_slot(Slot::Metadata, 1);
        if marked {
            let raised = self.mark(inode.gfid, &targets, &self.nobody(), Slot::Metadata, mark, None).await;
            targets = raised.done;
            refused = refused.or(raised.errno);
        }
        if self.options.quorum.is_met(&targets) {
            return Ok(Begun { hold, readable, targets, refused, marked });
        }
        if marked && !targets.none() {
            self.mark(inode.gfid, &targets, &self.nobody(), Slot::Metadata, mark.negated(), None).await;
        }
        hold.give_back();
        Err(refused.unwrap_or(Errno::ENOTCONN).into())
    }

    /// Adds `dirty`, and +1 in `slot` per accused child, to the counters of an inode at `targets`; who did.
    pub(super) async fn mark(
        &self,
        gfid: Gfid,
        targets: &Set,
        accused: &Set,
        slot: Slot,
        dirty: Changelog,
        xdata: Option<Dict>,
    ) -> Marked {
        self.mark_with(gfid, targets, &verdict::accusations(accused, slot), dirty, xdata).await
    }

    pub(super) async fn mark_with(
        &self,
        gfid: Gfid,
        targets: &Set,
        pending: &SubvolMap<Changelog>,
        dirty: Changelog,
        xdata: Option<Dict>,
    ) -> Marked {
        let dict = Some(self.options.keys.xattrop(pending, dirty));
        let request: Request = Xattrop { gfid, op: XattropOp::AddArray, dict, xdata }.into();
        let replies = self.children.broadcast(&Context::default(), targets, &request).await;
        Marked::from(&replies)
    }
}

/// Locked, and marked where that is needed.
struct Begun {
    hold: Hold,
    readable: Readable,
    /// Where the change goes: a quorum.
    targets: Set,
    /// Why other children are left out.
    refused: Option<Errno>,
    marked: bool,
}

/// What a round of xattrops came to.
pub(super) struct Marked {
    /// Who has the mark.
    pub(super) done: Set,
    /// Why others have not: what says most.
    pub(super) errno: Option<Errno>,
}

impl Marked {
    pub(super) fn from(replies: &SubvolMap<Option<Outcome<Reply>>>) -> Self {
        let done = replies.map(|_, reply| matches!(reply, Some(Ok(_))));
        let mut errnos = replies.iter().filter_map(|(_, reply)| reply.as_ref()?.as_ref().err()).peekable();
        let errno = errnos.peek().is_some().then(|| final_errno(errnos.map(|failure| failure.errno)));
        Self { done, errno }
    }

    /// A mark that nobody has is no mark.
    pub(super) fn or_errno(self) -> Outcome<()> {
        if self.done.none() { Err(self.errno.unwrap_or(Errno::ENOTCONN).into()) } else { Ok(()) }
    }
}
