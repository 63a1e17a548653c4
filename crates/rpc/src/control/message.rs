//! What is asked and answered.

use std::path::PathBuf;

use mortar_api::heal::NodeProgress;
use mortar_api::volume::{BrickClient, BrickDetail};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Asked of a brick or of the heal daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "request")]
pub enum Request {
    /// `detail` and `clients`: include what takes longer to find out. Bricks and heald.
    Status { detail: bool, clients: bool },
    /// End in order. Answered before it ends.
    Terminate,
    /// Read the configuration (volfile) again.
    Reload,
    /// Start a heal: of what the index says, or `full`, by walking the tree. heald.
    Heal { volume: String, full: bool },
    /// How far the volume's heal is. heald.
    Progress { volume: String },
    /// The last sweeps of the volume. heald.
    Crawls { volume: String },
    /// How far the node's part of a rebalance is. `mortar rebalance`.
    RebalanceStatus,
    /// `mortar rebalance`.
    RebalanceControl { control: mortar_api::rebalance::Control },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reply")]
pub enum Reply {
    /// Done; nothing to say.
    Ok,
    Status(StatusReply),
    Progress(HealProgress),
    Crawls {
        subvolumes: Vec<SubvolumeCrawls>,
    },
    Rebalance(Box<mortar_api::rebalance::Progress>),
    /// It was not done; a sentence says why.
    Error {
        message: String,
    },
}

/// One sweep.
pub type Crawl = mortar_api::heal::Crawl;

/// The sweeps of what one brick knows, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubvolumeCrawls {
    /// The brick's name in the volfile (`imap0-client-0`).
    pub subvolume: String,
    pub crawls: Vec<Crawl>,
}

/// How far a heal is; the daemon fills in the host's name.
pub type HealProgress = NodeProgress;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReply {
    pub pid: u32,
    /// The port it listens on; heald has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brick_path: Option<PathBuf>,
    /// The brick's volume, from its volume-id xattr.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_id: Option<Uuid>,
    /// When asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<BrickDetail>,
    /// When asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<BrickClient>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_flat_objects() {
        let heal = Request::Heal { volume: "imap0".into(), full: true };
        let text = serde_json::to_string(&heal).unwrap();
        assert_eq!(text, r#"{"request":"heal","volume":"imap0","full":true}"#);
        let status = Reply::Status(StatusReply { pid: 7, port: Some(49152), ..StatusReply::default() });
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(text, r#"{"reply":"status","pid":7,"port":49152}"#);
        assert_eq!(serde_json::from_str::<Reply>(&text).unwrap(), status);
    }
}
