//! Compounds over a real store: lock and mark with CREATE, with XATTROP, and given back together.

use std::path::PathBuf;

use bytes::Bytes;
use mortar_logic::compound::DataLock;
use mortar_types::fop::{Create, CreateReply, Flock, Fxattrop, Getxattr, Inodelk, LockCmd, LockType, XattropOp};
use mortar_types::{Dict, Errno, Gfid, LkOwner, Upcall, Value, keys};

use crate::brick::{Directory, Local, Process};
use crate::client::{Client, create, params};

const ROOT: Gfid = Gfid::ROOT;
const DOMAIN: &[u8] = b"t-replicate-0";
const RAISE: [u8; 12] = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
const LOWER: [u8; 12] = [255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0];

fn counters(delta: [u8; 12]) -> Dict {
    Dict::new().with(keys::XATTR_AFR_DIRTY, Value::ptr(delta.to_vec()))
}

fn lock(additions: Dict) -> Value {
    let lock = DataLock { additions, ..DataLock::new(Bytes::from_static(DOMAIN), LkOwner::from_u64(77)) };
    lock.encode().unwrap()
}

fn create_locked(name: &str) -> Create {
    let mut create = create(ROOT, name);
    create.xdata.get_or_insert_default().set(keys::LOCK_DATA, lock(counters(RAISE)));
    create
}

fn fxattrop(file: &CreateReply, delta: [u8; 12], key: &'static str) -> Fxattrop {
    let xdata = Some(Dict::new().with(key, lock(Dict::new())));
    Fxattrop { gfid: file.stat.gfid, fd: file.fd, op: XattropOp::AddArray, dict: Some(counters(delta)), xdata }
}

/// What the reply says of the lock.
fn locked(xdata: Option<&Dict>) -> Option<i64> {
    xdata.and_then(|xdata| xdata.get_i64(keys::LOCKED))
}

async fn try_lock(client: &Client, gfid: Gfid) -> Result<(), Errno> {
    let flock = Flock { kind: LockType::Write, whence: 0, start: 0, len: 0, pid: 0, owner: LkOwner::default() };
    let domain = Bytes::from_static(DOMAIN);
    let kind = LockType::Write;
    client.fop(Inodelk { gfid, cmd: LockCmd::Set, kind, flock, domain, xdata: None }).await.map(drop)
}

async fn dirty(client: &Client, gfid: Gfid) -> Option<Vec<u8>> {
    let name = Some(Bytes::from_static(keys::XATTR_AFR_DIRTY.as_bytes()));
    let reply = client.fop(Getxattr { gfid, name, xdata: None }).await.ok()?;
    reply.dict?.get_bytes(keys::XATTR_AFR_DIRTY).map(|value| value.to_vec())
}

fn index_link(directory: &Directory, gfid: Gfid) -> PathBuf {
    directory.path().join(".glusterfs/indices/dirty").join(gfid.to_string())
}

#[tokio::test]
async fn setvolume_says_that_compounds_are_taken() {
    let Some(directory) = Directory::new("compounds-said") else { return };
    let local = Local::start(&directory.volfile(&[]));
    let client = Client::connect(local.address).await;
    let reply = client.setvolume(&params(&directory)).await;
    assert_eq!(reply.dict.into_dict().get_i64(keys::COMPOUNDS), Some(1));
}

#[tokio::test]
async fn a_created_file_is_locked_and_marked_until_both_are_given_back() {
    let Some(directory) = Directory::new("compounds-create") else { return };
    let local = Local::start(&directory.volfile(&[]));
    let (mut one, two) =
        (Client::mount(local.address, &directory).await, Client::mount(local.address, &directory).await);
    let file = one.fop(create_locked("a")).await.unwrap();
    let gfid = file.stat.gfid;
    assert_eq!(locked(file.xdata.as_ref()), Some(1));
    assert_eq!(dirty(&one, gfid).await.as_deref(), Some(&RAISE[..]));
    assert!(index_link(&directory, gfid).exists());
    assert_eq!(try_lock(&two, gfid).await, Err(Errno::EAGAIN));
    let upcall = one.upcalls.recv().await.unwrap();
    assert!(matches!(upcall, Upcall::InodelkContention { gfid: told, .. } if told == gfid));

    let given_back = one.fop(fxattrop(&file, LOWER, keys::UNLOCK_DATA)).await.unwrap();
    assert_eq!(locked(given_back.xdata.as_ref()), Some(0));
    assert_eq!(dirty(&one, gfid).await.as_deref(), Some(&[0; 12][..]));
    assert!(!index_link(&directory, gfid).exists());
    assert_eq!(try_lock(&two, gfid).await, Ok(()));
}

