//! The brick's RPC side: handshake, fd numbers, and fops passed to the stack of layers below.
//!
//! One [`Brick`] per process, one session per connection. A connection serves only DUMP, PING and the handshake until
//! SETVOLUME has succeeded. Edge answers follow a real 10.3 brick (`docs/compat.md`).

mod fds;
mod handshake;
mod session;
mod sink;
mod squash;
mod subdir;
mod translate;

use std::collections::HashMap;
use std::sync::Arc;

use mortar_api::volume::BrickClient;
use mortar_rpc::server::{Connection, Service, Session};
use mortar_types::{ClientId, Fops, Gfid};
use parking_lot::{Mutex, RwLock};

use crate::locks::Locks;
use crate::options::ServerOptions;
use crate::upcall::CacheInvalidation;

use session::ClientSession;
pub use squash::{Squash, SquashWho};

/// The layers below the server. `top` is what fops are given to; the others also need to know of clients.
#[derive(Clone)]
pub struct Stack {
    pub top: Arc<dyn Fops>,
    pub locks: Arc<Locks>,
    pub upcall: Arc<CacheInvalidation>,
}

/// What all connections share.
pub struct Brick {
    /// What clients call the brick (`remote-subvolume`).
    name: String,
    volume_id: Gfid,
    /// Identifies this process to clients.
    process_uuid: String,
    stack: Stack,
    options: RwLock<Arc<ServerOptions>>,
    sessions: Mutex<HashMap<ClientId, Arc<ClientSession>>>,
}

impl Brick {
    pub fn new(name: String, volume_id: Gfid, stack: Stack, options: ServerOptions) -> Arc<Self> {
        Arc::new(Self {
            name,
            volume_id,
            process_uuid: Gfid::random().to_string(),
            stack,
            options: RwLock::new(Arc::new(options)),
            sessions: Mutex::new(HashMap::new()),
        })
    }

    /// Takes changed options. Clients that the new rules refuse are disconnected (`server.dynamic-auth`).
    pub async fn reconfigure(&self, options: ServerOptions) {
        *self.options.write() = Arc::new(options);
        let options = self.options();
        let resolved = handshake::resolve(&options.auth).await;
        for session in self.sessions() {
            session.judge_again(&options.auth, &resolved);
        }
    }

    /// The connected clients, oldest first.
    pub fn clients(&self) -> Vec<BrickClient> {
        let mut sessions = self.sessions();
        sessions.sort_unstable_by_key(|session| session.id());
        sessions.iter().filter_map(|session| session.describe()).collect()
    }

    /// Tells every client that the brick serves no more.
    pub fn announce_down(&self) {
        for session in self.sessions() {
            session.announce_down();
        }
    }

    fn options(&self) -> Arc<ServerOptions> {
        Arc::clone(&self.options.read())
    }

    fn sessions(&self) -> Vec<Arc<ClientSession>> {
        self.sessions.lock().values().cloned().collect()
    }
}

/// [`Brick`] as the RPC layer wants it.
pub struct BrickService(pub Arc<Brick>);

impl Service for BrickService {
    fn connected(&self, connection: Arc<Connection>) -> Arc<dyn Session> {
        let session = Arc::new(ClientSession::new(Arc::clone(&self.0), connection));
        self.0.sessions.lock().insert(session.id(), Arc::clone(&session));
        session
    }
}
