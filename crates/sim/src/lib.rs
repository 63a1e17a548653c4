//! Deterministic simulation: real client layers (`mortar_volume::replicate`, `heal`) over the real lock layer of bricks
//! (`mortar_brick::locks`), with the network, the time and the disks simulated from one seed.
//!
//! ```text
//!  actors → Replicate → Link ─┐                        ┌─ Locks → Disk
//!  healer → ReplicaSet → Link ┴→ Net (one event queue) ┴→ brick sessions
//! ```
//!
//! Everything runs in one thread under tokio's paused clock; the only source of chance is [`rng::Rng`]. The same seed
//! gives the same run, step for step ([`run::Report::hash`]). For development only.
#![forbid(unsafe_code)]

pub mod actor;
pub mod brick;
pub mod disk;
pub mod faults;
pub mod history;
pub mod link;
pub mod net;
pub mod plant;
pub mod rng;
pub mod run;
pub mod scenario;
pub mod trace;
