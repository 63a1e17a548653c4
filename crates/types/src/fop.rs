//! The file operations: one request struct per fop of GlusterFS's v4 program (1298437/400), one reply struct per shape.
//!
//! Field meanings follow `rpc/xdr/src/glusterfs4-xdr.x` and `docs/compat.md`. The one table below makes the structs,
//! [`Request`], [`FopKind`] and the typed link from a request to its reply; adding a fop means adding a row.

use bytes::Bytes;

use crate::fops::{Fop, UnexpectedReply};

use crate::iatt::Statvfs;
use crate::{Dict, Gfid, Iatt, LkOwner};

/// An open file as the layer that returned it knows it. Meaningful only to that layer: each layer keeps its own table
/// from its fds to its children's. On the wire it is the brick connection's number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Fd(pub i64);

impl Fd {
    /// "The inode itself": the brick opens it for the one call (GlusterFS `GF_ANON_FD_NO`).
    pub const ANONYMOUS: Self = Self(-2);

    pub const fn is_anonymous(self) -> bool {
        self.0 == Self::ANONYMOUS.0
    }
}

macro_rules! wire_enum {
    ($(#[$meta:meta])* $name:ident: $raw:ty { $($(#[$vmeta:meta])* $variant:ident = $number:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $name { $($(#[$vmeta])* $variant = $number,)* }

        impl $name {
            /// From the wire's number; `None` when it names nothing.
            pub const fn from_raw(raw: $raw) -> Option<Self> {
                match raw { $($number => Some(Self::$variant),)* _ => None }
            }

            /// The wire's number.
            pub const fn raw(self) -> $raw {
                self as $raw
            }
        }
    };
}

wire_enum! {
    /// Lock type of posix and inode locks (`GF_LK_F_*`).
    LockType: u32 { Read = 0, Write = 1, Unlock = 2, Eol = 3, }
}
wire_enum! {
    /// What a lock call asks (`GF_LK_*`).
    LockCmd: u32 { Get = 0, Set = 1, SetWait = 2, ReserveSet = 3, ReserveSetWait = 4, ReserveUnset = 5, }
}
wire_enum! {
    /// What an entrylk call asks (`entrylk_cmd`).
    EntrylkCmd: u32 { Lock = 0, Unlock = 1, LockNonBlocking = 2, }
}
wire_enum! {
    /// Lock type of entry locks (`entrylk_type`).
    EntrylkType: u32 { Read = 0, Write = 1, }
}
wire_enum! {
    /// How xattrop combines the stored value and the given one (`gf_xattrop_flags_t`).
    XattropOp: u32 {
        AddArray = 0, AddArray64 = 1, Or = 2, And = 3, GetAndSet = 4, AddArrayWithDefault = 5, AddArray64WithDefault = 6,
    }
}
wire_enum! {
    /// What seek looks for (`gf_seek_what_t`).
    SeekWhat: i32 { Data = 0, Hole = 1, }
}

/// A byte range lock (`gf_proto_flock`). `len` 0 means to the end of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flock {
    pub kind: LockType,
    pub whence: u32,
    pub start: u64,
    pub len: u64,
    pub pid: u32,
    /// In requests ignored by bricks (they take the credential's owner), in replies the holder.
    pub owner: LkOwner,
}

/// A lease request or answer (`gf_proto_lease`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseInfo {
    pub cmd: u32,
    pub kind: u32,
    pub id: [u8; 16],
    pub flags: u32,
}

/// A lock in lock migration (`gfs3_locklist`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ActiveLock {
    pub flock: Flock,
    pub client_uid: Bytes,
    pub flags: u32,
}

/// One entry of a listing. `offset` continues after it; `kind` is `DT_*`.
#[derive(Clone, PartialEq, Debug)]
pub struct Dirent {
    pub ino: u64,
    pub offset: u64,
    pub kind: u32,
    pub name: Bytes,
}

/// One entry of a listing with attributes. An empty `stat` means that the brick could not stat it: look it up.
#[derive(Clone, PartialEq, Debug)]
pub struct DirentPlus {
    pub entry: Dirent,
    pub stat: Iatt,
    pub xdata: Option<Dict>,
}

/// Which fields of [`Setattr`] count (`GF_SET_ATTR_*`).
pub mod setattr_valid {
    pub const MODE: i32 = 1;
    pub const UID: i32 = 2;
    pub const GID: i32 = 4;
    pub const SIZE: i32 = 8;
    pub const ATIME: i32 = 0x10;
    pub const MTIME: i32 = 0x20;
    pub const CTIME: i32 = 0x40;
    pub const ATIME_NOW: i32 = 0x80;
    pub const MTIME_NOW: i32 = 0x100;
}

