//! Heal: commands go to the healds of all members; what is pending is asked of the bricks.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use mortar_api::heal::{
    Action, BrickCrawls, BrickPending, Heal, Info, NodeProgress, Progress, Settle, Settled, Statistics, Verified,
    Verify,
};
use mortar_api::volume::BrickRef;
use mortar_api::{Error, ErrorKind};
use mortar_logic::pool::{Command, Volume, VolumeState};
use mortar_rpc::control::{Client, Request, SubvolumeCrawls};

use super::internal::{LocalCrawls, LocalHeal, LocalProgress};
use super::route;
use super::volume::ask;
use crate::node::Node;

const MEMBER_TIMEOUT: Duration = Duration::from_secs(5);
const CONTROL_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) fn routes(router: Router<Arc<Node>>) -> Router<Arc<Node>> {
    let router = route(router, |node, request: Heal| async move { heal(&node, request).await });
    let router = route(router, |node, request: Info| async move { info(&node, &request).await });
    let router = route(router, |node, request: Settle| async move { settle(&node, &request).await });
    let router = route(router, |node, request: Verify| async move { verify(&node, &request).await });
    let router = route(router, |node, request: Statistics| async move { statistics(&node, &request).await });
    route(router, |node, request: Progress| async move { progress(&node, &request).await })
}

fn healable(volume: &Volume) -> Result<&Volume, Error> {
    if volume.is_replicate() {
        return Ok(volume);
    }
    Err(Error::new(ErrorKind::Invalid, format!("Volume {} is not of type replicate/disperse", volume.name)))
}

fn started(volume: &Volume) -> Result<(), Error> {
    if volume.state == VolumeState::Started {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Conflict, format!("Volume {} is not started.", volume.name)))
}

async fn heal(node: &Node, request: Heal) -> Result<(), Error> {
    let view = node.view();
    let volume = healable(Node::find_volume(&view.state, &request.volume)?)?;
    let switch = match request.action {
        Action::Index | Action::Full => {
            started(volume)?;
            return run(node, volume, request.action == Action::Full).await;
        }
        Action::Enable => ("cluster.self-heal-daemon", "enable"),
        Action::Disable => ("cluster.self-heal-daemon", "disable"),
        Action::GranularEnable => ("cluster.granular-entry-heal", "enable"),
        Action::GranularDisable => ("cluster.granular-entry-heal", "disable"),
    };
    let (key, value) = (switch.0.to_owned(), switch.1.to_owned());
    node.write(Command::SetHealOption { volume: request.volume, key, value }).await.map(|_| ())
}

pub(super) async fn run(node: &Node, volume: &Volume, full: bool) -> Result<(), Error> {
    if !crate::supervisor::heals(volume) {
        return Err(Error::new(
            ErrorKind::Conflict,
            "Self-heal-daemon is disabled. Heal will not be triggered on volume ".to_owned() + &volume.name,
        ));
    }
    let view = node.view();
    let request = LocalHeal { volume: volume.name.clone(), full };
    let mut failed = Vec::new();
    let mut launched = false;
    for member in view.state.members.values() {
        if !node.peers.is_connected(member.uuid) {
            continue;
        }
        match ask(node, member.uuid, &request, MEMBER_TIMEOUT).await {
            Ok(()) => launched = true,
            Err(error) => failed.push(format!("{}: {}", member.hostname, error.message)),
        }
    }
    if launched && failed.is_empty() {
        return Ok(());
    }
    let words = if failed.is_empty() { "Self-heal daemon is not running.".to_owned() } else { failed.join("; ") };
    Err(Error::new(
        ErrorKind::Unreachable,
        format!("Self-heal daemon is not running. Check self-heal daemon log file. {words}"),
    ))
}

