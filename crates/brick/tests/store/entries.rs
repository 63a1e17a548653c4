//! Entries: made, found, removed, renamed, listed; and what the disk looks like then.

use std::os::unix::fs::MetadataExt;

use mortar_brick::store::{OpenError, Store};
use mortar_types::fop::{
    Create, Fsyncdir, Lookup, Mkdir, Mknod, Opendir, Readdir, Readdirp, Readlink, Rmdir, Statfs, Unlink,
};
use mortar_types::keys::{CONTENT, GET_LINK_COUNT, INTERNAL_FOP, LIST_XATTR, PREOP_CHECK_FAILED, PREOP_PARENT_KEY};
use mortar_types::{Context, Dict, Errno, Fd, Gfid, Pid, Value};

use crate::support::{Brick, Scratch, VOLUME, bytes, gfid_req, options, xattrs_on_disk};

#[test]
fn a_directory_that_is_no_brick_of_the_volume_is_refused() {
    let scratch = Scratch::new();
    assert!(matches!(Store::open(options(&scratch.0)), Err(OpenError::NoVolumeId { .. } | OpenError::Xattrs { .. })));
    let Some(brick) = Brick::new() else { return };
    let mut other = options(brick.root());
    other.volume_id = Gfid::random();
    assert!(matches!(Store::open(other), Err(OpenError::OtherVolume { found, .. }) if found == VOLUME));
    let missing = options(std::path::Path::new("/nowhere/at/all"));
    assert!(matches!(Store::open(missing), Err(OpenError::Root { source: Errno::ENOENT, .. })));
}

#[test]
fn opening_prepares_the_hidden_directory() {
    let Some(brick) = Brick::new() else { return };
    let hidden = brick.root().join(".glusterfs");
    assert!((0..=255).all(|first| hidden.join(format!("{first:02x}")).is_dir()));
    let root_handle = std::fs::read_link(brick.handle(Gfid::ROOT)).expect("the root has a handle");
    assert_eq!(root_handle.to_str(), Some("../../.."));
    for (folder, mode) in [("unlink", 0o600), ("landfill", 0o755), ("indices/xattrop", 0o600)] {
        assert_eq!(hidden.join(folder).metadata().expect("it is there").mode() & 0o7777, mode, "{folder}");
    }
    assert_eq!(brick.stat(Gfid::ROOT).map(|stat| stat.ino), Ok(1));
}

#[test]
fn the_hidden_directory_cannot_be_reached_by_name() {
    let Some(brick) = Brick::new() else { return };
    assert_eq!(brick.lookup(Gfid::ROOT, ".glusterfs"), Err(Errno::EPERM));
    assert_eq!(brick.mkdir(Gfid::ROOT, ".glusterfs"), Err(Errno::EPERM));
    assert_eq!(brick.rmdir(Gfid::ROOT, ".glusterfs"), Err(Errno::EPERM));
    assert_eq!(brick.rename((Gfid::ROOT, ".glusterfs"), (Gfid::ROOT, "x")), Err(Errno::EPERM));
    assert!(brick.names(Gfid::ROOT).is_empty());
    let dir = brick.mkdir(Gfid::ROOT, "d").expect("it is new");
    brick.mkdir(dir, ".glusterfs").expect("below the root the name is like any other");
    assert_eq!(brick.names(dir), [".glusterfs"]);
}

