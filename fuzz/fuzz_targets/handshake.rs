//! Discovery, handshake and portmap bodies: the first byte says which message, the rest is its body.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

use mortar_wire::handshake::{
    CommonReply, DumpReply, DumpRequest, EventNotifyReply, EventNotifyRequest, GetVolumeInfoReply,
    GetVolumeInfoRequest, GetspecReply, GetspecRequest, SetLkVerReply, SetLkVerRequest, SetvolumeReply,
    SetvolumeRequest,
};
use mortar_wire::message::Message;
use mortar_wire::portmap::{
    BrickByPortReply, BrickByPortRequest, PortByBrickReply, PortByBrickRequest, SignInRequest, SignOutRequest,
    SignReply, SignUpRequest,
};
use mortar_wire::xdr::Writer;

fn check<M: Message + PartialEq + std::fmt::Debug>(body: Bytes) {
    let Ok(message) = M::decode(body) else { return };
    let mut out = Writer::new();
    message.encode(&mut out);
    assert_eq!(M::decode(out.into_inner().freeze()), Ok(message));
}

const CHECKS: &[fn(Bytes)] = &[
    check::<DumpRequest>,
    check::<DumpReply>,
    check::<CommonReply>,
    check::<SetvolumeRequest>,
    check::<SetvolumeReply>,
    check::<GetspecRequest>,
    check::<GetspecReply>,
    check::<SetLkVerRequest>,
    check::<SetLkVerReply>,
    check::<EventNotifyRequest>,
    check::<EventNotifyReply>,
    check::<GetVolumeInfoRequest>,
    check::<GetVolumeInfoReply>,
    check::<PortByBrickRequest>,
    check::<PortByBrickReply>,
    check::<BrickByPortRequest>,
    check::<BrickByPortReply>,
    check::<SignUpRequest>,
    check::<SignInRequest>,
    check::<SignOutRequest>,
    check::<SignReply>,
];

fuzz_target!(|data: &[u8]| {
    let Some((which, body)) = data.split_first() else { return };
    CHECKS[usize::from(*which) % CHECKS.len()](Bytes::copy_from_slice(body));
});
