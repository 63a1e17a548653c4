//! Replies: `op_ret`, `op_errno`, then (but for READ) xdata and the fields of the shape.
//!
//! An error reply has its whole body, zeroed: peers decode it like any other.

use bytes::Bytes;

use mortar_types::fop::{
    AckReply, ActiveLocksReply, ChangeReply, CopyReply, CreateReply, DictReply, EntryReply, LeaseReply, LkReply,
    LookupReply, OpenReply, RchecksumReply, ReadReply, ReaddirReply, ReaddirpReply, ReadlinkReply, RenameReply,
    SeekReply, StatReply, StatfsReply, WriteReply,
};
use mortar_types::{Dict, Errno, Failure, FopKind, Iatt, Outcome, Reply};

use crate::dict::EMPTY_DICT_BYTES;
use crate::field::{Field, fields};
use crate::iatt::{IATT_BYTES, STATFS_BYTES};
use crate::lock::{BLANK_FLOCK_BYTES, LEASE_BYTES};
use crate::xdr::{DecodeError, Reader, Writer};

/// A reply as it stands on the wire, also where real peers leave junk: `op_errno` of a success, the body of an error.
#[derive(Clone, PartialEq, Debug)]
pub struct RawReply {
    pub op_ret: i32,
    pub op_errno: i32,
    /// Zeroed fields when `op_ret` is negative.
    pub body: Reply,
}

impl RawReply {
    /// The meaning: below zero is an error, everything else is not, whatever `op_errno` says.
    pub fn into_outcome(mut self) -> Outcome<Reply> {
        if self.op_ret < 0 {
            return Err(Failure { errno: Errno(self.op_errno), xdata: self.body.xdata_mut().take() });
        }
        Ok(self.body)
    }
}

/// The two words at the front of every reply.
#[derive(Clone, Copy)]
struct Head {
    op_ret: i32,
    op_errno: i32,
}

impl Head {
    const fn failed(self) -> bool {
        self.op_ret < 0
    }

    /// `op_ret` as the count it is on success.
    fn count(self) -> u32 {
        u32::try_from(self.op_ret).unwrap_or(0)
    }

    /// The convention of READ and READDIR for "nothing follows".
    const fn eof(self) -> bool {
        !self.failed() && self.op_errno == Errno::ENOENT.0
    }

    fn take(from: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { op_ret: from.i32()?, op_errno: from.i32()? })
    }

    fn put(self, out: &mut Writer) {
        out.i32(self.op_ret);
        out.i32(self.op_errno);
    }
}

/// The body of one shape, after the head.
trait Body: Sized {
    fn put_body(&self, out: &mut Writer);
    fn take_body(head: Head, from: &mut Reader) -> Result<Self, DecodeError>;
}

/// Shapes that need nothing from the head.
macro_rules! plain {
    ($($name:ident { $($field:ident),* })*) => {
        fields! { $($name { $($field),* })* }
        $(
            impl Body for $name {
                fn put_body(&self, out: &mut Writer) {
                    self.put(out);
                }

                fn take_body(_: Head, from: &mut Reader) -> Result<Self, DecodeError> {
                    Self::take(from)
                }
            }
        )*
    };
}
plain! {
    AckReply { xdata }
    StatReply { xdata, stat }
    ChangeReply { xdata, pre, post }
    EntryReply { xdata, stat, preparent, postparent }
    LookupReply { xdata, stat, postparent }
    ReadlinkReply { xdata, stat, target }
    OpenReply { xdata, fd }
    CreateReply { xdata, stat, fd, preparent, postparent }
    StatfsReply { xdata, statfs }
    LkReply { xdata, flock }
    RenameReply { xdata, stat, preoldparent, postoldparent, prenewparent, postnewparent }
    RchecksumReply { xdata, flags, weak, strong }
    SeekReply { xdata, offset }
    LeaseReply { xdata, lease }
    ActiveLocksReply { xdata, locks }
}

impl Body for WriteReply {
    fn put_body(&self, out: &mut Writer) {
        self.xdata.put(out);
        self.pre.put(out);
        self.post.put(out);
    }

    fn take_body(head: Head, from: &mut Reader) -> Result<Self, DecodeError> {
        let xdata = Field::take(from)?;
        Ok(Self { written: head.count(), pre: Field::take(from)?, post: Field::take(from)?, xdata })
    }
}

impl Body for CopyReply {
    fn put_body(&self, out: &mut Writer) {
        self.xdata.put(out);
        self.stat.put(out);
        self.pre.put(out);
        self.post.put(out);
    }