#[test]
fn edge_answers_are_those_of_a_real_brick() {
    let Some(brick) = Brick::new() else { return };
    let unknown = Gfid::random();
    assert_eq!(brick.lookup(Gfid::ROOT, "missing"), Err(Errno::ENOENT));
    assert_eq!(brick.lookup(unknown, "x"), Err(Errno::ESTALE));
    assert_eq!(brick.lookup_gfid(unknown), Err(Errno::ENOENT));
    assert_eq!(brick.lookup_gfid(Gfid::NULL), Err(Errno::EINVAL));
    assert_eq!(brick.lookup(Gfid::ROOT, "a/b"), Err(Errno::EPERM));
    assert_eq!(brick.lookup(Gfid::ROOT, ".."), Err(Errno::ENODATA));
    assert_eq!(brick.lookup(Gfid::ROOT, &"x".repeat(300)), Err(Errno::ENAMETOOLONG));
    assert_eq!(brick.stat(unknown), Err(Errno::ESTALE));
    assert_eq!(brick.stat(Gfid::NULL), Err(Errno::EINVAL));
    assert_eq!(brick.read_all(Gfid::ROOT), Err(Errno::EISDIR));
    assert_eq!(brick.read_all(unknown), Err(Errno::ENOENT));
    assert!(brick.open(Gfid::ROOT, 0).is_ok());
    assert_eq!(brick.call(Readlink { gfid: Gfid::ROOT, size: 100, xdata: None }).map(drop), Err(Errno::EINVAL));
    let mkdir = Mkdir { parent: Gfid::ROOT, mode: 0o755, umask: 0, name: bytes("x"), xdata: None };
    assert_eq!(brick.call(mkdir).map(drop), Err(Errno::EINVAL));
    assert_eq!(brick.rename((Gfid::ROOT, "missing"), (unknown, "y")), Err(Errno::ENOENT));
    assert_eq!(brick.unlink(Gfid::ROOT, "missing"), Err(Errno::ENOENT));
    assert_eq!(brick.rmdir(Gfid::ROOT, "missing"), Err(Errno::ENOENT));
    assert_eq!(
        brick.call(Fsyncdir { gfid: Gfid::ROOT, fd: Fd(99), datasync: 0, xdata: None }).map(drop),
        Err(Errno::EBADF)
    );
    assert!(brick.call(Statfs { gfid: Gfid::ROOT, xdata: None }).is_ok_and(|reply| reply.statfs.blocks > 0));
}

#[test]
fn a_new_file_has_its_xattrs_and_its_handle() {
    let Some(brick) = Brick::new() else { return };
    let dir = brick.mkdir(Gfid::ROOT, "d").expect("it is new");
    let (gfid, reply) = brick.create_open(dir, "f").expect("it is new");
    assert_eq!((reply.stat.gfid, reply.stat.nlink, reply.stat.mode), (gfid, 1, 0o100_644));
    assert_eq!(reply.stat.ino, gfid.ino());
    let path = brick.root().join("d/f");
    let found = xattrs_on_disk(&path);
    assert_eq!(found["trusted.gfid"], gfid.0);
    assert_eq!(found["trusted.glusterfs.mdata"].len(), 57);
    let note = found.iter().find(|(key, _)| key.starts_with("trusted.gfid2path.")).expect("its name is noted");
    assert_eq!(note.1, format!("{dir}/f").as_bytes());
    let meta = path.metadata().expect("it is there");
    let handle = brick.handle(gfid).metadata().expect("it has a handle");
    assert_eq!((meta.ino(), meta.nlink()), (handle.ino(), 2));
    let handle = std::fs::read_link(brick.handle(dir)).expect("a directory's handle is a link");
    assert_eq!(handle.to_str(), Some("../../00/00/00000000-0000-0000-0000-000000000001/d"));
    assert!(!xattrs_on_disk(&brick.root().join("d")).keys().any(|key| key.starts_with("trusted.gfid2path.")));
}

#[test]
fn a_name_or_a_gfid_is_taken_once() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.create(Gfid::ROOT, "f", b"old").expect("it is new");
    assert_eq!(brick.create_open(Gfid::ROOT, "f").map(drop), Err(Errno::EEXIST));
    assert_eq!(brick.mkdir(Gfid::ROOT, "f"), Err(Errno::EEXIST));
    assert_eq!(brick.symlink(Gfid::ROOT, "f", "x"), Err(Errno::EEXIST));
    let same_gfid =
        Create { parent: Gfid::ROOT, flags: 0o302, mode: 0o644, umask: 0, name: bytes("g"), xdata: gfid_req(gfid) };
    assert_eq!(brick.call(same_gfid).map(drop), Err(Errno::EEXIST));
    assert_eq!(brick.names(Gfid::ROOT), ["f"]);
    assert_eq!(brick.read_all(gfid), Ok(b"old".to_vec()));
}

