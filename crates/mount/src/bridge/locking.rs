//! File locks: fcntl(2) and flock(2), tests, and waits that can be interrupted.

use std::sync::Arc;

use mortar_types::fop::{Flock, Lk, LkReply, LockCmd, LockType};
use mortar_types::{Context, Errno, Failure, LkOwner, Outcome};

use super::{Bridge, Interrupted, Response, Result, errno};
use crate::handles::FileHandle;
use crate::kernel::reply::Body;
use crate::kernel::request::Lock;
use crate::locks::END;

impl Bridge {
    pub(super) async fn getlk(&self, ctx: &Context, lock: &Lock) -> Result<Response> {
        let file = self.file(lock.fh)?;
        let found = self.lk_as(ctx, &file, lock, LockCmd::Get).await.map_err(errno)?.flock;
        let end = if found.len == 0 { END } else { found.start.saturating_add(found.len - 1) };
        let (start, kind) = (found.start, found.kind.raw());
        Ok(Response::body(Body::lock(&Lock { start, end, kind, pid: found.pid, ..*lock })))
    }

    pub(super) async fn setlk(
        self: &Arc<Self>,
        ctx: &Context,
        lock: Lock,
        wait: bool,
        interrupted: Option<Interrupted>,
    ) -> Result<Response> {
        let file = self.file(lock.fh)?;
        self.locks.asked(file.gfid, &lock);
        let Some(interrupted) = interrupted.filter(|_| wait) else {
            self.lk(ctx, &file, lock, wait).await.map_err(errno)?;
            return Ok(Response::empty());
        };
        // The wait goes on without its caller when that is interrupted: the brick cannot be told, so a grant that
        // comes later has to be met and given back.
        let (bridge, context, waiting) = (Arc::clone(self), ctx.clone(), Arc::clone(&file));
        let mut grant =
            self.background.spawn(async move { bridge.lk_as(&context, &waiting, &lock, LockCmd::SetWait).await });
        tokio::select! {
            granted = &mut grant => {
                granted.map_err(|_| Errno::EIO)?.map_err(errno)?;
                self.locks.granted(file.gfid, &lock);
                Ok(Response::empty())
            }
            // An error means that the sender is gone: the request ends anyway.
            _ = interrupted => {
                let (bridge, context) = (Arc::clone(self), ctx.clone());
                self.background.spawn(async move {
                    if let Ok(Ok(_)) = grant.await {
                        bridge.give_back(&context, &file, lock).await;
                    }
                });
                Err(Errno::EINTR)
            }
        }
    }

    /// Locks or unlocks, and keeps the book.
    pub(super) async fn lk(&self, ctx: &Context, file: &FileHandle, lock: Lock, wait: bool) -> Outcome<LkReply> {
        let cmd = if wait { LockCmd::SetWait } else { LockCmd::Set };
        let reply = self.lk_as(ctx, file, &lock, cmd).await?;
        self.locks.granted(file.gfid, &lock);
        Ok(reply)
    }

    /// Unlocks what was granted to nobody, except what the owner has locked again meanwhile.
    async fn give_back(&self, ctx: &Context, file: &FileHandle, lock: Lock) {
        for range in self.locks.unheld(file.gfid, &lock) {
            let unlock = Lock { kind: LockType::Unlock.raw(), start: range.start, end: range.end, ..lock };
            if let Err(failure) = self.lk(ctx, file, unlock, false).await {
                tracing::warn!(gfid = %file.gfid, errno = %failure.errno, "a lock that nobody waits for stays");
            }
        }
    }

    async fn lk_as(&self, ctx: &Context, file: &FileHandle, lock: &Lock, cmd: LockCmd) -> Outcome<LkReply> {
        let kind = LockType::from_raw(lock.kind).filter(|kind| *kind != LockType::Eol);
        let kind = kind.ok_or_else(|| Failure::from(Errno::EINVAL))?;
        let ctx = ctx.with_owner(LkOwner::from_u64(lock.owner));
        let len = if lock.end >= END { 0 } else { lock.end.saturating_sub(lock.start) + 1 };
        let flock = Flock { kind, whence: 0, start: lock.start, len, pid: lock.pid, owner: ctx.lk_owner.clone() };
        self.volume.fop(&ctx, Lk { gfid: file.gfid, fd: file.fd, cmd, kind, flock, xdata: None }).await
    }
}
