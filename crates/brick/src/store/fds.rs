//! Open files: the store's fd numbers and what they stand for.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use mortar_sys::Result;
use mortar_types::{Errno, Fd};
use parking_lot::{Mutex, RwLock};

use crate::index::VirtualDir;

use super::inode::Inode;
use super::open_flags::O_DSYNC;

/// What an fd number stands for.
#[derive(Clone, Debug)]
pub(crate) enum Open {
    File(Arc<OpenFile>),
    Dir(Arc<OpenDir>),
    /// A directory of the index, under its virtual gfid.
    Index(Arc<OpenIndex>),
}

/// An open file.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) inode: Arc<Inode>,
    pub(crate) file: Arc<OwnedFd>,
    /// Linux open flags as the client gave them.
    pub(crate) flags: u32,
    /// The inode's count of lost writes when this fd was opened.
    pub(crate) failures_at_open: u32,
}

impl OpenFile {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// EIO once data of the inode failed to reach the disk after this fd was opened: the page cache may hold what the disk does not.
    pub(crate) fn check(&self) -> Result<()> {
        if self.inode.failures() == self.failures_at_open { Ok(()) } else { Err(Errno::EIO) }
    }
}

/// A directory being listed.
#[derive(Debug)]
pub(crate) struct OpenDir {
    pub(crate) inode: Arc<Inode>,
    /// A description of its own, with its own position.
    pub(crate) dir: OwnedFd,
    pub(crate) stream: Mutex<DirStream>,
}

/// A name that the kernel gave.
#[derive(Debug)]
pub(crate) struct Listed {
    /// Part of one allocation for all names that came at once.
    pub(crate) name: Bytes,
    pub(crate) ino: u64,
    /// `DT_*`.
    pub(crate) kind: u32,
    /// The position after it.
    pub(crate) next: u64,
}

/// Entries that the kernel gave ahead of what was answered.
#[derive(Default, Debug)]
pub(crate) struct DirStream {
    /// The position of the first waiting entry.
    pub(crate) at: u64,
    pub(crate) waiting: VecDeque<Listed>,
    /// The kernel has nothing after what waits.
    pub(crate) ended: bool,
}

/// A directory of the index being listed.
#[derive(Debug)]
pub(crate) struct OpenIndex {
    pub(crate) dir: VirtualDir,
    pub(crate) fd: OwnedFd,
}

/// All fds of the store.
#[derive(Default)]
pub(crate) struct FdTable {
    open: RwLock<HashMap<Fd, Open>>,
    next: AtomicI64,
}

impl FdTable {
    pub(crate) fn insert(&self, open: Open) -> Fd {
        let fd = Fd(self.next.fetch_add(1, Ordering::Relaxed));
        self.open.write().insert(fd, open);
        fd
    }

    /// EBADF for a number that stands for nothing.
    pub(crate) fn get(&self, fd: Fd) -> Result<Open> {
        self.open.read().get(&fd).cloned().ok_or(Errno::EBADF)
    }

    /// Whether every write through it must reach the disk before it is answered.
    pub(crate) fn is_synced(&self, fd: Fd) -> bool {
        matches!(self.open.read().get(&fd), Some(Open::File(open)) if open.flags & O_DSYNC != 0)
    }

    pub(crate) fn remove(&self, fd: Fd) -> Option<Open> {
        self.open.write().remove(&fd)
    }

    pub(crate) fn len(&self) -> usize {
        self.open.read().len()
    }
}
