//! The client side of a volume: layers from the brick connections up, and heal, all behind one trait.
#![forbid(unsafe_code)]

pub mod client;
pub mod heal;
pub mod replicate;
pub mod utime;
