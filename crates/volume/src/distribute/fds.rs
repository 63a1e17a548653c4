//! Open files and directories of the layer, and where each is open below.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use mortar_types::fop::{Open, Opendir, Release, Releasedir};
use mortar_types::{Context, Errno, Fd, Gfid, Outcome, Request};
use parking_lot::Mutex;

use super::Core;
use super::list::Listing;
use super::subvols::{Subvol, Subvols};

/// Marks the layer's own numbers. Numbers without it are those of the only subvolume, handed through while there was one.
/// Those from 1 << 62 on are quick-read's, which takes them out of what passes it.
const OWN: i64 = 1 << 61;
const O_CREAT: u32 = 0o100;
const O_EXCL: u32 = 0o200;
const O_TRUNC: u32 = 0o1000;

/// Subvolumes are told to close when the last user is gone: the table or a request under way.
pub(super) struct OpenFd {
    pub(super) gfid: Gfid,
    is_dir: bool,
    flags: u32,
    opener: Context,
    /// The set when it was opened: offsets of a listing are about this one.
    pub(super) set: Arc<Subvols>,
    at: Mutex<Vec<(Arc<Subvol>, Fd)>>,
    pub(super) listing: Mutex<Listing>,
    runtime: tokio::runtime::Handle,
}

impl OpenFd {
    /// The fd at a subvolume; opened there now if it is not.
    pub(super) async fn at(&self, subvol: &Arc<Subvol>) -> Outcome<Fd> {
        if let Some(fd) = self.peek(subvol) {
            return Ok(fd);
        }
        let gfid = self.gfid;
        let reply = if self.is_dir {
            subvol.fop(&self.opener, Opendir { gfid, xdata: None }).await?
        } else {
            // Whoever opened it was allowed to: modes say nothing about the copy that a move has just made.
            let flags = self.flags & !(O_CREAT | O_EXCL | O_TRUNC);
            subvol.fop(&Context::internal(self.opener.pid), Open { gfid, flags, xdata: None }).await?
        };
        let mut at = self.at.lock();
        if let Some((_, first)) = at.iter().find(|(known, _)| Arc::ptr_eq(known, subvol)) {
            self.close(Arc::clone(subvol), reply.fd);
            return Ok(*first);
        }
        at.push((Arc::clone(subvol), reply.fd));
        Ok(reply.fd)
    }

    pub(super) fn peek(&self, subvol: &Arc<Subvol>) -> Option<Fd> {
        self.at.lock().iter().find(|(known, _)| Arc::ptr_eq(known, subvol)).map(|(_, fd)| *fd)
    }

    /// Where it is open first.
    pub(super) fn home(&self) -> Option<Arc<Subvol>> {
        self.at.lock().first().map(|(subvol, _)| Arc::clone(subvol))
    }

    pub(super) fn everywhere(&self) -> Vec<(Arc<Subvol>, Fd)> {
        self.at.lock().clone()
    }

    fn close(&self, subvol: Arc<Subvol>, fd: Fd) {
        let gfid = self.gfid;
        let request: Request = if self.is_dir {
            Releasedir { gfid, fd, xdata: None }.into()
        } else {
            Release { gfid, fd, xdata: None }.into()
        };
        let ctx = self.opener.clone();
        self.runtime.spawn(async move {
            // A subvolume that is gone has closed it by itself.
            drop(subvol.call(&ctx, request).await);
        });
    }
}

impl Drop for OpenFd {
    fn drop(&mut self) {
        for (subvol, fd) in std::mem::take(&mut *self.at.lock()) {
            self.close(subvol, fd);
        }
    }
}

#[derive(Default)]
pub(super) struct Fds {
    next: AtomicI64,
    table: Mutex<HashMap<Fd, Arc<OpenFd>>>,
}

/// Whether the layer gave it out itself.
pub(super) const fn is_own(fd: Fd) -> bool {
    fd.0 > 0 && fd.0 & OWN != 0
}

/// What an fd is opened for.
pub(super) struct Opened<'a> {
    pub(super) ctx: &'a Context,
    pub(super) gfid: Gfid,
    pub(super) flags: u32,
    pub(super) is_dir: bool,
    pub(super) at: Vec<(Arc<Subvol>, Fd)>,
}

impl Core {
    pub(super) fn register_fd(&self, set: &Arc<Subvols>, opened: Opened<'_>) -> Fd {
        let fd = Fd(OWN | self.fds.next.fetch_add(1, Ordering::Relaxed));
        let open = self.open_file(set, opened, Listing::default());
        self.fds.table.lock().insert(fd, Arc::new(open));
        fd
    }

    fn open_file(&self, set: &Arc<Subvols>, opened: Opened<'_>, listing: Listing) -> OpenFd {
        let Opened { ctx, gfid, flags, is_dir, at } = opened;
        OpenFd {
            gfid,
            is_dir,
            flags,
            opener: ctx.clone(),
            set: Arc::clone(set),
            at: Mutex::new(at),
            listing: Mutex::new(listing),
            runtime: self.runtime.clone(),
        }
    }

    /// `None` for the anonymous fd, EBADF for one that is not open. One from the time of the only subvolume is taken into
    /// the table: `dir` says what it is.
    pub(super) fn open_fd(&self, ctx: &Context, gfid: Gfid, fd: Fd, is_dir: bool) -> Outcome<Option<Arc<OpenFd>>> {
        if fd.is_anonymous() {
            return Ok(None);
        }
        let mut table = self.fds.table.lock();
        if let Some(open) = table.get(&fd) {
            return Ok(Some(Arc::clone(open)));
        }
        let Some(only) = self.only.get().filter(|_| !is_own(fd)) else { return Err(Errno::EBADF.into()) };
        const O_RDWR: u32 = 2;
        let opened = Opened { ctx, gfid, flags: O_RDWR, is_dir, at: vec![(Arc::clone(only), fd)] };
        let set = self.set();
        let open = Arc::new(self.open_file(&set, opened, Listing::of_only_subvolume()));
        table.insert(fd, Arc::clone(&open));
        Ok(Some(open))
    }

    /// Nobody waits for the bricks to close, as in GlusterFS. Whether it was known here.
    pub(super) fn release_fd(&self, fd: Fd) -> bool {
        let closed = self.fds.table.lock().remove(&fd);
        closed.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Once both layers counted from the same number, and a file just created was taken for one that was not open yet.
    #[test]
    fn quick_read_does_not_take_this_layers_numbers_for_its_own() {
        for count in [0, 1, OWN - 1] {
            let fd = Fd(OWN | count);
            assert!(is_own(fd) && !crate::quick_read::is_deferred(fd), "{fd:?}");
        }
        assert!(!is_own(Fd(7)) && !is_own(Fd::ANONYMOUS));
    }
}
