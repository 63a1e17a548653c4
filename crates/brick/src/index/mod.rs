//! The index: which inodes of this brick have something pending, so that heal need not walk the tree.
//!
//! `.glusterfs/indices/xattrop/` holds a hard link named by gfid for each inode whose change log accuses somebody, `dirty/` for
//! each with a change under way, `entry-changes/PARENT/NAME` for names of a directory. All are links of an empty base file
//! (`xattrop-UUID`), so an entry costs no inode. Clients reach them through virtual gfids, made anew at every start.
//!
//! Invariant: an entry is there before the xattr that it stands for, and goes after it. A crash may leave an entry without a
//! reason, which heal removes, never a reason without an entry.
//!
//! Source: GlusterFS `xlators/features/index/src/index.c`.

mod folder;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use mortar_sys::{Result, at, dirents};
use mortar_types::keys::{XATTROP_ENTRY_CREATE, XATTROP_ENTRY_DELETE, XATTROP_PURGE_INDEX};
use mortar_types::{Dict, EntryName, Errno, Gfid, InvalidName};
use rustix::fs::Stat;

use crate::store::handle::{gfid_text, parse_gfid};
use crate::store::inode::{Cached, Inode};

use folder::Folder;

/// A directory of the index that clients can list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum VirtualDir {
    /// `indices/xattrop`.
    Pending,
    /// `indices/dirty`.
    Dirty,
    /// `indices/entry-changes`.
    EntryChanges,
    /// `indices/entry-changes/GFID`: changed names of that directory.
    EntriesOf(Gfid),
}

/// The watched kinds, in the order of [`crate::store::inode::Memory::indexed`].
const PENDING: usize = 0;
const DIRTY: usize = 1;

/// A brick's index.
pub(crate) struct Index {
    folders: [Folder; 2],
    entry_changes: Folder,
    /// Key prefixes of the pending kind; keys of the dirty kind, which win.
    pending_watchlist: Vec<String>,
    dirty_watchlist: Vec<String>,
    virtual_gfids: [Gfid; 3],
    /// Entries of `indices/xattrop`.
    pending: AtomicU64,
    /// Folders of `indices/entry-changes`.
    changed_dirs: AtomicU64,
}

