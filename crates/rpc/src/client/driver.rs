//! The task of a client connection: reads replies and callbacks, sends what callers could not, pings.

use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use mortar_logic::liveness::{Liveness, Verdict};
use mortar_wire::header::{Header, Procedure, ReplyStatus};
use mortar_wire::record::{Decoder, RecordError};
use mortar_wire::xdr::{DecodeError, Reader};
use tokio::io::AsyncReadExt as _;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::client::calls::{CallError, Waiter};
use crate::client::connection::{Options, Shared};
use crate::outbox::{Flush, reserve_for_read};
use crate::socket::ReadHalf;

/// What a connection tells its owner. Called from the connection's task: must not block.
pub trait Events: Send + Sync + 'static {
    /// The server calls (`GF_CBK_*`); no answer is expected.
    fn callback(&self, procedure: Procedure, body: Bytes);

    /// The last event: the connection is closed and every call on it has failed.
    fn closed(&self, reason: &CloseReason);
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum CloseReason {
    #[error("closed by the server")]
    Eof,
    #[error("closed here")]
    Closed,
    #[error("the server has not responded in the last {0:?}")]
    PingTimeout(Duration),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the server does not speak RPC: {0}")]
    Record(#[from] RecordError),
    #[error("the server does not speak RPC: {0}")]
    Header(#[from] DecodeError),
}

/// How often expired calls are looked for when nothing else needs a tick.
const IDLE_TICK: Duration = Duration::from_secs(10);

pub(super) async fn run(shared: Arc<Shared>, read: ReadHalf, options: Options, events: Arc<dyn Events>) {
    let since = Instant::now();
    let liveness = Liveness::new(options.ping_timeout, Duration::ZERO);
    let mut driver = Driver {
        shared: &shared,
        read,
        decoder: Decoder::new(options.record_bytes_max),
        buffer: BytesMut::new(),
        tick: ticks(&liveness),
        liveness,
        since,
        options,
        events: &*events,
    };
    let reason = match driver.ping(Instant::now()) {
        Err(reason) => reason,
        Ok(()) => poll_fn(|cx| driver.poll(cx)).await,
    };
    tracing::debug!(server = %shared.server, %reason, "connection ended");
    shared.close();
    events.closed(&reason);
}

fn ticks(liveness: &Liveness) -> Interval {
    let mut tick = interval(liveness.period().map_or(IDLE_TICK, |period| period.min(IDLE_TICK)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

struct Driver<'a> {
    shared: &'a Shared,
    read: ReadHalf,
    decoder: Decoder,
    buffer: BytesMut,
    tick: Interval,
    liveness: Liveness,
    /// What the times of `liveness` count from.
    since: Instant,
    options: Options,
    events: &'a dyn Events,
}

impl Driver<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.shared.driver.register(cx.waker());
        match self.poll_inner(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(reason) | Err(reason)) => Poll::Ready(reason),
        }
    }

    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Result<CloseReason, CloseReason>> {
        self.flush(cx)?;
        loop {
            if self.shared.calls.lock().is_closed() {
                return Poll::Ready(Ok(CloseReason::Closed));
            }
            match self.poll_read(cx)? {
                Poll::Ready(0) => return Poll::Ready(Ok(CloseReason::Eof)),
                Poll::Ready(_) => {
                    self.liveness.heard(self.since.elapsed());
                    while let Some(record) = self.decoder.decode(&mut self.buffer)? {
                        self.receive(record)?;
                    }
                }
                Poll::Pending => {
                    ready!(self.tick.poll_tick(cx));
                    self.ticked()?;
                }
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        reserve_for_read(&mut self.buffer, &self.decoder);
        // Stateless and cancel safe, so it may be made anew for each poll.
        pin!(self.read.read_buf(&mut self.buffer)).poll(cx)
    }

    fn flush(&self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut outbox = self.shared.outbox.lock();
        if outbox.bytes() == 0 {
            return Ok(());
        }
        while outbox.flush(&self.shared.socket)? == Flush::Blocked {
            if self.shared.socket.poll_writable(cx)?.is_pending() {
                return Ok(());
            }
        }
        drop(outbox);
        self.shared.drained.notify_waiters();
        Ok(())
    }

    fn receive(&mut self, record: Bytes) -> Result<(), CloseReason> {
        let mut reader = Reader::new(record);
        match Header::decode(&mut reader)? {
            Header::Call(call) => self.events.callback(call.procedure, reader.into_rest()),
            Header::Reply(reply) => {
                let outcome = match reply.status {
                    ReplyStatus::Success => Ok(reader.into_rest()),
                    refused => Err(CallError::Refused(refused)),
                };
                let waiter = self.shared.calls.lock().take(reply.xid);
                match waiter {
                    Some(Waiter::Ping) => self.liveness.ponged(),
                    Some(caller) => caller.answer(outcome),
                    None => {}
                }
            }
        }
        Ok(())
    }

    fn ticked(&mut self) -> Result<(), CloseReason> {
        let now = Instant::now();
        let (expired, callers) = {
            let mut calls = self.shared.calls.lock();
            (calls.take_expired(now, self.options.frame_timeout), calls.callers())
        };
        for waiter in expired {
            waiter.answer(Err(CallError::Timeout));
        }
        match self.liveness.tick(now.saturating_duration_since(self.since), callers > 0) {
            Verdict::Alive => Ok(()),
            Verdict::Ping => self.ping(now),
            Verdict::Dead => Err(CloseReason::PingTimeout(self.options.ping_timeout)),
        }
    }

    fn ping(&mut self, now: Instant) -> Result<(), CloseReason> {
        if self.options.ping_timeout.is_zero() {
            return Ok(());
        }
        if self.shared.ping(now).is_err() {
            return Err(CloseReason::Closed);
        }
        self.liveness.pinged(now.saturating_duration_since(self.since));
        Ok(())
    }
}
