//! Distribution: one namespace over several subvolumes, as GlusterFS's DHT does it on the wire and on disk.
//!
//! A name belongs to the subvolume whose range of its directory's layout holds the name's hash. Directories are on all
//! subvolumes; a file is on one, and when that is not where its name belongs a link file there says which. What is
//! decided is decided by [`mortar_logic::distribute`]; what is remembered ([`known`]) may be outdated, and whoever uses
//! it notices and asks again. With one subvolume every request is handed through.
//!
//! Invariants: a file's data is removed or replaced only under its own name, after what was found under that name has
//! been seen; a name that may be on a subvolume that does not answer is not reported missing; callers see neither link
//! files nor this layer's xattrs; no guard of a blocking mutex is held over an await.

mod admin;
mod attempts;
mod attributes;
mod create;
mod dir;
mod directories;
mod fds;
mod file;
mod heal;
mod known;
mod list;
mod lock;
mod lookup;
mod options;
mod remove;
mod rename;
mod rename_dir;
mod single;
mod subvols;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use mortar_types::{Context, Errno, Fops, Outcome, Reply, Request, Upcall, UpcallSink, keys};
use parking_lot::Mutex;
use rand::RngExt;

pub use admin::Located;
pub use options::{Options, OptionsError};

use fds::{Fds, is_own};
use known::Memories;
use subvols::{Subvol, Subvols};

use crate::unbroken::Unbroken;

/// The distribute layer.
pub struct Distribute {
    core: Arc<Core>,
}

struct Core {
    name: String,
    /// What requests work with; one that has begun goes on with the set that it began with.
    set: ArcSwap<Subvols>,
    /// Counts what makes remembered layouts worthless: other subvolumes, a subvolume that came back.
    generation: AtomicU64,
    /// The only subvolume, if there was only one at first: its fds were handed through.
    only: OnceLock<Arc<Subvol>>,
    memories: Memories,
    fds: Fds,
    volume_commit: Mutex<Option<dir::VolumeCommit>>,
    next_owner: AtomicU64,
    sink: ArcSwapOption<SinkSlot>,
    /// Serialises what is told upwards.
    telling: Mutex<bool>,
    runtime: tokio::runtime::Handle,
}

struct SinkSlot(Arc<dyn UpcallSink>);

impl Distribute {
    /// A layer over `subvolumes` (at least one), in the volfile's order; their names are what link files say. Must be
    /// called within a tokio runtime: what must outlive a caller runs as tasks there.
    pub fn new(name: impl Into<String>, subvolumes: Vec<Arc<dyn Fops>>, options: Options) -> Arc<Self> {
        let all: Vec<Arc<Subvol>> = subvolumes.into_iter().map(Subvol::new).collect();
        let only = OnceLock::new();
        if let [one] = &all[..] {
            let _ = only.set(Arc::clone(one));
        }
        let set = Subvols::new(all.clone(), options);
        let core = Arc::new(Core {
            name: name.into(),
            telling: Mutex::new(set.any_up()),
            set: ArcSwap::from_pointee(set),
            generation: AtomicU64::new(1),
            only,
            memories: Memories::default(),
            fds: Fds::default(),
            volume_commit: Mutex::new(None),
            // Another client's process must not be taken for this one.
            next_owner: AtomicU64::new(rand::rng().random::<u64>() | 1 << 63),
            sink: ArcSwapOption::empty(),
            runtime: tokio::runtime::Handle::current(),
        });
        for subvol in &all {
            core.follow(subvol);
        }
        Arc::new(Self { core })
    }

    /// Works with other subvolumes or options from now on. Subvolumes that stay are those handed in again; files open on
    /// others stay open there until closed. Requests under way finish with the old set.
    pub fn reconfigure(&self, subvolumes: Vec<Arc<dyn Fops>>, options: Options) {
        let core = &self.core;
        let old = core.set();
        let known = |fops: &Arc<dyn Fops>| {
            old.iter().find(|(_, subvol)| Arc::ptr_eq(&subvol.fops, fops)).map(|(_, subvol)| Arc::clone(subvol))
        };
        let mut fresh = Vec::new();
        let all = subvolumes.into_iter().map(|fops| {
            known(&fops).unwrap_or_else(|| {
                let subvol = Subvol::new(fops);
                fresh.push(Arc::clone(&subvol));
                subvol
            })
        });
        let all: Vec<Arc<Subvol>> = all.collect();
        core.set.store(Arc::new(Subvols::new(all, options)));
        core.generation.fetch_add(1, Ordering::AcqRel);
        *core.volume_commit.lock() = None;
        for subvol in &fresh {
            core.follow(subvol);
        }
        core.tell();
    }

    /// The subvolumes of now, in the volfile's order.
    pub fn subvolumes(&self) -> Vec<Arc<dyn Fops>> {
        self.core.set().iter().map(|(_, subvol)| Arc::clone(&subvol.fops)).collect()
    }

    /// The options of now.
    pub fn options(&self) -> Options {
        self.core.set().options.clone()
    }
}

#[async_trait]
impl Fops for Distribute {
    async fn call(&self, ctx: &Context, request: Request) -> Outcome<Reply> {
        let set = self.core.set();
        if let Some(only) = self.core.hands_through(&set, &request) {
            return single::call(only, ctx, request).await;
        }
        drop(set);
        if !ctx.pid.is_internal() && single::changes_layout(&request) {
            return Err(Errno::EPERM.into());
        }
        if changes_names(&request) {
            // Several steps: they are finished even when the caller is gone.
            let (core, ctx) = (Arc::clone(&self.core), ctx.clone());
            return Unbroken::new(&self.core.runtime, async move { core.perform(&ctx, request).await }).await;
        }
        self.core.perform(ctx, request).await
    }

