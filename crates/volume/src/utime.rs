//! Stamps changes with the client's clock (GlusterFS's `features/utime`), so that all replicas store the same times.
//!
//! Which times a fop moves: `xlators/features/utime/src/utime-helpers.c: utime_update_attribute_flags` and `utime.c`.
//! Reads move no time: generated volfiles say `noatime on`.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use mortar_types::fop::{Fsetattr, Setattr, setattr_valid};
use mortar_types::{Context, Fops, Iatt, Outcome, Reply, Request, TimeFlags, Timespec, UpcallSink};

/// Linux's open flag, as OPEN carries it.
const O_TRUNC: u32 = 0o1000;

/// The layer. A caller that brings times of its own (heal) keeps them.
pub struct Utime {
    name: String,
    child: Arc<dyn Fops>,
}

impl Utime {
    pub fn new(name: impl Into<String>, child: Arc<dyn Fops>) -> Arc<Self> {
        Arc::new(Self { name: name.into(), child })
    }
}

#[async_trait]
impl Fops for Utime {
    async fn call(&self, ctx: &Context, request: Request) -> Outcome<Reply> {
        match stamp(&request, now()) {
            Some((time, time_flags)) if ctx.time.is_none() => {
                let ctx = Context { time: Some(time), time_flags, ..ctx.clone() };
                self.child.call(&ctx, request).await
            }
            _ => self.child.call(ctx, request).await,
        }
    }

    fn subscribe(&self, sink: Arc<dyn UpcallSink>) {
        self.child.subscribe(sink);
    }

    fn is_up(&self) -> bool {
        self.child.is_up()
    }

    fn name(&self) -> &str {
        &self.name
    }
}

fn now() -> Timespec {
    // A clock before 1970 counts as 1970.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timespec::new(i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos())
}

/// The time to send and which times it moves; `None` for fops that move none.
fn stamp(request: &Request, now: Timespec) -> Option<(Timespec, TimeFlags)> {
    use Request as R;
    let object = TimeFlags::CTIME.or(TimeFlags::MTIME);
    let parent = TimeFlags::PARENT_CTIME.or(TimeFlags::PARENT_MTIME);
    let flags = match request {
        R::Create(_) | R::Mkdir(_) | R::Mknod(_) | R::Symlink(_) | R::Put(_) => object.or(TimeFlags::ATIME).or(parent),
        R::Unlink(_) | R::Rmdir(_) | R::Link(_) | R::Rename(_) | R::Namelink(_) => TimeFlags::CTIME.or(parent),
        R::Write(_) | R::Truncate(_) | R::Ftruncate(_) | R::Discard(_) | R::CopyFileRange(_) => object,
        // GlusterFS's mount never opens so: its kernel truncates by a call of its own.
        R::Open(open) if open.flags & O_TRUNC != 0 => object,
        R::Fallocate(_) | R::Zerofill(_) => TimeFlags::MTIME.or(TimeFlags::ATIME),
        R::Setxattr(_) | R::Fsetxattr(_) | R::Removexattr(_) | R::Fremovexattr(_) => TimeFlags::CTIME,
        R::Setattr(Setattr { stat, valid, .. }) | R::Fsetattr(Fsetattr { stat, valid, .. }) => {
            return Some(stamp_setattr(stat, *valid, now));
        }
        _ => return None,
    };
    Some((now, flags))
}

