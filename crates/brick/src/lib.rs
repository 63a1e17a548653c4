//! The brick: one directory, served to GlusterFS's and Mortar's clients.
//!
//! ```text
//! server (rpc, handshake, fd table) → upcall → locks → store (posix, index)
//! ```
//!
//! Every layer but the topmost is a [`mortar_types::Fops`]. [`run`] builds the stack from a brick volfile.
#![forbid(unsafe_code)]

pub mod auth;
pub mod index;
pub mod locks;
pub mod options;
pub mod run;
pub mod server;
pub mod store;
pub mod upcall;
