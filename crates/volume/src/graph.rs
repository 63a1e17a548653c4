//! From a volfile to a running stack of layers.
//!
//! Each section of the volfile becomes a layer over the layers of its subvolumes; the last section is the top. Types
//! whose work the layers here do in another way, or that only cache, are passed through. A type that is not known is
//! an error, as is one that would show wrong data when left out (sharding).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::select_all;
use mortar_types::Fops;
use mortar_wire::volfile::{Volfile, VolfileVolume};

use crate::client::{BrickClient, ConnectError, Identity, Options as ClientOptions, OptionsError, State, is_on};
use crate::distribute::Distribute;
use crate::heal;
use crate::quick_read::{self, QuickRead};
use crate::read_only::ReadOnly;
use crate::replicate::{self, Replicate};
use crate::utime::Utime;

/// A mount does not wait longer than this for bricks whose host says that they do not run.
const NOT_RUNNING_GRACE: Duration = Duration::from_secs(1);

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
    QuickRead(#[from] quick_read::OptionsError),
    #[error("volume {name}: type {kind} is not known")]
    UnknownType { name: String, kind: String },
    #[error("volume {name}: {what} is not served yet")]
    NotServed { name: String, what: &'static str },
    #[error("volume {name}: type {kind} needs {expected}, the volfile gives it {found} subvolumes")]
    Subvolumes { name: String, kind: String, expected: &'static str, found: usize },
    /// For [`Graph::reconfigure`]: a new graph must be built.
    #[error("the volfile stacks other layers than the running ones")]
    OtherTopology,
}

/// Why the top of a graph is not up.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WaitError {
    /// No brick can be reached, and waiting does not help; one of the reasons.
    #[error("{0}")]
    Hopeless(ConnectError),
    #[error("the bricks did not come up within {waited:?}: {}", last_error.as_ref().map_or_else(|| "no answer yet".to_owned(), ToString::to_string))]
    Timeout { waited: Duration, last_error: Option<ConnectError> },
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
    identity: Identity,
    bricks: Vec<Arc<BrickClient>>,
    sets: Vec<ReplicaSet>,
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Graph").field("top", &self.top.name()).field("bricks", &self.bricks).finish_non_exhaustive()
    }
}

impl Graph {
    /// Builds the layers; the bricks begin to connect. Must be called within a tokio runtime.
    pub fn build(volfile: &Volfile, options: GraphOptions) -> Result<Self, GraphError> {
        let identity = Identity::of_process(hostname());
        let mut builder = Builder {
            options: &options,
            identity: &identity,
            layers: HashMap::new(),
            sets: Vec::new(),
            bricks: Vec::new(),
            open_behind: volfile.volumes.iter().find(|section| section.kind == "performance/open-behind"),
        };
        // Everything is checked before the first brick is contacted.
        for section in &volfile.volumes {
            builder.check(section)?;
        }
        for section in &volfile.volumes {
            builder.add(section)?;
        }
        let top =
            volfile.top().and_then(|section| builder.layers.remove(section.name.as_str())).ok_or(GraphError::Empty)?;
        let Builder { sets, bricks, .. } = builder;
        if bricks.is_empty() {
            return Err(GraphError::Empty);
        }
        Ok(Self { top: top.fops, volfile: volfile.clone(), options, identity, bricks, sets })
    }

    /// From now on, what operations find unequal is healed in the background. For who serves applications; who only
    /// asks about a volume does not call this.
    pub fn heal_on_access(&self) -> Result<(), heal::volfile::Error> {
        heal::hook::attach(&self.sets)
    }

    /// All brick connections, in the volfile's order.
    pub fn bricks(&self) -> &[Arc<BrickClient>] {
        &self.bricks
    }

    pub fn replica_sets(&self) -> &[ReplicaSet] {
        &self.sets
    }

    pub const fn volfile(&self) -> &Volfile {
        &self.volfile
    }

