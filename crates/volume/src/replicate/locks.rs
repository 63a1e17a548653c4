//! Taking one lock on all children: at once first, one after the other when somebody else has it.
//!
//! The order (child 0 first, waiting) is what keeps clients from waiting for each other in a circle; every client of the
//! volume follows it (`afr/afr-lk-common.c`).

use std::sync::Arc;

use bytes::Bytes;
use mortar_logic::replicate::lookup::final_errno;
use mortar_logic::replicate::{Set, SetExt};
use mortar_types::fop::{Entrylk, EntrylkCmd, EntrylkType, Finodelk, Flock, Inodelk, LockCmd, LockType};
use mortar_types::{Context, Errno, Gfid, LkOwner, Outcome, Request, SubvolId, SubvolMap};

use super::Core;
use super::fds::OpenFd;

/// GlusterFS's range for attribute changes; its locks translator keeps exactly this one apart from data
/// (`locks/inodelk.c`).
pub(super) const METADATA_START: u64 = i64::MAX as u64 - 1;

/// What to lock.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// The whole contents of a file.
    Data,
    /// The attributes of an inode.
    Metadata,
    /// A name in a directory; `None` all of them.
    Entry(Option<Bytes>),
}

/// A lock call to be sent to several children.
#[derive(Clone)]
pub(super) struct LockCall {
    pub(super) gfid: Gfid,
    pub(super) target: Target,
    pub(super) owner: LkOwner,
    /// For an unlinked file the brick finds the inode by the open file only.
    pub(super) fd: Option<Arc<OpenFd>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Try,
    Wait,
    Unlock,
}

impl LockCall {
    fn request(&self, core: &Core, child: SubvolId, step: Step) -> Request {
        let domain = core.domain.clone();
        let start = match &self.target {
            Target::Entry(name) => {
                let cmd = match step {
                    Step::Try => EntrylkCmd::LockNonBlocking,
                    Step::Wait => EntrylkCmd::Lock,
                    Step::Unlock => EntrylkCmd::Unlock,
                };
                let (gfid, name) = (self.gfid, name.clone());
                return Entrylk { gfid, cmd, kind: EntrylkType::Write, name, domain, xdata: None }.into();
            }
            Target::Data => 0,
            Target::Metadata => METADATA_START,
        };
        let cmd = if step == Step::Wait { LockCmd::SetWait } else { LockCmd::Set };
        let kind = if step == Step::Unlock { LockType::Unlock } else { LockType::Write };
        let flock = Flock { kind, whence: 0, start, len: 0, pid: 0, owner: self.owner.clone() };
        match self.fd.as_ref().and_then(|open| open.peek(child)) {
            Some(fd) => Finodelk { gfid: self.gfid, fd, cmd, kind, flock, domain, xdata: None }.into(),
            None => Inodelk { gfid: self.gfid, cmd, kind, flock, domain, xdata: None }.into(),
        }
    }
}

/// What a round of locking came to.
pub(super) struct Locked {
    /// Who granted it.
    pub(super) granted: Set,
    /// The failure of one that did not, for when none did.
    pub(super) errno: Option<Errno>,
}

impl Core {
    pub(super) fn lock_context(&self, owner: &LkOwner) -> Context {
        Context { lk_owner: owner.clone(), ..Context::default() }
    }

    /// Asks all of `targets` at once without waiting. On a conflict anywhere gives back what it got: `None`.
    pub(super) async fn try_lock(self: &Arc<Self>, call: &LockCall, targets: &Set) -> Option<Locked> {
        let ctx = self.lock_context(&call.owner);
        let replies =
            self.children.each(targets, |id| self.children.get(id).call(&ctx, call.request(self, id, Step::Try))).await;
        let granted = replies.map(|_, reply| matches!(reply, Some(Ok(_))));
        let errnos = errnos(&replies);
        if errnos.contains(&Errno::EAGAIN) {
            self.unlock(call, &granted).await;
            return None;
        }
        let errno = (!errnos.is_empty()).then(|| final_errno(errnos.into_iter()));
        Some(Locked { granted, errno })
    }

    /// Locks child after child, waiting at each.
    pub(super) async fn wait_lock(self: &Arc<Self>, call: &LockCall, targets: &Set) -> Locked {
        let ctx = self.lock_context(&call.owner);
        let mut locked = Locked { granted: Set::filled(self.children.len(), false), errno: None };
        for id in self.children.ids().filter(|id| targets[*id]) {
            match self.children.get(id).call(&ctx, call.request(self, id, Step::Wait)).await {
                Ok(_) => locked.granted[id] = true,
                Err(failure) => {
                    locked.errno = Some(final_errno(locked.errno.into_iter().chain([failure.errno])));
                }
            }
        }
        locked
    }

    /// The whole procedure.
    pub(super) async fn lock(self: &Arc<Self>, call: &LockCall) -> Locked {
        let targets = self.children.up();
        match self.try_lock(call, &targets).await {
            Some(locked) => locked,
            None => self.wait_lock(call, &targets).await,
        }
    }

    /// Failures are of no consequence: the brick drops the locks of a connection that ends.
    pub(super) async fn unlock(&self, call: &LockCall, held: &Set) {
        let ctx = self.lock_context(&call.owner);
        self.children.each(held, |id| self.children.get(id).call(&ctx, call.request(self, id, Step::Unlock))).await;
    }
}

impl Locked {
    pub(super) fn or_errno(self) -> Outcome<Set> {
        if self.granted.none() { Err(self.errno.unwrap_or(Errno::ENOTCONN).into()) } else { Ok(self.granted) }
    }
}

fn errnos<T>(replies: &SubvolMap<Option<Outcome<T>>>) -> Vec<Errno> {
    replies
        .iter()
        .filter_map(|(_, reply)| match reply {
            Some(Err(failure)) => Some(failure.errno),
            _ => None,
        })
        .collect()
}
