//! Listening sockets and the accept loop.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use mortar_types::{ClientId, Errno};
use mortar_wire::record::RECORD_BYTES_DEFAULT;
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::server::connection::{self, Connection, Peer};
use crate::server::pulse::{self, Connections};
use crate::server::session::Service;
use crate::socket::{Keepalive, Stream, set_options};

/// Connections waiting to be accepted (`transport.listen-backlog` of generated volfiles).
const BACKLOG: u32 = 1024;

/// How long accepting pauses when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Limits of a server and its connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// A connection that announces a larger record is closed.
    pub record_bytes_max: usize,
    /// Calls of one connection that run at a time; beyond, nothing is read from it (`rpc.outstanding-rpc-limit`).
    pub outstanding_max: usize,
    /// Calls of one connection that wait for other clients; beyond, they are refused with SYSTEM_ERR.
    pub waiting_max: usize,
    /// Beyond, new connections are closed at once.
    pub connections_max: usize,
    pub keepalive: Keepalive,
    /// Sent data unacknowledged for so long ends the connection (`transport.tcp-user-timeout`); zero: the kernel's rule.
    pub user_timeout: Duration,
    /// Calls may wait for a disk where they came in: clients that want it hear of life meanwhile
    /// ([`Connection::want_pulse`]).
    pub pulse: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            record_bytes_max: RECORD_BYTES_DEFAULT,
            outstanding_max: 64,
            waiting_max: 16 << 10,
            connections_max: 16 << 10,
            keepalive: Keepalive::default(),
            user_timeout: Duration::from_secs(42),
            pulse: false,
        }
    }
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A bound socket that does not serve yet, so that its port can be told before.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    /// Removed again when serving ends.
    unix_path: Option<PathBuf>,
}

impl Listener {
    /// Listens on a TCP address; port 0 lets the kernel choose. Must be called within a tokio runtime.
    pub fn bind_tcp(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self { socket: Socket::Tcp(socket.listen(BACKLOG)?), unix_path: None })
    }

    /// Listens on a Unix socket. One left behind by a process that was killed is replaced; anything else at that path,
    /// and a socket that still answers, is an error. Must be called within a tokio runtime.
    pub fn bind_unix(path: &Path) -> io::Result<Self> {
        let socket = Socket::Unix(bind_unix_socket(path)?);
        Ok(Self { socket, unix_path: Some(path.to_owned()) })
    }

    /// The TCP address; `None` for a Unix socket.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    /// Accepts connections in the background until the answer is shut down or dropped.
    pub fn serve(self, service: Arc<dyn Service>, options: Options) -> Server {
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(accept(self, service, options, stopped));
        Server { stop, task: Some(task) }
    }

    async fn accept(&self, options: &Options) -> io::Result<(Stream, Peer)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, remote) = listener.accept().await?;
                let local = stream.local_addr()?;
                set_options(&stream, options.keepalive, options.user_timeout)?;
                Ok((Stream::Tcp(stream), Peer::Tcp { remote, local }))
            }
            Socket::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let credential = stream.peer_cred()?;
                Ok((Stream::Unix(stream), Peer::Unix { uid: credential.uid(), pid: credential.pid() }))
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.unix_path {
            // It may be gone already, with its directory.
            let _ = std::fs::remove_file(path);
        }
    }
}

pub(crate) fn bind_unix_socket(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale_socket(path) => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
}

fn is_stale_socket(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && std::os::unix::net::UnixStream::connect(path).err().is_some_and(refused)
}

/// Whether accepting again at once would fail the same way.
fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno(rustix::io::Errno::NOBUFS.raw_os_error())];
    shortages.contains(&Errno::from_io(error))
}

/// A running accept loop.
#[derive(Debug)]
pub struct Server {
    stop: watch::Sender<bool>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Server {
    /// Stops accepting, closes all connections and waits until their sessions have ended.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        if let Some(task) = self.task.take() {
            // It ends by a panic only when a service's `connected` panics; there is nobody else to tell.
            let _ = task.await;
        }
    }
}

/// Numbers connections process-wide, over all listeners. 0 stands for "no connection".
static NEXT_CONNECTION: AtomicU64 = AtomicU64::new(1);

async fn accept(listener: Listener, service: Arc<dyn Service>, options: Options, mut stopped: watch::Receiver<bool>) {
    let open: Arc<Connections> = Arc::default();
    if options.pulse {
        pulse::start(&open);
    }
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept(&options) => accepted,
            // Also when the `Server` is dropped.
            _ = stopped.wait_for(|stop| *stop) => break,
            Some(_) = tasks.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) if tasks.len() >= options.connections_max => {
                tracing::warn!(%peer, limit = options.connections_max, "too many connections, closing the new one");
                drop(stream);
            }
            Ok((stream, peer)) => {
                let (read, write) = stream.into_split();
                let id = ClientId(NEXT_CONNECTION.fetch_add(1, Ordering::Relaxed));
                let connection = Arc::new(Connection::new(id, peer, write));
                open.lock().insert(id, Arc::downgrade(&connection));
                let (open, service) = (Arc::clone(&open), Arc::clone(&service));
                tasks.spawn(async move {
                    connection::run(connection, read, service, options).await;
                    open.lock().remove(&id);
                });
            }
            Err(error) if is_shortage(&error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            // The peer was gone again before its socket could be set up.
            Err(error) => tracing::debug!(%error, "accepting a connection failed"),
        }
    }
    drop(listener);
    let open: Vec<_> = open.lock().values().filter_map(Weak::upgrade).collect();
    for connection in open {
        connection.close();
    }
    while tasks.join_next().await.is_some() {}
}
