//! Volumes: life cycle, description, state, options.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Freshness, operation};

/// A brick as the admin names it: `HOST:/absolute/path`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BrickRef {
    pub host: String,
    pub path: String,
}

impl std::fmt::Display for BrickRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.path)
    }
}

/// How the bricks of a volume hold its data. Brick order is subvolume order: consecutive groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Layout {
    /// Every brick a subvolume of its own.
    Distribute,
    /// Groups of `replica` bricks; the last `arbiter` (0 or 1) of each holds no data.
    Replicate { replica: u32, arbiter: u32 },
    /// Groups of `data + redundancy` bricks.
    Disperse { data: u32, redundancy: u32 },
}

impl Layout {
    /// Bricks per subvolume.
    pub const fn group(self) -> u32 {
        match self {
            Self::Distribute => 1,
            Self::Replicate { replica, .. } => replica,
            Self::Disperse { data, redundancy } => data + redundancy,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Create {
    pub name: String,
    pub layout: Layout,
    pub bricks: Vec<BrickRef>,
    /// Accept bricks in the root partition, existing brick directories, replicas on one host.
    pub force: bool,
}
operation!(Create, "volume/create" -> Changed);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    pub name: String,
    /// Also when started already: brings missing bricks up.
    pub force: bool,
}
operation!(Start, "volume/start" -> Changed);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    pub name: String,
    pub force: bool,
}
operation!(Stop, "volume/stop" -> Changed);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delete {
    pub name: String,
}
operation!(Delete, "volume/delete" -> Changed);

/// The volume that an operation changed (the XML answers carry both).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    pub name: String,
    pub id: Uuid,
    /// Something the admin should know although it worked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// `name` `None`: all volumes, in name order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    pub name: Option<String>,
}
operation!(Info, "volume/info" -> Volumes);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volumes {
    pub volumes: Vec<Volume>,
    pub freshness: Freshness,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Created,
    Started,
    Stopped,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub name: String,
    pub id: Uuid,
    pub state: State,
    pub layout: Layout,
    pub bricks: Vec<Brick>,
    /// Only options that were set, by the admin or at creation, in the order that GlusterFS prints them: newest first.
    pub options: Vec<(String, String)>,
    pub snapshot_count: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brick {
    pub at: BrickRef,
    pub host_uuid: Uuid,
    pub arbiter: bool,
    /// `VOL-client-K`: names the changelog xattr `trusted.afr.VOL-client-K`; stays when bricks are added or removed.
    pub brick_id: String,
    /// Its data is moving away (`remove-brick start`).
    #[serde(default)]
    pub decommissioned: bool,
    /// Out of service until `reset-brick … commit`.
    #[serde(default)]
    pub reset: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {}
operation!(Names, "volume/list" -> Vec<String>);

/// `name` `None`: all started volumes. `brick`: only that one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub name: Option<String>,
    pub brick: Option<BrickRef>,
    /// Ask the bricks for file system details.
    pub detail: bool,
    /// Ask the bricks for their clients.
    pub clients: bool,
}
operation!(Status, "volume/status" -> Vec<VolumeStatus>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeStatus {
    pub name: String,
    pub processes: Vec<Process>,
    pub tasks: Vec<Task>,
}

/// A brick or a per-node daemon of the volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub kind: ProcessKind,
    /// For bricks as the admin named it; for daemons "localhost" or the peer's name.
    pub host: String,
    /// Empty for daemons.
    pub path: String,
    pub peer_id: Uuid,
    pub port: Option<u16>,
    pub online: bool,
    pub pid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<BrickDetail>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<BrickClient>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessKind {
    Brick,
    SelfHealDaemon,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrickDetail {
    pub file_system: String,
    pub device: String,
    pub mount_options: String,
    pub inode_size: u64,
    pub bytes_free: u64,
    pub bytes_total: u64,
    pub block_size: u64,
    pub inodes_total: u64,
    pub inodes_free: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrickClient {
    /// `address:port`.
    pub hostname: String,
    pub bytes_read: u64,
    pub bytes_written: u64,
    pub op_version: u32,
    /// `fuse`, `glustershd`, …
    pub name: String,
}

/// A rebalance or a removal of bricks that runs or has ended; details by `rebalance/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// GlusterFS's words: `Rebalance` or `Remove brick`.
    pub kind: String,
    pub id: Uuid,
    /// GlusterFS's words, such as `in progress`.
    pub status: String,
    /// GlusterFS's number of the status.
    #[serde(default)]
    pub status_number: u32,
    /// Waits to be resumed; GlusterFS does not know that and the status says `in progress`.
    #[serde(default)]
    pub paused: bool,
    /// The bricks that are leaving.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bricks: Vec<BrickRef>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    /// A volume, or `all` for pool-wide options.
    pub name: String,
    pub options: Vec<(String, String)>,
}
operation!(Set, "volume/set" -> Changed);

/// `key` `None`: all options.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reset {
    pub name: String,
    pub key: Option<String>,
    pub force: bool,
}
operation!(Reset, "volume/reset" -> Changed);

/// `key` `all`: every option.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Get {
    pub name: String,
    pub key: String,
}
operation!(Get, "volume/get" -> Vec<OptionValue>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptionValue {
    pub key: String,
    pub value: String,
    /// The value is the default, not set.
    pub default: bool,
}

/// The documented options and their defaults, for `volume set help`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptionHelp {}
operation!(OptionHelp, "volume/option-help" -> BTreeMap<String, String>);

/// The client volfile of a volume, for people who debug.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetSpec {
    pub volfile_id: String,
}
operation!(GetSpec, "volume/getspec" -> String);
