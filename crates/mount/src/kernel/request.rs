//! Requests of the kernel, parsed: header and operation, names and payloads as slices of the message they came in.
//!
//! The kernel is trusted to be the kernel, not to be right: every field is bounds-checked and a malformed message is an
//! error, never a panic.

use bytes::Bytes;

use crate::kernel::abi::{self, opcode};

/// `fuse_in_header`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub opcode: u32,
    /// Names the request in replies and interrupts.
    pub unique: u64,
    /// The node that the operation is about; for operations with a name, the directory.
    pub node: u64,
    pub uid: u32,
    pub gid: u32,
    /// 0 when the caller lives in a pid namespace that we do not see, and for write-back of the kernel itself.
    pub pid: u32,
}

/// Byte range lock as the kernel says it: `end` is inclusive, `i64::MAX` for "to the end".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lock {
    pub fh: u64,
    pub owner: u64,
    pub start: u64,
    pub end: u64,
    /// `F_RDLCK` 0, `F_WRLCK` 1, `F_UNLCK` 2.
    pub kind: u32,
    pub pid: u32,
    /// A flock(2) lock rather than an fcntl(2) one.
    pub flock: bool,
}

/// `fuse_setattr_in`; `valid` holds [`abi::fattr`] bits.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Setattr {
    pub valid: u32,
    pub fh: u64,
    pub size: u64,
    pub lock_owner: u64,
    pub atime: (i64, u32),
    pub mtime: (i64, u32),
    pub ctime: (i64, u32),
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// What the kernel asks. Names are single components without NUL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    Lookup {
        name: Bytes,
    },
    Forget {
        lookups: u64,
    },
    BatchForget {
        nodes: Vec<(u64, u64)>,
    },
    Getattr {
        fh: Option<u64>,
    },
    Setattr(Setattr),
    Readlink,
    Symlink {
        name: Bytes,
        target: Bytes,
    },
    Mknod {
        mode: u32,
        rdev: u32,
        umask: u32,
        name: Bytes,
    },
    Mkdir {
        mode: u32,
        umask: u32,
        name: Bytes,
    },
    Unlink {
        name: Bytes,
    },
    Rmdir {
        name: Bytes,
    },
    Rename {
        new_parent: u64,
        flags: u32,
        name: Bytes,
        new_name: Bytes,
    },
    Link {
        old_node: u64,
        name: Bytes,
    },
    Open {
        flags: u32,
        open_flags: u32,
    },
    Create {
        flags: u32,
        mode: u32,
        umask: u32,
        open_flags: u32,
        name: Bytes,
    },
    Read {
        fh: u64,
        offset: u64,
        size: u32,
        lock_owner: Option<u64>,
    },
    Write {
        fh: u64,
        offset: u64,
        write_flags: u32,
        lock_owner: Option<u64>,
        data: Bytes,
    },
    Statfs,
    Release {
        fh: u64,
        release_flags: u32,
        lock_owner: u64,
    },
    Flush {
        fh: u64,
        lock_owner: u64,
    },
    Fsync {
        fh: u64,
        datasync: bool,
    },
    Opendir,
    Readdir {
        fh: u64,
        offset: u64,
        size: u32,
        plus: bool,
    },
    Releasedir {
        fh: u64,
    },
    Fsyncdir {
        fh: u64,
        datasync: bool,
    },
    Setxattr {
        flags: u32,
        name: Bytes,
        value: Bytes,
    },
    Getxattr {
        size: u32,
        name: Bytes,
    },
    Listxattr {
        size: u32,
    },
    Removexattr {
        name: Bytes,
    },
    Access {
        mask: u32,
    },
    Getlk(Lock),
    Setlk {
        lock: Lock,
        wait: bool,
    },
    Interrupt {
        unique: u64,
    },
    Fallocate {
        fh: u64,
        offset: u64,
        length: u64,
        mode: u32,
    },
    Lseek {
        fh: u64,
        offset: u64,
        whence: u32,
    },
    CopyFileRange {
        fh_in: u64,
        offset_in: u64,
        node_out: u64,
        fh_out: u64,
        offset_out: u64,
        length: u64,
        flags: u64,
    },
    Ioctl,
    Bmap,
    Destroy,
    /// An opcode that we do not know: answered ENOSYS, and the kernel does without.
    Unknown,
}

/// A request of the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    pub header: Header,
    pub operation: Operation,
}

/// The message is not what its header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed FUSE request (opcode {opcode}, {length} bytes)")]
pub struct Malformed {
    pub opcode: u32,
    pub length: usize,
    /// 0 when not even the header was there: nothing can be answered.
    pub unique: u64,
}