    fn take_body(head: Head, from: &mut Reader) -> Result<Self, DecodeError> {
        let xdata = Field::take(from)?;
        Ok(Self {
            copied: head.count(),
            stat: Field::take(from)?,
            pre: Field::take(from)?,
            post: Field::take(from)?,
            xdata,
        })
    }
}

/// The one shape with xdata last; the data follow the XDR part.
impl Body for ReadReply {
    fn put_body(&self, out: &mut Writer) {
        self.stat.put(out);
        out.u32(read_count(&self.data).unsigned_abs());
        self.xdata.put(out);
    }

    fn take_body(head: Head, from: &mut Reader) -> Result<Self, DecodeError> {
        let stat = Field::take(from)?;
        // A second copy of op_ret, which is the one that counts.
        let _size = from.u32()?;
        let xdata = Field::take(from)?;
        let size = head.count() as usize;
        let data = from.bytes(size)?;
        Ok(Self { stat, data, eof: head.eof(), xdata })
    }
}

/// The iatts after the dict are zero in everything that GlusterFS's bricks send.
impl Body for DictReply {
    fn put_body(&self, out: &mut Writer) {
        self.xdata.put(out);
        self.dict.put(out);
        out.zeros(2 * IATT_BYTES);
    }

    fn take_body(head: Head, from: &mut Reader) -> Result<Self, DecodeError> {
        let (xdata, dict) = (Field::take(from)?, Field::take(from)?);
        let _: [u8; 2 * IATT_BYTES] = from.array()?;
        Ok(Self { len: head.count(), dict, xdata })
    }
}

impl Body for ReaddirReply {
    fn put_body(&self, out: &mut Writer) {
        self.xdata.put(out);
        self.entries.put(out);
    }

    fn take_body(head: Head, from: &mut Reader) -> Result<Self, DecodeError> {
        let xdata = Field::take(from)?;
        Ok(Self { entries: Field::take(from)?, eof: head.eof(), xdata })
    }
}

impl Body for ReaddirpReply {
    fn put_body(&self, out: &mut Writer) {
        self.xdata.put(out);
        self.entries.put(out);
    }

    fn take_body(head: Head, from: &mut Reader) -> Result<Self, DecodeError> {
        let xdata = Field::take(from)?;
        Ok(Self { entries: Field::take(from)?, eof: head.eof(), xdata })
    }
}

macro_rules! dispatch {
    ($($reply:ident: $($kind:ident)*, $blank:expr;)*) => {
        fn put_body(reply: &Reply, out: &mut Writer) {
            match reply { $(Reply::$reply(reply) => reply.put_body(out),)* }
        }

        fn take_body(kind: FopKind, head: Head, from: &mut Reader) -> Result<Reply, DecodeError> {
            match kind { $($(FopKind::$kind)|* => $reply::take_body(head, from).map(Reply::$reply),)* }
        }

        /// Whether the reply has the shape that belongs to the fop.
        const fn fits(kind: FopKind, reply: &Reply) -> bool {
            match kind { $($(FopKind::$kind)|* => matches!(reply, Reply::$reply(_)),)* }
        }

        /// Bytes of the shape's fields after xdata, when all are zero.
        const fn blank_bytes(kind: FopKind) -> usize {
            match kind { $($(FopKind::$kind)|* => $blank,)* }
        }
    };
}
dispatch! {
    AckReply: Flush Setxattr Removexattr Fsyncdir Access Inodelk Finodelk Entrylk Fentrylk Fsetxattr Release Releasedir
        Fremovexattr Ipc SetActiveLk, 0;
    StatReply: Stat Fstat Icreate, IATT_BYTES;
    ChangeReply: Unlink Rmdir Truncate Fsync Ftruncate Setattr Fsetattr Fallocate Discard Zerofill Namelink,
        2 * IATT_BYTES;
    WriteReply: Write, 2 * IATT_BYTES;
    EntryReply: Mknod Mkdir Symlink Link Put, 3 * IATT_BYTES;
    LookupReply: Lookup, 2 * IATT_BYTES;
    ReadlinkReply: Readlink, IATT_BYTES + 4;
    OpenReply: Open Opendir, 8;
    CreateReply: Create, 3 * IATT_BYTES + 8;
    ReadReply: Read, 0;
    StatfsReply: Statfs, STATFS_BYTES;
    DictReply: Getxattr Xattrop Fxattrop Fgetxattr, EMPTY_DICT_BYTES + 2 * IATT_BYTES;
    LkReply: Lk, BLANK_FLOCK_BYTES;
    ReaddirReply: Readdir, 4;
    ReaddirpReply: Readdirp, 4;
    RenameReply: Rename, 5 * IATT_BYTES;
    RchecksumReply: Rchecksum, 12;
    SeekReply: Seek, 8;
    LeaseReply: Lease, LEASE_BYTES;
    ActiveLocksReply: GetActiveLk, 4;
    CopyReply: CopyFileRange, 3 * IATT_BYTES;
}

