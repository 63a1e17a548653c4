//! The pool's configuration as a pure state machine.
//!
//! [`State`] is what the members agree on, [`Command`] is an entry of their log, [`apply`] is the only way to change one
//! by the other. It is deterministic: ids, passwords and times come with the command, so that every member that applies
//! the same log holds the same state. A command that is refused leaves the state as it was.
//!
//! Checks that need a disk (is the brick's directory fit) or the network (does the host answer) are the daemon's; those
//! that need only the state are here, and run both before the command is proposed and when it is applied.

mod apply;
pub mod change;
mod create;
pub mod groups;
pub mod hint;
pub mod options;
mod refusal;
pub mod v1;
mod validate;

pub use apply::{Applied, Command, NewBrick, NewVolume, apply, check};
pub use refusal::{Kind, Refusal};
pub use v1::{Brick, Layout, Member, NodePart, State, Task, TaskMode, TaskState, Volume, VolumeState};

#[cfg(test)]
mod tests;
