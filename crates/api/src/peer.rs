//! Pool membership.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Freshness, operation};

/// Takes the node at `host` into the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub host: String,
}
operation!(Probe, "peer/probe" -> Probed);

/// How a probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probed {
    Added,
    AlreadyMember,
    /// The host is this node itself.
    Localhost,
}

/// Removes a member that holds no brick.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detach {
    pub host: String,
    /// Also when the member does not answer.
    pub force: bool,
}
operation!(Detach, "peer/detach" -> ());

/// Asks for the members, for `peer status` and `pool list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {}
operation!(List, "peer/list" -> Members);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    pub local: Uuid,
    /// Without the answering node itself.
    pub peers: Vec<Peer>,
    pub freshness: Freshness,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    pub uuid: Uuid,
    /// The name it was probed by.
    pub hostname: String,
    /// Further names and addresses it is known by.
    pub other_names: Vec<String>,
    pub connected: bool,
    /// GlusterFS's peer state; "Peer in Cluster" is 3.
    pub state: PeerState,
    /// Votes in the pool's consensus (up to five members do).
    pub voter: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    ProbeSent,
    InCluster,
    Detaching,
}

/// Makes this node the whole pool again after a majority is lost for good. Demands confirmation at the command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recover {
    /// Must be true: the caller has confirmed that the other members will not come back as they are.
    pub confirmed: bool,
}
operation!(Recover, "pool/recover" -> ());
