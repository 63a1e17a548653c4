//! Reads: from one readable copy, from the next one as well when that fails or is late.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use mortar_logic::replicate::{Set, SetExt, read_child};
use mortar_types::{Context, Errno, FileType, Gfid, Outcome, Reply, Request, SubvolId};
use tokio::time::Instant;

use super::Core;
use super::fds::OpenFd;
use super::inode::Known;
use super::route;

impl Core {
    /// The child to read from, among `readable` and up.
    pub(super) fn choose(&self, readable: &Set, gfid: Gfid, ctx: &Context, kind: FileType) -> Option<SubvolId> {
        let policy = read_child::Policy { preferred: self.preferred(), mode: self.options.read_hash_mode };
        let readable = readable.and(&self.children.up());
        let is_dir = kind == FileType::Directory;
        read_child::choose(&policy, &readable, &gfid, ctx.pid.0, is_dir, &self.children.load())
    }

    /// A read-only request about an inode, perhaps through an open file.
    pub(super) async fn read(self: &Arc<Self>, ctx: &Context, gfid: Gfid, request: Request) -> Outcome<Reply> {
        let fd = match route::fd_of(&request) {
            Some(fd) => self.open_fd(fd)?,
            None => None,
        };
        self.check_quorum(&self.children.up())?;
        self.read_one(ctx, gfid, fd.as_ref(), request).await
    }

    pub(super) async fn read_one(
        self: &Arc<Self>,
        ctx: &Context,
        gfid: Gfid,
        fd: Option<&Arc<OpenFd>>,
        request: Request,
    ) -> Outcome<Reply> {
        let inode = self.inodes.get(gfid);
        let known = self.known(ctx, &inode, fd).await?;
        match self.read_at(ctx, gfid, fd, &request, &known).await {
            // All that were good are gone. What was remembered may be older than a heal of another copy.
            Err(failure) if failure.errno == Errno::ENOTCONN => {
                let again = self.refresh(ctx, &inode, fd).await.map_err(|_| failure)?;
                self.read_at(ctx, gfid, fd, &request, &again).await
            }
            outcome => outcome,
        }
    }

    /// At the copies that are `known` to be good, one after the other.
    async fn read_at(
        self: &Arc<Self>,
        ctx: &Context,
        gfid: Gfid,
        fd: Option<&Arc<OpenFd>>,
        request: &Request,
        known: &Known,
    ) -> Outcome<Reply> {
        let mut untried = known.readable.both();
        if untried.none() {
            return Err(Errno::EIO.into());
        }
        // Where the listing of a directory is believed, so is the absence of a name.
        let decides_absence = matches!(request, Request::Lookup(_));
        let mut last = Errno::ENOTCONN.into();
        // Healers and movers can wait, and shall not read twice.
        let hurries = !ctx.pid.is_internal();
        let mut asked = FuturesUnordered::new();
        let mut next = self.choose(&untried, gfid, ctx, known.kind);
        loop {
            let Some(child) = next.take() else { return Err(last) };
            untried[child] = false;
            asked.push(self.ask_one(ctx, request.clone(), child, fd));
            let late = tokio::time::sleep(self.children.late_after(child));
            tokio::pin!(late);
            // Until another one is to be asked as well: one has failed, or this one is late.
            while next.is_none() {
                tokio::select! {
                    answered = asked.next() => match answered {
                        Some(Ok(reply)) => return Ok(reply),
                        Some(Err(failure)) if decides_absence && failure.errno == Errno::ENOENT => return Err(failure),
                        Some(Err(failure)) if may_differ_elsewhere(failure.errno) => {
                            last = failure;
                            next = self.choose(&untried, gfid, ctx, known.kind);
                        }
                        Some(Err(failure)) => return Err(failure),
                        None => return Err(last),
                    },
                    () = &mut late, if hurries && !late.is_elapsed() => next = self.choose(&untried, gfid, ctx, known.kind),
                }
            }
        }
    }

    async fn ask_one(
        &self,
        ctx: &Context,
        request: Request,
        child: SubvolId,
        fd: Option<&Arc<OpenFd>>,
    ) -> Outcome<Reply> {
        let sent = Instant::now();
        let outcome = self.send_one(ctx, request, child, fd, None).await;
        if outcome.is_ok() {
            self.children.answered(child, sent.elapsed());
        }
        outcome
    }
}

/// Whether another copy could answer better: the copy is gone, broken or not open here. Anything else (no permission,
/// no such xattr, bad range) every good copy would say too.
const fn may_differ_elsewhere(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ENOTCONN
            | Errno::EIO
            | Errno::ENOENT
            | Errno::ESTALE
            | Errno::EBADF
            | Errno::EBADFD
            | Errno::ETIMEDOUT
            | Errno::EUCLEAN
            | Errno::ENOSYS
            | Errno::EPROTO
    )
}
