//! The layer over a store that knows one directory entry and notes what it is asked.

use mortar_types::fop::{
    ChangeReply, Entrylk as EntrylkFop, Getxattr, Inodelk as InodelkFop, Lk, Lookup, LookupReply, Unlink,
};
use mortar_types::keys::{ENTRYLK_COUNT, INODELK_COUNT, INODELK_DOM_COUNT, PARENT_ENTRYLK};
use mortar_types::{FopKind, Iatt, LkOwner, Pid};

use super::*;

const FILE: Gfid = Gfid([7; 16]);

/// `/a` is [`FILE`].
#[derive(Default)]
struct Fake {
    asked: Mutex<Vec<FopKind>>,
}

#[async_trait]
impl Fops for Fake {
    async fn call(&self, _ctx: &Context, request: Request) -> Outcome<Reply> {
        self.asked.lock().push(request.kind());
        match request {
            Request::Lookup(_) => {
                let stat = Iatt { gfid: FILE, mode: 0o100_644, ..Iatt::default() };
                Ok(LookupReply { stat, postparent: Iatt::default(), xdata: None }.into())
            }
            Request::Unlink(_) => Ok(ChangeReply { pre: Iatt::default(), post: Iatt::default(), xdata: None }.into()),
            _ => Ok(acknowledge()),
        }
    }
}

#[derive(Default)]
struct Heard(Mutex<Vec<Upcall>>);

impl UpcallSink for Heard {
    fn upcall(&self, upcall: Upcall) {
        self.0.lock().push(upcall);
    }
}

struct Lab {
    locks: Arc<Locks>,
    fake: Arc<Fake>,
    heard: Arc<Heard>,
}

fn lab() -> Lab {
    let fake = Arc::new(Fake::default());
    let locks = Locks::new(Arc::clone(&fake) as Arc<dyn Fops>, "gfs1:/b".to_owned(), &Config::default());
    let heard = Arc::new(Heard::default());
    for client in 1..=3 {
        locks.connect(ClientId(client), 100_000, Arc::clone(&heard) as Arc<dyn UpcallSink>);
    }
    Lab { locks, fake, heard }
}

fn ctx(client: u64) -> Context {
    Context { client: ClientId(client), pid: Pid(1), lk_owner: LkOwner::from_u64(1), ..Context::default() }
}

fn inodelk(cmd: LockCmd, kind: LockType) -> Request {
    let flock = Flock { kind, whence: 0, start: 0, len: 0, pid: 0, owner: LkOwner::default() };
    InodelkFop { gfid: FILE, cmd, kind, flock, domain: Bytes::from_static(b"dom"), xdata: None }.into()
}

fn unlink() -> Request {
    Unlink { parent: Gfid::ROOT, name: Bytes::from_static(b"a"), flags: 0, xdata: None }.into()
}

impl Lab {
    async fn call(&self, client: u64, request: Request) -> Result<Reply, Errno> {
        self.locks.call(&ctx(client), request).await.map_err(|failure| failure.errno)
    }

    async fn lock(&self, client: u64) {
        self.call(client, inodelk(LockCmd::SetWait, LockType::Write)).await.unwrap();
    }

    fn start(&self, client: u64, request: Request) -> tokio::task::JoinHandle<Result<Reply, Errno>> {
        let locks = Arc::clone(&self.locks);
        tokio::spawn(async move { locks.call(&ctx(client), request).await.map_err(|failure| failure.errno) })
    }
}

/// Lets every task run that can: the tests' runtime has one thread.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_waiter_is_woken_by_the_unlock_and_the_holder_is_told() {
    let lab = lab();
    lab.lock(1).await;
    let waiter = lab.start(2, inodelk(LockCmd::SetWait, LockType::Write));
    settle().await;
    assert!(!waiter.is_finished());
    assert!(matches!(&lab.heard.0.lock()[..], [Upcall::InodelkContention { gfid: FILE, .. }]));
    lab.call(1, inodelk(LockCmd::Set, LockType::Unlock)).await.unwrap();
    waiter.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_dropped_waiter_leaves_the_queue() {
    let lab = lab();
    lab.lock(1).await;
    let waiter = lab.start(2, inodelk(LockCmd::SetWait, LockType::Write));
    settle().await;
    waiter.abort();
    settle().await;
    assert_eq!(lab.locks.shard(FILE).lock().table.inodelk_count(FILE, None), 1);
    assert!(lab.locks.shard(FILE).lock().waiting.is_empty());
}

#[tokio::test]
async fn a_client_that_goes_frees_its_locks() {
    let lab = lab();
    lab.lock(1).await;
    let waiter = lab.start(2, inodelk(LockCmd::SetWait, LockType::Write));
    settle().await;
    lab.locks.disconnect(ClientId(1));
    waiter.await.unwrap().unwrap();
    assert_eq!(lab.call(1, inodelk(LockCmd::Set, LockType::Write)).await.err(), Some(Errno::ENOTCONN));
}

