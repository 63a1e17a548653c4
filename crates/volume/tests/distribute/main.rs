//! Distribution over real bricks in temporary directories: each brick is a subvolume of its own, or half of a replica
//! set where GlusterFS wrote it.
//!
//! Needs root and a file system with trusted xattrs; without, every test says so and passes.

mod bricks;
mod concurrent;
mod fixture;
mod growth;
mod migration;
mod names;

use std::sync::OnceLock;

/// Whether the tests can run here.
pub(crate) fn can_run() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        let can = rustix::fs::lsetxattr(dir.path(), "trusted.mortar.test", b"1", flags).is_ok();
        if !can {
            eprintln!("skipped: needs root and trusted xattrs in the temporary directory");
        }
        can
    })
}
