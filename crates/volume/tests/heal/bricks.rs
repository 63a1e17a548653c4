//! Real bricks in temporary directories, and connections to them that can be cut and can fail.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use async_trait::async_trait;
use mortar_brick::locks::Locks;
use mortar_brick::store::{Store, StoreOptions};
use mortar_logic::heal::Resolve;
use mortar_logic::heal::blocks::Algorithm;
use mortar_logic::replicate::changelog::Keys;
use mortar_types::{ClientId, Context, Errno, Fops, Gfid, Outcome, Reply, Request, SubvolId, Upcall, UpcallSink};
use mortar_volume::heal::ReplicaSet;
use mortar_volume::replicate::{self, Replicate};
use mortar_volume::utime::Utime;
use parking_lot::Mutex;

pub(crate) const VOLUME_ID: Gfid =
    Gfid([0x4e, 0x63, 0xd1, 0xed, 0x60, 0x9e, 0x42, 0x5d, 0xaa, 0xec, 0xf6, 0x8c, 0xff, 0x7c, 0x60, 0x74]);

/// A store with locks, as a brick process has them.
pub(crate) struct Brick {
    pub(crate) root: PathBuf,
    locks: Arc<Locks>,
    _dir: Option<tempfile::TempDir>,
}

static CLIENTS: AtomicU64 = AtomicU64::new(1);

impl Brick {
    /// An empty brick.
    pub(crate) fn new(at: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("brick");
        std::fs::create_dir(&root).unwrap();
        // Not by umask: a store in another test's thread clears it for the whole process.
        std::fs::set_permissions(&root, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        set_xattr(&root, "trusted.glusterfs.volume-id", &VOLUME_ID.0);
        let mut brick = Self::open(&root, at, VOLUME_ID);
        brick._dir = Some(dir);
        brick
    }

    /// A directory that is a brick already.
    pub(crate) fn open(root: &Path, at: usize, volume_id: Gfid) -> Self {
        let mut options = StoreOptions::new(root, volume_id);
        options.node_uuid = Some(Gfid([at as u8 + 1; 16]));
        options.health_check_interval = std::time::Duration::ZERO;
        options.landfill_purge_interval = None;
        let store = Store::open(options).unwrap();
        let locks = Locks::new(store, format!("host:{}", root.display()), &mortar_logic::locks::Config::default());
        Self { root: root.to_owned(), locks, _dir: None }
    }

    pub(crate) fn connect(&self) -> Arc<Connection> {
        let client = ClientId(CLIENTS.fetch_add(1, Ordering::Relaxed));
        let connection = Arc::new(Connection {
            locks: Arc::clone(&self.locks),
            client,
            up: AtomicBool::new(true),
            fops_left: AtomicI64::new(i64::MAX),
            sink: Mutex::new(None),
        });
        self.locks.connect(client, 100_000, Arc::new(Relay(Arc::downgrade(&connection))));
        connection
    }
}

/// One client's way to one brick.
pub(crate) struct Connection {
    locks: Arc<Locks>,
    client: ClientId,
    up: AtomicBool,
    /// After so many more fops the connection is cut.
    fops_left: AtomicI64,
    sink: Mutex<Option<Arc<dyn UpcallSink>>>,
}

struct Relay(std::sync::Weak<Connection>);

impl UpcallSink for Relay {
    fn upcall(&self, upcall: Upcall) {
        if let Some(connection) = self.0.upgrade() {
            connection.tell(upcall);
        }
    }
}

impl Connection {
    pub(crate) fn cut(&self) {
        if self.up.swap(false, Ordering::SeqCst) {
            self.locks.disconnect(self.client);
            self.tell(Upcall::Down);
        }
    }

    pub(crate) fn mend(self: &Arc<Self>) {
        self.fops_left.store(i64::MAX, Ordering::SeqCst);
        if !self.up.swap(true, Ordering::SeqCst) {
            self.locks.connect(self.client, 100_000, Arc::new(Relay(Arc::downgrade(self))));
            self.tell(Upcall::Up);
        }
    }

    pub(crate) fn cut_after(&self, fops: i64) {
        self.fops_left.store(fops, Ordering::SeqCst);
    }

