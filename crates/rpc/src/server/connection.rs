//! One accepted connection: the handle that sessions keep, and the task that drives it.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use futures::task::AtomicWaker;
use mortar_types::ClientId;
use mortar_wire::auth;
use mortar_wire::handshake::{CommonReply, DumpReply};
use mortar_wire::header::{self, CallHeader, Header, OpaqueAuth, Procedure, ReplyHeader, ReplyStatus};
use mortar_wire::message::Message as _;
use mortar_wire::programs::{self, Program};
use mortar_wire::record::{Decoder, RecordError};
use mortar_wire::xdr::{DecodeError, Reader, Writer};
use parking_lot::Mutex;
use tokio::io::AsyncReadExt as _;

use crate::dump;
use crate::outbox::{Flush, Outbox, TooLong, reserve_for_read};
use crate::server::listener::Options;
use crate::server::session::{IncomingCall, Response, Service, Session};
use crate::socket::{ReadHalf, WriteHalf};

/// Nothing more is read from a connection while so much waits to be sent to it: the peer does not read its answers.
const OUTBOX_BYTES_MAX: usize = 4 << 20;

/// With so much unsent a callback closes the connection: the peer has stopped reading.
const CALLBACK_BACKLOG_BYTES_MAX: usize = 16 << 20;

/// Who is at the other end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Peer {
    Tcp { remote: SocketAddr, local: SocketAddr },
    Unix { uid: u32, pid: Option<i32> },
}

impl std::fmt::Display for Peer {
    /// `address:port`, as GlusterFS shows clients; `unix` for a local socket.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { remote, .. } => write!(f, "{}:{}", remote.ip().to_canonical(), remote.port()),
            Self::Unix { .. } => f.write_str("unix"),
        }
    }
}

/// The server's handle of a connection.
#[derive(Debug)]
pub struct Connection {
    id: ClientId,
    peer: Peer,
    socket: WriteHalf,
    outbox: Mutex<Outbox>,
    /// The connection's task, to be woken when data is left in the outbox or the connection is closed.
    driver: AtomicWaker,
    closed: AtomicBool,
    callback_xid: AtomicU32,
    /// Since when the task has been at work at a stretch: microseconds after `created`, and one; 0: it is not.
    working_since: AtomicU64,
    created: Instant,
    wants_pulse: AtomicBool,
}

impl Connection {
    pub(super) fn new(id: ClientId, peer: Peer, socket: WriteHalf) -> Self {
        Self {
            id,
            peer,
            socket,
            outbox: Mutex::new(Outbox::default()),
            driver: AtomicWaker::new(),
            closed: AtomicBool::new(false),
            // The first callback of a real brick has xid 1.
            callback_xid: AtomicU32::new(1),
            working_since: AtomicU64::new(0),
            created: Instant::now(),
            wants_pulse: AtomicBool::new(false),
        }
    }

    /// Unique in this process.
    pub const fn id(&self) -> ClientId {
        self.id
    }

    pub const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Ends the connection at once; the session's `disconnected` follows.
    pub fn close(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.socket.close();
            self.outbox.lock().clear();
            self.driver.wake();
        }
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Calls the client (`GF_CBK_*`); it never answers. A client that does not read its callbacks is disconnected.
    pub fn callback(&self, procedure: Procedure, body: BytesMut) {
        if self.is_closed() {
            return;
        }
        let xid = self.callback_xid.fetch_add(1, Ordering::Relaxed);
        let call = CallHeader { xid, rpc_version: header::RPC_VERSION, procedure, credential: OpaqueAuth::NONE };
        let sent = {
            let mut outbox = self.outbox.lock();
            let pushed = outbox.push(
                |out| {
                    call.encode(out);
                    Ok::<(), TooLong>(())
                },
                body,
                None,
            );
            if pushed.is_err() || outbox.bytes() > CALLBACK_BACKLOG_BYTES_MAX {
                None
            } else {
                Some(outbox.flush(&self.socket))
            }
        };
        match sent {
            Some(Ok(Flush::Done)) => {}
            Some(Ok(Flush::Blocked)) => self.driver.wake(),
            Some(Err(_)) | None => self.close(),
        }
    }

    /// The client knows what a callback that means nothing is for: it gets some while calls keep the server from answering
    /// pings, if the server has [`Options::pulse`].
    pub fn want_pulse(&self) {
        self.wants_pulse.store(true, Ordering::Relaxed);
    }

