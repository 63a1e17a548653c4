//! Marks on good replicas that say: this other brick holds nothing yet.
//!
//! A brick that comes into a replica set is empty, but its changelogs accuse nobody, and nobody's accuse it, so it would
//! pass for a good copy of an empty volume. The others' roots are therefore marked against it first; heal then goes on
//! from the root, marking what it makes. (GlusterFS mounts the volume for that and sets `trusted.add-brick` or
//! `trusted.replace-brick` on its root: `glusterd_handle_replicate_brick_ops`, `afr_handle_empty_brick`.)

use std::sync::Arc;
use std::time::Duration;

use mortar_api::{Error, ErrorKind};
use mortar_logic::pool::Volume;
use mortar_logic::replicate::changelog::{Changelog, Slot};
use mortar_types::fop::{Xattrop, XattropOp};
use mortar_types::{Context, Dict, Fops, Gfid, Pid, Value, keys};
use mortar_volume::client::{BrickClient, State};
use mortar_volume::graph::{Graph, GraphOptions};
use mortar_wire::volfile::Volfile;

use crate::node::Node;
use crate::volgen::{self, Trust};

/// Bricks that run on a network that works answer in milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const MARK_TIMEOUT: Duration = Duration::from_secs(10);

/// A brick that is to be marked, by its place in the volume, and the numbers that it is told are empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Witness {
    pub brick: usize,
    pub empty: Vec<String>,
}

/// Marks the roots. At least one witness for each empty brick takes the mark, or all of them when `all`.
///
/// # Errors
/// When too few do; those that did keep their marks, which only cost a heal that finds nothing.
pub(crate) async fn accuse(node: &Node, volume: &Volume, witnesses: &[Witness], all: bool) -> Result<(), Error> {
    let internal = |error: &dyn std::fmt::Display| Error::new(ErrorKind::Internal, error.to_string());
    let text = volgen::client(volume, Trust::Trusted);
    let volfile: Volfile = Volfile::parse(&text).map_err(|error| internal(&error))?;
    let mut options = GraphOptions::new("mortard", volume.name.clone());
    options.glusterd_port = Some(node.options.port);
    let graph = Graph::build(&volfile, options).map_err(|error| internal(&error))?;
    let bricks = graph.bricks();
    let marks = witnesses.iter().map(|witness| async move {
        let brick = bricks.get(witness.brick)?;
        match tokio::time::timeout(MARK_TIMEOUT, mark(brick, &witness.empty)).await {
            Ok(true) => Some(witness),
            Ok(false) | Err(_) => None,
        }
    });
    let marked: Vec<&Witness> = futures::future::join_all(marks).await.into_iter().flatten().collect();
    let known = |id: &String| marked.iter().any(|witness| witness.empty.contains(id));
    if (all && marked.len() < witnesses.len()) || !witnesses.iter().flat_map(|witness| &witness.empty).all(known) {
        return Err(Error::new(
            ErrorKind::Unreachable,
            format!(
                "The bricks of volume {} that hold the data could not be marked as the only good ones.",
                volume.name
            ),
        )
        .with_hint("See 'volume status'; all bricks must be online."));
    }
    Ok(())
}

async fn mark(brick: &Arc<BrickClient>, empty: &[String]) -> bool {
    let mut state = brick.state();
    let up = state.wait_for(|state| matches!(state, State::Up));
    if !matches!(tokio::time::timeout(CONNECT_TIMEOUT, up).await, Ok(Ok(_))) {
        return false;
    }
    let changelog = Changelog::in_slot(Slot::Metadata, 1).plus(Changelog::in_slot(Slot::Entry, 1));
    let mut dict = Dict::new();
    for id in empty {
        dict.set(format!("{}{id}", keys::XATTR_AFR_PREFIX), Value::ptr(changelog.to_bytes().to_vec()));
    }
    let request = Xattrop { gfid: Gfid::ROOT, op: XattropOp::AddArray, dict: Some(dict), xdata: None };
    let fops: Arc<dyn Fops> = Arc::clone(brick) as Arc<dyn Fops>;
    match fops.fop(&Context::internal(Pid::SELF_HEAL_DAEMON), request).await {
        Ok(_) => true,
        Err(failure) => {
            tracing::warn!(brick = fops.name(), errno = %failure.errno, "the root could not be marked");
            false
        }
    }
}
