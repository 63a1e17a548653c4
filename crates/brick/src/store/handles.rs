//! Making, checking, repairing and removing handles.
//!
//! Crash windows and what closes them (a crash is a power cut or a `kill -9` between two system calls):
//! * new file: it gets all its xattrs while it has no name, then its handle, then its name. After a crash it is absent, or it
//!   is a handle without a name, which nobody can reach: [`Brick::drop_orphan`] removes it when its gfid is asked for.
//! * new directory: its name comes first. Without its gfid yet: a lookup that carries `gfid-req` gives it one. Without its
//!   handle: the next lookup by name makes it ([`Brick::check_handle`]).
//! * removed file: the name goes first, then the handle. Between them it is a handle without a name, as above. (GlusterFS
//!   removes the handle first, and leaves a name that nothing repairs.)
//! * removed directory: the handle leads nowhere; it is answered ENOENT and replaced when its gfid is made again.
//! * renamed directory: the handle names the old place; the next lookup by name writes it anew. It is replaced by a
//!   rename, so there is never no handle.
//! * renamed or linked file: the note of its name (gfid2path) is the old one, or is missing. A healer's lookup by the new
//!   name sees to it ([`Brick::settle_notes`]); the index makes it look, since the other bricks have noted that this one
//!   died in the change.

use std::os::fd::{AsFd, BorrowedFd};

use mortar_sys::{Loc, Result, at};
use mortar_types::{EntryName, Errno, Gfid};
use rustix::fs::Stat;

use super::brick::Brick;
use super::gfid2path;
use super::handle::{DirHandle, HandlePath, gfid_text, hidden_path, unlinked_path};
use super::inode::Inode;
use super::resolve::{Parent, gfid_of, is_dir};

impl Brick {
    /// Makes a handle by `make`, which gets its path below the root, and the folders above it when they are missing.
    pub(crate) fn make_handle(&self, path: &HandlePath, make: impl Fn(&HandlePath) -> Result<()>) -> Result<()> {
        match make(path) {
            Err(Errno::ENOENT) => {
                self.make_level(path.second_level(), path.first_level())?;
                make(path)
            }
            result => result,
        }
    }

    /// The folders of the first byte are there since the start, unless somebody removed one.
    fn make_level(&self, second: &[u8], first: &[u8]) -> Result<()> {
        let make = |folder| match at::mkdir(self.root.as_fd(), folder, 0o700) {
            Err(Errno::EEXIST) => Ok(()),
            result => result,
        };
        match make(second) {
            Err(Errno::ENOENT) => make(first).and_then(|()| make(second)),
            result => result,
        }
    }

    /// The handle of a new file. A leftover of a crash under the same gfid is replaced; a living file is EEXIST.
    pub(crate) fn make_new_handle(&self, inode: &Inode, make: impl Fn(&HandlePath) -> Result<()>) -> Result<()> {
        let path = HandlePath::new(inode.gfid);
        match self.make_handle(&path, &make) {
            Err(Errno::EEXIST) if self.remove_if_orphan(inode, &path)? => self.make_handle(&path, &make),
            result => result,
        }
    }

    /// Removes a handle that is its inode's only name, unless the file is open. Takes the inode's lock: a file being made
    /// or removed looks the same for a moment. Returns whether it was one.
    pub(crate) fn drop_orphan(&self, inode: &Inode) -> Result<bool> {
        let _serial = inode.serialise();
        let path = HandlePath::new(inode.gfid);
        let orphan = self.remove_if_orphan(inode, &path)?;
        if orphan {
            tracing::info!(gfid = %inode.gfid, "removed a file that had lost its last name before a crash");
            inode.forget();
        }
        Ok(orphan)
    }

