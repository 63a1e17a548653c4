//! Attributes: getattr, setattr, access, statfs, and the clearing of set-user-id bits that writes bring with them.

use mortar_types::fop::{Access, Fsetattr, Fstat, Ftruncate, Setattr, Stat, Statfs, Truncate, setattr_valid};
use mortar_types::{Context, Errno, Fd, Gfid, Iatt, Timespec};

use super::{Bridge, Response, Result, errno};
use crate::kernel::abi::fattr;
use crate::kernel::reply::Body;
use crate::kernel::request;
use crate::nodes::NodeId;

const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;
const S_IXGRP: u32 = 0o0010;

impl Bridge {
    pub(super) async fn getattr(
        &self,
        ctx: &Context,
        node: NodeId,
        gfid: Gfid,
        handle: Option<u64>,
    ) -> Result<Response> {
        let file = handle.and_then(|handle| self.handles.file(handle));
        let stat = match file {
            Some(file) => self.fstat(ctx, gfid, file.fd).await?,
            None => match self.volume.fop(ctx, Stat { gfid, xdata: None }).await {
                Ok(reply) => reply.stat,
                Err(failure) => self.fstat(ctx, gfid, self.open_file(node, failure)?.fd).await?,
            },
        };
        self.nodes.set_mode(node, stat.mode);
        Ok(self.attributes(gfid, &stat))
    }

    pub(super) async fn setattr(
        &self,
        ctx: &Context,
        node: NodeId,
        gfid: Gfid,
        change: &request::Setattr,
    ) -> Result<Response> {
        let file = if change.valid & fattr::FH != 0 { self.handles.file(change.fh) } else { None };
        let fd = file.map(|file| file.fd);
        let mut stat = None;
        if change.valid & fattr::SIZE != 0 {
            let mut post = self.truncate(ctx, node, gfid, fd, change.size).await?;
            if change.valid & fattr::KILL_SUIDGID != 0 {
                post = self.kill_suidgid(ctx, gfid, fd, &post).await?.unwrap_or(post);
            }
            stat = Some(post);
        }
        let (wanted, valid) = changes(change, now());
        if valid != 0 {
            stat = Some(self.set_fields(ctx, node, gfid, fd, wanted, valid).await?);
        }
        let Some(stat) = stat else { return self.getattr(ctx, node, gfid, None).await };
        self.nodes.set_mode(node, stat.mode);
        Ok(self.attributes(gfid, &stat))
    }

    pub(super) async fn access(&self, ctx: &Context, gfid: Gfid, mask: u32) -> Result<Response> {
        self.volume.fop(ctx, Access { gfid, mask, xdata: None }).await.map_err(errno)?;
        Ok(Response::empty())
    }

    pub(super) async fn statfs(&self, ctx: &Context, gfid: Gfid) -> Result<Response> {
        let reply = self.volume.fop(ctx, Statfs { gfid, xdata: None }).await.map_err(errno)?;
        Ok(Response::body(Body::statfs(&reply.statfs)))
    }

    /// Clears the set-user-id bit, and the set-group-id bit of a group-executable file, after a change by a caller
    /// without CAP_FSETID. The bricks write as root, for whom no kernel clears them. `None`: there was nothing to
    /// clear.
    pub(super) async fn kill_suidgid(
        &self,
        ctx: &Context,
        gfid: Gfid,
        fd: Option<Fd>,
        stat: &Iatt,
    ) -> Result<Option<Iatt>> {
        let mode = without_suidgid(stat.mode);
        if mode == stat.mode {
            return Ok(None);
        }
        // As root: the caller may write the file without owning it.
        let root = Context { pid: ctx.pid, ..Context::default() };
        let wanted = Iatt { mode, ..Iatt::default() };
        let post = match fd {
            Some(fd) => {
                let request = Fsetattr { gfid, fd, stat: wanted, valid: setattr_valid::MODE, xdata: None };
                self.volume.fop(&root, request).await.map_err(errno)?.post
            }
            None => {
                let request = Setattr { gfid, stat: wanted, valid: setattr_valid::MODE, xdata: None };
                self.volume.fop(&root, request).await.map_err(errno)?.post
            }
        };
        Ok(Some(post))
    }

    pub(super) async fn fstat(&self, ctx: &Context, gfid: Gfid, fd: Fd) -> Result<Iatt> {
        Ok(self.volume.fop(ctx, Fstat { gfid, fd, xdata: None }).await.map_err(errno)?.stat)
    }

