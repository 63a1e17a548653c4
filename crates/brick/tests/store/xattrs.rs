//! Xattrs and the questions that travel as xattrs; data fops beyond plain reading and writing.

use mortar_types::fop::{
    CopyFileRange, Fallocate, Getxattr, Ipc, Link, Rchecksum, Removexattr, Seek, SeekWhat, Setxattr, Truncate, Write,
    Zerofill,
};
use mortar_types::keys::WRITE_IS_APPEND;
use mortar_types::{Context, Dict, Errno, Fd, Gfid, Pid, Value};
use sha2::{Digest, Sha256};

use crate::support::{Brick, bytes, options, xattrs_on_disk};

#[test]
fn xattrs_are_set_read_listed_and_removed() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.create(Gfid::ROOT, "f", b"").expect("it is new");
    brick.setxattr(gfid, "user.a", b"1").expect("it is set");
    brick.setxattr(gfid, "trusted.b", &[9; 2000]).expect("it is set");
    assert_eq!(brick.getxattr(gfid, "trusted.b"), Ok(vec![9; 2000]));
    assert_eq!(brick.getxattr(gfid, "user.none"), Err(Errno::ENODATA));
    let list = |ctx: &Context| {
        let reply = brick.call_as(ctx, Getxattr { gfid, name: None, xdata: None }).expect("it lists");
        reply.dict.expect("a dict").keys().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut seen = list(&brick.ctx());
    seen.sort();
    assert_eq!(seen, ["trusted.b", "user.a"], "the brick's own are hidden");
    assert!(list(&Context::internal(Pid::SELF_HEAL_DAEMON)).contains(&"trusted.glusterfs.mdata".to_owned()));
    let set = |flags, value: &'static [u8]| {
        let dict = Some(Dict::new().with("user.a", Value::ptr(value)));
        brick.call(Setxattr { gfid, flags, dict, xdata: None }).map(|reply| reply.xdata.expect("attributes"))
    };
    assert_eq!(set(1, b"2").map(drop), Err(Errno::EEXIST));
    let xdata = set(2, b"3").expect("it is replaced");
    assert!(xdata.get("virt-gf-prestat").is_some_and(|value| value.as_iatt().is_some()));
    let remove = |name: &str, xdata| brick.call(Removexattr { gfid, name: bytes(name), xdata }).map(drop);
    assert_eq!(remove("user.a", None), Ok(()));
    assert_eq!(remove("user.a", None), Err(Errno::ENODATA));
    assert_eq!(remove("trusted.gfid", None), Err(Errno::EPERM));
    let bulk = Dict::new().with("trusted.b", Value::Int(0)).with("user.gone", Value::Int(0));
    assert_eq!(remove("", Some(bulk)), Ok(()));
    assert!(!xattrs_on_disk(&brick.root().join("f")).contains_key("trusted.b"));
}

#[test]
fn the_bricks_own_xattrs_cannot_be_set() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.create(Gfid::ROOT, "f", b"").expect("it is new");
    assert_eq!(brick.setxattr(gfid, "trusted.gfid", &[7; 16]), Err(Errno::EPERM));
    assert_eq!(brick.setxattr(Gfid::ROOT, "trusted.glusterfs.volume-id", &[7; 16]), Err(Errno::EPERM));
    assert_eq!(brick.setxattr(gfid, "trusted.gfid2path.0011223344556677", b"x"), Err(Errno::EOPNOTSUPP));
    assert_eq!(brick.setxattr(gfid, "distribute.fix.layout", b"yes"), Err(Errno::EOPNOTSUPP));
    let reply = brick.call(Getxattr { gfid, name: Some(bytes("trusted.gfid")), xdata: None }).expect("as 10.3 does");
    assert_eq!((reply.len, reply.dict.map(|dict| dict.len())), (16, Some(0)));
}

#[test]
fn questions_have_answers() {
    let Some(brick) = Brick::new() else { return };
    let dir = brick.mkdir(Gfid::ROOT, "Dir").expect("it is new");
    let gfid = brick.create(dir, "File", b"").expect("it is new");
    brick.call(Link { gfid, new_parent: Gfid::ROOT, new_name: bytes("second"), xdata: None }).expect("it is new");
    let text = |gfid, key| brick.getxattr(gfid, key).map(|value| String::from_utf8(value).expect("text"));
    let root = brick.root().display();
    assert_eq!(text(dir, "trusted.glusterfs.pathinfo"), Ok(format!("<POSIX({root}):host:{root}/Dir>")));
    assert_eq!(text(gfid, "glusterfs.gfidtopath"), Ok("/Dir/File:/second".to_owned()));
    assert_eq!(text(gfid, "glusterfs.gfid.string"), Ok(gfid.to_string()));
    assert_eq!(text(Gfid::ROOT, "glusterfs.get_real_filename:dIR"), Ok("Dir".to_owned()));
    assert_eq!(text(Gfid::ROOT, "glusterfs.get_real_filename:none"), Err(Errno::ENODATA));
    assert_eq!(text(dir, "trusted.glusterfs.node-uuid"), Err(Errno::ENODATA), "not told to answer");
    assert_eq!(brick.call(Ipc { op: 0, xdata: None }).map(drop), Err(Errno::EOPNOTSUPP));
}

