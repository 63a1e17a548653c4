//! The file operations of program 1298437 version 400, both directions.
//!
//! Field orders: `rpc/xdr/src/glusterfs4-xdr.x`. The bytes of WRITE, PUT and READ follow the XDR part without length or
//! padding; they are handed out beside the encoded part and cut from the record when decoding, never copied.

mod reply;
mod request;

pub use reply::{RawReply, decode_raw_reply, decode_reply, encode_raw_reply, encode_reply};
pub use request::{decode_request, encode_request};

#[cfg(test)]
mod tests;
