//! Files that applications have open and the bricks have not: opened below at the first need, once.
//!
//! The layer's own fds are numbers from [`OWN`] on, which no layer below reaches by counting; all others are the child's
//! and pass as they are.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt, Shared};
use futures::stream::{self, StreamExt};
use mortar_types::fop::Open;
use mortar_types::{Context, Dict, Errno, Fd, Fops, Gfid, Outcome};
use parking_lot::Mutex;

/// The first own number. Distribute's are below.
const OWN: i64 = 1 << 62;
/// Opens under way at once when many files must be opened together.
const OPENS_MAX: usize = 64;

/// An open below, shared by all who need it.
type Opening = Shared<BoxFuture<'static, Outcome<Fd>>>;

pub(crate) const fn is_own(fd: Fd) -> bool {
    fd.0 >= OWN
}

/// What to open, and as whom.
#[derive(Clone)]
pub(super) struct Opener {
    pub(super) ctx: Context,
    pub(super) gfid: Gfid,
    pub(super) flags: u32,
    pub(super) xdata: Option<Dict>,
}

pub(super) struct Fds {
    child: Arc<dyn Fops>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    last: i64,
    files: HashMap<Fd, File>,
    /// Those of `files` without an opening.
    waiting: HashSet<Fd>,
    /// Removals of names under way: what is opened now must not wait.
    removals: usize,
}

struct File {
    opener: Opener,
    opening: Option<Opening>,
}

impl Fds {
    pub(super) fn new(child: Arc<dyn Fops>) -> Arc<Self> {
        Arc::new(Self { child, table: Mutex::default() })
    }

    /// A new fd that is open nowhere; `None` while names are removed.
    pub(super) fn defer(&self, opener: Opener) -> Option<Fd> {
        let mut table = self.table.lock();
        if table.removals > 0 {
            return None;
        }
        let fd = Fd(OWN + table.last);
        table.last += 1;
        table.files.insert(fd, File { opener, opening: None });
        table.waiting.insert(fd);
        Some(fd)
    }

    /// The inode of an own fd.
    pub(super) fn gfid(&self, fd: Fd) -> Outcome<Gfid> {
        self.table.lock().files.get(&fd).map(|file| file.opener.gfid).ok_or_else(|| Errno::EBADF.into())
    }

    /// Whether the bricks know nothing of it.
    pub(super) fn is_waiting(&self, fd: Fd) -> bool {
        self.table.lock().waiting.contains(&fd)
    }

    /// The child's fd for any fd; an own one is opened if it is not.
    pub(super) async fn resolve(self: &Arc<Self>, fd: Fd) -> Outcome<Fd> {
        if !is_own(fd) {
            return Ok(fd);
        }
        let opening = self.open(fd).ok_or(Errno::EBADF)?;
        opening.await
    }

    /// Takes an own fd out; what is left is to close the child's, when the opening comes to one.
    pub(super) fn remove(&self, fd: Fd) -> Outcome<Option<Opening>> {
        let mut table = self.table.lock();
        table.waiting.remove(&fd);
        table.files.remove(&fd).map(|file| file.opening).ok_or_else(|| Errno::EBADF.into())
    }

    /// Opens all that wait and lets none wait until the guard is dropped. A file that cannot be opened goes on waiting.
    pub(super) async fn open_all(self: &Arc<Self>) -> NoneWaits {
        let waiting: Vec<Fd> = {
            let mut table = self.table.lock();
            table.removals += 1;
            table.waiting.iter().copied().collect()
        };
        let guard = NoneWaits(Arc::clone(self));
        if !waiting.is_empty() {
            let opening = waiting.into_iter().filter_map(|fd| self.open(fd));
            stream::iter(opening).buffer_unordered(OPENS_MAX).for_each(|_| std::future::ready(())).await;
        }
        guard
    }

    /// Begins to open, or joins who has begun; `None` for an fd that is not there. It runs in a task of its own: when
    /// the caller goes away, the child's fd must still be known.
    fn open(self: &Arc<Self>, fd: Fd) -> Option<Opening> {
        let mut table = self.table.lock();
        let table = &mut *table;
        let file = table.files.get_mut(&fd)?;
        if let Some(opening) = &file.opening {
            return Some(opening.clone());
        }
        let (fds, opener) = (Arc::clone(self), file.opener.clone());
        let task = tokio::spawn(async move {
            let Opener { ctx, gfid, flags, xdata } = opener;
            let opened = fds.child.fop(&ctx, Open { gfid, flags, xdata }).await;
            if opened.is_err() {
                fds.wait_again(fd);
            }
            opened.map(|reply| reply.fd)
        });
        let opening = async move { task.await.unwrap_or_else(|_| Err(Errno::EIO.into())) }.boxed().shared();
        file.opening = Some(opening.clone());
        table.waiting.remove(&fd);
        Some(opening)
    }

    /// The next who needs it tries again.
    fn wait_again(&self, fd: Fd) {
        let mut table = self.table.lock();
        let table = &mut *table;
        if let Some(file) = table.files.get_mut(&fd) {
            file.opening = None;
            table.waiting.insert(fd);
        }
    }
}

/// While it lives, opens are not deferred.
pub(super) struct NoneWaits(Arc<Fds>);

impl Drop for NoneWaits {
    fn drop(&mut self) {
        self.0.table.lock().removals -= 1;
    }
}