    /// Takes the options of a volfile that stacks the same layers. Brick connections that lead elsewhere now are made
    /// anew; other layers keep their options.
    pub fn reconfigure(&mut self, volfile: &Volfile) -> Result<(), GraphError> {
        if !self.volfile.same_topology(volfile) {
            return Err(GraphError::OtherTopology);
        }
        let clients = volfile.volumes.iter().filter(|section| section.kind == "protocol/client");
        let new = clients
            .map(|section| client_options(section, &self.options, &self.identity))
            .collect::<Result<Vec<_>, _>>()?;
        for (brick, options) in self.bricks.iter().zip(new) {
            brick.reconfigure(options);
        }
        self.volfile = volfile.clone();
        Ok(())
    }

    /// Waits until the top serves and no brick is still making its first attempt, at most `timeout`.
    pub async fn wait_up(&self, timeout: Duration) -> Result<(), WaitError> {
        let start = Instant::now();
        let mut states: Vec<_> = self.bricks.iter().map(|brick| brick.state()).collect();
        loop {
            let now: Vec<State> = states.iter_mut().map(|state| state.borrow_and_update().clone()).collect();
            let connecting = now.contains(&State::Connecting);
            if self.top.is_up() && (!connecting || start.elapsed() >= NOT_RUNNING_GRACE) {
                return Ok(());
            }
            let waited = start.elapsed();
            if let Some(error) = hopeless(&now, waited) {
                return Err(WaitError::Hopeless(error));
            }
            if waited >= timeout {
                let last_error = now.iter().find_map(error_of);
                return Err(WaitError::Timeout { waited, last_error });
            }
            // Looked at again after a short time also without a change: the grace may have passed.
            let next = (timeout - waited).min(Duration::from_millis(100));
            let changes = states.iter_mut().map(|state| Box::pin(state.changed()));
            let _ = tokio::time::timeout(next, select_all(changes)).await;
        }
    }
}

fn error_of(state: &State) -> Option<ConnectError> {
    match state {
        State::Down(error) => Some(error.clone()),
        State::Connecting | State::Up => None,
    }
}

/// The error of one brick when all have one that time does not cure.
fn hopeless(states: &[State], waited: Duration) -> Option<ConnectError> {
    let lasting = |error: &ConnectError| match error {
        ConnectError::AuthFailed { .. } | ConnectError::OtherVolume { .. } | ConnectError::WrongProgram { .. } => true,
        ConnectError::NotRunning { .. } => waited >= NOT_RUNNING_GRACE,
        _ => false,
    };
    let errors: Vec<ConnectError> = states.iter().filter_map(error_of).collect();
    // One refusal is enough: the others of the volume would refuse as well (GlusterFS's clients exit on the first).
    if let Some(refused) = errors.iter().find(|error| matches!(error, ConnectError::AuthFailed { .. })) {
        return Some(refused.clone());
    }
    let all = errors.len() == states.len() && errors.iter().all(lasting);
    if all { errors.into_iter().next() } else { None }
}

fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn client_options(
    section: &VolfileVolume,
    options: &GraphOptions,
    identity: &Identity,
) -> Result<ClientOptions, OptionsError> {
    let mut client = ClientOptions::from_volfile(section, identity)?;
    client.process_name.clone_from(&options.process_name);
    client.volfile_key.clone_from(&options.volfile_key);
    client.subdir.clone_from(&options.subdir);
    if let Some(ping_timeout) = options.ping_timeout {
        client.ping_timeout = ping_timeout;
    }
    if let Some(port) = options.glusterd_port {
        client.glusterd_port = port;
    }
    Ok(client)
}

/// What a section's type becomes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Client,
    Replicate,
    Distribute,
    Utime,
    /// Also does the work of `performance/open-behind`.
    QuickRead,
    ReadOnly,
    /// Nothing of its own.
    PassThrough,
    NotServed(&'static str),
    Unknown,
}

