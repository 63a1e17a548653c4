//! Any request, reply, dict: strategies built from the types, field by field.

use std::fmt::Debug;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::{BoxedStrategy, Just, Strategy, any};
use proptest::strategy::Union;

use mortar_types::fop::*;
use mortar_types::*;

/// A type with a strategy for all its values that the wire can carry.
pub(crate) trait Arb: Sized + Debug + 'static {
    fn arb() -> BoxedStrategy<Self>;
}

pub(crate) fn arb<T: Arb>() -> BoxedStrategy<T> {
    T::arb()
}

macro_rules! primitives {
    ($($type:ty)*) => { $(impl Arb for $type { fn arb() -> BoxedStrategy<Self> { any::<$type>().boxed() } })* };
}
primitives! { u32 i32 u64 i64 bool [u8; 16] }

/// A strategy whose type is that of the field which it fills.
macro_rules! arb_field {
    ($field:ident) => {
        arb()
    };
}

macro_rules! structs {
    ($($name:ident { $($field:ident),* })*) => {
        $(
            impl Arb for $name {
                fn arb() -> BoxedStrategy<Self> {
                    ($(arb_field!($field),)*).prop_map(|($($field,)*)| Self { $($field),* }).boxed()
                }
            }
        )*
    };
}

macro_rules! enums {
    ($($name:ident: $count:literal)*) => {
        $(
            impl Arb for $name {
                fn arb() -> BoxedStrategy<Self> {
                    (0u8..$count).prop_map(|raw: u8| Self::from_raw(raw.into()).unwrap()).boxed()
                }
            }
        )*
    };
}
enums! { LockType: 4 LockCmd: 6 EntrylkCmd: 3 EntrylkType: 2 XattropOp: 7 SeekWhat: 2 }

impl Arb for Gfid {
    fn arb() -> BoxedStrategy<Self> {
        any::<[u8; 16]>().prop_map(Gfid).boxed()
    }
}

impl Arb for Fd {
    fn arb() -> BoxedStrategy<Self> {
        any::<i64>().prop_map(Fd).boxed()
    }
}

impl Arb for Bytes {
    fn arb() -> BoxedStrategy<Self> {
        vec(any::<u8>(), 0..40).prop_map(Self::from).boxed()
    }
}

impl Arb for Option<Bytes> {
    fn arb() -> BoxedStrategy<Self> {
        proptest::option::of(Bytes::arb()).boxed()
    }
}

impl Arb for String {
    fn arb() -> BoxedStrategy<Self> {
        "\\PC{0,20}".boxed()
    }
}

impl Arb for LkOwner {
    fn arb() -> BoxedStrategy<Self> {
        vec(any::<u8>(), 0..24).prop_map(|bytes| Self::from_slice(&bytes)).boxed()
    }
}

structs! {
    Timespec { sec, nsec }
    Mdata { atime, mtime, ctime }
    Statvfs { bsize, frsize, blocks, bfree, bavail, files, ffree, favail, fsid, flag, namemax }
    Flock { kind, whence, start, len, pid, owner }
    LeaseInfo { cmd, kind, id, flags }
    ActiveLock { flock, client_uid, flags }
    Dirent { ino, offset, kind, name }
    DirentPlus { entry, stat, xdata }
}

impl Arb for Iatt {
    fn arb() -> BoxedStrategy<Self> {
        let words = any::<[u64; 8]>();
        let times = any::<[(i64, u32); 4]>();
        (arb::<Gfid>(), words, times, any::<[u32; 5]>())
            .prop_map(|(gfid, words, times, rest)| {
                let [flags, ino, dev, rdev, size, blocks, attributes, attributes_mask] = words;
                let [atime, mtime, ctime, btime] = times.map(|(sec, nsec)| Timespec { sec, nsec });
                let [nlink, uid, gid, blksize, mode] = rest;
                Self {
                    gfid,
                    flags,
                    ino,
                    dev,
                    rdev,
                    size,
                    blocks,
                    attributes,
                    attributes_mask,
                    atime,
                    mtime,
                    ctime,
                    btime,
                    nlink,
                    uid,
                    gid,
                    blksize,
                    mode,
                }
            })
            .boxed()
    }
}

