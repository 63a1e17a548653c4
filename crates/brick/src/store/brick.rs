//! The brick's state, and the one table from requests to what does them. Everything here is synchronous; the shell in
//! [`super`] decides what runs on a thread that may block.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use mortar_types::{Context, Errno, Outcome, Reply, Request};

use crate::index::Index;

use super::fds::FdTable;
use super::inode::InodeTable;
use super::known::KnownTable;
use super::options::StoreOptions;
use super::space::Space;

pub(crate) struct Brick {
    pub(crate) options: StoreOptions,
    /// The brick's directory. Held open, so that its file system cannot be unmounted.
    pub(crate) root: Arc<OwnedFd>,
    /// Device and inode number of `.glusterfs`, which is never an answer, whatever path leads to it.
    pub(crate) hidden: (u64, u64),
    pub(crate) inodes: InodeTable,
    /// What the xattrs of unchanged inodes say.
    pub(crate) known: KnownTable,
    pub(crate) fds: FdTable,
    pub(crate) index: Index,
    pub(crate) space: Space,
}

impl Brick {
    /// Performs a fop to its end.
    pub(crate) fn perform(&self, ctx: &Context, request: Request) -> Outcome<Reply> {
        Ok(match request {
            Request::Lookup(r) => self.lookup(ctx, r)?.into(),
            Request::Stat(r) => self.stat(&r)?.into(),
            Request::Fstat(r) => self.fstat(&r)?.into(),
            Request::Readlink(r) => self.readlink(&r)?.into(),
            Request::Access(r) => self.access(ctx, &r)?.into(),
            Request::Statfs(r) => self.statfs(&r)?.into(),
            Request::Setattr(r) => self.setattr(ctx, &r)?.into(),
            Request::Fsetattr(r) => self.fsetattr(ctx, &r)?.into(),

            Request::Create(r) => self.create(ctx, r)?.into(),
            Request::Mknod(r) => self.mknod(ctx, r)?.into(),
            Request::Mkdir(r) => self.mkdir(ctx, r)?.into(),
            Request::Symlink(r) => self.symlink(ctx, r)?.into(),
            Request::Link(r) => self.link(ctx, r)?.into(),
            Request::Put(r) => self.put(ctx, r)?.into(),
            Request::Unlink(r) => self.unlink(ctx, r)?.into(),
            Request::Rmdir(r) => self.rmdir(ctx, r)?.into(),
            Request::Rename(r) => self.rename(ctx, r)?.into(),

            Request::Open(r) => self.open(ctx, &r)?.into(),
            Request::Read(r) => self.read(&r)?.into(),
            Request::Write(r) => self.write(ctx, &r)?.into(),
            Request::Flush(r) => self.flush(&r)?.into(),
            Request::Fsync(r) => self.fsync(&r)?.into(),
            Request::Truncate(r) => self.truncate(ctx, &r)?.into(),
            Request::Ftruncate(r) => self.ftruncate(ctx, &r)?.into(),
            Request::Fallocate(r) => self.fallocate(ctx, &r)?.into(),
            Request::Discard(r) => self.discard(ctx, &r)?.into(),
            Request::Zerofill(r) => self.zerofill(ctx, &r)?.into(),
            Request::Seek(r) => self.seek(&r)?.into(),
            Request::CopyFileRange(r) => self.copy_file_range(ctx, &r)?.into(),
            Request::Rchecksum(r) => self.rchecksum(&r)?.into(),
            Request::Release(r) => self.release(r.fd)?.into(),

            Request::Opendir(r) => self.opendir(ctx, &r)?.into(),
            Request::Readdir(r) => self.readdir(&r)?.into(),
            Request::Readdirp(r) => self.readdirp(&r)?.into(),
            Request::Fsyncdir(r) => self.fsyncdir(&r)?.into(),
            Request::Releasedir(r) => self.release(r.fd)?.into(),

            Request::Setxattr(r) => self.setxattr(ctx, &r)?.into(),
            Request::Fsetxattr(r) => self.fsetxattr(ctx, &r)?.into(),
            Request::Getxattr(r) => self.getxattr(ctx, &r)?.into(),
            Request::Fgetxattr(r) => self.fgetxattr(ctx, &r)?.into(),
            Request::Removexattr(r) => self.removexattr(ctx, &r)?.into(),
            Request::Fremovexattr(r) => self.fremovexattr(ctx, &r)?.into(),
            Request::Xattrop(r) => self.xattrop(&r)?.into(),
            Request::Fxattrop(r) => self.fxattrop(&r)?.into(),

            // Questions to translators that a Mortar brick does not have (change log, EC): `posix_ipc`.
            Request::Ipc(_) => return Err(Errno::EOPNOTSUPP.into()),
            // Locks and leases are layers above; nobody sends the last four (`ICREATE` and `NAMELINK` have no
            // implementation in 10.3 either).
            Request::Lk(_)
            | Request::Inodelk(_)
            | Request::Finodelk(_)
            | Request::Entrylk(_)
            | Request::Fentrylk(_)
            | Request::Lease(_)
            | Request::GetActiveLk(_)
            | Request::SetActiveLk(_)
            | Request::Icreate(_)
            | Request::Namelink(_) => return Err(Errno::ENOSYS.into()),
        })
    }
}