impl Request {
    /// Parses one message as read from the device.
    pub fn parse(message: &Bytes) -> Result<Self, Malformed> {
        let mut cursor = Cursor { message, at: 0 };
        let header = header(&mut cursor)
            .filter(|(length, _)| *length as usize == message.len())
            .map(|(_, header)| header)
            .ok_or(Malformed { opcode: 0, length: message.len(), unique: 0 })?;
        let operation = operation(header.opcode, &mut cursor).ok_or(Malformed {
            opcode: header.opcode,
            length: message.len(),
            unique: header.unique,
        })?;
        Ok(Self { header, operation })
    }
}

/// Reads fields in native byte order from the front of a message.
pub(super) struct Cursor<'a> {
    pub(super) message: &'a Bytes,
    pub(super) at: usize,
}

impl Cursor<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let end = self.at.checked_add(N)?;
        let bytes = self.message.get(self.at..end)?.try_into().ok()?;
        self.at = end;
        Some(bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_ne_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_ne_bytes)
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.at = self.at.checked_add(bytes).filter(|end| *end <= self.message.len())?;
        Some(())
    }

    /// Bytes up to a NUL, which is consumed too.
    fn name(&mut self) -> Option<Bytes> {
        let rest = self.message.get(self.at..)?;
        let length = rest.iter().position(|byte| *byte == 0)?;
        let name = self.message.slice(self.at..self.at + length);
        self.at += length + 1;
        Some(name)
    }

    fn bytes(&mut self, length: usize) -> Option<Bytes> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.message.len())?;
        let bytes = self.message.slice(self.at..end);
        self.at = end;
        Some(bytes)
    }
}

pub(super) fn header(cursor: &mut Cursor<'_>) -> Option<(u32, Header)> {
    let length = cursor.u32()?;
    let header = Header {
        opcode: cursor.u32()?,
        unique: cursor.u64()?,
        node: cursor.u64()?,
        uid: cursor.u32()?,
        gid: cursor.u32()?,
        pid: cursor.u32()?,
    };
    cursor.skip(4)?;
    Some((length, header))
}