impl Index {
    /// Opens the index below a brick's `.glusterfs`, making what is missing.
    pub(crate) fn open_at(hidden: BorrowedFd<'_>, pending: Vec<String>, dirty: Vec<String>) -> Result<Self> {
        for path in ["indices", "indices/xattrop", "indices/dirty", "indices/entry-changes"] {
            match at::mkdir(hidden, path.as_bytes(), 0o600) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(error) => return Err(error),
            }
        }
        let folder = |name: &'static str| Folder::open(hidden, name);
        let index = Self {
            folders: [folder("xattrop")?, folder("dirty")?],
            entry_changes: folder("entry-changes")?,
            pending_watchlist: pending,
            dirty_watchlist: dirty,
            virtual_gfids: [Gfid::random(), Gfid::random(), Gfid::random()],
            pending: AtomicU64::new(0),
            changed_dirs: AtomicU64::new(0),
        };
        index.pending.store(index.folders[PENDING].count()?, Ordering::Release);
        index.changed_dirs.store(index.entry_changes.count()?, Ordering::Release);
        Ok(index)
    }

    /// Inodes with something pending.
    pub(crate) fn pending_count(&self) -> u64 {
        self.pending.load(Ordering::Acquire)
    }

    /// Before an xattrop: the inode is entered for every watched key that is about to become non-zero. The caller holds
    /// the inode's lock.
    pub(crate) fn before(&self, inode: &Inode, request: &Dict, xdata: Option<&Dict>) -> Result<()> {
        for (key, value) in request.iter() {
            let Some(kind) = self.kind_of(key) else { continue };
            if value.as_bytes().is_some_and(|bytes| bytes.iter().any(|byte| *byte != 0)) {
                self.enter(inode, kind)?;
            }
        }
        if let Some(name) = entry_name(xdata, XATTROP_ENTRY_CREATE)? {
            self.enter_name(inode.gfid, &name)?;
        }
        Ok(())
    }

    /// After an xattrop: the inode leaves every kind whose keys in the answer are all zero.
    pub(crate) fn after(&self, inode: &Inode, answer: &Dict, xdata: Option<&Dict>) -> Result<()> {
        let mut pending = [None; 2];
        for (key, value) in answer.iter() {
            let Some(kind) = self.kind_of(key) else { continue };
            let zero = value.as_bytes().is_none_or(|bytes| bytes.iter().all(|byte| *byte == 0));
            pending[kind] = Some(pending[kind] == Some(true) || !zero);
        }
        for kind in [PENDING, DIRTY] {
            if pending[kind] == Some(false) {
                self.leave(inode, kind)?;
            }
        }
        if let Some(name) = entry_name(xdata, XATTROP_ENTRY_DELETE)? {
            self.leave_name(inode.gfid, &name)?;
        }
        let purge = xdata.is_some_and(|xdata| xdata.contains(XATTROP_PURGE_INDEX));
        if purge && pending[PENDING] == Some(false) {
            self.purge_names(inode.gfid)?;
        }
        Ok(())
    }

    /// The kind that watches a key.
    fn kind_of(&self, key: &str) -> Option<usize> {
        if self.dirty_watchlist.iter().any(|watched| watched == key) {
            return Some(DIRTY);
        }
        self.pending_watchlist.iter().any(|prefix| key.starts_with(prefix.as_str())).then_some(PENDING)
    }

    fn enter(&self, inode: &Inode, kind: usize) -> Result<()> {
        if matches!(inode.memory().indexed[kind], Cached::Known(true)) {
            return Ok(());
        }
        let entered = self.folders[kind].link(&gfid_text(inode.gfid))?;
        if entered && kind == PENDING {
            self.pending.fetch_add(1, Ordering::AcqRel);
        }
        inode.memory().indexed[kind] = Cached::Known(true);
        Ok(())
    }

    fn leave(&self, inode: &Inode, kind: usize) -> Result<()> {
        if matches!(inode.memory().indexed[kind], Cached::Known(false)) {
            return Ok(());
        }
        self.remove_gfid(kind, &gfid_text(inode.gfid))?;
        inode.memory().indexed[kind] = Cached::Known(false);
        Ok(())
    }

    fn remove_gfid(&self, kind: usize, name: &[u8]) -> Result<bool> {
        let removed = self.folders[kind].unlink(name)?;
        if removed && kind == PENDING {
            // Counted at the start or when entered, so it cannot pass zero.
            self.pending.fetch_sub(1, Ordering::AcqRel);
        }
        Ok(removed)
    }

    fn enter_name(&self, parent: Gfid, name: &EntryName) -> Result<()> {
        let folder = gfid_text(parent);
        let path = [&folder[..], b"/", name.as_bytes()].concat();
        match self.entry_changes.link(&path) {
            Err(Errno::ENOENT) => {
                match at::mkdir(self.entry_changes.fd(), &folder, 0o600) {
                    Ok(()) => {
                        self.changed_dirs.fetch_add(1, Ordering::AcqRel);
                    }
                    Err(Errno::EEXIST) => {}
                    Err(error) => return Err(error),
                }
                self.entry_changes.link(&path).map(drop)
            }
            result => result.map(drop),
        }
    }

    fn leave_name(&self, parent: Gfid, name: &EntryName) -> Result<()> {
        let path = [&gfid_text(parent)[..], b"/", name.as_bytes()].concat();
        self.entry_changes.unlink(&path).map(drop)
    }

    /// The directory's names are all healed. What is left in its folder has no reason any more.
    fn purge_names(&self, parent: Gfid) -> Result<()> {
        let folder = gfid_text(parent);
        let names = match self.open(VirtualDir::EntriesOf(parent)) {
            Ok(fd) => dirents::names(fd.as_fd())?,
            Err(Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(error),
        };
        for name in names {
            self.entry_changes.unlink(&[&folder[..], b"/", &name].concat())?;
        }
        match at::rmdir(self.entry_changes.fd(), &folder) {
            Ok(()) => {
                self.changed_dirs.fetch_sub(1, Ordering::AcqRel);
                Ok(())
            }
            Err(Errno::ENOENT | Errno::ENOTEMPTY) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The virtual directories.
impl Index {
    pub(crate) fn gfid_of(&self, dir: VirtualDir) -> Gfid {
        let [pending, dirty, changes] = self.virtual_gfids;
        match dir {
            VirtualDir::Pending => pending,
            VirtualDir::Dirty => dirty,
            VirtualDir::EntryChanges => changes,
            VirtualDir::EntriesOf(gfid) => xor(gfid, changes),
        }
    }

    /// The virtual directory of a gfid; `None` for a gfid of the tree, at the price of one comparison each. The folders of
    /// `entry-changes` have the real directory's gfid mixed with the random one of `entry-changes`: nothing to remember. Those
    /// are looked for only while there are any.
    pub(crate) fn virtual_dir(&self, gfid: Gfid) -> Option<VirtualDir> {
        let [pending, dirty, changes] = self.virtual_gfids;
        if gfid == pending {
            return Some(VirtualDir::Pending);
        }
        if gfid == dirty {
            return Some(VirtualDir::Dirty);
        }
        if gfid == changes {
            return Some(VirtualDir::EntryChanges);
        }
        if gfid.is_null() || gfid.is_root() || self.changed_dirs.load(Ordering::Acquire) == 0 {
            return None;
        }
        let real = xor(gfid, changes);
        let exists = at::stat(self.entry_changes.fd(), &gfid_text(real)).is_ok();
        exists.then_some(VirtualDir::EntriesOf(real))
    }

    /// Opens a virtual directory for listing; ENOENT when it is not there.
    pub(crate) fn open(&self, dir: VirtualDir) -> Result<OwnedFd> {
        match dir {
            VirtualDir::Pending => at::open_dir(self.folders[PENDING].fd(), b"."),
            VirtualDir::Dirty => at::open_dir(self.folders[DIRTY].fd(), b"."),
            VirtualDir::EntryChanges => at::open_dir(self.entry_changes.fd(), b"."),
            VirtualDir::EntriesOf(gfid) => at::open_dir(self.entry_changes.fd(), &gfid_text(gfid)),
        }
    }

    /// Whether a listing shows this name: not the base files, nor `.` and `..`.
    pub(crate) fn is_entry(&self, dir: VirtualDir, name: &[u8]) -> bool {
        match dir {
            VirtualDir::EntriesOf(_) => !matches!(name, b"." | b".."),
            _ => parse_gfid(name).is_some(),
        }
    }

    /// An entry by name: its gfid and attributes.
    pub(crate) fn lookup(&self, dir: VirtualDir, name: &[u8]) -> Result<(Gfid, Stat)> {
        let name = EntryName::new(name.to_vec()).map_err(InvalidName::errno)?;
        let fd = self.open(dir)?;
        let stat = at::stat(fd.as_fd(), name.as_bytes())?;
        let gfid = parse_gfid(name.as_bytes());
        let gfid = match dir {
            VirtualDir::Pending | VirtualDir::Dirty => gfid.ok_or(Errno::ENOENT)?,
            VirtualDir::EntryChanges => self.gfid_of(VirtualDir::EntriesOf(gfid.ok_or(Errno::ENOENT)?)),
            VirtualDir::EntriesOf(_) => Gfid::NULL,
        };
        Ok((gfid, stat))
    }

    /// Heal found an entry without a reason.
    pub(crate) fn unlink(&self, dir: VirtualDir, name: &[u8]) -> Result<()> {
        let name = EntryName::new(name.to_vec()).map_err(InvalidName::errno)?;
        let removed = match dir {
            VirtualDir::Pending => self.remove_gfid(PENDING, name.as_bytes())?,
            VirtualDir::Dirty => self.remove_gfid(DIRTY, name.as_bytes())?,
            VirtualDir::EntryChanges => return Err(Errno::EISDIR),
            VirtualDir::EntriesOf(gfid) => {
                self.entry_changes.unlink(&[&gfid_text(gfid)[..], b"/", name.as_bytes()].concat())?
            }
        };
        if removed { Ok(()) } else { Err(Errno::ENOENT) }
    }

    /// Heal is done with a directory's names.
    pub(crate) fn rmdir(&self, dir: VirtualDir, name: &[u8]) -> Result<()> {
        match (dir, parse_gfid(name)) {
            (VirtualDir::EntryChanges, Some(gfid)) => self.purge_names(gfid),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// The entry of this gfid was removed other than through its inode: what the inode remembers must not hide it.
    pub(crate) fn forgets(&self, dir: VirtualDir, name: &[u8]) -> Option<(Gfid, usize)> {
        match dir {
            VirtualDir::Pending => parse_gfid(name).map(|gfid| (gfid, PENDING)),
            VirtualDir::Dirty => parse_gfid(name).map(|gfid| (gfid, DIRTY)),
            VirtualDir::EntryChanges | VirtualDir::EntriesOf(_) => None,
        }
    }
}

fn xor(one: Gfid, two: Gfid) -> Gfid {
    Gfid((u128::from_be_bytes(one.0) ^ u128::from_be_bytes(two.0)).to_be_bytes())
}

fn entry_name(xdata: Option<&Dict>, key: &str) -> Result<Option<EntryName>> {
    let Some(name) = xdata.and_then(|xdata| xdata.get_bytes(key)) else { return Ok(None) };
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    EntryName::new(name.slice(..end)).map(Some).map_err(InvalidName::errno)
}
