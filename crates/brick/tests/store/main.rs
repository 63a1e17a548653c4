//! The store against a directory of its own under the system's temporary directory. All tests need root and a file system with
//! trusted.* xattrs (ext4, xfs, btrfs); where that is missing they print so and pass.

mod crash;
mod entries;
mod fixture;
mod health;
mod index;
mod model;
mod permission;
mod stress;
mod support;
mod syscalls;
mod times;
mod xattrs;
