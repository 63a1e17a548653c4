//! Bricks of a volume that exists: added, removed, replaced, taken out for a while.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::operation;
use crate::rebalance::Status;
use crate::volume::{BrickRef, Changed};

/// `volume add-brick`: more subvolumes, or, with a higher `replica`, more bricks in each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Add {
    pub volume: String,
    /// With a new replica count: one portion for each replica set, in the sets' order.
    pub bricks: Vec<BrickRef>,
    /// Bricks per set afterwards; `None`: as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<u32>,
    /// The last of each set holds no data afterwards (0 or 1).
    #[serde(default)]
    pub arbiter: u32,
    /// As at creation.
    #[serde(default)]
    pub force: bool,
}
operation!(Add, "volume/add-brick" -> Changed);

/// `volume remove-brick … start`: everything leaves these bricks while the volume goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveStart {
    pub volume: String,
    pub bricks: Vec<BrickRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<u32>,
}
operation!(RemoveStart, "volume/remove-brick/start" -> Removal);

/// `volume remove-brick … status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveStatus {
    pub volume: String,
    pub bricks: Vec<BrickRef>,
}
operation!(RemoveStatus, "volume/remove-brick/status" -> Status);

/// `volume remove-brick … stop`: the bricks stay. What has moved already stays where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveStop {
    pub volume: String,
    pub bricks: Vec<BrickRef>,
}
operation!(RemoveStop, "volume/remove-brick/stop" -> Status);

/// `volume remove-brick … commit` and `… force`: the bricks leave the volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveCommit {
    pub volume: String,
    pub bricks: Vec<BrickRef>,
    /// Bricks per set afterwards, when the sets shrink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<u32>,
    /// Also when nothing or not everything has left them.
    pub force: bool,
}
operation!(RemoveCommit, "volume/remove-brick/commit" -> Removal);

/// How far a removal is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// `None` when nothing had been started.
    pub task: Option<Uuid>,
    /// Something the admin should know although it worked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// `volume replace-brick … commit force`: another brick takes the place; heal fills it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replace {
    pub volume: String,
    pub from: BrickRef,
    pub to: BrickRef,
    #[serde(default)]
    pub force: bool,
}
operation!(Replace, "volume/replace-brick" -> Changed);

/// `volume reset-brick … start`: the brick is taken out of service, for instance to exchange its disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetStart {
    pub volume: String,
    pub brick: BrickRef,
}
operation!(ResetStart, "volume/reset-brick/start" -> Changed);

/// `volume reset-brick … commit [force]`: it comes back at its old path, empty or with its data; heal fills it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetCommit {
    pub volume: String,
    pub from: BrickRef,
    pub to: BrickRef,
    /// Also when the directory is a brick already.
    pub force: bool,
}
operation!(ResetCommit, "volume/reset-brick/commit" -> Changed);
