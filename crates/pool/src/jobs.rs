//! This node's parts of rebalances: what their processes say of themselves, kept for the time after them and told to the
//! pool when they end. What the admin wants (paused or not) is told again until the process does it, so that neither a
//! restart of the process nor one of this daemon loses it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mortar_api::rebalance::{Control, Mode, Progress, State};
use mortar_logic::pool::change::Report;
use mortar_logic::pool::{Command, NodePart, Task, TaskMode, TaskState, Volume, VolumeState};
use mortar_rpc::control::{Client, Request};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::node::Node;
use crate::paths::replace_file;

/// How soon the end of a part is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(400);
const CONTROL_TIMEOUT: Duration = Duration::from_secs(2);

/// The last words of each volume's part.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    known: Mutex<HashMap<String, Known>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Known {
    task: Uuid,
    progress: Progress,
}

impl Jobs {
    /// How far this node's part is, as its process says, or said last.
    pub(crate) async fn progress(&self, node: &Node, volume: &str, task: Uuid) -> Option<Progress> {
        let current = node.view().state.volumes.get(volume).and_then(|volume| volume.task.clone())?;
        if current.id == task
            && is_at_work(&current, node.uuid())
            && let Some(progress) = asked(&node.paths.rebalance_control(volume)).await
        {
            self.keep(node, volume, Known { task, progress: progress.clone() });
            return Some(progress);
        }
        let kept = self.known.lock().get(volume).cloned();
        let kept = kept.or_else(|| {
            let text = std::fs::read(node.paths.rebalance_progress(volume)).ok()?;
            serde_json::from_slice(&text).ok()
        })?;
        (kept.task == task).then_some(kept.progress)
    }

    /// On disk only when the state changes: the counters of a process that lives are asked of it.
    fn keep(&self, node: &Node, volume: &str, now: Known) {
        let same = |before: &Known| before.task == now.task && before.progress.state == now.progress.state;
        let before = self.known.lock().insert(volume.to_owned(), now.clone());
        if before.as_ref().is_some_and(same) {
            return;
        }
        let file = node.paths.rebalance_progress(volume);
        let written = serde_json::to_vec(&now).map_err(std::io::Error::other).and_then(|text| {
            std::fs::create_dir_all(node.paths.volume_dir(volume))?;
            replace_file(&file, &text)
        });
        if let Err(error) = written {
            tracing::warn!(file = %file.display(), %error, "the progress could not be kept");
        }
    }
}

/// Whether the node's part is still to be done.
fn is_at_work(task: &Task, node: Uuid) -> bool {
    task.nodes.get(&node).is_some_and(|part| !part.state.is_final())
}

/// The job of a volume that this node has a part in and that is to be worked on.
pub(crate) fn own_part(volume: &Volume, node: Uuid) -> Option<&Task> {
    let task = volume.task_in_progress().filter(|task| is_at_work(task, node))?;
    (volume.state == VolumeState::Started).then_some(task)
}

pub(crate) const fn api_mode(mode: TaskMode) -> Mode {
    match mode {
        TaskMode::FixLayout => Mode::FixLayout,
        TaskMode::Rebalance => Mode::Rebalance,
        TaskMode::Force => Mode::Force,
        TaskMode::Decommission => Mode::Decommission,
    }
}

pub(crate) const fn api_state(state: TaskState) -> State {
    match state {
        TaskState::InProgress => State::InProgress,
        TaskState::Stopped => State::Stopped,
        TaskState::Completed => State::Completed,
        TaskState::Failed => State::Failed,
    }
}

async fn asked(control: &Path) -> Option<Progress> {
    let asking = async {
        let client = Client::connect(control).await.ok()?;
        client.rebalance_status().await.ok()
    };
    tokio::time::timeout(CONTROL_TIMEOUT, asking).await.ok().flatten()
}

async fn told(control: &Path, order: Control) {
    let telling = async {
        let client = Client::connect(control).await.ok()?;
        client.order(&Request::RebalanceControl { control: order }).await.ok()
    };
    if tokio::time::timeout(CONTROL_TIMEOUT, telling).await.ok().flatten().is_none() {
        tracing::info!(?order, "the rebalance does not take the order yet");
    }
}

/// Looks after this node's parts until dropped.
pub(crate) async fn follow(node: Arc<Node>) {
    let mut view = node.watch_view();
    loop {
        let now = view.borrow_and_update().clone();
        let parts = now.state.volumes.values().filter_map(|volume| Some((volume, own_part(volume, node.uuid())?)));
        let tended = parts.map(|(volume, task)| tend(&node, &volume.name, task));
        futures::future::join_all(tended).await;
        node.jobs.known.lock().retain(|name, _| now.state.volumes.contains_key(name));
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

async fn tend(node: &Node, volume: &str, task: &Task) {
    let control = node.paths.rebalance_control(volume);
    // Until a process of the wanted kind runs, one of an earlier job may answer there.
    if !node.supervisor.rebalances(volume) {
        return;
    }
    let Some(progress) = asked(&control).await else { return };
    node.jobs.keep(node, volume, Known { task: task.id, progress: progress.clone() });
    match (progress.state, task.paused) {
        (State::InProgress, true) => told(&control, Control::Pause).await,
        (State::Paused, false) => told(&control, Control::Resume).await,
        _ => {}
    }
    let Some(part) = ended(&progress) else { return };
    let report = Report { volume: volume.to_owned(), task: task.id, node: node.uuid(), part };
    // Without a quorum it is told again at the next look.
    if let Err(error) = node.write(Command::ReportTask(report)).await {
        tracing::info!(volume, %error, "the end of this node's part is not recorded yet");
    }
}

/// The part as it is recorded, when it has ended.
fn ended(progress: &Progress) -> Option<NodePart> {
    let state = match progress.state {
        State::NotStarted | State::InProgress | State::Paused => return None,
        State::Stopped => TaskState::Stopped,
        State::Completed => TaskState::Completed,
        State::Failed => TaskState::Failed,
    };
    Some(NodePart {
        state,
        files: progress.files,
        bytes: progress.bytes,
        lookups: progress.lookups,
        failures: progress.failures,
        skipped: progress.skipped,
        elapsed_ms: progress.elapsed_ms,
    })
}
