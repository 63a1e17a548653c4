//! The layer over a replica set of bricks in memory: what the bricks see, and what applications read.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mortar_types::fop::*;
use mortar_types::*;

use super::{Options, QuickRead};
use crate::replicate::{Options as ReplicateOptions, Replicate};
use crate::testing::Brick;

const SECOND: Duration = Duration::from_secs(1);

struct Volume {
    bricks: Vec<Arc<Brick>>,
}

struct Client {
    fops: Arc<dyn Fops>,
    ctx: Context,
}

impl Volume {
    /// With a file `f` that holds "old".
    async fn new() -> (Self, Gfid) {
        let volume = Self { bricks: (0..3).map(|at| Brick::new(format!("v-client-{at}"))).collect() };
        let writer = volume.plain_client();
        let gfid = writer.put("f", b"old").await;
        volume.settle().await;
        (volume, gfid)
    }

    fn replicate(&self) -> Arc<dyn Fops> {
        let ids: Vec<String> = (0..self.bricks.len()).map(|at| format!("v-client-{at}")).collect();
        let mut options = ReplicateOptions::new("v-replicate-0", ids);
        options.choose_local = false;
        Replicate::new(options, self.bricks.iter().map(|brick| brick.connect() as Arc<dyn Fops>).collect())
    }

    fn plain_client(&self) -> Client {
        Client { fops: self.replicate(), ctx: Context::default() }
    }

    fn client(&self) -> Client {
        self.client_with(|_| ())
    }

    fn client_with(&self, change: impl FnOnce(&mut Options)) -> Client {
        let mut options = Options::new("v-quick-read");
        change(&mut options);
        Client { fops: QuickRead::new(options, self.replicate()), ctx: Context::default() }
    }

    /// Lets kept locks go and forgets what the bricks have seen.
    async fn settle(&self) {
        tokio::time::sleep(10 * SECOND).await;
        self.seen();
    }

    /// The kinds of the requests to each brick since the last call, without the replica set's own locks and marks.
    fn seen(&self) -> Vec<Vec<FopKind>> {
        use FopKind::{Finodelk, Fxattrop, Inodelk, Xattrop};
        let own = |kind: &FopKind| matches!(kind, Finodelk | Fxattrop | Inodelk | Xattrop);
        self.bricks.iter().map(|brick| brick.take_kinds().into_iter().filter(|kind| !own(kind)).collect()).collect()
    }

    /// How many bricks have seen such a request since the last call.
    fn saw(&self, kind: FopKind) -> usize {
        self.seen().iter().filter(|seen| seen.contains(&kind)).count()
    }

    /// How many bricks were asked for contents since the last call.
    fn asked_for_contents(&self) -> usize {
        let asks = |request: &Request| request.xdata().is_some_and(|xdata| xdata.contains(keys::CONTENT));
        self.bricks.iter().filter(|brick| brick.take_log().iter().any(|call| asks(&call.request))).count()
    }
}

fn name(name: &str) -> Bytes {
    Bytes::from(name.to_owned())
}

impl Client {
    async fn fop<F: Fop>(&self, request: F) -> Outcome<F::Reply> {
        self.fops.fop(&self.ctx, request).await
    }

    async fn put(&self, file: &str, data: &'static [u8]) -> Gfid {
        let create =
            Create { parent: Gfid::ROOT, flags: 2, mode: 0o600, umask: 0, name: name(file), xdata: fresh_gfid() };
        let CreateReply { stat, fd, .. } = self.fop(create).await.unwrap();
        self.write(stat.gfid, fd, data).await.unwrap();
        self.release(stat.gfid, fd).await;
        stat.gfid
    }

    async fn lookup(&self, file: &str) -> Outcome<LookupReply> {
        let (gfid, parent) = (Gfid::NULL, Gfid::ROOT);
        self.fop(Lookup { gfid, parent, flags: 0, name: name(file), xdata: fresh_gfid() }).await
    }