/// What a success says in `op_ret` and `op_errno`.
fn head_of(reply: &Reply) -> Head {
    let (count, eof) = match reply {
        Reply::WriteReply(reply) => (signed(reply.written), false),
        Reply::CopyReply(reply) => (signed(reply.copied), false),
        Reply::DictReply(reply) => (signed(reply.len), false),
        Reply::ReadReply(reply) => (read_count(&reply.data), reply.eof),
        Reply::ReadlinkReply(reply) => (read_count(&reply.target), false),
        Reply::ReaddirReply(reply) => (signed(reply.entries.len() as u32), reply.eof),
        Reply::ReaddirpReply(reply) => (signed(reply.entries.len() as u32), reply.eof),
        _ => (0, false),
    };
    Head { op_ret: count, op_errno: if eof { Errno::ENOENT.0 } else { 0 } }
}

/// A count as `op_ret`; no message holds 2 GiB, so nothing is cut off.
fn signed(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// # Panics
/// When the bytes are beyond 2 GiB: no record holds them.
fn read_count(data: &Bytes) -> i32 {
    i32::try_from(data.len()).expect("a payload fits in a record, which is below 1 GiB")
}

/// Appends the reply's XDR part; returns the payload (READ) that must follow it in the same record.
///
/// A reply of the wrong shape is a bug of the layer that made it; the peer gets EPROTO.
pub fn encode_reply(kind: FopKind, outcome: &Outcome<Reply>, out: &mut Writer) -> Option<Bytes> {
    match outcome {
        Ok(reply) if fits(kind, reply) => {
            head_of(reply).put(out);
            put_body(reply, out);
            payload_of(reply)
        }
        Ok(_) => {
            put_failure(kind, Errno::EPROTO, &None, out);
            None
        }
        Err(failure) => {
            put_failure(kind, failure.errno, &failure.xdata, out);
            None
        }
    }
}

fn put_failure(kind: FopKind, errno: Errno, xdata: &Option<Dict>, out: &mut Writer) {
    Head { op_ret: -1, op_errno: errno.0 }.put(out);
    if kind == FopKind::Read {
        Iatt::default().put(out);
        out.u32(0);
        xdata.put(out);
        return;
    }
    xdata.put(out);
    out.zeros(blank_bytes(kind));
}

fn payload_of(reply: &Reply) -> Option<Bytes> {
    match reply {
        Reply::ReadReply(read) => Some(read.data.clone()),
        _ => None,
    }
}

/// Decodes what follows the reply header. Of an error only what has a meaning is looked at.
pub fn decode_reply(kind: FopKind, body: Bytes) -> Result<Outcome<Reply>, DecodeError> {
    let mut from = Reader::new(body);
    let head = Head::take(&mut from)?;
    if !head.failed() {
        return take_whole(kind, head, from).map(Ok);
    }
    if kind == FopKind::Read {
        let _stat: [u8; IATT_BYTES] = from.array()?;
        let _size = from.u32()?;
    }
    Ok(Err(Failure { errno: Errno(head.op_errno), xdata: Field::take(&mut from)? }))
}

fn take_whole(kind: FopKind, head: Head, mut from: Reader) -> Result<Reply, DecodeError> {
    let reply = take_body(kind, head, &mut from)?;
    from.finish()?;
    Ok(reply)
}

/// [`decode_reply`] that keeps `op_errno` of a success and the body of an error, for tools that show or forward replies.
pub fn decode_raw_reply(kind: FopKind, body: Bytes) -> Result<RawReply, DecodeError> {
    let mut from = Reader::new(body);
    let head = Head::take(&mut from)?;
    Ok(RawReply { op_ret: head.op_ret, op_errno: head.op_errno, body: take_whole(kind, head, from)? })
}

/// [`encode_reply`] with `op_ret` and `op_errno` as given.
pub fn encode_raw_reply(reply: &RawReply, out: &mut Writer) -> Option<Bytes> {
    Head { op_ret: reply.op_ret, op_errno: reply.op_errno }.put(out);
    put_body(&reply.body, out);
    payload_of(&reply.body)
}
