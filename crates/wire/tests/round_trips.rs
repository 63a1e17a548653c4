//! What is encoded decodes to the same value; bytes that mean nothing are refused, never a panic.

mod strategies;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};
use proptest::sample::{Index, select};

use mortar_types::{Dict, Errno, Failure, FopKind, Iatt, Value};
use mortar_wire::callback::Callback;
use mortar_wire::fop::{
    RawReply, decode_raw_reply, decode_reply, decode_request, encode_raw_reply, encode_reply, encode_request,
};
use mortar_wire::handshake::{
    CommonReply, DumpReply, DumpRequest, EventNotifyReply, EventNotifyRequest, GetVolumeInfoReply,
    GetVolumeInfoRequest, GetspecReply, GetspecRequest, SetLkVerReply, SetLkVerRequest, SetvolumeReply,
    SetvolumeRequest,
};
use mortar_wire::message::Message;
use mortar_wire::xdr::Writer;
use mortar_wire::{dict, dict_v3};

use strategies::{KINDS, any_reply, any_request, arb};

fn whole(out: Writer, payload: Option<Bytes>) -> Bytes {
    let mut bytes = out.into_inner();
    bytes.extend_from_slice(&payload.unwrap_or_default());
    bytes.freeze()
}

/// What an untyped value becomes.
fn untyped(value: &Value) -> Option<Vec<u8>> {
    Some(match value {
        Value::Int(number) => format!("{number}\0").into_bytes(),
        Value::Uint(number) => format!("{number}\0").into_bytes(),
        Value::Double(number) => format!("{number:.6}\0").into_bytes(),
        Value::Str(text) => [text, &b"\0"[..]].concat(),
        Value::Old(bytes) | Value::Ptr(bytes) => bytes.to_vec(),
        Value::Gfid(gfid) => gfid.0.to_vec(),
        Value::Iatt(_) | Value::Mdata(_) => return None,
    })
}

fn decode_all(procedure: u32, bytes: &Bytes) {
    for kind in FopKind::ALL {
        let _ = decode_request(*kind, bytes.clone());
        let _ = decode_reply(*kind, bytes.clone());
        let _ = decode_raw_reply(*kind, bytes.clone());
    }
    let _ = dict::decode(bytes.clone());
    let _ = dict_v3::decode(bytes.clone());
    let _ = Callback::decode(procedure, bytes.clone());
    let _ = DumpRequest::decode(bytes.clone());
    let _ = DumpReply::decode(bytes.clone());
    let _ = CommonReply::decode(bytes.clone());
    let _ = SetvolumeRequest::decode(bytes.clone());
    let _ = SetvolumeReply::decode(bytes.clone());
    let _ = GetspecRequest::decode(bytes.clone());
    let _ = GetspecReply::decode(bytes.clone());
    let _ = SetLkVerRequest::decode(bytes.clone());
    let _ = SetLkVerReply::decode(bytes.clone());
    let _ = EventNotifyRequest::decode(bytes.clone());
    let _ = EventNotifyReply::decode(bytes.clone());
    let _ = GetVolumeInfoRequest::decode(bytes.clone());
    let _ = GetVolumeInfoReply::decode(bytes.clone());
}

#[test]
fn the_strategies_know_every_fop() {
    assert_eq!(KINDS, FopKind::ALL);
}