    async fn open(&self, gfid: Gfid, flags: u32) -> Outcome<Fd> {
        Ok(self.fop(Open { gfid, flags, xdata: None }).await?.fd)
    }

    async fn read(&self, gfid: Gfid, fd: Fd) -> Outcome<Bytes> {
        Ok(self.fop(Read { gfid, fd, offset: 0, size: 4096, flags: 0, xdata: None }).await?.data)
    }

    async fn write(&self, gfid: Gfid, fd: Fd, data: &'static [u8]) -> Outcome<WriteReply> {
        let data = Bytes::from_static(data);
        self.fop(Write { gfid, fd, offset: 0, flags: 0, data, xdata: None }).await
    }

    async fn flush(&self, gfid: Gfid, fd: Fd) {
        self.fop(Flush { gfid, fd, xdata: None }).await.unwrap();
    }

    async fn release(&self, gfid: Gfid, fd: Fd) {
        self.fop(Release { gfid, fd, xdata: None }).await.unwrap();
    }

    async fn overwrite(&self, gfid: Gfid, data: &'static [u8]) {
        let fd = self.open(gfid, 1).await.unwrap();
        self.write(gfid, fd, data).await.unwrap();
        self.release(gfid, fd).await;
    }

    async fn unlink(&self, file: &str) {
        self.fop(Unlink { parent: Gfid::ROOT, name: name(file), flags: 0, xdata: None }).await.unwrap();
    }

    /// As `cat` through a mount.
    async fn cat(&self, file: &str) -> Bytes {
        let gfid = self.lookup(file).await.unwrap().stat.gfid;
        let fd = self.open(gfid, 0).await.unwrap();
        let data = self.read(gfid, fd).await.unwrap();
        self.flush(gfid, fd).await;
        self.release(gfid, fd).await;
        data
    }
}

fn fresh_gfid() -> Option<Dict> {
    Some(Dict::new().with(keys::GFID_REQ, Value::Gfid(Gfid::random())))
}

