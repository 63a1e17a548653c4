//! Fop replies: the first byte is the fop's number, the rest the reply's body.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

use mortar_types::{FopKind, Outcome, Reply};
use mortar_wire::fop::{RawReply, decode_raw_reply, decode_reply, encode_raw_reply, encode_reply};
use mortar_wire::xdr::Writer;

fn encoded(kind: FopKind, outcome: &Outcome<Reply>) -> Bytes {
    let mut out = Writer::new();
    let payload = encode_reply(kind, outcome, &mut out);
    out.raw(&payload.unwrap_or_default());
    out.into_inner().freeze()
}

fn encoded_raw(reply: &RawReply) -> Bytes {
    let mut out = Writer::new();
    let payload = encode_raw_reply(reply, &mut out);
    out.raw(&payload.unwrap_or_default());
    out.into_inner().freeze()
}

fuzz_target!(|data: &[u8]| {
    let Some((number, body)) = data.split_first() else { return };
    let Some(kind) = FopKind::from_number(u32::from(*number)) else { return };
    let body = Bytes::copy_from_slice(body);
    if let Ok(outcome) = decode_reply(kind, body.clone()) {
        let again = encoded(kind, &outcome);
        let back = decode_reply(kind, again.clone()).expect("our own bytes decode");
        assert_eq!(encoded(kind, &back), again);
    }
    if let Ok(reply) = decode_raw_reply(kind, body) {
        let again = encoded_raw(&reply);
        let back = decode_raw_reply(kind, again.clone()).expect("our own bytes decode");
        assert_eq!(encoded_raw(&back), again);
    }
});
