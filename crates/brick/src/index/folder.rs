//! One folder of the index: hard links of an empty base file.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use mortar_sys::at::{self, OpenFlags};
use mortar_sys::{Result, dirents};
use mortar_types::{Errno, Gfid};
use parking_lot::Mutex;

use crate::store::handle::parse_gfid;

pub(super) struct Folder {
    name: &'static str,
    fd: OwnedFd,
    /// The base file that new entries are links of; made at the first need, and anew when it has as many links as the
    /// file system allows (65 000 on ext4).
    base: Mutex<Option<Vec<u8>>>,
}

impl Folder {
    pub(super) fn open(hidden: BorrowedFd<'_>, name: &'static str) -> Result<Self> {
        let fd = at::open_dir(hidden, [b"indices/", name.as_bytes()].concat().as_slice())?;
        let folder = Self { name, fd, base: Mutex::new(None) };
        folder.tidy()?;
        Ok(folder)
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// How many entries (in `entry-changes`: folders) are named by gfids.
    pub(super) fn count(&self) -> Result<u64> {
        let names = dirents::names(self.fd())?;
        Ok(names.iter().filter(|name| parse_gfid(name).is_some()).count() as u64)
    }

    /// Drops base files of earlier starts that have no links left, as listing does in GlusterFS.
    fn tidy(&self) -> Result<()> {
        for name in dirents::names(self.fd())? {
            if name.starts_with(self.name.as_bytes()) && at::stat(self.fd(), &name)?.st_nlink == 1 {
                at::unlink(self.fd(), &name)?;
            }
        }
        Ok(())
    }

    /// Makes an entry. Returns whether it is new.
    pub(super) fn link(&self, entry: &[u8]) -> Result<bool> {
        let mut base = self.base.lock();
        // A base may be full, or removed by hand: one more try with a new one.
        for _ in 0..2 {
            let name = match base.as_ref() {
                Some(name) => name,
                None => base.insert(self.make_base()?),
            };
            match at::link(self.fd(), name, self.fd(), entry) {
                Ok(()) => return Ok(true),
                Err(Errno::EEXIST) => return Ok(false),
                Err(Errno::EMLINK) => *base = None,
                Err(Errno::ENOENT) if at::stat(self.fd(), name).is_err() => *base = None,
                Err(error) => return Err(error),
            }
        }
        Err(Errno::EMLINK)
    }

    fn make_base(&self) -> Result<Vec<u8>> {
        let name = format!("{}-{}", self.name, Gfid::random()).into_bytes();
        at::open(self.fd(), &name, OpenFlags::WRONLY | OpenFlags::CREATE | OpenFlags::EXCL, 0)?;
        Ok(name)
    }

    /// Removes an entry. Returns whether it was there.
    pub(super) fn unlink(&self, entry: &[u8]) -> Result<bool> {
        match at::unlink(self.fd(), entry) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
