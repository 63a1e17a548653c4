//! A file moves, step by step as GlusterFS's rebalance moves it, while a client has it open.

use bytes::Bytes;
use mortar_types::fop::*;
use mortar_types::{Context, Dict, Fd, Fops, Gfid, Iatt, Pid, Value, keys};

use crate::bricks::{Client, Volume};
use crate::can_run;

const ROOT: Gfid = Gfid::ROOT;
const LINKTO: &str = "trusted.glusterfs.dht.linkto";

/// The mover's own way to the bricks.
struct Mover {
    client: Client,
    ctx: Context,
    gfid: Gfid,
    dir: Gfid,
    source: usize,
}

impl Mover {
    fn new(volume: &Volume, dir: Gfid, gfid: Gfid, source: usize) -> Self {
        Self { client: volume.client(), ctx: Context::internal(Pid::REBALANCE), gfid, dir, source }
    }

    const fn target(&self) -> usize {
        1 - self.source
    }

    fn brick(&self, at: usize) -> &dyn Fops {
        &*self.client.connections[at]
    }

    async fn set_linkto(&self, at: usize, name: &str) {
        let value = Value::ptr([name.as_bytes(), b"\0"].concat());
        let dict = Some(Dict::new().with(LINKTO, value));
        self.brick(at).fop(&self.ctx, Setxattr { gfid: self.gfid, flags: 0, dict, xdata: None }).await.unwrap();
    }

    async fn set_mode(&self, at: usize, mode: u32) {
        let stat = Iatt { mode, ..Iatt::default() };
        let setattr = Setattr { gfid: self.gfid, stat, valid: setattr_valid::MODE, xdata: None };
        self.brick(at).fop(&self.ctx, setattr).await.unwrap();
    }

    /// The target is there and the source marked: changes must go to both.
    async fn begin(&self, name: &str) {
        let linkto = Value::ptr(format!("v-client-{}\0", self.source).into_bytes());
        let xdata = Dict::new()
            .with(keys::GFID_REQ, Value::Gfid(self.gfid))
            .with(keys::INTERNAL_FOP, Value::str("yes"))
            .with(LINKTO, linkto);
        let mknod = Mknod {
            parent: self.dir,
            dev: 0,
            mode: 0o101_000,
            umask: 0,
            name: Bytes::from(name.to_owned()),
            xdata: Some(xdata),
        };
        self.brick(self.target()).fop(&self.ctx, mknod).await.unwrap();
        self.set_linkto(self.source, &format!("v-client-{}", self.target())).await;
        self.set_mode(self.source, 0o3644).await;
    }

    async fn copy(&self) {
        let read = Read { gfid: self.gfid, fd: Fd::ANONYMOUS, offset: 0, size: 1 << 20, flags: 0, xdata: None };
        let data = self.brick(self.source).fop(&self.ctx, read).await.unwrap().data;
        let write = Write { gfid: self.gfid, fd: Fd::ANONYMOUS, offset: 0, flags: 0, data, xdata: None };
        self.brick(self.target()).fop(&self.ctx, write).await.unwrap();
    }

    /// The source has become a link file, the target the file.
    async fn end(&self) {
        self.set_mode(self.target(), 0o644).await;
        self.set_mode(self.source, 0o1000).await;
        let truncate = Truncate { gfid: self.gfid, offset: 0, xdata: None };
        self.brick(self.source).fop(&self.ctx, truncate).await.unwrap();
        let name = Bytes::from_static(LINKTO.as_bytes());
        let remove = Removexattr { gfid: self.gfid, name, xdata: None };
        self.brick(self.target()).fop(&self.ctx, remove).await.unwrap();
    }

    async fn unlink_source(&self, name: &str) {
        let unlink = Unlink { parent: self.dir, name: Bytes::from(name.to_owned()), flags: 0, xdata: None };
        self.brick(self.source).fop(&self.ctx, unlink).await.unwrap();
    }
}

async fn start() -> Option<(Volume, Client, Mover, Fd)> {
    if !can_run() {
        return None;
    }
    let volume = Volume::new(2);
    let client = volume.client();
    let dir = client.mkdir(ROOT, "d").await.unwrap();
    let (gfid, fd) = client.create(dir, "f").await.unwrap();
    client.write((gfid, fd), 0, "0123456789").await.unwrap();
    // As a rebalance begins.
    client.layer.set_volume_commit(&client.ctx, 0x5000_0001).await.unwrap();
    let source = volume.where_is("d/f").0[0];
    let mover = Mover::new(&volume, dir, gfid, source);
    Some((volume, client, mover, fd))
}

