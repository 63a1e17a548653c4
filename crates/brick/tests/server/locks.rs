//! Locks between two clients on the wire.

use std::time::Duration;

use bytes::Bytes;
use mortar_types::fop::{Flock, Inodelk, LockCmd, LockType, Unlink};
use mortar_types::{Errno, Gfid, LkOwner, Upcall};

use crate::brick::{Directory, Local};
use crate::client::{Client, name_of};

fn inodelk(gfid: Gfid, cmd: LockCmd, kind: LockType) -> Inodelk {
    let flock = Flock { kind, whence: 0, start: 0, len: 0, pid: 0, owner: LkOwner::default() };
    Inodelk { gfid, cmd, kind, flock, domain: Bytes::from_static(b"t-replicate-0"), xdata: None }
}

#[tokio::test]
async fn the_holder_is_told_and_its_end_frees_the_lock() {
    let Some(directory) = Directory::new("contention") else { return };
    let local = Local::start(&directory.volfile(&[]));
    let mut one = Client::mount(local.address, &directory).await;
    let two = Client::mount(local.address, &directory).await;
    let lock = |cmd| inodelk(Gfid::ROOT, cmd, LockType::Write);
    one.fop(lock(LockCmd::Set)).await.unwrap();
    assert_eq!(two.fop(lock(LockCmd::Set)).await.map(|_| ()), Err(Errno::EAGAIN));
    let upcall = one.upcalls.recv().await.unwrap();
    assert!(matches!(upcall, Upcall::InodelkContention { gfid: Gfid::ROOT, domain, .. } if domain == "t-replicate-0"));
    let (granted, ()) = tokio::join!(two.fop(lock(LockCmd::SetWait)), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        one.connection.close();
    });
    granted.unwrap();
}

#[tokio::test]
async fn calls_behind_a_waiting_one_are_answered() {
    let Some(directory) = Directory::new("behind") else { return };
    let local = Local::start(&directory.volfile(&[]));
    let (one, two) = (Client::mount(local.address, &directory).await, Client::mount(local.address, &directory).await);
    one.fop(inodelk(Gfid::ROOT, LockCmd::Set, LockType::Write)).await.unwrap();
    let waiting = two.fop(inodelk(Gfid::ROOT, LockCmd::SetWait, LockType::Write));
    let (granted, ()) = tokio::join!(waiting, async {
        tokio::task::yield_now().await;
        two.create(Gfid::ROOT, "a").await.unwrap();
        one.fop(inodelk(Gfid::ROOT, LockCmd::Set, LockType::Unlock)).await.unwrap();
    });
    granted.unwrap();
}

#[tokio::test]
async fn an_unlink_waits_for_the_other_clients_inodelk() {
    let Some(directory) = Directory::new("barrier") else { return };
    let local = Local::start(&directory.volfile(&[]));
    let (mut one, two) =
        (Client::mount(local.address, &directory).await, Client::mount(local.address, &directory).await);
    let gfid = one.create(Gfid::ROOT, "a").await.unwrap().stat.gfid;
    one.fop(inodelk(gfid, LockCmd::Set, LockType::Write)).await.unwrap();
    let unlink = two.fop(Unlink { parent: Gfid::ROOT, name: name_of("a"), flags: 0, xdata: None });
    let (removed, ()) = tokio::join!(unlink, async {
        let upcall = one.upcalls.recv().await.unwrap();
        assert!(matches!(upcall, Upcall::InodelkContention { .. }));
        one.lookup(Gfid::ROOT, "a").await.unwrap();
        one.fop(inodelk(gfid, LockCmd::Set, LockType::Unlock)).await.unwrap();
    });
    removed.unwrap();
    assert_eq!(one.lookup(Gfid::ROOT, "a").await, Err(Errno::ENOENT));
}
