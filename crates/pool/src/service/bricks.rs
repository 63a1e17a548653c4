//! Bricks come, go and are exchanged while the volume is served.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use mortar_api::brick as api;
use mortar_api::rebalance::Status;
use mortar_api::volume::{BrickRef, Changed, Process, Status as AskStatus};
use mortar_api::{Error, ErrorKind};
use mortar_logic::pool::change::{AddBricks, Refusal as Why, Removal, ReplaceBrick, Reset, StartRemoval};
use mortar_logic::pool::{Command, NewBrick, State, TaskMode, Volume, VolumeState, check};
use uuid::Uuid;

use super::placing::{self, Failed, Work, change_error};
use super::rebalance::{absent, can_move_files, gathered};
use super::volume::{changed, settle};
use super::{heal, route, status};
use crate::accuse::{Witness, accuse};
use crate::bricks::Before;
use crate::node::{Node, refusal_error};

/// How long heald may take to have the new set of bricks before it is told to begin.
const HEAL_DELAY: Duration = Duration::from_secs(2);
const HEAL_ATTEMPTS: u32 = 15;

pub(super) fn routes(router: Router<Arc<Node>>) -> Router<Arc<Node>> {
    let router = route(router, |node, request: api::Add| async move { add(&node, request).await });
    let router = route(router, |node, request: api::RemoveStart| async move { remove_start(&node, request).await });
    let router = route(router, |node, request: api::RemoveStatus| async move {
        let bricks = resolved(&node, &request.bricks).await?;
        remove_status(&node, &request.volume, &bricks).await
    });
    let router = route(router, |node, request: api::RemoveStop| async move { remove_stop(&node, request).await });
    let router = route(router, |node, request: api::RemoveCommit| async move { remove_commit(&node, request).await });
    let router = route(router, |node, request: api::Replace| async move { replace(&node, request).await });
    let router = route(router, |node, request: api::ResetStart| async move { reset_start(&node, request).await });
    route(router, |node, request: api::ResetCommit| async move { reset_commit(&node, request).await })
}

/// Bricks that are in a volume.
async fn resolved(node: &Node, bricks: &[BrickRef]) -> Result<Vec<NewBrick>, Error> {
    let view = node.view();
    let mut known = Vec::new();
    for brick in bricks {
        known.push(placing::known(node, &view.state, brick).await?);
    }
    Ok(known)
}

/// Asks the state machine before anything is touched.
fn checked(node: &Node, state: &State, bricks: &[NewBrick], command: &Command) -> Result<(), Error> {
    check(state, command).map(drop).map_err(|refusal| change_error(node, state, bricks, &refusal))
}

async fn add(node: &Arc<Node>, request: api::Add) -> Result<Changed, Error> {
    let view = node.view();
    let Some(before) = view.state.volumes.get(&request.volume) else {
        return Err(refusal_error(&Why::NoVolumeToGrow(request.volume).into()));
    };
    let bricks = placing::named(node, &view.state, &request.volume, &request.bricks).await?;
    let command = Command::AddBricks(AddBricks {
        volume: request.volume.clone(),
        bricks: bricks.clone(),
        replica: request.replica,
        arbiter: request.arbiter,
        force: request.force,
        first_id: before.next_brick,
    });
    checked(node, &view.state, &bricks, &command)?;
    let after = volume_after(&view.state, &command, &request.volume);
    // Sets that exist get more replicas: those that hold the data must know that the new ones do not.
    let witnesses = match &after {
        Some(after) if after.layout != before.layout && before.state == VolumeState::Started => {
            newcomers(before, after)
        }
        _ => Vec::new(),
    };
    if !witnesses.is_empty() {
        all_are_up(node, before).await?;
    }
    let work = Work::of(&view.state, before.id, request.force, &bricks);
    let made = work.make(node, &view.state).await?;
    let written = async {
        if !witnesses.is_empty() {
            accuse(node, before, &witnesses, true).await?;
        }
        node.write(command).await
    };
    let applied = match written.await {
        Ok(applied) => applied,
        Err(error) => {
            work.undo(node, made).await;
            return Err(error);
        }
    };
    let mut answer = changed(applied);
    answer.warnings.extend(settled(node, &request.volume).await);
    if !witnesses.is_empty() {
        fill(node, before.clone(), witnesses);
    }
    Ok(answer)
}

