//! One brick as a layer, and the task that keeps it connected.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use futures::StreamExt as _;
use mortar_logic::locks::Book;
use mortar_types::fop::{AckReply, Create, Fd, Open, Opendir, Release, Releasedir};
use mortar_types::{Context, Dict, Errno, Fops, Outcome, Reply, Request, Upcall, UpcallSink};
use mortar_wire::callback::Callback;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::client::State;
use crate::client::backoff::Backoff;
use crate::client::connect::{self, ConnectError, Ready};
use crate::client::fds::{Fds, Generation, OpenFile, fds_of, may_be_anonymous};
use crate::client::link::{Link, LinkEvents};
use crate::client::locks::gfid_of;
use crate::client::options::Options;

/// A connection that lasted so long counts as a success: the next attempt after it is immediate.
const STABLE_AFTER: Duration = Duration::from_secs(1);

/// Linux's open flag. It is for caches on the way; to a brick it would mean its own disk's alignment rules
/// (GlusterFS's `filter-O_DIRECT`, here always).
const O_DIRECT: u32 = 0o40_000;
/// Files opened again at a time; below a brick's limit of outstanding calls.
const REOPENS_AT_A_TIME: usize = 32;

/// One brick. Connects by itself from the moment it is made; dropping it ends the connection.
pub struct BrickClient {
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl std::fmt::Debug for BrickClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BrickClient").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

impl BrickClient {
    /// Must be called within a tokio runtime.
    pub fn new(options: Options) -> Arc<Self> {
        let shared = Arc::new(Shared {
            name: options.name.clone(),
            options: ArcSwap::from_pointee(options),
            link: ArcSwapOption::empty(),
            fds: Mutex::new(Fds::default()),
            locks: Mutex::default(),
            sink: Mutex::new(None),
            state: watch::Sender::new(State::Connecting),
            volume_id: Mutex::new(None),
            generations: AtomicU64::new(0),
            hurry: Notify::new(),
        });
        let task = tokio::spawn(keep_connected(Arc::clone(&shared)));
        Arc::new(Self { shared, task })
    }

    /// How far the connection is, and every change of it.
    pub fn state(&self) -> watch::Receiver<State> {
        self.shared.state.subscribe()
    }

    /// Why it is not up; `None` when it is, or before the first attempt has ended.
    pub fn last_error(&self) -> Option<ConnectError> {
        match &*self.shared.state.borrow() {
            State::Down(error) => Some(error.clone()),
            State::Connecting | State::Up => None,
        }
    }

    /// The volume that the brick belongs to, once it has told.
    pub fn volume_id(&self) -> Option<Uuid> {
        *self.shared.volume_id.lock()
    }

    /// Whether `options` describe the brick that this is the connection to, as the same client.
    pub fn leads_to(&self, options: &Options) -> bool {
        let own = self.shared.options.load();
        (&own.host, &own.subvolume, &own.subdir) == (&options.host, &options.subvolume, &options.subdir)
    }

    /// Takes new options. They count from the next connection on; when they lead to another brick, or change how
    /// silence is judged, the connection is made anew at once.
    pub fn reconfigure(&self, options: Options) {
        let old = self.shared.options.swap(Arc::new(options));
        let new = self.shared.options.load();
        let way = |options: &Options| {
            let Options { host, subvolume, port, glusterd_port, ping_timeout, .. } = options;
            (host.clone(), subvolume.clone(), *port, *glusterd_port, *ping_timeout)
        };
        if way(&old) != way(&new) {
            self.reconnect();
        }
        self.shared.hurry.notify_one();
    }

    /// Ends the connection, if there is one, and makes it anew. It is down when this returns.
    pub fn reconnect(&self) {
        if let Some(link) = self.shared.link.load_full() {
            link.connection.close();
            self.shared.link_closed(link.generation, "closed here");
        }
    }

    /// Tries to connect now instead of waiting for the next attempt's time.
    pub fn hurry(&self) {
        self.shared.hurry.notify_one();
    }
}

impl Drop for BrickClient {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(link) = self.shared.link.load_full() {
            link.connection.close();
        }
    }
}

#[async_trait]
impl Fops for BrickClient {
    async fn call(&self, ctx: &Context, request: Request) -> Outcome<Reply> {
        self.shared.call(ctx, request).await
    }

