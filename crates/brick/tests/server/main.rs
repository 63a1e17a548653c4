//! The brick over its wire: a real store, a real socket, and a client that speaks the protocol.
//!
//! Stores need a file system with trusted.* xattrs and root; without them each test says so and passes.

mod brick;
mod client;
mod compounds;
mod crash;
mod fops;
mod handshake;
mod locks;
mod upcalls;
