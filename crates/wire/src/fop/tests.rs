use bytes::Bytes;

use mortar_types::fop::{
    AckReply, Dirent, Entrylk, EntrylkCmd, EntrylkType, Getxattr, ReadReply, ReaddirReply, Rmdir, StatReply, Unlink,
    Write, WriteReply,
};
use mortar_types::{Dict, Errno, Fd, FopKind, Gfid, Iatt, Outcome, Reply, Request, Value, keys};

use super::{decode_reply, decode_request, encode_reply, encode_request};
use crate::xdr::{DecodeError, Writer};

fn request_bytes(request: impl Into<Request>) -> Bytes {
    let mut out = Writer::new();
    let payload = encode_request(&request.into(), &mut out);
    out.raw(&payload.unwrap_or_default());
    out.into_inner().freeze()
}

fn reply_bytes(kind: FopKind, outcome: &Outcome<Reply>) -> Bytes {
    let mut out = Writer::new();
    let payload = encode_reply(kind, outcome, &mut out);
    out.raw(&payload.unwrap_or_default());
    out.into_inner().freeze()
}

fn write(data: &'static [u8]) -> Write {
    Write { gfid: Gfid::ROOT, fd: Fd(3), offset: 7, flags: 2, data: Bytes::from_static(data), xdata: None }
}

#[test]
fn write_data_follow_the_xdata_without_length_or_padding() {
    let bytes = request_bytes(write(b"hello"));
    let at_xdata = 16 + 8 + 8 + 4 + 4;
    assert_eq!(bytes[at_xdata - 8..at_xdata], [0, 0, 0, 5, 0, 0, 0, 2]);
    assert_eq!(bytes[at_xdata + 12..], b"hello"[..]);
}

#[test]
fn decoded_write_data_are_a_slice_of_the_record() {
    let bytes = request_bytes(write(b"hello"));
    let Ok(Request::Write(write)) = decode_request(FopKind::Write, bytes.clone()) else { panic!("a write") };
    assert_eq!(write.data.as_ptr_range().end, bytes.as_ptr_range().end);
}

#[test]
fn the_payload_is_handed_out_not_copied() {
    let write = write(b"hello");
    let payload = encode_request(&write.clone().into(), &mut Writer::new()).unwrap();
    assert_eq!(payload.as_ptr(), write.data.as_ptr());
}

#[test]
fn write_data_shorter_or_longer_than_said_are_errors() {
    let bytes = request_bytes(write(b"hello"));
    let short = bytes.slice(..bytes.len() - 1);
    assert_eq!(decode_request(FopKind::Write, short), Err(DecodeError::Truncated));
    let long = [&bytes[..], b"!!"].concat();
    assert_eq!(decode_request(FopKind::Write, long.into()), Err(DecodeError::Trailing(2)));
}

#[test]
fn unlink_has_its_name_first_and_rmdir_its_flags() {
    let name = Bytes::from_static(b"f");
    let unlink = request_bytes(Unlink { parent: Gfid::ROOT, name: name.clone(), flags: 9, xdata: None });
    assert_eq!(unlink[16..28], [0, 0, 0, 1, b'f', 0, 0, 0, 0, 0, 0, 9]);
    let rmdir = request_bytes(Rmdir { parent: Gfid::ROOT, flags: 9, name, xdata: None });
    assert_eq!(rmdir[16..28], [0, 0, 0, 9, 0, 0, 0, 1, b'f', 0, 0, 0]);
}

#[test]
fn getxattr_without_a_name_asks_for_all() {
    let list = request_bytes(Getxattr { gfid: Gfid::ROOT, name: None, xdata: None });
    assert_eq!(list[16..24], [0; 8]);
    let named = request_bytes(Getxattr { gfid: Gfid::ROOT, name: Some(Bytes::from_static(b"user.a")), xdata: None });
    assert_eq!(named[16..24], [0, 0, 0, 1, 0, 0, 0, 6]);
}

