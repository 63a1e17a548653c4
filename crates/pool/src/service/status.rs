//! What runs where: gathered from all members, with those that do not answer in time shown as offline.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use mortar_api::volume::{BrickRef, Process, ProcessKind, Status, VolumeStatus};
use mortar_api::{Error, ErrorKind};
use mortar_logic::pool::{State, Volume, VolumeState};
use mortar_rpc::control::{Client, StatusReply};
use uuid::Uuid;

use super::internal::LocalStatus;
use super::route;
use super::volume::ask;
use crate::node::Node;
use crate::supervisor::{Key, Running, heals};

/// Status must come fast; who has not answered by then is shown as offline.
const MEMBER_TIMEOUT: Duration = Duration::from_secs(1);
/// Asking every brick for its file system or its clients takes longer.
const DETAIL_TIMEOUT: Duration = Duration::from_secs(4);
const CONTROL_TIMEOUT: Duration = Duration::from_millis(700);

pub(super) fn routes(router: Router<Arc<Node>>) -> Router<Arc<Node>> {
    route(router, |node, request: Status| async move { status(&node, &request).await })
}

pub(super) async fn status(node: &Node, request: &Status) -> Result<Vec<VolumeStatus>, Error> {
    let view = node.view();
    let volumes: Vec<&Volume> = match request.name.as_deref() {
        Some(name) if name != "all" => {
            let volume = Node::find_volume(&view.state, name)?;
            if volume.state != VolumeState::Started {
                return Err(Error::new(ErrorKind::Conflict, format!("Volume {name} is not started")));
            }
            vec![volume]
        }
        _ => view.state.volumes.values().filter(|volume| volume.state == VolumeState::Started).collect(),
    };
    let mut answer = Vec::new();
    for volume in volumes {
        answer.push(of_volume(node, &view.state, volume, request).await?);
    }
    Ok(answer)
}

async fn of_volume(node: &Node, state: &State, volume: &Volume, request: &Status) -> Result<VolumeStatus, Error> {
    let asked = LocalStatus { volume: volume.name.clone(), detail: request.detail, clients: request.clients };
    let limit = if request.detail || request.clients { DETAIL_TIMEOUT } else { MEMBER_TIMEOUT };
    let members: Vec<Uuid> = members_of(node, state, volume);
    let answers = members.iter().map(|member| {
        let asked = &asked;
        async move {
            if *member == node.uuid() {
                return local(node, asked).await;
            }
            if !node.peers.is_connected(*member) {
                return Vec::new();
            }
            ask(node, *member, asked, limit).await.unwrap_or_default()
        }
    });
    let found: Vec<Process> = futures::future::join_all(answers).await.into_iter().flatten().collect();
    let mut processes: Vec<Process> = Vec::new();
    for brick in &volume.bricks {
        let known = found.iter().find(|process| {
            process.kind == ProcessKind::Brick && process.peer_id == brick.node && process.path == brick.path
        });
        processes.push(known.cloned().unwrap_or_else(|| offline_brick(&brick.host, &brick.path, brick.node)));
    }
    let daemons = found.into_iter().filter(|process| process.kind == ProcessKind::SelfHealDaemon);
    processes.extend(daemons.map(|process| named(node, state, process)));
    if let Some(brick) = &request.brick {
        processes = only(processes, brick, &volume.name)?;
    }
    Ok(VolumeStatus { name: volume.name.clone(), processes, tasks: super::rebalance::listed(volume) })
}

fn only(processes: Vec<Process>, brick: &BrickRef, volume: &str) -> Result<Vec<Process>, Error> {
    let found: Vec<Process> = processes
        .into_iter()
        .filter(|process| {
            process.kind == ProcessKind::Brick && process.host == brick.host && process.path == brick.path
        })
        .collect();
    if found.is_empty() {
        return Err(Error::new(ErrorKind::NotFound, format!("No brick {brick} in volume {volume}")));
    }
    Ok(found)
}

/// This node first, then the others that have bricks or heal.
fn members_of(node: &Node, state: &State, volume: &Volume) -> Vec<Uuid> {
    let mut members = vec![node.uuid()];
    let has_part = |uuid: &Uuid| heals(volume) || volume.bricks.iter().any(|brick| brick.node == *uuid);
    members.extend(state.members.keys().copied().filter(|uuid| *uuid != node.uuid() && has_part(uuid)));
    members
}

fn offline_brick(host: &str, path: &str, node: Uuid) -> Process {
    Process {
        kind: ProcessKind::Brick,
        host: host.to_owned(),
        path: path.to_owned(),
        peer_id: node,
        port: None,
        online: false,
        pid: None,
        detail: None,
        clients: Vec::new(),
    }
}

/// Daemons are named as this node knows their host.
fn named(node: &Node, state: &State, process: Process) -> Process {
    let host = if process.peer_id == node.uuid() {
        "localhost".to_owned()
    } else {
        state.members.get(&process.peer_id).map_or(process.host, |member| member.hostname.clone())
    };
    Process { host, ..process }
}

/// This node's processes of a volume.
pub(super) async fn local(node: &Node, request: &LocalStatus) -> Vec<Process> {
    let view = node.view();
    let Some(volume) = view.state.volumes.get(&request.volume) else { return Vec::new() };
    let mut processes = Vec::new();
    for brick in volume.bricks.iter().filter(|brick| brick.node == node.uuid()) {
        let key = Key::Brick { volume: volume.name.clone(), path: brick.path.clone() };
        let mut process = offline_brick(&brick.host, &brick.path, brick.node);
        if let Some(running) = node.supervisor.running(&key) {
            process = online(process, &running);
            if request.detail || request.clients {
                let control = node.paths.brick_control(&volume.name, &brick.path);
                if let Some(status) = asked(&control, request).await {
                    process.detail = status.detail;
                    process.clients = status.clients;
                }
            }
        }
        processes.push(process);
    }
    if heals(volume) {
        let daemon = Process { kind: ProcessKind::SelfHealDaemon, ..offline_brick("localhost", "", node.uuid()) };
        processes.push(match node.supervisor.running(&Key::Heald) {
            Some(running) => online(daemon, &running),
            None => daemon,
        });
    }
    processes
}

fn online(process: Process, running: &Running) -> Process {
    Process { online: true, pid: Some(running.pid), port: running.port, ..process }
}

async fn asked(control: &std::path::Path, request: &LocalStatus) -> Option<StatusReply> {
    let asking = async {
        let client = Client::connect(control).await.ok()?;
        client.status(request.detail, request.clients).await.ok()
    };
    tokio::time::timeout(CONTROL_TIMEOUT, asking).await.ok().flatten()
}
