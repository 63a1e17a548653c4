//! Moves that nothing disturbs: what arrives, and what stays.

use mortar_api::rebalance::SkipReason;
use mortar_types::fop::{Flock, Link, Lk, LockCmd, LockType, Open, Setattr, Setxattr, Symlink, setattr_valid};
use mortar_types::{Dict, Fd, Gfid, Iatt, LkOwner, Timespec, Value, keys};
use mortar_volume::rebalance::{Error, File, Moved};

use crate::fixture::{SOURCE, TARGET, Volume, name, user};

#[tokio::test]
async fn a_small_file_arrives_with_all_it_has() {
    for volume in [Volume::replicated(), Volume::plain()] {
        let stack = volume.stack();
        let file = stack.create("mail", b"hello", 0o640).await;
        let set = |dict| Setxattr { gfid: file.gfid, flags: 0, dict: Some(dict), xdata: None };
        let xattrs = Dict::new().with("user.a", Value::ptr(b"1".to_vec())).with("trusted.b", Value::ptr(b"2".to_vec()));
        stack.fops(SOURCE).fop(&user(1002), set(xattrs)).await.unwrap();
        let stat = Iatt { uid: 12, gid: 13, mtime: Timespec::new(900, 123_456_789), ..Iatt::default() };
        let valid = setattr_valid::UID | setattr_valid::GID | setattr_valid::MTIME;
        stack.fops(SOURCE).fop(&user(1003), Setattr { gfid: file.gfid, stat, valid, xdata: None }).await.unwrap();
        let before = stack.lookup(SOURCE, "mail").await.unwrap();

        assert_eq!(stack.migrate(&file).await, Ok(Moved::Moved(5)));

        let arrived = volume.assert_moved("mail");
        assert_eq!((&arrived.content[..], arrived.mode, arrived.uid, arrived.gid), (&b"hello"[..], 0o640, 12, 13));
        assert_eq!(arrived.xattrs["user.a"], b"1");
        assert_eq!(arrived.xattrs["trusted.b"], b"2");
        let after = stack.lookup(TARGET, "mail").await.unwrap();
        assert_eq!((after.gfid, after.mode, after.size), (before.gfid, before.mode, before.size));
        assert_eq!((after.mtime, after.atime, after.ctime), (before.mtime, before.atime, before.ctime));
    }
}

#[tokio::test]
async fn no_lock_is_left() {
    let volume = Volume::replicated();
    let stack = volume.stack();
    let file = stack.create("mail", b"hello", 0o640).await;
    stack.migrate(&file).await.unwrap();
    // Another mover would be refused.
    let other = volume.stack();
    let back = File { ..file.clone() };
    let migration = mortar_volume::rebalance::migrate::Migration {
        subvolumes: &other.subvolumes,
        file: &back,
        source: TARGET,
        target: SOURCE,
    };
    assert_eq!(mortar_volume::rebalance::migrate::migrate_file(migration).await, Ok(Moved::Moved(5)));
}

#[tokio::test]
async fn special_bits_and_empty_files_arrive() {
    let volume = Volume::replicated();
    let stack = volume.stack();
    let file = stack.create("empty", b"", 0o644).await;
    // By chmod: creation on behalf of a user may drop them.
    let stat = Iatt { mode: 0o7755, ..Iatt::default() };
    let chmod = Setattr { gfid: file.gfid, stat, valid: setattr_valid::MODE, xdata: None };
    stack.fops(SOURCE).fop(&user(1002), chmod).await.unwrap();
    assert_eq!(stack.migrate(&file).await, Ok(Moved::Moved(0)));
    assert_eq!(volume.assert_moved("empty").mode, 0o7755);
}