impl Kind {
    fn of(section: &VolfileVolume) -> Self {
        match section.kind.as_str() {
            "protocol/client" => Self::Client,
            "cluster/replicate" => Self::Replicate,
            "cluster/distribute" if section.subvolumes.len() > 1 => {
                Self::NotServed("distribution over more than one subvolume")
            }
            "cluster/distribute" => Self::Distribute,
            "cluster/disperse" => Self::NotServed("erasure coding (disperse)"),
            "features/shard" => Self::NotServed("sharding"),
            "features/cdc" => Self::NotServed("compression (cdc)"),
            "features/cloudsync" => Self::NotServed("cloudsync"),
            "features/utime" => Self::Utime,
            "performance/quick-read" => Self::QuickRead,
            "features/read-only" if section.option("read-only").is_none_or(is_on) => Self::ReadOnly,
            "features/read-only"
            | "features/quiesce"
            | "features/snapview-client"
            | "debug/io-stats"
            | "debug/error-gen"
            | "debug/trace"
            | "debug/delay-gen"
            | "meta"
            | "meta-autoload"
            | "system/posix-acl"
            | "performance/write-behind"
            | "performance/read-ahead"
            | "performance/readdir-ahead"
            | "performance/io-cache"
            | "performance/open-behind"
            | "performance/nl-cache"
            | "performance/md-cache"
            | "performance/io-threads"
            | "performance/stat-prefetch" => Self::PassThrough,
            _ => Self::Unknown,
        }
    }
}

#[derive(Clone)]
struct Layer {
    fops: Arc<dyn Fops>,
    /// When it is a brick connection itself.
    brick: Option<Arc<BrickClient>>,
}

struct Builder<'a> {
    options: &'a GraphOptions,
    identity: &'a Identity,
    layers: HashMap<&'a str, Layer>,
    sets: Vec<ReplicaSet>,
    bricks: Vec<Arc<BrickClient>>,
    open_behind: Option<&'a VolfileVolume>,
}

impl<'a> Builder<'a> {
    /// Everything that can be wrong with a section, without making its layer.
    fn check(&self, section: &VolfileVolume) -> Result<(), GraphError> {
        let (name, kind) = (section.name.clone(), section.kind.clone());
        let found = section.subvolumes.len();
        let expected = match Kind::of(section) {
            Kind::Unknown => return Err(GraphError::UnknownType { name, kind }),
            Kind::NotServed(what) => return Err(GraphError::NotServed { name, what }),
            Kind::Client => {
                client_options(section, self.options, self.identity)?;
                if found == 0 { return Ok(()) } else { "none" }
            }
            Kind::Replicate => {
                replicate::Options::from_volfile(section)?;
                return Ok(());
            }
            Kind::PassThrough => {
                // heald's volfiles end in one that collects all replica sets.
                if found > 0 { return Ok(()) } else { "at least one" }
            }
            Kind::QuickRead => {
                quick_read::Options::from_volfile(section, self.open_behind)?;
                if found == 1 { return Ok(()) } else { "one" }
            }
            Kind::Distribute | Kind::Utime | Kind::ReadOnly => {
                if found == 1 {
                    return Ok(());
                } else {
                    "one"
                }
            }
        };
        Err(GraphError::Subvolumes { name, kind, expected, found })
    }

    /// Makes a checked section's layer.
    fn add(&mut self, section: &'a VolfileVolume) -> Result<(), GraphError> {
        let name = section.name.as_str();
        // The volfile's parser has seen that each is defined before.
        let below: Vec<Layer> =
            section.subvolumes.iter().filter_map(|child| self.layers.get(child.as_str()).cloned()).collect();
        let first = |below: &[Layer]| below.first().cloned().ok_or(GraphError::Empty);
        let over = |make: fn(&str, Arc<dyn Fops>) -> Arc<dyn Fops>| {
            Ok::<_, GraphError>(Layer { fops: make(name, first(&below)?.fops), brick: None })
        };
        let layer = match Kind::of(section) {
            Kind::Client => {
                let brick = BrickClient::new(client_options(section, self.options, self.identity)?);
                self.bricks.push(Arc::clone(&brick));
                Layer { fops: Arc::clone(&brick) as Arc<dyn Fops>, brick: Some(brick) }
            }
            Kind::Replicate => self.replicate(section, &below)?,
            Kind::Distribute => over(|name, child| Distribute::new(name, child))?,
            Kind::Utime => over(|name, child| Utime::new(name, child))?,
            Kind::QuickRead => {
                let options = quick_read::Options::from_volfile(section, self.open_behind)?;
                Layer { fops: QuickRead::new(options, first(&below)?.fops), brick: None }
            }
            Kind::ReadOnly => over(|name, child| ReadOnly::new(name, child))?,
            Kind::PassThrough => first(&below)?,
            Kind::NotServed(_) | Kind::Unknown => {
                return Err(GraphError::UnknownType { name: name.to_owned(), kind: section.kind.clone() });
            }
        };
        self.layers.insert(name, layer);
        Ok(())
    }

