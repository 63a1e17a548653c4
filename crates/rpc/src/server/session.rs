//! What a server implements: a service makes a session per connection, a session answers calls.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use mortar_types::Context;
use mortar_wire::header::{Procedure, ReplyStatus};
use mortar_wire::programs::Program;

use crate::server::connection::Connection;

/// Makes the session of each new connection.
pub trait Service: Send + Sync + 'static {
    fn connected(&self, connection: Arc<Connection>) -> Arc<dyn Session>;
}

/// A call of one of the session's programs. `context.client` is the connection's number.
#[derive(Clone, PartialEq, Debug)]
pub struct IncomingCall {
    pub procedure: Procedure,
    pub context: Context,
    /// A slice of the receive buffer: copy what is kept for long, it holds on to the whole buffer.
    pub body: Bytes,
}

/// What a call gets.
#[derive(Clone, PartialEq, Debug)]
pub enum Response {
    /// `payload` follows `head` unpadded and is sent without a copy.
    Success {
        head: BytesMut,
        payload: Option<Bytes>,
    },
    ProcUnavail,
    GarbageArgs,
    SystemErr,
    /// The caller gets no answer (one-way procedures).
    NoReply,
}

impl Response {
    pub const fn success(head: BytesMut) -> Self {
        Self::Success { head, payload: None }
    }

    /// The reply's status, head and payload; `None` for no reply.
    pub(crate) fn into_parts(self) -> Option<(ReplyStatus, BytesMut, Option<Bytes>)> {
        match self {
            Self::Success { head, payload } => Some((ReplyStatus::Success, head, payload)),
            Self::ProcUnavail => Some((ReplyStatus::ProcUnavail, BytesMut::new(), None)),
            Self::GarbageArgs => Some((ReplyStatus::GarbageArgs, BytesMut::new(), None)),
            Self::SystemErr => Some((ReplyStatus::SystemErr, BytesMut::new(), None)),
            Self::NoReply => None,
        }
    }
}

/// The server's side of one connection.
#[async_trait]
pub trait Session: Send + Sync + 'static {
    /// Programs to list in DUMP answers, in their order; calls of others are refused before [`Self::handle`]. The DUMP
    /// program itself is served and listed by the connection.
    fn programs(&self) -> &[Program];

    /// Whether a call of this procedure may wait for other clients (lock requests). Such calls do not count towards
    /// the outstanding limit, so that the calls which end the wait are still read
    /// (`rpcsvc.c: rpcsvc_can_outstanding_req_be_ignored`).
    fn may_wait(&self, _procedure: Procedure) -> bool {
        false
    }

    /// Answers a call. Polled first on the connection's reading task: work that blocks for long belongs elsewhere, for
    /// it holds up the connection's other calls and its pings. Dropped unfinished when the connection ends.
    async fn handle(&self, call: IncomingCall) -> Response;

    /// The connection has ended and no handler of it runs any more.
    fn disconnected(&self);
}