    fn remove_if_orphan(&self, inode: &Inode, path: &HandlePath) -> Result<bool> {
        match at::stat(self.root.as_fd(), path.as_bytes()) {
            Ok(stat) if stat.st_nlink == 1 && !is_dir(&stat) && inode.open_fds() == 0 => {
                // A directory's handle has one name too; it is an orphan only when it leads nowhere.
                if self.open_dir(inode.gfid).is_ok() {
                    return Ok(false);
                }
                at::unlink(self.root.as_fd(), path.as_bytes())?;
                Ok(true)
            }
            Ok(_) | Err(Errno::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes a directory's handle, in the place of an old one if there is one.
    pub(crate) fn write_dir_handle(&self, gfid: Gfid, parent: Gfid, name: &EntryName) -> Result<()> {
        let text = DirHandle { parent, name: name.clone() }.to_text();
        let path = HandlePath::new(gfid);
        match self.make_handle(&path, |path| at::symlink(&text, self.root.as_fd(), path.as_bytes())) {
            Err(Errno::EEXIST) => {}
            result => return result,
        }
        if at::readlink(self.root.as_fd(), path.as_bytes()).is_ok_and(|old| old == text) {
            return Ok(());
        }
        // Made aside and renamed over the old one: at no moment is the directory without a handle.
        let aside = hidden_path("mortar", &gfid_text(gfid));
        match at::symlink(&text, self.root.as_fd(), &aside) {
            Err(Errno::EEXIST) => {
                at::unlink(self.root.as_fd(), &aside)?;
                at::symlink(&text, self.root.as_fd(), &aside)?;
            }
            result => result?,
        }
        at::rename(self.root.as_fd(), &aside, self.root.as_fd(), path.as_bytes())
    }

    /// Sees to it that the inode found under this name is found by its gfid too. Done once per remembered inode.
    pub(crate) fn check_handle(&self, inode: &Inode, parent: &Parent, name: &EntryName, stat: &Stat) -> Result<()> {
        if inode.memory().handle_checked {
            return Ok(());
        }
        let _serial = inode.serialise();
        if is_dir(stat) {
            self.check_dir_handle(inode, parent, name)?;
        } else {
            self.check_file_handle(inode, parent, name, stat)?;
        }
        inode.memory().handle_checked = true;
        Ok(())
    }

    fn check_dir_handle(&self, inode: &Inode, parent: &Parent, name: &EntryName) -> Result<()> {
        match self.dir_handle(inode.gfid) {
            Ok(handle) if handle.parent == parent.gfid() && handle.name == *name => return Ok(()),
            // Elsewhere: right if a directory of this gfid is there (two of one gfid are damage that is not made worse).
            Ok(_) if self.open_dir(inode.gfid).is_ok() => return Ok(()),
            Ok(_) | Err(Errno::ENOENT | Errno::ESTALE) => {}
            Err(error) => return Err(error),
        }
        tracing::info!(gfid = %inode.gfid, %name, "repaired the handle of a directory");
        self.write_dir_handle(inode.gfid, parent.gfid(), name)
    }

    fn check_file_handle(&self, inode: &Inode, parent: &Parent, name: &EntryName, stat: &Stat) -> Result<()> {
        let path = HandlePath::new(inode.gfid);
        match at::stat(self.root.as_fd(), path.as_bytes()) {
            Ok(handle) if handle.st_ino == stat.st_ino => return Ok(()),
            Ok(_) if self.remove_if_orphan(inode, &path)? => {}
            Ok(_) => {
                tracing::warn!(gfid = %inode.gfid, %name, "two files have one gfid; served by name only");
                return Ok(());
            }
            Err(Errno::ENOENT) => {}
            Err(error) => return Err(error),
        }
        tracing::info!(gfid = %inode.gfid, %name, "repaired the handle of a file");
        self.make_handle(&path, |path| at::link(parent.fd.as_fd(), name.as_bytes(), self.root.as_fd(), path.as_bytes()))
    }

    /// Removes the handle of a file whose last name is gone, or parks it while the file is open. The caller holds the
    /// inode's lock.
    pub(crate) fn retire_handle(&self, inode: &Inode) -> Result<()> {
        let path = HandlePath::new(inode.gfid);
        let root = self.root.as_fd();
        inode.forget();
        let result = if inode.open_fds() > 0 {
            inode.memory().parked = true;
            at::rename(root, path.as_bytes(), root, &unlinked_path(inode.gfid))
        } else {
            at::unlink(root, path.as_bytes())
        };
        match result {
            Err(Errno::ENOENT) => Ok(()),
            result => result,
        }
    }

    /// Removes a directory's handle if it names this place.
    pub(crate) fn remove_dir_handle(&self, inode: &Inode, parent: Gfid, name: &EntryName) -> Result<()> {
        inode.forget();
        match self.dir_handle(inode.gfid) {
            Ok(handle) if handle.parent == parent && handle.name == *name => {
                at::unlink(self.root.as_fd(), HandlePath::new(inode.gfid).as_bytes())
            }
            Ok(_) | Err(Errno::ENOENT | Errno::ESTALE | Errno::ENOTDIR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The file's last fd went: a parked one goes too.
    pub(crate) fn drop_unlinked(&self, inode: &Inode) {
        // Under the lock an unlink sees the fd, or this sees what the unlink parked.
        let _serial = inode.serialise();
        if inode.open_fds() > 0 || !std::mem::take(&mut inode.memory().parked) {
            return;
        }
        match at::unlink(self.root.as_fd(), &unlinked_path(inode.gfid)) {
            Ok(()) | Err(Errno::ENOENT) => {}
            // The next start of the brick empties the folder.
            Err(errno) => tracing::warn!(gfid = %inode.gfid, %errno, "cannot remove an unlinked file"),
        }
    }

    /// Notes a link with its inode. Best effort: the link is made, and on ext4 the notes of some fifty links fill an
    /// inode's room for xattrs.
    pub(crate) fn note_link(&self, inode: &Inode, loc: Loc<'_>, parent: Gfid, name: &EntryName) {
        if self.options.gfid2path
            && let Err(errno) = gfid2path::add(loc, parent, name)
        {
            tracing::debug!(gfid = %inode.gfid, %errno, "cannot note a link");
        }
    }

    /// Drops the note of a link that is gone. Best effort: a note left behind misleads nobody, readers check the name.
    pub(crate) fn forget_link(&self, inode: &Inode, loc: Loc<'_>, parent: Gfid, name: &EntryName) {
        if self.options.gfid2path
            && let Err(errno) = gfid2path::remove(loc, parent, name)
        {
            tracing::debug!(gfid = %inode.gfid, %errno, "cannot drop the note of a link");
        }
    }

    /// Sees to it that a file's notes are its names: `name` is noted, and notes of names that lead elsewhere are dropped.
    /// Best effort, as notes are.
    pub(crate) fn settle_notes(&self, inode: &Inode, parent: &Parent, name: &EntryName) {
        if !self.options.gfid2path {
            return;
        }
        // Under the lock no rename is between the name and its note.
        let _entries = parent.inode.lock_entries();
        let loc = parent.at(name);
        if gfid_of(loc).ok().flatten() != Some(inode.gfid) {
            return;
        }
        self.note_link(inode, loc, parent.gfid(), name);
        for (noted, other) in gfid2path::list(loc).unwrap_or_default() {
            if !self.leads_to(noted, &other, inode.gfid) {
                self.forget_link(inode, loc, noted, &other);
            }
        }
    }

    /// Whether a name in a directory is an inode's. What cannot be told is taken for true.
    pub(crate) fn leads_to(&self, parent: Gfid, name: &EntryName, gfid: Gfid) -> bool {
        let found = self.open_dir(parent).and_then(|fd| gfid_of(Loc::At(fd.as_fd(), name.as_bytes())));
        match found {
            Ok(found) => found == Some(gfid),
            Err(errno) => !matches!(errno, Errno::ENOENT | Errno::ESTALE | Errno::ENOTDIR),
        }
    }

    pub(crate) fn root_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}