    /// Tells the new sink at once what is known.
    fn subscribe(&self, sink: Arc<dyn UpcallSink>) {
        let mut slot = self.shared.sink.lock();
        let state = self.shared.state.borrow().clone();
        match state {
            State::Up => sink.upcall(Upcall::Up),
            State::Down(_) => sink.upcall(Upcall::Down),
            State::Connecting => {}
        }
        *slot = Some(sink);
    }

    fn is_up(&self) -> bool {
        *self.shared.state.borrow() == State::Up
    }

    fn compounds(&self) -> bool {
        self.shared.link.load().as_ref().is_some_and(|link| link.compounds)
    }

    fn name(&self) -> &str {
        &self.shared.name
    }
}

pub(super) struct Shared {
    pub(super) name: String,
    options: ArcSwap<Options>,
    /// Set from SETVOLUME and the files' reopening to the end of the connection.
    link: ArcSwapOption<Link>,
    pub(super) fds: Mutex<Fds>,
    /// The POSIX locks that the brick has granted, to be taken again on the next connection.
    pub(super) locks: Mutex<Book>,
    /// Held while an up or down is told, so that they are told in order.
    sink: Mutex<Option<Arc<dyn UpcallSink>>>,
    state: watch::Sender<State>,
    volume_id: Mutex<Option<Uuid>>,
    generations: AtomicU64,
    /// Ends the wait before the next attempt.
    hurry: Notify,
}

impl Shared {
    async fn call(self: &Arc<Self>, ctx: &Context, mut request: Request) -> Outcome<Reply> {
        let link = self.link.load_full();
        if let Request::Release(Release { fd, .. }) | Request::Releasedir(Releasedir { fd, .. }) = &request {
            self.locks.lock().release(gfid_of(&request), *fd);
            return release(&self.fds, link.as_deref(), *fd).await;
        }
        let link = link.ok_or(Errno::ENOTCONN)?;
        match &request {
            Request::Open(_) | Request::Opendir(_) | Request::Create(_) => {
                if let Request::Open(Open { flags, .. }) | Request::Create(Create { flags, .. }) = &mut request {
                    *flags &= !O_DIRECT;
                }
                self.open(link, ctx, request).await
            }
            Request::Lk(_) | Request::Flush(_) => self.lock(&link, ctx, request).await,
            _ => {
                self.translate(&mut request, link.generation)?;
                link.call(ctx, &request).await
            }
        }
    }

    /// Puts the connection's fds in the place of ours.
    pub(super) fn translate(&self, request: &mut Request, generation: Generation) -> Outcome<()> {
        let kind = request.kind();
        for fd in fds_of(request).into_iter().flatten().filter(|fd| !fd.is_anonymous()) {
            let fds = self.fds.lock();
            *fd = match fds.on_wire(*fd, generation) {
                _ if fds.has_lost_lock(*fd) => return Err(Errno::EBADFD.into()),
                Some(wire) => wire,
                None if may_be_anonymous(kind) => Fd::ANONYMOUS,
                None => return Err(Errno::EBADFD.into()),
            };
        }
        Ok(())
    }

    /// Opens and registers. When the caller goes away meanwhile, the answer is awaited all the same and the file closed
    /// again: the brick would keep it open as long as the connection lasts.
    async fn open(self: &Arc<Self>, link: Arc<Link>, ctx: &Context, request: Request) -> Outcome<Reply> {
        let (shared, ctx) = (Arc::clone(self), ctx.clone());
        let opening = async move {
            let mut reply = link.call(&ctx, &request).await?;
            let (file, fd) = match (&request, &mut reply) {
                (Request::Open(Open { gfid, flags, .. }), Reply::OpenReply(reply)) => {
                    (OpenFile::file(*gfid, *flags), &mut reply.fd)
                }
                (Request::Opendir(Opendir { gfid, .. }), Reply::OpenReply(reply)) => {
                    (OpenFile::directory(*gfid), &mut reply.fd)
                }
                (Request::Create(Create { flags, .. }), Reply::CreateReply(reply)) => {
                    (OpenFile::file(reply.stat.gfid, *flags), &mut reply.fd)
                }
                _ => return Err(Errno::EPROTO.into()),
            };
            *fd = shared.fds.lock().insert(file, link.generation, *fd).map_err(|_| Errno::ENOTCONN)?;
            Ok(reply)
        };
        FinishOnDrop { opening: Some(Box::pin(opening)), shared: Arc::clone(self) }.await
    }

