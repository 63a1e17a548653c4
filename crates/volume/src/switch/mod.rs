//! The top of a mounted volume: changes over to another graph while applications go on (docs/adr/0006).
//!
//! An operation passes a gate and goes to the graph of the moment. To change over, the gate is closed, those inside end,
//! and everything that is open or locked is opened and locked in the new graph before the gate opens again: so at any
//! time one graph works, and what an application sees is one operation that took a little longer. Only waits for POSIX
//! locks are not waited for: they go on in the graph where they began, and are taken over when they end.
//!
//! Callers must not drop an operation's future before it has ended: its rest would go on unseen by the gate.

mod files;
mod follow;
mod gate;
mod listing;
mod locks;
mod takeover;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use mortar_logic::locks::Book;
use mortar_types::fop::{AckReply, Getxattr, LockCmd, LockType};
use mortar_types::{Context, Errno, Fd, Fops, Gfid, Outcome, Reply, Request, Upcall, UpcallSink, keys};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::client::fds_of;
use crate::graph::Graph;
use files::{Binding, File, Files};
use gate::Gate;

pub use takeover::{Limits, TakeError, Taken};

/// The layer above all graphs of a volume.
pub struct Switch {
    core: Arc<Core>,
    /// One changes over at a time.
    taking: tokio::sync::Mutex<()>,
    limits: Limits,
}

struct Core {
    name: String,
    graph: ArcSwap<Graph>,
    gate: Gate,
    files: Files,
    /// The POSIX locks that applications hold, by the fds of this layer.
    locks: Mutex<Book>,
    sink: ArcSwapOption<Above>,
    /// Where the newest volfile is asked for, while somebody follows it.
    refreshes: ArcSwapOption<mpsc::Sender<follow::Refresh>>,
    /// Counts graphs: only the upcalls of the latest go on.
    serial: AtomicU64,
}

struct Above(Arc<dyn UpcallSink>);

impl Switch {
    pub fn new(graph: Graph, limits: Limits) -> Arc<Self> {
        let core = Arc::new(Core {
            name: graph.top.name().to_owned(),
            graph: ArcSwap::from_pointee(graph),
            gate: Gate::default(),
            files: Files::default(),
            locks: Mutex::default(),
            sink: ArcSwapOption::empty(),
            refreshes: ArcSwapOption::empty(),
            serial: AtomicU64::new(0),
        });
        core.listen_to(&core.graph.load().top);
        Arc::new(Self { core, taking: tokio::sync::Mutex::default(), limits })
    }

    /// The graph of the moment.
    pub fn graph(&self) -> Arc<Graph> {
        self.core.graph.load_full()
    }
}

#[async_trait]
impl Fops for Switch {
    async fn call(&self, ctx: &Context, request: Request) -> Outcome<Reply> {
        match request {
            Request::Lk(lk) if lk.cmd == LockCmd::SetWait && lk.kind != LockType::Unlock => {
                self.core.wait_for_lock(ctx, lk).await
            }
            Request::Getxattr(Getxattr { name: Some(name), .. }) if &name[..] == keys::REFRESH.as_bytes() => {
                self.core.refresh().await
            }
            request => {
                let _pass = self.core.gate.enter().await;
                self.core.perform(ctx, request).await
            }
        }
    }

    fn subscribe(&self, sink: Arc<dyn UpcallSink>) {
        self.core.sink.store(Some(Arc::new(Above(sink))));
    }

    fn is_up(&self) -> bool {
        self.core.graph.load().top.is_up()
    }

    fn name(&self) -> &str {
        &self.core.name
    }
}

impl Core {
    fn top(&self) -> Arc<dyn Fops> {
        Arc::clone(&self.graph.load().top)
    }

