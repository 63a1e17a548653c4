//! Test beds: several hosts on one machine ([`lab`]), disks over files ([`loop_disk`]), trees compared ([`tree`]), and
//! waiting with an end ([`wait`]).
//!
//! For tests and the benchmark only; nothing that ships depends on it.
#![forbid(unsafe_code)]

pub mod lab;
pub mod loop_disk;
pub mod needs;
pub mod tree;
pub mod wait;