fn operation(code: u32, cursor: &mut Cursor<'_>) -> Option<Operation> {
    Some(match code {
        opcode::LOOKUP => Operation::Lookup { name: cursor.name()? },
        opcode::FORGET => Operation::Forget { lookups: cursor.u64()? },
        opcode::BATCH_FORGET => batch_forget(cursor)?,
        opcode::GETATTR => {
            let flags = cursor.u32()?;
            cursor.skip(4)?;
            let fh = cursor.u64()?;
            Operation::Getattr { fh: (flags & abi::GETATTR_FH != 0).then_some(fh) }
        }
        opcode::SETATTR => Operation::Setattr(setattr(cursor)?),
        opcode::READLINK => Operation::Readlink,
        opcode::SYMLINK => Operation::Symlink { name: cursor.name()?, target: cursor.name()? },
        opcode::MKNOD => {
            let (mode, rdev, umask) = (cursor.u32()?, cursor.u32()?, cursor.u32()?);
            cursor.skip(4)?;
            Operation::Mknod { mode, rdev, umask, name: cursor.name()? }
        }
        opcode::MKDIR => Operation::Mkdir { mode: cursor.u32()?, umask: cursor.u32()?, name: cursor.name()? },
        opcode::UNLINK => Operation::Unlink { name: cursor.name()? },
        opcode::RMDIR => Operation::Rmdir { name: cursor.name()? },
        opcode::RENAME => {
            Operation::Rename { new_parent: cursor.u64()?, flags: 0, name: cursor.name()?, new_name: cursor.name()? }
        }
        opcode::RENAME2 => {
            let (new_parent, flags) = (cursor.u64()?, cursor.u32()?);
            cursor.skip(4)?;
            Operation::Rename { new_parent, flags, name: cursor.name()?, new_name: cursor.name()? }
        }
        opcode::LINK => Operation::Link { old_node: cursor.u64()?, name: cursor.name()? },
        opcode::OPEN => Operation::Open { flags: cursor.u32()?, open_flags: cursor.u32()? },
        opcode::CREATE => Operation::Create {
            flags: cursor.u32()?,
            mode: cursor.u32()?,
            umask: cursor.u32()?,
            open_flags: cursor.u32()?,
            name: cursor.name()?,
        },
        opcode::READ => read(cursor)?,
        opcode::WRITE => write(cursor)?,
        opcode::STATFS => Operation::Statfs,
        opcode::RELEASE => {
            let fh = cursor.u64()?;
            cursor.skip(4)?;
            Operation::Release { fh, release_flags: cursor.u32()?, lock_owner: cursor.u64()? }
        }
        opcode::FLUSH => {
            let fh = cursor.u64()?;
            cursor.skip(8)?;
            Operation::Flush { fh, lock_owner: cursor.u64()? }
        }
        opcode::FSYNC => Operation::Fsync { fh: cursor.u64()?, datasync: cursor.u32()? & abi::FSYNC_FDATASYNC != 0 },
        opcode::OPENDIR => Operation::Opendir,
        opcode::READDIR | opcode::READDIRPLUS => Operation::Readdir {
            fh: cursor.u64()?,
            offset: cursor.u64()?,
            size: cursor.u32()?,
            plus: code == opcode::READDIRPLUS,
        },
        opcode::RELEASEDIR => Operation::Releasedir { fh: cursor.u64()? },
        opcode::FSYNCDIR => {
            Operation::Fsyncdir { fh: cursor.u64()?, datasync: cursor.u32()? & abi::FSYNC_FDATASYNC != 0 }
        }
        opcode::SETXATTR => {
            let (size, flags) = (cursor.u32()?, cursor.u32()?);
            // setxattr_flags and padding: only there because INIT agreed on SETXATTR_EXT.
            cursor.skip(8)?;
            Operation::Setxattr { flags, name: cursor.name()?, value: cursor.bytes(size as usize)? }
        }
        opcode::GETXATTR => {
            let size = cursor.u32()?;
            cursor.skip(4)?;
            Operation::Getxattr { size, name: cursor.name()? }
        }
        opcode::LISTXATTR => Operation::Listxattr { size: cursor.u32()? },
        opcode::REMOVEXATTR => Operation::Removexattr { name: cursor.name()? },
        opcode::ACCESS => Operation::Access { mask: cursor.u32()? },
        opcode::GETLK => Operation::Getlk(lock(cursor)?),
        opcode::SETLK => Operation::Setlk { lock: lock(cursor)?, wait: false },
        opcode::SETLKW => Operation::Setlk { lock: lock(cursor)?, wait: true },
        opcode::INTERRUPT => Operation::Interrupt { unique: cursor.u64()? },
        opcode::FALLOCATE => Operation::Fallocate {
            fh: cursor.u64()?,
            offset: cursor.u64()?,
            length: cursor.u64()?,
            mode: cursor.u32()?,
        },
        opcode::LSEEK => Operation::Lseek { fh: cursor.u64()?, offset: cursor.u64()?, whence: cursor.u32()? },
        opcode::COPY_FILE_RANGE => Operation::CopyFileRange {
            fh_in: cursor.u64()?,
            offset_in: cursor.u64()?,
            node_out: cursor.u64()?,
            fh_out: cursor.u64()?,
            offset_out: cursor.u64()?,
            length: cursor.u64()?,
            flags: cursor.u64()?,
        },
        opcode::IOCTL => Operation::Ioctl,
        opcode::BMAP => Operation::Bmap,
        opcode::DESTROY => Operation::Destroy,
        _ => Operation::Unknown,
    })
}

fn batch_forget(cursor: &mut Cursor<'_>) -> Option<Operation> {
    let count = cursor.u32()? as usize;
    cursor.skip(4)?;
    // The count is the kernel's word; what is really there bounds the allocation.
    let present = (cursor.message.len() - cursor.at) / 16;
    if count > present {
        return None;
    }
    let mut nodes = Vec::with_capacity(count);
    for _ in 0..count {
        nodes.push((cursor.u64()?, cursor.u64()?));
    }
    Some(Operation::BatchForget { nodes })
}

fn setattr(cursor: &mut Cursor<'_>) -> Option<Setattr> {
    let valid = cursor.u32()?;
    cursor.skip(4)?;
    let (fh, size, lock_owner) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
    let seconds = [cursor.u64()?, cursor.u64()?, cursor.u64()?].map(u64::cast_signed);
    let nanos = [cursor.u32()?, cursor.u32()?, cursor.u32()?];
    let mode = cursor.u32()?;
    cursor.skip(4)?;
    Some(Setattr {
        valid,
        fh,
        size,
        lock_owner,
        atime: (seconds[0], nanos[0]),
        mtime: (seconds[1], nanos[1]),
        ctime: (seconds[2], nanos[2]),
        mode,
        uid: cursor.u32()?,
        gid: cursor.u32()?,
    })
}