#[test]
fn create_without_excl_opens_what_is_there() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.create(Gfid::ROOT, "f", b"old").expect("it is new");
    let request = Create {
        parent: Gfid::ROOT,
        flags: 0o102,
        mode: 0o600,
        umask: 0,
        name: bytes("f"),
        xdata: gfid_req(Gfid::random()),
    };
    let reply = brick.call(request).expect("it opens");
    assert_eq!((reply.stat.gfid, reply.stat.mode & 0o777), (gfid, 0o644));
    assert_eq!(brick.read(gfid, reply.fd, 0, 10), Ok(b"old".to_vec()));
}

#[test]
fn owner_group_and_mode_are_the_callers() {
    let Some(brick) = Brick::new() else { return };
    let dir = Gfid::random();
    let request = Mkdir { parent: Gfid::ROOT, mode: 0o2777, umask: 0, name: bytes("d"), xdata: gfid_req(dir) };
    let internal = Context { gid: 70, ..Context::default() };
    brick.call_as(&internal, request).expect("it is new");
    assert_eq!(brick.stat(dir).map(|stat| (stat.gid, stat.mode)), Ok((70, 0o042_777)));
    let caller = Context { uid: 50, gid: 60, ..Context::default() };
    let file = Gfid::random();
    let request =
        Create { parent: dir, flags: 0o302, mode: 0o4755, umask: 0o022, name: bytes("f"), xdata: gfid_req(file) };
    let stat = brick.call_as(&caller, request).expect("it is new").stat;
    assert_eq!((stat.uid, stat.gid, stat.mode), (50, 70, 0o104_755), "the group is the setgid parent's");
    let sub = Gfid::random();
    let request = Mkdir { parent: dir, mode: 0o777, umask: 0o027, name: bytes("s"), xdata: gfid_req(sub) };
    let stat = brick.call_as(&caller, request).expect("it is new").stat;
    assert_eq!((stat.gid, stat.mode), (70, 0o042_750));
}

#[test]
fn a_default_acl_takes_the_umasks_place() {
    let Some(brick) = Brick::new() else { return };
    let dir = brick.mkdir(Gfid::ROOT, "d").expect("it is new");
    brick.setxattr(dir, "glusterfs.posix.default_acl", b"user::rwx,group::rwx,other::r-x").expect("ext4 has ACLs");
    let file = Gfid::random();
    let request =
        Create { parent: dir, flags: 0o302, mode: 0o666, umask: 0o077, name: bytes("f"), xdata: gfid_req(file) };
    assert_eq!(brick.call(request).map(|reply| reply.stat.mode), Ok(0o100_664));
}

#[test]
fn a_creation_stores_the_xattrs_of_its_request() {
    let Some(brick) = Brick::new() else { return };
    let gfid = Gfid::random();
    let xdata = gfid_req(gfid)
        .expect("made so")
        .with("trusted.ec.config", Value::ptr(vec![1, 2]))
        .with("trusted.glusterfs.dht.linkto", Value::str("vol-client-1"))
        .with("glusterfs.inodelk-count", Value::Uint(0));
    let request = Mknod { parent: Gfid::ROOT, dev: 0, mode: 0o100_644, umask: 0, name: bytes("f"), xdata: Some(xdata) };
    brick.call(request).expect("it is new");
    let found = xattrs_on_disk(&brick.root().join("f"));
    assert_eq!(found["trusted.ec.config"], [1, 2]);
    assert_eq!(found["trusted.glusterfs.dht.linkto"], b"vol-client-1\0");
}

