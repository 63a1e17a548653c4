//! The daemon as a whole: what listens, what runs beside it, and how it ends.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mortar_rpc::server::{Listener, Options as ServerOptions, Server};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::jobs;
use crate::node::{Node, StartError};
use crate::options::Options;
use crate::peers;
use crate::service::{self, PeerListener};
use crate::volfile_server::{Front, VolfileServer};

/// Forming a pool of one takes a few writes to disk.
const FORM_TIMEOUT: Duration = Duration::from_secs(10);

/// A running daemon. Dropped, it stops listening but leaves its processes running.
#[derive(Debug)]
pub struct Daemon {
    node: Arc<Node>,
    server: Server,
    tasks: JoinSet<()>,
}

impl Daemon {
    /// Starts everything; when this returns, all ports listen and the stored configuration is served.
    ///
    /// # Errors
    /// When the data directory is unusable or an address is taken.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let bind = |what: &str, port: u16| {
            let address = SocketAddr::new(options.listen, port);
            (address, format!("listening on {address} ({what})"))
        };
        let io = |what: String| move |error: io::Error| StartError::Io { what, error };
        let (address, what) = bind("volfile server", options.port);
        let volfiles = Listener::bind_tcp(address).map_err(io(what))?;
        let (address, what) = bind("pool", options.peer_port);
        let members = PeerListener::bind(address).map_err(io(what))?;

        let node = Node::start(options).await?;
        let socket = node.paths.api_socket();
        let local = service::serve_unix(&socket, service::local_router(Arc::clone(&node)))
            .map_err(io(format!("the API socket {}", socket.display())))?;

        let mut tasks = JoinSet::new();
        tasks.spawn(local);
        tasks.spawn(service::serve_peers(members, Arc::clone(&node), service::peer_router(Arc::clone(&node))));
        let hears = Arc::clone(&node);
        let on_standing = move |from: Uuid, answer| service::hear_standing(&hears, from, &answer);
        tasks.spawn(peers::maintain(Arc::clone(&node.peers), node.watch_view(), Arc::new(on_standing)));
        tasks.spawn(service::keep_membership(Arc::clone(&node)));
        tasks.spawn(Arc::clone(&node.supervisor).follow(node.watch_view()));
        tasks.spawn(jobs::follow(Arc::clone(&node)));
        let volfile_server = VolfileServer::new(
            node.watch_view(),
            Arc::clone(&node.portmap),
            Arc::clone(&node.peers),
            node.paths.data.clone(),
        );
        let server = volfiles.serve(Arc::new(Front(Arc::clone(&volfile_server))), ServerOptions::default());
        tasks.spawn(volfile_server.announce_changes());
        let forming = Arc::clone(&node);
        let formed = tokio::spawn(async move {
            if let Err(error) = forming.form_if_new().await {
                tracing::warn!(%error, "the pool of this node alone is not formed yet");
            }
        });
        if node.view().state.pool_id.is_nil() {
            // A new node is a member of its own pool before anybody asks it. One that joined a pool and knows nothing of
            // it yet does not wait: its configuration comes from the others.
            let _ = tokio::time::timeout(FORM_TIMEOUT, formed).await;
        }
        tracing::info!(node = %node.uuid(), "the daemon runs");
        Ok(Self { node, server, tasks })
    }

    /// This node's uuid.
    pub fn uuid(&self) -> Uuid {
        self.node.uuid()
    }

    /// Ends the daemon; bricks and heald go on.
    pub async fn stop(mut self) {
        self.node.supervisor.abandon();
        self.tasks.shutdown().await;
        self.server.shutdown().await;
        self.node.stop().await;
    }

    /// Ends the daemon and its processes.
    pub async fn stop_with_processes(self) {
        self.node.supervisor.stop_all().await;
        self.stop().await;
    }
}

/// Runs the daemon until SIGTERM or SIGINT; its bricks and heald go on, and are found again by the next one. `ready` is
/// called once all ports listen.
///
/// # Errors
/// When it cannot start.
pub async fn run(options: Options, ready: impl FnOnce() + Send) -> Result<(), StartError> {
    use tokio::signal::unix::{SignalKind, signal};
    let io = |error| StartError::Io { what: "waiting for signals".to_owned(), error };
    let mut terminate = signal(SignalKind::terminate()).map_err(io)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(io)?;
    let daemon = Daemon::start(options).await?;
    ready();
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("ending");
    daemon.stop().await;
    Ok(())
}
