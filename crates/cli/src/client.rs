//! The API's client over the daemon's Unix socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use mortar_api::Operation;

/// The largest answer that is read: `volume get all` and heal lists of tens of thousands of entries fit.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nothing listens on the socket.
    #[error("the daemon does not answer on {}", .0.display())]
    NotRunning(PathBuf),
    #[error("the daemon did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The daemon refused, in its words.
    #[error(transparent)]
    Refused(#[from] mortar_api::Error),
    /// The connection broke or the answer is not what the API promises.
    #[error("the daemon's answer could not be read: {0}")]
    Protocol(String),
}

/// Asks one daemon. Every call is a connection of its own: a command makes one or two.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
}

impl Client {
    pub fn new(socket: &Path, timeout: Duration) -> Self {
        Self { socket: socket.to_owned(), timeout }
    }

    /// Performs an operation.
    pub async fn call<O: Operation>(&self, operation: &O) -> Result<O::Answer, CallError> {
        let body = serde_json::to_vec(operation).map_err(|error| CallError::Protocol(error.to_string()))?;
        let asked = self.post(O::PATH, body);
        let (ok, answer) =
            tokio::time::timeout(self.timeout, asked).await.map_err(|_| CallError::TimedOut(self.timeout))??;
        let unreadable = |error: serde_json::Error| CallError::Protocol(error.to_string());
        if ok {
            return serde_json::from_slice(&answer).map_err(unreadable);
        }
        let refusal: mortar_api::Error = serde_json::from_slice(&answer).map_err(unreadable)?;
        Err(refusal.into())
    }

    /// Whether the status was a success, and the body.
    async fn post(&self, path: &str, body: Vec<u8>) -> Result<(bool, Bytes), CallError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|_| CallError::NotRunning(self.socket.clone()))?;
        let broken = |error: hyper::Error| CallError::Protocol(error.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(connection);
        let request = Request::post(format!("/v1/{path}"))
            .header("host", "mortard")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| CallError::Protocol(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let ok = response.status().is_success();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| CallError::Protocol(error.to_string()))?;
        Ok((ok, body.to_bytes()))
    }
}
