//! Iatts from the backend's attributes, and the times kept in `trusted.glusterfs.mdata`.

use mortar_sys::xattr::{self, SetMode};
use mortar_sys::{Loc, Result};
use mortar_types::iatt::iatt_flags;
use mortar_types::keys::XATTR_MDATA;
use mortar_types::{Context, Gfid, Iatt, Mdata, TimeFlags, Timespec};
use rustix::fs::Stat;

use super::brick::Brick;
use super::inode::{Cached, Inode};
use super::known::Known;
use super::mdata;
use super::resolve::is_dir;

/// Bytes of the blocks that `st_blocks` counts.
const BLOCK_BYTES: u64 = 512;

impl Brick {
    /// The attributes of an inode as clients see them, read now.
    pub(crate) fn iatt(&self, inode: &Inode, loc: Loc<'_>) -> Result<Iatt> {
        Ok(self.iatt_from(inode, loc, &loc.stat()?))
    }

    /// As [`Self::iatt`], from attributes just read.
    pub(crate) fn iatt_from(&self, inode: &Inode, loc: Loc<'_>, stat: &Stat) -> Iatt {
        let mut iatt = backend_iatt(inode.gfid, stat);
        if let Some(times) = self.mdata(inode, loc) {
            apply(&mut iatt, &times);
        }
        iatt
    }

    /// As [`Self::iatt_from`], for an inode whose kept times are at hand.
    pub(crate) fn iatt_with(&self, gfid: Gfid, times: Option<&Mdata>, stat: &Stat) -> Iatt {
        let mut iatt = backend_iatt(gfid, stat);
        if let Some(times) = times {
            apply(&mut iatt, times);
        }
        iatt
    }

    /// The kept times, `None` when the inode has none. An unreadable value counts as none: the backend's times are the
    /// best there is then.
    pub(crate) fn mdata(&self, inode: &Inode, loc: Loc<'_>) -> Option<Mdata> {
        if !self.options.ctime {
            return None;
        }
        let mut memory = inode.memory();
        if let Cached::Known(known) = memory.mdata {
            return known;
        }
        let found = xattr::get_array::<{ mdata::BYTES }>(loc, XATTR_MDATA.as_bytes()).ok()?;
        let found = found.and_then(|bytes| mdata::decode(&bytes));
        memory.mdata = Cached::Known(found);
        found
    }

    /// What an unchanged inode need not be asked again, of an inode whose handle and times were just seen to; `stat` and
    /// `now` as for [`super::known::KnownTable::remember`].
    pub(crate) fn remember(&self, inode: &Inode, stat: &Stat, now: i64) {
        let times = match inode.memory().mdata {
            _ if !self.options.ctime => None,
            Cached::Known(times) => times,
            // They could not be read; next time perhaps.
            Cached::Unknown => return,
        };
        self.known.remember(stat, now, Known { gfid: inode.gfid, times });
    }

    /// Writes the kept times.
    pub(crate) fn set_mdata(&self, inode: &Inode, loc: Loc<'_>, times: &Mdata) -> Result<()> {
        let mut memory = inode.memory();
        // Unknown until the write succeeded: a failed one may or may not have changed the disk.
        memory.mdata = Cached::Unknown;
        xattr::set(loc, XATTR_MDATA.as_bytes(), &mdata::encode(times), SetMode::Any)?;
        memory.mdata = Cached::Known(Some(*times));
        Ok(())
    }

    /// Moves an inode's times as the caller's clock says. Best effort, as in GlusterFS: the fop itself is done. An inode from
    /// before `features.ctime` gets its first value from a client (`set-ctime-mdata`), not here.
    pub(crate) fn touch(&self, ctx: &Context, inode: &Inode, loc: Loc<'_>, flags: TimeFlags) {
        let Some(time) = ctx.time.filter(|_| self.options.ctime && !flags.is_empty()) else { return };
        let known = self.mdata(inode, loc);
        let mut new = match known {
            Some(known) => known,
            // The root is made by nobody's fop: its times begin with the first change in it.
            None if inode.gfid.is_root() => mdata::born(time),
            None => return,
        };
        mdata::advance(&mut new, time, flags);
        if known != Some(new)
            && let Err(errno) = self.set_mdata(inode, loc, &new)
        {
            tracing::warn!(gfid = %inode.gfid, %errno, "cannot keep the times of an inode");
        }
    }

    /// Moves the times of the inode that a fop changed.
    pub(crate) fn touch_self(&self, ctx: &Context, inode: &Inode, loc: Loc<'_>) {
        self.touch(ctx, inode, loc, TimeFlags(ctx.time_flags.0 & 7));
    }

    /// Moves the times of the directory whose entries a fop changed.
    pub(crate) fn touch_parent(&self, ctx: &Context, inode: &Inode, loc: Loc<'_>) {
        self.touch(ctx, inode, loc, mdata::parent_flags(ctx.time_flags));
    }

    /// The kept times of an inode just made, `None` when the caller gave no time.
    pub(crate) fn born_mdata(&self, ctx: &Context) -> Option<Mdata> {
        ctx.time.filter(|_| self.options.ctime && ctx.time_flags.0 & 7 != 0).map(mdata::born)
    }
}

/// What the file system says, in GlusterFS's form (`posix-helpers.c: posix_istat`).
pub(crate) fn backend_iatt(gfid: Gfid, stat: &Stat) -> Iatt {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let nlink = u32::try_from(stat.st_nlink).unwrap_or(u32::MAX);
    Iatt {
        gfid,
        flags: iatt_flags::POSIX,
        ino: gfid.ino(),
        dev: stat.st_dev,
        rdev: u64::from(rustix::fs::major(stat.st_rdev)) << 32 | u64::from(rustix::fs::minor(stat.st_rdev)),
        size,
        // XFS allocates ahead of appends; clients must not see more than the size needs.
        blocks: u64::try_from(stat.st_blocks).unwrap_or(0).min(size.div_ceil(BLOCK_BYTES)),
        atime: timespec(stat.st_atime, stat.st_atime_nsec),
        mtime: timespec(stat.st_mtime, stat.st_mtime_nsec),
        ctime: timespec(stat.st_ctime, stat.st_ctime_nsec),
        nlink: if is_dir(stat) { nlink } else { nlink.saturating_sub(1) },
        uid: stat.st_uid,
        gid: stat.st_gid,
        blksize: u32::try_from(stat.st_blksize).unwrap_or(4096),
        mode: stat.st_mode,
        ..Iatt::default()
    }
}

pub(crate) fn apply(iatt: &mut Iatt, times: &Mdata) {
    iatt.atime = times.atime;
    iatt.mtime = times.mtime;
    iatt.ctime = times.ctime;
}

fn timespec(sec: i64, nsec: u64) -> Timespec {
    Timespec::new(sec, u32::try_from(nsec).unwrap_or(0))
}