/// The volume as the command would leave it.
fn volume_after(state: &State, command: &Command, name: &str) -> Option<Volume> {
    let mut state = state.clone();
    mortar_logic::pool::apply(&mut state, command.clone()).ok()?;
    state.volumes.remove(name)
}

/// Each set's old bricks, and the new ones that join it.
fn newcomers(before: &Volume, after: &Volume) -> Vec<Witness> {
    let (old, new) = (before.layout.group().max(1) as usize, after.layout.group().max(1) as usize);
    let sets = after.bricks.chunks(new).enumerate();
    sets.flat_map(|(set, bricks)| {
        let empty: Vec<String> = bricks.iter().skip(old).map(|brick| brick.brick_id.clone()).collect();
        (set * old..(set + 1) * old).map(move |brick| Witness { brick, empty: empty.clone() })
    })
    .collect()
}

async fn processes(node: &Node, volume: &str) -> Result<Vec<Process>, Error> {
    let request = AskStatus { name: Some(volume.to_owned()), brick: None, detail: false, clients: false };
    Ok(status::status(node, &request).await?.into_iter().flat_map(|status| status.processes).collect())
}

async fn all_are_up(node: &Node, volume: &Volume) -> Result<(), Error> {
    let running = processes(node, &volume.name).await?;
    let down = volume.bricks.iter().find(|brick| {
        !running.iter().any(|process| process.online && process.peer_id == brick.node && process.path == brick.path)
    });
    match down {
        None => Ok(()),
        Some(brick) => Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "Brick {}:{} is down, changing replica count needs all the bricks to be up to avoid data loss",
                brick.host, brick.path
            ),
        )),
    }
}

/// Waits until the members have followed; what is not as it should be becomes warnings: the change is made.
async fn settled(node: &Node, name: &str) -> Vec<String> {
    let view = node.view();
    match view.state.volumes.get(name) {
        Some(volume) if volume.state == VolumeState::Started => settle(node, volume).await.warnings,
        _ => Vec::new(),
    }
}

/// Has the new bricks filled. The marks are set once more, now that every heald knows the bricks: one that did not yet
/// may have found nothing to do on the root and dropped it from its index.
fn fill(node: &Arc<Node>, volume: Volume, witnesses: Vec<Witness>) {
    let node = Arc::clone(node);
    tokio::spawn(async move {
        for attempt in 1..=HEAL_ATTEMPTS {
            tokio::time::sleep(HEAL_DELAY).await;
            let marked = accuse(&node, &volume, &witnesses, false).await;
            let view = node.view();
            let Some(now) = view.state.volumes.get(&volume.name) else { return };
            let healing = match marked {
                Ok(()) => heal::run(&node, now, false).await,
                Err(error) => Err(error),
            };
            match healing {
                Ok(()) => return,
                // Heal begins by itself when all bricks are up, only later.
                Err(error) => {
                    tracing::info!(volume = volume.name, attempt, %error, "the new bricks are not healed yet");
                }
            }
        }
    });
}

async fn remove_start(node: &Node, request: api::RemoveStart) -> Result<api::Removal, Error> {
    let view = node.view();
    let bricks = resolved(node, &request.bricks).await?;
    let task = Uuid::new_v4();
    let (volume, replica) = (request.volume.clone(), request.replica);
    let command = Command::StartRemoval(StartRemoval { volume, bricks: bricks.clone(), replica, task });
    checked(node, &view.state, &bricks, &command)?;
    can_move_files(node)?;
    can_be_emptied(node, &view.state, &request.volume, &bricks).await?;
    node.write(command).await?;
    Ok(api::Removal { task: Some(task), warnings: absent(node, &request.volume) })
}

