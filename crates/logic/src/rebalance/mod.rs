//! Decisions of a rebalance beside which file goes where ([`crate::distribute::moves`]): how fast, whose file it is,
//! what a name that was met is to the job, which directory is next, where to go on after a crash, how long it will take.

pub mod checkpoint;
pub mod judge;
pub mod meter;
pub mod pending;
pub mod share;
pub mod throttle;
