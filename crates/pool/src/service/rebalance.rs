//! Rebalance: started, steered, and its progress gathered from all nodes that have a part in it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use mortar_api::rebalance::{
    Control, GetStatus, Mode, NodeStatus, Progress, Start, Started, State as JobState, Status, Steer,
};
use mortar_api::volume::{BrickRef, Task as ApiTask};
use mortar_api::{Error, ErrorKind};
use mortar_logic::pool::change::{Refusal as Why, StartTask, Steer as Order};
use mortar_logic::pool::{Command, NodePart, State, Task, TaskMode, Volume, check};
use uuid::Uuid;

use super::internal::LocalRebalance;
use super::route;
use super::volume::ask;
use crate::jobs::{api_mode, api_state};
use crate::node::{Node, refusal_error};

/// Who has not answered by then is shown as it was last known.
const MEMBER_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) fn routes(router: Router<Arc<Node>>) -> Router<Arc<Node>> {
    let router = route(router, |node, request: Start| async move { start(&node, request).await });
    let router = route(router, |node, request: Steer| async move { steer(&node, &request).await });
    route(router, |node, request: GetStatus| async move { status(&node, &request.volume).await })
}

/// Refuses what needs files moved when no process of this daemon can move them: better than a job that never ends.
pub(super) fn can_move_files(node: &Node) -> Result<(), Error> {
    if node.options.moves_files {
        return Ok(());
    }
    let message = "This version of Mortar does not move files between bricks. Nothing was started.";
    Err(Error::new(ErrorKind::Invalid, message).with_hint(
        "New directories use new bricks already. Bricks of a replica set can be replaced (replace-brick) or removed (remove-brick … force).",
    ))
}

async fn start(node: &Node, request: Start) -> Result<Started, Error> {
    let mode = match request.mode {
        Mode::FixLayout => TaskMode::FixLayout,
        Mode::Rebalance => TaskMode::Rebalance,
        Mode::Force => TaskMode::Force,
        Mode::Decommission => {
            return Err(Error::new(ErrorKind::Invalid, "Bricks are emptied by 'volume remove-brick … start'."));
        }
    };
    let task = Uuid::new_v4();
    let (volume, path, dry_run) = (request.volume, request.path, request.dry_run);
    let command = Command::StartTask(StartTask { volume: volume.clone(), task, mode, path, dry_run });
    check(&node.view().state, &command).map_err(|refusal| refusal_error(&refusal))?;
    can_move_files(node)?;
    node.write(command).await?;
    Ok(Started { task, warnings: absent(node, &volume) })
}

/// What the admin should know of participants that do not answer.
pub(super) fn absent(node: &Node, volume: &str) -> Vec<String> {
    let view = node.view();
    let task = view.state.volumes.get(volume).and_then(|volume| volume.task.as_ref());
    let participants = task.into_iter().flat_map(|task| task.nodes.keys());
    let away = participants.filter(|member| !node.peers.is_connected(**member));
    away.map(|member| format!("{} is not connected; its part begins when it is back", name_of(&view.state, *member)))
        .collect()
}

fn name_of(state: &State, member: Uuid) -> String {
    state.members.get(&member).map_or_else(|| member.to_string(), |member| member.hostname.clone())
}

async fn steer(node: &Node, request: &Steer) -> Result<Status, Error> {
    let what = match request.control {
        Control::Pause => Order::Pause,
        Control::Resume => Order::Resume,
        Control::Stop => Order::Stop,
    };
    let command = Command::SteerTask { volume: request.volume.clone(), what };
    check(&node.view().state, &command).map_err(|refusal| refusal_error(&refusal))?;
    node.write(command).await?;
    let view = node.view();
    let volume = Node::find_volume(&view.state, &request.volume)?;
    let task = volume.task.as_ref().ok_or_else(|| not_started(&request.volume))?;
    Ok(gathered(node, volume, task).await)
}

fn not_started(volume: &str) -> Error {
    refusal_error(&Why::NoRebalance(volume.to_owned()).into())
}

