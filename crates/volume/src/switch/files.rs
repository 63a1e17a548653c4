//! Open files and directories as applications know them, and where each is open below.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use mortar_types::fop::{Open, Opendir, Release, Releasedir};
use mortar_types::{Context, Fd, Fops, Gfid, Outcome, Request};
use parking_lot::{Mutex, RwLock};

use super::listing::Listing;
use crate::graph::is_same;

/// Linux open flags that create or truncate: not repeated when a file is opened again.
const CREATING_FLAGS: u32 = 0o100 | 0o200 | 0o1000;

/// One open file or directory.
pub(super) struct File {
    pub(super) gfid: Gfid,
    /// `None` for a directory.
    flags: Option<u32>,
    bound: Mutex<Arc<Binding>>,
    /// How far a directory's listing is.
    pub(super) listing: Mutex<Listing>,
}

/// A file as it is open in one graph. Closed there when the last user is gone.
pub(super) struct Binding {
    top: Arc<dyn Fops>,
    pub(super) fd: Fd,
    gfid: Gfid,
    is_directory: bool,
    runtime: tokio::runtime::Handle,
    closed: bool,
}

impl Binding {
    pub(super) fn is_in(&self, top: &Arc<dyn Fops>) -> bool {
        is_same(&self.top, top)
    }

    pub(super) const fn top(&self) -> &Arc<dyn Fops> {
        &self.top
    }

    /// Closes it, and waits for that unless somebody else still uses it.
    pub(super) async fn close(self: Arc<Self>, ctx: &Context) -> Outcome<()> {
        let Some(mut last) = Arc::into_inner(self) else { return Ok(()) };
        last.closed = true;
        last.top.call(ctx, last.release()).await.map(drop)
    }

    fn release(&self) -> Request {
        let (gfid, fd, xdata) = (self.gfid, self.fd, None);
        if self.is_directory { Releasedir { gfid, fd, xdata }.into() } else { Release { gfid, fd, xdata }.into() }
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        let (top, request) = (Arc::clone(&self.top), self.release());
        self.runtime.spawn(async move {
            // Nobody can do anything about a failure, and the bricks close at the latest with their connection.
            let _ = top.call(&Context::default(), request).await;
        });
    }
}

impl File {
    /// What has just been opened at `top`. `flags`: `None` for a directory.
    pub(super) fn opened(top: &Arc<dyn Fops>, gfid: Gfid, flags: Option<u32>, fd: Fd) -> Self {
        let binding = bind(top, gfid, flags, fd);
        Self { gfid, flags, bound: Mutex::new(binding), listing: Mutex::default() }
    }

    pub(super) fn binding(&self) -> Arc<Binding> {
        Arc::clone(&self.bound.lock())
    }

    pub(super) const fn is_directory(&self) -> bool {
        self.flags.is_none()
    }

    /// Opens it at `top` as well. As root, as connections open again: who opened it may have given up the right since.
    pub(super) async fn open_at(&self, top: &Arc<dyn Fops>) -> Outcome<Arc<Binding>> {
        let (ctx, gfid) = (Context::default(), self.gfid);
        let reply = match self.flags {
            Some(flags) => top.fop(&ctx, Open { gfid, flags: flags & !CREATING_FLAGS, xdata: None }).await?,
            None => top.fop(&ctx, Opendir { gfid, xdata: None }).await?,
        };
        Ok(bind(top, gfid, self.flags, reply.fd))
    }

    /// From now on it is used there, unless somebody else was first; the one that counts.
    pub(super) fn rebind(&self, binding: Arc<Binding>) -> Arc<Binding> {
        let mut bound = self.bound.lock();
        if !bound.is_in(binding.top()) {
            *bound = binding;
        }
        Arc::clone(&bound)
    }
}

fn bind(top: &Arc<dyn Fops>, gfid: Gfid, flags: Option<u32>, fd: Fd) -> Arc<Binding> {
    let (top, is_directory, runtime) = (Arc::clone(top), flags.is_none(), tokio::runtime::Handle::current());
    Arc::new(Binding { top, fd, gfid, is_directory, runtime, closed: false })
}

/// By the numbers that applications have.
#[derive(Default)]
pub(super) struct Files {
    last: AtomicI64,
    open: RwLock<HashMap<Fd, Arc<File>>>,
}

impl Files {
    pub(super) fn insert(&self, file: File) -> Fd {
        let fd = Fd(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        self.open.write().insert(fd, Arc::new(file));
        fd
    }

    pub(super) fn get(&self, fd: Fd) -> Option<Arc<File>> {
        self.open.read().get(&fd).cloned()
    }

    pub(super) fn remove(&self, fd: Fd) -> Option<Arc<File>> {
        self.open.write().remove(&fd)
    }

    pub(super) fn all(&self) -> Vec<(Fd, Arc<File>)> {
        self.open.read().iter().map(|(fd, file)| (*fd, Arc::clone(file))).collect()
    }
}
