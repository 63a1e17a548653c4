//! GlusterFS's wire formats, both directions: bytes in, values out, and back to the same bytes.
//!
//! No I/O and no clock. Decoding never panics and never allocates more than the input could fill.
#![forbid(unsafe_code)]

pub mod auth;
pub mod callback;
pub mod dict;
pub mod dict_v3;
mod dirent;
mod field;
pub mod fop;
pub mod handshake;
pub mod header;
pub mod iatt;
mod lock;
pub mod message;
pub mod portmap;
pub mod programs;
pub mod record;
pub mod volfile;
pub mod xdr;
