//! OPEN, READ, WRITE, FLUSH, FSYNC and RELEASE.

use std::os::fd::AsFd;
use std::sync::Arc;

use bytes::Bytes;
use mortar_sys::at::{self, OpenFlags};
use mortar_sys::{Loc, Result, file};
use mortar_types::fop::{
    AckReply, ChangeReply, Flush, Fsync, Open as OpenRequest, OpenReply, Read, ReadReply, Write, WriteReply,
};
use mortar_types::keys::{OPEN_ACTIVE_FD_COUNT, OPEN_FD_COUNT, WRITE_IS_APPEND};
use mortar_types::{Context, Dict, Errno, Fd, Gfid, Outcome, Value};

use super::brick::Brick;
use super::fds::{Open, OpenFile};
use super::open_flags::{self, O_APPEND, O_DSYNC, O_TRUNC};
use super::permission::Want;
use super::resolve::{Node, Place, is_regular};

/// Makes write and stat one step for writers that need it (`glusterfs.write-update-atomic`).
const WRITE_UPDATE_ATOMIC: &str = "glusterfs.write-update-atomic";
/// Rebalance's write: EBUSY when a client has written there meanwhile.
const AVOID_OVERWRITE: &str = "glusterfs.avoid.overwrite";
const PROTECT_WRITES: &str = "trusted.glusterfs.protect.writes";

impl Brick {
    pub(crate) fn open(&self, ctx: &Context, request: &OpenRequest) -> Outcome<OpenReply> {
        let (node, stat) = self.node_with_stat(request.gfid)?;
        let loc = node.loc(self);
        self.permit(ctx, loc, &stat, Want::of_open(request.flags))?;
        let file = match &node.place {
            // Seen on real bricks: a directory opens as a file, for calls that only need an fd of it.
            Place::Dir(dir) => at::open_dir(dir.as_fd(), b".")?,
            // Opening a device or a fifo would act on it, or wait.
            _ if !is_regular(&stat) => return Err(Errno::EINVAL.into()),
            Place::File(_) | Place::Unlinked(_) => self.open_place(&node, open_flags::of_client(request.flags))?,
        };
        if request.flags & O_TRUNC != 0 {
            self.touch_self(ctx, &node.inode, loc);
        }
        Ok(OpenReply { fd: self.add_file(node.inode, file, request.flags), xdata: None })
    }

    fn open_place(&self, node: &Node, flags: OpenFlags) -> Result<std::os::fd::OwnedFd> {
        match node.loc(self) {
            Loc::At(root, path) => at::open(root, path, flags, 0),
            Loc::Fd(_) => Err(Errno::EISDIR),
        }
    }

    /// The open file of a request. The anonymous fd is the inode's own, opened when it is first needed.
    pub(crate) fn file(&self, gfid: Gfid, fd: Fd) -> Result<Arc<OpenFile>> {
        if !fd.is_anonymous() {
            return match self.fds.get(fd)? {
                Open::File(open) => Ok(open),
                Open::Dir(_) | Open::Index(_) => Err(Errno::EISDIR),
            };
        }
        let inode = self.inodes.get(gfid);
        let known = inode.memory().anonymous.clone();
        let file = match known {
            Some(file) => file,
            None => self.open_anonymous(gfid)?,
        };
        let failures_at_open = inode.failures();
        Ok(Arc::new(OpenFile { inode, file, flags: open_flags::O_RDWR, failures_at_open }))
    }

    fn open_anonymous(&self, gfid: Gfid) -> Result<Arc<std::os::fd::OwnedFd>> {
        let (node, found) = self.find_with_stat(gfid)?;
        if node.is_dir() {
            return Err(Errno::EISDIR);
        }
        if !found.as_ref().is_some_and(is_regular) {
            return Err(Errno::EINVAL);
        }
        let file = Arc::new(self.open_place(&node, OpenFlags::RDWR)?);
        // Not kept for a file without names: keeping it open would keep it on disk.
        if matches!(node.place, Place::File(_)) {
            node.inode.memory().anonymous = Some(file.clone());
        }
        Ok(file)
    }

    pub(crate) fn read(&self, request: &Read) -> Outcome<ReadReply> {
        let open = self.file(request.gfid, request.fd)?;
        // Guards against a peer's number that no reply could carry.
        let size = request.size.min(super::IO_BYTES_MAX) as usize;
        let mut data = file::read_once(open.fd(), request.offset, size)?;
        let loc = Loc::Fd(open.fd());
        let stat = loc.stat()?;
        let file_size = u64::try_from(stat.st_size).unwrap_or(0);
        let is_at_end = |data: &[u8]| request.offset.saturating_add(data.len() as u64) >= file_size;
        if data.len() < size && !is_at_end(&data) {
            // Short for another reason than the end: a client would take the rest for zeroes. An error shows now.
            data = file::read_at(open.fd(), request.offset, size)?;
        }
        let eof = is_at_end(&data);
        let stat = self.iatt_from(&open.inode, loc, &stat);
        Ok(ReadReply { stat, data: Bytes::from(data), eof, xdata: None })
    }

