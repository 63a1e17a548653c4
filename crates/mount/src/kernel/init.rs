//! INIT: what the kernel offers, what we ask for, what we agree on.

use bytes::Bytes;

use crate::kernel::abi::{self, init_flags as f};
use crate::kernel::request::{Cursor, Header, header};

/// What the kernel offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InitRequest {
    pub header: Header,
    pub major: u32,
    pub minor: u32,
    pub max_readahead: u32,
    pub flags: u64,
}

impl InitRequest {
    /// `None` when it is no INIT, or one of a protocol below 7.33 (Linux 5.11): too old for the structures and flags that we
    /// count on.
    pub fn parse(message: &Bytes) -> Option<Self> {
        let mut cursor = Cursor { message, at: 0 };
        let (_, header) = header(&mut cursor)?;
        if header.opcode != abi::opcode::INIT {
            return None;
        }
        let (major, minor) = (cursor.u32()?, cursor.u32()?);
        let max_readahead = cursor.u32()?;
        let low = u64::from(cursor.u32()?);
        let high = if low & f::INIT_EXT != 0 { u64::from(cursor.u32()?) } else { 0 };
        if major != abi::MAJOR || minor < 33 {
            return None;
        }
        Some(Self { header, major, minor, max_readahead, flags: low | high << 32 })
    }
}

/// What of the behaviour is the user's choice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wishes {
    pub acl: bool,
    pub writeback_cache: bool,
    pub readdirplus: bool,
    pub auto_invalidation: bool,
    /// Longest write and read-ahead, bytes.
    pub transfer_bytes_max: u32,
    pub background: u16,
    pub congestion: u16,
}

/// What we agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InitReply {
    pub minor: u32,
    pub flags: u64,
    pub max_readahead: u32,
    pub max_write: u32,
    pub max_pages: u16,
    pub max_background: u16,
    pub congestion_threshold: u16,
}

const PAGE_BYTES: u32 = 4096;

/// Always wanted; see `fuse.h` for each. HANDLE_KILLPRIV_V2 spares a GETXATTR of `security.capability` before every
/// write. DONT_MASK hands over the umask, because default ACLs replace it and only the brick knows them.
const ALWAYS: u64 = f::ASYNC_READ
    | f::POSIX_LOCKS
    | f::FLOCK_LOCKS
    | f::ATOMIC_O_TRUNC
    | f::BIG_WRITES
    | f::DONT_MASK
    | f::ASYNC_DIO
    | f::PARALLEL_DIROPS
    | f::MAX_PAGES
    | f::CACHE_SYMLINKS
    | f::HANDLE_KILLPRIV_V2
    | f::SETXATTR_EXT
    | f::INIT_EXT
    | f::DIRECT_IO_ALLOW_MMAP;

/// The agreement between what the kernel offers and what the mount wants.
pub fn negotiate(offer: &InitRequest, wishes: &Wishes) -> InitReply {
    let mut wanted = ALWAYS;
    for (wish, flags) in [
        (wishes.acl, f::POSIX_ACL),
        (wishes.writeback_cache, f::WRITEBACK_CACHE),
        (wishes.readdirplus, f::DO_READDIRPLUS | f::READDIRPLUS_AUTO),
        (wishes.auto_invalidation, f::AUTO_INVAL_DATA),
    ] {
        if wish {
            wanted |= flags;
        }
    }
    InitReply {
        minor: offer.minor.min(abi::MINOR),
        flags: offer.flags & wanted,
        max_readahead: offer.max_readahead.max(wishes.transfer_bytes_max),
        max_write: wishes.transfer_bytes_max,
        max_pages: u16::try_from(wishes.transfer_bytes_max.div_ceil(PAGE_BYTES)).unwrap_or(u16::MAX),
        max_background: wishes.background,
        congestion_threshold: wishes.congestion,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(flags: u64) -> InitRequest {
        let header = Header { opcode: abi::opcode::INIT, unique: 1, node: 0, uid: 0, gid: 0, pid: 0 };
        InitRequest { header, major: 7, minor: 45, max_readahead: 131_072, flags }
    }

    fn wishes() -> Wishes {
        Wishes {
            acl: false,
            writeback_cache: false,
            readdirplus: true,
            auto_invalidation: true,
            transfer_bytes_max: 1 << 20,
            background: 64,
            congestion: 48,
        }
    }

    #[test]
    fn nothing_is_asked_for_that_was_not_offered() {
        assert_eq!(negotiate(&offer(f::BIG_WRITES), &wishes()).flags, f::BIG_WRITES);
    }

    #[test]
    fn choices_become_flags() {
        let plain = negotiate(&offer(u64::MAX), &wishes()).flags;
        assert_eq!(plain & (f::POSIX_ACL | f::WRITEBACK_CACHE), 0);
        assert_ne!(plain & f::READDIRPLUS_AUTO, 0);
        let acl = negotiate(&offer(u64::MAX), &Wishes { acl: true, ..wishes() }).flags;
        assert_eq!(acl, plain | f::POSIX_ACL);
    }

    #[test]
    fn a_mebibyte_is_256_pages() {
        let reply = negotiate(&offer(0), &wishes());
        assert_eq!((reply.max_pages, reply.minor), (256, abi::MINOR));
    }
}
