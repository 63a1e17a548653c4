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
    /// Which of the volume's replica sets it belongs to, from 0.
    #[serde(default)]
    pub replica_set: usize,
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

/// Settles split-brain: of one file or directory, or of all that the brick of [`Rule::SourceBrick`] (else every brick)
/// says is pending. What is not in split-brain is not touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settle {
    pub volume: String,
    pub rule: Rule,
    /// A path from the volume's root, or `gfid:` and a gfid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}
operation!(Settle, "heal/settle" -> Vec<Settled>);

/// Which copy is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The largest, if there is one.
    BiggerFile,
    /// The one modified last.
    LatestMtime,
    /// This brick's.
    SourceBrick(BrickRef),
}

/// What was tried for one entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// As asked for, or `gfid:` and the gfid.
    pub name: String,
    pub directory: bool,
    /// Why it was not settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<SettleFailure>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettleFailure {
    pub kind: SettleFailureKind,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettleFailureKind {
    /// It is not there, or cannot be looked at.
    Lookup,
    NotInSplitBrain,
    /// The rule does not choose here (no bigger file, no later one).
    NoChoice,
    Failed,
}

/// Compares the replicas of a volume beyond what the index says: names, gfids, types, modes, owners, links, sizes, times,
/// xattrs and content. Reads only. Takes as long as reading the volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verify {
    pub volume: String,
}
operation!(Verify, "heal/verify" -> Verified);

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    pub names: u64,
    /// Content compared, per copy.
    pub bytes: u64,
    pub differences: Vec<Difference>,
    /// There are more than are listed.
    pub more: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    pub path: String,
    pub gfid: String,
    /// What differs, as the end of a sentence: `is missing`.
    pub what: String,
    /// The bricks that differ from the first one.
    pub on: Vec<BrickRef>,
    /// The changelogs know of it: it heals, or `heal info` tells why not.
    pub pending: bool,
}

/// The sweeps of the heal daemons, per brick, oldest first; the daemons remember the last ones of their lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    pub volume: String,
}
operation!(Statistics, "heal/statistics" -> Vec<BrickCrawls>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrickCrawls {
    pub brick: BrickRef,
    pub crawls: Vec<Crawl>,
}

/// One sweep of what a brick knows to be pending, or of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crawl {
    /// Of the whole tree, not of the index.
    pub full: bool,
    /// Seconds since 1970.
    pub began: u64,
    /// Seconds since 1970; `None` while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<u64>,
    pub healed: u64,
    pub split_brain: u64,
    pub failed: u64,
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
