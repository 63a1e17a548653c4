//! Bricks in temporary directories behind sockets, and volfiles over them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use mortar_brick::locks::Locks;
use mortar_brick::options::BrickOptions;
use mortar_brick::server::{Brick, BrickService, Stack};
use mortar_brick::store::{Store, initialise};
use mortar_brick::upcall::CacheInvalidation;
use mortar_rpc::server::{Listener, Options as RpcOptions, Server};
use mortar_types::fop::{Create, CreateReply, Fd, Read, Write};
use mortar_types::{Context, Dict, Fops, Gfid, Outcome, Value, keys};
use mortar_volume::graph::{Graph, GraphOptions};
use mortar_volume::switch::{Limits, Switch, Taken};
use mortar_wire::volfile::{Volfile, VolfileVolume};

const VOLUME_ID: &str = "b7857191-63b2-4d58-baa1-ab87bf78b7dc";

/// A running brick.
pub(crate) struct Local {
    directory: tempfile::TempDir,
    address: SocketAddr,
    pub(crate) brick: Arc<Brick>,
    _server: Server,
}

impl Local {
    /// `None`, with the reason printed, where bricks cannot be.
    pub(crate) fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        if let Err(error) = initialise(directory.path(), VOLUME_ID.parse().unwrap()) {
            mortar_testkit::needs::skip(&format!("no brick can be made in {}: {error}", directory.path().display()));
            return None;
        }
        let name = directory.path().display().to_string();
        let layer = |name: &str, kind, below: &str| VolfileVolume::new(name, kind).with_subvolumes([below.to_owned()]);
        let posix = VolfileVolume::new("t-posix", "storage/posix")
            .with_option("directory", name.clone())
            .with_option("volume-id", VOLUME_ID)
            .with_option("health-check-interval", 0);
        let server = layer("t-server", "protocol/server", &name).with_option(format!("auth.addr.{name}.allow"), "*");
        let volumes = vec![
            posix,
            layer("t-locks", "features/locks", "t-posix"),
            layer("t-upcall", "features/upcall", "t-locks"),
            layer(&name, "debug/io-stats", "t-upcall"),
            server,
        ];
        let options = BrickOptions::from_volfile(&Volfile { volumes }, Some(Gfid([3; 16]))).unwrap();
        let store: Arc<dyn Fops> = Store::open(options.store.clone()).unwrap();
        let locks = Locks::new(store, "host:/brick".to_owned(), &options.locks);
        let upcall = CacheInvalidation::new(Arc::clone(&locks) as Arc<dyn Fops>, options.upcall);
        let stack = Stack { top: Arc::clone(&upcall) as Arc<dyn Fops>, locks, upcall };
        let brick = Brick::new(options.name, options.store.volume_id, stack, options.server);
        let listener = Listener::bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_address().unwrap();
        let service = Arc::new(BrickService(Arc::clone(&brick)));
        Some(Self { directory, address, brick, _server: listener.serve(service, RpcOptions::default()) })
    }

    /// So many, or none where they cannot be.
    pub(crate) fn several<const N: usize>() -> Option<[Self; N]> {
        let bricks: Option<Vec<Self>> = (0..N).map(|_| Self::start()).collect();
        bricks?.try_into().ok()
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// As the daemon does before a client hears of a brick that joins a replica set: everything on it is missing.
    pub(crate) fn accuse(&self, key: &str) {
        let mut counters = [0; 12];
        (counters[7], counters[11]) = (1, 1);
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::lsetxattr(self.path(), format!("trusted.afr.{key}"), &counters, flags).unwrap();
    }
}

