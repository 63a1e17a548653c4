//! Extended attributes of a [`Loc`], whole values at a time.
//!
//! Below a directory the kernel's `*xattrat` calls are used where it has them; before Linux 6.13, and where a sandbox
//! forbids them, the same entry is named by a path through `/proc`, which takes about twice as long.

use mortar_types::Errno;
use rustix::fs::XattrFlags;

use crate::loc::ProcPath;
use crate::{Loc, Result, errno, xattrat};

/// First try: fits every value that GlusterFS writes itself; a larger one costs one more pair of calls.
const VALUE_BYTES_FIRST: usize = 512;
/// The kernel's limit of a value and of a list (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const BYTES_MAX: usize = 65_536;

/// How [`set`] treats a name that is there or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetMode {
    Any,
    /// EEXIST when it is there.
    Create,
    /// ENODATA when it is not.
    Replace,
}

impl SetMode {
    const fn flags(self) -> XattrFlags {
        match self {
            Self::Any => XattrFlags::empty(),
            Self::Create => XattrFlags::CREATE,
            Self::Replace => XattrFlags::REPLACE,
        }
    }
}

/// The value, `None` when the inode has none of this name.
pub fn get(loc: Loc<'_>, name: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut small = [0_u8; VALUE_BYTES_FIRST];
    match get_into(loc, name, &mut small) {
        Ok(len) => return Ok(Some(small[..len].to_vec())),
        Err(Errno::ENODATA) => return Ok(None),
        Err(Errno::ERANGE) => {}
        Err(error) => return Err(error),
    }
    let mut large = vec![0_u8; BYTES_MAX];
    match get_into(loc, name, &mut large) {
        Ok(len) => {
            large.truncate(len);
            Ok(Some(large))
        }
        Err(Errno::ENODATA) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A value of known length; any other length is ERANGE.
pub fn get_array<const N: usize>(loc: Loc<'_>, name: &[u8]) -> Result<Option<[u8; N]>> {
    let mut value = [0_u8; N];
    match get_into(loc, name, &mut value) {
        Ok(len) if len == N => Ok(Some(value)),
        Ok(_) => Err(Errno::ERANGE),
        Err(Errno::ENODATA) => Ok(None),
        Err(error) => Err(error),
    }
}

fn get_into(loc: Loc<'_>, name: &[u8], buffer: &mut [u8]) -> Result<usize> {
    match loc {
        Loc::Fd(fd) => rustix::fs::fgetxattr(fd, name, buffer),
        Loc::At(dir, entry) if xattrat::exists() => return xattrat::get(dir, entry, name, buffer),
        Loc::At(dir, entry) => rustix::fs::lgetxattr(ProcPath::new(dir, entry)?.as_bytes(), name, buffer),
    }
    .map_err(errno)
}

pub fn set(loc: Loc<'_>, name: &[u8], value: &[u8], mode: SetMode) -> Result<()> {
    match loc {
        Loc::Fd(fd) => rustix::fs::fsetxattr(fd, name, value, mode.flags()),
        Loc::At(dir, entry) if xattrat::exists() => {
            return xattrat::set(dir, entry, name, value, mode.flags().bits());
        }
        Loc::At(dir, entry) => rustix::fs::lsetxattr(ProcPath::new(dir, entry)?.as_bytes(), name, value, mode.flags()),
    }
    .map_err(errno)
}

/// ENODATA when there is none.
pub fn remove(loc: Loc<'_>, name: &[u8]) -> Result<()> {
    match loc {
        Loc::Fd(fd) => rustix::fs::fremovexattr(fd, name),
        Loc::At(dir, entry) if xattrat::exists() => return xattrat::remove(dir, entry, name),
        Loc::At(dir, entry) => rustix::fs::lremovexattr(ProcPath::new(dir, entry)?.as_bytes(), name),
    }
    .map_err(errno)
}

/// The names of all xattrs, in the file system's order.
pub fn list(loc: Loc<'_>) -> Result<Names> {
    let mut small = [0_u8; VALUE_BYTES_FIRST];
    match list_into(loc, &mut small) {
        Ok(len) => return Ok(Names(small[..len].to_vec())),
        Err(Errno::ERANGE) => {}
        Err(error) => return Err(error),
    }
    let mut large = vec![0_u8; BYTES_MAX];
    let len = list_into(loc, &mut large)?;
    large.truncate(len);
    Ok(Names(large))
}

fn list_into(loc: Loc<'_>, buffer: &mut [u8]) -> Result<usize> {
    match loc {
        Loc::Fd(fd) => rustix::fs::flistxattr(fd, buffer),
        Loc::At(dir, entry) if xattrat::exists() => return xattrat::list(dir, entry, buffer),
        Loc::At(dir, entry) => rustix::fs::llistxattr(ProcPath::new(dir, entry)?.as_bytes(), buffer),
    }
    .map_err(errno)
}

/// The kernel's list: names, each ended by NUL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Names(Vec<u8>);

impl Names {
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == 0).filter(|name| !name.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    /// A file and its directory below /tmp; `None` where the file system or the user cannot store xattrs.
    fn file_with_xattrs() -> Option<(std::path::PathBuf, std::fs::File, std::fs::File)> {
        static SERIAL: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("mortar-sys-xattr-{}-{serial}", std::process::id()));
        std::fs::create_dir_all(&path).ok()?;
        let dir = std::fs::File::open(&path).ok()?;
        let file = std::fs::File::create(path.join("f")).ok()?;
        if set(Loc::Fd(file.as_fd()), b"trusted.test", b"1", SetMode::Any).is_err() {
            mortar_testkit::needs::skip("no trusted xattrs here");
            return None;
        }
        Some((path, dir, file))
    }

    #[test]
    fn values_are_the_same_by_descriptor_and_by_name() {
        let Some((path, dir, file)) = file_with_xattrs() else { return };
        let by_name = Loc::At(dir.as_fd(), b"f");
        let by_fd = Loc::Fd(file.as_fd());
        set(by_name, b"trusted.long", &[7; 3000], SetMode::Create).expect("ext4 stores 3000 bytes");
        assert_eq!(set(by_name, b"trusted.long", b"", SetMode::Create), Err(Errno::EEXIST));
        assert_eq!(get(by_fd, b"trusted.long"), Ok(Some(vec![7; 3000])));
        assert_eq!(get(by_name, b"trusted.none"), Ok(None));
        assert_eq!(get_array::<1>(by_name, b"trusted.test"), Ok(Some(*b"1")));
        assert_eq!(get_array::<2>(by_name, b"trusted.test"), Err(Errno::ERANGE));
        let names = list(by_fd).expect("it lists");
        assert!(names.iter().any(|name| name == b"trusted.long"));
        assert_eq!(names, list(by_name).expect("it lists"));
        remove(by_name, b"trusted.long").expect("it was there");
        assert_eq!(remove(by_fd, b"trusted.long"), Err(Errno::ENODATA));
        let _ = std::fs::remove_dir_all(path);
    }

    #[test]
    fn a_symbolic_links_own_attributes_are_meant() {
        let Some((path, dir, file)) = file_with_xattrs() else { return };
        std::os::unix::fs::symlink("f", path.join("l")).expect("it is new");
        let link = Loc::At(dir.as_fd(), b"l");
        set(link, b"trusted.own", b"link", SetMode::Any).expect("a link has trusted xattrs");
        assert_eq!(get(link, b"trusted.own"), Ok(Some(b"link".to_vec())));
        assert_eq!(get(Loc::Fd(file.as_fd()), b"trusted.own"), Ok(None));
        let _ = std::fs::remove_dir_all(path);
    }
}
