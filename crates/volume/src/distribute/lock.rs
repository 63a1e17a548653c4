//! Locks of distribute on the subvolumes (`dht-lock.c`), in the domains that GlusterFS's clients use.
//!
//! All of a set are first asked for at once without waiting; when one is refused those got are given back and the set
//! is taken one by one in GlusterFS's order, so that nobody waits in a circle. They are given back when dropped; nobody
//! waits for that.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use mortar_types::fop::{Entrylk, EntrylkCmd, EntrylkType, Flock, Inodelk, LockCmd, LockType};
use mortar_types::{Context, Errno, Failure, Gfid, LkOwner, Outcome, Request};
use std::sync::atomic::Ordering;

use super::Core;
use super::subvols::Subvol;

/// Who reads or writes a directory's layout.
pub(super) const LAYOUT_HEAL: &[u8] = b"dht.layout.heal";
/// Who makes or removes a name.
const ENTRY_SYNC: &[u8] = b"dht.entry.sync";
/// Who moves or renames a file.
const FILE_MIGRATE: &[u8] = b"dht.file.migrate";

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Inode { gfid: Gfid, write: bool, domain: &'static [u8] },
    Entry { parent: Gfid, name: Bytes },
}

#[derive(Clone)]
pub(super) struct Ask {
    pub(super) subvol: Arc<Subvol>,
    pub(super) what: What,
}

impl Ask {
    pub(super) const fn layout(subvol: Arc<Subvol>, gfid: Gfid) -> Self {
        Self { subvol, what: What::Inode { gfid, write: true, domain: LAYOUT_HEAL } }
    }

    pub(super) const fn migrate(subvol: Arc<Subvol>, gfid: Gfid) -> Self {
        Self { subvol, what: What::Inode { gfid, write: true, domain: FILE_MIGRATE } }
    }

    /// Keeps a name and the layout that places it as they are: both at the name's hashed subvolume
    /// (dht_protect_namespace).
    pub(super) fn namespace(subvol: &Arc<Subvol>, parent: Gfid, name: &Bytes) -> [Self; 2] {
        let layout = What::Inode { gfid: parent, write: false, domain: LAYOUT_HEAL };
        [
            Self { subvol: Arc::clone(subvol), what: layout },
            Self { subvol: Arc::clone(subvol), what: What::Entry { parent, name: name.clone() } },
        ]
    }

    fn request(&self, step: Step) -> Request {
        match &self.what {
            What::Inode { gfid, write, domain } => {
                let kind = match (step, write) {
                    (Step::Unlock, _) => LockType::Unlock,
                    (_, true) => LockType::Write,
                    (_, false) => LockType::Read,
                };
                let cmd = if step == Step::Wait { LockCmd::SetWait } else { LockCmd::Set };
                let flock = Flock { kind, whence: 0, start: 0, len: 0, pid: 0, owner: LkOwner::default() };
                Inodelk { gfid: *gfid, cmd, kind, flock, domain: Bytes::from_static(domain), xdata: None }.into()
            }
            What::Entry { parent, name } => {
                let cmd = match step {
                    Step::Try => EntrylkCmd::LockNonBlocking,
                    Step::Wait => EntrylkCmd::Lock,
                    Step::Unlock => EntrylkCmd::Unlock,
                };
                let domain = Bytes::from_static(ENTRY_SYNC);
                let (kind, name) = (EntrylkType::Write, Some(name.clone()));
                Entrylk { gfid: *parent, cmd, kind, name, domain, xdata: None }.into()
            }
        }
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.subvol, &other.subvol) && self.what == other.what
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Try,
    Wait,
    Unlock,
}

/// Locks held until dropped.
pub(super) struct Held {
    ctx: Context,
    asks: Vec<Ask>,
    runtime: tokio::runtime::Handle,
}

impl Held {
    fn give_back(&mut self, which: impl Fn(usize) -> bool) -> impl Future<Output = ()> + Send + 'static {
        let asks: Vec<Ask> = std::mem::take(&mut self.asks)
            .into_iter()
            .enumerate()
            .filter(|(at, _)| which(*at))
            .map(|(_, ask)| ask)
            .collect();
        let ctx = self.ctx.clone();
        async move {
            // A subvolume that is gone has dropped them by itself.
            join_all(asks.iter().map(|ask| ask.subvol.call(&ctx, ask.request(Step::Unlock)))).await;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.asks.is_empty() {
            let task = self.give_back(|_| true);
            self.runtime.spawn(task);
        }
    }
}

impl Core {
    /// Takes all of `asks`; their order is the one that everybody keeps.
    pub(super) async fn lock(&self, ctx: &Context, asks: impl IntoIterator<Item = Ask>) -> Outcome<Held> {
        let mut distinct: Vec<Ask> = Vec::new();
        for ask in asks {
            if !distinct.iter().any(|known| known.is(&ask)) {
                distinct.push(ask);
            }
        }
        let owner = LkOwner::from_u64(self.next_owner.fetch_add(1, Ordering::Relaxed));
        let ctx = Context { lk_owner: owner, ..Context::internal(ctx.pid) };
        let held = |asks| Held { ctx: ctx.clone(), asks, runtime: self.runtime.clone() };
        // Dropped half-way, all are unlocked: what was not got is refused, which harms nobody.
        let mut all = held(distinct.clone());
        let tried = join_all(distinct.iter().map(|ask| ask.subvol.call(&ctx, ask.request(Step::Try)))).await;
        let Some(refused) = tried.iter().find_map(|outcome| outcome.as_ref().err()) else { return Ok(all) };
        let refused: Failure = refused.clone();
        let got: Vec<bool> = tried.iter().map(Result::is_ok).collect();
        let only_busy = tried.iter().all(|outcome| outcome.as_ref().err().is_none_or(|f| f.errno == Errno::EAGAIN));
        all.give_back(move |at| got.get(at).copied().unwrap_or(false)).await;
        if !only_busy {
            let failure = tried.into_iter().filter_map(Result::err).find(|failure| failure.errno != Errno::EAGAIN);
            return Err(failure.unwrap_or(refused));
        }
        let mut one_by_one = held(Vec::new());
        for ask in distinct {
            // Known before it is granted: a caller that goes away while waiting must not leave it behind.
            one_by_one.asks.push(ask.clone());
            if let Err(failure) = ask.subvol.call(&ctx, ask.request(Step::Wait)).await {
                one_by_one.asks.pop();
                return Err(failure);
            }
        }
        Ok(one_by_one)
    }
}
