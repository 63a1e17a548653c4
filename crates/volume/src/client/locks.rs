//! POSIX locks over the end of a connection: the brick drops them with it, and they are taken again on the next one before
//! anybody hears that the brick is back. What somebody else got meanwhile is lost, and the file with it: everything through
//! it fails (EBADFD, as `client-lk.c` marks the fd bad) until its owner has unlocked, so that no two owners work on.

use mortar_types::fop::{AckReply, Flock, Flush, Lk, LkReply, LockCmd, LockType, Release, Releasedir};
use mortar_types::{Context, Errno, Fd, Gfid, Outcome, Reply, Request, keys};

use super::brick::Shared;
use super::link::Link;

impl Shared {
    /// LK and FLUSH.
    pub(super) async fn lock(&self, link: &Link, ctx: &Context, mut request: Request) -> Outcome<Reply> {
        if let Request::Lk(Lk { xdata: Some(xdata), .. }) = &mut request {
            xdata.remove(keys::LOCK_AGAIN);
        }
        if let Some((gfid, fd)) = unlocked_through(&request)
            && self.fds.lock().has_lost_lock(fd)
        {
            return self.give_lost_back(link, ctx, request, gfid, fd).await;
        }
        let asked = request.clone();
        self.translate(&mut request, link.generation)?;
        let outcome = link.call(ctx, &request).await;
        match asked {
            Request::Lk(lk) if outcome.is_ok() && lk.cmd != LockCmd::Get => {
                // Held, so that the next connection begins before this or knows of the lock.
                let fds = self.fds.lock();
                if !fds.is_on(link.generation) && !matches!(lk.kind, LockType::Unlock) {
                    return Err(Errno::ENOTCONN.into());
                }
                let flock = Flock { kind: lk.kind, ..lk.flock };
                self.locks.lock().set(lk.gfid, lk.fd, &flock);
            }
            Request::Flush(flush) => self.locks.lock().flush(flush.gfid, &ctx.lk_owner),
            _ => {}
        }
        outcome
    }

    /// Takes again what was held through a file that has just been opened again. `wire`: its number there.
    pub(super) async fn lock_again(&self, link: &Link, gfid: Gfid, fd: Fd, wire: Option<Fd>) {
        let held = self.locks.lock().through(gfid, fd);
        for held in held {
            let ctx = Context::default().with_owner(held.flock.owner.clone());
            let taken = match wire {
                Some(fd) => {
                    let (cmd, kind) = (LockCmd::Set, held.flock.kind);
                    link.call(&ctx, &Lk { gfid, fd, cmd, kind, flock: held.flock, xdata: None }.into()).await
                }
                None => Err(Errno::EBADFD.into()),
            };
            if let Err(failure) = taken {
                tracing::warn!(brick = %self.name, %gfid, errno = %failure.errno, "a lock is lost");
                self.fds.lock().set_lost_lock(fd, true);
            }
        }
    }

    /// Unlocking through a file whose lock is lost: the brick may hold other parts still, but has no say in whether it is
    /// done. When nothing is left the file can be used again.
    async fn give_lost_back(
        &self,
        link: &Link,
        ctx: &Context,
        mut request: Request,
        gfid: Gfid,
        fd: Fd,
    ) -> Outcome<Reply> {
        let wire = self.fds.lock().on_wire(fd, link.generation);
        if let (Some(wire), Request::Lk(Lk { fd, .. }) | Request::Flush(Flush { fd, .. })) = (wire, &mut request) {
            *fd = wire;
            // What it cannot be told ends with the connection.
            let _ = link.call(ctx, &request).await;
        }
        let mut locks = self.locks.lock();
        let reply = match request {
            Request::Lk(lk) => {
                let flock = Flock { kind: lk.kind, ..lk.flock };
                locks.set(gfid, fd, &flock);
                LkReply { flock, xdata: None }.into()
            }
            _ => {
                locks.flush(gfid, &ctx.lk_owner);
                AckReply { xdata: None }.into()
            }
        };
        let nothing_is_left = locks.through(gfid, fd).is_empty();
        drop(locks);
        if nothing_is_left {
            self.fds.lock().set_lost_lock(fd, false);
        }
        Ok(reply)
    }
}

/// The inode and file of a request that only gives locks back.
const fn unlocked_through(request: &Request) -> Option<(Gfid, Fd)> {
    match request {
        Request::Lk(lk) if !matches!(lk.cmd, LockCmd::Get) && matches!(lk.kind, LockType::Unlock) => {
            Some((lk.gfid, lk.fd))
        }
        Request::Flush(flush) => Some((flush.gfid, flush.fd)),
        _ => None,
    }
}

/// The inode of a request that closes.
pub(super) const fn gfid_of(request: &Request) -> Gfid {
    match request {
        Request::Release(Release { gfid, .. })
        | Request::Releasedir(Releasedir { gfid, .. })
        | Request::Flush(Flush { gfid, .. }) => *gfid,
        _ => Gfid::NULL,
    }
}