impl Arb for Value {
    fn arb() -> BoxedStrategy<Self> {
        proptest::prop_oneof![
            arb().prop_map(Value::Old),
            arb().prop_map(Value::Int),
            arb().prop_map(Value::Uint),
            (-1.0e9..1.0e9f64).prop_map(Value::Double),
            arb().prop_map(Value::Str),
            arb().prop_map(Value::Ptr),
            arb().prop_map(Value::Gfid),
            arb().prop_map(|iatt| Self::Iatt(Box::new(iatt))),
            arb().prop_map(Value::Mdata),
        ]
        .boxed()
    }
}

impl Arb for Dict {
    fn arb() -> BoxedStrategy<Self> {
        let key =
            proptest::prop_oneof![Just(keys::GFID_REQ.to_owned()), Just(keys::XATTR_DHT.to_owned()), "\\PC{0,20}"];
        vec((key, Value::arb()), 0..6)
            .prop_map(|pairs| pairs.into_iter().map(|(key, value)| (key.into(), value)).collect())
            .boxed()
    }
}

impl Arb for Option<Dict> {
    fn arb() -> BoxedStrategy<Self> {
        proptest::option::of(Dict::arb()).boxed()
    }
}

macro_rules! lists {
    ($($name:ident)*) => {
        $(
            impl Arb for Vec<$name> {
                fn arb() -> BoxedStrategy<Self> {
                    vec($name::arb(), 0..4).boxed()
                }
            }
        )*
    };
}
lists! { ActiveLock Dirent DirentPlus }

structs! {
    Stat { gfid, xdata }
    Readlink { gfid, size, xdata }
    Mknod { parent, dev, mode, umask, name, xdata }
    Mkdir { parent, mode, umask, name, xdata }
    Unlink { parent, name, flags, xdata }
    Rmdir { parent, flags, name, xdata }
    Symlink { parent, name, umask, target, xdata }
    Rename { old_parent, new_parent, old_name, new_name, xdata }
    Link { gfid, new_parent, new_name, xdata }
    Truncate { gfid, offset, xdata }
    Open { gfid, flags, xdata }
    Read { gfid, fd, offset, size, flags, xdata }
    Write { gfid, fd, offset, flags, data, xdata }
    Statfs { gfid, xdata }
    Flush { gfid, fd, xdata }
    Fsync { gfid, fd, datasync, xdata }
    Setxattr { gfid, flags, dict, xdata }
    Getxattr { gfid, name, xdata }
    Removexattr { gfid, name, xdata }
    Opendir { gfid, xdata }
    Fsyncdir { gfid, fd, datasync, xdata }
    Access { gfid, mask, xdata }
    Create { parent, flags, mode, umask, name, xdata }
    Ftruncate { gfid, fd, offset, xdata }
    Fstat { gfid, fd, xdata }
    Lk { gfid, fd, cmd, kind, flock, xdata }
    Lookup { gfid, parent, flags, name, xdata }
    Readdir { gfid, fd, offset, size, xdata }
    Inodelk { gfid, cmd, kind, flock, domain, xdata }
    Finodelk { gfid, fd, cmd, kind, flock, domain, xdata }
    Entrylk { gfid, cmd, kind, name, domain, xdata }
    Fentrylk { gfid, fd, cmd, kind, name, domain, xdata }
    Xattrop { gfid, op, dict, xdata }
    Fxattrop { gfid, fd, op, dict, xdata }
    Fgetxattr { gfid, fd, name, xdata }
    Fsetxattr { gfid, fd, flags, dict, xdata }
    Rchecksum { gfid, fd, offset, len, flags, xdata }
    Setattr { gfid, stat, valid, xdata }
    Fsetattr { gfid, fd, stat, valid, xdata }
    Readdirp { gfid, fd, offset, size, xdata }
    Release { gfid, fd, xdata }
    Releasedir { gfid, fd, xdata }
    Fremovexattr { gfid, fd, name, xdata }
    Fallocate { gfid, fd, flags, offset, size, xdata }
    Discard { gfid, fd, offset, size, xdata }
    Zerofill { gfid, fd, offset, size, xdata }
    Ipc { op, xdata }
    Seek { gfid, fd, offset, what, xdata }
    Lease { gfid, lease, xdata }
    GetActiveLk { gfid, xdata }
    SetActiveLk { gfid, locks, xdata }
    Icreate { gfid, mode, xdata }
    Namelink { parent, name, xdata }
    Put { parent, name, mode, umask, flags, offset, xattr, data, xdata }
    CopyFileRange { gfid_in, gfid_out, fd_in, fd_out, offset_in, offset_out, size, flags, xdata }
}