/// This node's heald is told to heal.
pub(super) async fn local_heal(node: &Node, request: &LocalHeal) -> Result<(), Error> {
    let order = Request::Heal { volume: request.volume.clone(), full: request.full };
    let ordering = async {
        let client = Client::connect(&node.paths.heald_control()).await.map_err(|error| error.to_string())?;
        client.order(&order).await.map_err(|error| error.to_string())
    };
    tokio::time::timeout(CONTROL_TIMEOUT, ordering)
        .await
        .unwrap_or_else(|_| Err("heald does not answer in time".to_owned()))
        .map_err(|error| Error::new(ErrorKind::Unreachable, error))
}

pub(super) async fn local_progress(node: &Node, request: &LocalProgress) -> NodeProgress {
    let asking = async {
        let client = Client::connect(&node.paths.heald_control()).await.ok()?;
        client.progress(&request.volume).await.ok()
    };
    let progress = tokio::time::timeout(CONTROL_TIMEOUT, asking).await.ok().flatten().unwrap_or_default();
    NodeProgress { host: node.options.own_name(), ..progress }
}

async fn progress(node: &Node, request: &Progress) -> Result<Vec<NodeProgress>, Error> {
    let view = node.view();
    healable(Node::find_volume(&view.state, &request.volume)?)?;
    let asked = LocalProgress { volume: request.volume.clone() };
    let connected = view.state.members.values().filter(|member| node.peers.is_connected(member.uuid));
    let answers = connected.map(|member| {
        let asked = &asked;
        async move {
            let answer = ask(node, member.uuid, asked, MEMBER_TIMEOUT).await.unwrap_or_default();
            NodeProgress { host: member.hostname.clone(), ..answer }
        }
    });
    Ok(futures::future::join_all(answers).await)
}

async fn info(node: &Node, request: &Info) -> Result<Vec<BrickPending>, Error> {
    let view = node.view();
    let volume = healable(Node::find_volume(&view.state, &request.volume)?)?;
    started(volume)?;
    crate::heal_info::pending(node, volume).await
}

async fn settle(node: &Node, request: &Settle) -> Result<Vec<Settled>, Error> {
    let view = node.view();
    let volume = healable(Node::find_volume(&view.state, &request.volume)?)?;
    started(volume)?;
    crate::heal_info::settle(node, volume, request).await
}

async fn verify(node: &Node, request: &Verify) -> Result<Verified, Error> {
    let view = node.view();
    let volume = healable(Node::find_volume(&view.state, &request.volume)?)?;
    started(volume)?;
    crate::heal_info::verify(node, volume).await
}

pub(super) async fn local_crawls(node: &Node, request: &LocalCrawls) -> Vec<SubvolumeCrawls> {
    let asking = async {
        let client = Client::connect(&node.paths.heald_control()).await.ok()?;
        client.crawls(&request.volume).await.ok()
    };
    // A heald that is not there has swept nothing.
    tokio::time::timeout(CONTROL_TIMEOUT, asking).await.ok().flatten().unwrap_or_default()
}

async fn statistics(node: &Node, request: &Statistics) -> Result<Vec<BrickCrawls>, Error> {
    let view = node.view();
    let volume = healable(Node::find_volume(&view.state, &request.volume)?)?;
    started(volume)?;
    let asked = LocalCrawls { volume: request.volume.clone() };
    let connected = view.state.members.values().filter(|member| node.peers.is_connected(member.uuid));
    let answers = connected.map(|member| ask(node, member.uuid, &asked, MEMBER_TIMEOUT));
    let told: Vec<SubvolumeCrawls> =
        futures::future::join_all(answers).await.into_iter().flat_map(Result::unwrap_or_default).collect();
    let of_brick = |(brick, subvolume): (&mortar_logic::pool::Brick, String)| BrickCrawls {
        brick: BrickRef { host: brick.host.clone(), path: brick.path.clone() },
        crawls: told.iter().filter(|of| of.subvolume == subvolume).flat_map(|of| of.crawls.clone()).collect(),
    };
    let names = volume.bricks.iter().map(|brick| (brick, brick.brick_id.clone()));
    Ok(names.map(of_brick).collect())
}
