//! The subvolumes of a replica set: who is up, and how to ask several at once.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use futures::future::{OptionFuture, join_all};
use mortar_logic::liveness::Latency;
use mortar_logic::replicate::Set;
use mortar_logic::replicate::read_child::Load;
use mortar_types::{Context, Fops, Outcome, Reply, Request, SubvolId, SubvolMap};
use parking_lot::Mutex;

pub(super) struct Children {
    all: SubvolMap<Child>,
    /// Counts every child's coming and going: what was learnt under an older one may have changed.
    generation: AtomicU64,
}

struct Child {
    fops: Arc<dyn Fops>,
    up: AtomicBool,
    /// Has told whether it is up at least once since the last time that all were down.
    heard_of: AtomicBool,
    /// How often it went down: locks and marks belong to one epoch.
    epoch: AtomicU64,
    reads_pending: AtomicU32,
    /// Of reads.
    latency: Mutex<Latency>,
}

impl Children {
    pub(super) fn new(subvolumes: Vec<Arc<dyn Fops>>) -> Self {
        let child = |fops: Arc<dyn Fops>| Child {
            up: AtomicBool::new(fops.is_up()),
            heard_of: AtomicBool::new(fops.is_up()),
            epoch: AtomicU64::new(0),
            reads_pending: AtomicU32::new(0),
            latency: Mutex::default(),
            fops,
        };
        let all: Vec<Child> = subvolumes.into_iter().map(child).collect();
        Self { all: all.into(), generation: AtomicU64::new(1) }
    }

    pub(super) const fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = SubvolId> + use<> {
        (0..self.all.len()).map(SubvolId)
    }

    pub(super) fn get(&self, id: SubvolId) -> &Arc<dyn Fops> {
        &self.all[id].fops
    }

    pub(super) fn up(&self) -> Set {
        self.all.map(|_, child| child.up.load(Ordering::Acquire))
    }

    pub(super) fn any_up(&self) -> bool {
        self.all.iter().any(|(_, child)| child.up.load(Ordering::Acquire))
    }

    /// Whether no child is still making its first connection.
    pub(super) fn all_heard_of(&self) -> bool {
        self.all.iter().all(|(_, child)| child.heard_of.load(Ordering::Acquire))
    }

    pub(super) fn is_up(&self, id: SubvolId) -> bool {
        self.all[id].up.load(Ordering::Acquire)
    }

    pub(super) fn epoch(&self, id: SubvolId) -> u64 {
        self.all[id].epoch.load(Ordering::Acquire)
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn load(&self) -> SubvolMap<Load> {
        self.all.map(|_, child| Load {
            reads_pending: child.reads_pending.load(Ordering::Relaxed),
            latency_us: child.latency.lock().mean_us(),
        })
    }

    /// Records a child's event; whether it changed anything.
    pub(super) fn set_up(&self, id: SubvolId, up: bool) -> bool {
        let child = &self.all[id];
        child.heard_of.store(true, Ordering::Release);
        if !up {
            child.epoch.fetch_add(1, Ordering::AcqRel);
        }
        let changed = child.up.swap(up, Ordering::AcqRel) != up;
        self.generation.fetch_add(1, Ordering::AcqRel);
        changed
    }

    /// Asks every child in `targets` at once and waits for all of them.
    pub(super) async fn each<T, F>(&self, targets: &Set, mut ask: impl FnMut(SubvolId) -> F) -> SubvolMap<Option<T>>
    where
        F: Future<Output = T>,
    {
        let asked = targets.ids().map(|id| OptionFuture::from(targets[id].then(|| ask(id))));
        join_all(asked).await.into()
    }

    /// One and the same request to every child in `targets`.
    pub(super) async fn broadcast(
        &self,
        ctx: &Context,
        targets: &Set,
        request: &Request,
    ) -> SubvolMap<Option<Outcome<Reply>>> {
        self.each(targets, |id| self.get(id).call(ctx, request.clone())).await
    }

    /// After a time without any child: who is still down may be on its way back too.
    pub(super) fn expect_all_again(&self) {
        for (_, child) in self.all.iter() {
            child.heard_of.store(child.up.load(Ordering::Acquire), Ordering::Release);
        }
    }

    /// A child has answered a read after so long.
    pub(super) fn answered(&self, id: SubvolId, took: Duration) {
        self.all[id].latency.lock().record(took);
    }

    /// From when on its answer to a read is late.
    pub(super) fn late_after(&self, id: SubvolId) -> Duration {
        self.all[id].latency.lock().late_after()
    }

    /// A read at one child, counted while it runs.
    pub(super) async fn read(&self, ctx: &Context, id: SubvolId, request: Request) -> Outcome<Reply> {
        let _pending = Pending::new(&self.all[id].reads_pending);
        self.get(id).call(ctx, request).await
    }
}

struct Pending<'a>(&'a AtomicU32);

impl<'a> Pending<'a> {
    fn new(counter: &'a AtomicU32) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
