//! From a volfile to a running stack of layers.
//!
//! Each section of the volfile becomes a layer over the layers of its subvolumes; the last section is the top. A type
//! that is not known is an error. A graph does not change; [`Graph::plan`] begins the one that takes its place, and
//! [`crate::switch`] changes over while applications go on.

mod build;
mod kind;
mod wait;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mortar_types::Fops;
use mortar_wire::volfile::{Volfile, VolfileVolume};

use crate::client::{BrickClient, OptionsError};
use crate::distribute::{self, Distribute};
use crate::heal;
use crate::replicate::{self, Replicate};
use crate::section::BadValue;

pub use build::Plan;
pub(crate) use build::is_same;
pub use wait::WaitError;

/// What the process adds to the volfile.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GraphOptions {
    /// What bricks show as the client's kind: `fuse`, `glustershd`.
    pub process_name: String,
    /// What the volfile was asked by, such as `/imap0`.
    pub volfile_key: String,
    /// The directory that becomes the root.
    pub subdir: Option<String>,
    /// Instead of the volfile's `ping-timeout`; finer than its seconds.
    pub ping_timeout: Option<Duration>,
    /// Where the bricks' hosts are asked for ports, when not at 24007.
    pub glusterd_port: Option<u16>,
}

impl GraphOptions {
    pub fn new(process_name: impl Into<String>, volfile_key: impl Into<String>) -> Self {
        Self {
            process_name: process_name.into(),
            volfile_key: volfile_key.into(),
            subdir: None,
            ping_timeout: None,
            glusterd_port: None,
        }
    }
}

