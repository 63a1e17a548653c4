//! One client's way to a brick of this process: it can be cut, be cut after so many fops, and tells what went over it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use async_trait::async_trait;
use mortar_brick::locks::Locks;
use mortar_brick::store::{Store, StoreOptions};
use mortar_types::fop::StatfsReply;
use mortar_types::{
    ClientId, Context, Errno, FopKind, Fops, Gfid, Outcome, Reply, Request, Statvfs, Upcall, UpcallSink,
};
use parking_lot::Mutex;

static CLIENTS: AtomicU64 = AtomicU64::new(1);

/// What STATFS answers instead of the truth.
pub(crate) type PretendedSpace = Arc<Mutex<Option<Statvfs>>>;

/// The layers of a brick process over the directory `root`, of the node numbered `at`.
pub(crate) fn locks_over(root: &std::path::Path, at: usize, volume_id: Gfid) -> Arc<Locks> {
    let mut options = StoreOptions::new(root, volume_id);
    options.node_uuid = Some(Gfid([at as u8 + 1; 16]));
    options.health_check_interval = std::time::Duration::ZERO;
    options.landfill_purge_interval = None;
    let store = Store::open(options).unwrap();
    Locks::new(store, format!("host:{}", root.display()), &mortar_logic::locks::Config::default())
}

/// A directory that is to be an empty brick of `volume_id`.
pub(crate) fn empty_brick(volume_id: Gfid) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("brick");
    std::fs::create_dir(&root).unwrap();
    // Not by umask: a store in another test's thread clears it for the whole process.
    std::fs::set_permissions(&root, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::lsetxattr(&root, "trusted.glusterfs.volume-id", &volume_id.0, flags).unwrap();
    (dir, root)
}

pub(crate) struct Connection {
    name: String,
    locks: Arc<Locks>,
    space: PretendedSpace,
    client: ClientId,
    up: AtomicBool,
    /// After so many more fops the connection is cut.
    fops_left: AtomicI64,
    sink: Mutex<Option<Arc<dyn UpcallSink>>>,
    log: Mutex<Vec<FopKind>>,
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
    pub(crate) fn new(name: &str, locks: &Arc<Locks>, space: &PretendedSpace) -> Arc<Self> {
        let client = ClientId(CLIENTS.fetch_add(1, Ordering::Relaxed));
        let connection = Arc::new(Self {
            name: name.to_owned(),
            locks: Arc::clone(locks),
            space: Arc::clone(space),
            client,
            up: AtomicBool::new(true),
            fops_left: AtomicI64::new(i64::MAX),
            sink: Mutex::new(None),
            log: Mutex::new(Vec::new()),
        });
        locks.connect(client, 100_000, Arc::new(Relay(Arc::downgrade(&connection))));
        connection
    }

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

    /// The fops that went over it since the last time.
    pub(crate) fn take_log(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.log.lock()).into_iter().map(FopKind::label).collect()
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
        self.log.lock().push(request.kind());
        if let (Request::Statfs(_), Some(statfs)) = (&request, *self.space.lock()) {
            return Ok(StatfsReply { statfs, xdata: None }.into());
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
        &self.name
    }
}
