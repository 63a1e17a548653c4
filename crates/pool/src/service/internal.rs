//! What members ask each other.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::post;
use mortar_api::heal::NodeProgress;
use mortar_api::volume::Process;
use mortar_api::{Error, ErrorKind, Operation};
use mortar_logic::pool::{Applied, Command};
use mortar_rpc::control::SubvolumeCrawls;
use mortar_sys::brick_path::check_overlap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Caller, guarded, json, pool_of, refusal, route};
use crate::bricks::{self, Before, Place};
use crate::node::Node;
use crate::peers::{HEARTBEAT, Heartbeat, HeartbeatAnswer, Standing};
use crate::raft::{APPEND, SNAPSHOT, VOTE};
use crate::supervisor::Missing;

/// A brick process that is not up by then is reported.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(12);

macro_rules! internal {
    ($request:ty, $path:literal -> $answer:ty) => {
        impl Operation for $request {
            const PATH: &'static str = $path;
            type Answer = $answer;
        }
    };
}

/// To the leader: have this agreed on. Answers `None` when it is not the leader.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Write {
    pub command: Command,
}
internal!(Write, "internal/write" -> Option<Written>);

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Written {
    pub index: u64,
    pub applied: Applied,
}

/// Waits until the asked node has applied an entry of the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Reached {
    pub(crate) index: u64,
}
internal!(Reached, "internal/reached" -> ());

/// Bricks of a volume to be, on the asked node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Prepare {
    pub volume_id: Uuid,
    pub bricks: Vec<Place>,
    pub force: bool,
    pub step: Step,
    /// The bricks belong to the volume already and come back.
    #[serde(default)]
    pub returning: bool,
}
internal!(Prepare, "internal/bricks" -> Vec<Before>);

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    Check,
    Make,
    /// What `Make` answered, brick by brick.
    Undo {
        before: Vec<Before>,
    },
}

/// Can the asked node's bricks of the volume be started?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StartCheck {
    pub volume: String,
}
internal!(StartCheck, "internal/start-check" -> ());

/// Waits until the asked node has applied an entry and its processes follow. Answers bricks that do not run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Settle {
    pub index: u64,
    pub volume: String,
}
internal!(Settle, "internal/settle" -> Vec<Missing>);

/// The asked node's processes of a volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LocalStatus {
    pub volume: String,
    pub detail: bool,
    pub clients: bool,
}
internal!(LocalStatus, "internal/status" -> Vec<Process>);

/// Starts a heal by the asked node's heald.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LocalHeal {
    pub volume: String,
    pub full: bool,
}
internal!(LocalHeal, "internal/heal" -> ());

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LocalProgress {
    pub volume: String,
}
internal!(LocalProgress, "internal/progress" -> NodeProgress);

/// How far the asked node's part of the volume's job is; `None` when it knows nothing of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LocalRebalance {
    pub volume: String,
    pub task: Uuid,
}
internal!(LocalRebalance, "internal/rebalance" -> Option<mortar_api::rebalance::Progress>);

/// The last sweeps of this node's heald for the volume, by brick.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LocalCrawls {
    pub volume: String,
}
internal!(LocalCrawls, "internal/crawls" -> Vec<SubvolumeCrawls>);

/// The asked node is no member any more and forms a pool of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Released {}
internal!(Released, "internal/released" -> ());