    fn tell(&self, upcall: Upcall) {
        let sink = self.sink.lock().clone();
        if let Some(sink) = sink {
            sink.upcall(upcall);
        }
    }
}

#[async_trait]
impl Fops for Connection {
    async fn call(&self, ctx: &Context, request: Request) -> Outcome<Reply> {
        if self.fops_left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            self.cut();
        }
        if !self.up.load(Ordering::SeqCst) {
            return Err(Errno::ENOTCONN.into());
        }
        let ctx = Context { client: self.client, ..ctx.clone() };
        self.locks.call(&ctx, request).await
    }

    fn subscribe(&self, sink: Arc<dyn UpcallSink>) {
        *self.sink.lock() = Some(sink);
    }

    fn is_up(&self) -> bool {
        self.up.load(Ordering::SeqCst)
    }

    fn name(&self) -> &str {
        "connection"
    }
}

/// A replica set of empty bricks, one client on it, and a healer's own connections.
pub(crate) struct Cluster {
    pub(crate) bricks: Vec<Brick>,
    pub(crate) client: Client,
    pub(crate) healer: Vec<Arc<Connection>>,
    /// The children without content are the last so many.
    pub(crate) arbiters: usize,
    volume: String,
    volume_id: Gfid,
}

/// A client's stack over its own connections.
pub(crate) struct Client {
    pub(crate) connections: Vec<Arc<Connection>>,
    pub(crate) replicate: Arc<Replicate>,
    pub(crate) top: Arc<dyn Fops>,
}

impl Cluster {
    pub(crate) fn new(count: usize) -> Self {
        Self::over("v", VOLUME_ID, (0..count).map(Brick::new).collect())
    }

    pub(crate) fn over(volume: &str, volume_id: Gfid, bricks: Vec<Brick>) -> Self {
        let client = Client::new(volume, &bricks);
        let healer = bricks.iter().map(Brick::connect).collect();
        Self { bricks, client, healer, arbiters: 0, volume: volume.to_owned(), volume_id }
    }

    pub(crate) fn another_client(&self) -> Client {
        Client::new(&self.volume, &self.bricks)
    }

    /// What a heal works on, over the healer's connections.
    pub(crate) fn set(&self) -> ReplicaSet {
        self.set_over(&self.healer)
    }

    pub(crate) fn set_over(&self, connections: &[Arc<Connection>]) -> ReplicaSet {
        let children: Vec<Arc<dyn Fops>> =
            connections.iter().map(|connection| Arc::clone(connection) as Arc<dyn Fops>).collect();
        ReplicaSet {
            name: format!("{}-replicate-0", self.volume),
            keys: Keys::new(brick_ids(&self.volume, self.bricks.len())),
            children: children.into(),
            volume_id: self.volume_id.0,
            arbiter: (self.arbiters > 0).then(|| SubvolId(self.bricks.len() - 1)),
            quorum: (self.bricks.len() > 2).then(|| self.bricks.len() / 2 + 1),
            granular: true,
            algorithm: Algorithm::Auto,
            policy: Resolve::Leave,
        }
    }

    /// Takes one brick away from the client.
    pub(crate) fn down(&self, brick: usize) {
        self.client.connections[brick].cut();
    }

    pub(crate) fn up(&self, brick: usize) {
        self.client.connections[brick].mend();
    }
}

impl Client {
    fn new(volume: &str, bricks: &[Brick]) -> Self {
        let connections: Vec<_> = bricks.iter().map(Brick::connect).collect();
        let children = connections.iter().map(|connection| Arc::clone(connection) as Arc<dyn Fops>).collect();
        let mut options = replicate::Options::new(format!("{volume}-replicate-0"), brick_ids(volume, bricks.len()));
        options.granular_entry_heal = true;
        let replicate = Replicate::new(options, children);
        let top = Utime::new(format!("{volume}-utime"), Arc::clone(&replicate) as Arc<dyn Fops>);
        Self { connections, replicate, top }
    }
}

fn brick_ids(volume: &str, count: usize) -> Vec<String> {
    (0..count).map(|at| format!("{volume}-client-{at}")).collect()
}

pub(crate) fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
}