async fn status(node: &Node, name: &str) -> Result<Status, Error> {
    let view = node.view();
    let volume = Node::find_volume(&view.state, name)?;
    let task = volume.task.as_ref().filter(|task| task.mode != TaskMode::Decommission);
    Ok(gathered(node, volume, task.ok_or_else(|| not_started(name))?).await)
}

/// Every participant's part: as its process says, or as was last known. Others first, this node last, as GlusterFS
/// lists them.
pub(super) async fn gathered(node: &Node, volume: &Volume, task: &Task) -> Status {
    let view = node.view();
    let mut participants: Vec<Uuid> = Vec::new();
    for brick in &volume.bricks {
        if task.nodes.contains_key(&brick.node) && !participants.contains(&brick.node) {
            participants.push(brick.node);
        }
    }
    // Also who has no brick any more.
    let rest: Vec<Uuid> = task.nodes.keys().copied().filter(|member| !participants.contains(member)).collect();
    participants.extend(rest);
    participants.sort_by_key(|member| *member == node.uuid());
    let nodes = participants.into_iter().map(|member| {
        let state = &view.state;
        async move {
            let part = task.nodes.get(&member).cloned().unwrap_or_default();
            let (connected, progress) = part_of(node, volume, task, member).await;
            let host = if member == node.uuid() { "localhost".to_owned() } else { name_of(state, member) };
            NodeStatus { host, node: member, connected, progress: agreed(task, &part, progress) }
        }
    });
    Status { task: task.id, mode: api_mode(task.mode), nodes: futures::future::join_all(nodes).await }
}

async fn part_of(node: &Node, volume: &Volume, task: &Task, member: Uuid) -> (bool, Option<Progress>) {
    if member == node.uuid() {
        return (true, node.jobs.progress(node, &volume.name, task.id).await);
    }
    if !node.peers.is_connected(member) {
        return (false, None);
    }
    let asked = LocalRebalance { volume: volume.name.clone(), task: task.id };
    match ask(node, member, &asked, MEMBER_TIMEOUT).await {
        Ok(progress) => (true, progress),
        Err(_) => (false, None),
    }
}

/// What the pool has recorded counts more than what a process said before it was ended.
fn agreed(task: &Task, part: &NodePart, said: Option<Progress>) -> Progress {
    let mut progress = said.unwrap_or_else(|| Progress {
        state: api_state(part.state),
        dry_run: task.dry_run,
        files: part.files,
        bytes: part.bytes,
        lookups: part.lookups,
        failures: part.failures,
        skipped: part.skipped,
        elapsed_ms: part.elapsed_ms,
        ..Progress::new(api_mode(task.mode))
    });
    if part.state.is_final() {
        progress.state = api_state(part.state);
        progress.eta_s = None;
        (progress.files_per_s, progress.bytes_per_s) = (0.0, 0.0);
    } else if progress.state.is_final() {
        // The pool takes note in a moment; until then whoever acts on "completed" would be told that it is not.
        progress.state = JobState::InProgress;
    }
    progress
}

/// The volume's job as `volume status` lists it.
pub(super) fn listed(volume: &Volume) -> Vec<ApiTask> {
    let Some(task) = &volume.task else { return Vec::new() };
    let removes = task.mode == TaskMode::Decommission;
    if removes && !volume.is_removing() {
        return Vec::new();
    }
    let (state, mode) = (api_state(task.state), api_mode(task.mode));
    let leaving = volume.bricks.iter().filter(|brick| brick.decommissioned);
    vec![ApiTask {
        kind: if removes { "Remove brick" } else { "Rebalance" }.to_owned(),
        id: task.id,
        status: state.gluster_words(mode).to_owned(),
        status_number: state.gluster_number(mode),
        paused: task.paused,
        bricks: leaving.map(|brick| BrickRef { host: brick.host.clone(), path: brick.path.clone() }).collect(),
    }]
}
