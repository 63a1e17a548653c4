//! What is pending on a volume, settling its split-brains and comparing its replicas: by client connections of this
//! process (GlusterFS runs a program of its own for that, glfsheal).
//!
//! The connections are kept for a while, because such questions come in series.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mortar_api::heal::{
    BrickPending, Difference, Entry, EntryState, Rule, Settle, SettleFailure, SettleFailureKind, Settled, Verified,
};
use mortar_api::volume::BrickRef;
use mortar_api::{Error, ErrorKind};
use mortar_logic::heal::{Resolve, Verdict};
use mortar_logic::pool::{Brick, Volume};
use mortar_types::{Fops, SubvolId};
use mortar_volume::client::State;
use mortar_volume::graph::{Graph, GraphOptions, ReplicaSet};
use mortar_volume::heal;
use mortar_volume::heal::resolve::{self, Failure, Target};
use mortar_wire::volfile::Volfile;
use parking_lot::Mutex;

use crate::node::Node;
use crate::volgen;

/// A brick that has not accepted the connection by then is told as not connected.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Connections that no question has used for so long are closed.
const KEPT_IDLE: Duration = Duration::from_secs(30);
/// A volume with very much to heal answers with an error rather than never.
const INFO_TIMEOUT: Duration = Duration::from_secs(300);

/// Asks all bricks, in the volume's order.
///
/// # Errors
/// When the volume's own volfile cannot be run, or the bricks take too long.
pub(crate) async fn pending(node: &Node, volume: &Volume) -> Result<Vec<BrickPending>, Error> {
    let graph = node.heal_connections.graph(node, volume).await?;
    let asked = async {
        let mut answer = Vec::new();
        for (number, (set, bricks)) in sets(&graph, volume)?.into_iter().enumerate() {
            let found = heal::info::info(&set).await;
            answer.extend(found.into_iter().zip(bricks).map(|(pending, brick)| told(pending, brick, number)));
        }
        Ok(answer)
    };
    tokio::time::timeout(INFO_TIMEOUT, asked).await.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Unreachable, "The bricks take too long to tell what is pending."))
    })
}

/// Settles split-brain as `request` says.
///
/// # Errors
/// When the rule's brick is not the volume's, the target is nowhere, or bricks do not answer.
pub(crate) async fn settle(node: &Node, volume: &Volume, request: &Settle) -> Result<Vec<Settled>, Error> {
    let graph = node.heal_connections.graph(node, volume).await?;
    let sets = sets(&graph, volume)?;
    let Some(target) = &request.target else {
        let mut settled = Vec::new();
        for (set, bricks) in &sets {
            let Some((child, rule)) = rule_of(&request.rule, bricks) else { continue };
            let of_set = resolve::settle_all(set, child, rule).await.map_err(unreachable)?;
            settled.extend(of_set.into_iter().map(|one| {
                let name = format!("gfid:{}", one.gfid);
                outcome(name, one.is_directory, one.outcome.err())
            }));
        }
        return Ok(settled);
    };
    let asked = parse_target(target)?;
    let mut failure = Failure::Lookup(mortar_types::Errno::ENOENT);
    let mut rule_fits = false;
    for (set, bricks) in &sets {
        let Some((_, rule)) = rule_of(&request.rule, bricks) else { continue };
        rule_fits = true;
        match resolve::settle(set, &asked, rule).await {
            Ok(one) => return Ok(vec![outcome(target.clone(), one.is_directory, one.outcome.err())]),
            // Of a distributed volume it may be in another replica set.
            Err(other) => failure = other,
        }
    }
    if !rule_fits {
        return Err(Error::new(ErrorKind::Invalid, "The brick of source-brick is none of the volume's."));
    }
    Ok(vec![outcome(target.clone(), false, Some(failure))])
}

/// Compares the replicas of every set.
///
/// # Errors
/// When a brick is down.
pub(crate) async fn verify(node: &Node, volume: &Volume) -> Result<Verified, Error> {
    let graph = node.heal_connections.graph(node, volume).await?;
    let mut total = Verified::default();
    for (set, bricks) in sets(&graph, volume)? {
        let report = heal::verify::verify(&set).await.map_err(unreachable)?;
        total.names += report.names;
        total.bytes += report.bytes;
        total.more |= report.more;
        total.differences.extend(report.differences.into_iter().map(|difference| Difference {
            path: String::from_utf8_lossy(&difference.path).into_owned(),
            gfid: difference.gfid.to_string(),
            what: difference.kind.to_string(),
            on: difference.on.iter().map(|child| brick_ref(&bricks[child.0])).collect(),
            pending: difference.pending,
        }));
    }
    Ok(total)
}

fn unreachable(error: heal::Error) -> Error {
    Error::new(ErrorKind::Unreachable, error.to_string())
}

/// The child that the rule is about, and the rule for its set; `None`: the rule's brick is not in this set.
fn rule_of(rule: &Rule, bricks: &[Brick]) -> Option<(Option<SubvolId>, Resolve)> {
    match rule {
        Rule::BiggerFile => Some((None, Resolve::Size)),
        Rule::LatestMtime => Some((None, Resolve::Mtime)),
        Rule::SourceBrick(source) => {
            let at = bricks.iter().position(|brick| brick.host == source.host && brick.path == source.path)?;
            Some((Some(SubvolId(at)), Resolve::Child(SubvolId(at))))
        }
    }
}

fn parse_target(target: &str) -> Result<Target, Error> {
    match target.strip_prefix("gfid:") {
        Some(gfid) => gfid
            .parse()
            .map(Target::Gfid)
            .map_err(|_| Error::new(ErrorKind::Invalid, format!("{target}: no gfid; as in heal info: gfid:TEXT"))),
        None => Ok(Target::Path(target.to_owned().into())),
    }
}

