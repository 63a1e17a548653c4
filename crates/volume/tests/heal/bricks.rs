//! Real bricks in temporary directories, and connections to them that can be cut and can fail.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mortar_brick::locks::Locks;
use mortar_logic::heal::Resolve;
use mortar_logic::heal::blocks::Algorithm;
use mortar_logic::replicate::changelog::Keys;
use mortar_types::{Fops, Gfid, SubvolId};
use mortar_volume::heal::ReplicaSet;
use mortar_volume::replicate::{self, Replicate};
use mortar_volume::utime::Utime;

use crate::connection::{Connection, PretendedSpace, empty_brick, locks_over};

pub(crate) const VOLUME_ID: Gfid =
    Gfid([0x4e, 0x63, 0xd1, 0xed, 0x60, 0x9e, 0x42, 0x5d, 0xaa, 0xec, 0xf6, 0x8c, 0xff, 0x7c, 0x60, 0x74]);

/// A store with locks, as a brick process has them.
pub(crate) struct Brick {
    pub(crate) root: PathBuf,
    locks: Arc<Locks>,
    _dir: Option<tempfile::TempDir>,
}

impl Brick {
    /// An empty brick.
    pub(crate) fn new(at: usize) -> Self {
        let (dir, root) = empty_brick(VOLUME_ID);
        Self { _dir: Some(dir), ..Self::open(&root, at, VOLUME_ID) }
    }

    /// A directory that is a brick already.
    pub(crate) fn open(root: &Path, at: usize, volume_id: Gfid) -> Self {
        Self { root: root.to_owned(), locks: locks_over(root, at, volume_id), _dir: None }
    }

    pub(crate) fn connect(&self) -> Arc<Connection> {
        Connection::new("connection", &self.locks, &PretendedSpace::default())
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
