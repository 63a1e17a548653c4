//! Decisions of a rebalance beside which file goes where ([`crate::distribute::moves`]): how fast, whose file it is,
//! where to go on after a crash, how long it will take.

pub mod checkpoint;
pub mod meter;
pub mod share;
pub mod throttle;
