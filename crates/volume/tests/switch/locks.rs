//! POSIX locks over a change: held without a gap, and waited for without an end.

use std::sync::Arc;
use std::time::Duration;

use mortar_types::fop::{Fd, Flock, Flush, Lk, LockCmd, LockType, Open};
use mortar_types::{Context, Errno, Gfid, LkOwner, Outcome};
use mortar_volume::client::State;

use super::bricks::{Client, Local, key, volfile};

async fn lock(client: &Client, gfid: Gfid, fd: Fd, owner: u64, cmd: LockCmd, kind: LockType) -> Outcome<()> {
    let owner = LkOwner::from_u64(owner);
    let flock = Flock { kind, whence: 0, start: 0, len: 0, pid: 1, owner: owner.clone() };
    let ctx = Context::default().with_owner(owner);
    client.top.fop(&ctx, Lk { gfid, fd, cmd, kind, flock, xdata: None }).await.map(drop)
}

async fn open(client: &Client, gfid: Gfid) -> Fd {
    client.top.fop(&Context::default(), Open { gfid, flags: 2, xdata: None }).await.unwrap().fd
}

const BUSY: Outcome<()> = Err(mortar_types::Failure { errno: Errno::EAGAIN, xdata: None });

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_is_held_before_and_after_and_gone_after_unlock_or_flush() {
    let Some([one, two, three]) = Local::several() else { return };
    let first = volfile(&[&one, &two], &[]);
    let (holder, other) = (Client::new(&first).await, Client::new(&first).await);
    let file = holder.create("f").await;
    let (gfid, fd) = (file.stat.gfid, file.fd);
    let theirs = open(&other, gfid).await;
    lock(&holder, gfid, fd, 1, LockCmd::Set, LockType::Write).await.unwrap();
    // Two is replaced by three: brick one is the one that both have.
    one.accuse(&key(&three));
    let next = volfile(&[&one, &three], &[]);
    holder.take(&next).await;
    assert_eq!(lock(&other, gfid, theirs, 2, LockCmd::Set, LockType::Write).await, BUSY);
    other.take(&next).await;
    assert_eq!(lock(&other, gfid, theirs, 2, LockCmd::Set, LockType::Write).await, BUSY);
    lock(&holder, gfid, fd, 1, LockCmd::Set, LockType::Unlock).await.unwrap();
    lock(&other, gfid, theirs, 2, LockCmd::Set, LockType::Write).await.unwrap();
    // What was unlocked is not taken again by the next change.
    let third = volfile(&[&one, &three], &[("cluster/replicate", "eager-lock", "off")]);
    holder.take(&third).await;
    other.take(&third).await;
    assert_eq!(lock(&holder, gfid, fd, 1, LockCmd::Set, LockType::Write).await, BUSY);
    let flush = Flush { gfid, fd: theirs, xdata: None };
    other.top.fop(&Context::default().with_owner(LkOwner::from_u64(2)), flush).await.unwrap();
    lock(&holder, gfid, fd, 1, LockCmd::Set, LockType::Write).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_lock_gets_it_after_the_change() {
    let Some([one, two]) = Local::several() else { return };
    let first = volfile(&[&one], &[]);
    let (holder, waiter) = (Client::new(&first).await, Arc::new(Client::new(&first).await));
    let file = holder.create("f").await;
    let (gfid, fd) = (file.stat.gfid, file.fd);
    let theirs = open(&waiter, gfid).await;
    lock(&holder, gfid, fd, 1, LockCmd::Set, LockType::Write).await.unwrap();
    let waiting = Arc::clone(&waiter);
    let granted = tokio::spawn(async move { lock(&waiting, gfid, theirs, 2, LockCmd::SetWait, LockType::Write).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    one.accuse(&key(&two));
    let next = volfile(&[&one, &two], &[]);
    waiter.take(&next).await;
    holder.take(&next).await;
    assert!(!granted.is_finished());
    lock(&holder, gfid, fd, 1, LockCmd::Set, LockType::Unlock).await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), granted).await.unwrap().unwrap().unwrap();
    assert_eq!(lock(&holder, gfid, fd, 1, LockCmd::Set, LockType::Write).await, BUSY);
    // It is in the book: the next change takes it along.
    let third = volfile(&[&one, &two], &[("cluster/replicate", "eager-lock", "off")]);
    waiter.take(&third).await;
    assert_eq!(lock(&holder, gfid, fd, 1, LockCmd::Set, LockType::Write).await, BUSY);
    lock(&waiter, gfid, theirs, 2, LockCmd::Set, LockType::Unlock).await.unwrap();
    lock(&holder, gfid, fd, 1, LockCmd::Set, LockType::Write).await.unwrap();
}

/// Ends the client's connection and waits until it is back.
async fn reconnect(client: &Client) {
    let brick = Arc::clone(&client.switch.graph().bricks()[0]);
    let mut state = brick.state();
    brick.reconnect();
    let up = state.wait_for(|state| *state == State::Up);
    tokio::time::timeout(Duration::from_secs(30), up).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_is_taken_again_on_the_next_connection() {
    let Some([one]) = Local::several() else { return };
    let volfile = volfile(&[&one], &[]);
    let (holder, other) = (Client::new(&volfile).await, Client::new(&volfile).await);
    let file = holder.create("f").await;
    let (gfid, fd) = (file.stat.gfid, file.fd);
    let theirs = open(&other, gfid).await;
    lock(&holder, gfid, fd, 1, LockCmd::Set, LockType::Write).await.unwrap();
    reconnect(&holder).await;
    assert_eq!(lock(&other, gfid, theirs, 2, LockCmd::Set, LockType::Write).await, BUSY);
    lock(&holder, gfid, fd, 1, LockCmd::Set, LockType::Unlock).await.unwrap();
    reconnect(&holder).await;
    lock(&other, gfid, theirs, 2, LockCmd::Set, LockType::Write).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_another_got_meanwhile_is_lost_and_the_file_with_it_until_it_is_unlocked() {
    let Some([one]) = Local::several() else { return };
    let volfile = volfile(&[&one], &[]);
    let (holder, other) = (Client::new(&volfile).await, Arc::new(Client::new(&volfile).await));
    let file = holder.create("f").await;
    let (gfid, fd) = (file.stat.gfid, file.fd);
    let theirs = open(&other, gfid).await;
    lock(&holder, gfid, fd, 1, LockCmd::Set, LockType::Write).await.unwrap();
    let waiting = Arc::clone(&other);
    let granted = tokio::spawn(async move { lock(&waiting, gfid, theirs, 2, LockCmd::SetWait, LockType::Write).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    reconnect(&holder).await;
    granted.await.unwrap().unwrap();
    let refused = holder.write(gfid, fd, 0, b"as if it were locked").await;
    assert_eq!(refused, Err(Errno::EBADFD.into()));
    other.write(gfid, theirs, 0, b"theirs").await.unwrap();
    lock(&holder, gfid, fd, 1, LockCmd::Set, LockType::Unlock).await.unwrap();
    holder.write(gfid, fd, 0, b"again").await.unwrap();
}
