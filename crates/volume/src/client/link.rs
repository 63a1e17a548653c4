//! The connection of the moment and its events.

use std::sync::Arc;
use std::sync::Weak;

use bytes::{Bytes, BytesMut};
use mortar_rpc::client::{CloseReason, Connection, Events};
use mortar_rpc::{AuthKind, Procedure};
use mortar_types::{Context, Errno, FopKind, Outcome, Reply, Request};
use mortar_wire::callback::Callback;
use mortar_wire::fop::{decode_reply, encode_request};
use mortar_wire::programs;
use mortar_wire::xdr::Writer;
use tokio::sync::{Semaphore, watch};

use crate::client::brick::Shared;
use crate::client::fds::Generation;

/// A request without data takes less than this.
const HEAD_BYTES: usize = 512;

/// Calls under way at a time, except those that wait for other clients. A brick reads nothing more from a connection with 64
/// (`rpc.outstanding-rpc-limit`), and a ping that it does not read looks like silence.
const CALLS_MAX: usize = 56;

/// A connection whose SETVOLUME succeeded.
pub(super) struct Link {
    pub(super) connection: Arc<Connection>,
    pub(super) generation: Generation,
    pub(super) endpoint: String,
    /// The brick takes the keys of compounds.
    pub(super) compounds: bool,
    slots: Semaphore,
}

impl Link {
    pub(super) fn new(connection: Arc<Connection>, generation: Generation, endpoint: String, compounds: bool) -> Self {
        Self { connection, generation, endpoint, compounds, slots: Semaphore::new(CALLS_MAX) }
    }

    /// Sends a request as it is (fds are the connection's) and decodes its reply.
    pub(super) async fn call(&self, ctx: &Context, request: &Request) -> Outcome<Reply> {
        let kind = request.kind();
        // The semaphore is never closed.
        let _slot = if may_wait(kind) { None } else { self.slots.acquire().await.ok() };
        let mut head = Writer::with_capacity(HEAD_BYTES);
        let payload = encode_request(request, &mut head);
        let procedure = Procedure::new(programs::FOP.number, programs::FOP.version, kind.number());
        let head: BytesMut = head.into_inner();
        let answered = self.connection.call(procedure, AuthKind::V3, ctx, head, payload).await;
        let body = answered.map_err(|error| {
            tracing::debug!(fop = kind.label(), server = %self.endpoint, %error, "the call failed");
            error.errno()
        })?;
        decode_reply(kind, body).unwrap_or_else(|error| {
            tracing::warn!(fop = kind.label(), server = %self.endpoint, %error, "the reply cannot be read");
            Err(Errno::EPROTO.into())
        })
    }
}

/// Events of the connection `generation` of one client.
pub(super) struct LinkEvents {
    pub(super) shared: Weak<Shared>,
    pub(super) generation: Generation,
    /// Told when the connection has ended, and why.
    pub(super) ended: watch::Sender<Option<String>>,
}

impl Events for LinkEvents {
    fn callback(&self, procedure: Procedure, body: Bytes) {
        // The one that means nothing has done its work by coming.
        if procedure.program != programs::CALLBACK.number || procedure.number == programs::callback::NULL {
            return;
        }
        let Some(shared) = self.shared.upgrade() else { return };
        match Callback::decode(procedure.number, body) {
            Ok(callback) => shared.callback(self.generation, callback),
            Err(error) => tracing::debug!(number = procedure.number, %error, "a callback cannot be read"),
        }
    }

    fn closed(&self, reason: &CloseReason) {
        let reason = reason.to_string();
        if let Some(shared) = self.shared.upgrade() {
            shared.link_closed(self.generation, &reason);
        }
        self.ended.send_replace(Some(reason));
    }
}

const fn may_wait(kind: FopKind) -> bool {
    use FopKind as K;
    // RELEASE is sent while others end, so that nothing waits for what it frees.
    matches!(kind, K::Lk | K::Inodelk | K::Finodelk | K::Entrylk | K::Fentrylk | K::Release | K::Releasedir)
}