    /// To be called inside the gate.
    async fn perform(self: &Arc<Self>, ctx: &Context, mut request: Request) -> Outcome<Reply> {
        let top = self.top();
        match request {
            Request::Open(ref r) => {
                let (gfid, flags) = (r.gfid, Some(r.flags));
                let mut reply = top.call(ctx, request).await?;
                if let Reply::OpenReply(reply) = &mut reply {
                    reply.fd = self.opened(&top, gfid, flags, reply.fd);
                }
                Ok(reply)
            }
            Request::Opendir(ref r) => {
                let gfid = r.gfid;
                let mut reply = top.call(ctx, request).await?;
                if let Reply::OpenReply(reply) = &mut reply {
                    reply.fd = self.opened(&top, gfid, None, reply.fd);
                }
                Ok(reply)
            }
            Request::Create(ref r) => {
                let flags = Some(r.flags);
                let mut reply = top.call(ctx, request).await?;
                if let Reply::CreateReply(reply) = &mut reply {
                    reply.fd = self.opened(&top, reply.stat.gfid, flags, reply.fd);
                }
                Ok(reply)
            }
            Request::Release(r) => self.close(ctx, r.gfid, r.fd).await,
            Request::Releasedir(r) => self.close(ctx, r.gfid, r.fd).await,
            Request::Readdir(ref r) => self.list(&top, ctx, r.fd, request).await,
            Request::Readdirp(ref r) => self.list(&top, ctx, r.fd, request).await,
            Request::Lk(r) => self.lock(&top, ctx, r).await,
            Request::Flush(ref r) => {
                let gfid = r.gfid;
                self.translate(&top, &mut request).await?;
                let outcome = top.call(ctx, request).await;
                self.locks.lock().flush(gfid, &ctx.lk_owner);
                outcome
            }
            _ => {
                self.translate(&top, &mut request).await?;
                top.call(ctx, request).await
            }
        }
    }

    fn opened(&self, top: &Arc<dyn Fops>, gfid: Gfid, flags: Option<u32>, fd: Fd) -> Fd {
        self.files.insert(File::opened(top, gfid, flags, fd))
    }

    async fn close(&self, ctx: &Context, gfid: Gfid, fd: Fd) -> Outcome<Reply> {
        let file = self.files.remove(fd).ok_or(Errno::EBADF)?;
        self.locks.lock().release(gfid, fd);
        let binding = file.binding();
        drop(file);
        binding.close(ctx).await?;
        Ok(AckReply { xdata: None }.into())
    }

    async fn list(
        self: &Arc<Self>,
        top: &Arc<dyn Fops>,
        ctx: &Context,
        fd: Fd,
        mut request: Request,
    ) -> Outcome<Reply> {
        self.translate(top, &mut request).await?;
        match self.files.get(fd) {
            Some(file) => listing::list(&file.listing, top, ctx, request).await,
            None => top.call(ctx, request).await,
        }
    }

    /// Puts the fds of the graph in the place of ours.
    async fn translate(self: &Arc<Self>, top: &Arc<dyn Fops>, request: &mut Request) -> Outcome<()> {
        for fd in fds_of(request).into_iter().flatten().filter(|fd| !fd.is_anonymous()) {
            *fd = self.binding(top, *fd).await?.fd;
        }
        Ok(())
    }

    /// Where one of our fds is open in the graph of `top`; opened now if it could not be when that took over.
    async fn binding(self: &Arc<Self>, top: &Arc<dyn Fops>, fd: Fd) -> Outcome<Arc<Binding>> {
        let file = self.files.get(fd).ok_or(Errno::EBADF)?;
        let binding = file.binding();
        if binding.is_in(top) { Ok(binding) } else { self.take_over(top, fd, &file).await }
    }

    fn listen_to(self: &Arc<Self>, top: &Arc<dyn Fops>) {
        let serial = self.serial.fetch_add(1, Ordering::AcqRel) + 1;
        top.subscribe(Arc::new(Below { core: Arc::downgrade(self), serial }));
    }

    fn tell(&self, upcall: Upcall) {
        if let Some(above) = &*self.sink.load() {
            above.0.upcall(upcall);
        }
    }
}

/// Hears one graph.
struct Below {
    core: Weak<Core>,
    serial: u64,
}

impl UpcallSink for Below {
    fn upcall(&self, upcall: Upcall) {
        if let Some(core) = self.core.upgrade()
            && core.serial.load(Ordering::Acquire) == self.serial
        {
            core.tell(upcall);
        }
    }
}
