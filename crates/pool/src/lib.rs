//! `mortard`, one per node: pool membership, volume configuration, supervision, volfile server and portmap.
//!
//! ```text
//!   24008 (mTLS)   ─┐                      ┌─ raft ── redb: log, state
//!   mortard.sock   ─┼─ service ── node ────┤
//!                   │                      └─ view ─┬─ supervisor ── bricks, heald
//!   24007 (RPC)    ─┴─ volfile_server ──────────────┘
//! ```
//!
//! The view is the configuration that this node has applied. Everything that serves or supervises follows it, so it
//! works right after a start and without a quorum; only changes go through the consensus.
#![forbid(unsafe_code)]

mod accuse;
mod bricks;
mod daemon;
mod getspec;
mod heal_connections;
mod heal_info;
mod heal_words;
mod identity;
mod jobs;
mod node;
mod options;
mod paths;
mod peers;
mod portmap;
mod raft;
mod resolve;
mod service;
mod supervisor;
mod tls;
mod volfile_server;
pub mod volgen;

pub use daemon::{Daemon, run};
pub use identity::IdentityError;
pub use node::StartError;
pub use options::{Options, PEER_PORT, PORT};
pub use raft::DatabaseError;
pub use tls::TlsError;