    pub(super) fn callback(&self, generation: Generation, callback: Callback) {
        let Some(upcall) = callback.into_upcall() else { return };
        match upcall {
            // The brick process is there, its brick comes and goes.
            Upcall::Up => self.child_up(generation),
            Upcall::Down => self.child_down(generation, ConnectError::ChildDown),
            other => {
                let sink = self.sink.lock().clone();
                if let Some(sink) = sink {
                    sink.upcall(other);
                }
            }
        }
    }

    /// The connection can be used: fops may go, and if the brick serves, the layer above hears of it. `false` when the
    /// connection has ended already.
    fn publish(&self, link: Arc<Link>, child_up: bool) -> bool {
        let sink = self.sink.lock();
        if link.connection.is_closed() {
            return false;
        }
        self.link.store(Some(link));
        if child_up {
            self.tell_up(sink.as_deref());
        } else {
            self.tell_down(sink.as_deref(), ConnectError::ChildDown);
        }
        true
    }

    fn tell_up(&self, sink: Option<&dyn UpcallSink>) {
        if self.state.send_replace(State::Up) != State::Up {
            tracing::info!(brick = %self.name, "brick is up");
            if let Some(sink) = sink {
                sink.upcall(Upcall::Up);
            }
        }
    }

    /// Also told when the first attempt fails: the layer above need not wait for this brick.
    fn tell_down(&self, sink: Option<&dyn UpcallSink>, error: ConnectError) {
        let reason = error.to_string();
        let before = self.state.send_replace(State::Down(error));
        if !matches!(before, State::Down(_)) {
            tracing::info!(brick = %self.name, %reason, "brick is down");
            if let Some(sink) = sink {
                sink.upcall(Upcall::Down);
            }
        }
    }

    fn is_current(&self, generation: Generation) -> bool {
        self.link.load().as_ref().is_some_and(|link| link.generation == generation)
    }

    fn child_up(&self, generation: Generation) {
        let sink = self.sink.lock();
        if self.is_current(generation) {
            self.tell_up(sink.as_deref());
        }
    }

    fn child_down(&self, generation: Generation, error: ConnectError) {
        let sink = self.sink.lock();
        if self.is_current(generation) {
            self.tell_down(sink.as_deref(), error);
        }
    }

    pub(super) fn link_closed(&self, generation: Generation, reason: &str) {
        let sink = self.sink.lock();
        if let Some(link) = self.link.load_full().filter(|link| link.generation == generation) {
            self.link.store(None);
            let broken = ConnectError::Broken { endpoint: link.endpoint.clone(), reason: reason.to_owned() };
            self.tell_down(sink.as_deref(), broken);
        }
    }

    fn attempt_failed(&self, error: ConnectError) {
        tracing::debug!(brick = %self.name, %error, "no connection");
        let sink = self.sink.lock();
        self.tell_down(sink.as_deref(), error);
    }

    /// Opens on a fresh connection what was open on the one before (`client-handshake.c: client_post_handshake`).
    async fn reopen(&self, link: &Link) {
        let files = self.fds.lock().begin(link.generation);
        futures::stream::iter(files)
            .for_each_concurrent(REOPENS_AT_A_TIME, |(fd, file)| async move {
                let wire = match link.call(&Context::default(), &open_request(file)).await {
                    Ok(Reply::OpenReply(reply)) => Some(reply.fd),
                    other => {
                        tracing::warn!(brick = %self.name, gfid = %file.gfid, ?other, "a file was not opened again");
                        None
                    }
                };
                let kept = self.fds.lock().reopened(fd, link.generation, wire);
                if kept {
                    self.lock_again(link, file.gfid, fd, wire).await;
                }
                if let (false, Some(wire)) = (kept, wire) {
                    close_on_wire(link, file, wire).await;
                }
            })
            .await;
    }
}

fn open_request(file: OpenFile) -> Request {
    let (gfid, xdata) = (file.gfid, Some(Dict::new()));
    match file.flags {
        Some(flags) => Open { gfid, flags, xdata }.into(),
        None => Opendir { gfid, xdata }.into(),
    }
}