#[tokio::test]
async fn the_keys_are_not_stored_and_an_old_file_is_not_locked() {
    let Some(directory) = Directory::new("compounds-old") else { return };
    let local = Local::start(&directory.volfile(&[]));
    let client = Client::mount(local.address, &directory).await;
    let file = client.create(ROOT, "a").await.unwrap();
    let again = client.fop(create_locked("a")).await.unwrap();
    assert_eq!(again.stat.gfid, file.stat.gfid);
    assert_eq!(locked(again.xdata.as_ref()), None);
    assert_eq!(dirty(&client, file.stat.gfid).await, None);
    let new = client.fop(create_locked("b")).await.unwrap();
    let all = client.fop(Getxattr { gfid: new.stat.gfid, name: None, xdata: None }).await.unwrap();
    assert!(!all.dict.unwrap_or_default().keys().any(|key| key.contains("mortar")));
}

#[tokio::test]
async fn a_lock_that_is_not_free_leaves_everything_undone() {
    let Some(directory) = Directory::new("compounds-denied") else { return };
    let local = Local::start(&directory.volfile(&[]));
    let (one, two) = (Client::mount(local.address, &directory).await, Client::mount(local.address, &directory).await);
    let file = one.create(ROOT, "a").await.unwrap();
    try_lock(&two, file.stat.gfid).await.unwrap();
    assert_eq!(one.fop(fxattrop(&file, RAISE, keys::LOCK_DATA)).await.err(), Some(Errno::EAGAIN));
    assert_eq!(dirty(&one, file.stat.gfid).await, None);
    two.connection.close();
    let mut outcome = Err(Errno::EAGAIN);
    for _ in 0..100 {
        outcome = one.fop(fxattrop(&file, RAISE, keys::LOCK_DATA)).await;
        if outcome.is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(locked(outcome.unwrap().xdata.as_ref()), Some(1));
}

#[tokio::test]
async fn a_failed_mark_keeps_no_lock() {
    let Some(directory) = Directory::new("compounds-failed") else { return };
    let local = Local::start(&directory.volfile(&[]));
    let (one, two) = (Client::mount(local.address, &directory).await, Client::mount(local.address, &directory).await);
    let file = one.create(ROOT, "a").await.unwrap();
    let mut refused = fxattrop(&file, RAISE, keys::LOCK_DATA);
    refused.dict = Some(Dict::new().with("nonsense", Value::ptr(vec![1])));
    assert!(one.fop(refused).await.is_err());
    assert_eq!(try_lock(&two, file.stat.gfid).await, Ok(()));
    let mut unreadable = create(ROOT, "b");
    unreadable.xdata.get_or_insert_default().set(keys::LOCK_DATA, Value::ptr(vec![0, 200]));
    assert_eq!(one.fop(unreadable).await.err(), Some(Errno::EINVAL));
}

#[tokio::test]
async fn a_kill_in_a_burst_leaves_the_mark_for_a_heal_and_no_lock() {
    let Some(directory) = Directory::new("compounds-kill") else { return };
    let process = Process::start(&directory);
    let client = Client::mount(process.address, &directory).await;
    let gfid = client.fop(create_locked("a")).await.unwrap().stat.gfid;
    process.kill();
    let process = Process::start(&directory);
    let client = Client::mount(process.address, &directory).await;
    assert_eq!(client.lookup(ROOT, "a").await.unwrap().stat.gfid, gfid);
    assert_eq!(dirty(&client, gfid).await.as_deref(), Some(&RAISE[..]));
    assert!(index_link(&directory, gfid).exists(), "a heal finds it");
    assert_eq!(try_lock(&client, gfid).await, Ok(()));
}
