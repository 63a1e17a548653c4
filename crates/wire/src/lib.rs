//! GlusterFS's wire formats, both directions: bytes in, values out, and back to the same bytes.
//!
//! No I/O and no clock. Decoding never panics and never allocates more than the input could fill.
#![forbid(unsafe_code)]

pub mod xdr;
