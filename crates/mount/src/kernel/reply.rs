//! Replies to the kernel and notifications, as bytes.

use bytes::Bytes;
use mortar_types::{Errno, Statvfs};

use crate::kernel::abi;
use crate::kernel::request::Lock;

/// `fuse_attr`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Attr {
    pub ino: u64,
    pub size: u64,
    pub blocks: u64,
    pub atime: (i64, u32),
    pub mtime: (i64, u32),
    pub ctime: (i64, u32),
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub blksize: u32,
}

/// How long the kernel may believe something.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Validity {
    pub sec: u64,
    pub nsec: u32,
}

impl From<std::time::Duration> for Validity {
    fn from(duration: std::time::Duration) -> Self {
        Self { sec: duration.as_secs(), nsec: duration.subsec_nanos() }
    }
}

/// `fuse_entry_out`: a node under a name. `node` 0 is "no such name", worth caching for `entry_valid`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Entry {
    pub node: u64,
    pub generation: u64,
    pub entry_valid: Validity,
    pub attr_valid: Validity,
    pub attr: Attr,
}

/// The answer to a request.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    /// The request has no reply (FORGET, INTERRUPT).
    None,
    Error(Errno),
    /// Success without a body, or one of fixed structure.
    Body(Body),
    /// Success with bytes as they came from the volume.
    Data(Bytes),
}

impl Answer {
    pub const fn empty() -> Self {
        Self::Body(Body(Vec::new()))
    }
}

impl From<Errno> for Answer {
    fn from(errno: Errno) -> Self {
        Self::Error(errno)
    }
}

/// The bytes after `fuse_out_header`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Body(pub Vec<u8>);

impl Body {
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn u16(&mut self, value: u16) -> &mut Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn zeros(&mut self, bytes: usize) -> &mut Self {
        self.0.resize(self.0.len() + bytes, 0);
        self
    }

    fn attr(&mut self, attr: &Attr) -> &mut Self {
        self.u64(attr.ino).u64(attr.size).u64(attr.blocks);
        for (sec, _) in [attr.atime, attr.mtime, attr.ctime] {
            self.u64(sec.cast_unsigned());
        }
        for (_, nsec) in [attr.atime, attr.mtime, attr.ctime] {
            self.u32(nsec);
        }
        self.u32(attr.mode).u32(attr.nlink).u32(attr.uid).u32(attr.gid).u32(attr.rdev).u32(attr.blksize).u32(0)
    }

    fn entry_out(&mut self, entry: &Entry) -> &mut Self {
        self.u64(entry.node).u64(entry.generation).u64(entry.entry_valid.sec).u64(entry.attr_valid.sec);
        self.u32(entry.entry_valid.nsec).u32(entry.attr_valid.nsec).attr(&entry.attr)
    }

    fn open_out(&mut self, fh: u64, open_flags: u32) -> &mut Self {
        self.u64(fh).u32(open_flags).u32(0)
    }

    /// `fuse_entry_out`.
    pub fn entry(entry: &Entry) -> Self {
        let mut body = Self::with_capacity(ENTRY_BYTES);
        body.entry_out(entry);
        body
    }

    /// `fuse_attr_out`.
    pub fn attributes(valid: Validity, attr: &Attr) -> Self {
        let mut body = Self::with_capacity(104);
        body.u64(valid.sec).u32(valid.nsec).u32(0).attr(attr);
        body
    }

    /// `fuse_open_out`.
    pub fn opened(fh: u64, open_flags: u32) -> Self {
        let mut body = Self::with_capacity(16);
        body.open_out(fh, open_flags);
        body
    }

    /// `fuse_entry_out` and `fuse_open_out`: the answer to CREATE.
    pub fn created(entry: &Entry, fh: u64, open_flags: u32) -> Self {
        let mut body = Self::with_capacity(ENTRY_BYTES + 16);
        body.entry_out(entry).open_out(fh, open_flags);
        body
    }

    /// `fuse_write_out` and `fuse_getxattr_out`: a size.
    pub fn size(size: u32) -> Self {
        let mut body = Self::with_capacity(8);
        body.u32(size).u32(0);
        body
    }

    /// `fuse_lseek_out`.
    pub fn offset(offset: u64) -> Self {
        let mut body = Self::with_capacity(8);
        body.u64(offset);
        body
    }

    /// `fuse_lk_out`.
    pub fn lock(lock: &Lock) -> Self {
        let mut body = Self::with_capacity(24);
        body.u64(lock.start).u64(lock.end).u32(lock.kind).u32(lock.pid);
        body
    }

