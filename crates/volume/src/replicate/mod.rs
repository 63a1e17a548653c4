//! Replication: GlusterFS's AFR on the wire and on disk, with kept locks.
//!
//! Every change reads top to bottom: order among own operations, lock, mark, do, judge, record who missed it, answer.
//! What is decided is decided by [`mortar_logic::replicate`]. Locks are kept over many operations and given back when
//! another client wants them ([`kept`]), so in the steady state a change is one parallel round trip.
//!
//! Invariants: an acknowledged change is on a good copy (a quorum, if configured) and everybody who missed it is accused
//! on those who have it; a child accused of missing contents is not read; a dirty mark stands only under a lock or
//! awaits a heal; no guard of a blocking mutex is held over an await.

mod children;
mod compound;
mod data;
mod entry;
mod fds;
mod gate;
mod hints;
mod inode;
mod kept;
mod list;
mod locks;
mod lookup;
mod metadata;
mod misc;
mod names;
mod open;
mod options;
mod pending;
mod read;
pub(crate) mod route;
#[cfg(test)]
mod tests;
mod tries;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use bytes::Bytes;
use mortar_logic::replicate::Set;
use mortar_logic::replicate::quorum::Quorum;
use mortar_types::fop::{AckReply, Getxattr};
use mortar_types::{Context, Errno, Fops, Gfid, Outcome, Reply, Request, SubvolId, Upcall, UpcallSink, keys};
use parking_lot::Mutex;
use tokio::sync::watch;

use children::Children;
use data::{Burst, Change};
use fds::Fds;
use gate::Range;
use hints::Hints;
use inode::Inodes;
use kept::LockKind;
use pending::Pending;

use crate::unbroken::Unbroken;

pub use options::{Options, OptionsError};

/// How long operations wait for the other children when the first one is back after all were down.
const RESETTLE_MAX: std::time::Duration = std::time::Duration::from_secs(1);

/// Told when copies disagree, so that somebody heals them. Called on the path of operations: must not block.
pub trait HealHook: Send + Sync {
    /// `gfid` may be null when only the name is known, `name` empty when only the inode is.
    fn suspect(&self, gfid: Gfid, parent: Gfid, name: &Bytes);
}

/// The replicate layer.
pub struct Replicate {
    core: Arc<Core>,
}

struct Core {
    options: Options,
    /// The domain of this layer's locks: its name.
    domain: Bytes,
    children: Children,
    /// Children without contents.
    arbiters: Option<Set>,
    inodes: Inodes,
    fds: Fds,
    hints: Hints,
    pending: Pending,
    kept_count: AtomicUsize,
    next_owner: AtomicU64,
    /// The child on this node, once known.
    local: OnceLock<SubvolId>,
    /// Becomes true when every child has told whether it is up, or the wait for it is over.
    settled: watch::Sender<bool>,
    sink: ArcSwapOption<SinkSlot>,
    /// Serialises what is told upwards, so that Up and Down arrive in order.
    telling: Mutex<bool>,
    hook: ArcSwapOption<HookSlot>,
    runtime: tokio::runtime::Handle,
}

struct SinkSlot(Arc<dyn UpcallSink>);
struct HookSlot(Arc<dyn HealHook>);

impl Replicate {
    /// A layer over `subvolumes` (at least one), in the order of the options' keys. Must be called within a tokio
    /// runtime: what must outlive a caller runs as tasks there.
    ///
    /// # Panics
    ///
    /// When the number of subvolumes is not that of the keys: [`Options::from_volfile`] has checked it.
    pub fn new(options: Options, subvolumes: Vec<Arc<dyn Fops>>) -> Arc<Self> {
        assert_eq!(options.keys.pending.len(), subvolumes.len(), "one pending key per subvolume");
        let children = Children::new(subvolumes);
        let count = children.len();
        let arbiters = (options.arbiter_count > 0).then(|| {
            let first = count.saturating_sub(options.arbiter_count);
            Set::from_fn(count, |id| id.0 >= first)
        });
        let core = Arc::new(Core {
            domain: Bytes::from(options.name.clone()),
            arbiters,
            inodes: Inodes::default(),
            fds: Fds::default(),
            hints: Hints::default(),
            pending: Pending::default(),
            kept_count: AtomicUsize::new(0),
            next_owner: data::owner_base(),
            local: OnceLock::new(),
            settled: watch::Sender::new(children.all_heard_of()),
            sink: ArcSwapOption::empty(),
            telling: Mutex::new(children.any_up()),
            hook: ArcSwapOption::empty(),
            runtime: tokio::runtime::Handle::current(),
            children,
            options,
        });
        for id in core.children.ids() {
            core.children.get(id).subscribe(Arc::new(ChildSink { core: Arc::downgrade(&core), id }));
            if core.children.is_up(id) {
                core.find_local(id);
            } else if core.children.get(id).is_up() {
                core.child_event(id, true);
            }
        }
        if !*core.settled.borrow() {
            core.settle_in(core.options.settle);
        }
        Arc::new(Self { core })
    }

