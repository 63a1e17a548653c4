//! Keeps the consensus's members as the configuration has them, from the leader; and follows what others say of this
//! node.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mortar_logic::pool::{Command, Member};
use openraft::{BasicNode, ChangeMembers};
use uuid::Uuid;

use crate::node::Node;
use crate::peers::{HeartbeatAnswer, Standing};

/// More voters make changes slower and survive no more realistic failures.
const VOTERS_MAX: usize = 5;
const INTERVAL: Duration = Duration::from_millis(500);
/// A change of membership needs the members that it adds; one that is gone again must not hold up the loop.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs until dropped.
pub(crate) async fn keep_membership(node: Arc<Node>) {
    let mut view = node.watch_view();
    let mut changes = node.peers.changes();
    let mut leader = None;
    let mut failed = false;
    loop {
        let metrics = node.metrics();
        if metrics.current_leader != leader {
            leader = metrics.current_leader;
            tracing::info!(leader = leader.map(tracing::field::display), term = metrics.current_term, "leader");
        }
        if metrics.running_state.is_err() != failed {
            failed = metrics.running_state.is_err();
            if let Err(fatal) = &metrics.running_state {
                tracing::error!(%fatal, "the pool's consensus has stopped; data is served, but restart the daemon");
            }
        }
        if leader == Some(node.uuid())
            && let Some(change) = next_change(&node)
        {
            apply(&node, change).await;
            continue;
        }
        tokio::select! {
            _ = view.changed() => {}
            _ = changes.changed() => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
        update_own_record(&node).await;
    }
}

fn address(member: &Member) -> BasicNode {
    BasicNode::new(format!("{}:{}", member.hostname, member.peer_port))
}

/// The first difference between the configuration's members and the consensus's; one change at a time.
fn next_change(node: &Node) -> Option<ChangeMembers<Uuid, BasicNode>> {
    let view = node.view();
    let metrics = node.metrics();
    let membership = metrics.membership_config.membership().clone();
    // A change is under way.
    if membership.get_joint_config().len() > 1 || view.state.members.is_empty() {
        return None;
    }
    let voters: BTreeSet<Uuid> = membership.voter_ids().collect();
    let learners: BTreeSet<Uuid> = membership.learner_ids().collect();
    let members = &view.state.members;
    let gone: BTreeSet<Uuid> = voters.iter().filter(|voter| !members.contains_key(voter)).copied().collect();
    if !gone.is_empty() && gone.len() < voters.len() {
        return Some(ChangeMembers::RemoveVoters(gone));
    }
    let gone: BTreeSet<Uuid> = learners.iter().filter(|learner| !members.contains_key(learner)).copied().collect();
    if !gone.is_empty() {
        return Some(ChangeMembers::RemoveNodes(gone));
    }
    let reachable = |uuid: &Uuid| node.peers.is_connected(*uuid);
    let new = members.values().find(|member| membership.get_node(&member.uuid).is_none() && reachable(&member.uuid));
    if let Some(member) = new {
        return Some(ChangeMembers::AddNodes([(member.uuid, address(member))].into()));
    }
    // A learner votes as soon as it has what is applied here; before, its vote would only hold up changes.
    let applied = view.applied_index;
    let caught_up = |uuid: &Uuid| reachable(uuid) && node.peers.applied_by(*uuid) + 1 >= applied;
    let promoted = learners.iter().find(|learner| voters.len() < VOTERS_MAX && caught_up(learner));
    promoted.map(|learner| ChangeMembers::AddVoterIds([*learner].into()))
}

async fn apply(node: &Node, change: ChangeMembers<Uuid, BasicNode>) {
    tracing::info!(?change, "membership");
    let raft = node.raft();
    // Voters that are removed do not stay as learners.
    let changing = raft.change_membership(change, false);
    match tokio::time::timeout(CHANGE_TIMEOUT, changing).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            tracing::info!(%error, "the membership is not changed yet");
            tokio::time::sleep(INTERVAL).await;
        }
        Err(_) => tracing::info!("the membership change takes long"),
    }
}

/// Tells the pool when this node listens elsewhere than it knows.
async fn update_own_record(node: &Node) {
    let view = node.view();
    let Some(known) = view.state.members.get(&node.uuid()) else { return };
    let own = node.own_member();
    if (known.port, known.peer_port) == (own.port, own.peer_port) || !node.freshness().quorum {
        return;
    }
    let member = Member { port: own.port, peer_port: own.peer_port, ..known.clone() };
    if let Err(error) = node.write(Command::UpdateMember { member }).await {
        tracing::info!(%error, "the pool does not know the new ports yet");
    }
}

/// Another member says that this node is not one any more.
pub(crate) fn hear_standing(node: &Arc<Node>, from: Uuid, answer: &HeartbeatAnswer) {
    let Ok(permit) = node.membership.try_acquire() else { return };
    match answer.standing {
        Standing::Member | Standing::Stranger => return,
        Standing::Removed | Standing::Outdated => {}
    }
    permit.forget();
    let node = Arc::clone(node);
    let answer = answer.clone();
    tokio::spawn(async move {
        let done = match answer.standing {
            Standing::Removed => {
                tracing::warn!(%from, "this node was detached from its pool");
                node.become_fresh().await
            }
            _ => {
                tracing::warn!(%from, pool = %answer.pool_id, "the pool was recovered; joining it again");
                let authority = node.identity().authority;
                node.join(answer.pool_id, authority).await
            }
        };
        if let Err(error) = done {
            tracing::error!(%error, "leaving the old pool failed");
        }
        node.membership.add_permits(1);
    });
}