/// Files move off bricks that run (`glusterd_remove_brick_validate_bricks`).
async fn can_be_emptied(node: &Node, state: &State, volume: &str, bricks: &[NewBrick]) -> Result<(), Error> {
    let running = processes(node, volume).await?;
    for brick in bricks {
        let named = format!("{}:{}", brick.host, brick.path);
        let Some(owner) = brick.node.filter(|owner| node.peers.is_connected(*owner)) else {
            return Err(Error::new(ErrorKind::Unreachable, format!("Host node of the brick {named} is down")));
        };
        let runs =
            |process: &Process| process.online && Some(process.peer_id) == brick.node && process.path == brick.path;
        if !running.iter().any(runs) {
            let error = Error::new(
                ErrorKind::Conflict,
                format!("Found stopped brick {named}. Use force option to remove the offline brick"),
            );
            return Err(Failed { owner, host: brick.host.clone(), error }.named(node, state, "Pre Validation"));
        }
    }
    Ok(())
}

async fn remove_status(node: &Node, name: &str, bricks: &[NewBrick]) -> Result<Status, Error> {
    let view = node.view();
    let volume = Node::find_volume(&view.state, name)?;
    let task = volume.task.as_ref().filter(|task| task.mode == TaskMode::Decommission);
    let task = task.ok_or_else(|| refusal_error(&Why::NoRemoval(name.to_owned()).into()))?;
    let is_unknown = |brick: &&NewBrick| {
        !volume.bricks.iter().any(|known| Some(known.node) == brick.node && known.path == brick.path)
    };
    if bricks.iter().any(|brick| is_unknown(&brick)) {
        return Err(Error::new(ErrorKind::NotFound, format!("Incorrect brick for volume {name}")));
    }
    Ok(gathered(node, volume, task).await)
}

async fn remove_stop(node: &Node, request: api::RemoveStop) -> Result<Status, Error> {
    let view = node.view();
    let bricks = resolved(node, &request.bricks).await?;
    let command = Command::StopRemoval { volume: request.volume.clone(), bricks: bricks.clone() };
    checked(node, &view.state, &bricks, &command)?;
    node.write(command).await?;
    remove_status(node, &request.volume, &bricks).await
}

async fn remove_commit(node: &Node, request: api::RemoveCommit) -> Result<api::Removal, Error> {
    let view = node.view();
    let bricks = resolved(node, &request.bricks).await?;
    let (volume, replica, force) = (request.volume.clone(), request.replica, request.force);
    let command = Command::RemoveBricks(Removal { volume, bricks: bricks.clone(), replica, force });
    checked(node, &view.state, &bricks, &command)?;
    let task = Node::find_volume(&view.state, &request.volume)?.task.as_ref();
    let task = task.filter(|task| task.mode == TaskMode::Decommission).map(|task| task.id);
    node.write(command).await?;
    Ok(api::Removal { task, warnings: settled(node, &request.volume).await })
}

/// The bricks of the same set, as witnesses that the brick at `index` is empty.
fn others_of_set(volume: &Volume, index: usize) -> Vec<Witness> {
    let group = volume.layout.group().max(1) as usize;
    let first = index - index % group;
    let empty = vec![volume.bricks[index].brick_id.clone()];
    let others = (first..first + group).filter(|other| *other != index && !volume.bricks[*other].reset);
    others.map(|brick| Witness { brick, empty: empty.clone() }).collect()
}

fn place_of(volume: &Volume, brick: &NewBrick) -> Option<usize> {
    volume.bricks.iter().position(|known| Some(known.node) == brick.node && known.path == brick.path)
}

