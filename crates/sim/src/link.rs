//! A client's connection to a brick, as `mortar_volume::client` keeps one: it reconnects, opens files again, and fails
//! with ENOTCONN what was under way when it broke.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use mortar_types::fop::{Open, Opendir, Release};
use mortar_types::{ClientId, Context, Errno, Fd, FopKind, Fops, Gfid, Outcome, Reply, Request, Upcall, UpcallSink};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::brick::{Brick, ToLink};
use crate::net::{Net, Pipe};
use crate::plant::Plant;
use crate::rng::Rng;
use crate::trace::Trace;

/// A silent peer is given up after so long.
const SUSPECT_MS: u64 = 1_000;
const CREATING_FLAGS: u32 = 0o100 | 0o200 | 0o1000;

/// How a link behaves.
#[derive(Clone, Copy, Debug)]
pub struct LinkOptions {
    /// The brick takes lock and mark in one message.
    pub compounds: bool,
    /// Requests that were in the socket when the client gave the connection up reach the brick when the network is back
    /// before the brick has noticed.
    pub late_delivery: bool,
    pub plant: Option<Plant>,
}

pub struct Link {
    name: String,
    client: usize,
    brick: Arc<Brick>,
    to: Pipe,
    from: Pipe,
    state: Mutex<State>,
    sink: Mutex<Option<Arc<dyn UpcallSink>>>,
    options: LinkOptions,
    trace: Trace,
    net: Net,
    ended: AtomicBool,
}

struct State {
    up: bool,
    session: Option<ClientId>,
    calls: BTreeMap<u64, oneshot::Sender<Outcome<Reply>>>,
    next_call: u64,
    fds: BTreeMap<i64, OpenFile>,
    next_fd: i64,
    rng: Rng,
    connecting: bool,
}

#[derive(Clone, Copy)]
struct OpenFile {
    gfid: Gfid,
    flags: Option<u32>,
    wire: Option<Fd>,
}

impl Link {
    pub fn new(
        client: usize,
        brick: &Arc<Brick>,
        net: &Net,
        rng: Rng,
        trace: &Trace,
        options: LinkOptions,
    ) -> Arc<Self> {
        let state = State {
            up: false,
            session: None,
            calls: BTreeMap::new(),
            next_call: 0,
            fds: BTreeMap::new(),
            next_fd: 0,
            rng,
            connecting: false,
        };
        let link = Arc::new(Self {
            name: format!("v-client-{}", brick.id),
            client,
            brick: Arc::clone(brick),
            to: Pipe::new(net),
            from: Pipe::new(net),
            state: Mutex::new(state),
            sink: Mutex::new(None),
            options,
            trace: trace.clone(),
            net: net.clone(),
            ended: AtomicBool::new(false),
        });
        link.connect_later(1);
        link
    }

