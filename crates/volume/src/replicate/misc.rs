//! The rest: statfs, virtual xattrs, locks that callers ask for themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use mortar_logic::replicate::{Set, SetExt};
use mortar_types::fop::{DictReply, EntrylkCmd, Lk, LockCmd, LockType};
use mortar_types::{Context, Dict, Errno, Outcome, Reply, Request, SubvolId, Value, keys};

use super::Core;
use super::fds::OpenFd;
use super::open::first_success;

impl Core {
    /// The fullest child decides what can still be written (`afr/afr-common.c` afr_statfs_cbk).
    pub(super) async fn statfs(&self, ctx: &Context, request: &Request) -> Outcome<Reply> {
        let up = self.children.up();
        self.check_quorum(&up)?;
        // An arbiter stores no contents: its space says nothing.
        let asked = self.arbiters.as_ref().map_or_else(|| up.clone(), |arbiters| up.minus(arbiters));
        let replies = self.children.broadcast(ctx, &asked, request).await;
        let fullest = replies
            .iter()
            .filter_map(|(id, reply)| match reply {
                Some(Ok(Reply::StatfsReply(reply))) => Some((reply.statfs.bavail, id)),
                _ => None,
            })
            .min()
            .map(|(_, id)| id);
        let Some(fullest) = fullest else { return first_success(replies) };
        let mut replies = replies;
        replies[fullest].take().unwrap_or(Err(Errno::ENOTCONN.into()))
    }

    /// `trusted.glusterfs.pathinfo`: every child's part, wrapped in this layer's name (`afr/afr-inode-read.c`).
    pub(super) async fn pathinfo(&self, ctx: &Context, key: &'static str, request: &Request) -> Outcome<Reply> {
        let up = self.children.up();
        let replies = self.children.broadcast(ctx, &up, request).await;
        let mut text = BytesMut::new();
        text.put_slice(format!("(<REPLICATE:{}>", self.options.name).as_bytes());
        let mut any = false;
        for (_, reply) in replies.iter() {
            let Some(Ok(Reply::DictReply(reply))) = reply else { continue };
            if let Some(part) = reply.dict.as_ref().and_then(|dict| dict.get_bytes(key)) {
                text.put_u8(b' ');
                text.put_slice(part);
                any = true;
            }
        }
        if !any {
            return first_success(replies);
        }
        text.put_u8(b')');
        let len = u32::try_from(text.len()).map_err(|_| Errno::ERANGE)?;
        let dict = Some(Dict::new().with(key, Value::Str(text.freeze())));
        Ok(DictReply { len, dict, xdata: None }.into())
    }

    /// A request that every child must hear, where one success is enough.
    pub(super) async fn tell_all(&self, ctx: &Context, request: &Request) -> Outcome<Reply> {
        first_success(self.children.broadcast(ctx, &self.children.up(), request).await)
    }

    /// POSIX locks: child after child from 0, so that clients queue in the same order everywhere (`afr/afr-common.c`
    /// afr_lk_cbk). `abandoned`: the caller stopped waiting; what was got is given back.
    pub(super) async fn lk(self: &Arc<Self>, ctx: &Context, mut request: Lk, abandoned: &AtomicBool) -> Outcome<Reply> {
        let up = self.children.up();
        self.check_quorum(&up)?;
        let fd = self.open_fd(request.fd)?;
        let sets = matches!(request.cmd, LockCmd::Set | LockCmd::SetWait);
        if sets && request.kind == LockType::Unlock {
            let replies = self.send_with_fds(ctx, &request.into(), &up, fd.as_ref(), None).await;
            return first_success(replies);
        }
        if sets {
            self.inodes.get(request.gfid).posix_locked.store(true, Ordering::Release);
        }
        if request.xdata.as_mut().and_then(|xdata| xdata.remove(keys::LOCK_AGAIN)).is_some() {
            // Held already where nobody refuses: that counts, and stays.
            return first_success(self.send_with_fds(ctx, &request.into(), &up, fd.as_ref(), None).await);
        }
        let mut taken = self.nobody();
        let mut answer = None;
        let mut last = Errno::ENOTCONN.into();
        for id in self.children.ids().filter(|id| up[*id]) {
            match self.send_one(ctx, request.clone().into(), id, fd.as_ref(), None).await {
                Ok(Reply::LkReply(reply)) => {
                    taken[id] = true;
                    let conflict = !sets && reply.flock.kind != LockType::Unlock;
                    if answer.is_none() || conflict {
                        answer = Some(reply);
                    }
                    if conflict || abandoned.load(Ordering::Acquire) {
                        break;
                    }
                }
                Ok(_) => last = Errno::EPROTO.into(),
                Err(failure) if sets && matches!(failure.errno, Errno::EAGAIN | Errno::EINTR) => {
                    self.unlk(ctx, request, &taken, fd.as_ref()).await;
                    return Err(failure);
                }
                Err(failure) => last = failure,
            }
        }
        let failed = if abandoned.load(Ordering::Acquire) {
            Some(Errno::EINTR.into())
        } else if !self.options.quorum.is_met(&taken) && sets {
            Some(last)
        } else {
            None
        };
        if let Some(failure) = failed {
            if sets {
                self.unlk(ctx, request, &taken, fd.as_ref()).await;
            }
            return Err(failure);
        }
        answer.map(Into::into).ok_or_else(|| Errno::ENOTCONN.into())
    }