/// Why a volfile cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    #[error("the volfile is empty")]
    Empty,
    #[error(transparent)]
    Client(#[from] OptionsError),
    #[error(transparent)]
    Replicate(#[from] replicate::OptionsError),
    #[error(transparent)]
    Distribute(#[from] distribute::OptionsError),
    #[error(transparent)]
    QuickRead(#[from] BadValue),
    #[error("volume {name}: type {kind} is not known")]
    UnknownType { name: String, kind: String },
    #[error("volume {name}: {what} is not served yet")]
    NotServed { name: String, what: &'static str },
    #[error("volume {name}: type {kind} needs {expected}, the volfile gives it {found} subvolumes")]
    Subvolumes { name: String, kind: String, expected: &'static str, found: usize },
}

/// One replica set of a graph.
#[derive(Clone)]
pub struct ReplicaSet {
    pub section: VolfileVolume,
    pub layer: Arc<Replicate>,
    /// In the order of the section's subvolumes.
    pub bricks: Vec<Arc<BrickClient>>,
}

/// A running stack. Dropping it (and every handle of its top) ends its connections.
pub struct Graph {
    /// What a mount sends its fops to. A volfile whose last section only collects subvolumes (heald's) has its first
    /// subvolume here; use [`Self::replica_sets`].
    pub top: Arc<dyn Fops>,
    volfile: Volfile,
    options: GraphOptions,
    bricks: Vec<Arc<BrickClient>>,
    sets: Vec<ReplicaSet>,
    /// By the name of their sections, for the graph that takes this one's place.
    layers: HashMap<String, build::Layer>,
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Graph").field("top", &self.top.name()).field("bricks", &self.bricks).finish_non_exhaustive()
    }
}

impl Graph {
    /// Builds the layers; the bricks begin to connect. Must be called within a tokio runtime.
    pub fn build(volfile: &Volfile, options: GraphOptions) -> Result<Self, GraphError> {
        Plan::new(volfile, options, None)?.finish(None)
    }

    /// Begins the graph that is to take this one's place: bricks that both have are shared from now on, with the new
    /// volfile's options, and new ones begin to connect.
    pub fn plan(&self, volfile: &Volfile) -> Result<Plan, GraphError> {
        Plan::new(volfile, self.options.clone(), Some(self))
    }

    /// From now on, what operations find unequal is healed in the background. For who serves applications; who only
    /// asks about a volume does not call this.
    pub fn heal_on_access(&self) -> Result<(), heal::volfile::Error> {
        heal::hook::attach(&self.sets)
    }

    /// As [`Self::heal_on_access`], for the replica sets that `before` did not have.
    pub fn heal_new_on_access(&self, before: &Self) -> Result<(), heal::volfile::Error> {
        let is_new = |set: &&ReplicaSet| !before.sets.iter().any(|old| Arc::ptr_eq(&old.layer, &set.layer));
        heal::hook::attach(&self.sets.iter().filter(is_new).cloned().collect::<Vec<_>>())
    }

    /// All brick connections, in the volfile's order.
    pub fn bricks(&self) -> &[Arc<BrickClient>] {
        &self.bricks
    }

    pub fn replica_sets(&self) -> &[ReplicaSet] {
        &self.sets
    }

    /// The distribute layer, for who rebalances.
    pub fn distribute(&self) -> Option<&Arc<Distribute>> {
        self.layers.values().find_map(|layer| layer.distribute.as_ref())
    }

    pub const fn volfile(&self) -> &Volfile {
        &self.volfile
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(text: &str) -> Result<Graph, GraphError> {
        Graph::build(&Volfile::parse(text).unwrap(), GraphOptions::new("fuse", "/v"))
    }

    fn sentence(text: &str) -> String {
        build(text).unwrap_err().to_string()
    }

    const CLIENT: &str = "volume c\n type protocol/client\n option remote-host 127.0.0.1\n option remote-port 1\n \
                          option remote-subvolume /b\nend-volume\n";

    #[tokio::test]
    async fn real_volfiles_of_replicated_volumes_become_graphs() {
        let fixtures = [
            include_str!("../../../wire/tests/fixtures/volfiles/replica2.client.vol"),
            include_str!("../../../wire/tests/fixtures/volfiles/replica3.client.vol"),
            include_str!("../../../wire/tests/fixtures/volfiles/arbiter.client.vol"),
        ];
        for (text, bricks) in fixtures.into_iter().zip([2, 3, 3]) {
            let graph = build(text).unwrap();
            assert_eq!((graph.bricks().len(), graph.replica_sets().len()), (bricks, 1));
            assert_eq!(graph.replica_sets()[0].bricks.len(), bricks);
            assert!(!graph.top.is_up());
        }
        let both =
            build(include_str!("../../../wire/tests/fixtures/volfiles/distributed-replicate.client.vol")).unwrap();
        assert_eq!((both.bricks().len(), both.replica_sets().len()), (4, 2));
        assert_eq!(both.distribute().map(|layer| layer.subvolumes().len()), Some(2));
        let shd = build(include_str!("../../../wire/tests/fixtures/volfiles/distributed-replicate.shd.vol")).unwrap();
        assert_eq!((shd.bricks().len(), shd.replica_sets().len()), (4, 2));
        let single = build(include_str!("../../../wire/tests/fixtures/volfiles/single-brick.client.vol")).unwrap();
        assert_eq!((single.bricks().len(), single.replica_sets().len()), (1, 0));
    }

    #[tokio::test]
    async fn what_cannot_be_served_gets_a_sentence() {
        let fixture = include_str!("../../../wire/tests/fixtures/volfiles/disperse.client.vol");
        assert!(sentence(fixture).ends_with("erasure coding (disperse) is not served yet"));
        let over = |kind: &str, below: &str| format!("{CLIENT}volume t\n type {kind}\n{below}end-volume\n");
        assert_eq!(sentence(&over("features/magic", " subvolumes c\n")), "volume t: type features/magic is not known");
        assert_eq!(
            sentence(&over("features/utime", "")),
            "volume t: type features/utime needs one, the volfile gives it 0 subvolumes"
        );
        assert!(sentence(&over("features/shard", " subvolumes c\n")).contains("sharding"));
        assert!(sentence("volume c\n type protocol/client\nend-volume").contains("remote-host is missing"));
    }

    #[tokio::test]
    async fn a_graph_takes_over_what_is_the_same() {
        let replica3 = include_str!("../../../wire/tests/fixtures/volfiles/replica3.client.vol");
        let before = build(replica3).unwrap();
        let next = |text: &str| before.plan(&Volfile::parse(text).unwrap()).unwrap();
        let plan = next(&replica3.replace("cache-timeout 1", "cache-timeout 2"));
        assert_eq!(plan.replaced(&before).count(), 0);
        let same = plan.finish(Some(&before)).unwrap();
        assert!(Arc::ptr_eq(&same.replica_sets()[0].layer, &before.replica_sets()[0].layer));
        // The afr section differs: the layer is made anew over the same connections.
        let plan = next(
            &replica3
                .replace("option use-compound-fops off", "option use-compound-fops off\n    option eager-lock off"),
        );
        assert_eq!(plan.replaced(&before).count(), 1);
        let other = plan.finish(Some(&before)).unwrap();
        assert!(!Arc::ptr_eq(&other.replica_sets()[0].layer, &before.replica_sets()[0].layer));
        for (old, new) in before.bricks().iter().zip(other.bricks()) {
            assert!(Arc::ptr_eq(old, new));
        }
    }

    #[tokio::test]
    async fn another_brick_is_another_connection_and_a_renamed_one_is_not() {
        let before = build(CLIENT).unwrap();
        let next = |text: &str| before.plan(&Volfile::parse(text).unwrap()).unwrap().finish(Some(&before)).unwrap();
        let renamed = next(&CLIENT.replace("volume c", "volume d"));
        assert!(Arc::ptr_eq(&before.bricks()[0], &renamed.bricks()[0]));
        let replaced = next(&CLIENT.replace("remote-subvolume /b", "remote-subvolume /c"));
        assert!(!Arc::ptr_eq(&before.bricks()[0], &replaced.bricks()[0]));
    }

    #[tokio::test]
    async fn waiting_ends_with_the_reason() {
        let graph = build(CLIENT).unwrap();
        let error = graph.wait_up(Duration::from_millis(50)).await.unwrap_err();
        assert!(error.to_string().contains("cannot connect to 127.0.0.1:1"), "{error}");
    }
}