async fn replace(node: &Arc<Node>, request: api::Replace) -> Result<Changed, Error> {
    let view = node.view();
    let from = placing::known(node, &view.state, &request.from).await?;
    let to = placing::named(node, &view.state, &request.volume, std::slice::from_ref(&request.to)).await?;
    let [to] = to.as_slice() else {
        return Err(Error::new(ErrorKind::Internal, "one brick replaces one"));
    };
    let volume = request.volume.clone();
    let replace = ReplaceBrick { volume, from: from.clone(), to: to.clone(), force: request.force };
    let command = Command::ReplaceBrick(replace);
    checked(node, &view.state, std::slice::from_ref(to), &command)?;
    let before = Node::find_volume(&view.state, &request.volume)?;
    let work = Work::of(&view.state, before.id, request.force, std::slice::from_ref(to));
    let made = work.make(node, &view.state).await?;
    let reset = Reset { volume: request.volume.clone(), brick: from.clone() };
    let done = exchange(node, before, &reset, command).await;
    joined(node, before, &work, made, done).await
}

/// What follows when a brick has come into a set, or has not: it is filled, or nothing is left of it.
async fn joined(
    node: &Arc<Node>,
    before: &Volume,
    work: &Work,
    made: Vec<(Uuid, Vec<Before>)>,
    done: Result<(Changed, Vec<Witness>), Error>,
) -> Result<Changed, Error> {
    match done {
        Ok((mut answer, witnesses)) => {
            answer.warnings.extend(settled(node, &before.name).await);
            fill(node, before.clone(), witnesses);
            Ok(answer)
        }
        Err(error) => {
            work.undo(node, made).await;
            Err(error)
        }
    }
}

/// Takes the old brick out of service, then marks the others, then puts the new one in its place: at no moment is there a
/// brick that passes for good without being so, and nothing that heals the old one undoes the marks.
async fn exchange(
    node: &Node,
    before: &Volume,
    reset: &Reset,
    command: Command,
) -> Result<(Changed, Vec<Witness>), Error> {
    node.write(Command::StartReset(reset.clone())).await?;
    // The old brick's host may be gone for good.
    settled(node, &before.name).await;
    let witnesses = place_of(before, &reset.brick).map(|index| others_of_set(before, index)).unwrap_or_default();
    let replaced = async {
        accuse(node, before, &witnesses, false).await?;
        node.write(command).await
    };
    match replaced.await {
        Ok(applied) => Ok((changed(applied), witnesses)),
        Err(error) => {
            let back = Command::CommitReset { reset: reset.clone(), to: reset.brick.clone() };
            if let Err(error) = node.write(back).await {
                tracing::warn!(%error, "the brick stays out of service");
            }
            Err(error)
        }
    }
}

async fn reset_start(node: &Node, request: api::ResetStart) -> Result<Changed, Error> {
    let view = node.view();
    let brick = placing::known(node, &view.state, &request.brick).await?;
    let command = Command::StartReset(Reset { volume: request.volume.clone(), brick: brick.clone() });
    checked(node, &view.state, std::slice::from_ref(&brick), &command)?;
    let mut answer = changed(node.write(command).await?);
    answer.warnings.extend(settled(node, &request.volume).await);
    Ok(answer)
}

async fn reset_commit(node: &Arc<Node>, request: api::ResetCommit) -> Result<Changed, Error> {
    let view = node.view();
    let from = placing::known(node, &view.state, &request.from).await?;
    let to = placing::known(node, &view.state, &request.to).await?;
    let reset = Reset { volume: request.volume.clone(), brick: from };
    let command = Command::CommitReset { reset: reset.clone(), to: to.clone() };
    checked(node, &view.state, std::slice::from_ref(&to), &command)?;
    let before = Node::find_volume(&view.state, &request.volume)?;
    let work = Work::of(&view.state, before.id, request.force, std::slice::from_ref(&to)).returning();
    let made = work.make(node, &view.state).await?;
    let witnesses = place_of(before, &reset.brick).map(|index| others_of_set(before, index)).unwrap_or_default();
    let written = async {
        accuse(node, before, &witnesses, false).await?;
        Ok((changed(node.write(command).await?), witnesses))
    };
    let done = written.await;
    joined(node, before, &work, made, done).await
}
