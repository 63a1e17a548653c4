//! Requests to other nodes: JSON over HTTP over mutual TLS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use mortar_api::{Error, ErrorKind};
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use uuid::Uuid;

use super::Peers;
use crate::identity::tls_name;

/// Header that names the sender's pool; a message of another pool is refused.
pub(crate) const POOL_HEADER: &str = "x-mortar-pool";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Larger answers are cut off: the largest real one is a snapshot chunk or the heal info of a sick volume.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why a node did not answer as wished.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    #[error("the connection broke: {0}")]
    Broken(String),
    /// It answered, with a refusal.
    #[error("{0}")]
    Refused(Error),
    #[error("the answer is not understood: {0}")]
    Format(#[from] serde_json::Error),
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(error) => error,
            other => Self::new(ErrorKind::Unreachable, other.to_string()),
        }
    }
}

/// A connection that carries one request at a time.
#[derive(Debug)]
pub(super) struct Line {
    sender: SendRequest<Full<Bytes>>,
    /// Turns true when the connection has ended, also between requests.
    ended: watch::Receiver<bool>,
}

impl Line {
    /// Resolves when the connection is gone.
    pub(super) async fn ended(&mut self) {
        // An error means that the driving task is gone.
        let _ = self.ended.wait_for(|ended| *ended).await;
    }

    pub(super) async fn post<Q: Serialize + Sync, A: DeserializeOwned>(
        &mut self,
        pool: Uuid,
        path: &str,
        request: &Q,
    ) -> Result<A, CallError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("/v1/{path}"))
            .header(HOST, "mortar")
            .header(CONTENT_TYPE, "application/json")
            .header(POOL_HEADER, pool.to_string())
            .body(Full::new(Bytes::from(serde_json::to_vec(request)?)))
            .map_err(|error| CallError::Broken(error.to_string()))?;
        let broken = |error: hyper::Error| CallError::Broken(error.to_string());
        self.sender.ready().await.map_err(broken)?;
        let response = self.sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| CallError::Broken(error.to_string()))?
            .to_bytes();
        if status == StatusCode::OK {
            return Ok(serde_json::from_slice(&body)?);
        }
        Err(CallError::Refused(
            serde_json::from_slice(&body)
                .unwrap_or_else(|_| Error::new(ErrorKind::Internal, format!("the node answered with status {status}"))),
        ))
    }
}

async fn dial(address: &str, config: Arc<ClientConfig>, name: ServerName<'static>) -> io::Result<Line> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let (end, ended) = watch::channel(false);
    tokio::spawn(async move {
        // How it ended is seen by whoever waits for an answer.
        let _ = connection.await;
        end.send_replace(true);
    });
    Ok(Line { sender, ended })
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> Result<T, CallError> {
    tokio::time::timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))
        .map_err(CallError::Connect)
}

/// Asks one member; keeps the connection for the next time.
#[derive(Debug)]
pub(crate) struct Channel {
    peers: Arc<Peers>,
    target: Uuid,
    /// Taken while a request runs, so that nothing is locked while waiting; a second request at the same time makes a
    /// connection of its own.
    idle: Mutex<Option<Line>>,
}

impl Channel {
    pub(super) const fn new(peers: Arc<Peers>, target: Uuid) -> Self {
        Self { peers, target, idle: Mutex::new(None) }
    }

    /// Asks and waits for the answer; callers set their own time limit around it.
    ///
    /// # Errors
    /// When the member is not reached, or refuses.
    pub(crate) async fn post<Q: Serialize + Sync, A: DeserializeOwned>(
        &self,
        path: &str,
        request: &Q,
    ) -> Result<A, CallError> {
        let kept = self.idle.lock().take().filter(|line| !line.sender.is_closed());
        let mut line = match kept {
            Some(line) => line,
            None => self.connect().await?,
        };
        let answer = line.post(self.peers.pool_id(), path, request).await;
        if matches!(answer, Ok(_) | Err(CallError::Refused(_))) {
            *self.idle.lock() = Some(line);
        }
        answer
    }

    /// [`Self::post`] of an API operation.
    ///
    /// # Errors
    /// As [`Self::post`].
    pub(crate) async fn call<O: mortar_api::Operation>(&self, request: &O) -> Result<O::Answer, CallError> {
        self.post(O::PATH, request).await
    }

    pub(super) async fn connect(&self) -> Result<Line, CallError> {
        let address = self
            .peers
            .address(self.target)
            .ok_or_else(|| CallError::Connect(io::Error::other("the member's address is not known")))?;
        let name = ServerName::try_from(tls_name(self.target)).map_err(|error| CallError::Broken(error.to_string()))?;
        let config = Arc::clone(&self.peers.tls.current().client);
        within(CONNECT_TIMEOUT, dial(&address, config, name)).await
    }
}

/// One request to a node that belongs to no pool yet; its certificate proves nothing.
///
/// # Errors
/// When the node is not reached, or refuses.
pub(crate) async fn claim_call<Q: Serialize + Sync, A: DeserializeOwned>(
    address: &str,
    config: Arc<ClientConfig>,
    path: &str,
    request: &Q,
) -> Result<A, CallError> {
    let name = ServerName::try_from("unclaimed.mortar").map_err(|error| CallError::Broken(error.to_string()))?;
    let mut line = within(CONNECT_TIMEOUT, dial(address, config, name)).await?;
    line.post(Uuid::nil(), path, request).await
}