#[test]
fn the_guard_of_distribute_compares_the_parents_layout() {
    let Some(brick) = Brick::new() else { return };
    brick.setxattr(Gfid::ROOT, "trusted.glusterfs.dht", &[1; 16]).expect("it is set");
    let request = |layout: u8| Mkdir {
        parent: Gfid::ROOT,
        mode: 0o755,
        umask: 0,
        name: bytes("d"),
        xdata: gfid_req(Gfid::random()).map(|xdata| {
            xdata
                .with(PREOP_PARENT_KEY, Value::str("trusted.glusterfs.dht"))
                .with("trusted.glusterfs.dht", Value::ptr(vec![layout; 16]))
        }),
    };
    let failure = brick.call_as(&brick.ctx(), request(2)).expect_err("the layout differs");
    assert_eq!(failure.errno, Errno::EIO);
    assert!(failure.xdata.is_some_and(|xdata| xdata.contains(PREOP_CHECK_FAILED)));
    brick.call(request(1)).expect("the layout is the same");
    assert!(!xattrs_on_disk(&brick.root().join("d")).contains_key("trusted.glusterfs.dht"), "not stored");
}

#[test]
fn hard_links_are_counted_noted_and_limited() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.create(Gfid::ROOT, "a", b"x").expect("it is new");
    assert_eq!(brick.link(gfid, Gfid::ROOT, "b").map(|stat| stat.nlink), Ok(2));
    let notes = |brick: &Brick, name: &str| {
        xattrs_on_disk(&brick.root().join(name)).keys().filter(|key| key.starts_with("trusted.gfid2path.")).count()
    };
    assert_eq!(notes(&brick, "a"), 2);
    assert_eq!(brick.link(gfid, Gfid::ROOT, "a"), Err(Errno::EEXIST));
    let reply = brick.call(Unlink {
        parent: Gfid::ROOT,
        name: bytes("a"),
        flags: 0,
        xdata: Some(Dict::new().with(GET_LINK_COUNT, Value::Uint(0))),
    });
    assert_eq!(reply.expect("it is there").xdata.and_then(|xdata| xdata.get_u64(GET_LINK_COUNT)), Some(2));
    assert_eq!((notes(&brick, "b"), brick.stat(gfid).map(|stat| stat.nlink)), (1, Ok(1)));
    let dir = brick.mkdir(Gfid::ROOT, "d").expect("it is new");
    assert_eq!(brick.link(dir, Gfid::ROOT, "e"), Err(Errno::EPERM));
    for number in 1..100 {
        brick.link(gfid, dir, &format!("l{number}")).expect("up to a hundred");
    }
    assert_eq!(brick.link(gfid, dir, "one-too-many"), Err(Errno::EMLINK));
}

#[test]
fn the_last_name_takes_the_handle_with_it() {
    let Some(brick) = Brick::new() else { return };
    let file = brick.create(Gfid::ROOT, "f", b"x").expect("it is new");
    let link = brick.symlink(Gfid::ROOT, "l", "f").expect("it is new");
    let dir = brick.mkdir(Gfid::ROOT, "d").expect("it is new");
    brick.unlink(Gfid::ROOT, "f").expect("it is there");
    brick.unlink(Gfid::ROOT, "l").expect("it is there");
    brick.rmdir(Gfid::ROOT, "d").expect("it is there");
    for gfid in [file, link, dir] {
        assert!(brick.handle(gfid).symlink_metadata().is_err(), "{gfid}");
        assert_eq!(brick.stat(gfid), Err(Errno::ESTALE));
        assert_eq!(brick.lookup_gfid(gfid), Err(Errno::ENOENT));
    }
}

#[test]
fn a_removed_file_lives_while_it_is_open() {
    let Some(brick) = Brick::new() else { return };
    let (gfid, reply) = brick.create_open(Gfid::ROOT, "f").expect("it is new");
    brick.write(gfid, reply.fd, 0, b"data").expect("it is open");
    brick.unlink(Gfid::ROOT, "f").expect("it is there");
    let parked = brick.root().join(".glusterfs/unlink").join(gfid.to_string());
    assert!(parked.exists());
    assert_eq!(brick.read(gfid, reply.fd, 0, 10), Ok(b"data".to_vec()));
    assert_eq!(brick.read_all(gfid), Ok(b"data".to_vec()), "by the anonymous fd too");
    assert_eq!(brick.lookup_gfid(gfid), Err(Errno::ENOENT));
    brick.release(gfid, reply.fd);
    assert!(!parked.exists());
    assert_eq!(brick.read_all(gfid), Err(Errno::ENOENT));
}