structs! {
    AckReply { xdata }
    StatReply { xdata, stat }
    ChangeReply { xdata, pre, post }
    EntryReply { xdata, stat, preparent, postparent }
    LookupReply { xdata, stat, postparent }
    ReadlinkReply { xdata, stat, target }
    OpenReply { xdata, fd }
    CreateReply { xdata, stat, fd, preparent, postparent }
    ReadReply { stat, data, eof, xdata }
    StatfsReply { xdata, statfs }
    LkReply { xdata, flock }
    ReaddirReply { entries, eof, xdata }
    ReaddirpReply { entries, eof, xdata }
    RenameReply { xdata, stat, preoldparent, postoldparent, prenewparent, postnewparent }
    RchecksumReply { xdata, flags, weak, strong }
    SeekReply { xdata, offset }
    LeaseReply { xdata, lease }
    ActiveLocksReply { xdata, locks }
}

/// Counts travel in `op_ret`, which is signed.
fn count() -> BoxedStrategy<u32> {
    (0..=i32::MAX.unsigned_abs()).boxed()
}

impl Arb for WriteReply {
    fn arb() -> BoxedStrategy<Self> {
        (count(), arb(), arb(), arb())
            .prop_map(|(written, pre, post, xdata)| Self { written, pre, post, xdata })
            .boxed()
    }
}

impl Arb for CopyReply {
    fn arb() -> BoxedStrategy<Self> {
        (count(), arb(), arb(), arb(), arb())
            .prop_map(|(copied, stat, pre, post, xdata)| Self { copied, stat, pre, post, xdata })
            .boxed()
    }
}

impl Arb for DictReply {
    fn arb() -> BoxedStrategy<Self> {
        (count(), arb(), arb()).prop_map(|(len, dict, xdata)| Self { len, dict, xdata }).boxed()
    }
}

/// Any request of every kind, and for each kind any reply that belongs to it.
macro_rules! kinds {
    ($($name:ident)*) => {
        pub(crate) fn any_request() -> BoxedStrategy<Request> {
            Union::new([$($name::arb().prop_map(Request::from).boxed(),)*]).boxed()
        }

        pub(crate) fn any_reply() -> BoxedStrategy<(FopKind, Reply)> {
            Union::new([$(
                <<$name as Fop>::Reply as Arb>::arb().prop_map(|reply| (FopKind::$name, Reply::from(reply))).boxed(),
            )*])
            .boxed()
        }

        /// The kinds that the strategies know.
        pub(crate) const KINDS: &[FopKind] = &[$(FopKind::$name,)*];
    };
}
kinds! {
    Stat Readlink Mknod Mkdir Unlink Rmdir Symlink Rename Link Truncate Open Read Write Statfs Flush Fsync Setxattr
    Getxattr Removexattr Opendir Fsyncdir Access Create Ftruncate Fstat Lk Lookup Readdir Inodelk Finodelk Entrylk
    Fentrylk Xattrop Fxattrop Fgetxattr Fsetxattr Rchecksum Setattr Fsetattr Readdirp Release Releasedir Fremovexattr
    Fallocate Discard Zerofill Ipc Seek Lease GetActiveLk SetActiveLk Icreate Namelink Put CopyFileRange
}
