//! Fops through the server: fd numbers, edge answers, read-only volumes, mounts of a directory.

use mortar_types::fop::{
    Flush, Fstat, Lookup, Mkdir, Open, Opendir, Read, Readdirp, Release, Releasedir, Rmdir, Stat, Write,
};
use mortar_types::{Context, Dict, Errno, Fd, Gfid, Pid, Value};

use crate::brick::{Directory, Local};
use crate::client::{Client, create, lookup, name_of, params, with_gfid};

const ROOT: Gfid = Gfid::ROOT;

#[tokio::test]
async fn data_come_back_and_fd_numbers_are_the_lowest_free() {
    let Some(directory) = Directory::new("fds") else { return };
    let local = Local::start(&directory.volfile(&[]));
    let client = Client::mount(local.address, &directory).await;
    let file = client.create(ROOT, "a").await.unwrap();
    let gfid = file.stat.gfid;
    assert_eq!(file.fd, Fd(0));
    let data = name_of("hello");
    client.fop(Write { gfid, fd: file.fd, offset: 0, flags: 0, data, xdata: None }).await.unwrap();
    assert_eq!(client.fop(Opendir { gfid: ROOT, xdata: None }).await.unwrap().fd, Fd(1));
    client.fop(Release { gfid, fd: Fd(0), xdata: None }).await.unwrap();
    assert_eq!(client.fop(Open { gfid, flags: 0, xdata: None }).await.unwrap().fd, Fd(0));
    let read = Read { gfid, fd: Fd(0), offset: 0, size: 100, flags: 0, xdata: None };
    assert_eq!(client.fop(read).await.unwrap().data, name_of("hello"));
    client.fop(Releasedir { gfid: ROOT, fd: Fd(1), xdata: None }).await.unwrap();
    // As a real brick: closing what is not open succeeds.
    client.fop(Releasedir { gfid: ROOT, fd: Fd(1), xdata: None }).await.unwrap();
}

#[tokio::test]
async fn numbers_of_one_client_mean_nothing_to_another() {
    let Some(directory) = Directory::new("strangers") else { return };
    let local = Local::start(&directory.volfile(&[]));
    let (one, two) = (Client::mount(local.address, &directory).await, Client::mount(local.address, &directory).await);
    let file = one.create(ROOT, "a").await.unwrap();
    let fstat = Fstat { gfid: file.stat.gfid, fd: file.fd, xdata: None };
    assert_eq!(two.fop(fstat).await, Err(Errno::EBADF));
}

#[tokio::test]
async fn edges_are_answered_as_by_a_real_brick() {
    let Some(directory) = Directory::new("edges") else { return };
    let local = Local::start(&directory.volfile(&[]));
    let client = Client::mount(local.address, &directory).await;
    let unknown = Gfid([9; 16]);
    let fstat = async |gfid, fd| client.fop(Fstat { gfid, fd: Fd(fd), xdata: None }).await.map(|_| ());
    assert_eq!(fstat(ROOT, 99).await, Err(Errno::EBADF));
    assert_eq!(fstat(ROOT, -1).await, Err(Errno(0)));
    assert_eq!(fstat(ROOT, -2).await, Ok(()));
    assert_eq!(fstat(unknown, -2).await, Err(Errno::ENOENT));
    let stat = async |gfid| client.fop(Stat { gfid, xdata: None }).await.map(|_| ());
    assert_eq!(stat(unknown).await, Err(Errno::ESTALE));
    assert_eq!(stat(Gfid::NULL).await, Err(Errno::EINVAL));
    let found = async |gfid, parent, name: &str| {
        client.fop(Lookup { gfid, parent, flags: 0, name: name_of(name), xdata: None }).await.map(|_| ())
    };
    assert_eq!(found(Gfid::NULL, ROOT, "nope").await, Err(Errno::ENOENT));
    assert_eq!(found(Gfid::NULL, unknown, "x").await, Err(Errno::ESTALE));
    assert_eq!(found(unknown, Gfid::NULL, "").await, Err(Errno::ENOENT));
    assert_eq!(found(Gfid::NULL, Gfid::NULL, "").await, Err(Errno::EINVAL));
    assert_eq!(found(Gfid::NULL, ROOT, "a/b").await, Err(Errno::EPERM));
    assert_eq!(found(Gfid::NULL, ROOT, ".glusterfs").await, Err(Errno::EPERM));
}

