//! Opening and closing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mortar_logic::replicate::lookup::final_errno;
use mortar_logic::replicate::{Set, SetExt};
use mortar_types::fop::{AckReply, Flush, Open, OpenReply, Truncate};
use mortar_types::{Context, Errno, Fd, Gfid, Outcome, Reply, Request, SubvolMap};

use super::Core;
use super::data::{Burst, Change};
use super::fds::O_TRUNC;
use super::gate::Range;

impl Core {
    /// OPEN goes to all children that are up; truncation is a change of its own (`afr/afr-open.c`).
    pub(super) async fn open(self: &Arc<Self>, ctx: &Context, mut request: Open) -> Outcome<Reply> {
        let up = self.children.up();
        self.check_quorum(&up)?;
        let (gfid, flags) = (request.gfid, request.flags);
        let inode = self.inodes.get(gfid);
        match self.known(ctx, &inode, None).await {
            Ok(known) if known.readable.data.none() => return Err(Errno::EIO.into()),
            // No name leads to it any more, but it may be open still, and then opens again (a change of the graph).
            Err(failure) if !matches!(failure.errno, Errno::ENOENT | Errno::ESTALE) => return Err(failure),
            Ok(_) | Err(_) => {}
        }
        request.flags &= !O_TRUNC;
        let replies = self.children.broadcast(ctx, &up, &request.into()).await;
        let reply = self.opened(ctx, gfid, flags, false, replies)?;
        if flags & O_TRUNC != 0 {
            let truncate = Truncate { gfid, offset: 0, xdata: None };
            let change = Change {
                request: truncate.into(),
                inode,
                fd: self.open_fd(reply.fd)?,
                source_fd: None,
                range: Range::ALL,
                burst: Burst::Alone { flush: false },
            };
            if let Err(failure) = self.change_data(ctx, change).await {
                self.release_fd(reply.fd);
                return Err(failure);
            }
        }
        Ok(reply.into())
    }

    pub(super) async fn opendir(self: &Arc<Self>, ctx: &Context, gfid: Gfid, request: &Request) -> Outcome<Reply> {
        let up = self.children.up();
        self.check_quorum(&up)?;
        let replies = self.children.broadcast(ctx, &up, request).await;
        Ok(self.opened(ctx, gfid, 0, true, replies)?.into())
    }

    fn opened(
        self: &Arc<Self>,
        ctx: &Context,
        gfid: Gfid,
        flags: u32,
        is_dir: bool,
        mut replies: SubvolMap<Option<Outcome<Reply>>>,
    ) -> Outcome<OpenReply> {
        let fds = replies.map(|_, reply| match reply {
            Some(Ok(Reply::OpenReply(reply))) => Some(reply.fd),
            _ => None,
        });
        let opened: Set = fds.map(|_, fd| fd.is_some());
        if opened.none() {
            let errnos = replies.iter().filter_map(|(_, reply)| match reply {
                Some(Err(failure)) => Some(failure.errno),
                _ => None,
            });
            return Err(final_errno(errnos).into());
        }
        let fd = self.register_fd(ctx, self.inodes.get(gfid), flags, is_dir, &fds);
        if let Err(failure) = self.check_quorum(&opened) {
            self.release_fd(fd);
            return Err(failure);
        }
        let xdata = replies.iter_mut().find_map(|(_, reply)| match reply.take() {
            Some(Ok(reply)) => Some(reply.xdata().cloned()),
            _ => None,
        });
        Ok(OpenReply { fd, xdata: xdata.flatten() })
    }

    /// FLUSH matters to bricks only for POSIX locks; without any, closing a file costs no round trip.
    pub(super) async fn flush(self: &Arc<Self>, ctx: &Context, request: Flush) -> Outcome<Reply> {
        let fd = self.open_fd(request.fd)?;
        let inode = self.inodes.get(request.gfid);
        if !inode.posix_locked.load(Ordering::Acquire) {
            return Ok(AckReply { xdata: None }.into());
        }
        let up = self.children.up();
        let replies = self.send_with_fds(ctx, &request.into(), &up, fd.as_ref(), None).await;
        first_success(replies)
    }

    /// FSYNCDIR must have reached every child that is up.
    pub(super) async fn fsyncdir(self: &Arc<Self>, ctx: &Context, fd: Fd, request: &Request) -> Outcome<Reply> {
        let up = self.children.up();
        self.check_quorum(&up)?;
        let fd = self.open_fd(fd)?;
        let mut replies = self.send_with_fds(ctx, request, &up, fd.as_ref(), None).await;
        let failed = replies.iter_mut().find_map(|(_, reply)| match reply {
            Some(Err(failure)) if failure.errno != Errno::ENOTCONN => Some(failure.clone()),
            _ => None,
        });
        self.check_quorum(&replies.map(|_, reply| matches!(reply, Some(Ok(_)))))?;
        failed.map_or_else(|| first_success(replies), Err)
    }
}

/// The first success; else the failure that says most.
pub(super) fn first_success(mut replies: SubvolMap<Option<Outcome<Reply>>>) -> Outcome<Reply> {
    let errnos: Vec<Errno> = replies
        .iter()
        .filter_map(|(_, reply)| match reply {
            Some(Err(failure)) => Some(failure.errno),
            _ => None,
        })
        .collect();
    replies
        .iter_mut()
        .find_map(|(_, reply)| reply.take().and_then(Result::ok))
        .ok_or_else(|| final_errno(errnos.into_iter()).into())
}
