//! The subvolumes of the layer at one time: who is up, how full, and how to ask several at once.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::{OptionFuture, join_all};
use mortar_logic::distribute::space::Usage;
use mortar_types::fop::Statfs;
use mortar_types::{Context, Errno, Fop, Fops, Gfid, Outcome, Reply, Request, SubvolId, SubvolMap};
use parking_lot::Mutex;

use super::Options;

/// How long a subvolume's free space is believed (`dht-diskusage.c` dht_get_du_info).
const USAGE_AGE_MAX: Duration = Duration::from_secs(1);

/// A subvolume. Survives changes of the set that it is in.
pub(super) struct Subvol {
    pub(super) fops: Arc<dyn Fops>,
    pub(super) name: String,
    up: AtomicBool,
    usage: Mutex<Option<(Instant, Usage)>>,
}

impl Subvol {
    pub(super) fn new(fops: Arc<dyn Fops>) -> Arc<Self> {
        let up = AtomicBool::new(fops.is_up());
        Arc::new(Self { name: fops.name().to_owned(), up, usage: Mutex::new(None), fops })
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// Whether it changed anything.
    pub(super) fn set_up(&self, up: bool) -> bool {
        self.up.swap(up, Ordering::AcqRel) != up
    }

    pub(super) async fn fop<F: Fop>(&self, ctx: &Context, request: F) -> Outcome<F::Reply> {
        self.fops.fop(ctx, request).await
    }

    pub(super) async fn call(&self, ctx: &Context, request: Request) -> Outcome<Reply> {
        self.fops.call(ctx, request).await
    }

    /// What it has left; asked now when what is known is older than a second. `None`: it does not say.
    pub(super) async fn usage(&self) -> Option<Usage> {
        let known = *self.usage.lock();
        if let Some((at, usage)) = known
            && at.elapsed() < USAGE_AGE_MAX
        {
            return Some(usage);
        }
        let statfs = Statfs { gfid: Gfid::ROOT, xdata: None };
        match self.fop(&Context::default(), statfs).await {
            Ok(reply) => {
                let usage = Usage::of(&reply.statfs);
                *self.usage.lock() = Some((Instant::now(), usage));
                Some(usage)
            }
            Err(_) => known.map(|(_, usage)| usage),
        }
    }
}

/// The layer's subvolumes and options from one change of its graph to the next.
pub(super) struct Subvols {
    all: SubvolMap<Arc<Subvol>>,
    pub(super) options: Options,
}

pub(super) type Replies<T> = SubvolMap<Option<Outcome<T>>>;

impl Subvols {
    pub(super) fn new(all: Vec<Arc<Subvol>>, options: Options) -> Self {
        Self { all: all.into(), options }
    }

    pub(super) const fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = SubvolId> + use<> {
        (0..self.all.len()).map(SubvolId)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SubvolId, &Arc<Subvol>)> {
        self.all.iter()
    }

    pub(super) fn get(&self, id: SubvolId) -> &Arc<Subvol> {
        &self.all[id]
    }

    pub(super) fn by_name(&self, name: &str) -> Option<SubvolId> {
        self.all.iter().find(|(_, subvol)| subvol.name == name).map(|(id, _)| id)
    }

    pub(super) fn id_of(&self, subvol: &Arc<Subvol>) -> Option<SubvolId> {
        self.all.iter().find(|(_, known)| Arc::ptr_eq(known, subvol)).map(|(id, _)| id)
    }

    pub(super) fn is_decommissioned(&self, id: SubvolId) -> bool {
        self.options.decommissioned.contains(&self.all[id].name)
    }

    pub(super) fn any_up(&self) -> bool {
        self.all.iter().any(|(_, subvol)| subvol.is_up())
    }

    pub(super) fn all_up(&self) -> bool {
        self.all.iter().all(|(_, subvol)| subvol.is_up())
    }

    pub(super) fn first_up(&self) -> Option<SubvolId> {
        self.all.iter().find(|(_, subvol)| subvol.is_up()).map(|(id, _)| id)
    }

    /// Asks everybody whom `wanted` says, at once.
    pub(super) async fn each<T, F>(
        &self,
        wanted: impl Fn(SubvolId) -> bool,
        mut ask: impl FnMut(SubvolId, Arc<Subvol>) -> F,
    ) -> SubvolMap<Option<T>>
    where
        F: Future<Output = T>,
    {
        let asked =
            self.all.iter().map(|(id, subvol)| OptionFuture::from(wanted(id).then(|| ask(id, Arc::clone(subvol)))));
        join_all(asked.collect::<Vec<_>>()).await.into()
    }

    /// One and the same request to everybody whom `wanted` says.
    pub(super) async fn broadcast<F: Fop + Clone>(
        &self,
        ctx: &Context,
        wanted: impl Fn(SubvolId) -> bool,
        request: &F,
    ) -> Replies<F::Reply> {
        self.each(wanted, |_, subvol| {
            let request = request.clone();
            async move { subvol.fop(ctx, request).await }
        })
        .await
    }
}

/// The failure that says most: anything before "not there", that before "no connection"; ENOTCONN when nobody was asked.
pub(super) fn worst<'a>(errnos: impl IntoIterator<Item = &'a Errno>) -> Errno {
    let rank = |errno: &Errno| match *errno {
        Errno::ENOENT | Errno::ESTALE => 1,
        Errno::ENOTCONN => 2,
        _ => 3,
    };
    errnos.into_iter().copied().max_by_key(rank).unwrap_or(Errno::ENOTCONN)
}

/// The errnos among replies.
pub(super) fn errnos<T>(replies: &Replies<T>) -> Vec<Errno> {
    let errno = |reply: &Option<Outcome<T>>| match reply {
        Some(Err(failure)) => Some(failure.errno),
        _ => None,
    };
    replies.iter().filter_map(|(_, reply)| errno(reply)).collect()
}
