//! How a fresh node is taken into a pool: one call by somebody who need not prove anything.

use std::sync::Arc;

use axum::Router;
use mortar_api::{Error, ErrorKind, Operation};
use mortar_logic::pool::Member;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Caller, guarded};
use crate::identity::Authority;
use crate::node::Node;
use crate::resolve;

/// Who are you, and are you free?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Hello {}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct HelloAnswer {
    pub(super) member: Member,
    pub(super) pool_id: Uuid,
    pub(super) fresh: bool,
    /// How the asked node knows the asker's address.
    pub(super) you: Option<String>,
}

impl Operation for Hello {
    const PATH: &'static str = "claim/hello";
    type Answer = HelloAnswer;
}

/// Join this pool.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Claim {
    pub(super) pool_id: Uuid,
    pub(super) authority: Authority,
}

impl Operation for Claim {
    const PATH: &'static str = "claim/claim";
    type Answer = Member;
}

pub(super) fn routes(router: Router<Arc<Node>>) -> Router<Arc<Node>> {
    let router = guarded(router, |_, _| true, |node, caller, _: Hello| async move { Ok(hello(&node, caller)) });
    guarded(router, |_, _| true, |node, _, request: Claim| claim(node, request))
}

fn hello(node: &Node, caller: Caller) -> HelloAnswer {
    let you = match caller {
        Caller::Stranger { address } => Some(resolve::name_of(address.ip().to_canonical())),
        Caller::Local | Caller::Member { .. } => None,
    };
    HelloAnswer { member: node.own_member(), pool_id: node.peers.pool_id(), fresh: node.is_fresh(), you }
}

async fn claim(node: Arc<Node>, request: Claim) -> Result<Member, Error> {
    // Not while this node takes in another one itself.
    let Ok(_permit) = node.membership.try_acquire() else {
        return Err(Error::new(ErrorKind::Conflict, "The node is taking in another one just now."));
    };
    if !node.is_fresh() {
        return Err(Error::new(ErrorKind::Conflict, "The node belongs to a pool or has volumes."));
    }
    node.join(request.pool_id, request.authority).await?;
    tracing::info!(pool = %request.pool_id, "claimed for a pool");
    Ok(node.own_member())
}
