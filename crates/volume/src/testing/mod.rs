//! Bricks in memory, for tests of layers: a gfid tree with xattrs, xattrop, locks with contention notices, and faults.
//!
//! A [`Brick`] is the store; each client has its own [`Connection`] to it, because locks and upcalls belong to one.
//! Nothing here is for production: answers have the shape of a real brick's, not all of its checks.

mod answer;
mod compound;
mod connection;
mod locks;
mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use mortar_types::{ClientId, Errno, FopKind, Gfid, Request, Upcall};
use parking_lot::Mutex;

pub use connection::Connection;
use locks::Locks;
pub use store::Node;
use store::Store;

/// What a fault plan says to one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Go on.
    None,
    /// Refuse with this errno, doing nothing.
    Fail(Errno),
    /// The brick dies before it does anything.
    Die,
    /// The brick does it and dies before it answers.
    DieAfter,
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Call {
    pub client: ClientId,
    pub request: Request,
}

type Plan = Box<dyn FnMut(&Call) -> Fault + Send>;
type Delay = Box<dyn FnMut() -> std::time::Duration + Send>;

/// A brick: one copy of the tree.
pub struct Brick {
    name: String,
    state: Mutex<State>,
    next_client: AtomicU64,
}

struct State {
    up: bool,
    /// Takes the keys of compounds.
    compounds: bool,
    store: Store,
    locks: Locks,
    connections: Vec<Arc<Connection>>,
    log: Vec<Call>,
    plan: Option<Plan>,
    delay: Option<Delay>,
}

impl Brick {
    /// An empty brick that is up. `name` is what its connections are called (`v-client-0`).
    pub fn new(name: impl Into<String>) -> Arc<Self> {
        let state = State {
            up: true,
            compounds: false,
            store: Store::new(),
            locks: Locks::default(),
            connections: Vec::new(),
            log: Vec::new(),
            plan: None,
            delay: None,
        };
        Arc::new(Self { name: name.into(), state: Mutex::new(state), next_client: AtomicU64::new(1) })
    }

    /// A connection of a new client.
    pub fn connect(self: &Arc<Self>) -> Arc<Connection> {
        let client = ClientId(self.next_client.fetch_add(1, Ordering::Relaxed));
        let connection = Connection::new(Arc::clone(self), client);
        self.state.lock().connections.push(Arc::clone(&connection));
        connection
    }

    /// Stops or starts it. Stopping drops all locks; calls under way and later ones fail with ENOTCONN.
    pub fn set_up(&self, up: bool) {
        let connections = {
            let mut state = self.state.lock();
            if state.up == up {
                return;
            }
            state.up = up;
            if !up {
                state.locks = Locks::default();
            }
            state.connections.clone()
        };
        for connection in connections {
            connection.tell(if up { Upcall::Up } else { Upcall::Down });
        }
    }

    /// Makes it take compounds, as our own bricks do, or not, as GlusterFS's.
    pub fn set_compounds(&self, takes: bool) {
        self.state.lock().compounds = takes;
    }

    /// Loses what was not synced, as a power cut does to file contents.
    pub fn lose_unsynced(&self) {
        self.state.lock().store.lose_unsynced();
    }

    /// Asks `plan` about every request from now on.
    pub fn set_plan(&self, plan: impl FnMut(&Call) -> Fault + Send + 'static) {
        self.state.lock().plan = Some(Box::new(plan));
    }

    pub fn clear_plan(&self) {
        self.state.lock().plan = None;
    }

    /// Every request waits so long before it is looked at; without, it is answered at once.
    pub fn set_delay(&self, delay: impl FnMut() -> std::time::Duration + Send + 'static) {
        self.state.lock().delay = Some(Box::new(delay));
    }

    /// The requests since the last call.
    pub fn take_log(&self) -> Vec<Call> {
        std::mem::take(&mut self.state.lock().log)
    }

    /// The kinds of the requests since the last call.
    pub fn take_kinds(&self) -> Vec<FopKind> {
        self.take_log().iter().map(|call| call.request.kind()).collect()
    }

    /// A copy of an inode.
    pub fn node(&self, gfid: Gfid) -> Option<Node> {
        self.state.lock().store.node(gfid).cloned()
    }

    /// The inode at a path of names from the root.
    pub fn at(&self, path: &[&str]) -> Option<Node> {
        let state = self.state.lock();
        let mut node = state.store.node(Gfid::ROOT)?;
        for name in path {
            let gfid = node.entries.get(name.as_bytes())?;
            node = state.store.node(*gfid)?;
        }
        Some(node.clone())
    }

    /// A 12-byte counter value in hex words as `getfattr -e hex` users write them; `None` when the key is not there.
    pub fn counter(&self, path: &[&str], key: &str) -> Option<String> {
        let value = self.at(path)?.xattrs.get(key)?.clone();
        let words: Vec<String> =
            value.chunks(4).map(|word| word.iter().map(|byte| format!("{byte:02x}")).collect::<String>()).collect();
        Some(words.join(" "))
    }

    /// Sets an xattr behind everybody's back.
    pub fn plant_xattr(&self, gfid: Gfid, key: &str, value: impl Into<Bytes>) {
        if let Some(node) = self.state.lock().store.node_mut(gfid) {
            node.xattrs.insert(key.to_owned(), value.into());
        }
    }

    /// How many locks are held or waited for, over all inodes.
    pub fn locks_count(&self) -> usize {
        self.state.lock().locks.count_all()
    }

    /// Names in the index of a directory's changes (`indices/entry-changes`).
    pub fn indexed_names(&self, gfid: Gfid) -> Vec<Bytes> {
        self.state.lock().store.indexed_names(gfid)
    }
}
