//! Membership: probe, detach, list, recover.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use mortar_api::peer::{Detach, List, Members, Peer, PeerState, Probe, Probed, Recover};
use mortar_api::{Error, ErrorKind};
use mortar_logic::pool::{Command, Member, Refusal, check};
use uuid::Uuid;

use super::claim::{Claim, Hello, HelloAnswer};
use super::internal::Released;
use super::route;
use crate::node::{Node, refusal_error};
use crate::peers::{CallError, claim_call};
use crate::resolve;

/// How long a probe waits until the new member takes part.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
const CLAIM_TIMEOUT: Duration = Duration::from_secs(8);

pub(super) fn routes(router: Router<Arc<Node>>) -> Router<Arc<Node>> {
    let router = route(router, |node, request: Probe| async move { probe(&node, &request.host).await });
    let router = route(router, |node, request: Detach| async move { detach(&node, &request).await });
    let router = route(router, |node, _: List| async move { Ok(list(&node)) });
    route(router, |node, request: Recover| async move { recover(&node, &request).await })
}

fn list(node: &Node) -> Members {
    let view = node.view();
    let voters = node.voters();
    let others = view.state.members.values().filter(|member| member.uuid != node.uuid());
    let peers = others
        .map(|member| Peer {
            uuid: member.uuid,
            hostname: member.hostname.clone(),
            other_names: member.other_names.clone(),
            connected: node.peers.is_connected(member.uuid),
            state: PeerState::InCluster,
            voter: voters.contains(&member.uuid),
        })
        .collect();
    Members { local: node.uuid(), peers, freshness: node.freshness() }
}

fn not_connected() -> Error {
    Error::new(ErrorKind::Unreachable, "Probe returned with Transport endpoint is not connected")
}

async fn probe(node: &Arc<Node>, host: &str) -> Result<Probed, Error> {
    let Ok(_permit) = node.membership.try_acquire() else {
        return Err(Error::new(ErrorKind::Conflict, "Another member is being taken in or out just now. Try again."));
    };
    let view = node.view();
    match resolve::member(&view.state, node.uuid(), node.options.listen, host).await {
        Some(uuid) if uuid == node.uuid() => return Ok(Probed::Localhost),
        Some(uuid) => return known_already(node, uuid, host).await,
        None => {}
    }
    let address = format!("{}:{}", bracketed(host), node.options.peer_port);
    let stranger = Arc::clone(&node.tls.current().stranger);
    let hello: HelloAnswer =
        claim_call(&address, Arc::clone(&stranger), "claim/hello", &Hello {}).await.map_err(|error| match error {
            CallError::Refused(error) => error,
            other => {
                tracing::info!(host, error = %other, "probe failed");
                not_connected()
            }
        })?;
    if hello.member.uuid == node.uuid() {
        return Ok(Probed::Localhost);
    }
    if view.state.members.contains_key(&hello.member.uuid) {
        return known_already(node, hello.member.uuid, host).await;
    }
    if !hello.fresh {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!("{host} is either already part of another cluster or having volumes configured"),
        ));
    }
    let identity = node.identity();
    let claim = Claim { pool_id: identity.pool_id, authority: identity.authority };
    let claiming = claim_call::<_, Member>(&address, stranger, "claim/claim", &claim);
    let claimed = tokio::time::timeout(CLAIM_TIMEOUT, claiming).await.map_err(|_| not_connected())??;
    let member = Member { hostname: host.to_owned(), other_names: Vec::new(), ..claimed };
    admit(node, member, hello.you).await
}