    pub(crate) fn write(&self, ctx: &Context, request: &Write) -> Outcome<WriteReply> {
        let open = self.file(request.gfid, request.fd)?;
        open.check()?;
        let loc = Loc::Fd(open.fd());
        let xdata = request.xdata.as_ref();
        let asked = |key: &str| xdata.is_some_and(|xdata| xdata.contains(key));
        // The one answer that must be true of this very write is whether it appended.
        let _serial = (asked(WRITE_UPDATE_ATOMIC) || asked(WRITE_IS_APPEND)).then(|| open.inode.serialise());
        let before = loc.stat()?;
        let size = u64::try_from(before.st_size).unwrap_or(0);
        let end = request.offset.checked_add(request.data.len() as u64).ok_or(Errno::EFBIG)?;
        let append = open.flags & O_APPEND != 0;
        if append || end > size {
            self.check_space(ctx, xdata)?;
        }
        if asked(AVOID_OVERWRITE) && mortar_sys::xattr::get(loc, PROTECT_WRITES.as_bytes())?.is_some() {
            return Err(Errno::EBUSY.into());
        }
        let pre = self.iatt_from(&open.inode, loc, &before);
        let written = file::write_at(open.fd(), request.offset, &request.data)?;
        if (request.flags | open.flags) & O_DSYNC != 0 {
            // O_SYNC contains O_DSYNC. A synced write that did not reach the disk has failed, whatever the cache holds.
            self.sync_file(&open, false)?;
        }
        self.touch_self(ctx, &open.inode, loc);
        let post = self.iatt(&open.inode, loc)?;
        let is_append = append || request.offset == size;
        let xdata = write_answers(xdata, &open, is_append);
        let written = u32::try_from(written).map_err(|_| Errno::EINVAL)?;
        Ok(WriteReply { written, pre, post, xdata: Some(xdata) })
    }

    /// Nothing is kept here between a write and its reply; posix locks are the lock layer's.
    pub(crate) fn flush(&self, request: &Flush) -> Outcome<AckReply> {
        if !request.fd.is_anonymous() {
            self.fds.get(request.fd)?;
        }
        Ok(AckReply { xdata: None })
    }

    pub(crate) fn fsync(&self, request: &Fsync) -> Outcome<ChangeReply> {
        let open = self.file(request.gfid, request.fd)?;
        open.check()?;
        let loc = Loc::Fd(open.fd());
        let pre = self.iatt(&open.inode, loc)?;
        self.sync_file(&open, request.datasync != 0)?;
        let post = self.iatt(&open.inode, loc)?;
        Ok(ChangeReply { pre, post, xdata: Some(Dict::new()) })
    }

    /// Brings a file's data to the disk. After a failure the kernel may have dropped dirty pages and would report success
    /// the next time; the inode remembers that it lied.
    pub(crate) fn sync_file(&self, open: &OpenFile, data_only: bool) -> Result<()> {
        let result = if data_only { file::fdatasync(open.fd()) } else { file::fsync(open.fd()) };
        if let Err(errno) = result {
            tracing::error!(gfid = %open.inode.gfid, %errno, "fsync failed: data may be lost; fds open now answer EIO");
            open.inode.latch_failure();
        }
        result
    }

    /// RELEASE and RELEASEDIR; a number that stands for nothing is fine (observed on 10.3).
    pub(crate) fn release(&self, fd: Fd) -> Outcome<AckReply> {
        let inode = match self.fds.remove(fd) {
            Some(Open::File(open)) => open.inode.clone(),
            Some(Open::Dir(open)) => open.inode.clone(),
            Some(Open::Index(_)) | None => return Ok(AckReply { xdata: None }),
        };
        if inode.count_close() == 0 {
            self.drop_unlinked(&inode);
        }
        Ok(AckReply { xdata: None })
    }

    /// The attributes of an open file or directory, whatever it is.
    pub(crate) fn opened(&self, gfid: Gfid, fd: Fd) -> Result<Opened> {
        if fd.is_anonymous() {
            return self.find(gfid).map(Opened::Node);
        }
        self.fds.get(fd).map(Opened::Fd)
    }
}

/// What an fd fop that is not about data works on.
pub(crate) enum Opened {
    Node(Node),
    Fd(Open),
}

impl Opened {
    /// Calls `work` with the inode and its place; EBADF for a directory of the index.
    pub(crate) fn with<T>(
        &self,
        brick: &Brick,
        work: impl FnOnce(&Arc<super::inode::Inode>, Loc<'_>) -> Outcome<T>,
    ) -> Outcome<T> {
        match self {
            Self::Node(node) => work(&node.inode, node.loc(brick)),
            Self::Fd(Open::File(open)) => work(&open.inode, Loc::Fd(open.fd())),
            Self::Fd(Open::Dir(open)) => work(&open.inode, Loc::Fd(open.dir.as_fd())),
            Self::Fd(Open::Index(_)) => Err(Errno::EBADF.into()),
        }
    }
}

fn write_answers(request: Option<&Dict>, open: &OpenFile, is_append: bool) -> Dict {
    let mut reply = Dict::new();
    let Some(request) = request else { return reply };
    for (key, _) in request.iter() {
        match key {
            WRITE_IS_APPEND => reply.set(WRITE_IS_APPEND, Value::Uint(is_append.into())),
            OPEN_FD_COUNT => reply.set(OPEN_FD_COUNT, Value::Uint(open.inode.open_fds().into())),
            OPEN_ACTIVE_FD_COUNT => reply.set(OPEN_ACTIVE_FD_COUNT, Value::Uint(open.inode.open_fds().into())),
            _ => {}
        }
    }
    reply
}