/// A volfile over `bricks`: replicated when they are several; `layers`: options of what is above.
pub(crate) fn volfile(bricks: &[&Local], layers: &[(&str, &str, &str)]) -> Volfile {
    let mut volumes: Vec<VolfileVolume> = bricks
        .iter()
        .enumerate()
        .map(|(at, brick)| {
            VolfileVolume::new(format!("v-client-{at}"), "protocol/client")
                .with_option("remote-host", "127.0.0.1")
                .with_option("remote-port", brick.address.port())
                .with_option("remote-subvolume", brick.path().display())
        })
        .collect();
    let clients: Vec<String> = volumes.iter().map(|volume| volume.name.clone()).collect();
    let mut top = clients[0].clone();
    if bricks.len() > 1 {
        // Keys by brick, as glusterd's brick ids: a replaced brick gets another.
        let keys: Vec<String> = bricks.iter().map(|brick| key(brick)).collect();
        top = "v-replicate-0".to_owned();
        volumes.push(
            VolfileVolume::new(top.clone(), "cluster/replicate")
                .with_option("afr-pending-xattr", keys.join(","))
                .with_option("volume-id", VOLUME_ID)
                .with_option("quorum-type", "none")
                .with_subvolumes(clients),
        );
    }
    for (name, kind) in
        [("v-dht", "cluster/distribute"), ("v-utime", "features/utime"), ("v-quick-read", "performance/quick-read")]
    {
        volumes.push(VolfileVolume::new(name, kind).with_subvolumes([top]));
        top = name.to_owned();
    }
    volumes.push(VolfileVolume::new("v-open-behind", "performance/open-behind").with_subvolumes([top]));
    for (kind, option, value) in layers {
        match volumes.iter_mut().find(|volume| volume.kind == *kind) {
            Some(volume) => volume.options.push(((*option).to_owned(), (*value).to_owned())),
            None => {
                let below = volumes.last().unwrap().name.clone();
                let volume = VolfileVolume::new("v-more", *kind).with_subvolumes([below]);
                volumes.push(volume.with_option(*option, *value));
            }
        }
    }
    Volfile { volumes }
}

pub(crate) fn key(brick: &Local) -> String {
    format!("v-{}", brick.address.port())
}

/// A client of a volume.
pub(crate) struct Client {
    pub(crate) switch: Arc<Switch>,
    pub(crate) top: Arc<dyn Fops>,
}

impl Client {
    pub(crate) async fn new(volfile: &Volfile) -> Self {
        let graph = Graph::build(volfile, GraphOptions::new("fuse", "/v")).unwrap();
        graph.wait_up(std::time::Duration::from_secs(30)).await.unwrap();
        let limits = Limits { drain: std::time::Duration::from_secs(60), ..Limits::default() };
        let switch = Switch::new(graph, limits);
        Self { top: Arc::clone(&switch) as Arc<dyn Fops>, switch }
    }

    pub(crate) async fn take(&self, volfile: &Volfile) {
        assert_eq!(self.switch.take(volfile).await.unwrap(), Taken::Changed);
    }

    pub(crate) async fn create(&self, name: &str) -> CreateReply {
        let xdata = Some(Dict::new().with(keys::GFID_REQ, Value::Gfid(Gfid::random())));
        let name = Bytes::copy_from_slice(name.as_bytes());
        let create = Create { parent: Gfid::ROOT, flags: 0o102, mode: 0o644, umask: 0, name, xdata };
        self.top.fop(&Context::default(), create).await.unwrap()
    }

    pub(crate) async fn write(&self, gfid: Gfid, fd: Fd, offset: u64, data: &[u8]) -> Outcome<()> {
        let data = Bytes::copy_from_slice(data);
        let write = Write { gfid, fd, offset, flags: 0, data, xdata: None };
        self.top.fop(&Context::default(), write).await.map(drop)
    }

    pub(crate) async fn read(&self, gfid: Gfid, fd: Fd) -> Outcome<Bytes> {
        let read = Read { gfid, fd, offset: 0, size: 1 << 17, flags: 0, xdata: None };
        self.top.fop(&Context::default(), read).await.map(|reply| reply.data)
    }
}
