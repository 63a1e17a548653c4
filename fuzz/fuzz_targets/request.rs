//! Fop requests: the first byte is the fop's number, the rest its body.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

use mortar_types::{FopKind, Request};
use mortar_wire::fop::{decode_request, encode_request};
use mortar_wire::xdr::Writer;

fn encoded(request: &Request) -> Bytes {
    let mut out = Writer::new();
    let payload = encode_request(request, &mut out);
    out.raw(&payload.unwrap_or_default());
    out.into_inner().freeze()
}

fuzz_target!(|data: &[u8]| {
    let Some((number, body)) = data.split_first() else { return };
    let Some(kind) = FopKind::from_number(u32::from(*number)) else { return };
    let Ok(request) = decode_request(kind, Bytes::copy_from_slice(body)) else { return };
    let again = encoded(&request);
    let back = decode_request(kind, again.clone()).expect("our own bytes decode");
    assert_eq!(encoded(&back), again);
});
