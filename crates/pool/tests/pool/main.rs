//! The daemon from outside: pools of several daemons, volumes on them, death and return.
#![expect(unreachable_pub, reason = "helpers of one test program")]

mod cluster;
mod fake;
mod growth;
mod members;
mod volfiles;
mod volumes;
