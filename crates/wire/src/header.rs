//! ONC RPC message headers (RFC 5531 section 9), as GlusterFS uses them: calls and all forms of replies.

use bytes::{BufMut, Bytes, BytesMut};

use crate::record;
use crate::xdr::{DecodeError, Reader};

/// The only RPC version there is.
pub const RPC_VERSION: u32 = 2;

/// The longest credential or verifier body (RFC 5531, `MAX_AUTH_BYTES`).
pub const AUTH_BYTES_MAX: usize = 400;

/// `auth_stat` of a credential that cannot be read (RFC 5531).
pub const AUTH_BADCRED: u32 = 1;

const CALL: u32 = 0;
const REPLY: u32 = 1;
const ACCEPTED: u32 = 0;
const DENIED: u32 = 1;

/// A credential or verifier, not yet interpreted: see [`crate::auth`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpaqueAuth {
    pub flavor: u32,
    pub body: Bytes,
}

impl OpaqueAuth {
    pub const NONE: Self = Self { flavor: 0, body: Bytes::new() };

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let flavor = reader.u32()?;
        let body = reader.opaque()?;
        if body.len() > AUTH_BYTES_MAX {
            return Err(DecodeError::Length);
        }
        Ok(Self { flavor, body })
    }
}

/// A program's procedure.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Procedure {
    pub program: u32,
    pub version: u32,
    pub number: u32,
}

impl Procedure {
    pub const fn new(program: u32, version: u32, number: u32) -> Self {
        Self { program, version, number }
    }
}

/// A call up to its body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallHeader {
    pub xid: u32,
    /// [`RPC_VERSION`], or a peer that must be answered [`ReplyStatus::RpcMismatch`].
    pub rpc_version: u32,
    pub procedure: Procedure,
    pub credential: OpaqueAuth,
}

/// Accepted and denied replies alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplyStatus {
    /// The procedure's reply follows.
    Success,
    ProgUnavail,
    /// The versions that the peer serves.
    ProgMismatch {
        low: u32,
        high: u32,
    },
    ProcUnavail,
    GarbageArgs,
    SystemErr,
    RpcMismatch {
        low: u32,
        high: u32,
    },
    AuthError(u32),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplyHeader {
    pub xid: u32,
    pub status: ReplyStatus,
}

/// The header of any message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Header {
    Call(CallHeader),
    Reply(ReplyHeader),
}

impl Header {
    /// Reads the header; the body is what the reader has left.
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let xid = reader.u32()?;
        match reader.u32()? {
            CALL => Ok(Self::Call(decode_call(reader, xid)?)),
            REPLY => Ok(Self::Reply(ReplyHeader { xid, status: decode_status(reader)? })),
            other => Err(DecodeError::Unknown { field: "msg_type", value: other.into() }),
        }
    }
}

fn decode_call(reader: &mut Reader, xid: u32) -> Result<CallHeader, DecodeError> {
    let rpc_version = reader.u32()?;
    let procedure = Procedure { program: reader.u32()?, version: reader.u32()?, number: reader.u32()? };
    let credential = OpaqueAuth::decode(reader)?;
    OpaqueAuth::decode(reader)?;
    Ok(CallHeader { xid, rpc_version, procedure, credential })
}

fn decode_status(reader: &mut Reader) -> Result<ReplyStatus, DecodeError> {
    match reader.u32()? {
        ACCEPTED => {
            OpaqueAuth::decode(reader)?;
            match reader.u32()? {
                0 => Ok(ReplyStatus::Success),
                1 => Ok(ReplyStatus::ProgUnavail),
                2 => Ok(ReplyStatus::ProgMismatch { low: reader.u32()?, high: reader.u32()? }),
                3 => Ok(ReplyStatus::ProcUnavail),
                4 => Ok(ReplyStatus::GarbageArgs),
                5 => Ok(ReplyStatus::SystemErr),
                other => Err(DecodeError::Unknown { field: "accept_stat", value: other.into() }),
            }
        }
        DENIED => match reader.u32()? {
            0 => Ok(ReplyStatus::RpcMismatch { low: reader.u32()?, high: reader.u32()? }),
            1 => Ok(ReplyStatus::AuthError(reader.u32()?)),
            other => Err(DecodeError::Unknown { field: "reject_stat", value: other.into() }),
        },
        other => Err(DecodeError::Unknown { field: "reply_stat", value: other.into() }),
    }
}

impl CallHeader {
    /// Appends the header; the credential as it is, the verifier AUTH_NONE.
    pub fn encode(&self, out: &mut BytesMut) {
        encode_call_start(out, self.xid, self.rpc_version, self.procedure);
        out.put_u32(self.credential.flavor);
        let body = &self.credential.body;
        out.put_u32(u32::try_from(body.len()).expect("a credential is at most AUTH_BYTES_MAX long"));
        out.put_slice(body);
        out.put_bytes(0, body.len().next_multiple_of(4) - body.len());
        encode_no_verifier(out);
    }
}

