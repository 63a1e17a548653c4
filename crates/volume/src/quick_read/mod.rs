//! Small files in one round trip (GlusterFS's `performance/quick-read` and `performance/open-behind`).
//!
//! A lookup also brings the contents of a small file; open, read and close of it are then answered here. The bricks
//! learn of the open file when something needs it there: a lock, a read after the contents may not be believed any more,
//! or, before it happens, the removal of a name, after which it could not be opened.
//!
//! What is kept is believed for `cache-timeout`, as the kernel believes entries and attributes, and by this client never
//! across a change of its own.

mod cache;
mod deferred;
mod names;
mod options;
mod requests;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use mortar_types::fop::{
    AckReply, Fstat, Lookup, Open, OpenReply, Read, ReadReply, Readdirp, Release, Stat, StatReply,
};
use mortar_types::{Context, Dict, Fd, Fops, Gfid, Iatt, Outcome, Reply, Request, Upcall, UpcallSink, Value, keys};
use parking_lot::Mutex;
use tokio::time::Instant;

use cache::Cache;
#[cfg(test)]
pub(crate) use deferred::is_own as is_deferred;
use deferred::{Fds, Opener, is_own};
use names::{Hint, Names};
pub use options::Options;

/// Inodes remembered as locked, 16 bytes each.
const LOCKED_MAX: usize = 65_536;

/// The layer.
pub struct QuickRead {
    core: Arc<Core>,
}

struct Core {
    child: Arc<dyn Fops>,
    options: Options,
    cache: Cache,
    names: Names,
    fds: Arc<Fds>,
    locked: Locked,
    /// Of the child's fds those that were opened with O_DIRECT.
    direct: Mutex<HashSet<Fd>>,
    sink: ArcSwapOption<Above>,
}

/// Where upcalls go on to.
struct Above(Arc<dyn UpcallSink>);

impl QuickRead {
    /// To be used within a tokio runtime: opens below run as tasks.
    pub fn new(options: Options, child: Arc<dyn Fops>) -> Arc<Self> {
        let core = Arc::new(Core {
            cache: Cache::new(options.cache_bytes_max, options.cache_timeout),
            names: Names::default(),
            fds: Fds::new(Arc::clone(&child)),
            locked: Locked::default(),
            direct: Mutex::default(),
            sink: ArcSwapOption::empty(),
            child,
            options,
        });
        core.child.subscribe(Arc::new(Below(Arc::downgrade(&core))));
        Arc::new(Self { core })
    }
}

#[async_trait]
impl Fops for QuickRead {
    async fn call(&self, ctx: &Context, request: Request) -> Outcome<Reply> {
        let core = &self.core;
        match request {
            Request::Lookup(request) => core.lookup(ctx, request).await,
            Request::Stat(request) => core.stat(ctx, request).await,
            Request::Readdirp(request) => core.readdirp(ctx, request).await,
            Request::Open(request) if requests::may_wait(request.flags) => core.open(ctx, request).await,
            Request::Open(request) if request.flags & requests::O_DIRECT != 0 => core.open_direct(ctx, request).await,
            Request::Read(request) if core.may_serve(request.fd) => core.read(ctx, request).await,
            Request::Fstat(request) if is_own(request.fd) => core.fstat(ctx, request).await,
            Request::Flush(request) if core.fds.is_waiting(request.fd) && !core.locked.contains(request.gfid) => {
                Ok(AckReply { xdata: None }.into())
            }
            Request::Release(request) if is_own(request.fd) => core.release(ctx, request).await,
            request => core.pass(ctx, request).await,
        }
    }

    fn subscribe(&self, sink: Arc<dyn UpcallSink>) {
        self.core.sink.store(Some(Arc::new(Above(sink))));
    }

    fn is_up(&self) -> bool {
        self.core.child.is_up()
    }

    fn name(&self) -> &str {
        &self.core.options.name
    }
}

impl Core {
    async fn lookup(&self, ctx: &Context, mut request: Lookup) -> Outcome<Reply> {
        if request.xdata.as_ref().is_some_and(|xdata| xdata.contains(keys::CONTENT)) {
            // The caller's own business.
            return self.child.call(ctx, request.into()).await;
        }
        let sent = self.cache.sent(Instant::now());
        let name = (!request.name.is_empty()).then(|| (request.parent, request.name.clone()));
        if self.wants_contents(&request) {
            request.xdata.get_or_insert_default().set(keys::CONTENT, Value::Uint(self.options.file_bytes_max));
        }
        let mut reply = match self.child.fop(ctx, request).await {
            Ok(reply) => reply,
            Err(failure) => {
                if let Some((parent, name)) = &name {
                    self.names.forget(*parent, name);
                }
                return Err(failure);
            }
        };
        if let Some((parent, name)) = &name {
            let fits = reply.stat.is_regular() && reply.stat.size <= self.options.file_bytes_max;
            self.names.note(*parent, name, Hint { gfid: reply.stat.gfid, fits });
        }
        self.learn(&reply.stat, reply.xdata.as_mut(), sent);
        Ok(reply.into())
    }

