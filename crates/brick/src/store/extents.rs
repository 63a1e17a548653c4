//! TRUNCATE, FTRUNCATE, FALLOCATE, DISCARD, ZEROFILL, SEEK and COPY_FILE_RANGE: sizes, holes and ranges.

use std::sync::Arc;

use mortar_sys::file::{self, AllocFlags};
use mortar_sys::{Loc, Result};
use mortar_types::fop::{
    ChangeReply, CopyFileRange, CopyReply, Discard, Fallocate, Ftruncate, Seek, SeekReply, SeekWhat, Truncate, Zerofill,
};
use mortar_types::{Context, Dict, Errno, Fd, Iatt, Outcome};

use super::brick::Brick;
use super::fds::OpenFile;
use super::permission::Want;

/// The flag of FALLOCATE that may come from a client: others have fops of their own.
const FALLOC_FL_KEEP_SIZE: u32 = 1;

/// Zeroes written at a time where the file system cannot zero a range itself.
static ZEROES: [u8; 128 * 1024] = [0; 128 * 1024];

impl Brick {
    pub(crate) fn truncate(&self, ctx: &Context, request: &Truncate) -> Outcome<ChangeReply> {
        let (node, stat) = self.node_with_stat(request.gfid)?;
        self.permit(ctx, node.loc(self), &stat, Want::WRITE)?;
        let open = self.file(request.gfid, Fd::ANONYMOUS)?;
        self.resize(ctx, &open, request.offset, request.xdata.as_ref())
    }

    pub(crate) fn ftruncate(&self, ctx: &Context, request: &Ftruncate) -> Outcome<ChangeReply> {
        let open = self.file(request.gfid, request.fd)?;
        self.resize(ctx, &open, request.offset, request.xdata.as_ref())
    }

    fn resize(&self, ctx: &Context, open: &OpenFile, size: u64, xdata: Option<&Dict>) -> Outcome<ChangeReply> {
        // A size beyond what the kernel counts in.
        i64::try_from(size).map_err(|_| Errno::EFBIG)?;
        self.change_data(ctx, open, xdata, false, |open| file::truncate(open.fd(), size))
    }

    /// The frame of a change of an open file's data: checks, attributes before and after, times.
    fn change_data(
        &self,
        ctx: &Context,
        open: &OpenFile,
        xdata: Option<&Dict>,
        grows: bool,
        change: impl FnOnce(&OpenFile) -> Result<()>,
    ) -> Outcome<ChangeReply> {
        open.check()?;
        if grows {
            self.check_space(ctx, xdata)?;
        }
        let loc = Loc::Fd(open.fd());
        let pre = self.iatt(&open.inode, loc)?;
        change(open)?;
        self.touch_self(ctx, &open.inode, loc);
        let post = self.iatt(&open.inode, loc)?;
        Ok(ChangeReply { pre, post, xdata: Some(Dict::new()) })
    }

    pub(crate) fn fallocate(&self, ctx: &Context, request: &Fallocate) -> Outcome<ChangeReply> {
        let open = self.file(request.gfid, request.fd)?;
        let flags = match request.flags {
            0 => AllocFlags::empty(),
            FALLOC_FL_KEEP_SIZE => AllocFlags::KEEP_SIZE,
            _ => return Err(Errno::EOPNOTSUPP.into()),
        };
        self.change_data(ctx, &open, request.xdata.as_ref(), true, |open| {
            file::fallocate(open.fd(), flags, request.offset, request.size)
        })
    }

    pub(crate) fn discard(&self, ctx: &Context, request: &Discard) -> Outcome<ChangeReply> {
        let open = self.file(request.gfid, request.fd)?;
        let flags = AllocFlags::KEEP_SIZE | AllocFlags::PUNCH_HOLE;
        self.change_data(ctx, &open, request.xdata.as_ref(), false, |open| {
            file::fallocate(open.fd(), flags, request.offset, request.size)
        })
    }

    pub(crate) fn zerofill(&self, ctx: &Context, request: &Zerofill) -> Outcome<ChangeReply> {
        let open = self.file(request.gfid, request.fd)?;
        self.change_data(ctx, &open, request.xdata.as_ref(), true, |open| {
            zero_range(open, request.offset, request.size)
        })
    }

    pub(crate) fn seek(&self, request: &Seek) -> Outcome<SeekReply> {
        let open = self.file(request.gfid, request.fd)?;
        // Data positions move the description's own, which nothing here uses: reads and writes carry their offsets.
        let offset = match request.what {
            SeekWhat::Data => file::seek_data(open.fd(), request.offset)?,
            SeekWhat::Hole => file::seek_hole(open.fd(), request.offset)?,
        };
        Ok(SeekReply { offset, xdata: None })
    }

    pub(crate) fn copy_file_range(&self, ctx: &Context, request: &CopyFileRange) -> Outcome<CopyReply> {
        let from = self.file(request.gfid_in, request.fd_in)?;
        let to = self.file(request.gfid_out, request.fd_out)?;
        to.check()?;
        self.check_space(ctx, request.xdata.as_ref())?;
        if request.flags != 0 {
            return Err(Errno::EINVAL.into());
        }
        let pre = self.iatt_of_open(&to)?;
        let copied = copy(&from, &to, request)?;
        self.touch_self(ctx, &to.inode, Loc::Fd(to.fd()));
        let (stat, post) = (self.iatt_of_open(&from)?, self.iatt_of_open(&to)?);
        let copied = u32::try_from(copied).map_err(|_| Errno::EINVAL)?;
        Ok(CopyReply { copied, stat, pre, post, xdata: Some(Dict::new()) })
    }

    fn iatt_of_open(&self, open: &Arc<OpenFile>) -> Result<Iatt> {
        self.iatt(&open.inode, Loc::Fd(open.fd()))
    }
}

/// Copies until all is copied or the source ends. An error after a part reports the part.
fn copy(from: &OpenFile, to: &OpenFile, request: &CopyFileRange) -> Result<usize> {
    let size = request.size as usize;
    let mut done = 0;
    while done < size {
        let (source, target) = (request.offset_in + done as u64, request.offset_out + done as u64);
        match file::copy_range(from.fd(), source, to.fd(), target, size - done) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::EINTR) => {}
            Err(error) if done == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(done)
}

fn zero_range(open: &OpenFile, offset: u64, size: u64) -> Result<()> {
    match file::fallocate(open.fd(), AllocFlags::ZERO_RANGE, offset, size) {
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => write_zeroes(open, offset, size),
        result => result,
    }
}

fn write_zeroes(open: &OpenFile, offset: u64, size: u64) -> Result<()> {
    let end = offset.checked_add(size).ok_or(Errno::EFBIG)?;
    let mut at = offset;
    while at < end {
        let count = (end - at).min(ZEROES.len() as u64) as usize;
        match file::write_at(open.fd(), at, &ZEROES[..count])? {
            0 => return Err(Errno::ENOSPC),
            written => at += written as u64,
        }
    }
    Ok(())
}
