//! On which nodes a subvolume's bricks are, as they say themselves: who of them moves a file follows from that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use mortar_logic::rebalance::share;
use mortar_types::fop::Getxattr;
use mortar_types::{Fops, Gfid, SubvolId, SubvolMap, keys};
use parking_lot::Mutex;
use uuid::Uuid;

use super::{Mover, Subvolume};

/// A brick may be replaced by one of another node, or die without being noticed.
const AGE_MAX: Duration = Duration::from_secs(5);

pub(super) struct Owners {
    node: Uuid,
    known: Mutex<Option<Known>>,
}

#[derive(Clone)]
struct Known {
    at: Instant,
    /// Which bricks were up.
    up: Vec<bool>,
    nodes: Arc<SubvolMap<Vec<Option<Uuid>>>>,
}

/// The share of this node.
#[derive(Clone)]
pub(super) struct Share {
    node: Uuid,
    nodes: Arc<SubvolMap<Vec<Option<Uuid>>>>,
}

impl Share {
    pub(super) fn has(&self, gfid: Gfid, at: SubvolId) -> bool {
        share::is_ours(gfid, &self.nodes[at], self.node)
    }
}

impl Owners {
    pub(super) const fn new(node: Uuid) -> Self {
        Self { node, known: Mutex::new(None) }
    }

    /// As it is now, or was a few seconds ago and nothing has died since.
    pub(super) async fn share(&self, subvolumes: &SubvolMap<Subvolume>) -> Share {
        let up: Vec<bool> = subvolumes.iter().flat_map(|(_, at)| bricks(at)).map(|brick| brick.is_up()).collect();
        let known = self.known.lock().clone();
        if let Some(known) = known.filter(|known| known.up == up && known.at.elapsed() < AGE_MAX) {
            return Share { node: self.node, nodes: known.nodes };
        }
        let asked = subvolumes.iter().map(|(_, subvolume)| join_all(bricks(subvolume).map(node_of)));
        let nodes = Arc::new(SubvolMap::from(join_all(asked).await));
        *self.known.lock() = Some(Known { at: Instant::now(), up, nodes: Arc::clone(&nodes) });
        Share { node: self.node, nodes }
    }
}

fn bricks(subvolume: &Subvolume) -> impl Iterator<Item = &Arc<dyn Fops>> {
    match &subvolume.writers {
        Some(writers) => writers.bricks.iter(),
        None => std::slice::from_ref(&subvolume.fops).iter(),
    }
}

/// `None`: it does not answer.
async fn node_of(brick: &Arc<dyn Fops>) -> Option<Uuid> {
    if !brick.is_up() {
        return None;
    }
    let name = Some(Bytes::from_static(keys::NODE_UUID.as_bytes()));
    let reply = brick.fop(&Mover::new().ctx, Getxattr { gfid: Gfid::ROOT, name, xdata: None }).await.ok()?;
    reply.dict?.get_str(keys::NODE_UUID)?.parse().ok()
}
