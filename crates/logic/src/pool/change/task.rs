//! Jobs over all nodes with bricks: rebalance, and what a removal of bricks needs.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::is_started;
use super::refusal::Refusal as Why;
use crate::pool::refusal::Refusal;
use crate::pool::v1::{NodePart, State, Task, TaskMode, TaskState, Volume};

/// `rebalance … start`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartTask {
    pub volume: String,
    pub task: Uuid,
    /// Not [`TaskMode::Decommission`], which `remove-brick` starts.
    pub mode: TaskMode,
    pub path: Option<String>,
    pub dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Steer {
    Pause,
    Resume,
    Stop,
}

/// A node says that its part has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub volume: String,
    pub task: Uuid,
    pub node: Uuid,
    pub part: NodePart,
}

pub(super) fn new_task(id: Uuid, mode: TaskMode, owners: impl Iterator<Item = Uuid>) -> Task {
    Task {
        id,
        mode,
        path: None,
        dry_run: false,
        paused: false,
        state: TaskState::InProgress,
        nodes: owners.map(|node| (node, NodePart::default())).collect(),
    }
}

impl Task {
    /// Ends what has not ended by itself.
    pub(super) fn stop(&mut self) {
        for part in self.nodes.values_mut().filter(|part| !part.state.is_final()) {
            part.state = TaskState::Stopped;
        }
        if !self.state.is_final() {
            self.state = TaskState::Stopped;
        }
        self.paused = false;
    }

    /// What the parts amount to: one that failed or was stopped keeps the whole from being complete.
    fn judged(&self) -> TaskState {
        let any = |state: TaskState| self.nodes.values().any(|part| part.state == state);
        [TaskState::InProgress, TaskState::Failed, TaskState::Stopped]
            .into_iter()
            .find(|state| any(*state))
            .unwrap_or(TaskState::Completed)
    }
}

/// The volume with the job (`glusterd_rebalance_cmd_validate`, `glusterd_defrag_start_validate`).
pub(in crate::pool) fn start(state: &State, request: &StartTask) -> Result<Volume, Refusal> {
    let name = &request.volume;
    let volume = state.volumes.get(name).ok_or_else(|| Refusal::NoSuchVolume(name.clone()))?;
    if volume.subvolumes() < 2 {
        return Err(Why::NotDistributed(name.clone()).into());
    }
    if !is_started(volume) {
        return Err(Why::NotStartedToRebalance(name.clone()).into());
    }
    if volume.is_removing() {
        return Err(Why::RemovalNotCommitted(name.clone()).into());
    }
    if volume.task_in_progress().is_some() || request.mode == TaskMode::Decommission {
        return Err(Why::RebalanceStarted(name.clone()).into());
    }
    if let Some(path) = request.path.as_ref().filter(|path| !is_plain(path)) {
        return Err(Why::BadPath(path.clone()).into());
    }
    let mut working = volume.clone();
    let task = new_task(request.task, request.mode, volume.bricks.iter().map(|brick| brick.node));
    working.task = Some(Task { path: request.path.clone(), dry_run: request.dry_run, ..task });
    Ok(working)
}

/// It becomes an argument of a process and the name of a place in the volume.
fn is_plain(path: &str) -> bool {
    path.starts_with('/') && !path.contains('\0') && path.split('/').all(|part| !matches!(part, "." | ".."))
}

/// The volume with its job paused, going on or stopped; `None` when it has ended already.
pub(in crate::pool) fn steer(state: &State, name: &str, what: Steer) -> Result<Option<Volume>, Refusal> {
    let volume = state.volumes.get(name).ok_or_else(|| Refusal::NoSuchVolume(name.to_owned()))?;
    let task = volume.task.as_ref().filter(|task| task.mode != TaskMode::Decommission || what != Steer::Stop);
    let Some(task) = task else { return Err(Why::NoRebalance(name.to_owned()).into()) };
    if task.state.is_final() {
        return Ok(None);
    }
    let mut steered = task.clone();
    match what {
        Steer::Pause => steered.paused = true,
        Steer::Resume => steered.paused = false,
        Steer::Stop => steered.stop(),
    }
    Ok((steered != *task).then(|| Volume { task: Some(steered), ..volume.clone() }))
}

/// The volume with what a node has done; `None` when that changes nothing: the report is of an earlier job, or came
/// before.
pub(in crate::pool) fn report(state: &State, report: &Report) -> Option<Volume> {
    let volume = state.volumes.get(&report.volume)?;
    let mut task = volume.task.clone().filter(|task| task.id == report.task && report.part.state.is_final())?;
    let known = task.nodes.get_mut(&report.node)?;
    // A part that was stopped by the admin before its process said so stays that, with its counters.
    let state = if known.state.is_final() { known.state } else { report.part.state };
    *known = NodePart { state, ..report.part.clone() };
    if !task.state.is_final() {
        task.state = task.judged();
    }
    (volume.task.as_ref() != Some(&task)).then(|| Volume { task: Some(task), ..volume.clone() })
}
