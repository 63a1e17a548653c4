//! Another brick in the place of one, and one brick out of service and back.
//!
//! The brick keeps its number, and with it the changelog xattrs that the other replicas keep for it.

use serde::{Deserialize, Serialize};

use super::refusal::Refusal as Why;
use super::{is_started, position};
use crate::pool::apply::NewBrick;
use crate::pool::create::{groups_are_spread, no_brick_overlaps, place};
use crate::pool::refusal::Refusal;
use crate::pool::v1::{Layout, State, Volume};

/// `replace-brick … commit force`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplaceBrick {
    pub volume: String,
    pub from: NewBrick,
    pub to: NewBrick,
    pub force: bool,
}

/// `reset-brick`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reset {
    pub volume: String,
    pub brick: NewBrick,
}

/// The volume and the brick's place in it (`glusterd_brick_op_prerequisites`).
fn found<'a>(state: &'a State, name: &str, brick: &NewBrick) -> Result<(&'a Volume, usize), Refusal> {
    let volume = state.volumes.get(name).ok_or_else(|| Why::NoVolumeToReplaceIn(name.to_owned()))?;
    if !is_started(volume) {
        return Err(Why::NotStartedToReplace(name.to_owned()).into());
    }
    if volume.task_in_progress().is_some() {
        return Err(Why::RebalanceInTheWay(name.to_owned()).into());
    }
    let place = position(volume, brick).ok_or_else(|| Why::NoBrickToReplace {
        brick: format!("{}:{}", brick.host, brick.path),
        volume: name.to_owned(),
    })?;
    Ok((volume, place))
}

/// The volume with the new brick.
pub(in crate::pool) fn replace(state: &State, request: &ReplaceBrick) -> Result<Volume, Refusal> {
    let (volume, index) = found(state, &request.volume, &request.from)?;
    if volume.layout == Layout::Distribute {
        return Err(Why::ReplaceInDistribute.into());
    }
    let old = &volume.bricks[index];
    let mut new = place(state, &volume.name, 0, &request.to, old.arbiter)?;
    new.brick_id.clone_from(&old.brick_id);
    new.decommissioned = old.decommissioned;
    no_brick_overlaps(state, std::slice::from_ref(&new))?;
    let mut replaced = volume.clone();
    replaced.bricks[index] = new;
    if !request.force {
        groups_are_spread(volume.layout, &replaced.bricks)?;
    }
    replaced.version += 1;
    Ok(replaced)
}

/// The volume with the brick out of service.
pub(in crate::pool) fn start_reset(state: &State, request: &Reset) -> Result<Volume, Refusal> {
    let (volume, index) = found(state, &request.volume, &request.brick)?;
    let mut without = volume.clone();
    without.bricks[index].reset = true;
    without.version += 1;
    Ok(without)
}

/// The volume with the brick back in service. `to` is as the admin names it now; host names may have changed.
pub(in crate::pool) fn commit_reset(state: &State, request: &Reset, to: &NewBrick) -> Result<Volume, Refusal> {
    let (volume, index) = found(state, &request.volume, &request.brick)?;
    let brick = &volume.bricks[index];
    if to.node != Some(brick.node) || to.path != brick.path {
        return Err(Why::ResetElsewhere.into());
    }
    if !brick.reset {
        return Err(Why::ResetNotStarted.into());
    }
    let mut back = volume.clone();
    back.bricks[index].reset = false;
    back.bricks[index].host.clone_from(&to.host);
    back.version += 1;
    Ok(back)
}
