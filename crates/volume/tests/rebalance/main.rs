//! Moves of files between replica sets of real brick stores: complete, cut off at every step, and under writing clients.

#[path = "../heal/bricks.rs"]
#[allow(dead_code)]
mod bricks;
#[path = "../support/connection.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod connection;
mod crash;
mod fixture;
mod moves;