#[tokio::test]
async fn a_disconnected_clients_files_are_closed() {
    let Some(directory) = Directory::new("closing") else { return };
    let local = Local::start(&directory.volfile(&[]));
    let client = Client::mount(local.address, &directory).await;
    let file = client.create(ROOT, "a").await.unwrap();
    drop(client);
    let other = Client::mount(local.address, &directory).await;
    let count = Dict::new().with("glusterfs.open-fd-count", Value::Uint(4));
    for _ in 0..100 {
        let reply = other.fop(Lookup { xdata: Some(count.clone()), ..lookup(ROOT, "a") }).await.unwrap();
        if reply.xdata.and_then(|xdata| xdata.get_i64("glusterfs.open-fd-count")) == Some(0) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{} is still open", file.stat.gfid);
}

#[tokio::test]
async fn a_read_only_volume_refuses_changes_but_not_healers() {
    let Some(directory) = Directory::new("readonly") else { return };
    let local = Local::start(&directory.volfile(&[("features/read-only", "read-only", "on")]));
    let client = Client::mount(local.address, &directory).await;
    assert_eq!(client.create(ROOT, "a").await, Err(Errno::EROFS));
    assert_eq!(client.lookup(ROOT, "a").await, Err(Errno::ENOENT));
    let healer = Context { pid: Pid::SELF_HEAL_DAEMON, ..client.ctx.clone() };
    client.fop_as(&healer, create(ROOT, "a")).await.unwrap();
}

#[tokio::test]
async fn root_is_squashed_on_request() {
    let Some(directory) = Directory::new("squash") else { return };
    let local = Local::start(&directory.volfile(&[("protocol/server", "all-squash", "on")]));
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let client = Client::mount(local.address, &directory).await;
    let file = client.create(ROOT, "a").await.unwrap();
    assert_eq!((file.stat.uid, file.stat.gid), (65_534, 65_534));
}

#[tokio::test]
async fn a_mounted_directory_is_the_root_of_its_client() {
    let Some(directory) = Directory::new("subdir") else { return };
    let local = Local::start(&directory.volfile(&[]));
    let whole = Client::mount(local.address, &directory).await;
    let mkdir = |parent, name: &str| Mkdir { parent, mode: 0o755, umask: 0, name: name_of(name), xdata: with_gfid() };
    let outer = whole.fop(mkdir(ROOT, "outer")).await.unwrap().stat.gfid;
    whole.fop(mkdir(outer, "inner")).await.unwrap();

    let part = Client::connect(local.address).await;
    let reply = part.setvolume(&params(&directory).with("subdir-mount", Value::str("/outer"))).await;
    assert_eq!(reply.op_ret, 0);
    let root = part.fop(Stat { gfid: ROOT, xdata: None }).await.unwrap().stat;
    assert_eq!((root.gfid, root.ino), (ROOT, 1));
    let inner = part.lookup(ROOT, "inner").await.unwrap();
    assert_eq!(inner.postparent.gfid, ROOT);
    assert_eq!(part.lookup(ROOT, "outer").await, Err(Errno::ENOENT));
    let fd = part.fop(Opendir { gfid: ROOT, xdata: None }).await.unwrap().fd;
    let listing = part.fop(Readdirp { gfid: ROOT, fd, offset: 0, size: 65_536, xdata: None }).await.unwrap();
    for dot in listing.entries.iter().filter(|entry| entry.entry.name.starts_with(b".")) {
        assert_eq!(dot.entry.ino, 1);
        assert!(dot.stat.gfid == ROOT || dot.stat.is_empty());
    }
    part.fop(Rmdir { parent: ROOT, flags: 0, name: name_of("inner"), xdata: None }).await.unwrap();
    assert_eq!(whole.lookup(outer, "inner").await, Err(Errno::ENOENT));
}

#[tokio::test]
async fn flush_is_answered_for_open_files() {
    let Some(directory) = Directory::new("flush") else { return };
    let local = Local::start(&directory.volfile(&[]));
    let client = Client::mount(local.address, &directory).await;
    let file = client.create(ROOT, "a").await.unwrap();
    client.fop(Flush { gfid: file.stat.gfid, fd: file.fd, xdata: None }).await.unwrap();
}
