//! From a gfid to a place on disk.
//!
//! A file is reached through its handle, with no state kept. A directory is opened once, by walking its handle's text
//! upwards to a known directory and opening name by name downwards: no symbolic link is ever followed, so a handle's
//! text cannot lead out of the brick nor into a loop, and depth is not limited by the kernel's 40 links. What was opened must carry the
//! gfid that was asked for.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use mortar_sys::{Loc, Result, at, xattr};
use mortar_types::keys::XATTR_GFID;
use mortar_types::{EntryName, Errno, Gfid, InvalidName};
use rustix::fs::Stat;

use super::brick::Brick;
use super::handle::{DirHandle, HIDDEN_DIR, HandlePath, unlinked_path};
use super::inode::Inode;

/// Directories above each other that are followed: a path of `PATH_MAX` bytes holds 2048, trees built by `openat` may be
/// deeper. Beyond it handles must be damaged.
const DEPTH_MAX: usize = 16_384;

/// The type bits of a mode.
pub(crate) const S_IFMT: u32 = 0o170_000;
pub(crate) const S_IFLNK: u32 = 0o120_000;
pub(crate) const S_IFDIR: u32 = 0o040_000;
pub(crate) const S_IFREG: u32 = 0o100_000;

pub(crate) const fn is_dir(stat: &Stat) -> bool {
    stat.st_mode & S_IFMT == S_IFDIR
}

pub(crate) const fn is_regular(stat: &Stat) -> bool {
    stat.st_mode & S_IFMT == S_IFREG
}

pub(crate) const fn is_symlink(stat: &Stat) -> bool {
    stat.st_mode & S_IFMT == S_IFLNK
}

/// Where an inode is.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Dir(Arc<OwnedFd>),
    /// Below the brick's root: the handle.
    File(HandlePath),
    /// Below the brick's root: a file without names that is still open.
    Unlinked(Vec<u8>),
}

/// An inode that exists.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) inode: Arc<Inode>,
    pub(crate) place: Place,
}

impl Node {
    pub(crate) fn loc<'a>(&'a self, brick: &'a Brick) -> Loc<'a> {
        match &self.place {
            Place::Dir(fd) => Loc::Fd(fd.as_fd()),
            Place::File(path) => Loc::At(brick.root.as_fd(), path.as_bytes()),
            Place::Unlinked(path) => Loc::At(brick.root.as_fd(), path),
        }
    }

    /// The directory's descriptor; ENOTDIR for anything else.
    pub(crate) fn dir(&self) -> Result<&Arc<OwnedFd>> {
        match &self.place {
            Place::Dir(fd) => Ok(fd),
            Place::File(_) | Place::Unlinked(_) => Err(Errno::ENOTDIR),
        }
    }

    pub(crate) fn is_dir(&self) -> bool {
        matches!(self.place, Place::Dir(_))
    }
}

/// A directory that entries are changed or looked up in.
#[derive(Clone, Debug)]
pub(crate) struct Parent {
    pub(crate) inode: Arc<Inode>,
    pub(crate) fd: Arc<OwnedFd>,
}

impl Parent {
    pub(crate) fn loc(&self) -> Loc<'_> {
        Loc::Fd(self.fd.as_fd())
    }

    /// The entry of this name.
    pub(crate) fn at<'a>(&'a self, name: &'a EntryName) -> Loc<'a> {
        Loc::At(self.fd.as_fd(), name.as_bytes())
    }

    pub(crate) fn gfid(&self) -> Gfid {
        self.inode.gfid
    }
}

impl Brick {
    /// The inode of a fop by gfid. Unknown: ESTALE, as a server answers after looking in vain (`server-resolve.c`).
    pub(crate) fn node(&self, gfid: Gfid) -> Result<Node> {
        self.find(gfid).map_err(stale)
    }

    /// As [`Self::node`], with its attributes, which finding a file needs anyway.
    pub(crate) fn node_with_stat(&self, gfid: Gfid) -> Result<(Node, Stat)> {
        let (node, found) = self.find_with_stat(gfid).map_err(stale)?;
        let stat = match found {
            Some(stat) => stat,
            None => node.loc(self).stat()?,
        };
        Ok((node, stat))
    }

    /// The inode, ENOENT when there is none.
    pub(crate) fn find(&self, gfid: Gfid) -> Result<Node> {
        self.find_with_stat(gfid).map(|(node, _)| node)
    }

