//! A place in a file system: an open file, or a name below an open directory.
//!
//! Invariant: a `Loc::At` names the entry itself; a symbolic link there is never followed.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, Stat};

use crate::{Result, errno};

/// Where an operation happens.
#[derive(Clone, Copy, Debug)]
pub enum Loc<'a> {
    /// An open file or directory (not `O_PATH`: the kernel refuses xattr calls on those).
    Fd(BorrowedFd<'a>),
    /// The entry of this relative path below the directory.
    At(BorrowedFd<'a>, &'a [u8]),
}

impl Loc<'_> {
    /// Its attributes, of a symbolic link itself.
    pub fn stat(self) -> Result<Stat> {
        match self {
            Self::Fd(fd) => rustix::fs::fstat(fd),
            Self::At(dir, name) => rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW),
        }
        .map_err(errno)
    }
}

/// `/proc/self/fd/N/NAME` for the xattr calls, which have no `at` form before Linux 6.13.
///
/// The magic link leads to the open directory whatever its path is now, and `l*xattr` do not follow the last component.
pub(crate) struct ProcPath {
    bytes: [u8; Self::BYTES_MAX],
    len: usize,
}

impl ProcPath {
    /// "/proc/self/fd/" + 10 digits + "/" + a 255-byte name, or a handle's path, with room to spare.
    const BYTES_MAX: usize = 512;

    pub(crate) fn new(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Self> {
        let mut path = Self { bytes: [0; Self::BYTES_MAX], len: 0 };
        path.push(b"/proc/self/fd/")?;
        let mut digits = [0_u8; 10];
        let mut at = digits.len();
        let mut number = dir.as_raw_fd().unsigned_abs();
        loop {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        path.push(&digits[at..])?;
        path.push(b"/")?;
        path.push(name)?;
        Ok(path)
    }

    fn push(&mut self, part: &[u8]) -> Result<()> {
        let end = self.len + part.len();
        let slot = self.bytes.get_mut(self.len..end).ok_or(mortar_types::Errno::ENAMETOOLONG)?;
        slot.copy_from_slice(part);
        self.len = end;
        Ok(())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn the_proc_path_names_the_descriptor_and_the_entry() {
        let dir = std::fs::File::open("/").expect("the root opens");
        let path = ProcPath::new(dir.as_fd(), b"etc").expect("it is short");
        assert_eq!(path.as_bytes(), format!("/proc/self/fd/{}/etc", dir.as_raw_fd()).as_bytes());
        assert!(ProcPath::new(dir.as_fd(), &[b'x'; 600]).is_err());
    }

    #[test]
    fn a_symbolic_link_is_not_followed() {
        let dir = std::fs::File::open("/proc/self").expect("procfs is mounted");
        let stat = Loc::At(dir.as_fd(), b"exe").stat().expect("it is there");
        assert_eq!(stat.st_mode & 0o170_000, 0o120_000);
    }
}
