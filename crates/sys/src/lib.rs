//! System calls behind safe wrappers that speak [`mortar_types::Errno`].
//!
//! Paths never travel through here as strings to be walked from `/`: a place is an open directory and a name relative
//! to it ([`Loc`]), and the last component is never followed when it is a symbolic link. This is the only crate that may
//! hold `unsafe` code.

pub mod at;
pub mod brick_path;
pub mod daemon;
pub mod dirents;
pub mod file;
pub mod loc;
pub mod xattr;
mod xattrat;

use mortar_types::Errno;

pub use loc::Loc;

/// What every wrapper returns: the kernel's errno as is.
pub type Result<T> = std::result::Result<T, Errno>;

/// From rustix's error number.
pub fn errno(error: rustix::io::Errno) -> Errno {
    Errno(error.raw_os_error())
}
