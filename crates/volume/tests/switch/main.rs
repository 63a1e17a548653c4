//! Changing over to other graphs while applications work: real bricks behind sockets of this process.
//!
//! Needs root and a file system with trusted xattrs; without, every test says so and is skipped.

mod bricks;
mod files;
mod layouts;
mod listing;
mod locks;
