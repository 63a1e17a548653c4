//! Inode attributes as bricks report them.

use crate::Gfid;

/// Seconds and nanoseconds since the epoch; `nsec` is below 1 000 000 000 in anything Mortar makes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub struct Timespec {
    pub sec: i64,
    pub nsec: u32,
}

impl Timespec {
    pub const fn new(sec: i64, nsec: u32) -> Self {
        Self { sec, nsec }
    }
}

/// What kind of object an inode is (`S_IFMT` of the mode).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FileType {
    Regular,
    Directory,
    Symlink,
    BlockDevice,
    CharDevice,
    Fifo,
    Socket,
}

impl FileType {
    /// `None` when the type bits name no known type (0 in a zeroed iatt).
    pub const fn from_mode(mode: u32) -> Option<Self> {
        match mode & 0o170_000 {
            0o100_000 => Some(Self::Regular),
            0o040_000 => Some(Self::Directory),
            0o120_000 => Some(Self::Symlink),
            0o060_000 => Some(Self::BlockDevice),
            0o020_000 => Some(Self::CharDevice),
            0o010_000 => Some(Self::Fifo),
            0o140_000 => Some(Self::Socket),
            _ => None,
        }
    }

    /// The `S_IF*` bits.
    pub const fn mode_bits(self) -> u32 {
        match self {
            Self::Regular => 0o100_000,
            Self::Directory => 0o040_000,
            Self::Symlink => 0o120_000,
            Self::BlockDevice => 0o060_000,
            Self::CharDevice => 0o020_000,
            Self::Fifo => 0o010_000,
            Self::Socket => 0o140_000,
        }
    }

    /// `DT_*` as in readdir(3).
    pub const fn dirent_type(self) -> u32 {
        self.mode_bits() >> 12
    }

    pub const fn from_dirent_type(dirent_type: u32) -> Option<Self> {
        if dirent_type > 0o17 {
            return None;
        }
        Self::from_mode(dirent_type << 12)
    }
}

/// Which fields of an [`Iatt`] are filled (GlusterFS `IATT_*`, `libglusterfs/src/glusterfs/iatt.h`).
pub mod iatt_flags {
    /// What a brick's posix answer carries: everything but the birth time.
    pub const POSIX: u64 = 0x17ff;
}

/// GlusterFS's `struct iatt`; every v4 fop speaks it (`gfx_iattx`). All zero means "no data".
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Iatt {
    pub gfid: Gfid,
    /// Validity bits, see [`iatt_flags`].
    pub flags: u64,
    /// Derived from the gfid by [`Gfid::ino`].
    pub ino: u64,
    /// The brick's `st_dev`; clients replace it.
    pub dev: u64,
    /// `major << 32 | minor` of a device node (GlusterFS `ia_makedev`).
    pub rdev: u64,
    /// Bytes.
    pub size: u64,
    /// 512-byte blocks, at most `ceil(size / 512)`.
    pub blocks: u64,
    pub attributes: u64,
    pub attributes_mask: u64,
    pub atime: Timespec,
    pub mtime: Timespec,
    pub ctime: Timespec,
    pub btime: Timespec,
    /// Links that clients see: the brick's handle is not counted.
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub blksize: u32,
    /// Type and permission bits, as `st_mode`.
    pub mode: u32,
}

impl Iatt {
    /// `None` for a zeroed iatt.
    pub const fn file_type(&self) -> Option<FileType> {
        FileType::from_mode(self.mode)
    }

    pub const fn is_dir(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }

    pub const fn is_regular(&self) -> bool {
        self.mode & 0o170_000 == 0o100_000
    }

    /// Whether it carries nothing (the reply's "no data").
    pub const fn is_empty(&self) -> bool {
        self.mode == 0 && self.gfid.is_null()
    }
}

/// Times of an inode in a dict value (GlusterFS `struct mdata_iatt`).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Mdata {
    pub atime: Timespec,
    pub mtime: Timespec,
    pub ctime: Timespec,
}

/// `statfs` of a volume or brick, in the units of statvfs(3).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Statvfs {
    pub bsize: u64,
    pub frsize: u64,
    pub blocks: u64,
    pub bfree: u64,
    pub bavail: u64,
    pub files: u64,
    pub ffree: u64,
    pub favail: u64,
    pub fsid: u64,
    pub flag: u64,
    pub namemax: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_types_round_trip_through_mode_and_dirent() {
        for kind in [
            FileType::Regular,
            FileType::Directory,
            FileType::Symlink,
            FileType::BlockDevice,
            FileType::CharDevice,
            FileType::Fifo,
            FileType::Socket,
        ] {
            assert_eq!(FileType::from_mode(kind.mode_bits() | 0o644), Some(kind));
            assert_eq!(FileType::from_dirent_type(kind.dirent_type()), Some(kind));
        }
        assert_eq!(FileType::from_mode(0o644), None);
        assert_eq!(FileType::from_dirent_type(99), None);
    }
}
