//! `mortar` in text for what grows and shrinks a volume: how far, how fast, how long, and what stays behind and why.

use std::time::Duration;

use mortar_api::rebalance::{Control, Mode, NodeStatus, State, Status};

use super::table::{row, table};
use super::volume_words::human_size;
use super::xml_growth::overall;
use crate::execute::Answer;
use crate::growth::Growth;

/// The answer and what to do next; `None` where GlusterFS's words serve.
pub(super) fn success(growth: &Growth, answer: &Answer) -> Option<String> {
    let text = match (growth, answer) {
        (Growth::Add(add), Answer::Changed(changed)) => {
            let next = match add.replica {
                Some(_) => format!("Heal fills the new bricks: mortar volume heal {} info\n", add.volume),
                None => format!("Spread the files over them: mortar volume rebalance {} start\n", add.volume),
            };
            format!("{} brick(s) added to volume {}. {next}", add.bricks.len(), add.volume) + &notes(&changed.warnings)
        }
        (Growth::RemoveStart(start), Answer::Removal(removal)) => {
            let bricks: Vec<String> = start.bricks.iter().map(ToString::to_string).collect();
            let bricks = bricks.join(" ");
            format!(
                "Files leave {bricks} now. Watch: mortar volume remove-brick {name} {bricks} status\n\
                 When it has completed: mortar volume remove-brick {name} {bricks} commit\n",
                name = start.volume
            ) + &notes(&removal.warnings)
        }
        (Growth::RemoveCommit(commit), Answer::Removal(removal)) => {
            format!("{} brick(s) have left volume {}.\n", commit.bricks.len(), commit.volume)
                + &notes(&removal.warnings)
        }
        (Growth::RebalanceStart(start), Answer::Started(started)) => {
            let what = if start.dry_run { "Counting what would move" } else { "Rebalance started" };
            format!("{what} on volume {name}. Watch: mortar volume rebalance {name} status\n", name = start.volume)
                + &notes(&started.warnings)
        }
        (Growth::RebalanceControl(steer), Answer::Rebalance(status)) => {
            let what = match steer.control {
                Control::Pause => "Pausing: files under way are finished first.",
                Control::Resume => "Going on.",
                Control::Stop => {
                    "Stopping: files under way are finished first. What has been moved stays where it is now."
                }
            };
            progress(status) + what + "\n"
        }
        (Growth::RebalanceStatus(_) | Growth::RemoveStatus(_) | Growth::RemoveStop(_), Answer::Rebalance(status)) => {
            progress(status)
        }
        _ => return None,
    };
    Some(text)
}

fn notes(warnings: &[String]) -> String {
    warnings.iter().map(|warning| format!("Note: {warning}\n")).collect()
}

fn progress(status: &Status) -> String {
    let mut rows = vec![row(&["NODE", "STATE", "MOVED", "SIZE", "LOOKED AT", "FAILED", "STAY", "RATE", "RUN", "LEFT"])];
    rows.extend(status.nodes.iter().map(|node| node_row(node, status.mode)));
    let mut text = table(&rows);
    if status.nodes.iter().any(|node| node.progress.dry_run) {
        text.push_str("A dry run: nothing is moved, the numbers say what would be.\n");
    }
    text.push_str(&stays(status));
    for node in &status.nodes {
        if let Some(message) = &node.progress.message {
            text.push_str(&format!("{}: {message}\n", node.host));
        }
    }
    if overall(status) == State::Completed {
        text.push_str("Completed.\n");
    }
    text
}

fn node_row(node: &NodeStatus, mode: Mode) -> Vec<String> {
    let progress = &node.progress;
    let state = match progress.state {
        State::Paused => "paused",
        state => state.gluster_words(mode),
    };
    let state = if node.connected { state.to_owned() } else { format!("{state} (node does not answer)") };
    let rate = if progress.state == State::InProgress {
        format!("{:.0}/s {}/s", progress.files_per_s, human_size(progress.bytes_per_s as u64))
    } else {
        String::new()
    };
    let left = progress.eta_s.filter(|_| !progress.state.is_final());
    vec![
        node.host.clone(),
        state,
        progress.files.to_string(),
        human_size(progress.bytes),
        progress.lookups.to_string(),
        progress.failures.to_string(),
        progress.skipped.to_string(),
        rate,
        clock(Duration::from_millis(progress.elapsed_ms)),
        left.map_or_else(String::new, |seconds| clock(Duration::from_secs(seconds))),
    ]
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Which files stay where they are, by reason, over all nodes, with a few by name.
fn stays(status: &Status) -> String {
    let mut by_reason = std::collections::BTreeMap::new();
    for node in &status.nodes {
        for (reason, count) in &node.progress.skipped_by_reason {
            *by_reason.entry(*reason).or_insert(0) += count;
        }
    }
    let mut text: String =
        by_reason.iter().map(|(reason, count)| format!("{count} files stay: {}\n", reason.words())).collect();
    for example in status.nodes.iter().flat_map(|node| node.progress.examples.iter().rev().take(3)) {
        text.push_str(&format!("  {}: {}\n", example.path, example.why));
    }
    text
}