    /// Connects a healer; the latest one counts.
    pub fn set_heal_hook(&self, hook: Arc<dyn HealHook>) {
        self.core.hook.store(Some(Arc::new(HookSlot(hook))));
    }

    /// Gives back every kept lock and clears what stands under it: before unmounting, and whenever nothing must be
    /// left on the bricks. Returns when the bricks have confirmed or are gone.
    pub async fn quiesce(&self) {
        for inode in self.core.inodes.all() {
            for kind in [LockKind::Data, LockKind::Metadata, LockKind::Entry] {
                if !inode.kept(kind).is_free() {
                    self.core.give_back_now(&inode, kind).await;
                }
            }
        }
    }

    /// The options it runs with.
    pub fn options(&self) -> &Options {
        &self.core.options
    }
}

#[async_trait]
impl Fops for Replicate {
    async fn call(&self, ctx: &Context, request: Request) -> Outcome<Reply> {
        self.core.settle().await;
        if is_change(&request) {
            // A change that has begun must be judged and recorded even when its caller is gone.
            let (core, ctx) = (Arc::clone(&self.core), ctx.clone());
            return Unbroken::new(&self.core.runtime, async move { core.change(&ctx, request).await }).await;
        }
        if let Request::Lk(request) = request {
            let abandoned = Arc::new(AtomicBool::new(false));
            let _guard = SetOnDrop(Arc::clone(&abandoned));
            let (core, ctx) = (Arc::clone(&self.core), ctx.clone());
            let task = self.core.runtime.spawn(async move { core.lk(&ctx, request, &abandoned).await });
            return task.await.unwrap_or(Err(Errno::EIO.into()));
        }
        self.core.observe(ctx, request).await
    }

    fn subscribe(&self, sink: Arc<dyn UpcallSink>) {
        self.core.sink.store(Some(Arc::new(SinkSlot(sink))));
    }

    fn is_up(&self) -> bool {
        self.core.children.any_up()
    }

    fn name(&self) -> &str {
        &self.core.options.name
    }
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// What runs in a task of its own.
const fn is_change(request: &Request) -> bool {
    request.kind().is_change()
        || matches!(
            request,
            Request::Open(_)
                | Request::Opendir(_)
                | Request::Fsync(_)
                | Request::Release(_)
                | Request::Releasedir(_)
                | Request::Inodelk(_)
                | Request::Finodelk(_)
                | Request::Entrylk(_)
                | Request::Fentrylk(_)
        )
}

impl Core {
    /// Requests that change nothing on the bricks.
    async fn observe(self: &Arc<Self>, ctx: &Context, request: Request) -> Outcome<Reply> {
        match request {
            Request::Lookup(request) => self.lookup(ctx, request).await,
            Request::Stat(ref r) => self.read(ctx, r.gfid, request).await,
            Request::Fstat(ref r) => self.read(ctx, r.gfid, request).await,
            Request::Access(ref r) => self.read(ctx, r.gfid, request).await,
            Request::Readlink(ref r) => self.read(ctx, r.gfid, request).await,
            Request::Read(ref r) => self.read(ctx, r.gfid, request).await,
            Request::Seek(ref r) => self.read(ctx, r.gfid, request).await,
            Request::Rchecksum(ref r) => self.read(ctx, r.gfid, request).await,
            Request::Getxattr(request) => self.getxattr(ctx, request).await,
            Request::Fgetxattr(ref r) => {
                if r.name.as_ref().is_some_and(|name| misc::is_private_xattr(name)) && !ctx.pid.is_internal() {
                    return Err(Errno::ENODATA.into());
                }
                let gfid = r.gfid;
                self.hide_private(ctx, self.read(ctx, gfid, request).await)
            }
            Request::Readdir(ref r) => self.list(ctx, r.gfid, r.fd, r.offset, request).await,
            Request::Readdirp(ref r) => self.list(ctx, r.gfid, r.fd, r.offset, request).await,
            Request::Flush(request) => self.flush(ctx, request).await,
            Request::Fsyncdir(ref r) => self.fsyncdir(ctx, r.fd, &request).await,
            Request::Statfs(_) => self.statfs(ctx, &request).await,
            Request::Ipc(_) => self.tell_all(ctx, &request).await,
            _ => Err(Errno::ENOSYS.into()),
        }
    }

