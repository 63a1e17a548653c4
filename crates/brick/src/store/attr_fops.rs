//! STAT, FSTAT, READLINK, SETATTR and FSETATTR.

use mortar_sys::{Loc, at};
use mortar_types::fop::{
    ChangeReply, Fsetattr, Fstat, Readlink, ReadlinkReply, Setattr, Stat, StatReply, setattr_valid,
};
use mortar_types::{Context, Dict, Errno, Iatt, Mdata, Outcome, Timespec};
use rustix::fs::{Timestamps, UTIME_NOW, UTIME_OMIT};

use super::answers::Subject;
use super::brick::Brick;
use super::inode::Inode;
use super::permission::{Want, is_privileged};
use super::resolve::{is_dir, is_symlink};

impl Brick {
    pub(crate) fn stat(&self, request: &Stat) -> Outcome<StatReply> {
        let (node, stat) = self.node_with_stat(request.gfid)?;
        self.stat_reply(&node.inode, node.loc(self), &stat, request.xdata.as_ref())
    }

    pub(crate) fn fstat(&self, request: &Fstat) -> Outcome<StatReply> {
        self.opened(request.gfid, request.fd)?
            .with(self, |inode, loc| self.stat_reply(inode, loc, &loc.stat()?, request.xdata.as_ref()))
    }

    fn stat_reply(
        &self,
        inode: &Inode,
        loc: Loc<'_>,
        stat: &rustix::fs::Stat,
        xdata: Option<&Dict>,
    ) -> Outcome<StatReply> {
        let iatt = self.iatt_from(inode, loc, stat);
        let xdata = self.answer(&Subject { inode, loc, stat }, xdata)?;
        Ok(StatReply { stat: iatt, xdata: Some(xdata) })
    }

    pub(crate) fn readlink(&self, request: &Readlink) -> Outcome<ReadlinkReply> {
        let node = self.node(request.gfid)?;
        let Loc::At(root, path) = node.loc(self) else { return Err(Errno::EINVAL.into()) };
        let mut target = at::readlink(root, path)?;
        target.truncate(request.size as usize);
        let stat = self.iatt(&node.inode, node.loc(self))?;
        Ok(ReadlinkReply { stat, target: target.into(), xdata: None })
    }

    pub(crate) fn setattr(&self, ctx: &Context, request: &Setattr) -> Outcome<ChangeReply> {
        let node = self.node(request.gfid)?;
        self.setattr_at(ctx, &node.inode, node.loc(self), &request.stat, request.valid)
    }

    pub(crate) fn fsetattr(&self, ctx: &Context, request: &Fsetattr) -> Outcome<ChangeReply> {
        self.opened(request.gfid, request.fd)?
            .with(self, |inode, loc| self.setattr_at(ctx, inode, loc, &request.stat, request.valid))
    }

    fn setattr_at(
        &self,
        ctx: &Context,
        inode: &Inode,
        loc: Loc<'_>,
        wanted: &Iatt,
        valid: i32,
    ) -> Outcome<ChangeReply> {
        let has = |bit: i32| valid & bit != 0;
        let before = loc.stat()?;
        self.permit_setattr(ctx, loc, &before, wanted, valid)?;
        let pre = self.iatt_from(inode, loc, &before);

        let uid = has(setattr_valid::UID).then_some(wanted.uid);
        let gid = has(setattr_valid::GID).then_some(wanted.gid);
        if uid.is_some() || gid.is_some() {
            at::chown(loc, uid, gid)?;
        }
        // A link's own mode cannot be changed; asking for it is not an error (`posix-inode-fd-ops.c: posix_do_chmod`).
        if has(setattr_valid::MODE) && !is_symlink(&before) {
            at::chmod(loc, wanted.mode)?;
        }
        if has(setattr_valid::ATIME | setattr_valid::MTIME) {
            at::set_times(loc, &timestamps(wanted, valid))?;
            self.set_given_times(inode, loc, ctx, wanted, valid)?;
        }
        self.touch_self(ctx, inode, loc);
        let post = self.iatt(inode, loc)?;
        Ok(ChangeReply { pre, post, xdata: Some(Dict::new()) })
    }

    /// Times given by utimensat(2) are taken as given, also backwards; an inode without kept times does not get them this
    /// way (`posix-metadata.c: posix_update_utime_in_mdata`).
    fn set_given_times(&self, inode: &Inode, loc: Loc<'_>, ctx: &Context, wanted: &Iatt, valid: i32) -> Outcome<()> {
        let Some(mut times) = self.mdata(inode, loc) else { return Ok(()) };
        let now = ctx.time.unwrap_or_else(now);
        let given = |bit: i32, now_bit: i32, time: Timespec| {
            (valid & bit != 0).then_some(if valid & now_bit != 0 { now } else { time })
        };
        if let Some(atime) = given(setattr_valid::ATIME, setattr_valid::ATIME_NOW, wanted.atime) {
            times.atime = atime;
        }
        if let Some(mtime) = given(setattr_valid::MTIME, setattr_valid::MTIME_NOW, wanted.mtime) {
            times.mtime = mtime;
        }
        // Heal copies the source's change time too, and it must not go back here either.
        if valid & setattr_valid::CTIME != 0 {
            times.ctime = times.ctime.max(wanted.ctime);
        }
        let times: Mdata = times;
        Ok(self.set_mdata(inode, loc, &times)?)
    }

    /// The rules of chown(2), chmod(2) and utimensat(2).
    fn permit_setattr(
        &self,
        ctx: &Context,
        loc: Loc<'_>,
        stat: &rustix::fs::Stat,
        wanted: &Iatt,
        valid: i32,
    ) -> Outcome<()> {
        if is_privileged(ctx) {
            return Ok(());
        }
        let has = |bit: i32| valid & bit != 0;
        if has(setattr_valid::UID) && wanted.uid != stat.st_uid {
            return Err(Errno::EPERM.into());
        }
        if has(setattr_valid::MODE | setattr_valid::GID | setattr_valid::UID) {
            self.permit_owner(ctx, stat)?;
        }
        let own_group = wanted.gid == stat.st_gid || wanted.gid == ctx.gid || ctx.groups.contains(&wanted.gid);
        if has(setattr_valid::GID) && !own_group {
            return Err(Errno::EPERM.into());
        }
        if has(setattr_valid::ATIME | setattr_valid::MTIME) && stat.st_uid != ctx.uid {
            let to_now = has(setattr_valid::ATIME_NOW) || has(setattr_valid::MTIME_NOW);
            if !to_now {
                return Err(Errno::EPERM.into());
            }
            self.permit(ctx, loc, stat, Want::WRITE)?;
        }
        debug_assert!(!is_dir(stat) || !is_symlink(stat));
        Ok(())
    }
}

fn timestamps(wanted: &Iatt, valid: i32) -> Timestamps {
    let pick = |bit: i32, now_bit: i32, time: Timespec| {
        let (sec, nsec) = if valid & bit == 0 {
            (0, UTIME_OMIT)
        } else if valid & now_bit != 0 {
            (0, UTIME_NOW)
        } else {
            (time.sec, i64::from(time.nsec))
        };
        rustix::fs::Timespec { tv_sec: sec, tv_nsec: nsec }
    };
    Timestamps {
        last_access: pick(setattr_valid::ATIME, setattr_valid::ATIME_NOW, wanted.atime),
        last_modification: pick(setattr_valid::MTIME, setattr_valid::MTIME_NOW, wanted.mtime),
    }
}

fn now() -> Timespec {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    Timespec::new(now.tv_sec, u32::try_from(now.tv_nsec).unwrap_or(0))
}
