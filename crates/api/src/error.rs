//! Why an operation was refused.

use serde::{Deserialize, Serialize};

/// What kind of refusal, for programs; people read [`Error::message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request makes no sense (bad name, bad option, wrong brick count).
    Invalid,
    /// A named volume, peer, brick or option is not there.
    NotFound,
    /// It is there already, or in a state that forbids the operation.
    Conflict,
    /// Too few members answer to change the pool's configuration.
    NoQuorum,
    /// A peer or process that is needed does not answer.
    Unreachable,
    /// The daemon failed inside.
    Internal,
}

/// A refusal in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: ErrorKind,
    /// What happened to what, in GlusterFS's words where it has some, without "volume create: X: failed: ".
    pub message: String,
    /// What to do next; shown by `mortar`, not by `gluster`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