    /// Requests that must be finished once begun.
    async fn change(self: &Arc<Self>, ctx: &Context, mut request: Request) -> Outcome<Reply> {
        match request {
            Request::Create(_)
            | Request::Mknod(_)
            | Request::Mkdir(_)
            | Request::Symlink(_)
            | Request::Link(_)
            | Request::Unlink(_)
            | Request::Rmdir(_)
            | Request::Rename(_) => self.change_entry(ctx, request).await,
            Request::Write(ref mut r) => {
                data::ask_contention(&mut r.xdata, &self.domain);
                let (gfid, offset, len) = (r.gfid, r.offset, r.data.len() as u64);
                let flags = r.flags;
                let fd = self.open_fd(r.fd)?;
                let flags = flags | fd.as_ref().map_or(0, |open| open.flags);
                let appends = flags & fds::O_APPEND != 0;
                let range = if appends { Range::ALL } else { Range::of(offset, len) };
                let burst = Burst::Write { durable: flags & fds::O_DSYNC != 0 };
                let inode = self.inodes.get(gfid);
                self.change_data(ctx, Change { request, inode, fd, source_fd: None, range, burst }).await
            }
            Request::Truncate(ref r) => {
                let (gfid, range) = (r.gfid, Range::from(r.offset));
                self.change_contents(ctx, gfid, range, false, request).await
            }
            Request::Ftruncate(ref r) => {
                let (gfid, range) = (r.gfid, Range::from(r.offset));
                self.change_contents(ctx, gfid, range, false, request).await
            }
            Request::Fallocate(ref r) => {
                let (gfid, range) = (r.gfid, Range::of(r.offset, r.size));
                self.change_contents(ctx, gfid, range, true, request).await
            }
            Request::Discard(ref r) => {
                let (gfid, range) = (r.gfid, Range::of(r.offset, r.size));
                self.change_contents(ctx, gfid, range, true, request).await
            }
            Request::Zerofill(ref r) => {
                let (gfid, range) = (r.gfid, Range::of(r.offset, r.size));
                self.change_contents(ctx, gfid, range, true, request).await
            }
            Request::CopyFileRange(ref r) => {
                let (gfid, range) = (r.gfid_out, Range::of(r.offset_out, r.size.into()));
                self.change_contents(ctx, gfid, range, true, request).await
            }
            Request::Fsync(request) => self.fsync(ctx, request).await,
            Request::Setattr(ref r) => self.change_attributes(ctx, r.gfid, request).await,
            Request::Fsetattr(ref r) => self.change_attributes(ctx, r.gfid, request).await,
            Request::Setxattr(ref r) => {
                refuse_private(r.dict.as_ref().into_iter().flat_map(mortar_types::Dict::keys), ctx)?;
                self.change_attributes(ctx, r.gfid, request).await
            }
            Request::Fsetxattr(ref r) => {
                refuse_private(r.dict.as_ref().into_iter().flat_map(mortar_types::Dict::keys), ctx)?;
                self.change_attributes(ctx, r.gfid, request).await
            }
            Request::Removexattr(ref r) => {
                refuse_private(std::str::from_utf8(&r.name).ok().into_iter(), ctx)?;
                self.change_attributes(ctx, r.gfid, request).await
            }
            Request::Fremovexattr(ref r) => {
                refuse_private(std::str::from_utf8(&r.name).ok().into_iter(), ctx)?;
                self.change_attributes(ctx, r.gfid, request).await
            }
            Request::Xattrop(ref r) => self.change_attributes(ctx, r.gfid, request).await,
            Request::Fxattrop(ref r) => self.change_attributes(ctx, r.gfid, request).await,
            Request::Open(request) => self.open(ctx, request).await,
            Request::Opendir(ref r) => self.opendir(ctx, r.gfid, &request).await,
            Request::Release(r) => self.close(r.fd),
            Request::Releasedir(r) => self.close(r.fd),
            Request::Inodelk(_) | Request::Finodelk(_) | Request::Entrylk(_) | Request::Fentrylk(_) => {
                self.pass_lock(ctx, request).await
            }
            // AFR knows none of the rest either (ICREATE, NAMELINK, PUT).
            _ => Err(Errno::ENOSYS.into()),
        }
    }

