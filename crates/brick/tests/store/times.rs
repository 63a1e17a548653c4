//! Times: kept in `trusted.glusterfs.mdata`, moved by the clients' clocks.

use mortar_types::fop::{Open, Setattr, Setxattr, Write, Xattrop, XattropOp, setattr_valid};
use mortar_types::keys::{SET_CTIME_MDATA, XATTR_MDATA};
use mortar_types::{Dict, Fd, Gfid, Iatt, Mdata, TimeFlags, Timespec, Value};

use crate::support::{Brick, EPOCH, options, xattrs_on_disk};

fn setattr(brick: &Brick, gfid: Gfid, stat: Iatt, valid: i32, flags: TimeFlags) -> Iatt {
    let ctx = brick.ctx_with(flags);
    brick.call_as(&ctx, Setattr { gfid, stat, valid, xdata: None }).expect("root may").post
}

#[test]
fn a_new_inode_has_the_time_of_its_creator() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.mkdir(Gfid::ROOT, "d").expect("it is new");
    let stat = brick.stat(gfid).expect("it is there");
    assert_eq!([stat.atime, stat.mtime, stat.ctime], [Timespec::new(EPOCH, 7); 3]);
}

#[test]
fn a_write_moves_what_its_flags_name() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.create(Gfid::ROOT, "f", b"").expect("it is new");
    let before = brick.stat(gfid).expect("it is there");
    let ctx = brick.ctx_with(TimeFlags::CTIME.or(TimeFlags::MTIME));
    let write =
        || Write { gfid, fd: Fd::ANONYMOUS, offset: 0, flags: 0, data: bytes::Bytes::from_static(b"x"), xdata: None };
    let after = brick.call_as(&ctx, write()).expect("it writes").post;
    assert_eq!((after.atime, Some(after.mtime), Some(after.ctime)), (before.atime, ctx.time, ctx.time));
    let late = mortar_types::Context { time: Some(Timespec::new(EPOCH - 5, 0)), ..ctx };
    assert_eq!(brick.call_as(&late, write()).map(|reply| reply.post.mtime), Ok(after.mtime), "never back");
}

#[test]
fn a_change_of_entries_moves_the_parents_times() {
    let Some(brick) = Brick::new() else { return };
    let dir = brick.mkdir(Gfid::ROOT, "d").expect("it is new");
    let before = brick.stat(dir).expect("it is there");
    brick.create(dir, "f", b"").expect("it is new");
    let made = brick.stat(dir).expect("it is there");
    assert!(made.mtime > before.mtime && made.ctime > before.ctime && made.atime == before.atime);
    brick.unlink(dir, "f").expect("it is there");
    assert!(brick.stat(dir).expect("it is there").mtime > made.mtime);
}

/// Debian's client sends its late post-op with the flags of the write before it.
#[test]
fn counters_move_no_times() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.create(Gfid::ROOT, "f", b"").expect("it is new");
    let before = brick.stat(gfid).expect("it is there");
    let one = Value::ptr([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0].to_vec());
    let dict = Some(Dict::new().with("trusted.afr.dirty", one));
    let ctx = brick.ctx_with(TimeFlags::CTIME.or(TimeFlags::MTIME));
    brick.call_as(&ctx, Xattrop { gfid, op: XattropOp::AddArray, dict, xdata: None }).expect("it adds");
    assert_eq!(brick.stat(gfid).expect("it is there"), before);
}

#[test]
fn the_roots_times_begin_with_the_first_change_in_it() {
    let Some(brick) = Brick::new() else { return };
    assert!(!xattrs_on_disk(brick.root()).contains_key(XATTR_MDATA));
    brick.mkdir(Gfid::ROOT, "d").expect("it is new");
    assert_eq!(xattrs_on_disk(brick.root())[XATTR_MDATA].len(), 57);
    assert_eq!(brick.stat(Gfid::ROOT).expect("it is there").mtime.sec, EPOCH);
}