#[tokio::test]
async fn an_acl_arrives() {
    let volume = Volume::replicated();
    let stack = volume.stack();
    let file = stack.create("acl", b"x", 0o640).await;
    // Version 2; owner rw, user 5 r, group r, mask r, others none.
    let entry =
        |tag: u16, perm: u16, id: u32| [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat();
    let none = u32::MAX;
    let entries = [entry(1, 6, none), entry(2, 4, 5), entry(4, 4, none), entry(0x10, 4, none), entry(0x20, 0, none)];
    let acl = [&2_u32.to_le_bytes()[..], &entries.concat()].concat();
    let dict = Dict::new().with(keys::XATTR_ACL_ACCESS, Value::ptr(acl.clone()));
    let request = Setxattr { gfid: file.gfid, flags: 0, dict: Some(dict), xdata: None };
    if stack.fops(SOURCE).fop(&user(1002), request).await.is_err() {
        mortar_testkit::needs::skip("the file system has no ACLs");
        return;
    }
    stack.migrate(&file).await.unwrap();
    let arrived = volume.assert_moved("acl");
    assert_eq!((arrived.mode, &arrived.xattrs[keys::XATTR_ACL_ACCESS]), (0o640, &acl));
}

#[tokio::test]
async fn a_large_file_keeps_its_holes() {
    for volume in [Volume::replicated(), Volume::plain()] {
        let stack = volume.stack();
        let file = stack.create("large", b"begin", 0o600).await;
        stack.write(SOURCE, file.gfid, 10 << 20, b"middle").await.unwrap();
        stack.write(SOURCE, file.gfid, 30 << 20, &vec![7; 3 << 20]).await.unwrap();
        let before = std::fs::read(volume.path(SOURCE, 0, "large")).unwrap();
        assert_eq!(stack.migrate(&file).await, Ok(Moved::Moved(33 << 20)));
        let arrived = volume.assert_moved("large");
        assert!(arrived.content == before);
        assert!(arrived.blocks * 512 < 8 << 20, "{} blocks", arrived.blocks);
    }
}

#[tokio::test]
async fn a_link_file_at_the_target_becomes_the_file() {
    let volume = Volume::replicated();
    let stack = volume.stack();
    let file = stack.create("linked", b"data", 0o644).await;
    let xdata = Dict::new()
        .with(keys::GFID_REQ, Value::Gfid(file.gfid))
        .with(keys::XATTR_DHT_LINKTO, Value::ptr(b"v-replicate-0\0".to_vec()));
    let request = mortar_types::fop::Mknod {
        parent: Gfid::ROOT,
        dev: 0,
        mode: 0o101_000,
        umask: 0,
        name: name("linked"),
        xdata: Some(xdata),
    };
    stack.fops(TARGET).fop(&user(1002), request).await.unwrap();
    // What a mover that died had copied.
    stack.write(TARGET, file.gfid, 0, b"longer than the file").await.unwrap();
    assert_eq!(stack.migrate(&file).await, Ok(Moved::Moved(4)));
    assert_eq!(volume.assert_moved("linked").content, b"data");
}

#[tokio::test]
async fn another_file_of_the_name_is_left_alone() {
    let volume = Volume::replicated();
    let stack = volume.stack();
    let file = stack.create("name", b"one", 0o644).await;
    let request = mortar_types::fop::Mknod {
        parent: Gfid::ROOT,
        dev: 0,
        mode: 0o100_600,
        umask: 0,
        name: name("name"),
        xdata: Some(Dict::new().with(keys::GFID_REQ, Value::Gfid(Gfid([9; 16])))),
    };
    stack.fops(TARGET).fop(&user(1002), request).await.unwrap();
    let error = Error::OtherFile { subvolume: "v-replicate-1".to_owned() };
    assert_eq!(stack.migrate(&file).await, Err(error));
    assert_eq!((volume.files(SOURCE, "name").len(), volume.files(TARGET, "name").len()), (2, 2));
}

#[tokio::test]
async fn hard_links_stay() {
    let volume = Volume::replicated();
    let stack = volume.stack();
    let file = stack.create("one", b"data", 0o644).await;
    let link = Link { gfid: file.gfid, new_parent: Gfid::ROOT, new_name: name("two"), xdata: None };
    stack.fops(SOURCE).fop(&user(1002), link).await.unwrap();
    assert_eq!(stack.migrate(&file).await, Ok(Moved::Skipped(SkipReason::HardLinks)));
    volume.assert_stayed("one", b"data", 0o644);
}

#[tokio::test]
async fn a_locked_file_stays_until_it_is_unlocked() {
    let volume = Volume::replicated();
    let stack = volume.stack();
    let client = volume.stack();
    let file = stack.create("locked", b"data", 0o644).await;
    let open = Open { gfid: file.gfid, flags: 2, xdata: None };
    let fd = client.fops(SOURCE).fop(&user(1002), open).await.unwrap().fd;
    let lock = |kind, cmd| {
        let owner = LkOwner::from_u64(77);
        Lk {
            gfid: file.gfid,
            fd,
            cmd,
            kind,
            flock: Flock { kind, whence: 0, start: 0, len: 0, pid: 5, owner },
            xdata: None,
        }
    };
    let ctx = user(1002).with_owner(LkOwner::from_u64(77));
    client.fops(SOURCE).fop(&ctx, lock(LockType::Write, LockCmd::Set)).await.unwrap();
    assert_eq!(stack.migrate(&file).await, Ok(Moved::Skipped(SkipReason::Locked)));
    volume.assert_stayed("locked", b"data", 0o644);
    client.fops(SOURCE).fop(&ctx, lock(LockType::Unlock, LockCmd::Set)).await.unwrap();
    assert_eq!(stack.migrate(&file).await, Ok(Moved::Moved(4)));
}

#[tokio::test]
async fn a_name_that_went_away_is_skipped() {
    let volume = Volume::replicated();
    let stack = volume.stack();
    let file = File { parent: Gfid::ROOT, name: name("gone"), gfid: Gfid([7; 16]) };
    assert_eq!(stack.migrate(&file).await, Ok(Moved::Skipped(SkipReason::Gone)));
    assert_eq!(Fd::ANONYMOUS, Fd(-2));
}

#[tokio::test]
async fn a_symlink_moves() {
    let volume = Volume::replicated();
    let stack = volume.stack();
    let gfid = Gfid([3; 16]);
    let xdata = Some(Dict::new().with(keys::GFID_REQ, Value::Gfid(gfid)));
    let request = Symlink { parent: Gfid::ROOT, name: name("sym"), umask: 0, target: name("to/somewhere"), xdata };
    stack.fops(SOURCE).fop(&user(1000), request).await.unwrap();
    let file = File { parent: Gfid::ROOT, name: name("sym"), gfid };
    assert_eq!(stack.migrate(&file).await, Ok(Moved::Moved(0)));
    assert!(std::fs::symlink_metadata(volume.path(SOURCE, 0, "sym")).is_err());
    for brick in 0..2 {
        let target = std::fs::read_link(volume.path(TARGET, brick, "sym")).unwrap();
        assert_eq!(target.to_str(), Some("to/somewhere"));
    }
}
