//! Reads: from one readable copy, from the next one when that fails.

use std::sync::Arc;

use mortar_logic::replicate::{Set, SetExt, read_child};
use mortar_types::{Context, Errno, FileType, Gfid, Outcome, Reply, Request, SubvolId};

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
        while let Some(child) = self.choose(&untried, gfid, ctx, known.kind) {
            untried[child] = false;
            match self.send_one(ctx, request.clone(), child, fd, None).await {
                Ok(reply) => return Ok(reply),
                Err(failure) if decides_absence && failure.errno == Errno::ENOENT => return Err(failure),
                Err(failure) if may_differ_elsewhere(failure.errno) => last = failure,
                Err(failure) => return Err(failure),
            }
        }
        Err(last)
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
