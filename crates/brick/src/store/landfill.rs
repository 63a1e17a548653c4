//! The landfill's janitor: takes apart the trees that RMDIR threw away.
//!
//! Everything below a tree loses its handle with its last name, or the inodes would stay on disk for ever.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Weak;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use mortar_sys::{Loc, Result, at, dirents};
use mortar_types::{Errno, Gfid};

use super::brick::Brick;
use super::handle::{HandlePath, hidden_path};
use super::resolve::{gfid_of, is_dir};

/// Ends the janitor when dropped.
pub(crate) struct Janitor {
    _stop: mpsc::Sender<()>,
}

/// Starts the janitor's thread. It holds the brick only while it works.
pub(crate) fn start(brick: Weak<Brick>, interval: Option<Duration>) -> Option<Janitor> {
    let interval = interval?;
    let (stop, stopped) = mpsc::channel();
    let started = std::thread::Builder::new().name("landfill".to_owned()).spawn(move || {
        while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
            let Some(brick) = brick.upgrade() else { return };
            if let Err(errno) = brick.empty_landfill() {
                tracing::warn!(%errno, "cannot empty the landfill; tried again later");
            }
        }
    });
    if let Err(error) = started {
        tracing::warn!(%error, "cannot start the landfill's janitor");
        return None;
    }
    Some(Janitor { _stop: stop })
}

impl Brick {
    pub(crate) fn empty_landfill(&self) -> Result<()> {
        let path = hidden_path("landfill", b"");
        let landfill = at::open_dir(self.root_fd(), &path[..path.len() - 1])?;
        self.empty(&landfill)
    }

    /// Removes all entries below `top`. Walks with a stack of open directories; a tree deeper than the descriptors that a process may have is finished in
    /// later rounds.
    fn empty(&self, top: &OwnedFd) -> Result<()> {
        const DEPTH_MAX: usize = 512;
        let mut stack = vec![(at::open_dir(top.as_fd(), b".")?, None::<Vec<u8>>)];
        while let Some((dir, _)) = stack.last() {
            match self.remove_files_and_find_dir(dir)? {
                Some(name) if stack.len() < DEPTH_MAX => {
                    let child = at::open_dir(dir.as_fd(), &name)?;
                    self.drop_handle_of_dir(&child)?;
                    stack.push((child, Some(name)));
                }
                Some(name) => {
                    // Too deep: brought to the top, where the next round finds it.
                    at::rename(dir.as_fd(), &name, top.as_fd(), Gfid::random().to_string().as_bytes())?;
                }
                None => {
                    let Some((_, name)) = stack.pop() else { break };
                    if let (Some((parent, _)), Some(name)) = (stack.last(), name) {
                        at::rmdir(parent.as_fd(), &name)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes what is no directory and returns one that is.
    fn remove_files_and_find_dir(&self, dir: &OwnedFd) -> Result<Option<Vec<u8>>> {
        for name in dirents::names(dir.as_fd())? {
            let loc = Loc::At(dir.as_fd(), &name);
            let stat = match loc.stat() {
                Ok(stat) => stat,
                Err(Errno::ENOENT) => continue,
                Err(error) => return Err(error),
            };
            if is_dir(&stat) {
                return Ok(Some(name));
            }
            match gfid_of(loc)? {
                Some(gfid) => {
                    let inode = self.inodes.get(gfid);
                    let _serial = inode.serialise();
                    at::unlink(dir.as_fd(), &name)?;
                    if stat.st_nlink <= 2 {
                        self.retire_handle(&inode)?;
                    }
                }
                None => at::unlink(dir.as_fd(), &name)?,
            }
        }
        Ok(None)
    }

    /// A directory in the landfill is not found by its gfid any more, unless one that lives has the gfid now.
    fn drop_handle_of_dir(&self, dir: &OwnedFd) -> Result<()> {
        let Some(gfid) = gfid_of(Loc::Fd(dir.as_fd()))? else { return Ok(()) };
        let inode = self.inodes.get(gfid);
        let _serial = inode.serialise();
        inode.forget();
        if self.open_dir(gfid).is_ok() {
            // Found through its handle: alive elsewhere, or still reachable through parents not yet taken apart.
            let alive = Loc::Fd(self.open_dir(gfid)?.as_fd()).stat()?.st_ino != Loc::Fd(dir.as_fd()).stat()?.st_ino;
            inode.forget();
            if alive {
                return Ok(());
            }
        }
        match at::unlink(self.root_fd(), HandlePath::new(gfid).as_bytes()) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