#[test]
fn renaming_a_directory_keeps_it_reachable_by_gfid() {
    let Some(brick) = Brick::new() else { return };
    let (one, two) = (brick.mkdir(Gfid::ROOT, "one").expect("new"), brick.mkdir(Gfid::ROOT, "two").expect("new"));
    let inner = brick.mkdir(one, "inner").expect("it is new");
    let file = brick.create(inner, "f", b"x").expect("it is new");
    brick.rename((one, "inner"), (two, "moved")).expect("it is there");
    let brick = brick.reopened();
    assert_eq!(brick.names(inner), ["f"]);
    assert_eq!(brick.getxattr(file, "glusterfs.gfidtopath"), Ok(b"/two/moved/f".to_vec()));
    assert_eq!(brick.rename((Gfid::ROOT, "two"), (inner, "x")), Err(Errno::EINVAL), "not into itself");
}

#[test]
fn rename_over_an_entry_retires_it() {
    let Some(brick) = Brick::new() else { return };
    let (a, b) = (brick.create(Gfid::ROOT, "a", b"A").expect("new"), brick.create(Gfid::ROOT, "b", b"B").expect("new"));
    brick.rename((Gfid::ROOT, "a"), (Gfid::ROOT, "b")).expect("it replaces");
    assert_eq!(brick.names(Gfid::ROOT), ["b"]);
    assert_eq!(brick.read_all(a), Ok(b"A".to_vec()));
    assert!(brick.handle(b).symlink_metadata().is_err());
    let notes: Vec<_> = xattrs_on_disk(&brick.root().join("b"))
        .into_iter()
        .filter(|(key, _)| key.starts_with("trusted.gfid2path."))
        .map(|(_, value)| String::from_utf8(value).expect("text"))
        .collect();
    assert_eq!(notes, [format!("{}/b", Gfid::ROOT)]);

    let (c, d) = (brick.mkdir(Gfid::ROOT, "c").expect("new"), brick.mkdir(Gfid::ROOT, "d").expect("new"));
    brick.create(d, "f", b"").expect("it is new");
    assert_eq!(brick.rename((Gfid::ROOT, "c"), (Gfid::ROOT, "d")), Err(Errno::ENOTEMPTY));
    brick.unlink(d, "f").expect("it is there");
    brick.rename((Gfid::ROOT, "c"), (Gfid::ROOT, "d")).expect("an empty directory is replaced");
    assert!(brick.handle(d).symlink_metadata().is_err());
    assert_eq!(brick.lookup(Gfid::ROOT, "d").map(|stat| stat.gfid), Ok(c));
}

#[test]
fn renaming_one_hard_link_onto_another_changes_nothing() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.create(Gfid::ROOT, "a", b"x").expect("it is new");
    brick.link(gfid, Gfid::ROOT, "b").expect("it is new");
    brick.rename((Gfid::ROOT, "a"), (Gfid::ROOT, "b")).expect("POSIX says success");
    assert_eq!(brick.names(Gfid::ROOT), ["a", "b"]);
    assert_eq!(brick.stat(gfid).map(|stat| stat.nlink), Ok(2));
}

#[test]
fn an_open_file_that_is_replaced_lives_on() {
    let Some(brick) = Brick::new() else { return };
    let (gfid, reply) = brick.create_open(Gfid::ROOT, "b").expect("it is new");
    brick.write(gfid, reply.fd, 0, b"old").expect("it is open");
    brick.create(Gfid::ROOT, "a", b"new").expect("it is new");
    brick.rename((Gfid::ROOT, "a"), (Gfid::ROOT, "b")).expect("it replaces");
    assert_eq!(brick.read(gfid, reply.fd, 0, 10), Ok(b"old".to_vec()));
    brick.release(gfid, reply.fd);
    assert_eq!(std::fs::read_dir(brick.root().join(".glusterfs/unlink")).expect("it is there").count(), 0);
}