    async fn change_contents(
        self: &Arc<Self>,
        ctx: &Context,
        gfid: Gfid,
        range: Range,
        flush: bool,
        request: Request,
    ) -> Outcome<Reply> {
        let fd = match route::fd_of(&request) {
            Some(fd) => self.open_fd(fd)?,
            None => None,
        };
        let source_fd = match &request {
            Request::CopyFileRange(copy) => self.open_fd(copy.fd_in)?,
            _ => None,
        };
        let burst = Burst::Alone { flush };
        self.change_data(ctx, Change { request, inode: self.inodes.get(gfid), fd, source_fd, range, burst }).await
    }

    async fn change_attributes(self: &Arc<Self>, ctx: &Context, gfid: Gfid, request: Request) -> Outcome<Reply> {
        let fd = match route::fd_of(&request) {
            Some(fd) => self.open_fd(fd)?,
            None => None,
        };
        self.change_metadata(ctx, request, self.inodes.get(gfid), fd).await
    }

    async fn getxattr(self: &Arc<Self>, ctx: &Context, request: Getxattr) -> Outcome<Reply> {
        let gfid = request.gfid;
        if let Some(name) = &request.name {
            if misc::is_private_xattr(name) && !ctx.pid.is_internal() {
                return Err(Errno::ENODATA.into());
            }
            if let Some(key) = misc::pathinfo_key(name) {
                return self.pathinfo(ctx, key, &request.into()).await;
            }
            if name.starts_with(b"glusterfs.clrlk.") {
                return self.tell_all(ctx, &request.into()).await;
            }
        }
        self.hide_private(ctx, self.read(ctx, gfid, request.into()).await)
    }

    fn hide_private(&self, ctx: &Context, outcome: Outcome<Reply>) -> Outcome<Reply> {
        outcome.map(|mut reply| {
            if let Reply::DictReply(reply) = &mut reply
                && !ctx.pid.is_internal()
            {
                self.strip_counters(&mut reply.dict);
            }
            reply
        })
    }

    fn close(self: &Arc<Self>, fd: mortar_types::Fd) -> Outcome<Reply> {
        self.release_fd(fd);
        Ok(AckReply { xdata: None }.into())
    }

    fn nobody(&self) -> Set {
        Set::filled(self.children.len(), false)
    }

    fn check_quorum(&self, members: &Set) -> Outcome<()> {
        if self.options.quorum.is_met(members) { Ok(()) } else { Err(Quorum::ERRNO.into()) }
    }

    fn preferred(&self) -> Option<SubvolId> {
        self.options.read_subvolume.or_else(|| self.local.get().copied())
    }

    fn suspect(&self, gfid: Gfid, parent: Gfid, name: &Bytes) {
        if let Some(hook) = &*self.hook.load() {
            hook.0.suspect(gfid, parent, name);
        }
    }

    /// Waits for children that are still connecting for the first time.
    async fn settle(&self) {
        if *self.settled.borrow() {
            return;
        }
        let mut settled = self.settled.subscribe();
        // The sender lives as long as this layer.
        drop(settled.wait_for(|settled| *settled).await);
    }

    fn settle_in(self: &Arc<Self>, time: std::time::Duration) {
        let core = Arc::downgrade(self);
        self.runtime.spawn(async move {
            tokio::time::sleep(time).await;
            if let Some(core) = core.upgrade() {
                core.settled.send_replace(true);
            }
        });
    }

