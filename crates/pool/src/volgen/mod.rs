//! Volfiles: the translator graphs that bricks, mounts and daemons run.
//!
//! GlusterFS's own clients parse them, and compare their text to see whether anything changed; so the text is a pure
//! function of the volume, and the same, byte for byte, as GlusterFS 10.3 writes for the same volume (tested against
//! its files). Options are printed newest first because GlusterFS's dict is walked so; the order of setting them
//! follows its generator (`xlators/mgmt/glusterd/src/glusterd-volgen.c`).

mod brick;
mod client;
mod graph;

pub use brick::{Surroundings, brick};
pub use client::{Trust, client, rebalance, self_heal_daemon};

/// The id of a brick's volfile, which also names its files: `VOL.HOST.PATH-WITH-DASHES`.
pub fn brick_volfile_id(volume: &str, host: &str, path: &str) -> String {
    format!("{volume}.{host}.{}", dashed(path))
}

/// A path as part of a file name: without the leading slash, dashes for the others.
pub fn dashed(path: &str) -> String {
    path.trim_start_matches('/').replace('/', "-")
}