#[test]
fn a_write_says_whether_it_appended() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.create(Gfid::ROOT, "f", b"abc").expect("it is new");
    let write = |offset| {
        let xdata = Some(Dict::new().with(WRITE_IS_APPEND, Value::Uint(0)));
        let data = bytes("de");
        let reply = brick.call(Write { gfid, fd: Fd::ANONYMOUS, offset, flags: 0, data, xdata }).expect("it writes");
        (reply.written, reply.pre.size, reply.post.size, reply.xdata.and_then(|xdata| xdata.get_u64(WRITE_IS_APPEND)))
    };
    assert_eq!(write(3), (2, 3, 5, Some(1)));
    assert_eq!(write(0), (2, 5, 5, Some(0)));
    assert_eq!(brick.read_all(gfid), Ok(b"decde".to_vec()));
}

#[test]
fn big_and_synced_writes_arrive_too() {
    let Some(brick) = Brick::new() else { return };
    let (gfid, reply) = brick.create_open(Gfid::ROOT, "f").expect("it is new");
    let data: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
    brick.write(gfid, reply.fd, 0, &data).expect("it writes");
    brick.fsync(gfid, reply.fd).expect("it syncs");
    assert_eq!(brick.read_all(gfid), Ok(data));
}

#[test]
fn ranges_are_allocated_zeroed_sought_and_copied() {
    let Some(brick) = Brick::new() else { return };
    let (gfid, reply) = brick.create_open(Gfid::ROOT, "f").expect("it is new");
    let fd = reply.fd;
    brick.write(gfid, fd, 0, &[7; 8192]).expect("it writes");
    brick.call(Zerofill { gfid, fd, offset: 4096, size: 8192, xdata: None }).expect("it zeroes");
    assert_eq!(brick.stat(gfid).map(|stat| stat.size), Ok(12_288));
    assert_eq!(brick.read(gfid, fd, 4094, 4), Ok(vec![7, 7, 0, 0]));
    brick.call(Fallocate { gfid, fd, flags: 1, offset: 0, size: 65_536, xdata: None }).expect("it allocates");
    let stat = brick.stat(gfid).expect("it is there");
    assert_eq!((stat.size, stat.blocks), (12_288, 24), "blocks beyond the size are not shown");
    brick.call(Truncate { gfid, offset: 100_000, xdata: None }).expect("it grows");
    let seek = |what, offset| brick.call(Seek { gfid, fd, offset, what, xdata: None }).map(|reply| reply.offset);
    assert_eq!(seek(SeekWhat::Data, 0), Ok(0));
    assert!(seek(SeekWhat::Hole, 0).is_ok_and(|hole| hole >= 4096));
    assert_eq!(seek(SeekWhat::Data, 200_000), Err(Errno::ENXIO));
    let copy = brick.create(Gfid::ROOT, "copy", b"").expect("it is new");
    let request = CopyFileRange {
        gfid_in: gfid,
        gfid_out: copy,
        fd_in: fd,
        fd_out: Fd::ANONYMOUS,
        offset_in: 4090,
        offset_out: 1,
        size: 8,
        flags: 0,
        xdata: None,
    };
    assert_eq!(brick.call(request).map(|reply| (reply.copied, reply.post.size)), Ok((8, 9)));
    assert_eq!(brick.read_all(copy), Ok(vec![0, 7, 7, 7, 7, 7, 7, 0, 0]));
}

#[test]
fn checksums_are_those_that_heal_compares() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.create(Gfid::ROOT, "f", b"0123456789").expect("it is new");
    let reply = brick.call(Rchecksum { gfid, fd: Fd::ANONYMOUS, offset: 2, len: 100, flags: 0, xdata: None });
    let reply = reply.expect("it reads");
    assert_eq!(reply.strong, Sha256::digest(b"23456789").to_vec());
    assert_eq!(reply.flags, 1);
}

#[test]
fn only_heal_uses_the_reserve() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.create(Gfid::ROOT, "f", b"12345").expect("it is new");
    let Brick { scratch, store, .. } = brick;
    drop(store);
    let brick = Brick::over(scratch, |root| mortar_brick::store::StoreOptions {
        reserve: mortar_brick::store::Reserve::Bytes(u64::MAX),
        ..options(root)
    });
    let write = |ctx: &Context, offset| {
        let data = bytes("x");
        let outcome = brick.call_as(ctx, Write { gfid, fd: Fd::ANONYMOUS, offset, flags: 0, data, xdata: None });
        outcome.map(|reply| reply.written).map_err(|failure| failure.errno)
    };
    assert_eq!(write(&brick.ctx(), 5), Err(Errno::ENOSPC));
    assert_eq!(write(&brick.ctx(), 4), Ok(1), "overwriting does not grow");
    assert_eq!(write(&Context::internal(Pid::SELF_HEAL_DAEMON), 5), Ok(1));
    assert_eq!(brick.mkdir(Gfid::ROOT, "d"), Err(Errno::ENOSPC));
    assert_eq!(brick.unlink(Gfid::ROOT, "f"), Ok(()), "making room is allowed");
}