    /// A listing asked with the key of the contents brings them for small files, and the caller does not see them; how
    /// small is decided here.
    async fn readdirp(&self, ctx: &Context, mut request: Readdirp) -> Outcome<Reply> {
        if let Some(xdata) = request.xdata.as_mut().filter(|xdata| xdata.contains(keys::CONTENT)) {
            if self.options.file_bytes_max == 0 {
                xdata.remove(keys::CONTENT);
            } else {
                xdata.set(keys::CONTENT, Value::Uint(self.options.file_bytes_max));
            }
        }
        let sent = self.cache.sent(Instant::now());
        let mut reply = self.child.fop(ctx, request).await?;
        for entry in &mut reply.entries {
            self.learn(&entry.stat, entry.xdata.as_mut(), sent);
        }
        Ok(reply.into())
    }

    /// Not where it is kept already: the attributes in the reply tell whether that is current.
    fn wants_contents(&self, request: &Lookup) -> bool {
        if self.options.file_bytes_max == 0 {
            return false;
        }
        if request.name.is_empty() {
            return !self.cache.contains(request.gfid);
        }
        let hint = self.names.get(request.parent, &request.name);
        hint.is_none_or(|hint| hint.fits && !self.cache.contains(hint.gfid))
    }

    fn learn(&self, stat: &Iatt, xdata: Option<&mut Dict>, sent: cache::Sent) {
        let content = xdata.and_then(|xdata| xdata.remove(keys::CONTENT));
        if !stat.is_regular() || stat.gfid.is_null() {
            return;
        }
        match content.as_ref().and_then(Value::as_bytes) {
            Some(data) if data.len() as u64 <= self.options.file_bytes_max => {
                self.cache.keep(stat, data, sent);
            }
            _ => self.cache.confirm(stat, sent),
        }
    }

    async fn stat(&self, ctx: &Context, request: Stat) -> Outcome<Reply> {
        let sent = self.cache.sent(Instant::now());
        let reply = self.child.fop(ctx, request).await?;
        self.cache.confirm(&reply.stat, sent);
        Ok(reply.into())
    }

    async fn open(&self, ctx: &Context, request: Open) -> Outcome<Reply> {
        if self.options.lazy_open
            && let Some(stat) = self.cache.peek(request.gfid, Instant::now())
            && may_read(ctx, &stat)
        {
            let Open { gfid, flags, xdata } = request.clone();
            if let Some(fd) = self.fds.defer(Opener { ctx: ctx.clone(), gfid, flags, xdata }) {
                return Ok(OpenReply { fd, xdata: None }.into());
            }
        }
        self.child.call(ctx, request.into()).await
    }

    /// Whether reads of it may be served from here. Without lazy opens all are the child's fds; with them, those that
    /// are the child's were opened otherwise than for plain reading, or before there were contents.
    fn may_serve(&self, fd: Fd) -> bool {
        is_own(fd) || !self.options.lazy_open && !self.direct.lock().contains(&fd)
    }

    /// O_DIRECT: what is kept is not for this file.
    async fn open_direct(&self, ctx: &Context, request: Open) -> Outcome<Reply> {
        let mut reply = self.pass(ctx, request.into()).await?;
        if let Reply::OpenReply(reply) = &mut reply {
            self.direct.lock().insert(reply.fd);
        }
        Ok(reply)
    }

    async fn read(&self, ctx: &Context, mut request: Read) -> Outcome<Reply> {
        let gfid = if is_own(request.fd) { self.fds.gfid(request.fd)? } else { request.gfid };
        if let Some((contents, stat)) = self.cache.read(gfid, Instant::now()) {
            let start = usize::try_from(request.offset).unwrap_or(usize::MAX).min(contents.len());
            let end = start.saturating_add(request.size as usize).min(contents.len());
            let eof = end == contents.len();
            return Ok(ReadReply { stat, data: contents.slice(start..end), eof, xdata: None }.into());
        }
        request.fd = self.fds.resolve(request.fd).await?;
        self.child.call(ctx, request.into()).await
    }

    async fn fstat(&self, ctx: &Context, mut request: Fstat) -> Outcome<Reply> {
        let gfid = self.fds.gfid(request.fd)?;
        let sent = self.cache.sent(Instant::now());
        if self.fds.is_waiting(request.fd)
            && let Some(stat) = self.cache.attributes(gfid, Instant::now())
        {
            return Ok(StatReply { stat, xdata: None }.into());
        }
        request.fd = self.fds.resolve(request.fd).await?;
        let reply = self.child.fop(ctx, request).await?;
        self.cache.confirm(&reply.stat, sent);
        Ok(reply.into())
    }

    async fn release(&self, ctx: &Context, mut request: Release) -> Outcome<Reply> {
        let Some(opening) = self.fds.remove(request.fd)? else { return Ok(AckReply { xdata: None }.into()) };
        match opening.await {
            Ok(fd) => {
                request.fd = fd;
                self.child.call(ctx, request.into()).await
            }
            // It never came to be open.
            Err(_) => Ok(AckReply { xdata: None }.into()),
        }
    }