#[tokio::test]
async fn writes_during_a_copy_go_to_both_and_marks_are_not_seen() {
    let Some((volume, client, mover, fd)) = start().await else { return };
    let file = (mover.gfid, fd);
    mover.begin("f").await;
    mover.copy().await;
    let written = client.write(file, 2, "XY").await.unwrap();
    assert_eq!(written.post.mode & 0o7777, 0o644);
    for brick in &volume.bricks {
        assert_eq!(std::fs::read(brick.root.join("d/f")).unwrap(), b"01XY456789");
    }
    assert_eq!(client.lookup(mover.dir, "f").await.unwrap().stat.mode & 0o7777, 0o644);
    client.setxattr(mover.gfid, "user.k", "v").await.unwrap();
    let truncate = Ftruncate { gfid: mover.gfid, fd, offset: 6, xdata: None };
    client.fop(truncate).await.unwrap();
    for brick in &volume.bricks {
        assert_eq!(std::fs::read(brick.root.join("d/f")).unwrap(), b"01XY45");
        assert_eq!(brick.xattr("d/f", "user.k").as_deref(), Some(&b"v"[..]));
    }
    // A change of mode neither ends the move nor is lost.
    client.chmod(mover.gfid, 0o600).await.unwrap();
    assert_eq!(volume.bricks[mover.source].mode("d/f"), Some(0o3600));
    assert_eq!(client.list(mover.dir).await, ["f"]);
}

#[tokio::test]
async fn an_open_file_is_followed_to_where_it_went() {
    let Some((volume, client, mover, fd)) = start().await else { return };
    let file = (mover.gfid, fd);
    mover.begin("f").await;
    mover.copy().await;
    mover.end().await;
    client.write(file, 10, "+").await.unwrap();
    assert_eq!(client.read(file).await.unwrap(), "0123456789+");
    assert_eq!(std::fs::read(volume.bricks[mover.target()].root.join("d/f")).unwrap(), b"0123456789+");
    mover.unlink_source("f").await;
    client.write(file, 11, "+").await.unwrap();
    assert_eq!(client.read((mover.gfid, Fd::ANONYMOUS)).await.unwrap(), "0123456789++");
    let other = volume.client();
    other.lookup(ROOT, "d").await.unwrap();
    client.fop(Fsync { gfid: mover.gfid, fd, datasync: 0, xdata: None }).await.unwrap();
    let opened = client.open(mover.gfid).await.unwrap();
    assert_eq!(client.read((mover.gfid, opened)).await.unwrap(), "0123456789++");
}

#[tokio::test]
async fn a_client_that_knows_the_old_place_finds_the_new_one() {
    let Some((volume, client, mover, fd)) = start().await else { return };
    client.release((mover.gfid, fd)).await;
    mover.begin("f").await;
    mover.copy().await;
    mover.end().await;
    mover.unlink_source("f").await;
    client.chmod(mover.gfid, 0o640).await.unwrap();
    assert_eq!(volume.bricks[mover.target()].mode("d/f"), Some(0o640));
    let fd = client.open(mover.gfid).await.unwrap();
    assert_eq!(client.read((mover.gfid, fd)).await.unwrap(), "0123456789");
    client.release((mover.gfid, fd)).await;
    client.unlink(mover.dir, "f").await.unwrap();
    assert_eq!(volume.where_is("d/f"), (vec![], vec![]));
}

#[tokio::test]
async fn unlink_by_a_client_that_knows_the_old_place_removes_the_file_not_the_pointer() {
    let Some((volume, client, mover, fd)) = start().await else { return };
    client.release((mover.gfid, fd)).await;
    mover.begin("f").await;
    mover.copy().await;
    mover.end().await;
    client.unlink(mover.dir, "f").await.unwrap();
    assert_eq!(volume.where_is("d/f"), (vec![], vec![]));
    assert!(client.lookup(mover.dir, "f").await.is_err());
}

#[tokio::test]
async fn a_file_of_a_link_file_s_mode_is_a_file() {
    let Some((_volume, client, mover, fd)) = start().await else { return };
    client.chmod(mover.gfid, 0o1000).await.unwrap();
    client.write((mover.gfid, fd), 0, "x").await.unwrap();
    assert_eq!(client.read((mover.gfid, fd)).await.unwrap(), "x123456789");
    assert_eq!(client.lookup(mover.dir, "f").await.unwrap().stat.mode & 0o7777, 0o1000);
    client.unlink(mover.dir, "f").await.unwrap();
}