    fn replicate(&mut self, section: &VolfileVolume, below: &[Layer]) -> Result<Layer, GraphError> {
        let options = replicate::Options::from_volfile(section)?;
        let layer = Replicate::new(options, below.iter().map(|child| Arc::clone(&child.fops)).collect());
        let bricks = below.iter().filter_map(|child| child.brick.clone()).collect();
        self.sets.push(ReplicaSet { section: section.clone(), layer: Arc::clone(&layer), bricks });
        Ok(Layer { fops: layer, brick: None })
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
            include_str!("../../wire/tests/fixtures/volfiles/replica2.client.vol"),
            include_str!("../../wire/tests/fixtures/volfiles/replica3.client.vol"),
            include_str!("../../wire/tests/fixtures/volfiles/arbiter.client.vol"),
        ];
        for (text, bricks) in fixtures.into_iter().zip([2, 3, 3]) {
            let graph = build(text).unwrap();
            assert_eq!((graph.bricks().len(), graph.replica_sets().len()), (bricks, 1));
            assert_eq!(graph.replica_sets()[0].bricks.len(), bricks);
            assert!(!graph.top.is_up());
        }
        let shd = build(include_str!("../../wire/tests/fixtures/volfiles/distributed-replicate.shd.vol")).unwrap();
        assert_eq!((shd.bricks().len(), shd.replica_sets().len()), (4, 2));
        let single = build(include_str!("../../wire/tests/fixtures/volfiles/single-brick.client.vol")).unwrap();
        assert_eq!((single.bricks().len(), single.replica_sets().len()), (1, 0));
    }

    #[tokio::test]
    async fn what_cannot_be_served_gets_a_sentence() {
        let fixture = include_str!("../../wire/tests/fixtures/volfiles/distributed-replicate.client.vol");
        assert_eq!(sentence(fixture), "volume dr-dht: distribution over more than one subvolume is not served yet");
        let fixture = include_str!("../../wire/tests/fixtures/volfiles/disperse.client.vol");
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
    async fn options_change_in_place_layers_do_not() {
        let mut graph = build(CLIENT).unwrap();
        let changed = Volfile::parse(&CLIENT.replace("remote-port 1", "remote-port 2")).unwrap();
        graph.reconfigure(&changed).unwrap();
        assert_eq!(graph.volfile(), &changed);
        let other = Volfile::parse(&CLIENT.replace("volume c", "volume d")).unwrap();
        assert!(matches!(graph.reconfigure(&other), Err(GraphError::OtherTopology)));
    }

    #[tokio::test]
    async fn waiting_ends_with_the_reason() {
        let graph = build(CLIENT).unwrap();
        let error = graph.wait_up(Duration::from_millis(50)).await.unwrap_err();
        assert!(error.to_string().contains("cannot connect to 127.0.0.1:1"), "{error}");
    }

    #[test]
    fn one_refusal_is_hopeless_a_brick_that_is_away_is_not() {
        let refused =
            ConnectError::AuthFailed { host: "h".into(), brick: "/b".into(), text: "Authentication failed".into() };
        let away = ConnectError::Timeout { endpoint: "h:1".into() };
        let stopped = ConnectError::NotRunning { host: "h".into(), brick: "/b".into() };
        let down = |error: &ConnectError| State::Down(error.clone());
        assert_eq!(hopeless(&[State::Connecting, down(&refused)], Duration::ZERO), Some(refused));
        assert_eq!(hopeless(&[down(&away), down(&stopped)], Duration::from_secs(9)), None);
        assert_eq!(hopeless(&[down(&stopped)], Duration::ZERO), None);
        assert_eq!(hopeless(&[down(&stopped)], NOT_RUNNING_GRACE), Some(stopped));
    }
}