#[test]
fn given_times_are_taken_as_given() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.create(Gfid::ROOT, "f", b"").expect("it is new");
    let before = brick.stat(gfid).expect("it is there");
    let old = Timespec::new(1_000_000, 5);
    let wanted = Iatt { mtime: old, ..Iatt::default() };
    let after = setattr(&brick, gfid, wanted, setattr_valid::MTIME, TimeFlags(0));
    assert_eq!((after.mtime, after.atime, after.ctime), (old, before.atime, before.ctime));
    let wanted = Iatt { mode: 0o600, ..Iatt::default() };
    let after = setattr(&brick, gfid, wanted, setattr_valid::MODE, TimeFlags::CTIME);
    assert!(after.ctime > before.ctime && after.mtime == old && after.mode & 0o777 == 0o600);
    let brick = brick.reopened();
    assert_eq!(brick.stat(gfid), Ok(after), "kept on disk");
}

#[test]
fn an_inode_from_before_ctime_gets_its_times_from_a_client() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.mkdir(Gfid::ROOT, "old").expect("it is new");
    let path = brick.root().join("old");
    rustix::fs::lremovexattr(&path, XATTR_MDATA).expect("it has one");
    let brick = brick.reopened();
    let times =
        |sec| Mdata { atime: Timespec::new(sec, 1), mtime: Timespec::new(sec, 2), ctime: Timespec::new(sec, 3) };
    let give = |sec| {
        let dict = Some(Dict::new().with(SET_CTIME_MDATA, Value::Mdata(times(sec))));
        brick.call_as(&brick.ctx_with(TimeFlags(0)), Setxattr { gfid, flags: 0, dict, xdata: None })
    };
    brick.mkdir(gfid, "d").expect("it is new");
    assert!(!xattrs_on_disk(&path).contains_key(XATTR_MDATA), "a fop does not begin them");
    give(EPOCH + 50).expect("it is taken");
    let stat = brick.stat(gfid).expect("it is there");
    assert_eq!((stat.atime.sec, stat.mtime.nsec, stat.ctime.nsec), (EPOCH + 50, 2, 3));
    give(EPOCH + 10).expect("it is merged");
    assert_eq!(brick.stat(gfid).map(|stat| stat.atime.sec), Ok(EPOCH + 50));
    assert_eq!(xattrs_on_disk(&path)[XATTR_MDATA].len(), 57);
}

#[test]
fn without_ctime_the_backends_times_count() {
    let Some(brick) = Brick::new() else { return };
    let Brick { scratch, store, .. } = brick;
    drop(store);
    let brick = Brick::over(scratch, |root| mortar_brick::store::StoreOptions { ctime: false, ..options(root) });
    let gfid = brick.create(Gfid::ROOT, "f", b"").expect("it is new");
    assert!(!xattrs_on_disk(&brick.root().join("f")).contains_key(XATTR_MDATA));
    assert!(brick.stat(gfid).expect("it is there").mtime.sec > EPOCH);
}

#[test]
fn a_file_that_loses_a_name_to_a_rename_has_changed() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.create(Gfid::ROOT, "f", b"").expect("it is new");
    brick.link(gfid, Gfid::ROOT, "also-f").expect("it links");
    brick.create(Gfid::ROOT, "other", b"").expect("it is new");
    let before = brick.stat(gfid).expect("it is there");
    brick.rename((Gfid::ROOT, "other"), (Gfid::ROOT, "f")).expect("it moves");
    let after = brick.stat(gfid).expect("it has another name");
    assert!(after.ctime > before.ctime && after.nlink == 1, "{before:?} {after:?}");
}

#[test]
fn truncating_at_open_moves_times() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.create(Gfid::ROOT, "f", b"content").expect("it is new");
    let ctx = brick.ctx_with(TimeFlags::CTIME.or(TimeFlags::MTIME));
    brick.call_as(&ctx, Open { gfid, flags: 0o1001, xdata: None }).expect("it opens");
    let stat = brick.stat(gfid).expect("it is there");
    assert_eq!((stat.size, Some(stat.mtime), Some(stat.ctime)), (0, ctx.time, ctx.time));
}
