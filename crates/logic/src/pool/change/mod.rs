//! Changes of a volume's bricks, and the jobs that move files because of them.
//!
//! The rules and their words are GlusterFS's (`glusterd-brick-ops.c`, `glusterd-replace-brick.c`,
//! `glusterd-reset-brick.c`, `glusterd-rebalance.c`). What only a look at the world can tell (is the brick up, does its
//! host answer, is the directory fit) is the daemon's.

mod add;
mod refusal;
mod remove;
mod replace;
mod task;

pub use add::AddBricks;
pub use refusal::Refusal;
pub use remove::{Removal, StartRemoval};
pub use replace::{ReplaceBrick, Reset};
pub use task::{Report, StartTask, Steer};

pub(super) use add::add;
pub(super) use remove::{commit, start as start_removal, stop as stop_removal};
pub(super) use replace::{commit_reset, replace, start_reset};
pub(super) use task::{report, start as start_task, steer};

use super::apply::NewBrick;
use super::v1::{Volume, VolumeState};

/// Where in the volume the brick that the admin names is.
fn position(volume: &Volume, named: &NewBrick) -> Option<usize> {
    volume.bricks.iter().position(|brick| {
        brick.path == named.path && (Some(brick.node) == named.node || brick.host.eq_ignore_ascii_case(&named.host))
    })
}

fn is_started(volume: &Volume) -> bool {
    volume.state == VolumeState::Started
}

#[cfg(test)]
mod tests;
