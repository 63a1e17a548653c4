//! The admin API: what the daemon is asked and what it answers, as versioned types.
//!
//! Every operation is `POST /v1/<path>` with its request as JSON; the answer is 200 with the operation's answer, or 4xx
//! with an [`Error`]. The same routes are served on the node's Unix socket and, over mutual TLS, on port 24008. The
//! command line, the dashboard and automation use nothing else.
#![forbid(unsafe_code)]

pub mod brick;
pub mod error;
pub mod heal;
pub mod peer;
pub mod rebalance;
pub mod volume;

pub use error::{Error, ErrorKind};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The node's API socket, relative to its run directory (`/run/mortar` unless configured).
pub const SOCKET_NAME: &str = "mortard.sock";

/// An operation of the API: its route and the shapes of both directions.
pub trait Operation: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Below `/v1/`, such as `volume/create`.
    const PATH: &'static str;
    type Answer: Serialize + DeserializeOwned + Send + Sync + 'static;
}

macro_rules! operation {
    ($request:ty, $path:literal -> $answer:ty) => {
        impl $crate::Operation for $request {
            const PATH: &'static str = $path;
            type Answer = $answer;
        }
    };
}
pub(crate) use operation;

/// How current an answer is: any member answers reads, also without a quorum.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Freshness {
    /// The pool had a leader that a majority follows when this was answered.
    pub quorum: bool,
    /// The last entry of the pool's log that the answer includes.
    pub applied_index: u64,
}
