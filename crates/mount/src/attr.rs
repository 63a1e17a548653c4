//! Attributes of the volume as the kernel wants them.

use mortar_types::{FileType, Gfid, Iatt, Timespec};

use crate::kernel::reply::Attr;

/// `st_blksize` that applications see: what makes stdio and cp(1) move data in portions worth a round trip (GlusterFS's
/// FUSE bridge says the same).
const BLKSIZE: u32 = 128 * 1024;

/// How inode numbers are shown.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum InodeNumbers {
    /// The last 8 bytes of the gfid.
    #[default]
    Wide,
    /// Folded to 32 bits for applications that cannot take more (option `enable-ino32`).
    Folded,
}

impl InodeNumbers {
    pub const fn of(self, gfid: &Gfid) -> u64 {
        self.shown(gfid.ino())
    }

    /// An inode number that came without its gfid.
    pub const fn shown(self, ino: u64) -> u64 {
        match self {
            Self::Wide => ino,
            Self::Folded => (ino >> 32) ^ (ino & 0xffff_ffff),
        }
    }
}

/// The kernel's form of an iatt.
pub fn attr(stat: &Iatt, numbers: InodeNumbers) -> Attr {
    let time = |time: Timespec| (time.sec, time.nsec.min(999_999_999));
    Attr {
        ino: numbers.of(&stat.gfid),
        size: stat.size,
        blocks: stat.blocks,
        atime: time(stat.atime),
        mtime: time(stat.mtime),
        ctime: time(stat.ctime),
        mode: stat.mode,
        nlink: stat.nlink,
        uid: stat.uid,
        gid: stat.gid,
        rdev: rdev(stat),
        blksize: BLKSIZE,
    }
}

/// Linux's `new_encode_dev` of the iatt's `major << 32 | minor`.
fn rdev(stat: &Iatt) -> u32 {
    match stat.file_type() {
        Some(FileType::BlockDevice | FileType::CharDevice) => {
            let (major, minor) = ((stat.rdev >> 32) as u32 & 0xfff, (stat.rdev & 0xf_ffff) as u32);
            (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_encoded_as_the_kernel_does() {
        let stat = Iatt { mode: 0o020_600, rdev: 8 << 32 | 0x1_02, ..Iatt::default() };
        assert_eq!(rdev(&stat), 0x02 | 8 << 8 | 0x100 << 12);
        assert_eq!(rdev(&Iatt { mode: 0o100_600, ..stat }), 0);
    }

    #[test]
    fn inode_numbers_fold_to_32_bits() {
        assert_eq!(InodeNumbers::Folded.shown(0x0000_0001_0000_0003), 2);
        assert_eq!(InodeNumbers::Wide.of(&Gfid::ROOT), 1);
        assert_eq!(InodeNumbers::Folded.of(&Gfid::ROOT), 1);
    }
}