    pub(super) fn wants_pulse(&self) -> bool {
        self.wants_pulse.load(Ordering::Relaxed)
    }

    /// How long the task has been at work without a pause.
    pub(super) fn busy_for(&self, now: Instant) -> Option<Duration> {
        let since = self.working_since.load(Ordering::Relaxed).checked_sub(1)?;
        Some(now.saturating_duration_since(self.created + Duration::from_micros(since)))
    }

    fn work_begins(&self) {
        let since = u64::try_from(self.created.elapsed().as_micros()).unwrap_or(u64::MAX - 1);
        self.working_since.store(since + 1, Ordering::Relaxed);
    }

    fn work_ends(&self) {
        self.working_since.store(0, Ordering::Relaxed);
    }

    fn push_reply(&self, xid: u32, response: Response) {
        let Some((status, head, payload)) = response.into_parts() else {
            return;
        };
        let start = |status| {
            move |out: &mut BytesMut| -> Result<(), TooLong> {
                ReplyHeader { xid, status }.encode(out);
                Ok(())
            }
        };
        let mut outbox = self.outbox.lock();
        if outbox.push(start(status), head, payload).is_err() {
            // Fits always.
            let _ = outbox.push(start(ReplyStatus::SystemErr), BytesMut::new(), None);
        }
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("closed by the peer")]
    Eof,
    #[error("closed here")]
    Closed,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("not RPC: {0}")]
    Record(#[from] RecordError),
    #[error("not RPC: {0}")]
    Header(#[from] DecodeError),
}

/// Runs the session of an accepted connection to its end.
pub(super) async fn run(connection: Arc<Connection>, read: ReadHalf, service: Arc<dyn Service>, options: Options) {
    let session = service.connected(Arc::clone(&connection));
    // A panic in a handler ends this task; the session must hear of it all the same.
    let ended = Ended { connection: &connection, session: &*session };
    let mut driver = Driver {
        connection: &connection,
        session: &*session,
        read,
        decoder: Decoder::new(options.record_bytes_max),
        buffer: BytesMut::new(),
        pending: FuturesUnordered::new(),
        waiting: 0,
        options,
    };
    let end = poll_fn(|cx| driver.poll(cx)).await;
    match end {
        End::Eof | End::Closed => tracing::debug!(peer = %connection.peer, "connection ended"),
        other => tracing::info!(peer = %connection.peer, reason = %other, "connection ended"),
    }
    connection.close();
    driver.pending.clear();
    drop(ended);
}

struct Ended<'a> {
    connection: &'a Connection,
    session: &'a dyn Session,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.connection.close();
        self.session.disconnected();
    }
}

/// A call whose handler has not answered yet.
struct Pending<'a> {
    xid: u32,
    /// Does not count towards the outstanding limit.
    may_wait: bool,
    handler: Pin<Box<dyn Future<Output = Response> + Send + 'a>>,
}

struct Answered {
    xid: u32,
    may_wait: bool,
    response: Response,
}

impl Future for Pending<'_> {
    type Output = Answered;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answered> {
        let response = ready!(self.handler.as_mut().poll(cx));
        Poll::Ready(Answered { xid: self.xid, may_wait: self.may_wait, response })
    }
}

struct Driver<'a> {
    connection: &'a Connection,
    session: &'a dyn Session,
    read: ReadHalf,
    decoder: Decoder,
    buffer: BytesMut,
    pending: FuturesUnordered<Pending<'a>>,
    /// How many of `pending` may wait for other clients.
    waiting: usize,
    options: Options,
}