    /// As [`Self::find`], with the attributes when finding it needed them.
    pub(crate) fn find_with_stat(&self, gfid: Gfid) -> Result<(Node, Option<Stat>)> {
        if gfid.is_null() {
            return Err(Errno::EINVAL);
        }
        let inode = self.inodes.get(gfid);
        let known = inode.memory().dir.clone();
        if let Some(fd) = known {
            return Ok((Node { inode, place: Place::Dir(fd) }, None));
        }
        let path = HandlePath::new(gfid);
        match at::stat(self.root.as_fd(), path.as_bytes()) {
            // A symbolic link with one name is a directory's handle: a client's own link has its name beside its handle.
            Ok(stat) if is_symlink(&stat) && stat.st_nlink == 1 => {
                let fd = self.open_dir(gfid)?;
                Ok((Node { inode, place: Place::Dir(fd) }, None))
            }
            Ok(stat) => Ok((Node { inode, place: Place::File(path) }, Some(stat))),
            Err(Errno::ENOENT) => {
                let path = unlinked_path(gfid);
                let stat = at::stat(self.root.as_fd(), &path)?;
                Ok((Node { inode, place: Place::Unlinked(path) }, Some(stat)))
            }
            Err(error) => Err(error),
        }
    }

    /// The parent of an entry fop, unknown ones ESTALE; a file as a parent EPERM (`resolve_entry_simple`).
    pub(crate) fn parent(&self, gfid: Gfid) -> Result<Parent> {
        let node = self.node(gfid)?;
        match node.place {
            Place::Dir(fd) => Ok(Parent { inode: node.inode, fd }),
            Place::File(_) | Place::Unlinked(_) => Err(Errno::EPERM),
        }
    }

    /// A name from a request, with the one in the root that nobody may touch refused.
    pub(crate) fn entry_name(&self, parent: Gfid, name: bytes::Bytes) -> Result<EntryName> {
        let name = EntryName::new(name).map_err(InvalidName::errno)?;
        if parent.is_root() && name.as_bytes() == HIDDEN_DIR {
            return Err(Errno::EPERM);
        }
        Ok(name)
    }

    /// Opens a directory by its gfid. ENOENT: no handle; ESTALE: the handle leads to something else or nowhere.
    pub(crate) fn open_dir(&self, gfid: Gfid) -> Result<Arc<OwnedFd>> {
        if gfid.is_root() {
            return Ok(self.root.clone());
        }
        // Upwards until a directory is known ...
        let mut missing = Vec::new();
        let mut at_gfid = gfid;
        let mut fd = loop {
            if at_gfid.is_root() {
                break self.root.clone();
            }
            if let Some(fd) = self.inodes.get(at_gfid).memory().dir.clone() {
                break fd;
            }
            if missing.len() >= DEPTH_MAX {
                return Err(Errno::ELOOP);
            }
            let handle = self.dir_handle(at_gfid)?;
            missing.push((at_gfid, handle.name));
            at_gfid = handle.parent;
        };
        // ... and down again.
        while let Some((gfid, name)) = missing.pop() {
            fd = self.open_child_dir(&fd, &name, gfid)?;
        }
        Ok(fd)
    }

    /// What a directory's handle says; ESTALE when it is not of the right shape.
    pub(crate) fn dir_handle(&self, gfid: Gfid) -> Result<DirHandle> {
        match at::readlink(self.root.as_fd(), HandlePath::new(gfid).as_bytes()) {
            Ok(text) => DirHandle::parse(&text).ok_or(Errno::ESTALE),
            Err(Errno::EINVAL) => Err(Errno::ENOTDIR),
            Err(error) => Err(error),
        }
    }

    /// Opens an entry that must be the directory of this gfid, and remembers it.
    pub(crate) fn open_child_dir(&self, parent: &OwnedFd, name: &EntryName, gfid: Gfid) -> Result<Arc<OwnedFd>> {
        let fd = at::open_dir(parent.as_fd(), name.as_bytes()).map_err(|error| match error {
            Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP => Errno::ESTALE,
            other => other,
        })?;
        if gfid_of(Loc::Fd(fd.as_fd()))? != Some(gfid) {
            return Err(Errno::ESTALE);
        }
        let fd = Arc::new(fd);
        self.inodes.get(gfid).memory().dir = Some(fd.clone());
        Ok(fd)
    }
}

/// The gfid stored with an inode; a value of a wrong length counts as EIO, not as none.
pub(crate) fn gfid_of(loc: Loc<'_>) -> Result<Option<Gfid>> {
    match xattr::get_array::<16>(loc, XATTR_GFID.as_bytes()) {
        Ok(bytes) => Ok(bytes.map(Gfid)),
        Err(Errno::ERANGE) => Err(Errno::EIO),
        Err(error) => Err(error),
    }
}

/// ENOENT by gfid means that the client's inode is no more.
pub(crate) fn stale(error: Errno) -> Errno {
    if error == Errno::ENOENT { Errno::ESTALE } else { error }
}