/// Appends the fields of a call before its credential, for senders that write the credential in place.
pub fn encode_call_start(out: &mut BytesMut, xid: u32, rpc_version: u32, procedure: Procedure) {
    for word in [xid, CALL, rpc_version, procedure.program, procedure.version, procedure.number] {
        out.put_u32(word);
    }
}

/// Appends the AUTH_NONE verifier that ends a call header.
pub fn encode_no_verifier(out: &mut BytesMut) {
    out.put_u64(0);
}

impl ReplyHeader {
    /// Appends the header, with the AUTH_NONE verifier where the form has one.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32(self.xid);
        out.put_u32(REPLY);
        let (words, count) = self.words();
        for word in words.iter().take(count) {
            out.put_u32(*word);
        }
    }

    /// The words after `msg_type`, and how many of them count.
    const fn words(&self) -> ([u32; 6], usize) {
        match self.status {
            ReplyStatus::Success => ([ACCEPTED, 0, 0, 0, 0, 0], 4),
            ReplyStatus::ProgUnavail => ([ACCEPTED, 0, 0, 1, 0, 0], 4),
            ReplyStatus::ProgMismatch { low, high } => ([ACCEPTED, 0, 0, 2, low, high], 6),
            ReplyStatus::ProcUnavail => ([ACCEPTED, 0, 0, 3, 0, 0], 4),
            ReplyStatus::GarbageArgs => ([ACCEPTED, 0, 0, 4, 0, 0], 4),
            ReplyStatus::SystemErr => ([ACCEPTED, 0, 0, 5, 0, 0], 4),
            ReplyStatus::RpcMismatch { low, high } => ([DENIED, 0, low, high, 0, 0], 4),
            ReplyStatus::AuthError(reason) => ([DENIED, 1, reason, 0, 0, 0], 3),
        }
    }
}

/// The xid and program of a call whose header may be broken further on, to answer it at all.
pub fn peek_call_xid(record: &[u8]) -> Option<u32> {
    let xid = record.first_chunk::<4>()?;
    let message_type = record.get(4..8)?;
    (message_type == CALL.to_be_bytes()).then(|| u32::from_be_bytes(*xid))
}

/// Fills in the record mark of the message that starts at byte `at` of `out` (4 bytes left free for it) and goes on
/// for `payload_bytes` after the buffer's end. `false` when the record would be too long to send.
#[must_use]
pub fn close_record(out: &mut BytesMut, at: usize, payload_bytes: usize) -> bool {
    let bytes = out.len() - at - record::HEADER_BYTES + payload_bytes;
    match record::header(bytes) {
        Some(mark) => {
            out[at..at + record::HEADER_BYTES].copy_from_slice(&mark);
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(status: ReplyStatus) {
        let header = ReplyHeader { xid: 7, status };
        let mut out = BytesMut::new();
        header.encode(&mut out);
        let mut reader = Reader::new(out.freeze());
        assert_eq!(Header::decode(&mut reader), Ok(Header::Reply(header)));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn every_form_of_reply_round_trips() {
        for status in [
            ReplyStatus::Success,
            ReplyStatus::ProgUnavail,
            ReplyStatus::ProgMismatch { low: 330, high: 400 },
            ReplyStatus::ProcUnavail,
            ReplyStatus::GarbageArgs,
            ReplyStatus::SystemErr,
            ReplyStatus::RpcMismatch { low: 2, high: 2 },
            ReplyStatus::AuthError(AUTH_BADCRED),
        ] {
            round_trip(status);
        }
    }

    #[test]
    fn an_oversized_credential_is_refused() {
        let call = CallHeader {
            xid: 1,
            rpc_version: 2,
            procedure: Procedure::new(1, 2, 3),
            credential: OpaqueAuth { flavor: 0, body: Bytes::from(vec![0; AUTH_BYTES_MAX + 1]) },
        };
        let mut out = BytesMut::new();
        call.encode(&mut out);
        assert_eq!(peek_call_xid(&out), Some(1));
        assert_eq!(Header::decode(&mut Reader::new(out.freeze())), Err(DecodeError::Length));
    }

    proptest! {
        #[test]
        fn calls_round_trip(
            words in any::<[u32; 6]>(), body in prop::collection::vec(any::<u8>(), 0..=AUTH_BYTES_MAX), tail in any::<u32>(),
        ) {
            let call = CallHeader {
                xid: words[0],
                rpc_version: words[1],
                procedure: Procedure::new(words[2], words[3], words[4]),
                credential: OpaqueAuth { flavor: words[5], body: body.into() },
            };
            let mut out = BytesMut::new();
            call.encode(&mut out);
            out.put_u32(tail);
            let mut reader = Reader::new(out.freeze());
            prop_assert_eq!(Header::decode(&mut reader), Ok(Header::Call(call)));
            prop_assert_eq!(reader.u32(), Ok(tail));
        }

        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Header::decode(&mut Reader::new(bytes.into()));
        }
    }
}