#[tokio::test]
async fn a_removal_waits_for_another_clients_inodelk() {
    let lab = lab();
    lab.lock(1).await;
    let removal = lab.start(2, unlink());
    settle().await;
    assert!(!removal.is_finished());
    lab.call(1, inodelk(LockCmd::Set, LockType::Unlock)).await.unwrap();
    removal.await.unwrap().unwrap();
    assert_eq!(lab.fake.asked.lock()[..], [FopKind::Lookup, FopKind::Unlink]);
    lab.lock(3).await;
}

#[tokio::test]
async fn a_lone_clients_removals_need_no_lookup() {
    let lab = lab();
    lab.lock(1).await;
    lab.call(1, unlink()).await.unwrap();
    assert_eq!(lab.fake.asked.lock()[..], [FopKind::Unlink]);
}

#[tokio::test]
async fn counts_are_answered_when_asked_and_only_then() {
    let lab = lab();
    lab.lock(1).await;
    let name = Some(Bytes::from_static(b"a"));
    let domain = Bytes::from_static(b"dom");
    let (cmd, kind) = (EntrylkCmd::Lock, EntrylkType::Write);
    let entrylk = EntrylkFop { gfid: Gfid::ROOT, cmd, kind, name, domain, xdata: None };
    lab.call(1, entrylk.into()).await.unwrap();

    let lookup =
        |xdata| Lookup { gfid: Gfid::NULL, parent: Gfid::ROOT, flags: 0, name: Bytes::from_static(b"a"), xdata };
    let wanted = [INODELK_COUNT, ENTRYLK_COUNT, PARENT_ENTRYLK].map(|key| (key.into(), Value::Uint(0)));
    let reply = lab.call(2, lookup(Some(wanted.into_iter().collect())).into()).await.unwrap();
    let answered = |key| reply.xdata().and_then(|xdata| xdata.get_i64(key));
    assert_eq!([INODELK_COUNT, ENTRYLK_COUNT, PARENT_ENTRYLK].map(answered), [Some(1), Some(0), Some(1)]);
    let reply = lab.call(2, lookup(None).into()).await.unwrap();
    assert_eq!(reply.xdata(), None);
}

#[tokio::test]
async fn a_domains_count_comes_under_the_general_name() {
    let lab = lab();
    lab.lock(1).await;
    let xdata = |domain| Some(Dict::new().with(INODELK_DOM_COUNT, Value::str(domain)));
    let fsync = |domain| mortar_types::fop::Stat { gfid: FILE, xdata: xdata(domain) };
    for (domain, count) in [("dom", 1), ("other", 0)] {
        let reply = lab.call(2, fsync(domain).into()).await.unwrap();
        assert_eq!(reply.xdata().and_then(|xdata| xdata.get_i64(INODELK_COUNT)), Some(count));
    }
}

#[tokio::test]
async fn clear_locks_is_a_virtual_xattr() {
    let lab = lab();
    lab.lock(1).await;
    let getxattr = |name: &'static [u8]| Getxattr { gfid: FILE, name: Some(Bytes::from_static(name)), xdata: None };
    let name = b"glusterfs.clrlk.tinode.kall";
    let reply = lab.call(2, getxattr(name).into()).await.unwrap();
    let Reply::DictReply(reply) = reply else { panic!("another shape") };
    let summary = reply.dict.as_ref().and_then(|dict| dict.get_str("glusterfs.clrlk.tinode.kall"));
    assert_eq!(summary, Some("gfs1:/b: inode blocked locks=0 granted locks=1"));
    assert_eq!(lab.call(2, getxattr(b"glusterfs.clrlk.nonsense").into()).await.err(), Some(Errno::EINVAL));
}

#[tokio::test]
async fn getlk_names_the_holder_and_flush_drops_the_lock() {
    let lab = lab();
    let flock = |kind| Flock { kind, whence: 0, start: 0, len: 10, pid: 55, owner: LkOwner::default() };
    let lk = |cmd, kind| Lk { gfid: FILE, fd: Fd(1), cmd, kind, flock: flock(kind), xdata: None };
    let held = |reply| match reply {
        Reply::LkReply(reply) => (reply.flock.kind, reply.flock.pid),
        _ => panic!("another shape"),
    };
    lab.call(1, lk(LockCmd::Set, LockType::Write).into()).await.unwrap();
    let reply = lab.call(2, lk(LockCmd::Get, LockType::Read).into()).await.unwrap();
    assert_eq!(held(reply), (LockType::Write, 55));
    assert_eq!(lab.call(2, lk(LockCmd::Set, LockType::Read).into()).await.err(), Some(Errno::EAGAIN));
    lab.call(1, Flush { gfid: FILE, fd: Fd(1), xdata: None }.into()).await.unwrap();
    let reply = lab.call(2, lk(LockCmd::Get, LockType::Read).into()).await.unwrap();
    assert_eq!(held(reply).0, LockType::Unlock);
}
