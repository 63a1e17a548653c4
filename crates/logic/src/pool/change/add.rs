//! More bricks: more subvolumes, or more replicas in each.

use serde::{Deserialize, Serialize};

use super::refusal::Refusal as Why;
use crate::pool::apply::NewBrick;
use crate::pool::create::{groups_are_spread, is_arbiter, no_brick_overlaps, place};
use crate::pool::refusal::Refusal;
use crate::pool::v1::{Brick, Layout, State, Volume, VolumeState};

/// Bricks to add, with everything resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddBricks {
    pub volume: String,
    pub bricks: Vec<NewBrick>,
    /// Bricks per set afterwards; `None`: as it is.
    pub replica: Option<u32>,
    pub arbiter: u32,
    pub force: bool,
    /// The number that the first new brick is expected to get: the other replicas have been marked with it already.
    pub first_id: u32,
}

/// The volume as it will be.
pub(in crate::pool) fn add(state: &State, request: &AddBricks) -> Result<Volume, Refusal> {
    let volume = state.volumes.get(&request.volume).ok_or_else(|| Why::NoVolumeToGrow(request.volume.clone()))?;
    if request.bricks.is_empty() {
        return Err(Why::NoBricks.into());
    }
    let layout = layout_after(volume, request)?;
    if volume.task_in_progress().is_some() {
        return Err(Why::RebalanceInTheWay(volume.name.clone()).into());
    }
    if layout != volume.layout && volume.is_removing() {
        return Err(Why::RemovalNotCommitted(volume.name.clone()).into());
    }
    if request.first_id != volume.next_brick {
        return Err(Why::ChangedMeanwhile(volume.name.clone()).into());
    }
    let added = placed(state, volume, request)?;
    no_brick_overlaps(state, &added)?;
    let mut grown = volume.clone();
    grown.next_brick = volume.next_brick.saturating_add(u32::try_from(added.len()).unwrap_or(u32::MAX));
    let spread = if layout == volume.layout { added.clone() } else { merged(volume, layout, &added) };
    if !request.force {
        groups_are_spread(layout, &spread)?;
    }
    if layout == volume.layout {
        grown.bricks.extend(added);
    } else {
        grown.bricks = spread;
    }
    for (index, brick) in grown.bricks.iter_mut().enumerate() {
        brick.arbiter = is_arbiter(layout, index);
    }
    if layout != volume.layout && !volume.is_replicate() {
        grown.put("performance.client-io-threads", "off");
    }
    grown.layout = layout;
    grown.version += 1;
    Ok(grown)
}

/// How the volume will hold its data (`gd_addbr_validate_replica_count`).
fn layout_after(volume: &Volume, request: &AddBricks) -> Result<Layout, Refusal> {
    let (added, group) = (request.bricks.len(), volume.layout.group().max(1));
    let multiple = || {
        if added.is_multiple_of(group as usize) {
            return Ok(volume.layout);
        }
        Err(Why::NotAMultiple { bricks: added, group }.into())
    };
    let Some(replica) = request.replica else { return multiple() };
    if request.arbiter > 1 || (request.arbiter == 1 && replica != 3) {
        return Err(Why::ArbiterCount.into());
    }
    let wrong = Why::CountForReplica { bricks: added, replica };
    let (present, arbiter) = match volume.layout {
        Layout::Disperse { .. } => return Err(Why::DisperseToReplicate(volume.name.clone()).into()),
        Layout::Distribute => (1, 0),
        Layout::Replicate { replica, arbiter } => (replica, arbiter),
    };
    if replica < present {
        return Err(Why::LowerReplica { wanted: replica, present }.into());
    }
    if replica == present {
        if request.arbiter > 0 && arbiter == 0 {
            return Err(Why::ReplicaToArbiter.into());
        }
        return if added.is_multiple_of(group as usize) { Ok(volume.layout) } else { Err(wrong.into()) };
    }
    if arbiter > 0 {
        return Err(Why::ArbiterGrows.into());
    }
    if volume.is_replicate() && volume.state == VolumeState::Stopped {
        return Err(Why::StoppedForReplica.into());
    }
    let needed = usize::try_from(replica - present).ok().and_then(|more| more.checked_mul(volume.subvolumes()));
    if needed != Some(added) {
        return Err(wrong.into());
    }
    Ok(Layout::Replicate { replica, arbiter: request.arbiter })
}

fn placed(state: &State, volume: &Volume, request: &AddBricks) -> Result<Vec<Brick>, Refusal> {
    let ids = volume.next_brick..;
    ids.zip(&request.bricks).map(|(id, brick)| place(state, &volume.name, id, brick, false)).collect()
}

/// Each set with its portion of the new bricks behind its old ones.
fn merged(volume: &Volume, layout: Layout, added: &[Brick]) -> Vec<Brick> {
    let (old, new) = (volume.layout.group().max(1) as usize, layout.group() as usize);
    let sets = volume.bricks.chunks(old).zip(added.chunks((new - old).max(1)));
    sets.flat_map(|(present, more)| present.iter().chain(more).cloned()).collect()
}