pub(super) fn routes(router: Router<Arc<Node>>) -> Router<Arc<Node>> {
    let router = route(router, |node, request: Write| async move {
        let written = node.write_for_member(request.command).await?;
        Ok(written.map(|(index, applied)| Written { index, applied }))
    });
    let router = route(router, |node, request: Reached| async move {
        node.reach(request.index).await;
        Ok(())
    });
    let router = route(router, |node, request: Prepare| async move { prepare(node, request).await });
    let router = route(router, |node, request: StartCheck| async move { start_check(node, &request.volume).await });
    let router = route(router, |node, request: Settle| async move { Ok(settle(&node, &request).await) });
    let router =
        route(router, |node, request: LocalStatus| async move { Ok(super::status::local(&node, &request).await) });
    let router =
        route(router, |node, request: LocalHeal| async move { super::heal::local_heal(&node, &request).await });
    let router =
        route(
            router,
            |node, request: LocalProgress| async move { Ok(super::heal::local_progress(&node, &request).await) },
        );
    let router = route(router, |node, request: LocalRebalance| async move {
        Ok(node.jobs.progress(&node, &request.volume, request.task).await)
    });
    let router =
        route(router, |node, request: LocalCrawls| async move { Ok(super::heal::local_crawls(&node, &request).await) });
    let router = route(router, |node, _: Released| async move { released(&node).await });
    let router = guarded(router, heartbeat_admits, |node, caller, request: BeatRequest| async move {
        Ok(heartbeat(&node, caller, &request.0))
    });
    router
        .route(&format!("/v1/{APPEND}"), post(append))
        .route(&format!("/v1/{VOTE}"), post(vote))
        .route(&format!("/v1/{SNAPSHOT}"), post(snapshot))
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
struct BeatRequest(Heartbeat);

impl Operation for BeatRequest {
    const PATH: &'static str = HEARTBEAT;
    type Answer = HeartbeatAnswer;
}

/// Also a member that was detached may ask: it is told so.
fn heartbeat_admits(node: &Node, caller: Caller) -> bool {
    matches!(caller, Caller::Member { generation, .. } if generation == node.tls.current().generation)
}

fn heartbeat(node: &Node, caller: Caller, request: &Heartbeat) -> HeartbeatAnswer {
    let view = node.view();
    let pool_id = node.peers.pool_id();
    let uuid = match caller {
        Caller::Member { uuid, .. } => uuid,
        Caller::Local | Caller::Stranger { .. } => request.from,
    };
    let standing = if view.state.removed.contains(&uuid) {
        Standing::Removed
    } else if request.pool_id == pool_id {
        Standing::Member
    } else if view.state.previous_pools.contains(&request.pool_id) {
        Standing::Outdated
    } else {
        Standing::Stranger
    };
    HeartbeatAnswer { pool_id, applied: view.applied_index, standing }
}

async fn prepare(node: Arc<Node>, request: Prepare) -> Result<Vec<Before>, Error> {
    let data_dir = node.data_dir();
    let view = node.view();
    let local = node.uuid();
    tokio::task::spawn_blocking(move || {
        if matches!(request.step, Step::Check) {
            let existing = view.state.volumes.values().flat_map(|volume| &volume.bricks);
            let own = |path: &str| request.returning && request.bricks.iter().any(|place| place.path == path);
            let existing: Vec<_> = existing
                .filter(|brick| brick.node == local && !own(&brick.path))
                .map(|brick| Path::new(&brick.path))
                .collect();
            // Again, for paths that meet through symbolic links.
            for place in &request.bricks {
                check_overlap(&place.host, Path::new(&place.path), existing.iter().copied())
                    .map_err(|refusal| Error::new(ErrorKind::Invalid, refusal.to_string()))?;
            }
        }
        prepare_now(&request, &data_dir)
    })
    .await
    .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?
}

fn prepare_now(request: &Prepare, data_dir: &Path) -> Result<Vec<Before>, Error> {
    match &request.step {
        Step::Check => {
            for place in &request.bricks {
                bricks::check(place, request.force, data_dir)?;
            }
            Ok(Vec::new())
        }
        Step::Make => {
            let mut made: Vec<Before> = Vec::new();
            for place in &request.bricks {
                match bricks::make(place, request.volume_id, request.force, data_dir) {
                    Ok(before) => made.push(before),
                    Err(error) => {
                        for (place, before) in request.bricks.iter().zip(&made) {
                            bricks::undo(place, request.volume_id, before);
                        }
                        return Err(error);
                    }
                }
            }
            Ok(made)
        }
        Step::Undo { before } => {
            for (place, before) in request.bricks.iter().zip(before) {
                bricks::undo(place, request.volume_id, before);
            }
            Ok(Vec::new())
        }
    }
}

async fn start_check(node: Arc<Node>, name: &str) -> Result<(), Error> {
    let view = node.view();
    let volume = Node::find_volume(&view.state, name)?.clone();
    let local = node.uuid();
    tokio::task::spawn_blocking(move || {
        volume.bricks.iter().filter(|brick| brick.node == local && !brick.reset).try_for_each(|brick| {
            let place = Place { host: brick.host.clone(), path: brick.path.clone() };
            bricks::check_before_start(&place, &volume.name, volume.id)
        })
    })
    .await
    .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?
}

async fn settle(node: &Node, request: &Settle) -> Vec<Missing> {
    node.reach(request.index).await;
    let now = node.view();
    node.supervisor.reconcile(&now.state);
    match now.state.volumes.get(&request.volume) {
        Some(volume) if volume.state == mortar_logic::pool::VolumeState::Started => {
            node.supervisor.settle(&request.volume, SETTLE_TIMEOUT).await
        }
        Some(volume) => {
            let local = volume.bricks.iter().filter(|brick| brick.node == node.uuid());
            let paths: Vec<String> = local.map(|brick| brick.path.clone()).collect();
            node.supervisor.settle_stopped(&request.volume, &paths, SETTLE_TIMEOUT).await;
            Vec::new()
        }
        None => Vec::new(),
    }
}

async fn released(node: &Node) -> Result<(), Error> {
    let Ok(_permit) = node.membership.try_acquire() else {
        return Err(Error::new(ErrorKind::Conflict, "The node's membership is being changed just now."));
    };
    node.become_fresh().await
}

async fn append(
    State(node): State<Arc<Node>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match raft_message(&node, caller, &headers, &body) {
        Ok(request) => json(StatusCode::OK, &node.raft().append_entries(request).await),
        Err(response) => *response,
    }
}

async fn vote(
    State(node): State<Arc<Node>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match raft_message(&node, caller, &headers, &body) {
        Ok(request) => json(StatusCode::OK, &node.raft().vote(request).await),
        Err(response) => *response,
    }
}

async fn snapshot(
    State(node): State<Arc<Node>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match raft_message(&node, caller, &headers, &body) {
        Ok(request) => json(StatusCode::OK, &node.raft().install_snapshot(request).await),
        Err(response) => *response,
    }
}

/// Only members of the same pool take part: an old pool's leader must not write into the recovered one's log.
fn raft_message<Q: DeserializeOwned>(
    node: &Node,
    caller: Caller,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Q, Box<Response>> {
    if !node.admits(caller) || pool_of(headers) != Some(node.peers.pool_id()) {
        let error = Error::new(ErrorKind::Conflict, "The message is from another pool.");
        return Err(Box::new(refusal(StatusCode::FORBIDDEN, &error)));
    }
    serde_json::from_slice(body).map_err(|error| {
        let error = Error::new(ErrorKind::Invalid, error.to_string());
        Box::new(refusal(StatusCode::BAD_REQUEST, &error))
    })
}
