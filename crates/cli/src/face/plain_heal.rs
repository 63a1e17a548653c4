//! `mortar volume heal` and `verify` in text: what is pending, what was settled, what differs, and what to do.

use mortar_api::heal::{BrickPending, EntryState, SettleFailureKind, Settled, Verified};

use super::Output;
use super::gluster_heal::entry_name;
use super::volume_words::human_size;

/// Names with why they were not settled, if so, and what else can be tried.
pub(super) fn settled(volume: &str, settled: &[Settled], is_named: bool) -> Output {
    let mut text = String::new();
    let mut failed = false;
    for entry in settled {
        let Some(failure) = &entry.failure else {
            text.push_str(&format!("{}: settled\n", entry.name));
            continue;
        };
        // Of all that is pending, what is not in split-brain heals by itself.
        if !is_named && failure.kind == SettleFailureKind::NotInSplitBrain {
            continue;
        }
        failed = true;
        let advice = match failure.kind {
            SettleFailureKind::Lookup => format!("see what is: mortar volume heal {volume} info split-brain"),
            SettleFailureKind::NotInSplitBrain => {
                "nothing is to be chosen here; what is pending heals by itself".to_owned()
            }
            SettleFailureKind::NoChoice => {
                format!(
                    "name the copy by its brick: mortar volume heal {volume} split-brain source-brick HOST:BRICK FILE"
                )
            }
            SettleFailureKind::Failed => {
                format!("see whether all bricks are up, then try again: mortar volume status {volume}")
            }
        };
        text.push_str(&format!("{}: not settled: {}; {advice}\n", entry.name, failure.message));
    }
    if text.is_empty() {
        text.push_str("Nothing is in split-brain.\n");
    }
    Output { stdout: text, stderr: String::new(), code: u8::from(failed) }
}

pub(super) fn verified(volume: &str, verified: &Verified) -> Output {
    let (names, size) = (verified.names, human_size(verified.bytes));
    if verified.differences.is_empty() {
        return Output::out(format!("{names} names and {size} of content compared: the replicas are equal.\n"));
    }
    let mut text = String::new();
    for difference in &verified.differences {
        let on: Vec<String> = difference.on.iter().map(ToString::to_string).collect();
        let known = if difference.pending { "  (pending: heals, or see heal info)" } else { "" };
        text.push_str(&format!("{}  {} on {}{known}\n", difference.path, difference.what, on.join(", ")));
    }
    let more = if verified.more { " There are more." } else { "" };
    let count = verified.differences.len();
    text.push_str(&format!("{names} names and {size} of content compared: {count} differences.{more}\n"));
    if verified.differences.iter().any(|difference| !difference.pending) {
        text.push_str(&format!(
            "What is not pending was changed behind the bricks' backs or left by an old heal. Keep what is right: remove \
             a leftover\nthrough a mount, or bring what is missing to all bricks with: mortar volume heal {volume} full\n"
        ));
    }
    Output { stdout: text, stderr: String::new(), code: 1 }
}

pub(super) fn pending(bricks: &[BrickPending]) -> String {
    let mut text = String::new();
    for brick in bricks {
        if !brick.connected {
            text.push_str(&format!("{}: does not answer; heals when it is back\n", brick.brick));
            continue;
        }
        text.push_str(&format!("{}: {} to heal\n", brick.brick, brick.entries.len()));
        for entry in &brick.entries {
            let state = match entry.state {
                EntryState::Pending => "",
                EntryState::SplitBrain => "  SPLIT-BRAIN",
                EntryState::PossiblyHealing => "  healing now",
            };
            text.push_str(&format!("  {}{state}\n", entry_name(entry)));
            if let Some(why) = &entry.why {
                text.push_str(&format!("    {why}\n"));
            }
        }
    }
    text
}