    async fn truncate(&self, ctx: &Context, node: NodeId, gfid: Gfid, fd: Option<Fd>, offset: u64) -> Result<Iatt> {
        let fd = match fd {
            Some(fd) => fd,
            None => match self.volume.fop(ctx, Truncate { gfid, offset, xdata: None }).await {
                Ok(reply) => return Ok(reply.post),
                Err(failure) => self.open_file(node, failure)?.fd,
            },
        };
        Ok(self.volume.fop(ctx, Ftruncate { gfid, fd, offset, xdata: None }).await.map_err(errno)?.post)
    }

    async fn set_fields(
        &self,
        ctx: &Context,
        node: NodeId,
        gfid: Gfid,
        fd: Option<Fd>,
        stat: Iatt,
        valid: i32,
    ) -> Result<Iatt> {
        let fd = match fd {
            Some(fd) => fd,
            None => match self.volume.fop(ctx, Setattr { gfid, stat, valid, xdata: None }).await {
                Ok(reply) => return Ok(reply.post),
                Err(failure) => self.open_file(node, failure)?.fd,
            },
        };
        Ok(self.volume.fop(ctx, Fsetattr { gfid, fd, stat, valid, xdata: None }).await.map_err(errno)?.post)
    }
}

/// Everything of a SETATTR but the size. "Now" carries this client's clock, so that all copies get the same time, and still
/// says that it is "now", which more callers may set than a time of their choice.
fn changes(change: &request::Setattr, now: Timespec) -> (Iatt, i32) {
    let mut stat = Iatt { mode: change.mode & 0o7777, uid: change.uid, gid: change.gid, ..Iatt::default() };
    let mut valid = 0;
    let time = |(sec, nsec): (i64, u32)| Timespec::new(sec, nsec);
    for (asked, means) in [
        (fattr::MODE, setattr_valid::MODE),
        (fattr::UID, setattr_valid::UID),
        (fattr::GID, setattr_valid::GID),
        (fattr::ATIME | fattr::ATIME_NOW, setattr_valid::ATIME),
        (fattr::ATIME_NOW, setattr_valid::ATIME_NOW),
        (fattr::MTIME | fattr::MTIME_NOW, setattr_valid::MTIME),
        (fattr::MTIME_NOW, setattr_valid::MTIME_NOW),
        (fattr::CTIME, setattr_valid::CTIME),
    ] {
        if change.valid & asked != 0 {
            valid |= means;
        }
    }
    stat.atime = if change.valid & fattr::ATIME_NOW != 0 { now } else { time(change.atime) };
    stat.mtime = if change.valid & fattr::MTIME_NOW != 0 { now } else { time(change.mtime) };
    stat.ctime = time(change.ctime);
    (stat, valid)
}

fn now() -> Timespec {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    Timespec::new(now.tv_sec, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// The rule of Linux's `setattr_should_drop_suidgid`.
const fn without_suidgid(mode: u32) -> u32 {
    if mode & 0o170_000 != 0o100_000 {
        return mode;
    }
    let mode = mode & !S_ISUID;
    if mode & S_IXGRP != 0 { mode & !S_ISGID } else { mode }
}

/// Whether a write by an unprivileged caller changes this mode.
pub(super) const fn has_suidgid(mode: u32) -> bool {
    without_suidgid(mode) != mode
}

/// Bad file handle numbers in a request are the kernel's; an inode that the volume does not know is stale.
pub(super) const fn stale(errno: Errno) -> Errno {
    if errno.0 == Errno::ENOENT.0 { Errno::ESTALE } else { errno }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_becomes_one_time_for_all_copies() {
        let now = Timespec::new(5, 6);
        let change = request::Setattr {
            valid: fattr::ATIME | fattr::ATIME_NOW | fattr::MTIME,
            mtime: (1, 2),
            ..Default::default()
        };
        let (stat, valid) = changes(&change, now);
        assert_eq!((stat.atime, stat.mtime), (now, Timespec::new(1, 2)));
        assert_eq!(valid, setattr_valid::ATIME | setattr_valid::ATIME_NOW | setattr_valid::MTIME);
    }

    #[test]
    fn a_size_alone_changes_no_field() {
        let change = request::Setattr { valid: fattr::SIZE | fattr::FH | fattr::LOCKOWNER, ..Default::default() };
        assert_eq!(changes(&change, Timespec::default()).1, 0);
    }

    #[test]
    fn set_group_id_stays_on_files_that_the_group_cannot_execute() {
        assert_eq!(without_suidgid(0o106_755), 0o100_755);
        assert_eq!(without_suidgid(0o106_745), 0o102_745);
        assert_eq!(without_suidgid(0o042_755), 0o042_755);
        assert!(!has_suidgid(0o100_644));
    }
}
