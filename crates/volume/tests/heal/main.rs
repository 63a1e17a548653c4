//! Heal of real bricks: a client works while a brick is away, the brick comes back, and both must be the same.
//!
//! Needs root and a file system with trusted xattrs; without, every test says so and is skipped.

mod bricks;
mod concurrent;
mod files;
mod fixtures;
mod interrupted;
mod more;
mod scenarios;
mod split_brain;
mod tree;

use std::sync::OnceLock;

/// Whether the tests can run here.
pub(crate) fn can_run() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        let can = rustix::fs::lsetxattr(dir.path(), "trusted.mortar.test", b"1", flags).is_ok();
        if !can {
            mortar_testkit::needs::skip("needs root and trusted xattrs in the temporary directory");
        }
        can
    })
}
