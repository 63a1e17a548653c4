//! Open files and directories of the layer, and where each is open below.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};

use mortar_logic::replicate::Set;
use mortar_types::fop::{Open, Opendir, Release, Releasedir};
use mortar_types::{Context, Errno, Fd, Outcome, Request, SubvolId, SubvolMap};
use parking_lot::Mutex;

use super::Core;
use super::inode::Inode;
use super::list::Listing;

/// Linux open flags that matter here.
pub(super) const O_CREAT: u32 = 0o100;
pub(super) const O_EXCL: u32 = 0o200;
pub(super) const O_TRUNC: u32 = 0o1000;
pub(super) const O_APPEND: u32 = 0o2000;
pub(super) const O_DSYNC: u32 = 0o10000;

/// The bricks are told to close when the last user is gone: the table, a request under way, or a kept lock that was
/// taken through it and is given back through it. So no request meets a closed fd.
pub(super) struct OpenFd {
    core: Weak<Core>,
    /// Keeps the inode remembered while it is open.
    pub(super) inode: Arc<Inode>,
    pub(super) flags: u32,
    is_dir: bool,
    /// As whom to open on a child that was down.
    opener: Context,
    children: Mutex<SubvolMap<ChildFd>>,
    pub(super) listing: Mutex<Listing>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ChildFd {
    /// Not open, and not tried since the child came up.
    Closed,
    /// Refused in this epoch.
    Refused {
        epoch: u64,
        errno: Errno,
    },
    Open(Fd),
}

impl OpenFd {
    /// The child's fd, if it is open there already.
    pub(super) fn peek(&self, child: SubvolId) -> Option<Fd> {
        match self.children.lock()[child] {
            ChildFd::Open(fd) => Some(fd),
            _ => None,
        }
    }

    /// The child's fd; opened now if the child was down before (`afr/afr-open.c` afr_fix_open).
    pub(super) async fn at(&self, core: &Core, child: SubvolId) -> Outcome<Fd> {
        let epoch = core.children.epoch(child);
        match self.children.lock()[child] {
            ChildFd::Open(fd) => return Ok(fd),
            ChildFd::Refused { epoch: then, errno } if then == epoch => return Err(errno.into()),
            ChildFd::Refused { .. } | ChildFd::Closed => {}
        }
        let gfid = self.inode.gfid;
        let fops = core.children.get(child);
        let opened = if self.is_dir {
            fops.fop(&self.opener, Opendir { gfid, xdata: None }).await
        } else {
            let flags = self.flags & !(O_CREAT | O_EXCL | O_TRUNC);
            fops.fop(&self.opener, Open { gfid, flags, xdata: None }).await
        };
        let mut children = self.children.lock();
        match opened {
            Ok(reply) => {
                if let ChildFd::Open(first) = children[child] {
                    // Somebody else opened it meanwhile: one of the two is enough.
                    core.release_child(child, self, reply.fd);
                    return Ok(first);
                }
                children[child] = ChildFd::Open(reply.fd);
                Ok(reply.fd)
            }
            Err(failure) => {
                if failure.errno != Errno::ENOTCONN && children[child] == ChildFd::Closed {
                    children[child] = ChildFd::Refused { epoch, errno: failure.errno };
                }
                Err(failure)
            }
        }
    }

    pub(super) fn open_at(&self) -> Set {
        self.children.lock().map(|_, fd| matches!(fd, ChildFd::Open(_)))
    }
}

#[derive(Default)]
pub(super) struct Fds {
    next: AtomicI64,
    table: Mutex<HashMap<Fd, Arc<OpenFd>>>,
}

impl Core {
    /// Registers what was opened below; `fds` has `None` where it was not.
    pub(super) fn register_fd(
        self: &Arc<Self>,
        ctx: &Context,
        inode: Arc<Inode>,
        flags: u32,
        is_dir: bool,
        fds: &SubvolMap<Option<Fd>>,
    ) -> Fd {
        let children = fds.map(|_, fd| fd.map_or(ChildFd::Closed, ChildFd::Open));
        let fd = Fd(self.fds.next.fetch_add(1, Ordering::Relaxed));
        let open = OpenFd {
            core: Arc::downgrade(self),
            inode,
            flags,
            is_dir,
            opener: ctx.clone(),
            children: Mutex::new(children),
            listing: Mutex::new(Listing::default()),
        };
        self.fds.table.lock().insert(fd, Arc::new(open));
        fd
    }

    /// `None` for the anonymous fd, EBADF for one that is not open.
    pub(super) fn open_fd(&self, fd: Fd) -> Outcome<Option<Arc<OpenFd>>> {
        if fd.is_anonymous() {
            return Ok(None);
        }
        self.fds.table.lock().get(&fd).cloned().map(Some).ok_or_else(|| Errno::EBADF.into())
    }

    /// Nobody waits for the bricks to close, as in GlusterFS.
    pub(super) fn release_fd(&self, fd: Fd) {
        let closed = self.fds.table.lock().remove(&fd);
        drop(closed);
    }

    fn release_child(&self, child: SubvolId, open: &OpenFd, fd: Fd) {
        let gfid = open.inode.gfid;
        let request: Request = if open.is_dir {
            Releasedir { gfid, fd, xdata: None }.into()
        } else {
            Release { gfid, fd, xdata: None }.into()
        };
        self.close_on(child, open.opener.clone(), request);
    }

    /// Sends a RELEASE or RELEASEDIR that nobody waits for.
    pub(super) fn close_on(&self, child: SubvolId, ctx: Context, request: Request) {
        let fops = Arc::clone(self.children.get(child));
        self.runtime.spawn(async move {
            // A brick that is gone has closed it by itself.
            drop(fops.call(&ctx, request).await);
        });
    }
}

impl Drop for OpenFd {
    fn drop(&mut self) {
        let Some(core) = self.core.upgrade() else { return };
        for child in core.children.ids() {
            if let Some(fd) = self.peek(child) {
                core.release_child(child, self, fd);
            }
        }
    }
}