#[test]
fn a_whole_tree_is_thrown_away_with_its_handles() {
    let Some(brick) = Brick::new() else { return };
    let tree = brick.mkdir(Gfid::ROOT, "tree").expect("it is new");
    let inner = brick.mkdir(tree, "inner").expect("it is new");
    let file = brick.create(inner, "f", b"x").expect("it is new");
    let kept = brick.create(Gfid::ROOT, "kept", b"y").expect("it is new");
    brick.link(kept, inner, "link").expect("it is new");
    assert_eq!(brick.rmdir(Gfid::ROOT, "tree"), Err(Errno::ENOTEMPTY));
    brick.call(Rmdir { parent: Gfid::ROOT, flags: 1, name: bytes("tree"), xdata: None }).expect("it goes");
    assert_eq!(brick.names(Gfid::ROOT), ["kept"]);
    let brick = Brick::over(brick.scratch, |root| mortar_brick::store::StoreOptions {
        landfill_purge_interval: Some(std::time::Duration::from_millis(20)),
        ..options(root)
    });
    let landfill = brick.root().join(".glusterfs/landfill");
    for _ in 0..200 {
        if std::fs::read_dir(&landfill).expect("it is there").count() == 0 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(std::fs::read_dir(&landfill).expect("it is there").count(), 0);
    for gfid in [tree, inner, file] {
        assert!(brick.handle(gfid).symlink_metadata().is_err(), "{gfid}");
    }
    assert_eq!(brick.read_all(kept), Ok(b"y".to_vec()));
    assert_eq!(brick.stat(kept).map(|stat| stat.nlink), Ok(1));
}

#[test]
fn a_listing_goes_on_by_another_fd_and_from_the_start() {
    let Some(brick) = Brick::new() else { return };
    let dir = brick.mkdir(Gfid::ROOT, "d").expect("it is new");
    let mut expected: Vec<String> = (0..300).map(|number| format!("file-{number:04}")).collect();
    for name in &expected {
        brick.create(dir, name, b"").expect("it is new");
    }
    expected.sort();
    let names = |size| brick.list(dir, size).expect("it lists").into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(1024), expected);
    assert_eq!(names(1 << 20), expected);

    let open = || brick.call(Opendir { gfid: dir, xdata: None }).expect("it opens").fd;
    let page = |fd, offset| {
        let reply = brick.call(Readdir { gfid: dir, fd, offset, size: 2048, xdata: None }).expect("it lists");
        reply.entries
    };
    let (one, two) = (open(), open());
    let first = page(one, 0);
    let next = first.last().expect("there are entries").offset;
    let second = page(one, next);
    assert_eq!(page(two, next), second, "a position means the same on another fd");
    assert_eq!(page(one, 0), first, "and going back works");
    let small = brick.call(Readdir { gfid: dir, fd: one, offset: 0, size: 8, xdata: None }).expect("it lists");
    assert!(small.entries.is_empty() && !small.eof, "too small for one entry is not the end");
}

#[test]
fn a_listing_carries_attributes_and_answers() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.create(Gfid::ROOT, "f", b"12345").expect("it is new");
    brick.setxattr(gfid, "user.color", b"blue").expect("it is set");
    let fd = brick.call(Opendir { gfid: Gfid::ROOT, xdata: None }).expect("it opens").fd;
    let xdata = Dict::new().with("user.*", Value::Int(0)).with(CONTENT, Value::Uint(4096));
    let request = Readdirp { gfid: Gfid::ROOT, fd, offset: 0, size: 65_536, xdata: Some(xdata) };
    let reply = brick.call(request).expect("it lists");
    assert!(reply.eof);
    let entry = reply.entries.iter().find(|entry| &entry.entry.name[..] == b"f").expect("it is listed");
    assert_eq!((entry.stat.gfid, entry.stat.size, entry.entry.kind), (gfid, 5, 8));
    let answers = entry.xdata.as_ref().expect("it has answers");
    assert_eq!(answers.get_bytes("user.color").map(|value| &value[..]), Some(&b"blue"[..]));
    assert_eq!(answers.get_bytes(CONTENT).map(|value| &value[..]), Some(&b"12345"[..]));
}

