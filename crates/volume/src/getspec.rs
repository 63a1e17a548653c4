//! The volfile server's side of a client: fetches the volfile, follows its changes, survives the server.
//!
//! At first the servers are tried in order, and if none answers that is an error. Afterwards one connection is kept:
//! the server calls FETCHSPEC when a volume has changed, and the volfile is fetched again. When the connection breaks,
//! the next server is tried, round and round, without end; bricks are separate connections, so nothing stops meanwhile.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mortar_rpc::client::{CallError, CloseReason, Connection, Events, Options as RpcOptions};
use mortar_rpc::{AuthKind, Endpoint, Procedure};
use mortar_types::{Context, Dict, Errno, Value};
use mortar_wire::handshake::{GetspecReply, GetspecRequest};
use mortar_wire::message::Message as _;
use mortar_wire::programs;
use mortar_wire::xdr::{DecodeError, Writer};
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// "Tell me the other volfile servers, too" (`glusterfsd-mgmt.c: glusterfs_volfile_fetch_one`).
const WANT_SERVERS: u32 = 1;

/// A server's list of others names no more than this.
const SERVERS_MAX: usize = 64;

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LONGEST: Duration = Duration::from_secs(3);

/// What to ask, and whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// In the order in which they are tried; at least one.
    pub servers: Vec<Endpoint>,
    /// `/imap0`, `shd/imap0`, …
    pub key: String,
    /// The newest volume options that this client understands; GlusterFS 10 says 100000.
    pub op_version: u32,
    /// For connecting and for each answer.
    pub timeout: Duration,
    /// A server that is silent for so long while asked is left for the next.
    pub ping_timeout: Duration,
}

impl Options {
    pub fn new(servers: Vec<Endpoint>, key: impl Into<String>) -> Self {
        Self {
            servers,
            key: key.into(),
            op_version: 100_000,
            timeout: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(10),
        }
    }
}

/// A volfile server from the command line: `HOST:PORT`, IPv6 addresses in brackets. `None`: it is none.
pub(crate) fn endpoint(text: &str) -> Option<Endpoint> {
    if let Ok(address) = text.parse() {
        return Some(Endpoint::Address(address));
    }
    let (host, port) = text.rsplit_once(':')?;
    (!host.is_empty()).then_some(())?;
    Some(Endpoint::Host { host: host.to_owned(), port: port.parse().ok()? })
}

/// The port where hosts that are asked by TCP have their daemon.
pub(crate) const fn port_of(server: &Endpoint) -> Option<u16> {
    match server {
        Endpoint::Host { port, .. } => Some(*port),
        Endpoint::Address(address) => Some(address.port()),
        Endpoint::Unix(_) => None,
    }
}

/// Why a server gave no volfile.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GetspecError {
    #[error("no volfile server is named")]
    NoServer,
    #[error("cannot connect to volfile server {server}: {reason}")]
    Unreachable { server: String, reason: String },
    #[error("volfile server {server} does not answer")]
    Timeout { server: String },
    #[error("volfile server {server} has no volume {key}")]
    UnknownVolume { server: String, key: String },
    #[error("volume {key} needs a newer client (volfile server {server})")]
    TooOld { server: String, key: String },
    #[error("volfile server {server} refuses {key}: {errno}")]
    Refused { server: String, key: String, errno: Errno },
    #[error("volfile server {server} answers nonsense: {reason}")]
    Protocol { server: String, reason: String },
}

/// A followed volfile. Dropping it ends the connection.
#[derive(Debug)]
pub struct VolfileServer {
    volfile: watch::Receiver<Arc<str>>,
    refreshes: mpsc::Sender<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for VolfileServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl VolfileServer {
    /// Fetches the volfile from the first server that gives it. The error is the last server's, unless one of them said
    /// that the volume does not exist: that is the more useful one.
    pub async fn connect(options: Options) -> Result<Self, GetspecError> {
        let mut follower = Follower { servers: options.servers.clone(), at: 0, options };
        let mut worst = GetspecError::NoServer;
        for at in 0..follower.servers.len() {
            follower.at = at;
            match follower.fetch_anew().await {
                Ok((session, text)) => {
                    let (sender, volfile) = watch::channel(text);
                    let (refreshes, asked) = mpsc::channel(1);
                    let task = tokio::spawn(follower.follow(session, sender, asked));
                    return Ok(Self { volfile, refreshes, task });
                }
                Err(error) if matches!(worst, GetspecError::UnknownVolume { .. } | GetspecError::TooOld { .. }) => {
                    tracing::info!(%error, "no volfile");
                }
                Err(error) => {
                    tracing::info!(%error, "no volfile");
                    worst = error;
                }
            }
        }
        Err(worst)
    }

    /// The text now, and every change of it.
    pub fn volfile(&self) -> watch::Receiver<Arc<str>> {
        self.volfile.clone()
    }

    /// Fetches the volfile anew, from the next server if this one is gone, and returns when that is done.
    pub async fn refresh(&self) {
        let (done, fetched) = oneshot::channel();
        if self.refreshes.send(done).await.is_ok() {
            // An error: the task has ended, and with it all news.
            let _ = fetched.await;
        }
    }
}

/// A connection to one server and what it tells.
struct Session {
    connection: Arc<Connection>,
    server: String,
    news: Arc<News>,
}

#[derive(Default)]
struct News {
    /// FETCHSPEC came, or the connection has closed.
    something: Notify,
}

impl Events for News {
    fn callback(&self, procedure: Procedure, _body: Bytes) {
        let fetchspec = (programs::CALLBACK.number, programs::callback::FETCHSPEC);
        if (procedure.program, procedure.number) == fetchspec {
            self.something.notify_one();
        }
    }