    /// What is done below, with the child's fds; own contents that it changes are dropped.
    async fn pass(&self, ctx: &Context, mut request: Request) -> Outcome<Reply> {
        for fd in requests::fds_of(&mut request).into_iter().flatten() {
            *fd = self.fds.resolve(*fd).await?;
        }
        if requests::removes_a_file(&request) {
            return self.remove(ctx, request).await;
        }
        match &request {
            Request::Lk(request) => self.locked.note(request.gfid),
            // Before the child can give the number to another file.
            Request::Release(request) => drop(self.direct.lock().remove(&request.fd)),
            _ => {}
        }
        let Some(gfid) = requests::changed_by(&request) else {
            let create_flags = if let Request::Create(create) = &request { Some(create.flags) } else { None };
            let reply = self.child.call(ctx, request).await;
            if let (Some(flags), Ok(Reply::CreateReply(reply))) = (create_flags, &reply) {
                if flags & requests::O_DIRECT != 0 {
                    self.direct.lock().insert(reply.fd);
                }
                // It may have been there before, and have been truncated.
                self.cache.forget(reply.stat.gfid, Instant::now());
            }
            return reply;
        };
        let change = Change::begin(&self.cache, [Some(gfid), None]);
        let reply = self.child.call(ctx, request).await;
        change.end();
        reply
    }

    /// A name goes, and its inode perhaps with it: whatever waits to be opened is opened first. All of them, because
    /// which inode the name is now only the bricks know.
    async fn remove(&self, ctx: &Context, request: Request) -> Outcome<Reply> {
        let _none_waits = self.fds.open_all().await;
        let touched = match &request {
            Request::Unlink(r) => [Some((r.parent, r.name.clone())), None],
            Request::Rename(r) => [Some((r.old_parent, r.old_name.clone())), Some((r.new_parent, r.new_name.clone()))],
            Request::Put(r) => [Some((r.parent, r.name.clone())), None],
            _ => [None, None],
        };
        let gfid_of = |place: &Option<(Gfid, bytes::Bytes)>| {
            place.as_ref().and_then(|(parent, name)| self.names.get(*parent, name)).map(|hint| hint.gfid)
        };
        let change = Change::begin(&self.cache, [gfid_of(&touched[0]), gfid_of(&touched[1])]);
        self.cache.names_changed();
        let reply = self.child.call(ctx, request).await;
        self.cache.names_changed();
        change.end();
        for (parent, name) in touched.iter().flatten() {
            self.names.forget(*parent, name);
        }
        reply
    }

    fn upcall(&self, upcall: Upcall) {
        match &upcall {
            Upcall::CacheInvalidation { gfid, .. } => self.cache.forget(*gfid, Instant::now()),
            Upcall::Down | Upcall::Up => self.cache.clear(),
            Upcall::InodelkContention { .. } | Upcall::EntrylkContention { .. } | Upcall::RecallLease { .. } => {}
        }
        if let Some(above) = &*self.sink.load() {
            above.0.upcall(upcall);
        }
    }
}

/// Inodes that POSIX locks were asked for: closing any of their fds gives those of the process back, so a flush must
/// reach the bricks even through an fd that is not open there.
#[derive(Default)]
struct Locked(Mutex<LockedInodes>);

#[derive(Default)]
struct LockedInodes {
    gfids: HashSet<Gfid>,
    /// More than are remembered: any may be.
    too_many: bool,
}

impl Locked {
    fn note(&self, gfid: Gfid) {
        let mut inodes = self.0.lock();
        if inodes.gfids.len() < LOCKED_MAX {
            inodes.gfids.insert(gfid);
        } else {
            inodes.too_many |= !inodes.gfids.contains(&gfid);
        }
    }

    fn contains(&self, gfid: Gfid) -> bool {
        let inodes = self.0.lock();
        inodes.too_many || inodes.gfids.contains(&gfid)
    }
}

/// Own changes of up to two inodes, from before they are sent until they are answered.
struct Change<'a> {
    cache: &'a Cache,
    gfids: [Option<Gfid>; 2],
}

impl<'a> Change<'a> {
    fn begin(cache: &'a Cache, gfids: [Option<Gfid>; 2]) -> Self {
        for gfid in gfids.iter().flatten() {
            cache.begin_change(*gfid);
        }
        Self { cache, gfids }
    }

    fn end(mut self) {
        for gfid in self.gfids.iter_mut().filter_map(Option::take) {
            self.cache.end_change(gfid, Instant::now());
        }
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        for gfid in self.gfids.iter().flatten() {
            self.cache.abandon_change(*gfid, Instant::now());
        }
    }
}

/// Hears the child.
struct Below(Weak<Core>);

impl UpcallSink for Below {
    fn upcall(&self, upcall: Upcall) {
        if let Some(core) = self.0.upgrade() {
            core.upcall(upcall);
        }
    }
}

/// Whether the mode bits let the caller read; where they do not, the bricks decide.
fn may_read(ctx: &Context, stat: &Iatt) -> bool {
    let bit = if ctx.uid == stat.uid {
        0o400
    } else if ctx.gid == stat.gid || ctx.groups.contains(&stat.gid) {
        0o040
    } else {
        0o004
    };
    ctx.uid == 0 || stat.mode & bit != 0
}
