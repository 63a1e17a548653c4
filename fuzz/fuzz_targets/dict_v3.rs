//! The older dict of handshakes and callbacks.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

use mortar_wire::dict_v3::{decode, encode};

fuzz_target!(|data: &[u8]| {
    let Ok(dict) = decode(Bytes::copy_from_slice(data)) else { return };
    let again = encode(dict.as_ref()).freeze();
    assert_eq!(decode(again), Ok(dict));
});
