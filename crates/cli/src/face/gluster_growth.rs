//! `gluster volume add-brick`, `remove-brick`, `replace-brick`, `reset-brick`, `rebalance` in text: GlusterFS's words and
//! column widths (`cli/src/cli-rpc-ops.c: gf_cli_print_rebalance_status`).

use std::fmt::Write;

use mortar_api::rebalance::{Control, Mode, NodeStatus, State, Status};
use mortar_api::volume::BrickRef;

use super::Output;
use super::volume_words::human_size;
use crate::execute::Answer;
use crate::growth::Growth;

/// The answer in GlusterFS's words; `None` when it does not fit the command.
pub(super) fn success(growth: &Growth, answer: &Answer) -> Option<Output> {
    let text = match (growth, answer) {
        (Growth::Add(_), _) => "volume add-brick: success\n".to_owned(),
        (Growth::RemoveStart(_), Answer::Removal(removal)) => {
            let id = removal.task.map(|id| format!("ID: {id}\n")).unwrap_or_default();
            format!("volume remove-brick start: success\n{id}")
        }
        (Growth::RemoveCommit(commit), _) if commit.force => "volume remove-brick commit force: success\n".to_owned(),
        (Growth::RemoveCommit(_), _) => "volume remove-brick commit: success\n\
             Check the removed bricks to ensure all files are migrated.\n\
             If files with data are found on the brick path, copy them via a gluster mount point before re-purposing the \
             removed brick. \n"
            .to_owned(),
        (Growth::RemoveStatus(_), Answer::Rebalance(status)) => status_table(status),
        (Growth::RemoveStop(_), Answer::Rebalance(status)) => {
            status_table(status)
                + "'remove-brick' process may be in the middle of a file migration.\n\
                   The process will be fully stopped once the migration of the file is complete.\n\
                   Please check remove-brick process for completion before doing any further brick related tasks on the \
                   volume.\n"
        }
        (Growth::Replace(_), _) => {
            "volume replace-brick: success: replace-brick commit force operation successful\n".to_owned()
        }
        (Growth::ResetStart(_), _) => "volume reset-brick: success: reset-brick start operation successful\n".to_owned(),
        (Growth::ResetCommit(commit), _) => {
            let force = if commit.force { " force" } else { "" };
            format!("volume reset-brick: success: reset-brick commit{force} operation successful\n")
        }
        (Growth::RebalanceStart(start), Answer::Started(started)) => format!(
            "volume rebalance: {name}: success: Rebalance on {name} has been started successfully. Use rebalance status \
             command to check status of the rebalance process.\nID: {id}\n",
            name = start.volume,
            id = started.task
        ),
        (Growth::RebalanceStatus(get), Answer::Rebalance(status)) => {
            status_table(status) + &format!("volume rebalance: {}: success\n", get.volume)
        }
        (Growth::RebalanceControl(steer), Answer::Rebalance(status)) if steer.control == Control::Stop => {
            status_table(status)
                + &format!(
                    "volume rebalance: {}: success: rebalance process may be in the middle of a file migration.\n\
                     The process will be fully stopped once the migration of the file is complete.\n\
                     Please check rebalance process for completion before doing any further brick related tasks on the \
                     volume.\n\n",
                    steer.volume
                )
        }
        (Growth::RebalanceControl(steer), Answer::Rebalance(status)) => {
            status_table(status) + &format!("volume rebalance: {}: success\n", steer.volume)
        }
        _ => return None,
    };
    Some(Output::out(text))
}

/// The line of a refusal.
pub(super) fn failure(growth: &Growth, why: &str) -> String {
    let name = match growth {
        Growth::RebalanceStart(start) => format!("rebalance: {}", start.volume),
        Growth::RebalanceStatus(get) => format!("rebalance: {}", get.volume),
        Growth::RebalanceControl(steer) => format!("rebalance: {}", steer.volume),
        other => operation(other).to_owned(),
    };
    format!("volume {name}: failed: {why}")
}

