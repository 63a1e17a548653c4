//! Dicts of the v4 fops.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

use mortar_types::Dict;
use mortar_wire::dict::{decode, encode};
use mortar_wire::xdr::Writer;

fn encoded(dict: &Option<Dict>) -> Bytes {
    let mut out = Writer::new();
    encode(dict, &mut out);
    out.into_inner().freeze()
}

fuzz_target!(|data: &[u8]| {
    let Ok(dict) = decode(Bytes::copy_from_slice(data)) else { return };
    let again = encoded(&dict);
    let back = decode(again.clone()).expect("our own bytes decode");
    assert_eq!(encoded(&back), again);
});
