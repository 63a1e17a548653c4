//! Open files: open, create, read, write, the ways of closing, space and holes.

use std::sync::Arc;

use bytes::Bytes;
use mortar_types::fop::{
    CopyFileRange, Create, Discard, Fallocate, Flush, Fsync, LockType, Open, Read, Release, Seek, SeekWhat, Write,
    Zerofill,
};
use mortar_types::{Context, Errno, Gfid, LkOwner};

use super::attributes::{has_suidgid, stale};
use super::entries::fresh_gfid;
use super::{Bridge, DirectIo, Grant, Response, Result, checked, errno};
use crate::handles::FileHandle;
use crate::kernel::abi::{self, fopen};
use crate::kernel::reply::{Answer, Body};
use crate::nodes::NodeId;

const O_ACCMODE: u32 = 0o3;
const O_WRONLY: u32 = 0o1;
const O_RDWR: u32 = 0o2;
const O_CREAT: u32 = 0o100;
const O_EXCL: u32 = 0o200;
const O_TRUNC: u32 = 0o1000;
const O_APPEND: u32 = 0o2000;
const O_SYNC: u32 = 0o4_010_000;
const O_DIRECT: u32 = 0o40_000;

const FALLOC_FL_KEEP_SIZE: u32 = 0x01;
const FALLOC_FL_PUNCH_HOLE: u32 = 0x02;
const FALLOC_FL_ZERO_RANGE: u32 = 0x10;

const SEEK_DATA: u32 = 3;
const SEEK_HOLE: u32 = 4;

/// Longest copy asked in one fop: what a brick does within a breath.
const COPY_BYTES_MAX: u64 = 64 << 20;

impl Bridge {
    pub(super) async fn open(
        &self,
        ctx: &Context,
        node: NodeId,
        gfid: Gfid,
        flags: u32,
        open_flags: u32,
    ) -> Result<Response> {
        let request = Open { gfid, flags: self.volume_flags(flags), xdata: None };
        // ESTALE rather than ENOENT: the kernel then looks the name up once more before it believes it.
        let reply = self.volume.fop(ctx, request).await.map_err(|failure| stale(failure.errno))?;
        let handle = self.keep(node, FileHandle { node, gfid, fd: reply.fd });
        if flags & (O_ACCMODE | O_TRUNC) == 0 {
            self.note_opened(node);
        }
        if flags & O_TRUNC != 0 && open_flags & abi::OPEN_KILL_SUIDGID != 0 && has_suidgid(self.nodes.mode(node)) {
            let stat = self.fstat(ctx, gfid, reply.fd).await?;
            self.kill_suidgid(ctx, gfid, Some(reply.fd), &stat).await?;
        }
        let body = Body::opened(handle, self.cache_flags());
        Ok(Response { answer: Answer::Body(body), grant: Grant::File(handle) })
    }

    /// `permissions`: mode and umask.
    pub(super) async fn create(
        &self,
        ctx: &Context,
        parent: NodeId,
        gfid: Gfid,
        name: Bytes,
        flags: u32,
        permissions: (u32, u32),
    ) -> Result<Response> {
        let ((mode, umask), name) = (permissions, checked(name)?);
        let request = Create {
            parent: gfid,
            flags: self.volume_flags(flags) | flags & O_EXCL | O_CREAT,
            mode: mode & 0o7777,
            umask,
            name: name.clone(),
            xdata: fresh_gfid(),
        };
        let reply = self.volume.fop(ctx, request).await.map_err(errno)?;
        let entry = self.entry(parent, &name, &reply.stat)?;
        let node = NodeId(entry.node);
        let handle = self.keep(node, FileHandle { node, gfid: reply.stat.gfid, fd: reply.fd });
        let body = Body::created(&entry, handle, self.cache_flags());
        Ok(Response { answer: Answer::Body(body), grant: Grant::Created(node, handle) })
    }

    pub(super) async fn read(&self, ctx: &Context, handle: u64, offset: u64, size: u32) -> Result<Response> {
        let file = self.file(handle)?;
        let request = Read { gfid: file.gfid, fd: file.fd, offset, size, flags: 0, xdata: None };
        let mut data = self.volume.fop(ctx, request).await.map_err(errno)?.data;
        // More than was asked would be refused by the kernel as a whole.
        data.truncate(size as usize);
        Ok(Response::answer(Answer::Data(data)))
    }

    pub(super) async fn write(
        &self,
        ctx: &Context,
        handle: u64,
        offset: u64,
        write_flags: u32,
        data: Bytes,
    ) -> Result<Response> {
        let file = self.file(handle)?;
        let request = Write { gfid: file.gfid, fd: file.fd, offset, flags: 0, data, xdata: None };
        let reply = self.volume.fop(ctx, request).await.map_err(errno)?;
        if write_flags & abi::WRITE_KILL_SUIDGID != 0 {
            self.kill_suidgid(ctx, file.gfid, Some(file.fd), &reply.post).await?;
        }
        Ok(Response::body(Body::size(reply.written)))
    }

    /// Every close(2) flushes, and all that the volume has to do for it is to drop the POSIX locks of the process: writes
    /// were answered when they were on the bricks. Without such locks nobody needs to be asked.
    pub(super) async fn flush(&self, ctx: &Context, handle: u64, lock_owner: u64) -> Result<Response> {
        let file = self.file(handle)?;
        if self.locks.take(file.gfid, lock_owner) {
            let ctx = ctx.with_owner(LkOwner::from_u64(lock_owner));
            self.volume.fop(&ctx, Flush { gfid: file.gfid, fd: file.fd, xdata: None }).await.map_err(errno)?;
        }
        Ok(Response::empty())
    }