    fn subscribe(&self, sink: Arc<dyn UpcallSink>) {
        self.core.sink.store(Some(Arc::new(SinkSlot(sink))));
    }

    fn is_up(&self) -> bool {
        self.core.set().any_up()
    }

    fn name(&self) -> &str {
        &self.core.name
    }
}

const fn changes_names(request: &Request) -> bool {
    matches!(
        request,
        Request::Create(_)
            | Request::Mknod(_)
            | Request::Symlink(_)
            | Request::Link(_)
            | Request::Mkdir(_)
            | Request::Unlink(_)
            | Request::Rmdir(_)
            | Request::Rename(_)
            | Request::Setattr(_)
            | Request::Setxattr(_)
            | Request::Removexattr(_)
    )
}

impl Core {
    fn set(&self) -> Arc<Subvols> {
        self.set.load_full()
    }

    /// The subvolume that gets requests as they are: the only one, unless the request has an fd of the layer's own.
    fn hands_through<'s>(&self, set: &'s Subvols, request: &Request) -> Option<&'s Arc<Subvol>> {
        if set.len() != 1 {
            return None;
        }
        let (_, first) = set.iter().next()?;
        let same = self.only.get().is_some_and(|only| Arc::ptr_eq(only, first));
        let own = crate::replicate::route::fd_of(request).is_some_and(is_own);
        (same && !own).then_some(first)
    }

    async fn perform(self: &Arc<Self>, ctx: &Context, request: Request) -> Outcome<Reply> {
        match request {
            Request::Lookup(request) => self.lookup(ctx, request).await,
            Request::Create(request) => self.create(ctx, request).await,
            Request::Mknod(_) | Request::Symlink(_) => self.make(ctx, request).await,
            Request::Link(request) => self.link(ctx, request).await,
            Request::Mkdir(request) => self.mkdir(ctx, request).await,
            Request::Unlink(request) => self.unlink(ctx, request).await,
            Request::Rmdir(request) => self.rmdir(ctx, request).await,
            Request::Rename(request) => self.rename(ctx, request).await,
            Request::Opendir(request) => self.opendir(ctx, &request).await,
            Request::Readdir(request) => self.readdir(ctx, request).await,
            Request::Readdirp(request) => self.readdirp(ctx, request).await,
            Request::Fsyncdir(request) => self.fsyncdir(ctx, request).await,
            Request::Release(ref r) => self.release(ctx, r.fd, request).await,
            Request::Releasedir(ref r) => self.release(ctx, r.fd, request).await,
            Request::Statfs(request) => self.statfs(ctx, &request).await,
            Request::Setattr(request) => self.setattr(ctx, request).await,
            Request::Fsetattr(request) => self.fsetattr(ctx, request).await,
            Request::Setxattr(request) => self.setxattr(ctx, request).await,
            Request::Removexattr(request) => self.removexattr(ctx, request).await,
            Request::Getxattr(request) => self.getxattr(ctx, request).await,
            Request::Stat(request) => self.stat(ctx, request).await,
            Request::Access(ref r) => self.on_any(ctx, r.gfid, request).await,
            Request::Xattrop(ref r) => self.on_any(ctx, r.gfid, request).await,
            Request::Inodelk(ref r) => self.on_any(ctx, r.gfid, request).await,
            Request::Entrylk(ref r) => self.on_any(ctx, r.gfid, request).await,
            Request::Ipc(request) => self.ipc(ctx, &request).await,
            Request::CopyFileRange(request) => self.copy_file_range(ctx, request).await,
            other => self.on_file(ctx, other).await,
        }
    }

    /// Hears of a subvolume from now on.
    fn follow(self: &Arc<Self>, subvol: &Arc<Subvol>) {
        let sink = ChildSink { core: Arc::downgrade(self), subvol: Arc::downgrade(subvol) };
        subvol.fops.subscribe(Arc::new(sink));
        // It may have changed its mind before it was listened to.
        subvol.set_up(subvol.fops.is_up());
        self.tell();
    }

    fn child_event(&self, subvol: &Subvol, up: bool) {
        if subvol.set_up(up) && up {
            // Directories may have changed while it was away.
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        self.tell();
    }

    /// Tells the layer above when the first subvolume comes or the last one goes.
    fn tell(&self) {
        let mut told = self.telling.lock();
        let up = self.set().any_up();
        if *told == up {
            return;
        }
        *told = up;
        self.upcall(if up { Upcall::Up } else { Upcall::Down });
    }

    fn upcall(&self, upcall: Upcall) {
        if let Some(sink) = self.sink.load_full() {
            sink.0.upcall(upcall);
        }
    }
}

struct ChildSink {
    core: Weak<Core>,
    subvol: Weak<Subvol>,
}

impl UpcallSink for ChildSink {
    fn upcall(&self, upcall: Upcall) {
        let (Some(core), Some(subvol)) = (self.core.upgrade(), self.subvol.upgrade()) else { return };
        match upcall {
            Upcall::Up => core.child_event(&subvol, true),
            Upcall::Down => core.child_event(&subvol, false),
            other => core.upcall(other),
        }
    }
}

/// Work of the layer's own: as root, whoever asked for what made it necessary.
fn internal(ctx: &Context) -> Context {
    Context { time: ctx.time, time_flags: ctx.time_flags, ..Context::internal(ctx.pid) }
}

/// Whether an xattr is the layer's own.
fn is_own_key(key: &str) -> bool {
    key.starts_with(keys::XATTR_DHT)
}

fn strip_own_keys(xdata: &mut Option<mortar_types::Dict>) {
    if let Some(xdata) = xdata {
        xdata.retain(|key, _| !is_own_key(key));
    }
}
