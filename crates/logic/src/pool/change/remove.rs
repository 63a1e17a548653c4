//! Fewer bricks: whole sets leave after their files have, or each set loses replicas.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::refusal::Refusal as Why;
use super::task::new_task;
use super::{is_started, position};
use crate::pool::apply::NewBrick;
use crate::pool::create::is_arbiter;
use crate::pool::refusal::Refusal;
use crate::pool::v1::{Layout, State, TaskMode, TaskState, Volume};

/// `remove-brick … start`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartRemoval {
    pub volume: String,
    pub bricks: Vec<NewBrick>,
    pub replica: Option<u32>,
    pub task: Uuid,
}

/// `remove-brick … commit` and `… force`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    pub volume: String,
    pub bricks: Vec<NewBrick>,
    pub replica: Option<u32>,
    pub force: bool,
}

fn find<'a>(state: &'a State, name: &str) -> Result<&'a Volume, Refusal> {
    state.volumes.get(name).ok_or_else(|| Refusal::NoSuchVolume(name.to_owned()))
}

const fn kind_of(layout: Layout) -> &'static str {
    match layout {
        Layout::Distribute => "distribute",
        Layout::Replicate { .. } => "replica",
        Layout::Disperse { .. } => "disperse",
    }
}

/// The bricks' places in the volume and the replica count afterwards, `None` when it stays
/// (`__glusterd_handle_remove_brick`).
fn selected(volume: &Volume, bricks: &[NewBrick], replica: Option<u32>) -> Result<(Vec<usize>, Option<u32>), Refusal> {
    if bricks.is_empty() {
        return Err(Why::NoBricks.into());
    }
    let reduced = replica_after(volume, bricks.len(), replica)?;
    let group = volume.layout.group();
    if reduced.is_none() && volume.layout != Layout::Distribute {
        if volume.is_replicate() && volume.subvolumes() == 1 {
            return Err(Why::OnlySet.into());
        }
        if !bricks.len().is_multiple_of(group.max(1) as usize) {
            let kind = kind_of(volume.layout).to_owned();
            return Err(Why::RemovedCount { bricks: bricks.len(), kind, group }.into());
        }
    }
    let mut places = Vec::new();
    for brick in bricks {
        let named = format!("{}:{}", brick.host, brick.path);
        let Some(place) = position(volume, brick) else {
            return Err(Why::NoSuchBrick { brick: named, volume: volume.name.clone() }.into());
        };
        if places.contains(&place) {
            return Err(Why::NamedTwice(named).into());
        }
        places.push(place);
    }
    even_over_sets(volume, &places, reduced)?;
    arbiters_leave_first(volume, &places, reduced)?;
    Ok((places, reduced))
}

/// `gd_rmbr_validate_replica_count`.
fn replica_after(volume: &Volume, bricks: usize, replica: Option<u32>) -> Result<Option<u32>, Refusal> {
    let Some(wanted) = replica else { return Ok(None) };
    let Layout::Replicate { replica: present, .. } = volume.layout else {
        return Err(Why::ReplicaOfOther { volume: volume.name.clone(), replica: wanted }.into());
    };
    if wanted > present || wanted == 0 {
        return Err(Why::HigherReplica { volume: volume.name.clone(), wanted, present }.into());
    }
    if wanted == present {
        if !bricks.is_multiple_of(present as usize) {
            return Err(Why::PartOfSet { bricks, group: present }.into());
        }
        return Ok(None);
    }
    let needed = volume.subvolumes() * (present - wanted) as usize;
    if bricks != needed {
        return Err(Why::CountForReduction { needed, from: present, to: wanted }.into());
    }
    Ok(Some(wanted))
}

/// Whole sets, or the same number from each (`subvol_matcher_verify`).
fn even_over_sets(volume: &Volume, places: &[usize], reduced: Option<u32>) -> Result<(), Refusal> {
    let group = volume.layout.group().max(1) as usize;
    for set in 0..volume.subvolumes() {
        let leaving = places.iter().filter(|place| **place / group == set).count();
        match reduced {
            Some(replica) if leaving != group - replica as usize => {
                return Err(Why::UnevenReduction(volume.layout.group() - replica).into());
            }
            None if leaving % group != 0 => return Err(Why::AcrossSets(kind_of(volume.layout).to_owned()).into()),
            _ => {}
        }
    }
    Ok(())
}

/// A set must not be left with an arbiter that outvotes or outlives its data
/// (`glusterd_remove_brick_validate_arbiters`).
fn arbiters_leave_first(volume: &Volume, places: &[usize], reduced: Option<u32>) -> Result<(), Refusal> {
    let arbiters = volume.bricks.iter().filter(|brick| brick.arbiter).count();
    let Some(replica) = reduced.filter(|_| arbiters > 0) else { return Ok(()) };
    let leaving = places.iter().filter(|place| volume.bricks[**place].arbiter).count();
    if leaving == arbiters {
        return Ok(());
    }
    Err(if replica == 1 { Why::ArbiterStays } else { Why::ArbiterFirst }.into())
}

