//! Heal: commands and what is pending.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::operation;
use crate::volume::BrickRef;

/// Starts a heal, or changes how the volume heals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heal {
    pub volume: String,
    pub action: Action,
}
operation!(Heal, "heal/run" -> ());

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// What the index says is pending.
    Index,
    /// Everything, by walking the tree.
    Full,
    Enable,
    Disable,
    GranularEnable,
    GranularDisable,
}

/// What is pending or in split-brain, per brick.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    pub volume: String,
}
operation!(Info, "heal/info" -> Vec<BrickPending>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrickPending {
    pub brick: BrickRef,
    pub host_uuid: Uuid,
    /// `false`: the brick did not answer and `entries` is empty.
    pub connected: bool,
    pub entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub gfid: String,
    /// From the volume's root, or `None` when no path is known.
    pub path: Option<String>,
    pub state: EntryState,
    /// Why it cannot heal by itself and what to do, when that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryState {
    Pending,
    SplitBrain,
    PossiblyHealing,
}

/// How far the running heal is, per node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub volume: String,
}
operation!(Progress, "heal/progress" -> Vec<NodeProgress>);

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeProgress {
    pub host: String,
    pub running: bool,
    pub healed_entries: u64,
    pub failed_entries: u64,
    pub pending_entries: u64,
    pub bytes_copied: u64,
    /// Milliseconds since this sweep began.
    pub elapsed_ms: u64,
}