/// A touch to "now" uses one clock reading for all three times (`utime.c: gf_utime_setattr`).
fn stamp_setattr(stat: &Iatt, valid: i32, now: Timespec) -> (Timespec, TimeFlags) {
    use setattr_valid::{ATIME, ATIME_NOW, GID, MODE, MTIME, MTIME_NOW, UID};
    let owner = valid == 0 || valid & (MODE | UID | GID) != 0;
    let flags = if owner { TimeFlags::CTIME } else { TimeFlags::default() };
    let time = match valid {
        _ if valid & (ATIME | MTIME) == 0 => now,
        _ if valid & ATIME_NOW != 0 => stat.atime,
        _ if valid & MTIME_NOW != 0 => stat.mtime,
        _ => now,
    };
    (time, flags)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mortar_types::Gfid;
    use mortar_types::fop::{Fallocate, Fd, Lookup, Mkdir, Open, Setxattr, Unlink, Write};
    use parking_lot::Mutex;

    use super::*;

    const NOW: Timespec = Timespec::new(1_700_000_000, 9);

    fn flags(request: impl Into<Request>) -> Option<u32> {
        stamp(&request.into(), NOW).map(|(time, flags)| {
            assert_eq!(time, NOW);
            flags.0
        })
    }

    #[test]
    fn each_kind_of_change_moves_the_times_that_glusterfs_moves() {
        let (gfid, name, xdata) = (Gfid::ROOT, Bytes::from_static(b"n"), None);
        let open = |flags| Open { gfid, flags, xdata: None };
        assert_eq!((flags(open(1)), flags(open(1 | O_TRUNC))), (None, Some(3)));
        let mkdir = Mkdir { parent: gfid, mode: 0, umask: 0, name: name.clone(), xdata: None };
        assert_eq!(flags(mkdir), Some(0x1f));
        assert_eq!(flags(Unlink { parent: gfid, name: name.clone(), flags: 0, xdata: None }), Some(0x19));
        let fd = Fd::ANONYMOUS;
        assert_eq!(flags(Write { gfid, fd, offset: 0, flags: 0, data: name.clone(), xdata: None }), Some(3));
        assert_eq!(flags(Fallocate { gfid, fd, flags: 0, offset: 0, size: 1, xdata: None }), Some(6));
        assert_eq!(flags(Setxattr { gfid, flags: 0, dict: None, xdata: None }), Some(1));
        assert_eq!(flags(Lookup { gfid, parent: gfid, flags: 0, name, xdata }), None);
    }

    #[test]
    fn utimes_alone_do_not_move_the_ctime_and_a_touch_brings_its_own_clock() {
        use setattr_valid::{ATIME, ATIME_NOW, MODE, MTIME, MTIME_NOW};
        let (gfid, xdata) = (Gfid::ROOT, None);
        let setattr = |valid, stat| Setattr { gfid, stat, valid, xdata: xdata.clone() };
        assert_eq!(flags(setattr(MODE, Iatt::default())), Some(1));
        assert_eq!(flags(setattr(ATIME | MTIME, Iatt::default())), Some(0));
        let touch = Iatt { atime: Timespec::new(5, 6), ..Iatt::default() };
        let request = setattr(ATIME | MTIME | ATIME_NOW | MTIME_NOW, touch).into();
        assert_eq!(stamp(&request, NOW), Some((Timespec::new(5, 6), TimeFlags(0))));
    }

    struct Recorder(Mutex<Vec<Context>>);

    #[async_trait]
    impl Fops for Recorder {
        async fn call(&self, ctx: &Context, _request: Request) -> Outcome<Reply> {
            self.0.lock().push(ctx.clone());
            Err(mortar_types::Errno::EIO.into())
        }
    }

    #[tokio::test]
    async fn times_that_the_caller_brings_are_kept() {
        let child = Arc::new(Recorder(Mutex::default()));
        let layer = Utime::new("utime", Arc::clone(&child) as Arc<dyn Fops>);
        let request: Request = Unlink { parent: Gfid::ROOT, name: Bytes::new(), flags: 0, xdata: None }.into();
        let own = Context { time: Some(NOW), time_flags: TimeFlags(0x20), ..Context::default() };
        for ctx in [&own, &Context::default()] {
            assert!(layer.call(ctx, request.clone()).await.is_err());
        }
        let seen = child.0.lock();
        assert_eq!(seen[0], own);
        assert_eq!(seen[1].time_flags, TimeFlags(0x19));
        assert!(seen[1].time.unwrap() > NOW);
    }
}