/// The volume with its bricks on their way out.
pub(in crate::pool) fn start(state: &State, request: &StartRemoval) -> Result<Volume, Refusal> {
    let volume = find(state, &request.volume)?;
    let (places, reduced) = selected(volume, &request.bricks, request.replica)?;
    if places.len() == volume.bricks.len() {
        return Err(Why::AllBricks.into());
    }
    if reduced.is_some() {
        return Err(Why::NothingToMigrate.into());
    }
    if !is_started(volume) {
        return Err(Why::NotStartedToRemove(volume.name.clone()).into());
    }
    if volume.is_removing() {
        return Err(Why::EarlierRemoval(volume.name.clone()).into());
    }
    if volume.task_in_progress().is_some() {
        return Err(Why::RebalanceRuns.into());
    }
    let mut leaving = volume.clone();
    for place in &places {
        leaving.bricks[*place].decommissioned = true;
    }
    let owners = places.iter().map(|place| volume.bricks[*place].node);
    leaving.task = Some(new_task(request.task, TaskMode::Decommission, owners));
    leaving.version += 1;
    Ok(leaving)
}

/// The volume with its bricks staying after all.
pub(in crate::pool) fn stop(state: &State, name: &str, bricks: &[NewBrick]) -> Result<Volume, Refusal> {
    let volume = find(state, name)?;
    let removing = volume.task.as_ref().is_some_and(|task| task.mode == TaskMode::Decommission);
    if !removing || !volume.is_removing() {
        return Err(Why::NoRemoval(name.to_owned()).into());
    }
    for brick in bricks {
        let named = || format!("{}:{}", brick.host, brick.path);
        let place = position(volume, brick);
        let place = place.ok_or_else(|| Why::NoSuchBrick { brick: named(), volume: name.to_owned() })?;
        if !volume.bricks[place].decommissioned {
            return Err(Why::OtherBricks(name.to_owned()).into());
        }
    }
    let mut staying = volume.clone();
    for brick in &mut staying.bricks {
        brick.decommissioned = false;
    }
    if let Some(task) = &mut staying.task {
        task.stop();
    }
    staying.version += 1;
    Ok(staying)
}

/// The volume without the bricks.
pub(in crate::pool) fn commit(state: &State, request: &Removal) -> Result<Volume, Refusal> {
    let volume = find(state, &request.volume)?;
    let (places, reduced) = selected(volume, &request.bricks, request.replica)?;
    if places.len() == volume.bricks.len() {
        return Err(Why::AllBricks.into());
    }
    let removing = volume.task.as_ref().is_some_and(|task| task.mode == TaskMode::Decommission);
    if !request.force {
        everything_has_left(volume, request, &places)?;
    } else if volume.task_in_progress().is_some() && !removing {
        return Err(Why::RebalanceRuns.into());
    }
    let mut left = volume.clone();
    let mut place = 0;
    left.bricks.retain(|_| {
        let stays = !places.contains(&place);
        place += 1;
        stays
    });
    left.layout = layout_after(volume, &left, reduced);
    for (index, brick) in left.bricks.iter_mut().enumerate() {
        brick.arbiter = is_arbiter(left.layout, index);
        // A removal of other bricks ends with this one, which was forced.
        brick.decommissioned = false;
    }
    if removing {
        left.task = None;
    }
    if !left.is_replicate() {
        left.put("performance.client-io-threads", "on");
    }
    left.version += 1;
    Ok(left)
}

fn layout_after(volume: &Volume, left: &Volume, reduced: Option<u32>) -> Layout {
    match (volume.layout, reduced) {
        (Layout::Replicate { .. }, Some(1)) => Layout::Distribute,
        (Layout::Replicate { .. }, Some(replica)) => {
            let arbiter = u32::from(left.bricks.iter().any(|brick| brick.arbiter));
            Layout::Replicate { replica, arbiter }
        }
        (layout, _) => layout,
    }
}

fn everything_has_left(volume: &Volume, request: &Removal, places: &[usize]) -> Result<(), Refusal> {
    let task = volume.task.as_ref().filter(|task| task.mode == TaskMode::Decommission && volume.is_removing());
    if let Some(task) = task {
        match task.state {
            TaskState::InProgress => return Err(Why::MigrationRuns.into()),
            TaskState::Failed => return Err(Why::MigrationFailed.into()),
            TaskState::Completed if task.nodes.values().any(|part| part.failures > 0 || part.skipped > 0) => {
                return Err(Why::MigrationSkipped.into());
            }
            TaskState::Completed | TaskState::Stopped => {}
        }
    }
    for (place, brick) in places.iter().zip(&request.bricks) {
        if !volume.bricks[*place].decommissioned {
            return Err(Why::NotDecommissioned(format!("{}:{}", brick.host, brick.path)).into());
        }
    }
    if volume.bricks.iter().filter(|brick| brick.decommissioned).count() != places.len() {
        return Err(Why::OtherBricks(volume.name.clone()).into());
    }
    Ok(())
}
