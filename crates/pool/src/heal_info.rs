//! What is pending on a volume, settling its split-brains and comparing its replicas: by client connections of this
//! process (GlusterFS runs a program of its own for that, glfsheal).

use std::sync::Arc;
use std::time::Duration;

use mortar_api::heal::{
    BrickPending, Difference, Entry, EntryState, Rule, Settle, SettleFailure, SettleFailureKind, Settled, Verified,
};
use mortar_api::volume::BrickRef;
use mortar_api::{Error, ErrorKind};
use mortar_logic::heal::{Resolve, Verdict};
use mortar_logic::pool::{Brick, Volume};
use mortar_types::{Fops, SubvolId};
use mortar_volume::graph::{Graph, ReplicaSet};
use mortar_volume::heal;
use mortar_volume::heal::resolve::{self, Failure, Target};

use crate::heal_words::Words;
use crate::node::Node;
use crate::supervisor::heals;

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
            let connected: Vec<bool> = found.iter().map(|of_brick| of_brick.connected).collect();
            let words = Words { volume: &volume.name, bricks, connected: &connected, heals: heals(volume) };
            answer.extend(found.into_iter().zip(bricks).map(|(pending, brick)| told(pending, brick, number, &words)));
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
/// When the rule's brick is none of the volume's, the target is no path or gfid, or bricks do not answer.
pub(crate) async fn settle(node: &Node, volume: &Volume, request: &Settle) -> Result<Vec<Settled>, Error> {
    let graph = node.heal_connections.graph(node, volume).await?;
    let sets = sets(&graph, volume)?;
    let ruled: Vec<_> = sets
        .iter()
        .filter_map(|(set, bricks)| {
            let (child, rule) = rule_of(&request.rule, bricks)?;
            Some((set, child, rule))
        })
        .collect();
    if ruled.is_empty() {
        return Err(Error::new(ErrorKind::Invalid, "The brick of source-brick is none of the volume's."));
    }
    let Some(target) = &request.target else {
        let mut settled = Vec::new();
        for (set, child, rule) in ruled {
            let of_set = resolve::settle_all(set, child, rule).await.map_err(unreachable)?;
            settled.extend(of_set.into_iter().map(|one| {
                let name = format!("gfid:{}", one.gfid);
                outcome(name, one.is_directory, one.outcome.err())
            }));
        }
        return Ok(settled);
    };
    let asked = parse_target(target)?;
    // Of a distributed volume, a file is in one replica set and a directory in each: the most telling answer counts.
    let mut told: Option<Settled> = None;
    for (set, _, rule) in ruled {
        let one = match resolve::settle(set, &asked, rule).await {
            Ok(one) => outcome(target.clone(), one.is_directory, one.outcome.err()),
            Err(failure) => outcome(target.clone(), false, Some(failure)),
        };
        if told.as_ref().is_none_or(|told| weight(&one) > weight(told)) {
            told = Some(one);
        }
    }
    Ok(told.into_iter().collect())
}

/// How much an answer of one replica set says about something that may be in several of them.
fn weight(settled: &Settled) -> u8 {
    match settled.failure.as_ref().map(|failure| failure.kind) {
        Some(SettleFailureKind::Lookup) => 0,
        Some(SettleFailureKind::NotInSplitBrain) => 1,
        None => 2,
        Some(SettleFailureKind::NoChoice | SettleFailureKind::Failed) => 3,
    }
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

fn told(pending: heal::info::BrickPending, brick: &Brick, replica_set: usize, words: &Words<'_>) -> BrickPending {
    BrickPending {
        brick: brick_ref(brick),
        host_uuid: brick.node,
        connected: pending.connected,
        replica_set,
        entries: pending
            .entries
            .into_iter()
            .filter(|entry| entry.verdict != Verdict::NoHeal)
            .map(|entry| entry_told(entry, words))
            .collect(),
    }
}

fn entry_told(entry: heal::info::Pending, words: &Words<'_>) -> Entry {
    let path = entry.path.map(|path| String::from_utf8_lossy(&path).into_owned());
    let name = path.clone().unwrap_or_else(|| format!("gfid:{}", entry.gfid));
    Entry {
        gfid: entry.gfid.to_string(),
        state: match entry.verdict {
            Verdict::SplitBrain | Verdict::SplitBrainPending => EntryState::SplitBrain,
            Verdict::PossiblyHealing | Verdict::PossiblyHealingPending => EntryState::PossiblyHealing,
            Verdict::NoHeal | Verdict::Heal | Verdict::HealPending => EntryState::Pending,
        },
        why: words.why(&name, entry.why.as_ref()),
        path,
    }
}
