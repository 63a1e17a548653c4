//! Our client's stack against bricks, glusterd and volfiles of Debian's GlusterFS, in hosts of their own.
//!
//! The test builds the hosts and runs itself again inside the client host, for one session after the other.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mortar_rpc::Endpoint;
use mortar_testkit::lab::{Host, Lab, Options};
use mortar_testkit::needs::{self, LAB, Need};
use mortar_testkit::wait;
use mortar_types::fop::{
    Create, Fd, Flush, Fsync, Getxattr, Lookup, Mkdir, Open, Opendir, Read, Readdirp, Release, Releasedir, Rename,
    Rmdir, Setxattr, Stat, Unlink, Write,
};
use mortar_types::{Context, Dict, Errno, Fops, Gfid, Value, keys};
use mortar_volume::client::State;
use mortar_volume::getspec::{Options as GetspecOptions, VolfileServer};
use mortar_volume::graph::{Graph, GraphOptions};
use mortar_wire::volfile::Volfile;

/// Set for the run inside the client host: the volume to work on.
const INSIDE: &str = "MORTAR_TEST_SESSION";

#[test]
fn a_session_on_real_bricks() {
    if let Ok(volume) = std::env::var(INSIDE) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(session(&volume));
        return;
    }
    let mut needed = LAB.to_vec();
    needed.push(Need::Program("glusterd", "glusterfs-server"));
    if !needs::met("a_session_on_real_bricks", &needed) {
        return;
    }
    let lab = Lab::start(&Options::howto(2, None)).unwrap();
    start_volumes(&lab);
    for volume in ["one", "imap0"] {
        run_inside(lab.host("kolab"), volume);
    }
}

fn start_volumes(lab: &Lab) {
    for name in ["gfs1", "gfs2"] {
        lab.host(name).ok("glusterd").unwrap();
    }
    let gfs1 = lab.host("gfs1");
    let ready = || gfs1.ok("gluster pool list").is_ok();
    assert!(wait::until(Duration::from_secs(20), ready), "glusterd does not come up");
    gfs1.ok("gluster peer probe gfs2").unwrap();
    let connected = || gfs1.ok("gluster peer status").is_ok_and(|text| text.contains("Peer in Cluster (Connected)"));
    assert!(wait::until(Duration::from_secs(20), connected), "gfs2 does not join");
    gfs1.ok("gluster volume create one gfs1:/srv/gfs/one").unwrap();
    gfs1.ok("gluster --mode=script volume create imap0 replica 2 gfs1:/srv/gfs/brick gfs2:/srv/gfs/brick force")
        .unwrap();
    for volume in ["one", "imap0"] {
        gfs1.ok(&format!("gluster volume start {volume}")).unwrap();
    }
}

