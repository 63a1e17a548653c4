//! Distribution over real bricks in temporary directories: each brick is a subvolume of its own, or half of a replica
//! set where GlusterFS wrote it.
//!
//! Needs root and a file system with trusted xattrs; without, every test says so and is skipped.

mod bricks;
mod concurrent;
#[path = "../support/connection.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod connection;
mod fixture;
mod growth;
mod migration;
mod names;

pub(crate) use mortar_testkit::needs::trusted_xattrs as can_run;