#[test]
fn a_lookup_answers_the_keys_it_is_asked() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.create(Gfid::ROOT, "f", b"12345").expect("it is new");
    brick.setxattr(gfid, "trusted.afr.vol-client-1", &[0; 12]).expect("it is set");
    brick.setxattr(gfid, "user.a", b"1").expect("it is set");
    let ask = |xdata| brick.lookup_with(Gfid::ROOT, "f", Some(xdata)).expect("it is there").xdata.expect("answers");
    let answer = ask(Dict::new()
        .with("trusted.afr.vol-client-0", Value::Uint(12))
        .with("trusted.afr.vol-client-1", Value::Uint(12))
        .with("trusted.gfid", Value::Uint(16))
        .with("glusterfs.open-fd-count", Value::Uint(4)));
    assert_eq!(answer.keys().collect::<Vec<_>>(), ["glusterfs.open-fd-count", "trusted.afr.vol-client-1"]);
    let answer = ask(Dict::new().with(LIST_XATTR, Value::Int(1)));
    let mut keys: Vec<_> = answer.keys().collect();
    keys.sort_unstable();
    assert_eq!(keys, ["trusted.afr.vol-client-1", "trusted.glusterfs.mdata", "user.a"]);
    let small = ask(Dict::new().with(CONTENT, Value::Uint(4)));
    assert!(small.is_empty(), "a file larger than asked for has no answer");
}

#[test]
fn heal_links_a_file_that_it_makes_again() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.create(Gfid::ROOT, "a", b"x").expect("it is new");
    let xdata = gfid_req(gfid).map(|xdata| xdata.with(INTERNAL_FOP, Value::str("yes")));
    let request = Mknod { parent: Gfid::ROOT, dev: 0, mode: 0o100_644, umask: 0, name: bytes("b"), xdata };
    let healer = Context::internal(Pid::SELF_HEAL_DAEMON);
    let reply = brick.call_as(&healer, request).expect("it links");
    assert_eq!((reply.stat.gfid, reply.stat.nlink), (gfid, 2));
}

#[test]
fn a_very_deep_tree_is_reached_by_gfid() {
    let Some(brick) = Brick::new() else { return };
    let mut at = Gfid::ROOT;
    for _ in 0..120 {
        at = brick.mkdir(at, "d").expect("it is new");
    }
    let brick = brick.reopened();
    assert!(brick.create(at, "f", b"x").is_ok(), "more directories than the kernel follows links");
    let path = brick.getxattr(at, "glusterfs.gfidtopath").expect("it has a path");
    assert_eq!(path.len(), 240);
}

#[test]
fn a_symbolic_link_in_the_brick_is_never_followed() {
    let Some(brick) = Brick::new() else { return };
    let link = brick.symlink(Gfid::ROOT, "out", "/etc").expect("it is new");
    assert_eq!(brick.lookup(link, "passwd"), Err(Errno::EPERM));
    assert_eq!(brick.create(link, "x", b""), Err(Errno::EPERM));
    let forged = format!("../../00/00/{}/etc", Gfid::ROOT);
    let link = brick.symlink(Gfid::ROOT, "forged", &forged).expect("any text may be a link's");
    let reply = brick.call(Readlink { gfid: link, size: 4096, xdata: None }).expect("it is a link");
    assert_eq!(reply.target, bytes(&forged));
    let lookup = Lookup { gfid: link, parent: Gfid::NULL, flags: 0, name: bytes(""), xdata: None };
    assert_eq!(brick.call(lookup).map(|reply| reply.stat.mode & 0o170_000), Ok(0o120_000));
}