    /// Stalls one or both directions; the peer is suspected after a while.
    pub fn stall(self: &Arc<Self>, to: bool, from: bool) {
        self.note(1, || format!("stalls to={to} from={from}"));
        if to {
            self.to.stall();
        }
        if from {
            self.from.stall();
        }
        let link = Arc::clone(self);
        let session = self.state.lock().session;
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(SUSPECT_MS)).await;
            let same = link.state.lock().session == session;
            if same && (link.to.is_stalled() || link.from.is_stalled()) {
                link.give_up();
            }
        });
    }

    pub fn flow(&self) {
        self.note(2, || "flows".to_owned());
        self.to.flow();
        self.from.flow();
    }

    /// The network resets the connection, or the client gives it up.
    pub fn give_up(self: &Arc<Self>) {
        let session = self.state.lock().session;
        let silent = self.to.is_stalled();
        if !(silent && self.options.late_delivery) {
            self.to.discard();
        }
        self.from.discard();
        self.went_down();
        let Some(session) = session else { return };
        // The brick hears of it at once, or by its own keepalive when the network is silent.
        let wait = if silent { self.state.lock().rng.between(200, 6_000) } else { 1 };
        let brick = Arc::clone(&self.brick);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            brick.disconnect(session);
        });
    }

    /// No more reconnecting: the client is gone.
    pub fn end(self: &Arc<Self>) {
        self.ended.store(true, Ordering::Relaxed);
        self.give_up();
    }

    fn went_down(self: &Arc<Self>) {
        let (was_up, calls) = {
            let mut state = self.state.lock();
            state.session = None;
            for file in state.fds.values_mut() {
                file.wire = None;
            }
            (std::mem::replace(&mut state.up, false), std::mem::take(&mut state.calls))
        };
        if was_up {
            self.note(3, || "is down".to_owned());
            self.tell(Upcall::Down);
        }
        drop(calls);
        let wait = self.state.lock().rng.between(50, 1_500);
        self.connect_later(wait);
    }

    fn connect_later(self: &Arc<Self>, wait_ms: u64) {
        if self.ended.load(Ordering::Relaxed) || std::mem::replace(&mut self.state.lock().connecting, true) {
            return;
        }
        let link = Arc::clone(self);
        tokio::spawn(async move {
            let mut wait = wait_ms;
            loop {
                tokio::time::sleep(Duration::from_millis(wait)).await;
                if link.ended.load(Ordering::Relaxed) {
                    break;
                }
                if !link.to.is_stalled() && !link.from.is_stalled() && link.connect().await {
                    break;
                }
                wait = link.state.lock().rng.between(50, 1_500);
            }
            link.state.lock().connecting = false;
            // It may have broken in the very moment.
            if !link.state.lock().up && !link.ended.load(Ordering::Relaxed) {
                link.connect_later(50);
            }
        });
    }

    /// One attempt: a session, the files opened again on it, and only then up.
    async fn connect(self: &Arc<Self>) -> bool {
        let weak = Arc::downgrade(self);
        let sink = ToLink(move |upcall: Upcall| {
            if let Some(link) = weak.upgrade() {
                let target = Arc::clone(&link);
                link.from.send(move || target.tell(upcall));
            }
        });
        let weak = Arc::downgrade(self);
        let closed = move || {
            if let Some(link) = weak.upgrade() {
                let target = Arc::clone(&link);
                let session = link.state.lock().session;
                // What the brick's kernel had accepted but not sent is lost with it, or comes before the reset.
                link.from.send(move || {
                    if target.state.lock().session == session {
                        target.give_up();
                    }
                });
            }
        };
        let Some(session) = self.brick.connect(Arc::new(sink), closed) else { return false };
        if self.state.lock().rng.chance(10) {
            // The answer is lost: the attempt is made again, and the brick has two sessions for a time.
            let brick = Arc::clone(&self.brick);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(700)).await;
                brick.disconnect(session);
            });
            return false;
        }
        let files: Vec<(i64, OpenFile)> = {
            let mut state = self.state.lock();
            state.session = Some(session);
            state.fds.iter().map(|(fd, file)| (*fd, *file)).collect()
        };
        for (fd, file) in files {
            let request: Request = match file.flags {
                Some(flags) => Open { gfid: file.gfid, flags, xdata: None }.into(),
                None => Opendir { gfid: file.gfid, xdata: None }.into(),
            };
            let reply = self.exchange(&Context::default(), request).await;
            let Ok(Reply::OpenReply(reply)) = reply else { continue };
            let closed = match self.state.lock().fds.get_mut(&fd) {
                Some(file) => {
                    file.wire = Some(reply.fd);
                    false
                }
                None => true,
            };
            if closed {
                // Closed while it was opened again.
                let release = Release { gfid: file.gfid, fd: reply.fd, xdata: None };
                drop(self.exchange(&Context::default(), release.into()).await);
            }
        }
        {
            let mut state = self.state.lock();
            if state.session != Some(session) {
                return false;
            }
            state.up = true;
        }
        self.note(4, || "is up".to_owned());
        self.tell(Upcall::Up);
        true
    }

    fn tell(&self, upcall: Upcall) {
        let sink = self.sink.lock().clone();
        if let Some(sink) = sink {
            sink.upcall(upcall);
        }
    }

    /// Sends a request on the current session and waits for its answer.
    async fn exchange(self: &Arc<Self>, ctx: &Context, request: Request) -> Outcome<Reply> {
        let (answer, receiver) = oneshot::channel();
        let (call, session) = {
            let mut state = self.state.lock();
            let Some(session) = state.session else { return Err(Errno::ENOTCONN.into()) };
            let call = state.next_call;
            state.next_call += 1;
            state.calls.insert(call, answer);
            (call, session)
        };
        let (link, ctx) = (Arc::clone(self), ctx.clone());
        self.to.send(move || link.arrive(session, call, ctx, request));
        receiver.await.unwrap_or_else(|_| Err(Errno::ENOTCONN.into()))
    }

    /// At the brick.
    fn arrive(self: &Arc<Self>, session: ClientId, call: u64, ctx: Context, request: Request) {
        let kind = request.kind();
        let facts = [10, u64::from(kind.number()), self.brick.id as u64, self.client as u64, call];
        self.trace.step(&facts, || self.line(&format!("<- #{call} {request:?}")));
        let Some(running) = self.brick.accept(session, ctx, request) else { return };
        let link = Arc::clone(self);
        tokio::spawn(async move {
            let outcome = running.await;
            if !link.brick.has_session(session) {
                return;
            }
            let target = Arc::clone(&link);
            link.from.send(move || target.answered(session, call, kind, outcome));
        });
    }

    /// Back at the client.
    fn answered(&self, session: ClientId, call: u64, kind: FopKind, outcome: Outcome<Reply>) {
        let errno = outcome.as_ref().err().map_or(0, |failure| failure.errno.0);
        let facts = [11, u64::from(kind.number()), self.brick.id as u64, call, u64::from(errno.unsigned_abs())];
        self.trace.step(&facts, || self.line(&format!("-> #{call} {} {outcome:?}", kind.label())));
        let mut state = self.state.lock();
        if state.session != Some(session) {
            return;
        }
        if let Some(waiter) = state.calls.remove(&call) {
            // Nobody may wait any more.
            let _gone = waiter.send(outcome);
        }
    }

    /// Replaces this layer's fds by the session's, as `client::fds` does.
    fn translate(&self, request: &mut Request) -> Result<(), Errno> {
        let anonymous = matches!(
            request.kind(),
            FopKind::Read | FopKind::Write | FopKind::Fsync | FopKind::Finodelk | FopKind::Fxattrop
        );
        let Some(fd) = fd_in(request) else { return Ok(()) };
        if fd.is_anonymous() {
            return Ok(());
        }
        match self.state.lock().fds.get(&fd.0).and_then(|file| file.wire) {
            Some(wire) => *fd = wire,
            None if anonymous => *fd = Fd::ANONYMOUS,
            None => return Err(Errno::EBADFD),
        }
        Ok(())
    }

    fn register(&self, file: OpenFile) -> Fd {
        let mut state = self.state.lock();
        let fd = state.next_fd;
        state.next_fd += 1;
        state.fds.insert(fd, file);
        Fd(fd)
    }

    fn note(&self, fact: u64, text: impl FnOnce() -> String) {
        self.trace.step(&[20, fact, self.client as u64, self.brick.id as u64], || self.line(&text()));
    }

    fn line(&self, text: &str) -> String {
        format!("{:>7} client {} brick {} {text}", self.net.now_ms(), self.client, self.brick.id)
    }
}