    pub(super) async fn fsync(&self, ctx: &Context, handle: u64, datasync: bool) -> Result<Response> {
        let file = self.file(handle)?;
        let request = Fsync { gfid: file.gfid, fd: file.fd, datasync: u32::from(datasync), xdata: None };
        self.volume.fop(ctx, request).await.map_err(errno)?;
        Ok(Response::empty())
    }

    /// Closes in the background: the application's close(2) has returned already.
    pub(super) fn release(self: &Arc<Self>, handle: u64) {
        let Some(file) = self.handles.remove_file(handle) else { return };
        self.nodes.released(file.node, handle);
        let bridge = Arc::clone(self);
        self.background.spawn(async move {
            let ctx = Context::default();
            for owner in bridge.locks.owners_through(handle) {
                // Locks of open file descriptions end with the last close, and no flush tells of it.
                let lock = crate::locks::whole_file(LockType::Unlock, owner);
                let _ = bridge.lk(&ctx, &file, lock, false).await;
            }
            let request = Release { gfid: file.gfid, fd: file.fd, xdata: None };
            if let Err(failure) = bridge.volume.fop(&ctx, request).await {
                tracing::debug!(gfid = %file.gfid, errno = %failure.errno, "release failed");
            }
        });
    }

    pub(super) async fn fallocate(
        &self,
        ctx: &Context,
        handle: u64,
        offset: u64,
        size: u64,
        mode: u32,
    ) -> Result<Response> {
        let file = self.file(handle)?;
        let (gfid, fd, keep_size) = (file.gfid, file.fd, mode & FALLOC_FL_KEEP_SIZE != 0);
        match mode & !FALLOC_FL_KEEP_SIZE {
            0 => {
                let request = Fallocate { gfid, fd, flags: mode, offset, size, xdata: None };
                self.volume.fop(ctx, request).await.map_err(errno)?;
            }
            FALLOC_FL_PUNCH_HOLE if keep_size => {
                self.volume.fop(ctx, Discard { gfid, fd, offset, size, xdata: None }).await.map_err(errno)?;
            }
            FALLOC_FL_ZERO_RANGE => {
                // The wire's ZEROFILL grows the file; one that must not grow is zeroed up to its end.
                let size = if keep_size {
                    let end = self.fstat(ctx, gfid, fd).await?.size;
                    size.min(end.saturating_sub(offset))
                } else {
                    size
                };
                if size > 0 {
                    self.volume.fop(ctx, Zerofill { gfid, fd, offset, size, xdata: None }).await.map_err(errno)?;
                }
            }
            _ => return Err(Errno::EOPNOTSUPP),
        }
        Ok(Response::empty())
    }

    pub(super) async fn lseek(&self, ctx: &Context, handle: u64, offset: u64, whence: u32) -> Result<Response> {
        let file = self.file(handle)?;
        let what = match whence {
            SEEK_DATA => SeekWhat::Data,
            SEEK_HOLE => SeekWhat::Hole,
            _ => return Err(Errno::EINVAL),
        };
        let request = Seek { gfid: file.gfid, fd: file.fd, offset, what, xdata: None };
        let reply = self.volume.fop(ctx, request).await.map_err(errno)?;
        Ok(Response::body(Body::offset(reply.offset)))
    }

    pub(super) async fn copy_file_range(
        &self,
        ctx: &Context,
        (handle_in, offset_in): (u64, u64),
        (handle_out, offset_out): (u64, u64),
        length: u64,
        flags: u64,
    ) -> Result<Response> {
        let (source, target) = (self.file(handle_in)?, self.file(handle_out)?);
        let request = CopyFileRange {
            gfid_in: source.gfid,
            gfid_out: target.gfid,
            fd_in: source.fd,
            fd_out: target.fd,
            offset_in,
            offset_out,
            size: u32::try_from(length.min(COPY_BYTES_MAX)).unwrap_or(0),
            flags: u32::try_from(flags).map_err(|_| Errno::EINVAL)?,
            xdata: None,
        };
        let reply = self.volume.fop(ctx, request).await.map_err(errno)?;
        Ok(Response::body(Body::size(reply.copied)))
    }

    fn keep(&self, node: NodeId, file: FileHandle) -> u64 {
        let handle = self.handles.insert_file(file);
        self.nodes.opened(node, handle);
        handle
    }

    /// The flags that the volume opens with. O_DIRECT by-passes what this client caches; brick connections take it off,
    /// since the bricks' disks would put their alignment rules on the application. With the kernel's write-back cache the kernel
    /// reads pages that it writes to, and appends at offsets of its own.
    const fn volume_flags(&self, flags: u32) -> u32 {
        let kept = flags & (O_ACCMODE | O_APPEND | O_TRUNC | O_SYNC | O_DIRECT);
        if !self.config.writeback_cache {
            return kept;
        }
        let kept = kept & !O_APPEND;
        if kept & O_ACCMODE == O_WRONLY { kept & !O_ACCMODE | O_RDWR } else { kept }
    }

    const fn cache_flags(&self) -> u32 {
        match self.config.direct_io {
            DirectIo::Always => fopen::DIRECT_IO,
            DirectIo::Asked if self.config.keep_cache => fopen::KEEP_CACHE,
            DirectIo::Asked => 0,
        }
    }
}
