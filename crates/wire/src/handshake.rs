//! Discovery (DUMP, PING) and handshake bodies (`rpc/xdr/src/glusterfs3-xdr.x`). Dicts here are of the older kind.
//!
//! In every reply only `op_ret` tells success from failure: real peers leave numbers in `op_errno` of a success.

use bytes::Bytes;

use crate::dict_v3::DictV3;
use crate::field::{Field, fields, put_list, take_list};
use crate::programs::Program;
use crate::xdr::{DecodeError, Reader, Writer};

/// What clients send as `gfs_id` in DUMP.
pub const DUMP_ID: u64 = 0xcaed;

/// DUMP: which programs are here?
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DumpRequest {
    pub gfs_id: u64,
}

/// A program that a listener has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProgramEntry {
    pub name: String,
    pub number: u64,
    pub version: u64,
}

impl From<Program> for ProgramEntry {
    fn from(program: Program) -> Self {
        Self { name: program.name.to_owned(), number: program.number.into(), version: program.version.into() }
    }
}

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct DumpReply {
    pub gfs_id: u64,
    pub op_ret: i32,
    pub op_errno: i32,
    pub programs: Vec<ProgramEntry>,
}

impl DumpReply {
    pub fn of(programs: &[Program]) -> Self {
        Self { programs: programs.iter().map(|program| (*program).into()).collect(), ..Self::default() }
    }

    /// Whether the program is listed, by its numbers.
    pub fn has(&self, program: Program) -> bool {
        self.programs
            .iter()
            .any(|entry| entry.number == u64::from(program.number) && entry.version == u64::from(program.version))
    }
}

impl Field for Vec<ProgramEntry> {
    fn put(&self, out: &mut Writer) {
        put_list(self, out);
    }

    fn take(from: &mut Reader) -> Result<Self, DecodeError> {
        take_list(from)
    }
}

/// `gf_common_rsp`: the answer to both pings (whose requests are empty).
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct CommonReply {
    pub op_ret: i32,
    pub op_errno: i32,
    pub xdata: Bytes,
}

/// SETVOLUME: the client's options; `remote-subvolume`, `process-uuid` and `fops-version` count.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct SetvolumeRequest {
    pub dict: DictV3,
}

#[derive(Clone, PartialEq, Default, Debug)]
pub struct SetvolumeReply {
    pub op_ret: i32,
    pub op_errno: i32,
    pub dict: DictV3,
}

/// GETSPEC: the volfile of `key`. `flags` 1: with the list of other volfile servers.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct GetspecRequest {
    pub flags: u32,
    pub key: String,
    pub xdata: DictV3,
}

/// `op_ret` is the length of `spec` on success.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct GetspecReply {
    pub op_ret: i32,
    pub op_errno: i32,
    pub spec: String,
    pub xdata: DictV3,
}

/// SET_LK_VER, which clients since 4.0 do not send.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SetLkVerRequest {
    pub uid: String,
    pub lk_ver: i32,
}

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SetLkVerReply {
    pub op_ret: i32,
    pub op_errno: i32,
    pub lk_ver: i32,
}

/// EVENT_NOTIFY of a daemon to glusterd (`gf_event_notify_req`).
#[derive(Clone, PartialEq, Default, Debug)]
pub struct EventNotifyRequest {
    pub op: i32,
    pub dict: DictV3,
}

#[derive(Clone, PartialEq, Default, Debug)]
pub struct EventNotifyReply {
    pub op_ret: i32,
    pub op_errno: i32,
    pub dict: DictV3,
}

/// GET_VOLUME_INFO: `flags` "1" and `volname` ask for `volume_id` (`glfs_get_volumeid`).
#[derive(Clone, PartialEq, Default, Debug)]
pub struct GetVolumeInfoRequest {
    pub dict: DictV3,
}

#[derive(Clone, PartialEq, Default, Debug)]
pub struct GetVolumeInfoReply {
    pub op_ret: i32,
    pub op_errno: i32,
    pub error_text: String,
    pub dict: DictV3,
}

fields! {
    DumpRequest { gfs_id }
    ProgramEntry { name, number, version }
    DumpReply { gfs_id, op_ret, op_errno, programs }
    CommonReply { op_ret, op_errno, xdata }
    SetvolumeRequest { dict }
    SetvolumeReply { op_ret, op_errno, dict }
    GetspecRequest { flags, key, xdata }
    GetspecReply { op_ret, op_errno, spec, xdata }
    SetLkVerRequest { uid, lk_ver }
    SetLkVerReply { op_ret, op_errno, lk_ver }
    EventNotifyRequest { op, dict }
    EventNotifyReply { op_ret, op_errno, dict }
    GetVolumeInfoRequest { dict }
    GetVolumeInfoReply { op_ret, op_errno, error_text, dict }
}

#[cfg(test)]
mod tests {
    use mortar_types::{Dict, Value};

    use super::*;
    use crate::message::Message;
    use crate::programs;

    fn round_trip<M: Message + PartialEq + std::fmt::Debug>(message: &M) -> usize {
        let mut out = Writer::new();
        message.encode(&mut out);
        let bytes = out.into_inner().freeze();
        let length = bytes.len();
        assert_eq!(&M::decode(bytes).unwrap(), message);
        length
    }

    #[test]
    fn a_brick_lists_its_programs() {
        let reply = DumpReply::of(&[programs::FOP, programs::DUMP, programs::HANDSHAKE]);
        round_trip(&reply);
        assert!(reply.has(programs::FOP) && !reply.has(programs::PORTMAP));
    }

    #[test]
    fn an_empty_common_reply_is_three_words() {
        assert_eq!(round_trip(&CommonReply::default()), 12);
    }

    #[test]
    fn bodies_without_a_test_of_their_own_come_back() {
        round_trip(&DumpRequest { gfs_id: DUMP_ID });
        round_trip(&SetLkVerRequest { uid: "host".to_owned(), lk_ver: 1 });
        round_trip(&SetLkVerReply { op_ret: -1, op_errno: 2, lk_ver: 3 });
        round_trip(&EventNotifyRequest { op: 1, dict: Dict::new().into() });
        round_trip(&EventNotifyReply::default());
        round_trip(&GetspecReply { op_ret: 3, spec: "abc".to_owned(), ..GetspecReply::default() });
    }

    #[test]
    fn dict_values_arrive_untyped() {
        let request = SetvolumeRequest { dict: Dict::new().with("fops-version", Value::Int(1_298_437)).into() };
        let mut out = Writer::new();
        request.encode(&mut out);
        let back = SetvolumeRequest::decode(out.into_inner().freeze()).unwrap();
        assert_eq!(back.dict.into_dict().get_i64("fops-version"), Some(1_298_437));
    }

    #[test]
    fn bytes_after_a_message_are_an_error() {
        assert_eq!(DumpRequest::decode(Bytes::from_static(&[0; 12])), Err(DecodeError::Trailing(4)));
    }
}