impl Driver<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.connection.driver.register(cx.waker());
        self.connection.work_begins();
        let polled = self.poll_inner(cx);
        self.connection.work_ends();
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(end)) | Poll::Ready(Err(end)) => Poll::Ready(end),
        }
    }

    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Result<End, End>> {
        loop {
            if self.connection.is_closed() {
                return Poll::Ready(Ok(End::Closed));
            }
            self.collect_answers(cx);
            self.dispatch_buffered(cx)?;
            let unsent = self.flush(cx)?;
            if !self.may_take_more() || unsent > OUTBOX_BYTES_MAX {
                return Poll::Pending;
            }
            if ready!(self.poll_read(cx))? == 0 {
                return Poll::Ready(Ok(End::Eof));
            }
        }
    }

    fn collect_answers(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(answered)) = self.pending.poll_next_unpin(cx) {
            self.waiting -= usize::from(answered.may_wait);
            self.connection.push_reply(answered.xid, answered.response);
        }
    }

    fn may_take_more(&self) -> bool {
        self.pending.len() - self.waiting < self.options.outstanding_max
    }

    fn dispatch_buffered(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        while self.may_take_more() {
            let Some(record) = self.decoder.decode(&mut self.buffer)? else {
                break;
            };
            self.dispatch(record, cx)?;
        }
        Ok(())
    }

    /// Sends what the socket takes and answers how many bytes are left.
    fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<usize> {
        let mut outbox = self.connection.outbox.lock();
        while outbox.flush(&self.connection.socket)? == Flush::Blocked {
            if self.connection.socket.poll_writable(cx)?.is_pending() {
                break;
            }
        }
        Ok(outbox.bytes())
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        reserve_for_read(&mut self.buffer, &self.decoder);
        // Stateless and cancel safe, so it may be made anew for each poll.
        pin!(self.read.read_buf(&mut self.buffer)).poll(cx)
    }

    fn dispatch(&mut self, record: Bytes, cx: &mut Context<'_>) -> Result<(), End> {
        let mut reader = Reader::new(record);
        let call = match Header::decode(&mut reader)? {
            Header::Call(call) => call,
            // Nothing here waits for replies.
            Header::Reply(_) => return Ok(()),
        };
        match self.refusal(&call) {
            Some(status) => self.refuse(call.xid, status),
            None if call.procedure.program == dump::PROGRAM => {
                let response = self.builtin(call.procedure);
                self.connection.push_reply(call.xid, response);
            }
            None => self.handle(&call, reader.into_rest(), cx),
        }
        Ok(())
    }

    fn handle(&mut self, call: &CallHeader, body: Bytes, cx: &mut Context<'_>) {
        let Ok(mut context) = auth::decode(&call.credential) else {
            return self.refuse(call.xid, ReplyStatus::AuthError(header::AUTH_BADCRED));
        };
        context.client = self.connection.id;
        let may_wait = self.session.may_wait(call.procedure);
        if may_wait && self.waiting >= self.options.waiting_max {
            return self.refuse(call.xid, ReplyStatus::SystemErr);
        }
        let mut handler = self.session.handle(IncomingCall { procedure: call.procedure, context, body });
        match handler.as_mut().poll(cx) {
            Poll::Ready(response) => self.connection.push_reply(call.xid, response),
            Poll::Pending => {
                self.waiting += usize::from(may_wait);
                self.pending.push(Pending { xid: call.xid, may_wait, handler });
            }
        }
    }

    fn refuse(&self, xid: u32, status: ReplyStatus) {
        let mut outbox = self.connection.outbox.lock();
        // A header alone fits always.
        let _ = outbox.push(
            |out| {
                ReplyHeader { xid, status }.encode(out);
                Ok::<(), TooLong>(())
            },
            BytesMut::new(),
            None,
        );
    }

    /// Why a call is not passed on, when the header alone shows it.
    fn refusal(&self, call: &CallHeader) -> Option<ReplyStatus> {
        if call.rpc_version != header::RPC_VERSION {
            return Some(ReplyStatus::RpcMismatch { low: header::RPC_VERSION, high: header::RPC_VERSION });
        }
        let Procedure { program, version, .. } = call.procedure;
        let mut served = None;
        let own = (program == dump::PROGRAM).then_some(dump::VERSION);
        for known in
            self.session.programs().iter().filter(|known| known.number == program).map(|known| known.version).chain(own)
        {
            if known == version {
                return None;
            }
            let (low, high) = served.unwrap_or((known, known));
            served = Some((known.min(low), known.max(high)));
        }
        match served {
            Some((low, high)) => Some(ReplyStatus::ProgMismatch { low, high }),
            None => Some(ReplyStatus::ProgUnavail),
        }
    }

    fn builtin(&self, procedure: Procedure) -> Response {
        if procedure == dump::PING {
            let mut out = Writer::new();
            CommonReply::default().encode(&mut out);
            return Response::success(out.into_inner());
        }
        if procedure == dump::DUMP {
            return Response::success(dump_answer(self.session.programs()));
        }
        Response::ProcUnavail
    }
}

/// The programs, our own first as glusterd does.
fn dump_answer(programs: &[Program]) -> BytesMut {
    let listed: Vec<_> = std::iter::once(programs::DUMP).chain(programs.iter().copied()).collect();
    let mut out = Writer::new();
    DumpReply::of(&listed).encode(&mut out);
    out.into_inner()
}