    fn child_event(self: &Arc<Self>, id: SubvolId, up: bool) {
        let first_again = up && !self.children.any_up();
        self.children.set_up(id, up);
        if up {
            self.find_local(id);
        }
        if first_again && *self.settled.borrow() {
            // All were down: the others come back in a moment, and must not be taken for dead meanwhile.
            self.children.expect_all_again();
            self.settled.send_replace(false);
            self.settle_in(self.options.settle.min(RESETTLE_MAX));
        }
        if self.children.all_heard_of() {
            self.settled.send_replace(true);
        }
        let mut told_up = self.telling.lock();
        let now_up = self.children.any_up();
        if *told_up != now_up {
            *told_up = now_up;
            self.tell(if now_up { Upcall::Up } else { Upcall::Down });
        }
    }

    fn tell(&self, upcall: Upcall) {
        if let Some(sink) = &*self.sink.load() {
            sink.0.upcall(upcall);
        }
    }

    /// Whether the child's brick is on this node, by the host in its pathinfo (`afr/afr-common.c` afr_local_discovery_cbk).
    fn find_local(self: &Arc<Self>, id: SubvolId) {
        if !self.options.choose_local || self.local.get().is_some() {
            return;
        }
        let core = Arc::clone(self);
        self.runtime.spawn(async move {
            let name = Some(Bytes::from_static(keys::PATHINFO.as_bytes()));
            let request = Getxattr { gfid: Gfid::ROOT, name, xdata: None };
            let Ok(reply) = core.children.get(id).fop(&Context::default(), request).await else { return };
            let Some(info) = reply.dict.as_ref().and_then(|dict| dict.get_str(keys::PATHINFO)) else { return };
            if pathinfo_host(info).is_some_and(|host| Some(host) == own_host().as_deref()) {
                // The first local child stays the choice.
                core.local.get_or_init(|| id);
            }
        });
    }

    fn upcall(self: &Arc<Self>, id: SubvolId, upcall: Upcall) {
        match upcall {
            Upcall::Up => self.child_event(id, true),
            Upcall::Down => self.child_event(id, false),
            Upcall::InodelkContention { gfid, flock, domain } => {
                let is_metadata = flock.start == locks::METADATA_START;
                let ours = domain == self.domain
                    || domain.strip_suffix(b":metadata").is_some_and(|domain| domain == &self.domain[..]);
                if ours && let Some(inode) = self.inodes.peek(gfid) {
                    let kind = if is_metadata { LockKind::Metadata } else { LockKind::Data };
                    self.contention(&inode, kind);
                }
            }
            Upcall::EntrylkContention { gfid, domain, .. } => {
                if domain == self.domain
                    && let Some(inode) = self.inodes.peek(gfid)
                {
                    self.contention(&inode, LockKind::Entry);
                }
            }
            Upcall::CacheInvalidation { gfid, ref xdata, .. } => {
                let counters_moved =
                    xdata.as_ref().is_some_and(|dict| dict.keys().any(|key| key.starts_with(keys::XATTR_AFR_PREFIX)));
                if counters_moved && let Some(inode) = self.inodes.peek(gfid) {
                    inode.forget();
                }
                self.tell(upcall);
            }
            Upcall::RecallLease { .. } => self.tell(upcall),
        }
    }
}

fn refuse_private<'a>(mut names: impl Iterator<Item = &'a str>, ctx: &Context) -> Outcome<()> {
    if !ctx.pid.is_internal() && names.any(|name| misc::is_private_xattr(name.as_bytes())) {
        return Err(Errno::EPERM.into());
    }
    Ok(())
}

/// `HOST` of `<POSIX(BRICK):HOST:PATH>`. A brick path may hold colons, a host name does not.
fn pathinfo_host(info: &str) -> Option<&str> {
    info.split_once("):")?.1.split(':').next()
}

fn own_host() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned())
}

/// Hears one child. Weak: the layer must be able to go while its children stay.
struct ChildSink {
    core: Weak<Core>,
    id: SubvolId,
}

impl UpcallSink for ChildSink {
    fn upcall(&self, upcall: Upcall) {
        if let Some(core) = self.core.upgrade() {
            core.upcall(self.id, upcall);
        }
    }
}
