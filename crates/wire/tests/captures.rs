//! Every message that real GlusterFS processes exchanged in our captures decodes, and encodes to the same bytes again.

mod capture;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};

use mortar_types::FopKind;
use mortar_wire::auth::{self, Kind};
use mortar_wire::callback::Callback;
use mortar_wire::fop::{
    decode_raw_reply, decode_reply, decode_request, encode_raw_reply, encode_reply, encode_request,
};
use mortar_wire::handshake::{
    CommonReply, DumpReply, DumpRequest, GetVolumeInfoReply, GetVolumeInfoRequest, GetspecReply, GetspecRequest,
    SetvolumeReply, SetvolumeRequest,
};
use mortar_wire::header::{Header, OpaqueAuth, Procedure, ReplyStatus};
use mortar_wire::message::Message;
use mortar_wire::portmap::{PortByBrickReply, PortByBrickRequest};
use mortar_wire::programs::{self, dump, handshake, portmap};
use mortar_wire::xdr::{Reader, Writer};

use capture::{Flow, Record};

/// A call or the reply to it, without RPC header.
struct RpcMessage {
    program: u32,
    procedure: u32,
    is_reply: bool,
    body: Bytes,
}

/// Reads RPC headers, checks that they encode to the same bytes, and remembers calls, so that a reply is known by its call.
#[derive(Default)]
struct Conversation {
    calls: HashMap<(Flow, u32), (u32, u32)>,
}

impl Conversation {
    fn message(&mut self, record: Record) -> RpcMessage {
        let mut reader = Reader::new(record.bytes.clone());
        let header = Header::decode(&mut reader).unwrap();
        let body = reader.into_rest();
        let mut again = BytesMut::new();
        let message = match header {
            Header::Call(call) => {
                call.encode(&mut again);
                check_credential(&call.credential);
                let Procedure { program, number: procedure, .. } = call.procedure;
                self.calls.insert((record.flow, call.xid), (program, procedure));
                RpcMessage { program, procedure, is_reply: false, body }
            }
            Header::Reply(reply) => {
                reply.encode(&mut again);
                assert_eq!(reply.status, ReplyStatus::Success);
                let call = self.calls.remove(&(record.flow.reversed(), reply.xid));
                let (program, procedure) = call.expect("a reply to a call");
                RpcMessage { program, procedure, is_reply: true, body }
            }
        };
        assert_eq!(hex(&again), hex(&record.bytes[..record.bytes.len() - message.body.len()]), "RPC header");
        message
    }
}

/// Who asks decodes, and encodes to the same bytes.
fn check_credential(credential: &OpaqueAuth) {
    let kind = match credential.flavor {
        0 => Kind::None,
        390_039 => Kind::V2,
        390_040 => Kind::V3,
        other => panic!("a credential of flavour {other}"),
    };
    let context = auth::decode(credential).unwrap();
    assert_eq!(auth::to_opaque(kind, &context).as_ref(), Ok(credential), "{context:?}");
}

fn with_payload(out: Writer, payload: Option<Bytes>) -> Vec<u8> {
    let mut bytes = out.into_inner().to_vec();
    bytes.extend_from_slice(&payload.unwrap_or_default());
    bytes
}

fn same<M: Message>(body: &Bytes) -> Vec<u8> {
    let mut out = Writer::new();
    M::decode(body.clone()).unwrap().encode(&mut out);
    out.into_inner().to_vec()
}

fn fop_again(kind: FopKind, is_reply: bool, body: &Bytes) -> Vec<u8> {
    let mut out = Writer::new();
    let payload = if is_reply {
        encode_raw_reply(&decode_raw_reply(kind, body.clone()).unwrap(), &mut out)
    } else {
        encode_request(&decode_request(kind, body.clone()).unwrap(), &mut out)
    };
    with_payload(out, payload)
}

