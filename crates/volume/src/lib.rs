//! The client side of a volume: layers from the brick connections up, and heal, all behind one trait.
#![forbid(unsafe_code)]

pub mod client;
pub mod distribute;
pub mod getspec;
pub mod graph;
pub mod heal;
pub mod quick_read;
pub mod read_only;
pub mod rebalance;
pub mod replicate;
pub mod role;
pub mod section;
pub mod switch;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod unbroken;
pub mod utime;
