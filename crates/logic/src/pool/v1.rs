//! The configuration as it is stored in the log and in snapshots, version 1. Fields are only ever added, with a default.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Everything the members agree on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Made by the pool's first member; a node belongs to one pool.
    pub pool_id: Uuid,
    pub members: BTreeMap<Uuid, Member>,
    /// By name, which is the order `volume info` prints them in.
    pub volumes: BTreeMap<String, Volume>,
    /// Options set on `all`, in the order they were set.
    pub global_options: Vec<(String, String)>,
    /// Members that were detached while they may have been away; told so when they come back.
    pub removed: BTreeSet<Uuid>,
    /// Ids that the pool had before it was recovered from a lost majority; members that still hold one join again.
    #[serde(default)]
    pub previous_pools: BTreeSet<Uuid>,
    /// Counts the applied commands that changed something.
    pub revision: u64,
}

/// Sets an option; a changed one keeps its place.
pub(super) fn put(options: &mut Vec<(String, String)>, key: &str, value: &str) {
    match options.iter_mut().find(|(known, _)| known == key) {
        Some((_, slot)) => value.clone_into(slot),
        None => options.push((key.to_owned(), value.to_owned())),
    }
}

/// A node of the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub uuid: Uuid,
    /// The name it was probed by.
    pub hostname: String,
    /// Further names and addresses it is known by.
    pub other_names: Vec<String>,
    /// Where its pool port listens.
    pub peer_port: u16,
    /// Where its volfile server listens.
    pub port: u16,
}

impl Member {
    /// Whether it is known by this name (names compare without case, as DNS does).
    pub fn is_named(&self, name: &str) -> bool {
        self.names().any(|known| known.eq_ignore_ascii_case(name))
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.hostname.as_str()).chain(self.other_names.iter().map(String::as_str))
    }
}

/// A volume's life: created, then started and stopped any number of times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    Created,
    Started,
    Stopped,
}

/// How bricks hold the data; brick order is subvolume order, consecutive groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Layout {
    Distribute,
    /// The last `arbiter` bricks (0 or 1) of each group of `replica` hold no data.
    Replicate {
        replica: u32,
        arbiter: u32,
    },
    Disperse {
        data: u32,
        redundancy: u32,
    },
}

impl Layout {
    /// Bricks per subvolume.
    pub const fn group(self) -> u32 {
        match self {
            Self::Distribute => 1,
            Self::Replicate { replica, .. } => replica,
            Self::Disperse { data, redundancy } => data.saturating_add(redundancy),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub name: String,
    pub id: Uuid,
    pub state: VolumeState,
    pub layout: Layout,
    pub bricks: Vec<Brick>,
    /// Options that were set, at creation or by the admin; newest last, a changed one keeps its place.
    pub options: Vec<(String, String)>,
    /// Login of trusted clients: `auth.login.USERNAME.password` in the brick's volfile.
    pub username: Uuid,
    pub password: Uuid,
    /// Number of the next brick to be added; never goes back, because the changelog xattrs are named by it.
    pub next_brick: u32,
    /// Bumped at each change.
    pub version: u64,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// The rebalance or removal of bricks that runs, or the last one.
    #[serde(default)]
    pub task: Option<Task>,
}

impl Volume {
    /// The value of an option that was set.
    pub fn option(&self, key: &str) -> Option<&str> {
        self.options.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// Sets an option; a changed one keeps its place.
    pub(super) fn put(&mut self, key: &str, value: &str) {
        put(&mut self.options, key, value);
    }

    /// The place among its group's bricks that the brick has.
    pub fn place_in_group(&self, index: usize) -> usize {
        index % (self.layout.group().max(1) as usize)
    }

    /// How many subvolumes files are distributed over.
    pub fn subvolumes(&self) -> usize {
        self.bricks.len() / (self.layout.group().max(1) as usize)
    }

    /// A rebalance or a removal that nodes work on.
    pub fn task_in_progress(&self) -> Option<&Task> {
        self.task.as_ref().filter(|task| task.state == TaskState::InProgress)
    }

    /// Bricks are leaving and the admin has neither committed that nor stopped it.
    pub fn is_removing(&self) -> bool {
        self.bricks.iter().any(|brick| brick.decommissioned)
    }

    pub const fn is_replicate(&self) -> bool {
        matches!(self.layout, Layout::Replicate { .. })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brick {
    /// As the admin typed it.
    pub host: String,
    /// The member that owns it.
    pub node: Uuid,
    pub path: String,
    /// `VOL-client-K`.
    pub brick_id: String,
    pub arbiter: bool,
    /// Its data is moving away.
    #[serde(default)]
    pub decommissioned: bool,
    /// Out of service until the admin brings it back (`reset-brick`).
    #[serde(default)]
    pub reset: bool,
}

/// A job that moves files between subvolumes, in parts: one for each node with bricks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    pub id: Uuid,
    pub mode: TaskMode,
    /// Only this directory and what is below it.
    #[serde(default)]
    pub path: Option<String>,
    #[serde(default)]
    pub dry_run: bool,
    /// Goes on when told to.
    #[serde(default)]
    pub paused: bool,
    pub state: TaskState,
    /// Each participant's part, as far as the pool has been told.
    pub nodes: BTreeMap<Uuid, NodePart>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskMode {
    FixLayout,
    Rebalance,
    Force,
    /// Everything leaves the decommissioned bricks.
    Decommission,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskState {
    #[default]
    InProgress,
    Stopped,
    Completed,
    Failed,
}

impl TaskState {
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::InProgress)
    }
}

/// What a node has done; counters are there once it has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePart {
    pub state: TaskState,
    pub files: u64,
    pub bytes: u64,
    pub lookups: u64,
    pub failures: u64,
    pub skipped: u64,
    pub elapsed_ms: u64,
}