/// Forgets a file and closes it on the brick. There is no way to fail: the brick forgets it at the latest when the
/// connection ends.
async fn release(fds: &Mutex<Fds>, link: Option<&Link>, fd: Fd) -> Outcome<Reply> {
    let closed = fds.lock().remove(fd);
    if let (Some(closed), Some(link)) = (closed, link)
        && let Some(wire) = closed.on_wire(link.generation)
    {
        close_on_wire(link, closed.file, wire).await;
    }
    Ok(AckReply { xdata: None }.into())
}

/// RELEASE in the name of no process, as GlusterFS sends it. Nothing can be done about a failure.
async fn close_on_wire(link: &Link, file: OpenFile, fd: Fd) {
    let (gfid, xdata) = (file.gfid, Some(Dict::new()));
    let request: Request = match file.flags {
        Some(_) => Release { gfid, fd, xdata }.into(),
        None => Releasedir { gfid, fd, xdata }.into(),
    };
    if let Err(error) = link.call(&Context::default(), &request).await {
        tracing::debug!(%gfid, %error, "release failed");
    }
}

type Opening = Pin<Box<dyn Future<Output = Outcome<Reply>> + Send>>;

/// Waits for an open; dropped before its end, it sees to it that the file is closed.
struct FinishOnDrop {
    opening: Option<Opening>,
    shared: Arc<Shared>,
}

impl Future for FinishOnDrop {
    type Output = Outcome<Reply>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let Some(opening) = self.opening.as_mut() else {
            return Poll::Ready(Err(Errno::EIO.into()));
        };
        let polled = opening.as_mut().poll(cx);
        if polled.is_ready() {
            self.opening = None;
        }
        polled
    }
}

impl Drop for FinishOnDrop {
    fn drop(&mut self) {
        let (Some(opening), Ok(runtime)) = (self.opening.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let shared = Arc::clone(&self.shared);
        runtime.spawn(async move {
            let fd = match opening.await {
                Ok(Reply::OpenReply(reply)) => reply.fd,
                Ok(Reply::CreateReply(reply)) => reply.fd,
                _ => return,
            };
            // Cannot fail.
            let _ = release(&shared.fds, shared.link.load_full().as_deref(), fd).await;
        });
    }
}

/// Connects, waits for the end, connects again, until the client is dropped.
async fn keep_connected(shared: Arc<Shared>) {
    let mut backoff = Backoff::default();
    loop {
        let generation = Generation(shared.generations.fetch_add(1, Ordering::Relaxed) + 1);
        let (ended_sender, mut ended) = watch::channel(None);
        let events = LinkEvents { shared: Arc::downgrade(&shared), generation, ended: ended_sender };
        let options = shared.options.load_full();
        let volume_id = *shared.volume_id.lock();
        let wait = match connect::connect(&options, generation.0 - 1, volume_id, Arc::new(events)).await {
            Ok(ready) => {
                let since = Instant::now();
                use_connection(&shared, ready, generation, &mut ended).await;
                if since.elapsed() >= STABLE_AFTER {
                    backoff.succeeded();
                }
                backoff.next(None)
            }
            Err(error) => {
                let wait = backoff.next(Some(&error));
                shared.attempt_failed(error);
                wait
            }
        };
        // An error: the time has passed.
        let _ = tokio::time::timeout(wait, shared.hurry.notified()).await;
    }
}

async fn use_connection(
    shared: &Arc<Shared>,
    ready: Ready,
    generation: Generation,
    ended: &mut watch::Receiver<Option<String>>,
) {
    if let Some(id) = ready.volume_id {
        shared.volume_id.lock().get_or_insert(id);
    }
    let Ready { connection, endpoint, child_up, compounds, .. } = ready;
    let link = Arc::new(Link::new(connection, generation, endpoint, compounds));
    shared.reopen(&link).await;
    if shared.publish(Arc::clone(&link), child_up) {
        // The sender lives in the connection's task, which ends by telling why.
        let _ = ended.wait_for(Option::is_some).await;
    } else {
        let reason = ended.borrow().clone().unwrap_or_default();
        shared.attempt_failed(ConnectError::Broken { endpoint: link.endpoint.clone(), reason });
    }
}