    fn closed(&self, _reason: &CloseReason) {
        self.something.notify_one();
    }
}

struct Follower {
    options: Options,
    /// The given ones, and those that servers named.
    servers: Vec<Endpoint>,
    /// The server in use.
    at: usize,
}

impl Follower {
    async fn follow(
        mut self,
        mut session: Session,
        volfile: watch::Sender<Arc<str>>,
        mut refreshes: mpsc::Receiver<oneshot::Sender<()>>,
    ) {
        loop {
            let asked = tokio::select! {
                () = session.news.something.notified() => None,
                asked = refreshes.recv() => asked,
            };
            let fetched = if session.connection.is_closed() { None } else { self.fetch(&session).await.ok() };
            let text = match fetched {
                Some(text) => text,
                None => {
                    tracing::info!(server = %session.server, "the volfile server is gone, trying the next");
                    drop(session);
                    let (next, text) = self.reconnect().await;
                    tracing::info!(server = %next.server, "connected to a volfile server");
                    session = next;
                    text
                }
            };
            volfile.send_if_modified(|known| {
                let changed = **known != *text;
                if changed {
                    *known = text;
                }
                changed
            });
            if let Some(asked) = asked {
                // Who asked may be gone.
                let _ = asked.send(());
            }
        }
    }

    /// Goes round the servers until one gives the volfile.
    async fn reconnect(&mut self) -> (Session, Arc<str>) {
        let mut wait = BACKOFF_FIRST;
        loop {
            for _ in 0..self.servers.len() {
                self.at = (self.at + 1) % self.servers.len();
                match self.fetch_anew().await {
                    Ok(found) => return found,
                    Err(error) => tracing::debug!(%error, "no volfile"),
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(BACKOFF_LONGEST);
        }
    }

    async fn fetch_anew(&mut self) -> Result<(Session, Arc<str>), GetspecError> {
        let endpoint = self.servers.get(self.at).ok_or(GetspecError::NoServer)?;
        let news = Arc::new(News::default());
        let options = RpcOptions {
            connect_timeout: self.options.timeout,
            ping_timeout: self.options.ping_timeout,
            ..RpcOptions::default()
        };
        let server = endpoint.to_string();
        let connection = Connection::connect(endpoint, options, Arc::clone(&news) as Arc<dyn Events>)
            .await
            .map_err(|error| GetspecError::Unreachable { server: server.clone(), reason: error.to_string() })?;
        let session = Session { connection, server, news };
        let text = self.fetch(&session).await?;
        Ok((session, text))
    }

    async fn fetch(&mut self, session: &Session) -> Result<Arc<str>, GetspecError> {
        let server = || session.server.clone();
        let key = || self.options.key.clone();
        let protocol = |error: DecodeError| GetspecError::Protocol { server: server(), reason: error.to_string() };
        let procedure =
            Procedure::new(programs::HANDSHAKE.number, programs::HANDSHAKE.version, programs::handshake::GETSPEC);
        let mut head = Writer::new();
        self.request().encode(&mut head);
        let context = Context::default();
        let call = session.connection.call(procedure, AuthKind::V2, &context, head.into_inner(), None);
        let answer = match tokio::time::timeout(self.options.timeout, call).await {
            Err(_) => return Err(GetspecError::Timeout { server: server() }),
            Ok(Err(CallError::Disconnected)) => {
                let reason = "the server closed the connection".to_owned();
                return Err(GetspecError::Unreachable { server: server(), reason });
            }
            Ok(Err(error)) => return Err(GetspecError::Protocol { server: server(), reason: error.to_string() }),
            Ok(Ok(answer)) => answer,
        };
        let reply = GetspecReply::decode(answer).map_err(protocol)?;
        // A success gives the text's length; 0 is an empty volfile, which is none.
        if reply.op_ret <= 0 || reply.spec.is_empty() {
            return Err(match Errno(reply.op_errno) {
                Errno::ENOENT => GetspecError::UnknownVolume { server: server(), key: key() },
                Errno::EOPNOTSUPP => GetspecError::TooOld { server: server(), key: key() },
                errno => GetspecError::Refused { server: server(), key: key(), errno },
            });
        }
        let others = reply.xdata.into_dict();
        if let Some(others) = others.get_str("cluster.brick-vol-servers").or_else(|| others.get_str("servers-list")) {
            self.learn(others);
        }
        Ok(reply.spec.into())
    }

    fn request(&self) -> GetspecRequest {
        let xdata = Dict::new()
            .with("min-op-version", Value::Int(1))
            .with("max-op-version", Value::Int(self.options.op_version.into()));
        GetspecRequest { flags: WANT_SERVERS, key: self.options.key.clone(), xdata: xdata.into() }
    }

    /// `host:port host:port …`; what cannot be read is left out.
    fn learn(&mut self, others: &str) {
        for other in others.split_whitespace() {
            let Some((host, port)) = other.rsplit_once(':') else { continue };
            let Ok(port) = port.parse() else { continue };
            let endpoint = Endpoint::Host { host: host.to_owned(), port };
            if self.servers.len() < SERVERS_MAX && !self.servers.contains(&endpoint) {
                self.servers.push(endpoint);
            }
        }
    }
}

#[cfg(test)]
mod tests;