/// Runs this test again in the host, and shows what it printed.
fn run_inside(host: &Host, volume: &str) {
    let mut command = host.command(std::env::current_exe().unwrap().to_str().unwrap());
    command.args(["--exact", "a_session_on_real_bricks", "--nocapture"]).env(INSIDE, volume);
    let output = command.output().unwrap();
    println!("--- {volume}\n{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn connect(volume: &str) -> (VolfileServer, Graph) {
    // The first name does not resolve: the second is tried.
    let servers = ["nobody.invalid", "gfs1"].map(|host| Endpoint::Host { host: host.to_owned(), port: 24007 });
    let server = VolfileServer::connect(GetspecOptions::new(servers.to_vec(), format!("/{volume}"))).await.unwrap();
    let text = server.volfile().borrow().clone();
    let volfile = Volfile::parse(&text).unwrap();
    println!("volfile: {} bytes, {} layers", text.len(), volfile.volumes.len());
    let graph = Graph::build(&volfile, GraphOptions::new("fuse", format!("/{volume}"))).unwrap();
    graph.wait_up(Duration::from_secs(10)).await.unwrap();
    println!("up: {} of {} bricks", graph.bricks().iter().filter(|brick| brick.is_up()).count(), graph.bricks().len());
    (server, graph)
}

fn with_gfid(gfid: Gfid) -> Option<Dict> {
    Some(Dict::new().with(keys::GFID_REQ, Value::Gfid(gfid)))
}

/// A small program's life on a mount.
async fn session(volume: &str) {
    let (_server, graph) = connect(volume).await;
    let (top, ctx): (Arc<dyn Fops>, _) = (Arc::clone(&graph.top), Context { uid: 0, ..Context::default() });
    let xdata = || Some(Dict::new());

    let root = Lookup { gfid: Gfid::ROOT, parent: Gfid::NULL, flags: 0, name: Bytes::new(), xdata: xdata() };
    let root = top.fop(&ctx, root).await.unwrap().stat;
    println!("root: gfid {} mode {:o}", root.gfid, root.mode);
    assert_eq!((root.gfid, root.is_dir()), (Gfid::ROOT, true));

    let dir = Gfid::random();
    let mkdir =
        Mkdir { parent: Gfid::ROOT, mode: 0o755, umask: 0, name: Bytes::from_static(b"mail"), xdata: with_gfid(dir) };
    let made = top.fop(&ctx, mkdir).await.unwrap();
    assert_eq!(made.stat.gfid, dir);

    let file = Gfid::random();
    let create = Create {
        parent: dir,
        flags: 0o2,
        mode: 0o100_644,
        umask: 0,
        name: Bytes::from_static(b"1."),
        xdata: with_gfid(file),
    };
    let created = top.fop(&ctx, create).await.unwrap();
    println!("create: fd {} gfid {}", created.fd.0, created.stat.gfid);
    assert_eq!(created.stat.gfid, file);
    let fd = created.fd;

    let data: Bytes = (0..300_000u32).map(|at| (at % 251) as u8).collect();
    let write = Write { gfid: file, fd, offset: 0, flags: 2, data: data.clone(), xdata: xdata() };
    let written = top.fop(&ctx, write).await.unwrap();
    println!("write: {} bytes, size now {}", written.written, written.post.size);
    assert_eq!(written.written, 300_000);
    top.fop(&ctx, Fsync { gfid: file, fd, datasync: 0, xdata: None }).await.unwrap();
    assert_eq!(read(&top, &ctx, file, fd).await, data);
    println!("read: the same bytes");

    let stat = top.fop(&ctx, Stat { gfid: file, xdata: None }).await.unwrap().stat;
    assert_eq!(stat.size, 300_000);
    // The client's clock is in the times: the layer above the bricks stamped them.
    assert!(stat.mtime.sec > 1_700_000_000 && stat.mtime == stat.ctime, "{stat:?}");

    let set = Dict::new().with("user.seen", Value::ptr(&b"yes"[..]));
    top.fop(&ctx, Setxattr { gfid: file, flags: 0, dict: Some(set), xdata: None }).await.unwrap();
    let get = Getxattr { gfid: file, name: Some(Bytes::from_static(b"user.seen")), xdata: None };
    let value = top.fop(&ctx, get).await.unwrap().dict.unwrap();
    assert_eq!(value.get_bytes("user.seen").unwrap(), &b"yes"[..]);
    let list = top.fop(&ctx, Getxattr { gfid: dir, name: None, xdata: None }).await.unwrap().dict.unwrap();
    assert!(!list.contains(keys::XATTR_DHT), "{list:?}");

    let rename = Rename {
        old_parent: dir,
        new_parent: dir,
        old_name: Bytes::from_static(b"1."),
        new_name: Bytes::from_static(b"2."),
        xdata: None,
    };
    top.fop(&ctx, rename).await.unwrap();
    println!("readdirp: {:?}", list_names(&top, &ctx, dir).await);
    assert_eq!(list_names(&top, &ctx, dir).await, ["2."]);

    break_connections(&graph, &top, &ctx, file, fd, &data).await;

    top.fop(&ctx, Flush { gfid: file, fd, xdata: None }).await.unwrap();
    top.fop(&ctx, Release { gfid: file, fd, xdata: None }).await.unwrap();
    top.fop(&ctx, Unlink { parent: dir, name: Bytes::from_static(b"2."), flags: 0, xdata: None }).await.unwrap();
    let gone = top.fop(&ctx, Stat { gfid: file, xdata: None }).await.unwrap_err();
    println!("stat after unlink: {gone}");
    assert!([Errno::ENOENT, Errno::ESTALE].contains(&gone.errno));
    top.fop(&ctx, Rmdir { parent: Gfid::ROOT, flags: 0, name: Bytes::from_static(b"mail"), xdata: None })
        .await
        .unwrap();
    for set in graph.replica_sets() {
        set.layer.quiesce().await;
    }
}

async fn read(top: &Arc<dyn Fops>, ctx: &Context, gfid: Gfid, fd: Fd) -> Bytes {
    let read = Read { gfid, fd, offset: 0, size: 1 << 20, flags: 2, xdata: None };
    top.fop(ctx, read).await.unwrap().data
}

async fn list_names(top: &Arc<dyn Fops>, ctx: &Context, gfid: Gfid) -> Vec<String> {
    let fd = top.fop(ctx, Opendir { gfid, xdata: None }).await.unwrap().fd;
    let listing = Readdirp { gfid, fd, offset: 0, size: 131_072, xdata: Some(Dict::new()) };
    let entries = top.fop(ctx, listing).await.unwrap().entries;
    top.fop(ctx, Releasedir { gfid, fd, xdata: None }).await.unwrap();
    let names = entries.iter().map(|entry| String::from_utf8_lossy(&entry.entry.name).into_owned());
    names.filter(|name| name != "." && name != "..").collect()
}

/// Every brick connection is made anew; the open file goes on.
async fn break_connections(graph: &Graph, top: &Arc<dyn Fops>, ctx: &Context, gfid: Gfid, fd: Fd, data: &Bytes) {
    let other = top.fop(ctx, Open { gfid, flags: 0, xdata: None }).await.unwrap().fd;
    for brick in graph.bricks() {
        brick.reconnect();
    }
    for brick in graph.bricks() {
        let mut state = brick.state();
        let up = state.wait_for(|state| *state == State::Up);
        tokio::time::timeout(Duration::from_secs(10), up).await.expect("it comes back").unwrap();
    }
    assert_eq!(read(top, ctx, gfid, other).await, data);
    let write = Write { gfid, fd, offset: 300_000, flags: 2, data: Bytes::from_static(b"!"), xdata: None };
    let written = top.fop(ctx, write).await.unwrap();
    println!("after reconnecting: write {} byte, size now {}", written.written, written.post.size);
    top.fop(ctx, Release { gfid, fd: other, xdata: None }).await.unwrap();
}