/// The operation as GlusterFS names it before "success" and "failed".
fn operation(growth: &Growth) -> &'static str {
    match growth {
        Growth::Add(_) => "add-brick",
        Growth::RemoveStart(_) => "remove-brick start",
        Growth::RemoveStatus(_) => "remove-brick status",
        Growth::RemoveStop(_) => "remove-brick stop",
        Growth::RemoveCommit(commit) if commit.force => "remove-brick commit force",
        Growth::RemoveCommit(_) => "remove-brick commit",
        Growth::Replace(_) => "replace-brick",
        Growth::ResetStart(_) | Growth::ResetCommit(_) => "reset-brick",
        Growth::RebalanceStart(_) | Growth::RebalanceStatus(_) | Growth::RebalanceControl(_) => "rebalance",
    }
}

/// The nodes that have a part in the job; GlusterFS leaves out those that have not begun and those that do not answer.
pub(super) fn shown(status: &Status) -> impl Iterator<Item = &NodeStatus> {
    status.nodes.iter().filter(|node| node.progress.state != State::NotStarted)
}

fn status_table(status: &Status) -> String {
    if status.mode == Mode::FixLayout { layout_table(status) } else { files_table(status) }
}

fn layout_table(status: &Status) -> String {
    let mut text = format!(
        "{:>35} {:>41} {:>27}\n{:>35} {:>41} {:>27}\n",
        "Node", "status", "run time in h:m:s", "---------", "-----------", "------------"
    );
    for node in shown(status) {
        let words = node.progress.state.gluster_words(status.mode);
        let _ = writeln!(text, "{:>35} {words:>50} {}", node.host, clock(node));
    }
    text
}

fn files_table(status: &Status) -> String {
    let rule = "-----------";
    let mut text = format!(
        "{:>40} {:>16} {:>13} {:>13} {:>13} {:>13} {:>20} {:>18}\n{:>40} {rule:>16} {rule:>13} {rule:>13} {rule:>13} {rule:>13} {:>20} {:>18}\n",
        "Node",
        "Rebalanced-files",
        "size",
        "scanned",
        "failures",
        "skipped",
        "status",
        "run time in h:m:s",
        "---------",
        "------------",
        "--------------",
    );
    for node in shown(status) {
        let progress = &node.progress;
        let _ = writeln!(
            text,
            "{:>40} {:>16} {:>13} {:>13} {:>13} {:>13} {:>20} {}",
            node.host,
            progress.files,
            human_size(progress.bytes),
            progress.lookups,
            progress.failures,
            progress.skipped,
            progress.state.gluster_words(status.mode),
            clock(node)
        );
    }
    text
}

/// The run time, as `%8d:%02d:%02d`.
fn clock(node: &NodeStatus) -> String {
    let seconds = node.progress.elapsed_ms / 1000;
    format!("{:>8}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// What to ask before the command (GlusterFS `cli-cmd-volume.c: cli_cmd_volume_remove_brick_cbk`).
pub fn question(growth: &Growth) -> Option<&'static str> {
    match growth {
        Growth::RemoveStart(_) => Some(
            "It is recommended that remove-brick be run with cluster.force-migration option disabled to prevent possible \
             data corruption. Doing so will ensure that files that receive writes during migration will not be migrated \
             and will need to be manually copied after the remove-brick commit operation. Please check the value of the \
             option and update accordingly. \nDo you want to continue with your current cluster.force-migration settings?",
        ),
        Growth::RemoveCommit(commit) if commit.force => Some(
            "Remove-brick force will not migrate files from the removed bricks, so they will no longer be available on the \
             volume.\nDo you want to continue?",
        ),
        _ => None,
    }
}

/// The lines about bricks that leave, in a task's status.
pub(super) fn removed_bricks(bricks: &[BrickRef]) -> String {
    if bricks.is_empty() {
        return String::new();
    }
    bricks
        .iter()
        .fold(format!("{:<20}\n", "Removed bricks:"), |text, brick| text + &format!("{:<20}\n", brick.to_string()))
}
