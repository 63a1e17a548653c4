//! `mortard`, one per node: pool membership, volume configuration, supervision, volfile server and portmap.
#![forbid(unsafe_code)]

mod identity;
mod paths;
mod peers;
mod raft;
mod tls;
pub mod volgen;
