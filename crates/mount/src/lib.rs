//! The FUSE client: mounts a volume, or any [`mortar_types::Fops`], as a file system of the kernel's.
//!
//! The adapter only translates ([`bridge`]): node ids and handles to gfids and fds, requests to fops, failures to errno.
//! What a volume is, and where it lives, it does not know.
#![forbid(unsafe_code)]

pub mod attr;
pub mod bridge;
pub mod changes;
pub mod glusterfs_args;
pub mod groups;
pub mod handles;
pub mod helper;
pub mod invalidate;
pub mod kernel;
pub mod locks;
pub mod mountpoint;
pub mod nodes;
pub mod options;
pub mod run;
pub mod running;
pub mod session;
pub mod source;

pub use options::Options;
pub use run::run;
