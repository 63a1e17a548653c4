//! The pool's consensus: openraft over a redb file, with the state machine of `mortar_logic::pool`.

mod database;
mod log;
mod machine;
mod network;

use std::io::Cursor;
use std::sync::Arc;

use mortar_logic::pool::{Applied, Command, Refusal};
use openraft::{BasicNode, Config, SnapshotPolicy};
use uuid::Uuid;

pub(crate) use database::Database;
pub use database::DatabaseError;
pub(crate) use machine::View;
pub(crate) use network::{APPEND, Network, SNAPSHOT, VOTE};

openraft::declare_raft_types!(
    /// Our consensus: commands in, their outcome out; members are known by their uuid.
    pub(crate) TypeConfig:
        D = Command,
        R = Outcome,
        NodeId = Uuid,
        Node = BasicNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = Cursor<Vec<u8>>,
);

/// What applying an entry answers. Entries without a command (membership, a new leader's first) change nothing.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Outcome(pub Result<Applied, Refusal>);

pub(crate) type Raft = openraft::Raft<TypeConfig>;
pub(crate) type Metrics = openraft::RaftMetrics<Uuid, BasicNode>;

/// Milliseconds between a leader's heartbeats.
const HEARTBEAT_MS: u64 = 250;
/// A follower that hears nothing for a time in this range stands for election. A busy two-core machine must not
/// change leaders all the time.
const ELECTION_MS: std::ops::Range<u64> = 1000..2000;
/// A snapshot is taken after so many entries, and so many are kept behind it for members that were away.
const SNAPSHOT_ENTRIES: u64 = 1000;

/// Starts the consensus over a database that may hold an earlier life of it.
///
/// # Errors
/// When the database cannot be read.
pub(crate) async fn start(
    id: Uuid,
    database: &Database,
    network: Network,
    view: tokio::sync::watch::Sender<Arc<View>>,
) -> Result<Raft, openraft::error::Fatal<Uuid>> {
    let config = Config {
        cluster_name: "mortar".to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS.start,
        election_timeout_max: ELECTION_MS.end,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_ENTRIES),
        max_in_snapshot_log_to_keep: SNAPSHOT_ENTRIES,
        ..Config::default()
    };
    let machine = machine::Machine::new(database.clone(), view);
    Raft::new(id, Arc::new(config), network, log::Log::new(database.clone()), machine).await
}

/// The state as stored, before any consensus runs: what is served right after a restart.
///
/// # Errors
/// When the database cannot be read.
pub(crate) fn stored_view(database: &Database) -> Result<View, DatabaseError> {
    Ok(database.machine()?.map_or_else(View::default, |stored| View {
        applied_index: stored.applied.map_or(0, |id| id.index),
        state: stored.state,
    }))
}
