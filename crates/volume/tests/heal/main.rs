//! Heal of real bricks: a client works while a brick is away, the brick comes back, and both must be the same.
//!
//! Needs root and a file system with trusted xattrs; without, every test says so and is skipped.

mod bricks;
mod concurrent;
#[path = "../support/connection.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod connection;
mod files;
mod fixtures;
mod interrupted;
mod more;
mod scenarios;
mod split_brain;
mod tree;
mod verify;

pub(crate) use mortar_testkit::needs::trusted_xattrs as can_run;