proptest! {
    // Each case picks one of 55 kinds.
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn requests_come_back(request in any_request()) {
        let mut out = Writer::new();
        let payload = encode_request(&request, &mut out);
        prop_assert_eq!(decode_request(request.kind(), whole(out, payload)), Ok(request));
    }

    #[test]
    fn replies_come_back((kind, reply) in any_reply()) {
        let outcome = Ok(reply);
        let mut out = Writer::new();
        let payload = encode_reply(kind, &outcome, &mut out);
        prop_assert_eq!(decode_reply(kind, whole(out, payload)), Ok(outcome));
    }

    #[test]
    fn failures_come_back_and_have_a_whole_body(kind in select(FopKind::ALL), errno in 1..200, xdata in arb::<Option<Dict>>()) {
        let failure = Failure { errno: Errno(errno), xdata };
        let mut out = Writer::new();
        prop_assert_eq!(encode_reply(kind, &Err(failure.clone()), &mut out), None);
        let bytes = whole(out, None);
        prop_assert_eq!(decode_reply(kind, bytes.clone()), Ok(Err(failure.clone())));
        // A peer that decodes the whole structure, as GlusterFS's clients do.
        let raw = decode_raw_reply(kind, bytes).unwrap();
        prop_assert_eq!((raw.op_ret, raw.op_errno), (-1, errno));
        prop_assert_eq!(raw.into_outcome(), Err(failure));
    }

    #[test]
    fn raw_replies_keep_their_errno((kind, reply) in any_reply(), op_errno in 3..200) {
        let mut out = Writer::new();
        let payload = encode_reply(kind, &Ok(reply), &mut out);
        let ours = decode_raw_reply(kind, whole(out, payload)).unwrap();
        let junk = RawReply { op_errno, ..ours };
        let mut out = Writer::new();
        let payload = encode_raw_reply(&junk, &mut out);
        let back = decode_raw_reply(kind, whole(out, payload)).unwrap();
        prop_assert_eq!(back.op_errno, op_errno);
        prop_assert!(back.into_outcome().is_ok());
    }

    #[test]
    fn a_request_cut_short_is_an_error(request in any_request(), at in any::<Index>()) {
        let mut out = Writer::new();
        let payload = encode_request(&request, &mut out);
        let bytes = whole(out, payload);
        let cut = bytes.slice(..at.index(bytes.len()));
        prop_assert!(decode_request(request.kind(), cut).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn dicts_come_back_and_tell_their_size(typed in arb::<Option<Dict>>()) {
        let mut out = Writer::new();
        dict::encode(&typed, &mut out);
        let bytes = out.into_inner().freeze();
        let size = u32::from_be_bytes(*bytes.first_chunk().unwrap());
        prop_assert_eq!(size as usize, bytes.len() - 12);
        prop_assert_eq!(dict::decode(bytes), Ok(typed));
    }

    #[test]
    fn untyped_dicts_keep_bytes(typed in arb::<Dict>()) {
        let back = dict_v3::decode(dict_v3::encode(Some(&typed)).freeze()).unwrap().unwrap();
        let expected: Dict = typed
            .iter()
            .filter_map(|(key, value)| Some((key.to_owned().into(), Value::Old(untyped(value)?.into()))))
            .collect();
        prop_assert_eq!(&back, &expected);
        prop_assert_eq!(dict_v3::encode(Some(&back)), dict_v3::encode(Some(&typed)));
    }

    #[test]
    fn iatts_come_back(iatt in arb::<Iatt>()) {
        let typed = Some(Dict::new().with("", Value::Iatt(Box::new(iatt))));
        let mut out = Writer::new();
        dict::encode(&typed, &mut out);
        prop_assert_eq!(dict::decode(out.into_inner().freeze()), Ok(typed));
    }

    #[test]
    fn any_bytes_are_a_value_or_an_error(bytes in vec(any::<u8>(), 0..600), procedure in 0..14u32) {
        decode_all(procedure, &Bytes::from(bytes));
    }

    /// Mostly small words, so that counts, lengths and types are often plausible and decoders get far.
    #[test]
    fn small_words_are_a_value_or_an_error(words in vec(0..12u32, 0..150), procedure in 0..14u32) {
        decode_all(procedure, &words.into_iter().flat_map(u32::to_be_bytes).collect());
    }

    #[test]
    fn a_damaged_request_is_a_value_or_an_error(request in any_request(), at in any::<Index>(), byte in any::<u8>()) {
        let mut out = Writer::new();
        let payload = encode_request(&request, &mut out);
        let mut bytes = whole(out, payload).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode_request(request.kind(), bytes.into());
    }

    #[test]
    fn a_damaged_reply_is_a_value_or_an_error((kind, reply) in any_reply(), at in any::<Index>(), byte in any::<u8>()) {
        let mut out = Writer::new();
        let payload = encode_reply(kind, &Ok(reply), &mut out);
        let mut bytes = whole(out, payload).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode_reply(kind, bytes.clone().into());
        let _ = decode_raw_reply(kind, bytes.into());
    }
}