fn outcome(name: String, directory: bool, failure: Option<Failure>) -> Settled {
    let failure = failure.map(|failure| SettleFailure {
        kind: match failure {
            Failure::Lookup(_) => SettleFailureKind::Lookup,
            Failure::NotInSplitBrain => SettleFailureKind::NotInSplitBrain,
            Failure::NoBiggerFile | Failure::NoDifferenceInMtime | Failure::NotForDirectories => {
                SettleFailureKind::NoChoice
            }
            Failure::Heal(_) => SettleFailureKind::Failed,
        },
        message: failure.to_string(),
    });
    Settled { name, directory, failure }
}

fn brick_ref(brick: &Brick) -> BrickRef {
    BrickRef { host: brick.host.clone(), path: brick.path.clone() }
}

/// Connections to volumes' bricks, kept from one question to the next.
#[derive(Default)]
pub(crate) struct Connections(Arc<Mutex<HashMap<String, Kept>>>);

struct Kept {
    volfile: String,
    graph: Arc<Graph>,
    used: Instant,
}

impl Connections {
    async fn graph(&self, node: &Node, volume: &Volume) -> Result<Arc<Graph>, Error> {
        let internal = |error: &dyn std::fmt::Display| Error::new(ErrorKind::Internal, error.to_string());
        let text = volgen::self_heal_daemon(volume)
            .ok_or_else(|| Error::new(ErrorKind::Invalid, format!("Volume {} does not heal", volume.name)))?;
        if let Some(kept) = self.kept(&volume.name, &text) {
            return Ok(kept);
        }
        let volfile: Volfile = Volfile::parse(&text).map_err(|error| internal(&error))?;
        let mut options = GraphOptions::new("glfsheal", format!("shd/{}", volume.name));
        options.glusterd_port = Some(node.options.port);
        let graph = Arc::new(Graph::build(&volfile, options).map_err(|error| internal(&error))?);
        settle_connections(&graph).await;
        if are_all_up(&graph) {
            self.keep(volume.name.clone(), text, Arc::clone(&graph));
        }
        Ok(graph)
    }

    /// A graph with a brick that is away is not used again: its next attempt may be later than the question.
    fn kept(&self, volume: &str, text: &str) -> Option<Arc<Graph>> {
        let mut by_volume = self.0.lock();
        let kept = by_volume.get_mut(volume)?;
        if kept.volfile != text || !are_all_up(&kept.graph) {
            by_volume.remove(volume);
            return None;
        }
        kept.used = Instant::now();
        Some(Arc::clone(&kept.graph))
    }

    fn keep(&self, volume: String, volfile: String, graph: Arc<Graph>) {
        let used = Instant::now();
        self.0.lock().insert(volume.clone(), Kept { volfile, graph, used });
        let kept = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(KEPT_IDLE).await;
                let Some(kept) = kept.upgrade() else { return };
                let mut by_volume = kept.lock();
                let is_idle = by_volume.get(&volume).is_none_or(|kept| kept.used.elapsed() >= KEPT_IDLE);
                if is_idle {
                    by_volume.remove(&volume);
                    return;
                }
            }
        });
    }
}

fn are_all_up(graph: &Graph) -> bool {
    graph.bricks().iter().all(|brick| matches!(*brick.state().borrow(), State::Up))
}

/// The replica sets as heal knows them, each with its bricks.
fn sets<'a>(graph: &Graph, volume: &'a Volume) -> Result<Vec<(heal::ReplicaSet, &'a [Brick])>, Error> {
    let groups = volume.bricks.chunks(volume.layout.group().max(1) as usize);
    let of_set = |(set, bricks): (&ReplicaSet, &'a [Brick])| {
        let children: Vec<Arc<dyn Fops>> = set.bricks.iter().map(|brick| Arc::clone(brick) as Arc<dyn Fops>).collect();
        heal::volfile::replica_set(&set.section, children.into())
            .map(|set| (set, bricks))
            .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))
    };
    graph.replica_sets().iter().zip(groups).map(of_set).collect()
}

/// Waits until each brick has accepted or refused.
async fn settle_connections(graph: &Graph) {
    let waits = graph.bricks().iter().map(|brick| {
        let mut state = brick.state();
        async move {
            // A client that is gone is as good as one that refused.
            let _ = state.wait_for(|state| !matches!(state, State::Connecting)).await;
        }
    });
    // Who is late is told as not connected.
    let _ = tokio::time::timeout(CONNECT_TIMEOUT, futures::future::join_all(waits)).await;
}

fn told(pending: heal::info::BrickPending, brick: &Brick, replica_set: usize) -> BrickPending {
    BrickPending {
        brick: brick_ref(brick),
        host_uuid: brick.node,
        connected: pending.connected,
        replica_set,
        entries: pending
            .entries
            .into_iter()
            .filter(|entry| entry.verdict != Verdict::NoHeal)
            .map(|entry| Entry {
                gfid: entry.gfid.to_string(),
                path: entry.path.map(|path| String::from_utf8_lossy(&path).into_owned()),
                state: match entry.verdict {
                    Verdict::SplitBrain | Verdict::SplitBrainPending => EntryState::SplitBrain,
                    Verdict::PossiblyHealing | Verdict::PossiblyHealingPending => EntryState::PossiblyHealing,
                    Verdict::NoHeal | Verdict::Heal | Verdict::HealPending => EntryState::Pending,
                },
                why: entry.why,
            })
            .collect(),
    }
}