macro_rules! replies {
    ($($(#[$meta:meta])* $name:ident { $($(#[$fmeta:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, PartialEq, Debug)]
            pub struct $name {
                $($(#[$fmeta])* pub $field: $type,)*
                pub xdata: Option<Dict>,
            }

            impl From<$name> for Reply {
                fn from(reply: $name) -> Self {
                    Self::$name(reply)
                }
            }

            impl TryFrom<Reply> for $name {
                type Error = UnexpectedReply;

                fn try_from(reply: Reply) -> Result<Self, UnexpectedReply> {
                    match reply {
                        Reply::$name(reply) => Ok(reply),
                        _ => Err(UnexpectedReply),
                    }
                }
            }
        )*

        /// Any successful answer, by shape.
        // A rename carries five iatts; boxing them would cost an allocation where a short copy does.
        #[allow(clippy::large_enum_variant)]
        #[derive(Clone, PartialEq, Debug)]
        pub enum Reply { $($name($name),)* }

        impl Reply {
            pub const fn xdata(&self) -> Option<&Dict> {
                match self { $(Self::$name(reply) => reply.xdata.as_ref(),)* }
            }

            pub const fn xdata_mut(&mut self) -> &mut Option<Dict> {
                match self { $(Self::$name(reply) => &mut reply.xdata,)* }
            }
        }
    };
}

replies! {
    /// Nothing but xdata.
    AckReply {}
    /// The object's attributes.
    StatReply { stat: Iatt, }
    /// Attributes before and after a change of the object; of the **parent** for UNLINK and RMDIR.
    ChangeReply { pre: Iatt, post: Iatt, }
    /// As [`ChangeReply`], with the number of bytes written (op_ret).
    WriteReply { written: u32, pre: Iatt, post: Iatt, }
    /// A new or linked entry; `stat` is the object. For COPY_FILE_RANGE see [`CopyReply`].
    EntryReply { stat: Iatt, preparent: Iatt, postparent: Iatt, }
    /// The object and its parent; a nameless lookup's `postparent` is empty.
    LookupReply { stat: Iatt, postparent: Iatt, }
    ReadlinkReply { stat: Iatt, target: Bytes, }
    OpenReply { fd: Fd, }
    CreateReply { fd: Fd, stat: Iatt, preparent: Iatt, postparent: Iatt, }
    /// `eof`: the read ended at the end of the file (op_errno ENOENT).
    ReadReply { stat: Iatt, data: Bytes, eof: bool, }
    StatfsReply { statfs: Statvfs, }
    /// GETXATTR and XATTROP families. `len`: op_ret, the value's length or the list's size.
    DictReply { len: u32, dict: Option<Dict>, }
    LkReply { flock: Flock, }
    /// `eof`: nothing follows (op_errno ENOENT).
    ReaddirReply { entries: Vec<Dirent>, eof: bool, }
    ReaddirpReply { entries: Vec<DirentPlus>, eof: bool, }
    RenameReply { stat: Iatt, preoldparent: Iatt, postoldparent: Iatt, prenewparent: Iatt, postnewparent: Iatt, }
    /// `flags` 1: `strong` is SHA-256 (32 bytes), 0: MD5 (16).
    RchecksumReply { flags: u32, weak: u32, strong: Bytes, }
    SeekReply { offset: u64, }
    LeaseReply { lease: LeaseInfo, }
    ActiveLocksReply { locks: Vec<ActiveLock>, }
    /// `copied` bytes; source attributes, destination before and after.
    CopyReply { copied: u32, stat: Iatt, pre: Iatt, post: Iatt, }
}

macro_rules! fops {
    ($($(#[$meta:meta])* $name:ident = $number:literal, $label:literal
        { $($(#[$fmeta:meta])* $field:ident: $type:ty,)* } -> $reply:ident;)*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, PartialEq, Debug)]
            pub struct $name {
                $($(#[$fmeta])* pub $field: $type,)*
                pub xdata: Option<Dict>,
            }

            impl From<$name> for Request {
                fn from(request: $name) -> Self {
                    Self::$name(request)
                }
            }

            impl Fop for $name {
                const KIND: FopKind = FopKind::$name;
                type Reply = $reply;
            }
        )*

        /// Any request.
        #[derive(Clone, PartialEq, Debug)]
        pub enum Request { $($name($name),)* }

        impl Request {
            pub const fn kind(&self) -> FopKind {
                match self { $(Self::$name(_) => FopKind::$name,)* }
            }

            pub const fn xdata(&self) -> Option<&Dict> {
                match self { $(Self::$name(request) => request.xdata.as_ref(),)* }
            }

            pub const fn xdata_mut(&mut self) -> &mut Option<Dict> {
                match self { $(Self::$name(request) => &mut request.xdata,)* }
            }
        }

        /// Which fop, by its number on the wire (`GFS3_OP_*`).
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub enum FopKind { $($name = $number,)* }

        impl FopKind {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            pub const fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            pub const fn number(self) -> u32 {
                self as u32
            }

            /// The name in profiles and logs, as GlusterFS prints it.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

fops! {
    Stat = 1, "STAT" { gfid: Gfid, } -> StatReply;
    Readlink = 2, "READLINK" { gfid: Gfid, size: u32, } -> ReadlinkReply;
    /// `mode` with type bits; `dev` Linux's 32-bit encoding (new_encode_dev).
    Mknod = 3, "MKNOD" { parent: Gfid, dev: u64, mode: u32, umask: u32, name: Bytes, } -> EntryReply;
    Mkdir = 4, "MKDIR" { parent: Gfid, mode: u32, umask: u32, name: Bytes, } -> EntryReply;
    Unlink = 5, "UNLINK" { parent: Gfid, name: Bytes, flags: u32, } -> ChangeReply;
    /// `flags` bit 0: throw away the whole tree (to the brick's landfill).
    Rmdir = 6, "RMDIR" { parent: Gfid, flags: i32, name: Bytes, } -> ChangeReply;
    Symlink = 7, "SYMLINK" { parent: Gfid, name: Bytes, umask: u32, target: Bytes, } -> EntryReply;
    Rename = 8, "RENAME" { old_parent: Gfid, new_parent: Gfid, old_name: Bytes, new_name: Bytes, } -> RenameReply;
    Link = 9, "LINK" { gfid: Gfid, new_parent: Gfid, new_name: Bytes, } -> EntryReply;
    Truncate = 10, "TRUNCATE" { gfid: Gfid, offset: u64, } -> ChangeReply;
    /// `flags`: Linux open flags.
    Open = 11, "OPEN" { gfid: Gfid, flags: u32, } -> OpenReply;
    Read = 12, "READ" { gfid: Gfid, fd: Fd, offset: u64, size: u32, flags: u32, } -> ReadReply;
    Write = 13, "WRITE" { gfid: Gfid, fd: Fd, offset: u64, flags: u32, data: Bytes, } -> WriteReply;
    Statfs = 14, "STATFS" { gfid: Gfid, } -> StatfsReply;
    Flush = 15, "FLUSH" { gfid: Gfid, fd: Fd, } -> AckReply;
    /// `datasync` 1: data only.
    Fsync = 16, "FSYNC" { gfid: Gfid, fd: Fd, datasync: u32, } -> ChangeReply;
    /// `flags`: XATTR_CREATE 1, XATTR_REPLACE 2.
    Setxattr = 17, "SETXATTR" { gfid: Gfid, flags: u32, dict: Option<Dict>, } -> AckReply;
    /// `name` `None`: all of them.
    Getxattr = 18, "GETXATTR" { gfid: Gfid, name: Option<Bytes>, } -> DictReply;
    /// An empty `name` removes every key of xdata.
    Removexattr = 19, "REMOVEXATTR" { gfid: Gfid, name: Bytes, } -> AckReply;
    Opendir = 20, "OPENDIR" { gfid: Gfid, } -> OpenReply;
    Fsyncdir = 21, "FSYNCDIR" { gfid: Gfid, fd: Fd, datasync: i32, } -> AckReply;
    /// `mask`: R 4, W 2, X 1.
    Access = 22, "ACCESS" { gfid: Gfid, mask: u32, } -> AckReply;
    Create = 23, "CREATE" { parent: Gfid, flags: u32, mode: u32, umask: u32, name: Bytes, } -> CreateReply;
    Ftruncate = 24, "FTRUNCATE" { gfid: Gfid, fd: Fd, offset: u64, } -> ChangeReply;
    Fstat = 25, "FSTAT" { gfid: Gfid, fd: Fd, } -> StatReply;
    Lk = 26, "LK" { gfid: Gfid, fd: Fd, cmd: LockCmd, kind: LockType, flock: Flock, } -> LkReply;
    /// By parent and name, or nameless by gfid (empty `name`). `gfid` is set beside a name on revalidation.
    Lookup = 27, "LOOKUP" { gfid: Gfid, parent: Gfid, flags: u32, name: Bytes, } -> LookupReply;
    Readdir = 28, "READDIR" { gfid: Gfid, fd: Fd, offset: u64, size: u32, } -> ReaddirReply;
    Inodelk = 29, "INODELK" { gfid: Gfid, cmd: LockCmd, kind: LockType, flock: Flock, domain: Bytes, } -> AckReply;
    Finodelk = 30, "FINODELK"
        { gfid: Gfid, fd: Fd, cmd: LockCmd, kind: LockType, flock: Flock, domain: Bytes, } -> AckReply;
    /// `name` `None`: the whole directory.
    Entrylk = 31, "ENTRYLK"
        { gfid: Gfid, cmd: EntrylkCmd, kind: EntrylkType, name: Option<Bytes>, domain: Bytes, } -> AckReply;
    Fentrylk = 32, "FENTRYLK"
        { gfid: Gfid, fd: Fd, cmd: EntrylkCmd, kind: EntrylkType, name: Option<Bytes>, domain: Bytes, } -> AckReply;
    Xattrop = 33, "XATTROP" { gfid: Gfid, op: XattropOp, dict: Option<Dict>, } -> DictReply;
    Fxattrop = 34, "FXATTROP" { gfid: Gfid, fd: Fd, op: XattropOp, dict: Option<Dict>, } -> DictReply;
    Fgetxattr = 35, "FGETXATTR" { gfid: Gfid, fd: Fd, name: Option<Bytes>, } -> DictReply;
    Fsetxattr = 36, "FSETXATTR" { gfid: Gfid, fd: Fd, flags: u32, dict: Option<Dict>, } -> AckReply;
    Rchecksum = 37, "RCHECKSUM" { gfid: Gfid, fd: Fd, offset: u64, len: u32, flags: u32, } -> RchecksumReply;
    /// Only the fields that `valid` names (see [`setattr_valid`]) are read.
    Setattr = 38, "SETATTR" { gfid: Gfid, stat: Iatt, valid: i32, } -> ChangeReply;
    Fsetattr = 39, "FSETATTR" { gfid: Gfid, fd: Fd, stat: Iatt, valid: i32, } -> ChangeReply;
    /// xdata keys are asked for every entry.
    Readdirp = 40, "READDIRP" { gfid: Gfid, fd: Fd, offset: u64, size: u32, } -> ReaddirpReply;
    Release = 41, "RELEASE" { gfid: Gfid, fd: Fd, } -> AckReply;
    Releasedir = 42, "RELEASEDIR" { gfid: Gfid, fd: Fd, } -> AckReply;
    Fremovexattr = 43, "FREMOVEXATTR" { gfid: Gfid, fd: Fd, name: Bytes, } -> AckReply;
    /// `flags`: FALLOC_FL_*; punching and zeroing have fops of their own.
    Fallocate = 44, "FALLOCATE" { gfid: Gfid, fd: Fd, flags: u32, offset: u64, size: u64, } -> ChangeReply;
    Discard = 45, "DISCARD" { gfid: Gfid, fd: Fd, offset: u64, size: u64, } -> ChangeReply;
    Zerofill = 46, "ZEROFILL" { gfid: Gfid, fd: Fd, offset: u64, size: u64, } -> ChangeReply;
    Ipc = 47, "IPC" { op: i32, } -> AckReply;
    Seek = 48, "SEEK" { gfid: Gfid, fd: Fd, offset: u64, what: SeekWhat, } -> SeekReply;
    Lease = 50, "LEASE" { gfid: Gfid, lease: LeaseInfo, } -> LeaseReply;
    GetActiveLk = 51, "GETACTIVELK" { gfid: Gfid, } -> ActiveLocksReply;
    SetActiveLk = 52, "SETACTIVELK" { gfid: Gfid, locks: Vec<ActiveLock>, } -> AckReply;
    Icreate = 53, "ICREATE" { gfid: Gfid, mode: u32, } -> StatReply;
    Namelink = 54, "NAMELINK" { parent: Gfid, name: Bytes, } -> ChangeReply;
    Put = 55, "PUT" {
        parent: Gfid, name: Bytes, mode: u32, umask: u32, flags: u32, offset: u64, xattr: Option<Dict>, data: Bytes,
    } -> EntryReply;
    CopyFileRange = 56, "COPY_FILE_RANGE" {
        gfid_in: Gfid, gfid_out: Gfid, fd_in: Fd, fd_out: Fd, offset_in: u64, offset_out: u64, size: u32, flags: u32,
    } -> CopyReply;
}

impl FopKind {
    /// Whether the fop can change anything on a brick's disk (a read-only mount or brick refuses it).
    pub const fn is_change(self) -> bool {
        matches!(
            self,
            Self::Mknod
                | Self::Mkdir
                | Self::Unlink
                | Self::Rmdir
                | Self::Symlink
                | Self::Rename
                | Self::Link
                | Self::Truncate
                | Self::Write
                | Self::Setxattr
                | Self::Removexattr
                | Self::Create
                | Self::Ftruncate
                | Self::Xattrop
                | Self::Fxattrop
                | Self::Fsetxattr
                | Self::Setattr
                | Self::Fsetattr
                | Self::Fremovexattr
                | Self::Fallocate
                | Self::Discard
                | Self::Zerofill
                | Self::Icreate
                | Self::Namelink
                | Self::Put
                | Self::CopyFileRange
        )
    }
}
