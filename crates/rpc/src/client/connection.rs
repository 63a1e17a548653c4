//! A connection to a server, shared by all who call on it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::task::AtomicWaker;
use mortar_types::Context;
use mortar_wire::auth;
use mortar_wire::header::{self, Procedure};
use mortar_wire::record::RECORD_BYTES_DEFAULT;
use parking_lot::Mutex;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;

use crate::client::calls::{CallError, Calls};
use crate::client::driver::{self, Events};
use crate::dump;
use crate::outbox::{Flush, Outbox};
use crate::socket::{Endpoint, Keepalive, Stream, WriteHalf, set_options};

/// With so much unsent, further calls wait before they add to it.
const OUTBOX_BYTES_MAX: usize = 32 << 20;

/// How a connection behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// For each address of the endpoint.
    pub connect_timeout: Duration,
    /// A server from which nothing comes for so long while a ping waits for its answer is given up; zero: no pings.
    pub ping_timeout: Duration,
    /// A call without a reply for so long fails; the connection stays (`frame-timeout`).
    pub frame_timeout: Duration,
    pub record_bytes_max: usize,
    pub keepalive: Keepalive,
    /// Sent data unacknowledged for so long ends the connection; zero: the kernel's rule.
    pub user_timeout: Duration,
}

impl Default for Options {
    /// GlusterFS's values for brick connections.
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(42),
            frame_timeout: Duration::from_secs(1800),
            record_bytes_max: RECORD_BYTES_DEFAULT,
            keepalive: Keepalive::default(),
            user_timeout: Duration::ZERO,
        }
    }
}

/// An open connection. Dropping the last handle closes it.
pub struct Connection {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("server", &self.shared.server).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects to the first address of the endpoint that answers.
    pub async fn connect(endpoint: &Endpoint, options: Options, events: Arc<dyn Events>) -> io::Result<Arc<Self>> {
        let stream = match endpoint {
            Endpoint::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
            Endpoint::Address(address) => Stream::Tcp(connect_tcp(*address, &options).await?),
            Endpoint::Host { host, port } => Stream::Tcp(connect_host(host, *port, &options).await?),
        };
        let (read, write) = stream.into_split();
        let shared = Arc::new(Shared {
            server: endpoint.to_string(),
            socket: write,
            outbox: Mutex::new(Outbox::default()),
            calls: Mutex::new(Calls::new()),
            driver: AtomicWaker::new(),
            drained: Notify::new(),
        });
        tokio::spawn(driver::run(Arc::clone(&shared), read, options, events));
        Ok(Arc::new(Self { shared }))
    }

    /// Calls a procedure and waits for its reply's body. `head` is the XDR body, `payload` follows it unpadded.
    /// Dropping the future gives the reply up; the server still performs the call.
    pub async fn call(
        &self,
        procedure: Procedure,
        kind: auth::Kind,
        context: &Context,
        head: BytesMut,
        payload: Option<Bytes>,
    ) -> Result<Bytes, CallError> {
        let shared = &*self.shared;
        shared.wait_for_room().await?;
        let (xid, reply) = shared.calls.lock().add_caller(Instant::now())?;
        let mut forget = Forget { shared, xid: Some(xid) };
        shared.send(xid, procedure, kind, context, head, payload)?;
        let outcome = reply.await.unwrap_or(Err(CallError::Disconnected));
        // Whoever answered took it off the table.
        forget.xid = None;
        outcome
    }

    /// Ends the connection; everything outstanding fails.
    pub fn close(&self) {
        self.shared.close();
    }

    pub fn is_closed(&self) -> bool {
        self.shared.calls.lock().is_closed()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// Takes a call off the table when its caller goes away.
struct Forget<'a> {
    shared: &'a Shared,
    xid: Option<u32>,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(xid) = self.xid {
            self.shared.calls.lock().take(xid);
        }
    }
}

async fn connect_host(host: &str, port: u16, options: &Options) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name resolves to no address");
    for address in tokio::net::lookup_host((host, port)).await? {
        match connect_tcp(address, options).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect_tcp(address: std::net::SocketAddr, options: &Options) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(options.connect_timeout, TcpStream::connect(address))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    set_options(&stream, options.keepalive, options.user_timeout)?;
    Ok(stream)
}

/// What callers and the connection's task share.
pub(super) struct Shared {
    pub(super) server: String,
    pub(super) socket: WriteHalf,
    pub(super) outbox: Mutex<Outbox>,
    pub(super) calls: Mutex<Calls>,
    /// The connection's task, woken to send what the socket did not take.
    pub(super) driver: AtomicWaker,
    /// Told when the outbox has room again.
    pub(super) drained: Notify,
}

impl Shared {
    pub(super) fn close(&self) {
        let waiting = self.calls.lock().close();
        let Some(waiting) = waiting else { return };
        self.socket.close();
        self.outbox.lock().clear();
        for waiter in waiting {
            waiter.answer(Err(CallError::Disconnected));
        }
        self.drained.notify_waiters();
        self.driver.wake();
    }

    async fn wait_for_room(&self) -> Result<(), CallError> {
        while self.outbox.lock().bytes() > OUTBOX_BYTES_MAX {
            let drained = self.drained.notified();
            // Looked at again after registering: it may have drained in between.
            if self.outbox.lock().bytes() > OUTBOX_BYTES_MAX {
                drained.await;
            }
        }
        Ok(())
    }

    pub(super) fn ping(&self, now: Instant) -> Result<(), CallError> {
        let xid = self.calls.lock().add_ping(now)?;
        self.send(xid, dump::PING, auth::Kind::V2, &Context::default(), BytesMut::new(), None)
    }

    fn send(
        &self,
        xid: u32,
        procedure: Procedure,
        kind: auth::Kind,
        context: &Context,
        head: BytesMut,
        payload: Option<Bytes>,
    ) -> Result<(), CallError> {
        let start = |out: &mut BytesMut| {
            header::encode_call_start(out, xid, header::RPC_VERSION, procedure);
            auth::encode(kind, context, out)?;
            header::encode_no_verifier(out);
            Ok::<(), CallError>(())
        };
        let mut outbox = self.outbox.lock();
        let idle = outbox.bytes() == 0;
        outbox.push(start, head, payload)?;
        // Data before ours waits for the socket; the connection's task sends ours after it.
        if !idle {
            return Ok(());
        }
        match outbox.flush(&self.socket) {
            Ok(Flush::Done) => Ok(()),
            Ok(Flush::Blocked) => {
                drop(outbox);
                self.driver.wake();
                Ok(())
            }
            Err(_) => {
                drop(outbox);
                self.close();
                Err(CallError::Disconnected)
            }
        }
    }
}