    /// `fuse_statfs_out`.
    pub fn statfs(statfs: &Statvfs) -> Self {
        let narrow = |wide: u64| u32::try_from(wide).unwrap_or(u32::MAX);
        let mut body = Self::with_capacity(80);
        for wide in [statfs.blocks, statfs.bfree, statfs.bavail, statfs.files, statfs.ffree] {
            body.u64(wide);
        }
        body.u32(narrow(statfs.bsize)).u32(narrow(statfs.namemax)).u32(narrow(statfs.frsize)).zeros(28);
        body
    }

    /// `fuse_init_out`.
    pub fn init(init: &crate::kernel::init::InitReply) -> Self {
        let mut body = Self::with_capacity(64);
        // The lower half travels in `flags`, the upper in `flags2`; the mask keeps the narrowing exact.
        let (low, high) = ((init.flags & 0xffff_ffff) as u32, (init.flags >> 32) as u32);
        body.u32(abi::MAJOR).u32(init.minor).u32(init.max_readahead).u32(low);
        body.u16(init.max_background).u16(init.congestion_threshold).u32(init.max_write).u32(1);
        body.u16(init.max_pages).u16(0).u32(high).zeros(28);
        body
    }

    /// `fuse_dirent`, when it fits below `limit` bytes of body.
    pub fn push_dirent(&mut self, limit: usize, ino: u64, offset: u64, kind: u32, name: &[u8]) -> bool {
        if self.0.len() + padded(DIRENT_BYTES + name.len()) > limit {
            return false;
        }
        self.dirent(ino, offset, kind, name);
        true
    }

    /// `fuse_direntplus`, when it fits below `limit` bytes of body.
    pub fn push_direntplus(
        &mut self,
        limit: usize,
        entry: &Entry,
        ino: u64,
        offset: u64,
        kind: u32,
        name: &[u8],
    ) -> bool {
        if !self.fits_direntplus(limit, name) {
            return false;
        }
        self.entry_out(entry).dirent(ino, offset, kind, name);
        true
    }

    /// Whether [`Self::push_direntplus`] would succeed.
    pub fn fits_direntplus(&self, limit: usize, name: &[u8]) -> bool {
        self.0.len() + padded(ENTRY_BYTES + DIRENT_BYTES + name.len()) <= limit
    }

    fn dirent(&mut self, ino: u64, offset: u64, kind: u32, name: &[u8]) {
        let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
        self.u64(ino).u64(offset).u32(length).u32(kind);
        self.0.extend_from_slice(name);
        let end = padded(self.0.len());
        self.0.resize(end, 0);
    }
}

/// Bytes of `fuse_entry_out`.
const ENTRY_BYTES: usize = 128;
/// Bytes of `fuse_dirent` before the name.
const DIRENT_BYTES: usize = 24;

/// Records of a listing are aligned to 8 bytes (`FUSE_DIRENT_ALIGN`).
const fn padded(bytes: usize) -> usize {
    bytes.div_ceil(8) * 8
}

/// `fuse_out_header`.
pub fn header(body_bytes: usize, error: i32, unique: u64) -> [u8; abi::OUT_HEADER_BYTES] {
    let mut header = [0; abi::OUT_HEADER_BYTES];
    let length = u32::try_from(abi::OUT_HEADER_BYTES + body_bytes).unwrap_or(u32::MAX);
    header[..4].copy_from_slice(&length.to_ne_bytes());
    header[4..8].copy_from_slice(&error.to_ne_bytes());
    header[8..].copy_from_slice(&unique.to_ne_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_of_fuse_h() {
        assert_eq!(Body::entry(&Entry::default()).0.len(), 128);
        assert_eq!(Body::attributes(Validity::default(), &Attr::default()).0.len(), 104);
        assert_eq!(Body::created(&Entry::default(), 1, 0).0.len(), 144);
        assert_eq!(Body::statfs(&Statvfs::default()).0.len(), 80);
    }

    #[test]
    fn listing_records_are_aligned_and_bounded() {
        let mut body = Body::default();
        assert!(body.push_dirent(64, 1, 2, 8, b"abc"));
        assert_eq!(body.0.len(), 32);
        assert!(body.push_dirent(64, 1, 2, 8, b"abcdefgh"));
        assert_eq!(body.0.len(), 64);
        assert!(!body.push_dirent(64, 1, 2, 8, b""));
    }

    #[test]
    fn a_long_direntplus_does_not_fit_a_small_buffer() {
        let mut body = Body::default();
        assert!(body.push_direntplus(160, &Entry::default(), 1, 2, 8, b"abc"));
        assert!(!body.push_direntplus(160, &Entry::default(), 1, 2, 8, b"x"));
    }
}
