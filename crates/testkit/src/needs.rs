//! What a test needs of the machine; what is missing is said, and the test is skipped.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// A thing that a fresh machine may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Root,
    Fuse,
    /// A program on the PATH, and the Debian package that brings it.
    Program(&'static str, &'static str),
}

/// What the namespace lab needs.
pub const LAB: [Need; 7] = [
    Need::Root,
    Need::Fuse,
    Need::Program("ip", "iproute2"),
    Need::Program("nsenter", "util-linux"),
    Need::Program("unshare", "util-linux"),
    Need::Program("setpriv", "util-linux"),
    Need::Program("mkfs.ext4", "e2fsprogs"),
];

impl Need {
    /// What to say when it is missing, `None` when it is there.
    fn missing(self) -> Option<String> {
        match self {
            Self::Root => (!rustix::process::geteuid().is_root()).then(|| "root".to_owned()),
            Self::Fuse => (!Path::new("/dev/fuse").exists()).then(|| "/dev/fuse".to_owned()),
            Self::Program(name, package) => {
                let found = Command::new("sh")
                    .args(["-c", &format!("command -v {name}")])
                    .stdout(Stdio::null())
                    .status()
                    .is_ok_and(|status| status.success());
                (!found).then(|| format!("{name} (Debian package {package})"))
            }
        }
    }
}

/// Whether all needs are met. Otherwise prints what is missing and answers `false`: the caller returns.
///
/// With `MORTAR_SKIP_NOTHING=1` (as CI sets it) a missing need is a failure.
///
/// # Panics
/// When something is missing and nothing may be skipped.
pub fn met(test: &str, needs: &[Need]) -> bool {
    let missing: Vec<String> = needs.iter().filter_map(|need| need.missing()).collect();
    if missing.is_empty() {
        return true;
    }
    skip(&format!("{test}: needs {}", missing.join(", ")));
    false
}

/// Whether bricks can be made in the temporary directory: root, on a file system with trusted xattrs. As [`met`] otherwise.
///
/// # Panics
/// When they cannot and nothing may be skipped.
pub fn trusted_xattrs() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        let flags = rustix::fs::XattrFlags::empty();
        let can = tempfile::tempdir()
            .is_ok_and(|dir| rustix::fs::lsetxattr(dir.path(), "trusted.mortar.test", b"1", flags).is_ok());
        if !can {
            skip("needs root and trusted xattrs in the temporary directory");
        }
        can
    })
}

/// Says why a test is skipped; the caller returns. For needs that only trying shows.
///
/// # Panics
/// When nothing may be skipped (`MORTAR_SKIP_NOTHING=1`).
pub fn skip(reason: &str) {
    assert!(std::env::var_os("MORTAR_SKIP_NOTHING").is_none(), "would be skipped: {reason}");
    eprintln!("skipped: {reason}");
}
