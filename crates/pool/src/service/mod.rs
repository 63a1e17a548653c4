//! The HTTP service: the admin API on the Unix socket and, over mutual TLS, on 24008, and there also what members say
//! to each other.

mod bricks;
mod claim;
mod heal;
pub(crate) mod internal;
mod listener;
mod membership;
mod peer;
mod placing;
mod rebalance;
mod status;
mod volume;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use mortar_api::{Error, ErrorKind, Operation};
use uuid::Uuid;

pub(crate) use listener::{PeerListener, serve_peers, serve_unix};
pub(crate) use membership::{hear_standing, keep_membership};

use crate::node::Node;

/// Larger requests are refused: the largest real one is a chunk of a snapshot.
const REQUEST_BYTES_MAX: usize = 64 << 20;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Root of this machine, on the Unix socket.
    Local,
    /// A node with a certificate of the pool, proved under this generation of the TLS material.
    Member { uuid: Uuid, generation: u64 },
    /// Without a certificate; may claim a fresh node, nothing else.
    Stranger { address: std::net::SocketAddr },
}

/// What the Unix socket serves.
pub(crate) fn local_router(node: Arc<Node>) -> Router {
    api_routes(Router::new()).layer(axum::extract::DefaultBodyLimit::max(REQUEST_BYTES_MAX)).with_state(node)
}

/// What 24008 serves.
pub(crate) fn peer_router(node: Arc<Node>) -> Router {
    let router = internal::routes(claim::routes(api_routes(Router::new())));
    router.layer(axum::extract::DefaultBodyLimit::max(REQUEST_BYTES_MAX)).with_state(node)
}

fn api_routes(router: Router<Arc<Node>>) -> Router<Arc<Node>> {
    let router = bricks::routes(rebalance::routes(router));
    heal::routes(volume::routes(status::routes(peer::routes(router))))
}

/// Adds an operation for root of this machine and for members.
fn route<O, F, A>(router: Router<Arc<Node>>, handler: F) -> Router<Arc<Node>>
where
    O: Operation,
    F: Fn(Arc<Node>, O) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Result<O::Answer, Error>> + Send,
{
    guarded(router, Node::admits, move |node, _, request| handler(node, request))
}

/// Adds an operation for callers that `admit` lets in.
fn guarded<O, G, F, A>(router: Router<Arc<Node>>, admit: G, handler: F) -> Router<Arc<Node>>
where
    O: Operation,
    G: Fn(&Node, Caller) -> bool + Clone + Send + Sync + 'static,
    F: Fn(Arc<Node>, Caller, O) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Result<O::Answer, Error>> + Send,
{
    let serve = move |State(node): State<Arc<Node>>, Extension(caller): Extension<Caller>, body: Bytes| async move {
        if !admit(&node, caller) {
            let error = Error::new(ErrorKind::Invalid, "This node does not belong to a pool of yours.");
            return refusal(StatusCode::FORBIDDEN, &error);
        }
        let request = match serde_json::from_slice::<O>(&body) {
            Ok(request) => request,
            Err(error) => {
                let error = Error::new(ErrorKind::Invalid, format!("The request is not understood: {error}"));
                return refusal(StatusCode::BAD_REQUEST, &error);
            }
        };
        match handler(node, caller, request).await {
            Ok(answer) => json(StatusCode::OK, &answer),
            Err(error) => refusal(status_of(error.kind), &error),
        }
    };
    router.route(&format!("/v1/{}", O::PATH), post(serve))
}

fn refusal(status: StatusCode, error: &Error) -> Response {
    json(status, error)
}

fn json(status: StatusCode, body: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => (status, [(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

const fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        // Of the 4xx codes those that come nearest: something else had to work and did not.
        ErrorKind::NoQuorum | ErrorKind::Unreachable | ErrorKind::Internal => StatusCode::FAILED_DEPENDENCY,
    }
}

/// The pool that a member's message belongs to.
fn pool_of(headers: &HeaderMap) -> Option<Uuid> {
    headers.get(crate::peers::POOL_HEADER)?.to_str().ok()?.parse().ok()
}

impl Node {
    /// Root here may do anything; a member too, as long as its certificate was checked under the current authority and
    /// it was not detached.
    pub(crate) fn admits(&self, caller: Caller) -> bool {
        match caller {
            Caller::Local => true,
            Caller::Member { uuid, generation } => {
                generation == self.tls.current().generation && !self.view().state.removed.contains(&uuid)
            }
            Caller::Stranger { .. } => false,
        }
    }
}
