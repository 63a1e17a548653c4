//! Moves of files between replica sets of real brick stores: complete, cut off at every step, and under writing clients.

#[path = "../heal/bricks.rs"]
#[allow(dead_code)]
mod bricks;
mod crash;
mod fixture;
mod moves;
