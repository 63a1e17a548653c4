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
}

impl Volume {
    /// The value of an option that was set.
    pub fn option(&self, key: &str) -> Option<&str> {
        self.options.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// The place among its group's bricks that the brick has.
    pub fn place_in_group(&self, index: usize) -> usize {
        index % (self.layout.group().max(1) as usize)
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
