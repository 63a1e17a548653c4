//! The documents of `add-brick`, `remove-brick`, `replace-brick`, `reset-brick` and `rebalance` (GlusterFS
//! `cli/src/cli-xml-output.c: cli_xml_output_vol_rebalance`).

use mortar_api::rebalance::{Control, Mode, Progress, State, Status};

use super::gluster_growth::shown;
use super::xml::{Element, head, leaf, node, operation};
use crate::execute::Answer;
use crate::growth::Growth;

/// GlusterFS's catch-all (`EG_INTRNL`).
const EG_INTERNAL: i32 = 30800;

/// The numbers of `enum gf_defrag_cmd` that GlusterFS puts into `<op>`.
const OP_START: u32 = 1;
const OP_STOP: u32 = 2;
const OP_STATUS: u32 = 3;

/// The children of the document; `None` where GlusterFS has none and prints text.
pub(super) fn answered(growth: &Growth, answer: &Answer) -> Option<Vec<Element>> {
    let (text, body) = match (growth, answer) {
        (Growth::RebalanceStart(_), Answer::Started(started)) => {
            ("", node("volRebalance", vec![leaf("task-id", started.task), leaf("op", OP_START)]))
        }
        (Growth::RebalanceStatus(_), Answer::Rebalance(status)) => ("", rebalance(status, OP_STATUS)),
        (Growth::RebalanceControl(steer), Answer::Rebalance(status)) => {
            ("", rebalance(status, if steer.control == Control::Stop { OP_STOP } else { OP_STATUS }))
        }
        (Growth::RemoveStart(_), Answer::Removal(removal)) => {
            ("Remove Brick start successful", node("volRemoveBrick", task_id(removal.task)))
        }
        (Growth::RemoveCommit(commit), Answer::Removal(removal)) => {
            let text =
                if commit.force { "Remove Brick commit force successful" } else { "Remove Brick commit successful" };
            (text, node("volRemoveBrick", task_id(removal.task)))
        }
        (Growth::RemoveStatus(_) | Growth::RemoveStop(_), Answer::Rebalance(status)) => {
            let mut children = vec![leaf("task-id", status.task)];
            children.extend(nodes(status));
            ("", node("volRemoveBrick", children))
        }
        (Growth::Add(_), _) => return Some(with_operation("volAddBrick", "")),
        (Growth::Replace(_), _) => return Some(head(0, 0, "replace-brick commit force operation successful")),
        (Growth::ResetStart(_), _) => return Some(head(0, 0, "reset-brick start operation successful")),
        (Growth::ResetCommit(commit), _) => {
            let force = if commit.force { " force" } else { "" };
            return Some(head(0, 0, &format!("reset-brick commit{force} operation successful")));
        }
        _ => return None,
    };
    let mut children = head(0, 0, text);
    children.push(body);
    Some(children)
}

fn with_operation(name: &'static str, text: &str) -> Vec<Element> {
    let mut children = head(0, 0, text);
    children.extend(operation(name, text));
    children
}

/// The children of a refusal's document, and the exit code.
pub(super) fn refused(growth: &Growth, why: &str) -> (Vec<Element>, u8) {
    let with = |errno: i32, body: Vec<Element>| {
        let mut children = head(-1, errno, why);
        children.extend(body);
        children
    };
    match growth {
        Growth::RemoveStart(_) | Growth::RemoveCommit(_) => (with(0, vec![node("volRemoveBrick", vec![])]), 0),
        Growth::RemoveStatus(_) | Growth::RemoveStop(_) => (with(EG_INTERNAL, vec![node("volRemoveBrick", vec![])]), 0),
        Growth::RebalanceStart(_) | Growth::RebalanceStatus(_) | Growth::RebalanceControl(_) => {
            (with(EG_INTERNAL, operation("volRebalance", why)), 1)
        }
        Growth::Add(_) => (with(EG_INTERNAL, operation("volAddBrick", why)), 1),
        Growth::Replace(_) | Growth::ResetStart(_) | Growth::ResetCommit(_) => (with(EG_INTERNAL, vec![]), 1),
    }
}

fn task_id(task: Option<uuid::Uuid>) -> Vec<Element> {
    task.map(|task| leaf("task-id", task)).into_iter().collect()
}

fn rebalance(status: &Status, op: u32) -> Element {
    let mut children = vec![leaf("task-id", status.task), leaf("op", op)];
    children.extend(nodes(status));
    node("volRebalance", children)
}

fn nodes(status: &Status) -> Vec<Element> {
    let mut children = vec![leaf("nodeCount", status.nodes.len())];
    let mut total = Progress::new(status.mode);
    for shown in shown(status) {
        let progress = &shown.progress;
        let mut parts = vec![leaf("nodeName", &shown.host), leaf("id", shown.node)];
        parts.extend(counters(progress, status.mode));
        children.push(node("node", parts));
        total.files += progress.files;
        total.bytes += progress.bytes;
        total.lookups += progress.lookups;
        total.failures += progress.failures;
        total.skipped += progress.skipped;
        total.elapsed_ms = total.elapsed_ms.max(progress.elapsed_ms);
    }
    total.state = overall(status);
    children.push(node("aggregate", counters(&total, status.mode)));
    children
}

/// The whole's state: what a node has that is not done, if one has.
pub(super) fn overall(status: &Status) -> State {
    let has = |state| shown(status).any(|node| node.progress.state == state);
    [State::InProgress, State::Paused, State::Failed, State::Stopped, State::Completed]
        .into_iter()
        .find(|state| has(*state))
        .unwrap_or_default()
}

fn counters(progress: &Progress, mode: Mode) -> Vec<Element> {
    let seconds = progress.elapsed_ms / 1000;
    vec![
        leaf("files", progress.files),
        leaf("size", progress.bytes),
        leaf("lookups", progress.lookups),
        leaf("failures", progress.failures),
        leaf("skipped", progress.skipped),
        leaf("status", progress.state.gluster_number(mode)),
        leaf("statusStr", progress.state.gluster_words(mode)),
        leaf("runtime", format!("{seconds}.00")),
    ]
}
