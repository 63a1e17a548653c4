//! What is pending on a volume: asked of its bricks by client connections of this process, for the time of the question
//! (GlusterFS runs a program of its own for that, glfsheal).

use std::sync::Arc;
use std::time::Duration;

use mortar_api::heal::{BrickPending, Entry, EntryState};
use mortar_api::volume::BrickRef;
use mortar_api::{Error, ErrorKind};
use mortar_logic::heal::Verdict;
use mortar_logic::pool::{Brick, Volume};
use mortar_types::Fops;
use mortar_volume::client::State;
use mortar_volume::graph::{Graph, GraphOptions, ReplicaSet};
use mortar_volume::heal;
use mortar_wire::volfile::Volfile;

use crate::node::Node;
use crate::volgen;

/// A brick that has not accepted the connection by then is told as not connected.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A volume with very much to heal answers with an error rather than never.
const INFO_TIMEOUT: Duration = Duration::from_secs(300);

/// Asks all bricks, in the volume's order.
///
/// # Errors
/// When the volume's own volfile cannot be run, or the bricks take too long.
pub(crate) async fn pending(node: &Node, volume: &Volume) -> Result<Vec<BrickPending>, Error> {
    let internal = |error: &dyn std::fmt::Display| Error::new(ErrorKind::Internal, error.to_string());
    let text = volgen::self_heal_daemon(volume)
        .ok_or_else(|| Error::new(ErrorKind::Invalid, format!("Volume {} does not heal", volume.name)))?;
    let volfile: Volfile = Volfile::parse(&text).map_err(|error| internal(&error))?;
    let mut options = GraphOptions::new("glfsheal", format!("shd/{}", volume.name));
    options.glusterd_port = Some(node.options.port);
    let graph = Graph::build(&volfile, options).map_err(|error| internal(&error))?;
    settle(&graph).await;
    let asked = async {
        let mut answer = Vec::new();
        let groups = volume.bricks.chunks(volume.layout.group().max(1) as usize);
        for (set, bricks) in graph.replica_sets().iter().zip(groups) {
            answer.extend(of_set(set, bricks).await?);
        }
        Ok(answer)
    };
    tokio::time::timeout(INFO_TIMEOUT, asked).await.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Unreachable, "The bricks take too long to tell what is pending."))
    })
}

/// Waits until each brick has accepted or refused.
async fn settle(graph: &Graph) {
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

async fn of_set(set: &ReplicaSet, bricks: &[Brick]) -> Result<Vec<BrickPending>, Error> {
    let children: Vec<Arc<dyn Fops>> = set.bricks.iter().map(|brick| Arc::clone(brick) as Arc<dyn Fops>).collect();
    let asked = heal::volfile::replica_set(&set.section, children.into())
        .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
    let found = heal::info::info(&asked).await;
    Ok(found.into_iter().zip(bricks).map(|(pending, brick)| told(pending, brick)).collect())
}

fn told(pending: heal::info::BrickPending, brick: &Brick) -> BrickPending {
    BrickPending {
        brick: BrickRef { host: brick.host.clone(), path: brick.path.clone() },
        host_uuid: brick.node,
        connected: pending.connected,
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