#[tokio::test(start_paused = true)]
async fn reading_a_small_file_is_one_lookup() {
    let (volume, _) = Volume::new().await;
    let client = volume.client();
    assert_eq!(client.cat("f").await, "old");
    assert_eq!(volume.seen(), vec![vec![FopKind::Lookup]; 3]);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_not_asked_for_again() {
    let (volume, _) = Volume::new().await;
    let client = volume.client();
    client.cat("f").await;
    volume.seen();
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(client.cat("f").await, "old");
    assert_eq!(volume.asked_for_contents(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_brick_is_asked_where_it_is_known_who_answers_reads() {
    let (volume, gfid) = Volume::new().await;
    let client = volume.client();
    client.lookup("f").await.unwrap();
    assert_eq!(volume.asked_for_contents(), 3);
    client.overwrite(gfid, b"new").await;
    volume.settle().await;
    let reply = client.lookup("f").await.unwrap();
    assert_eq!(volume.asked_for_contents(), 1);
    assert!(reply.xdata.is_none_or(|xdata| !xdata.contains(keys::CONTENT)));
    let fd = client.open(gfid, 0).await.unwrap();
    assert_eq!(client.read(gfid, fd).await.unwrap(), "new");
    assert_eq!(volume.seen(), vec![vec![]; 3]);
}

#[tokio::test(start_paused = true)]
async fn reads_honour_offset_and_size() {
    let (volume, gfid) = Volume::new().await;
    let client = volume.client();
    client.lookup("f").await.unwrap();
    let fd = client.open(gfid, 0).await.unwrap();
    for (offset, size, data, eof) in [(0, 2, "ol", false), (1, 2, "ld", true), (2, 9, "d", true), (7, 1, "", true)] {
        let reply = client.fop(Read { gfid, fd, offset, size, flags: 0, xdata: None }).await.unwrap();
        assert_eq!((&reply.data[..], reply.eof, reply.stat.size), (data.as_bytes(), eof, 3), "{offset} {size}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_own_overwrite_is_read_through_a_file_that_was_open_before() {
    let (volume, gfid) = Volume::new().await;
    let client = volume.client();
    client.lookup("f").await.unwrap();
    let fd = client.open(gfid, 0).await.unwrap();
    client.overwrite(gfid, b"new").await;
    assert_eq!(client.read(gfid, fd).await.unwrap(), "new");
    client.lookup("f").await.unwrap();
    client.fop(Truncate { gfid, offset: 1, xdata: None }).await.unwrap();
    assert_eq!(client.read(gfid, fd).await.unwrap(), "n");
}

#[tokio::test(start_paused = true)]
async fn a_change_by_another_client_is_seen_after_the_timeout() {
    let (volume, gfid) = Volume::new().await;
    let (client, other) = (volume.client(), volume.plain_client());
    client.lookup("f").await.unwrap();
    let fd = client.open(gfid, 0).await.unwrap();
    other.overwrite(gfid, b"new").await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(client.read(gfid, fd).await.unwrap(), "new");
}

#[tokio::test(start_paused = true)]
async fn a_change_by_another_client_is_seen_after_the_next_lookup() {
    let (volume, gfid) = Volume::new().await;
    let (client, other) = (volume.client(), volume.plain_client());
    client.cat("f").await;
    other.overwrite(gfid, b"longer").await;
    assert_eq!(client.cat("f").await, "longer");
    volume.seen();
    assert_eq!(client.cat("f").await, "longer");
    assert_eq!(volume.seen(), vec![vec![FopKind::Lookup]; 3]);
}

#[tokio::test(start_paused = true)]
async fn an_unlinked_file_that_is_open_can_still_be_read() {
    let (volume, gfid) = Volume::new().await;
    let client = volume.client();
    client.lookup("f").await.unwrap();
    let fd = client.open(gfid, 0).await.unwrap();
    client.unlink("f").await;
    let seen = volume.bricks[0].take_kinds();
    let at = |wanted| seen.iter().position(|kind| *kind == wanted);
    assert!(at(FopKind::Open).unwrap() < at(FopKind::Unlink).unwrap(), "{seen:?}");
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(client.read(gfid, fd).await.unwrap(), "old");
    client.release(gfid, fd).await;
    tokio::time::sleep(10 * SECOND).await;
    assert!(volume.bricks.iter().all(|brick| brick.node(gfid).is_none()), "released everywhere");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_a_rename_replaces_can_still_be_read() {
    let (volume, gfid) = Volume::new().await;
    let client = volume.client();
    client.put("g", b"other").await;
    client.lookup("f").await.unwrap();
    let fd = client.open(gfid, 0).await.unwrap();
    let (old_name, new_name) = (name("g"), name("f"));
    let rename = Rename { old_parent: Gfid::ROOT, new_parent: Gfid::ROOT, old_name, new_name, xdata: None };
    client.fop(rename).await.unwrap();
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(client.read(gfid, fd).await.unwrap(), "old");
    assert_eq!(client.cat("f").await, "other");
}

#[tokio::test(start_paused = true)]
async fn concurrent_needs_open_once_and_close_once() {
    let (volume, gfid) = Volume::new().await;
    let client = volume.client();
    client.lookup("f").await.unwrap();
    let fd = client.open(gfid, 0).await.unwrap();
    tokio::time::sleep(2 * SECOND).await;
    volume.seen();
    let reads = futures::future::join_all((0..5).map(|_| client.read(gfid, fd))).await;
    assert!(reads.iter().all(|data| data.as_ref().unwrap() == "old"));
    let opens = |seen: Vec<FopKind>| seen.iter().filter(|kind| **kind == FopKind::Open).count();
    assert!(volume.bricks.iter().all(|brick| opens(brick.take_kinds()) == 1));
    client.release(gfid, fd).await;
    tokio::time::sleep(10 * SECOND).await;
    assert!(volume.bricks.iter().all(|brick| brick.node(gfid).unwrap().opens == 0));
}

#[tokio::test(start_paused = true)]
async fn an_open_that_fails_is_tried_again() {
    let (volume, gfid) = Volume::new().await;
    let client = volume.client();
    client.lookup("f").await.unwrap();
    let fd = client.open(gfid, 0).await.unwrap();
    let fsync = || client.fop(Fsync { gfid, fd, datasync: 0, xdata: None });
    let refuse = |call: &crate::testing::Call| match call.request {
        Request::Open(_) => crate::testing::Fault::Fail(Errno::EMFILE),
        _ => crate::testing::Fault::None,
    };
    volume.bricks.iter().for_each(|brick| brick.set_plan(refuse));
    assert_eq!(fsync().await.unwrap_err().errno, Errno::EMFILE);
    volume.bricks.iter().for_each(|brick| brick.clear_plan());
    assert!(fsync().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn contents_of_a_lookup_that_began_before_a_write_are_not_kept() {
    let (volume, gfid) = Volume::new().await;
    let client = volume.client();
    let writer = client.open(gfid, 1).await.unwrap();
    // Looked at by the bricks after 0.1 s, answered after 0.2 s: the write comes in between.
    volume.bricks.iter().for_each(|brick| brick.set_delay(|| SECOND / 10));
    let lookup = client.lookup("f");
    let write = async {
        tokio::time::sleep(SECOND * 3 / 20).await;
        volume.bricks.iter().for_each(|brick| brick.set_delay(|| Duration::ZERO));
        client.write(gfid, writer, b"new").await.unwrap();
    };
    let (found, ()) = futures::join!(lookup, write);
    found.unwrap();
    let fd = client.open(gfid, 0).await.unwrap();
    assert_eq!(client.read(gfid, fd).await.unwrap(), "new");
    assert_eq!(volume.saw(FopKind::Open), 3, "nothing was kept");
}

#[tokio::test(start_paused = true)]
async fn attributes_come_from_what_is_kept_until_something_changed_them() {
    let (volume, gfid) = Volume::new().await;
    let client = volume.client();
    client.lookup("f").await.unwrap();
    let fd = client.open(gfid, 0).await.unwrap();
    volume.seen();
    assert_eq!(client.fop(Fstat { gfid, fd, xdata: None }).await.unwrap().stat.size, 3);
    assert_eq!(volume.seen(), vec![vec![]; 3]);
    client.fop(Link { gfid, new_parent: Gfid::ROOT, new_name: name("l"), xdata: None }).await.unwrap();
    assert_eq!(client.fop(Fstat { gfid, fd, xdata: None }).await.unwrap().stat.nlink, 2);
}

#[tokio::test(start_paused = true)]
async fn locks_open_and_closing_another_file_gives_them_back() {
    let (volume, gfid) = Volume::new().await;
    let mut client = volume.client();
    client.ctx.lk_owner = LkOwner::from_u64(7);
    client.lookup("f").await.unwrap();
    let (locked, other) = (client.open(gfid, 0).await.unwrap(), client.open(gfid, 0).await.unwrap());
    let owner = client.ctx.lk_owner.clone();
    let flock = Flock { kind: LockType::Read, whence: 0, start: 0, len: 0, pid: 1, owner };
    let kind = LockType::Read;
    client.fop(Lk { gfid, fd: locked, cmd: LockCmd::Set, kind, flock, xdata: None }).await.unwrap();
    assert_eq!(volume.saw(FopKind::Open), 3);
    client.flush(gfid, other).await;
    assert!(volume.saw(FopKind::Flush) > 0);
}

#[tokio::test(start_paused = true)]
async fn who_may_not_read_by_the_mode_is_sent_to_the_bricks() {
    let (volume, gfid) = Volume::new().await;
    let mut client = volume.client();
    client.lookup("f").await.unwrap();
    volume.seen();
    client.ctx.uid = 1000;
    client.open(gfid, 0).await.unwrap();
    assert_eq!(volume.saw(FopKind::Open), 3);
}

#[tokio::test(start_paused = true)]
async fn opens_for_writing_and_opens_that_must_not_wait_go_down() {
    let (volume, gfid) = Volume::new().await;
    let (client, eager) = (volume.client(), volume.client_with(|options| options.lazy_open = false));
    client.lookup("f").await.unwrap();
    client.open(gfid, 2).await.unwrap();
    assert_eq!(volume.saw(FopKind::Open), 3);
    eager.lookup("f").await.unwrap();
    let fd = eager.open(gfid, 0).await.unwrap();
    assert_eq!(volume.saw(FopKind::Open), 3);
    assert_eq!(eager.read(gfid, fd).await.unwrap(), "old");
    assert_eq!(volume.saw(FopKind::Read), 0);
}

#[tokio::test(start_paused = true)]
async fn large_files_and_directories_are_not_asked_for_twice() {
    let (volume, _) = Volume::new().await;
    let client = volume.client_with(|options| options.file_bytes_max = 2);
    assert_eq!(client.cat("f").await, "old");
    assert!(volume.asked_for_contents() > 0);
    assert_eq!(client.cat("f").await, "old");
    assert_eq!(volume.asked_for_contents(), 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_believed_when_the_volume_was_away() {
    let (volume, gfid) = Volume::new().await;
    let client = volume.client();
    client.lookup("f").await.unwrap();
    let fd = client.open(gfid, 0).await.unwrap();
    volume.bricks.iter().for_each(|brick| brick.set_up(false));
    assert!(client.read(gfid, fd).await.is_err());
    volume.bricks.iter().for_each(|brick| brick.set_up(true));
    assert_eq!(client.read(gfid, fd).await.unwrap(), "old");
}

#[tokio::test(start_paused = true)]
async fn an_invalidation_drops_the_contents_and_goes_on_up() {
    struct Heard(parking_lot::Mutex<usize>);
    impl UpcallSink for Heard {
        fn upcall(&self, _upcall: Upcall) {
            *self.0.lock() += 1;
        }
    }
    let (volume, gfid) = Volume::new().await;
    let layer = QuickRead::new(Options::new("v-quick-read"), volume.replicate());
    let heard = Arc::new(Heard(parking_lot::Mutex::default()));
    layer.subscribe(Arc::clone(&heard) as Arc<dyn UpcallSink>);
    let client = Client { fops: Arc::clone(&layer) as Arc<dyn Fops>, ctx: Context::default() };
    client.lookup("f").await.unwrap();
    let (stat, parent, old_parent) = (Iatt::default(), Iatt::default(), Iatt::default());
    layer.core.upcall(Upcall::CacheInvalidation { gfid, flags: 8, stat, parent, old_parent, xdata: None });
    assert_eq!(*heard.0.lock(), 1);
    assert!(!layer.core.cache.contains(gfid));
}

#[tokio::test(start_paused = true)]
async fn o_direct_is_never_answered_from_what_is_kept() {
    const O_DIRECT: u32 = 0o40_000;
    let (volume, gfid) = Volume::new().await;
    for lazy_open in [true, false] {
        let client = volume.client_with(|options| options.lazy_open = lazy_open);
        client.lookup("f").await.unwrap();
        let (plain, direct) = (client.open(gfid, 0).await.unwrap(), client.open(gfid, O_DIRECT).await.unwrap());
        volume.seen();
        client.read(gfid, plain).await.unwrap();
        assert_eq!(volume.saw(FopKind::Read), 0, "lazy open {lazy_open}");
        client.read(gfid, direct).await.unwrap();
        assert_eq!(volume.saw(FopKind::Read), 1, "lazy open {lazy_open}");
        client.release(gfid, direct).await;
        client.read(gfid, plain).await.unwrap();
        assert_eq!(volume.saw(FopKind::Read), 0, "lazy open {lazy_open}");
    }
}