    async fn unlk(&self, ctx: &Context, mut request: Lk, taken: &Set, fd: Option<&Arc<OpenFd>>) {
        request.cmd = LockCmd::Set;
        request.kind = LockType::Unlock;
        request.flock.kind = LockType::Unlock;
        drop(self.send_with_fds(ctx, &request.into(), taken, fd, None).await);
    }

    /// INODELK, ENTRYLK and their fd forms for layers above: everywhere or nowhere.
    pub(super) async fn pass_lock(self: &Arc<Self>, ctx: &Context, request: Request) -> Outcome<Reply> {
        let up = self.children.up();
        self.check_quorum(&up)?;
        let fd = match super::route::fd_of(&request) {
            Some(fd) => self.open_fd(fd)?,
            None => None,
        };
        let (attempt, waits, unlocks) = as_attempt(&request);
        let replies = self.send_with_fds(ctx, &attempt, &up, fd.as_ref(), None).await;
        let granted = replies.map(|_, reply| matches!(reply, Some(Ok(_))));
        let refused =
            replies.iter().any(|(_, reply)| matches!(reply, Some(Err(failure)) if failure.errno == Errno::EAGAIN));
        if unlocks || !refused {
            return first_success(replies);
        }
        let undo = as_unlock(&request);
        drop(self.send_with_fds(ctx, &undo, &granted, fd.as_ref(), None).await);
        if !waits {
            return Err(Errno::EAGAIN.into());
        }
        let mut outcome = Err(Errno::ENOTCONN.into());
        for id in self.children.ids().filter(|id: &SubvolId| up[*id]) {
            let reply = self.send_one(ctx, request.clone(), id, fd.as_ref(), None).await;
            if outcome.is_err() {
                outcome = reply;
            }
        }
        outcome
    }
}

/// The request without waiting, whether it would wait, whether it unlocks.
fn as_attempt(request: &Request) -> (Request, bool, bool) {
    let mut attempt = request.clone();
    let mut waits = false;
    let mut unlocks = false;
    match &mut attempt {
        Request::Inodelk(r) => {
            unlocks = r.kind == LockType::Unlock;
            waits = r.cmd == LockCmd::SetWait;
            r.cmd = LockCmd::Set;
        }
        Request::Finodelk(r) => {
            unlocks = r.kind == LockType::Unlock;
            waits = r.cmd == LockCmd::SetWait;
            r.cmd = LockCmd::Set;
        }
        Request::Entrylk(r) => (waits, unlocks) = entry_attempt(&mut r.cmd),
        Request::Fentrylk(r) => (waits, unlocks) = entry_attempt(&mut r.cmd),
        _ => {}
    }
    (attempt, waits, unlocks)
}

fn entry_attempt(cmd: &mut EntrylkCmd) -> (bool, bool) {
    let was = *cmd;
    if was == EntrylkCmd::Lock {
        *cmd = EntrylkCmd::LockNonBlocking;
    }
    (was == EntrylkCmd::Lock, was == EntrylkCmd::Unlock)
}

fn as_unlock(request: &Request) -> Request {
    let mut undo = request.clone();
    match &mut undo {
        Request::Inodelk(r) => (r.cmd, r.kind, r.flock.kind) = (LockCmd::Set, LockType::Unlock, LockType::Unlock),
        Request::Finodelk(r) => (r.cmd, r.kind, r.flock.kind) = (LockCmd::Set, LockType::Unlock, LockType::Unlock),
        Request::Entrylk(r) => r.cmd = EntrylkCmd::Unlock,
        Request::Fentrylk(r) => r.cmd = EntrylkCmd::Unlock,
        _ => {}
    }
    undo
}

/// Whether an xattr is between this layer and the bricks: clients neither see nor set it (`afr/afr-common.c`
/// afr_is_private_directory, afr_is_xattr_ignorable).
pub(super) fn is_private_xattr(name: &[u8]) -> bool {
    name.starts_with(keys::XATTR_AFR_PREFIX.as_bytes()) || name.starts_with(b"trusted.glusterfs.afr.")
}

/// The virtual names that are answered by all children together.
pub(super) fn pathinfo_key(name: &Bytes) -> Option<&'static str> {
    match &name[..] {
        b"trusted.glusterfs.pathinfo" => Some(keys::PATHINFO),
        b"glusterfs.pathinfo" => Some("glusterfs.pathinfo"),
        _ => None,
    }
}
