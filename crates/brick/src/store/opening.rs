//! Opening a brick: checks that the directory is the one meant, and prepares `.glusterfs`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use mortar_sys::at;
use mortar_sys::xattr::{self, SetMode};
use mortar_sys::{Loc, Result, dirents, file};
use mortar_types::keys::{XATTR_GFID, XATTR_VOLUME_ID};
use mortar_types::{Errno, Gfid};
use rustix::fs::{Mode, OFlags};

use crate::index::Index;

use super::brick::Brick;
use super::fds::FdTable;
use super::handle::{HIDDEN_DIR, HandlePath, ROOT_HANDLE_TEXT};
use super::inode::InodeTable;
use super::known::KnownTable;
use super::options::{OpenError, StoreOptions};
use super::space::Space;

/// Descriptors left for connections and whatever else a process opens, out of those it may have.
const DESCRIPTORS_FOR_CACHE_SHARE: u64 = 2;

impl Brick {
    pub(crate) fn open_brick(options: StoreOptions) -> std::result::Result<Self, OpenError> {
        let path = || options.root.clone();
        // New inodes get the modes that clients ask for; a parent's default ACL is the kernel's to apply.
        rustix::process::umask(Mode::empty());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&options.root, flags, Mode::empty())
            .map_err(|error| OpenError::Root { path: path(), source: mortar_sys::errno(error) })?;
        check_root(root.as_fd(), &options)?;
        let prepare = |part: &str, result: Result<()>| {
            result.map_err(|source| OpenError::Prepare { path: path(), part: part.to_owned(), source })
        };
        prepare("", make_layout(root.as_fd()))?;
        prepare("unlink", empty_unlinked(root.as_fd()))?;
        prepare("landfill", adopt_old_landfill(root.as_fd()))?;
        let hidden = at::open_dir(root.as_fd(), HIDDEN_DIR).map_err(|source| OpenError::Prepare {
            path: path(),
            part: String::new(),
            source,
        })?;
        let hidden_stat = Loc::Fd(hidden.as_fd()).stat().map_err(|source| OpenError::Prepare {
            path: path(),
            part: String::new(),
            source,
        })?;
        let index = Index::open_at(hidden.as_fd(), options.pending_watchlist.clone(), options.dirty_watchlist.clone())
            .map_err(|source| OpenError::Prepare { path: path(), part: "indices".to_owned(), source })?;
        let descriptors = file::raise_open_files_limit().unwrap_or(1024) / DESCRIPTORS_FOR_CACHE_SHARE;
        let inodes_max = options.inode_cache_max.min(usize::try_from(descriptors).unwrap_or(usize::MAX));
        Ok(Self {
            options,
            root: Arc::new(root),
            hidden: (hidden_stat.st_dev, hidden_stat.st_ino),
            inodes: InodeTable::new(inodes_max),
            known: KnownTable::new(hidden_stat.st_dev),
            fds: FdTable::default(),
            index,
            space: Space::default(),
        })
    }
}

fn check_root(root: BorrowedFd<'_>, options: &StoreOptions) -> std::result::Result<(), OpenError> {
    let path = || options.root.clone();
    let read = |key: &str| {
        xattr::get(Loc::Fd(root), key.as_bytes()).map_err(|source| OpenError::Xattrs { path: path(), source })
    };
    let volume = read(XATTR_VOLUME_ID)?.ok_or_else(|| OpenError::NoVolumeId { path: path() })?;
    let found = Gfid::from_slice(&volume).unwrap_or(Gfid::NULL);
    if found != options.volume_id {
        return Err(OpenError::OtherVolume { path: path(), expected: options.volume_id, found });
    }
    match read(XATTR_GFID)? {
        Some(gfid) if gfid == Gfid::ROOT.0 => Ok(()),
        Some(gfid) => Err(OpenError::NotARoot { path: path(), found: Gfid::from_slice(&gfid).unwrap_or(Gfid::NULL) }),
        None => xattr::set(Loc::Fd(root), XATTR_GFID.as_bytes(), &Gfid::ROOT.0, SetMode::Create)
            .map_err(|source| OpenError::Xattrs { path: path(), source }),
    }
}

/// Everything below `.glusterfs` that must be there. What is there is left as it is.
fn make_layout(root: BorrowedFd<'_>) -> Result<()> {
    make_dir(root, HIDDEN_DIR, 0o600)?;
    let hidden = at::open_dir(root, HIDDEN_DIR)?;
    for first in 0..=255_u8 {
        make_dir(hidden.as_fd(), format!("{first:02x}").as_bytes(), 0o700)?;
    }
    make_dir(hidden.as_fd(), b"unlink", 0o600)?;
    make_dir(hidden.as_fd(), b"landfill", 0o755)?;
    // Mortar's own, which GlusterFS ignores.
    make_dir(hidden.as_fd(), b"mortar", 0o700)?;
    make_dir(hidden.as_fd(), b"00/00", 0o700)?;
    let handle = HandlePath::new(Gfid::ROOT);
    match at::symlink(ROOT_HANDLE_TEXT, root, handle.as_bytes()) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error),
    }
}

fn make_dir(dir: BorrowedFd<'_>, name: &[u8], mode: u32) -> Result<()> {
    match at::mkdir(dir, name, mode) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Files that were open when their last name went, and that nobody has open after a restart; and handles that were being
/// written (`.glusterfs/mortar`).
fn empty_unlinked(root: BorrowedFd<'_>) -> Result<()> {
    for folder in [&b".glusterfs/unlink"[..], b".glusterfs/mortar"] {
        let dir = at::open_dir(root, folder)?;
        for name in dirents::names(dir.as_fd())? {
            match at::unlink(dir.as_fd(), &name) {
                Ok(()) | Err(Errno::EISDIR) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Old releases had the landfill in the root; a client's directory of that name has a gfid and stays.
fn adopt_old_landfill(root: BorrowedFd<'_>) -> Result<()> {
    let old = Loc::At(root, b".landfill");
    match old.stat() {
        Ok(_) => {}
        Err(Errno::ENOENT) => return Ok(()),
        Err(error) => return Err(error),
    }
    if xattr::get(old, XATTR_GFID.as_bytes())?.is_some() {
        return Ok(());
    }
    let new = format!(".glusterfs/landfill/{}", Gfid::random());
    at::rename(root, b".landfill", root, new.as_bytes())
}

/// Makes a directory into an empty brick of a volume, as `volume create` does: for tests and for the pool.
pub fn initialise(root: &std::path::Path, volume_id: Gfid) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd: OwnedFd = rustix::fs::open(root, flags, Mode::empty()).map_err(mortar_sys::errno)?;
    xattr::set(Loc::Fd(fd.as_fd()), XATTR_VOLUME_ID.as_bytes(), &volume_id.0, SetMode::Create)?;
    make_dir(fd.as_fd(), HIDDEN_DIR, 0o600)
}