fn read(cursor: &mut Cursor<'_>) -> Option<Operation> {
    let (fh, offset, size, flags) = (cursor.u64()?, cursor.u64()?, cursor.u32()?, cursor.u32()?);
    let owner = cursor.u64()?;
    let lock_owner = (flags & abi::READ_LOCKOWNER != 0).then_some(owner);
    Some(Operation::Read { fh, offset, size, lock_owner })
}

fn write(cursor: &mut Cursor<'_>) -> Option<Operation> {
    let (fh, offset, size, write_flags) = (cursor.u64()?, cursor.u64()?, cursor.u32()?, cursor.u32()?);
    let owner = cursor.u64()?;
    cursor.skip(8)?;
    let data = cursor.bytes(size as usize)?;
    let lock_owner = (write_flags & abi::WRITE_LOCKOWNER != 0).then_some(owner);
    Some(Operation::Write { fh, offset, write_flags, lock_owner, data })
}

fn lock(cursor: &mut Cursor<'_>) -> Option<Lock> {
    Some(Lock {
        fh: cursor.u64()?,
        owner: cursor.u64()?,
        start: cursor.u64()?,
        end: cursor.u64()?,
        kind: cursor.u32()?,
        pid: cursor.u32()?,
        flock: cursor.u32()? & abi::LK_FLOCK != 0,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(code: u32, body: &[u8]) -> Bytes {
        let mut bytes = Vec::new();
        bytes.extend((40 + body.len() as u32).to_ne_bytes());
        bytes.extend(code.to_ne_bytes());
        bytes.extend(7_u64.to_ne_bytes());
        bytes.extend(3_u64.to_ne_bytes());
        for field in [1000_u32, 100, 42, 0] {
            bytes.extend(field.to_ne_bytes());
        }
        bytes.extend(body);
        Bytes::from(bytes)
    }

    #[test]
    fn header_and_name_of_a_lookup() {
        let request = Request::parse(&message(opcode::LOOKUP, b"file\0")).unwrap();
        let header = Header { opcode: opcode::LOOKUP, unique: 7, node: 3, uid: 1000, gid: 100, pid: 42 };
        assert_eq!(request, Request { header, operation: Operation::Lookup { name: Bytes::from_static(b"file") } });
    }

    #[test]
    fn a_write_keeps_its_payload_in_the_message() {
        let mut body = Vec::new();
        for field in [9_u64, 4096] {
            body.extend(field.to_ne_bytes());
        }
        for field in [4_u32, abi::WRITE_LOCKOWNER] {
            body.extend(field.to_ne_bytes());
        }
        body.extend(77_u64.to_ne_bytes());
        body.extend([0; 8]);
        body.extend(b"data");
        let message = message(opcode::WRITE, &body);
        let Operation::Write { fh, offset, lock_owner, data, .. } = Request::parse(&message).unwrap().operation else {
            panic!("not a write");
        };
        assert_eq!((fh, offset, lock_owner, &data[..]), (9, 4096, Some(77), &b"data"[..]));
        assert_eq!(data.as_ptr(), message[message.len() - 4..].as_ptr());
    }

    #[test]
    fn a_payload_shorter_than_its_size_is_malformed() {
        let mut body = vec![0; 16];
        body.extend(100_u32.to_ne_bytes());
        body.extend([0; 20]);
        body.extend(b"short");
        assert_eq!(Request::parse(&message(opcode::WRITE, &body)).unwrap_err().unique, 7);
    }

    #[test]
    fn a_forget_count_beyond_the_message_is_malformed() {
        let mut body = u32::MAX.to_ne_bytes().to_vec();
        body.extend([0; 20]);
        assert!(Request::parse(&message(opcode::BATCH_FORGET, &body)).is_err());
    }

    #[test]
    fn a_symlink_has_its_name_before_its_target() {
        let request = Request::parse(&message(opcode::SYMLINK, b"name\0to/it\0")).unwrap();
        let (name, target) = (Bytes::from_static(b"name"), Bytes::from_static(b"to/it"));
        assert_eq!(request.operation, Operation::Symlink { name, target });
    }

    #[test]
    fn a_name_without_its_end_is_malformed() {
        assert!(Request::parse(&message(opcode::LOOKUP, b"file")).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(code in 0_u32..60, body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Request::parse(&message(code, &body));
        }

        #[test]
        fn any_header_is_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Request::parse(&Bytes::from(bytes));
        }
    }
}
