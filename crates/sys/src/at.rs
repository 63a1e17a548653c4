//! Operations on an entry below an open directory. No symbolic link is ever followed.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat, Timestamps};
use rustix::fs::{Gid, Uid};

use crate::{Loc, Result, errno};

pub use rustix::fs::OFlags as OpenFlags;

/// Opens the entry `path`, which may have several components but no symbolic link and no way out of `dir`.
pub fn open(dir: BorrowedFd<'_>, path: &[u8], flags: OFlags, mode: u32) -> Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(dir, path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, creation_mode(flags, mode), resolve)
        .map_err(errno)
}

/// openat2 refuses a mode on calls that create nothing.
fn creation_mode(flags: OFlags, mode: u32) -> Mode {
    if flags.intersects(OFlags::CREATE) || flags.contains(OFlags::TMPFILE) {
        Mode::from_raw_mode(mode & 0o7777)
    } else {
        Mode::empty()
    }
}

/// Opens a directory for reading, so that it serves as a starting point, for xattrs, for fsync and for listing.
pub fn open_dir(dir: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    open(dir, path, OFlags::RDONLY | OFlags::DIRECTORY, 0)
}

/// A new file without a name in the directory's file system; EOPNOTSUPP where the file system has none.
pub fn open_unnamed(dir: BorrowedFd<'_>, flags: OFlags, mode: u32) -> Result<OwnedFd> {
    let flags = (flags - OFlags::CREATE - OFlags::EXCL - OFlags::TRUNC - OFlags::NOFOLLOW) | OFlags::TMPFILE;
    rustix::fs::openat(dir, c".", flags | OFlags::CLOEXEC, Mode::from_raw_mode(mode & 0o7777)).map_err(errno)
}

pub fn stat(dir: BorrowedFd<'_>, path: &[u8]) -> Result<Stat> {
    Loc::At(dir, path).stat()
}

pub fn readlink(dir: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<u8>> {
    let target = rustix::fs::readlinkat(dir, path, Vec::with_capacity(256)).map_err(errno)?;
    Ok(target.into_bytes())
}

pub fn mkdir(dir: BorrowedFd<'_>, path: &[u8], mode: u32) -> Result<()> {
    rustix::fs::mkdirat(dir, path, Mode::from_raw_mode(mode & 0o7777)).map_err(errno)
}

/// `mode` with the type bits of a device, fifo, socket or regular file; `dev` in the kernel's 64-bit encoding.
pub fn mknod(dir: BorrowedFd<'_>, path: &[u8], mode: u32, dev: u64) -> Result<()> {
    let kind = FileType::from_raw_mode(mode);
    rustix::fs::mknodat(dir, path, kind, Mode::from_raw_mode(mode & 0o7777), dev).map_err(errno)
}

pub fn symlink(target: &[u8], dir: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
    rustix::fs::symlinkat(target, dir, path).map_err(errno)
}

/// Another name for the entry, a symbolic link itself.
pub fn link(old_dir: BorrowedFd<'_>, old: &[u8], new_dir: BorrowedFd<'_>, new: &[u8]) -> Result<()> {
    rustix::fs::linkat(old_dir, old, new_dir, new, AtFlags::empty()).map_err(errno)
}

/// A name for an open file, also for one that never had a name. Needs CAP_DAC_READ_SEARCH.
pub fn link_fd(file: BorrowedFd<'_>, new_dir: BorrowedFd<'_>, new: &[u8]) -> Result<()> {
    rustix::fs::linkat(file, c"", new_dir, new, AtFlags::EMPTY_PATH).map_err(errno)
}

pub fn rename(old_dir: BorrowedFd<'_>, old: &[u8], new_dir: BorrowedFd<'_>, new: &[u8]) -> Result<()> {
    rustix::fs::renameat(old_dir, old, new_dir, new).map_err(errno)
}

/// EEXIST when the new name is there.
pub fn rename_noreplace(old_dir: BorrowedFd<'_>, old: &[u8], new_dir: BorrowedFd<'_>, new: &[u8]) -> Result<()> {
    rustix::fs::renameat_with(old_dir, old, new_dir, new, RenameFlags::NOREPLACE).map_err(errno)
}

pub fn unlink(dir: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
    rustix::fs::unlinkat(dir, path, AtFlags::empty()).map_err(errno)
}

pub fn rmdir(dir: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
    rustix::fs::unlinkat(dir, path, AtFlags::REMOVEDIR).map_err(errno)
}

/// Permission bits. EOPNOTSUPP for a symbolic link, which has none.
pub fn chmod(loc: Loc<'_>, mode: u32) -> Result<()> {
    let mode = Mode::from_raw_mode(mode & 0o7777);
    match loc {
        Loc::Fd(fd) => rustix::fs::fchmod(fd, mode).map_err(errno),
        Loc::At(dir, path) => {
            // chmodat follows links; only a link's own type tells, and an inode's type never changes.
            if FileType::from_raw_mode(stat(dir, path)?.st_mode) == FileType::Symlink {
                return Err(mortar_types::Errno::EOPNOTSUPP);
            }
            rustix::fs::chmodat(dir, path, mode, AtFlags::empty()).map_err(errno)
        }
    }
}

pub fn chown(loc: Loc<'_>, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    match loc {
        Loc::Fd(fd) => rustix::fs::fchown(fd, uid, gid),
        Loc::At(dir, path) => rustix::fs::chownat(dir, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW),
    }
    .map_err(errno)
}

pub fn set_times(loc: Loc<'_>, times: &Timestamps) -> Result<()> {
    match loc {
        Loc::Fd(fd) => rustix::fs::futimens(fd, times),
        Loc::At(dir, path) => rustix::fs::utimensat(dir, path, times, AtFlags::SYMLINK_NOFOLLOW),
    }
    .map_err(errno)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use mortar_types::Errno;

    use super::*;

    #[test]
    fn no_open_leaves_the_directory_or_follows_a_link() {
        let path = std::env::temp_dir().join(format!("mortar-sys-at-{}", std::process::id()));
        std::fs::create_dir_all(path.join("in")).expect("/tmp is writable");
        let dir = std::fs::File::open(path.join("in")).expect("it was made");
        symlink(b"../../etc", dir.as_fd(), b"out").expect("it is new");
        let flags = OFlags::RDONLY;
        assert_eq!(open(dir.as_fd(), b"..", flags, 0).map(drop), Err(Errno::EXDEV));
        assert_eq!(open(dir.as_fd(), b"out/passwd", flags, 0).map(drop), Err(Errno::ELOOP));
        assert_eq!(open(dir.as_fd(), b"out", flags, 0).map(drop), Err(Errno::ELOOP));
        let _ = std::fs::remove_dir_all(path);
    }

    #[test]
    fn an_unnamed_file_gets_its_names_later() {
        let path = std::env::temp_dir().join(format!("mortar-sys-tmpfile-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("/tmp is writable");
        let dir = std::fs::File::open(&path).expect("it was made");
        match open_unnamed(dir.as_fd(), OFlags::RDWR, 0o640) {
            Ok(file) => {
                if link_fd(file.as_fd(), dir.as_fd(), b"a") == Err(Errno::ENOENT) {
                    mortar_testkit::needs::skip("not root");
                } else {
                    link_fd(file.as_fd(), dir.as_fd(), b"b").expect("a second name");
                    assert_eq!(stat(dir.as_fd(), b"a").map(|stat| stat.st_nlink), Ok(2));
                }
            }
            Err(error) => mortar_testkit::needs::skip(&format!("no O_TMPFILE here ({error})")),
        }
        let _ = std::fs::remove_dir_all(path);
    }
}
