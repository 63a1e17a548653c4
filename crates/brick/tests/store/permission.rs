//! Callers that are not root.

use mortar_types::fop::{Access, Create, Mkdir, Open, Setattr, Unlink, setattr_valid};
use mortar_types::{Context, Errno, Gfid, Iatt, Pid};

use crate::support::{Brick, bytes, gfid_req};

fn user(uid: u32) -> Context {
    Context { uid, gid: uid, groups: [uid, 500].into(), ..Context::default() }
}

fn chmod(brick: &Brick, gfid: Gfid, mode: u32, owner: (u32, u32)) {
    let stat = Iatt { mode, uid: owner.0, gid: owner.1, ..Iatt::default() };
    let valid = setattr_valid::MODE | setattr_valid::UID | setattr_valid::GID;
    brick.call(Setattr { gfid, stat, valid, xdata: None }).expect("root may");
}

fn errno<T>(result: Result<T, mortar_types::Failure>) -> Option<Errno> {
    result.err().map(|failure| failure.errno)
}

#[test]
fn files_open_for_whom_their_mode_allows() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.create(Gfid::ROOT, "f", b"x").expect("it is new");
    chmod(&brick, gfid, 0o640, (10, 500));
    let open = |uid, flags| errno(brick.call_as(&user(uid), Open { gfid, flags, xdata: None }));
    assert_eq!((open(10, 2), open(11, 0), open(11, 1)), (None, None, Some(Errno::EACCES)));
    let stranger = Context { uid: 12, gid: 12, ..Context::default() };
    assert_eq!(errno(brick.call_as(&stranger, Open { gfid, flags: 0, xdata: None })), Some(Errno::EACCES));
    let healer = Context { pid: Pid::SELF_HEAL_DAEMON, ..stranger };
    assert_eq!(errno(brick.call_as(&healer, Open { gfid, flags: 2, xdata: None })), None);
    brick.setxattr(gfid, "glusterfs.posix.acl", b"u::rw,u:12:r,g::r,m::r,o::-").expect("ext4 has ACLs");
    let stranger = user(12);
    assert_eq!(errno(brick.call_as(&stranger, Open { gfid, flags: 0, xdata: None })), None);
    assert_eq!(errno(brick.call_as(&stranger, Open { gfid, flags: 1, xdata: None })), Some(Errno::EACCES));
    let access = |mask| errno(brick.call_as(&stranger, Access { gfid, mask, xdata: None }));
    assert_eq!((access(4), access(2)), (None, Some(Errno::EACCES)));
}

#[test]
fn entries_change_for_whom_the_directory_allows() {
    let Some(brick) = Brick::new() else { return };
    let dir = brick.mkdir(Gfid::ROOT, "d").expect("it is new");
    chmod(&brick, dir, 0o755, (10, 10));
    let create = |uid, name: &str| {
        let request = Create {
            parent: dir,
            flags: 0o302,
            mode: 0o644,
            umask: 0,
            name: bytes(name),
            xdata: gfid_req(Gfid::random()),
        };
        errno(brick.call_as(&user(uid), request))
    };
    assert_eq!((create(10, "a"), create(11, "b")), (None, Some(Errno::EACCES)));
    chmod(&brick, dir, 0o1777, (10, 10));
    assert_eq!(create(11, "b"), None);
    let unlink = |uid, name: &str| {
        errno(brick.call_as(&user(uid), Unlink { parent: dir, name: bytes(name), flags: 0, xdata: None }))
    };
    assert_eq!(unlink(12, "b"), Some(Errno::EACCES), "sticky: only the owners may");
    assert_eq!((unlink(11, "b"), unlink(10, "a")), (None, None));
    chmod(&brick, Gfid::ROOT, 0o755, (0, 0));
    let mkdir = Mkdir { parent: Gfid::ROOT, mode: 0o755, umask: 0, name: bytes("x"), xdata: gfid_req(Gfid::random()) };
    assert_eq!(errno(brick.call_as(&user(10), mkdir)), Some(Errno::EACCES));
}

#[test]
fn attributes_change_for_the_owner() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.create(Gfid::ROOT, "f", b"x").expect("it is new");
    chmod(&brick, gfid, 0o644, (10, 10));
    let change = |uid, stat: Iatt, valid| errno(brick.call_as(&user(uid), Setattr { gfid, stat, valid, xdata: None }));
    let mode = Iatt { mode: 0o600, ..Iatt::default() };
    assert_eq!(change(11, mode, setattr_valid::MODE), Some(Errno::EPERM));
    assert_eq!(change(10, mode, setattr_valid::MODE), None);
    assert_eq!(change(10, Iatt { uid: 11, ..Iatt::default() }, setattr_valid::UID), Some(Errno::EPERM));
    assert_eq!(change(10, Iatt { gid: 500, ..Iatt::default() }, setattr_valid::GID), None);
    assert_eq!(change(10, Iatt { gid: 501, ..Iatt::default() }, setattr_valid::GID), Some(Errno::EPERM));
    assert_eq!(change(11, Iatt::default(), setattr_valid::MTIME), Some(Errno::EPERM));
}
