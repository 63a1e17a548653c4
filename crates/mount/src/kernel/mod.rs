//! The kernel's side of FUSE: numbers, requests, replies and the device they travel through.
//!
//! Spoken here rather than through a library, because the adapter needs what the libraries for Rust leave out: an inode
//! number apart from the node id, FUSE_INTERRUPT, the flock flag, the "kill set-user-id" flags, and write payloads that
//! stay in the buffer they were read into. Source of every layout: Linux `include/uapi/linux/fuse.h`.

pub mod abi;
pub mod device;
pub mod init;
pub mod reply;
pub mod request;
