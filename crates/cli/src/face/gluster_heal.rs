//! `gluster volume heal` in text (`heal/src/glfs-heal.c`, `cli/src/cli-rpc-ops.c`).

use std::fmt::Write;

use mortar_api::heal::{Action, BrickPending, Entry, EntryState};
use mortar_api::volume::BrickRef;

use super::Output;
use crate::command::HealView;

/// How an entry is called: its path, or the gfid in angle brackets when no path is known.
pub(super) fn entry_name(entry: &Entry) -> String {
    entry.path.clone().unwrap_or_else(|| format!("<gfid:{}>", entry.gfid))
}

/// Entries of a brick by state: pending, split-brain, possibly healing.
pub(super) fn tally(brick: &BrickPending) -> (usize, usize, usize) {
    let count = |state| brick.entries.iter().filter(|entry| entry.state == state).count();
    (count(EntryState::Pending), count(EntryState::SplitBrain), count(EntryState::PossiblyHealing))
}

const CONNECTED: &str = "Connected";
const NOT_CONNECTED: &str = "Transport endpoint is not connected";

pub(super) const fn status(brick: &BrickPending) -> &'static str {
    if brick.connected { CONNECTED } else { NOT_CONNECTED }
}

/// A number, or `-` for a brick that did not answer.
pub(super) fn number(brick: &BrickPending, count: usize) -> String {
    if brick.connected { count.to_string() } else { "-".to_owned() }
}

pub(super) fn info(view: HealView, bricks: &[BrickPending]) -> String {
    let mut text = String::new();
    for brick in bricks {
        let _ = writeln!(text, "Brick {}", brick.brick);
        match view {
            HealView::Entries => entries(&mut text, brick),
            HealView::SplitBrain => split_brain(&mut text, brick),
            HealView::Summary => summary(&mut text, brick),
        }
        text.push('\n');
    }
    text
}

fn entries(text: &mut String, brick: &BrickPending) {
    for entry in &brick.entries {
        let _ = match entry.state {
            EntryState::Pending => writeln!(text, "{} ", entry_name(entry)),
            EntryState::SplitBrain => writeln!(text, "{} - Is in split-brain", entry_name(entry)),
            EntryState::PossiblyHealing => writeln!(text, "{} - Possibly undergoing heal", entry_name(entry)),
        };
    }
    let count = number(brick, brick.entries.len());
    let _ = writeln!(text, "Status: {}\nNumber of entries: {count}", status(brick));
}

fn split_brain(text: &mut String, brick: &BrickPending) {
    let (_, split, _) = tally(brick);
    for entry in brick.entries.iter().filter(|entry| entry.state == EntryState::SplitBrain) {
        let _ = writeln!(text, "{}", entry_name(entry));
    }
    let count = number(brick, split);
    let _ = writeln!(text, "Status: {}\nNumber of entries in split-brain: {count}", status(brick));
}

fn summary(text: &mut String, brick: &BrickPending) {
    let (pending, split, healing) = tally(brick);
    let _ = writeln!(
        text,
        "Status: {}\nTotal Number of entries: {}\nNumber of entries in heal pending: {}\nNumber of entries in split-brain: {}\nNumber of entries possibly healing: {}",
        status(brick),
        number(brick, brick.entries.len()),
        number(brick, pending),
        number(brick, split),
        number(brick, healing),
    );
}

pub(super) fn count(volume: &str, bricks: &[BrickPending]) -> String {
    let mut text = format!("Gathering count of entries to be healed on volume {volume} has been successful \n");
    for brick in bricks {
        let _ = writeln!(text, "\nBrick {}", brick.brick);
        text.push_str(&if brick.connected {
            format!("Number of entries: {}\n", brick.entries.len())
        } else {
            "Status: Brick is not connected\nNo gathered input for this brick\n".to_owned()
        });
    }
    text
}

/// `statistics heal-count replica BRICK`: the bricks of its replica set.
pub(super) fn count_of_replica(volume: &str, brick: &BrickRef, bricks: &[BrickPending]) -> Output {
    let Some(set) = bricks.iter().find(|of| of.brick == *brick).map(|of| of.replica_set) else {
        let text = "Gathering count of entries to be healed per replica on volume";
        return Output::fail(
            format!("{text} {volume} has been unsuccessful:\nBrick {brick} is not part of volume {volume}"),
            1,
        );
    };
    let of_set: Vec<BrickPending> = bricks.iter().filter(|of| of.replica_set == set).cloned().collect();
    Output::out(count(volume, &of_set).replacen("to be healed on", "to be healed per replica on", 1))
}

fn operation(action: Action) -> &'static str {
    match action {
        Action::Index => "Launching heal operation to perform index self heal",
        Action::Full => "Launching heal operation to perform full self heal",
        Action::Enable => "Enable heal",
        Action::Disable => "Disable heal",
        Action::GranularEnable => "Enable granular entry heal",
        Action::GranularDisable => "Disable granular entry heal",
    }
}

pub(super) fn started(volume: &str, action: Action) -> String {
    let more = match action {
        Action::Index | Action::Full => "Use heal info commands to check status.\n",
        _ => "",
    };
    format!("{} on volume {volume} has been successful \n{more}", operation(action))
}

pub(super) fn not_started(volume: &str, action: Action, why: &str) -> String {
    format!("{} on volume {volume} has been unsuccessful:\n{why}", operation(action))
}