/// What we would send in the peer's place: the same but for `op_errno` of a success, where peers leave junk.
fn check_meaning(kind: FopKind, body: &Bytes) {
    let outcome = decode_reply(kind, body.clone()).unwrap();
    let mut out = Writer::new();
    let payload = encode_reply(kind, &outcome, &mut out);
    let mut ours = with_payload(out, payload);
    if outcome.is_ok() {
        ours[4..8].copy_from_slice(&body[4..8]);
    }
    assert_eq!(hex(&ours), hex(body), "{kind:?} as we would answer it: {outcome:?}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.chunks(4).map(|word| word.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + " ").collect()
}

/// Decodes and encodes a message; returns what it was.
fn check(message: &RpcMessage) -> String {
    let RpcMessage { program, procedure, is_reply, body } = message;
    let (name, again) = match (*program, *procedure, *is_reply) {
        (program, number, is_reply) if program == programs::FOP.number => {
            let kind = FopKind::from_number(number).unwrap();
            if is_reply {
                check_meaning(kind, body);
            }
            (kind.label().to_owned(), fop_again(kind, is_reply, body))
        }
        (program, number, false) if program == programs::CALLBACK.number => {
            let mut out = Writer::new();
            Callback::decode(number, body.clone()).unwrap().encode(&mut out);
            (format!("callback {number}"), out.into_inner().to_vec())
        }
        (program, number, is_reply) => {
            let (name, again): (_, fn(&Bytes) -> Vec<u8>) = match (program, number, is_reply) {
                (p, dump::DUMP, false) if p == programs::DUMP.number => ("DUMP", same::<DumpRequest>),
                (p, dump::DUMP, true) if p == programs::DUMP.number => ("DUMP", same::<DumpReply>),
                (p, dump::PING, false) if p == programs::DUMP.number => ("PING", |body| body.to_vec()),
                (p, dump::PING, true) if p == programs::DUMP.number => ("PING", same::<CommonReply>),
                (p, handshake::SETVOLUME, false) if p == programs::HANDSHAKE.number => {
                    ("SETVOLUME", same::<SetvolumeRequest>)
                }
                (p, handshake::SETVOLUME, true) if p == programs::HANDSHAKE.number => {
                    ("SETVOLUME", same::<SetvolumeReply>)
                }
                (p, handshake::GETSPEC, false) if p == programs::HANDSHAKE.number => {
                    ("GETSPEC", same::<GetspecRequest>)
                }
                (p, handshake::GETSPEC, true) if p == programs::HANDSHAKE.number => ("GETSPEC", same::<GetspecReply>),
                (p, handshake::GET_VOLUME_INFO, false) if p == programs::HANDSHAKE.number => {
                    ("GET_VOLUME_INFO", same::<GetVolumeInfoRequest>)
                }
                (p, handshake::GET_VOLUME_INFO, true) if p == programs::HANDSHAKE.number => {
                    ("GET_VOLUME_INFO", same::<GetVolumeInfoReply>)
                }
                (p, portmap::PORT_BY_BRICK, false) if p == programs::PORTMAP.number => {
                    ("PORTBYBRICK", same::<PortByBrickRequest>)
                }
                (p, portmap::PORT_BY_BRICK, true) if p == programs::PORTMAP.number => {
                    ("PORTBYBRICK", same::<PortByBrickReply>)
                }
                other => panic!("a message that no decoder knows: {other:?}"),
            };
            (name.to_owned(), again(body))
        }
    };
    assert_eq!(hex(&again), hex(body), "{name}, reply: {is_reply}");
    format!("{name} {}", if *is_reply { "reply" } else { "call" })
}

/// With `MORTAR_FUZZ_SEEDS=DIR`, leaves fop bodies there as seeds for `fuzz/` (targets `request` and `reply`).
fn save_seed(message: &RpcMessage, serial: usize) {
    let Some(folder) = std::env::var_os("MORTAR_FUZZ_SEEDS") else { return };
    if message.program != programs::FOP.number {
        return;
    }
    let folder = PathBuf::from(folder).join(if message.is_reply { "reply" } else { "request" });
    std::fs::create_dir_all(&folder).unwrap();
    let number = u8::try_from(message.procedure).unwrap();
    std::fs::write(folder.join(format!("capture-{serial}")), [&[number], &message.body[..]].concat()).unwrap();
}

#[test]
fn every_captured_message_decodes_and_encodes_to_the_same_bytes() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/pcap"));
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut serial = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "pcap") {
            continue;
        }
        let (records, left) = capture::records(&path);
        println!("{}: {} records", path.display(), records.len());
        assert_eq!(left, 0, "bytes of {} that are no record", path.display());
        let mut conversation = Conversation::default();
        for record in records {
            let message = conversation.message(record);
            save_seed(&message, serial);
            serial += 1;
            *seen.entry(check(&message)).or_default() += 1;
        }
    }
    for (name, count) in &seen {
        println!("{count:5} {name}");
    }
    let total: usize = seen.values().sum();
    println!("{total:5} messages, {} kinds", seen.len());
    assert!(total >= 1619 && seen.len() >= 85, "fixtures are missing");
}