/// The claimed node becomes a member, or goes back to what it was.
async fn admit(node: &Arc<Node>, member: Member, own_name: Option<String>) -> Result<Probed, Error> {
    let uuid = member.uuid;
    node.peers.set_address(uuid, format!("{}:{}", bracketed(&member.hostname), member.peer_port));
    if let Err(error) = node.write(Command::AddMember { member }).await {
        if let Err(failed) = node.channel(uuid).call(&Released {}).await {
            tracing::warn!(%uuid, error = %failed, "the claimed node could not be released");
        }
        return Err(error);
    }
    if let Some(name) = own_name.filter(|name| !is_loopback(name)) {
        // Only a nicety for `peer status` on the others.
        let _ = node.write(Command::NameMember { uuid: node.uuid(), name }).await;
    }
    let mut changes = node.peers.changes();
    let joined = async {
        while !(node.peers.is_connected(uuid) && node.voters().contains(&uuid) && node.peers.applied_by(uuid) > 0) {
            if node.voters().len() >= 5 && node.peers.is_connected(uuid) {
                break;
            }
            let _ = tokio::time::timeout(Duration::from_millis(100), changes.changed()).await;
        }
    };
    if tokio::time::timeout(JOIN_TIMEOUT, joined).await.is_err() {
        tracing::warn!(%uuid, "the new member does not take part yet; it will when it answers");
    }
    Ok(Probed::Added)
}

/// Of two nodes on one machine the one sees the other under a name that means itself.
fn is_loopback(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

async fn known_already(node: &Node, uuid: Uuid, host: &str) -> Result<Probed, Error> {
    let named = node.view().state.members.get(&uuid).is_some_and(|member| member.is_named(host));
    if !named && let Err(error) = node.write(Command::NameMember { uuid, name: host.to_owned() }).await {
        tracing::info!(%error, host, "the member's further name is not recorded");
    }
    Ok(Probed::AlreadyMember)
}

fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

async fn detach(node: &Arc<Node>, request: &Detach) -> Result<(), Error> {
    let host = &request.host;
    let Ok(_permit) = node.membership.try_acquire() else {
        return Err(Error::new(ErrorKind::Conflict, "Another member is being taken in or out just now. Try again."));
    };
    let view = node.view();
    let uuid = match resolve::member(&view.state, node.uuid(), node.options.listen, host).await {
        Some(uuid) if uuid == node.uuid() => {
            return Err(Error::new(ErrorKind::Invalid, format!("{host} is localhost")));
        }
        Some(uuid) => uuid,
        None => return Err(refusal_error(&Refusal::NotAMember(host.clone()))),
    };
    let command = Command::RemoveMember { uuid };
    check(&view.state, &command).map_err(|refusal| match refusal {
        // By the name that was typed.
        Refusal::PeerHasBricks(_) => refusal_error(&Refusal::PeerHasBricks(host.clone())),
        other => refusal_error(&other),
    })?;
    let connected = node.peers.is_connected(uuid);
    if !connected && !request.force {
        return Err(Error::new(ErrorKind::Unreachable, "One of the peers is probably down. Check with 'peer status'"));
    }
    let channel = node.channel(uuid);
    node.write(command).await?;
    if connected {
        leave_consensus(node, uuid).await;
        // Over a connection that is checked before the removal counts; otherwise a heartbeat tells it.
        if let Err(error) = channel.call(&Released {}).await {
            tracing::info!(%uuid, %error, "the detached node will learn of it by its heartbeat");
        }
    }
    Ok(())
}

/// Waits until the detached node has no vote, so that it cannot be missed.
async fn leave_consensus(node: &Node, uuid: Uuid) {
    let left = async {
        while node.voters().contains(&uuid) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(JOIN_TIMEOUT, left).await.is_err() {
        tracing::warn!(%uuid, "the detached node still has a vote");
    }
}

async fn recover(node: &Arc<Node>, request: &Recover) -> Result<(), Error> {
    if !request.confirmed {
        return Err(Error::new(
            ErrorKind::Invalid,
            "Recovering makes this node the whole pool. It must be confirmed that the other members will not come back \
             as they are.",
        ));
    }
    let Ok(_permit) = node.membership.try_acquire() else {
        return Err(Error::new(ErrorKind::Conflict, "Another member is being taken in or out just now. Try again."));
    };
    if node.freshness().quorum {
        return Err(Error::new(ErrorKind::Conflict, "The pool has a quorum; there is nothing to recover."));
    }
    node.recover().await
}