#[async_trait]
impl Fops for LinkHandle {
    async fn call(&self, ctx: &Context, mut request: Request) -> Outcome<Reply> {
        let link = &self.0;
        let closing = match &request {
            Request::Release(r) => Some(r.fd),
            Request::Releasedir(r) => Some(r.fd),
            _ => None,
        };
        if !link.state.lock().up {
            if let Some(fd) = closing {
                link.state.lock().fds.remove(&fd.0);
            }
            return Err(Errno::ENOTCONN.into());
        }
        let opening = match &request {
            Request::Open(r) => Some(Some(r.flags & !CREATING_FLAGS)),
            Request::Create(r) => Some(Some(r.flags & !CREATING_FLAGS)),
            Request::Opendir(_) => Some(None),
            _ => None,
        };
        let opened = if let Request::Open(r) = &request { r.gfid } else { Gfid::NULL };
        let opened = if let Request::Opendir(r) = &request { r.gfid } else { opened };
        let translated = link.translate(&mut request);
        if let Some(fd) = closing {
            link.state.lock().fds.remove(&fd.0);
        }
        translated?;
        if let Some((answer, send)) = link.options.plant.and_then(|plant| plant.answer(&request)) {
            if send {
                let (link, ctx) = (Arc::clone(link), ctx.clone());
                tokio::spawn(async move { drop(link.exchange(&ctx, request).await) });
            }
            return Ok(answer);
        }
        let session = link.state.lock().session;
        let mut reply = link.exchange(ctx, request).await?;
        let same = link.state.lock().session == session;
        match (&mut reply, opening) {
            (Reply::OpenReply(reply), Some(flags)) => {
                let wire = same.then_some(reply.fd);
                reply.fd = link.register(OpenFile { gfid: opened, flags, wire });
            }
            (Reply::CreateReply(reply), Some(flags)) => {
                let wire = same.then_some(reply.fd);
                reply.fd = link.register(OpenFile { gfid: reply.stat.gfid, flags, wire });
            }
            _ => {}
        }
        Ok(reply)
    }

    fn subscribe(&self, sink: Arc<dyn UpcallSink>) {
        *self.0.sink.lock() = Some(sink);
    }

    fn is_up(&self) -> bool {
        self.0.state.lock().up
    }

    fn compounds(&self) -> bool {
        self.0.options.compounds
    }

    fn name(&self) -> &str {
        &self.0.name
    }
}

/// A link as the layers above see it.
#[derive(Clone)]
pub struct LinkHandle(pub Arc<Link>);

const fn fd_in(request: &mut Request) -> Option<&mut Fd> {
    use Request as R;
    Some(match request {
        R::Read(r) => &mut r.fd,
        R::Write(r) => &mut r.fd,
        R::Flush(r) => &mut r.fd,
        R::Fsync(r) => &mut r.fd,
        R::Fsyncdir(r) => &mut r.fd,
        R::Ftruncate(r) => &mut r.fd,
        R::Fstat(r) => &mut r.fd,
        R::Readdir(r) => &mut r.fd,
        R::Readdirp(r) => &mut r.fd,
        R::Finodelk(r) => &mut r.fd,
        R::Fxattrop(r) => &mut r.fd,
        R::Rchecksum(r) => &mut r.fd,
        R::Fsetattr(r) => &mut r.fd,
        R::Release(r) => &mut r.fd,
        R::Releasedir(r) => &mut r.fd,
        R::Discard(r) => &mut r.fd,
        R::Seek(r) => &mut r.fd,
        _ => return None,
    })
}
