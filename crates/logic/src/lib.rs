//! Decisions without I/O: no sockets, no files, no clock. Time and chance are arguments.
#![forbid(unsafe_code)]

pub mod capacity;
pub mod compound;
pub mod distribute;
pub mod heal;
pub mod liveness;
pub mod locks;
pub mod pool;
pub mod rebalance;
pub mod replicate;
pub mod values;