#[test]
fn an_entrylk_without_a_name_and_one_with_an_empty_name_differ() {
    let lock = |name| {
        Request::from(Entrylk {
            gfid: Gfid::ROOT,
            cmd: EntrylkCmd::Lock,
            kind: EntrylkType::Write,
            name,
            domain: Bytes::from_static(b"d"),
            xdata: None,
        })
    };
    for request in [lock(None), lock(Some(Bytes::new()))] {
        assert_eq!(decode_request(FopKind::Entrylk, request_bytes(request.clone())), Ok(request));
    }
}

#[test]
fn a_read_reply_has_xdata_last_and_then_the_data() {
    let xdata = Some(Dict::new());
    let reply = ReadReply { stat: Iatt::default(), data: Bytes::from_static(b"abc"), eof: true, xdata };
    let bytes = reply_bytes(FopKind::Read, &Ok(reply.clone().into()));
    assert_eq!(bytes[..8], [0, 0, 0, 3, 0, 0, 0, 2]);
    assert_eq!(bytes[8 + 148..], [&[0, 0, 0, 3], &[0; 12][..], b"abc"].concat());
    assert_eq!(decode_reply(FopKind::Read, bytes), Ok(Ok(reply.into())));
}

#[test]
fn a_read_reply_with_fewer_bytes_than_said_is_an_error() {
    let reply = ReadReply { stat: Iatt::default(), data: Bytes::from_static(b"abc"), eof: false, xdata: None };
    let bytes = reply_bytes(FopKind::Read, &Ok(reply.into()));
    assert_eq!(decode_reply(FopKind::Read, bytes.slice(..bytes.len() - 1)), Err(DecodeError::Truncated));
}

#[test]
fn the_number_of_bytes_written_is_op_ret() {
    let reply = Reply::from(WriteReply { written: 4096, pre: Iatt::default(), post: Iatt::default(), xdata: None });
    let bytes = reply_bytes(FopKind::Write, &Ok(reply.clone()));
    assert_eq!(bytes[..8], [0, 0, 0x10, 0, 0, 0, 0, 0]);
    assert_eq!(decode_reply(FopKind::Write, bytes), Ok(Ok(reply)));
}

#[test]
fn the_end_of_a_directory_is_enoent_beside_the_number_of_entries() {
    let entries = vec![Dirent { ino: 1, offset: 2, kind: 4, name: Bytes::from_static(b".") }];
    let reply = Reply::from(ReaddirReply { entries, eof: true, xdata: None });
    let bytes = reply_bytes(FopKind::Readdir, &Ok(reply.clone()));
    assert_eq!(bytes[..8], [0, 0, 0, 1, 0, 0, 0, 2]);
    assert_eq!(decode_reply(FopKind::Readdir, bytes), Ok(Ok(reply)));
}

#[test]
fn an_errno_beside_success_means_nothing() {
    let reply = Reply::from(AckReply { xdata: None });
    let mut bytes = reply_bytes(FopKind::Flush, &Ok(reply.clone())).to_vec();
    bytes[7] = 22;
    assert_eq!(decode_reply(FopKind::Flush, bytes.into()), Ok(Ok(reply)));
}

#[test]
fn a_failure_keeps_its_xdata() {
    let xdata = Some(Dict::new().with(keys::LINK_COUNT, Value::Int(1)));
    let outcome = Err(mortar_types::Failure { errno: Errno::ENOENT, xdata });
    for kind in [FopKind::Lookup, FopKind::Read] {
        assert_eq!(decode_reply(kind, reply_bytes(kind, &outcome)), Ok(outcome.clone()));
    }
}

#[test]
fn a_reply_of_another_shape_becomes_eproto() {
    let reply = Reply::from(StatReply { stat: Iatt::default(), xdata: None });
    let bytes = reply_bytes(FopKind::Open, &Ok(reply));
    assert_eq!(decode_reply(FopKind::Open, bytes), Ok(Err(Errno::EPROTO.into())));
}
