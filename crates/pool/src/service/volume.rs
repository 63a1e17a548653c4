//! Volumes: life cycle, description, options.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use mortar_api::volume as api;
use mortar_api::{Error, ErrorKind};
use mortar_logic::pool::options;
use mortar_logic::pool::{Applied, Command, Layout, NewVolume, State, Volume, VolumeState, check};
use uuid::Uuid;

use super::internal::{Settle, StartCheck};
use super::placing::{self, Failed, PREPARE_TIMEOUT, Work};
use super::route;
use crate::getspec;
use crate::node::{Node, refusal_error};
use crate::supervisor::Missing;
use crate::volgen::Trust;

/// How long a start waits for members to bring their bricks up.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) fn routes(router: Router<Arc<Node>>) -> Router<Arc<Node>> {
    let router = route(router, |node, request: api::Create| async move { create(&node, request).await });
    let router = route(router, |node, request: api::Start| async move { start(&node, &request).await });
    let router = route(router, |node, request: api::Stop| async move { stop(&node, &request).await });
    let router = route(router, |node, request: api::Delete| async move { delete(&node, request).await });
    let router = route(router, |node, request: api::Info| async move { info(&node, &request) });
    let router = route(router, |node, _: api::Names| async move { Ok(names(&node)) });
    let router = route(router, |node, request: api::Set| async move { set(&node, request).await });
    let router = route(router, |node, request: api::Reset| async move { reset(&node, request).await });
    let router = route(router, |node, request: api::Get| async move { get(&node, &request) });
    let router = route(router, |_, _: api::OptionHelp| async move { Ok(option_help()) });
    route(router, |node, request: api::GetSpec| async move { get_spec(&node, &request) })
}

pub(super) fn changed(applied: Applied) -> api::Changed {
    let (name, id) = applied.volume.unwrap_or_else(|| ("all".to_owned(), Uuid::nil()));
    api::Changed { name, id, warnings: applied.warnings }
}

const fn layout_of(layout: api::Layout) -> Layout {
    match layout {
        api::Layout::Distribute => Layout::Distribute,
        api::Layout::Replicate { replica, arbiter } => Layout::Replicate { replica, arbiter },
        api::Layout::Disperse { data, redundancy } => Layout::Disperse { data, redundancy },
    }
}

const fn api_layout(layout: Layout) -> api::Layout {
    match layout {
        Layout::Distribute => api::Layout::Distribute,
        Layout::Replicate { replica, arbiter } => api::Layout::Replicate { replica, arbiter },
        Layout::Disperse { data, redundancy } => api::Layout::Disperse { data, redundancy },
    }
}

async fn create(node: &Node, request: api::Create) -> Result<api::Changed, Error> {
    let view = node.view();
    let bricks = placing::named(node, &view.state, &request.name, &request.bricks).await?;
    let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let new = NewVolume {
        name: request.name,
        id: Uuid::new_v4(),
        layout: layout_of(request.layout),
        bricks,
        force: request.force,
        username: Uuid::new_v4(),
        password: Uuid::new_v4(),
        created_ms: u64::try_from(created.as_millis()).unwrap_or(u64::MAX),
    };
    let command = Command::CreateVolume(new.clone());
    check(&view.state, &command).map_err(|refusal| refusal_error(&refusal))?;
    let work = Work::of(&view.state, new.id, new.force, &new.bricks);
    let made = work.make(node, &view.state).await?;
    match node.write(command).await {
        Ok(applied) => Ok(changed(applied)),
        Err(error) => {
            work.undo(node, made).await;
            Err(error)
        }
    }
}

/// Asks a member, or this node itself over its own pool port.
pub(super) async fn ask<O: mortar_api::Operation>(
    node: &Node,
    owner: Uuid,
    request: &O,
    limit: Duration,
) -> Result<O::Answer, Error> {
    if owner == node.uuid() {
        node.peers.set_address(owner, own_address(node));
    }
    match tokio::time::timeout(limit, node.channel(owner).call(request)).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Error::new(ErrorKind::Unreachable, "the member does not answer in time")),
    }
}

fn own_address(node: &Node) -> String {
    let listen = node.options.listen;
    let address = if listen.is_unspecified() { std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST) } else { listen };
    std::net::SocketAddr::new(address, node.options.peer_port).to_string()
}

/// Members that own bricks of the volume.
fn owners(volume: &Volume) -> Vec<Uuid> {
    let mut owners: Vec<Uuid> = volume.bricks.iter().map(|brick| brick.node).collect();
    owners.sort_unstable();
    owners.dedup();
    owners
}

async fn start(node: &Node, request: &api::Start) -> Result<api::Changed, Error> {
    let view = node.view();
    let command = Command::StartVolume { name: request.name.clone(), force: request.force };
    check(&view.state, &command).map_err(|refusal| refusal_error(&refusal))?;
    let volume = Node::find_volume(&view.state, &request.name)?;
    for owner in owners(volume) {
        let checked = ask(node, owner, &StartCheck { volume: request.name.clone() }, PREPARE_TIMEOUT).await;
        match checked {
            Ok(()) => {}
            // A member that is away starts its bricks when it is back.
            Err(error) if error.kind == ErrorKind::Unreachable => {
                tracing::info!(%owner, %error, "a member's bricks are not checked before the start");
            }
            // A missing brick must not keep the others down when the admin insists.
            Err(error) if request.force => tracing::warn!(%owner, %error, "starting all the same"),
            Err(error) => {
                let host = volume.bricks.iter().find(|brick| brick.node == owner).map(|brick| brick.host.clone());
                let failed = Failed { owner, host: host.unwrap_or_default(), error };
                return Err(failed.named(node, &view.state, "Pre Validation"));
            }
        }
    }
    let mut answer = changed(node.write(command).await?);
    let settled = settle(node, volume).await;
    if let Some((owner, failed)) = settled.failed
        && !request.force
    {
        // A volume that is said to be started while a brick cannot start would be tried again for ever.
        node.write(Command::StopVolume { name: request.name.clone(), force: true }).await?;
        let host = volume.bricks.iter().find(|brick| brick.node == owner).map(|brick| brick.host.clone());
        let host = if owner == node.uuid() { "localhost".to_owned() } else { host.unwrap_or_default() };
        let message = format!("Commit failed on {host}. Please check log file for details.");
        let hint =
            format!("{failed}\nMend it, or start the other bricks with: mortar volume start {} force", request.name);
        return Err(Error::new(ErrorKind::Conflict, message).with_hint(hint));
    }
    answer.warnings.extend(settled.warnings);
    Ok(answer)
}

/// What became of the processes after a change.
#[derive(Default)]
pub(super) struct Settled {
    pub(super) warnings: Vec<String>,
    /// The first brick that ended at its start, with its owner.
    failed: Option<(Uuid, String)>,
}

/// Waits until the members' processes have followed a change.
pub(super) async fn settle(node: &Node, volume: &Volume) -> Settled {
    let index = node.view().applied_index;
    let asked = owners(volume).into_iter().filter(|owner| node.peers.is_connected(*owner)).map(|owner| async move {
        let request = Settle { index, volume: volume.name.clone() };
        (owner, ask(node, owner, &request, SETTLE_TIMEOUT).await)
    });
    let mut settled = Settled::default();
    for (owner, answered) in futures::future::join_all(asked).await {
        let missing = match answered {
            Ok(missing) => missing,
            Err(error) => {
                settled.warnings.push(error.message);
                continue;
            }
        };
        for Missing { name, why } in missing {
            let text = why.as_ref().map_or_else(
                || format!("{name} is not running yet; see its log"),
                |why| format!("{name} did not start: {why}"),
            );
            if why.is_some() && settled.failed.is_none() {
                settled.failed = Some((owner, text.clone()));
            }
            settled.warnings.push(text);
        }
    }
    settled
}

async fn stop(node: &Node, request: &api::Stop) -> Result<api::Changed, Error> {
    let view = node.view();
    let applied = node.write(Command::StopVolume { name: request.name.clone(), force: request.force }).await?;
    let mut answer = changed(applied);
    if let Some(volume) = view.state.volumes.get(&request.name) {
        answer.warnings.extend(settle(node, volume).await.warnings);
    }
    Ok(answer)
}

async fn delete(node: &Node, request: api::Delete) -> Result<api::Changed, Error> {
    let applied = node.write(Command::DeleteVolume { name: request.name }).await?;
    Ok(changed(applied))
}

fn info(node: &Node, request: &api::Info) -> Result<api::Volumes, Error> {
    let view = node.view();
    let volumes = match &request.name {
        Some(name) => vec![described(Node::find_volume(&view.state, name)?)],
        None => view.state.volumes.values().map(described).collect(),
    };
    Ok(api::Volumes { volumes, freshness: node.freshness() })
}

fn described(volume: &Volume) -> api::Volume {
    api::Volume {
        name: volume.name.clone(),
        id: volume.id,
        state: match volume.state {
            VolumeState::Created => api::State::Created,
            VolumeState::Started => api::State::Started,
            VolumeState::Stopped => api::State::Stopped,
        },
        layout: api_layout(volume.layout),
        bricks: volume
            .bricks
            .iter()
            .map(|brick| api::Brick {
                at: api::BrickRef { host: brick.host.clone(), path: brick.path.clone() },
                host_uuid: brick.node,
                arbiter: brick.arbiter,
                brick_id: brick.brick_id.clone(),
                decommissioned: brick.decommissioned,
                reset: brick.reset,
            })
            .collect(),
        options: volume.options.iter().rev().cloned().collect(),
        snapshot_count: 0,
    }
}

fn names(node: &Node) -> Vec<String> {
    node.view().state.volumes.keys().cloned().collect()
}

async fn set(node: &Node, request: api::Set) -> Result<api::Changed, Error> {
    let command = Command::SetOptions { volume: request.name, options: request.options };
    check(&node.view().state, &command).map_err(|refusal| refusal_error(&refusal))?;
    node.write(command).await.map(changed)
}

async fn reset(node: &Node, request: api::Reset) -> Result<api::Changed, Error> {
    let command = Command::ResetOptions { volume: request.name, key: request.key, force: request.force };
    check(&node.view().state, &command).map_err(|refusal| refusal_error(&refusal))?;
    node.write(command).await.map(changed)
}

fn get(node: &Node, request: &api::Get) -> Result<Vec<api::OptionValue>, Error> {
    let view = node.view();
    if request.name == "all" {
        return get_pool_option(&view.state, &request.key);
    }
    let volume = Node::find_volume(&view.state, &request.name)?;
    if request.key == "all" {
        // Keys of two translators are listed twice, as there.
        return Ok(options::all().iter().filter_map(|known| value_of(volume, known)).collect());
    }
    if request.key.starts_with("user.") {
        let value = volume.option(&request.key).map(|value| (value.to_owned(), false));
        let (value, default) = value.unwrap_or_else(|| ("(null)".to_owned(), true));
        return Ok(vec![api::OptionValue { key: request.key.clone(), value, default }]);
    }
    let known = options::complete(&request.key).ok_or_else(|| no_such_option(&request.key))?;
    Ok(value_of(volume, known).into_iter().collect())
}

fn value_of(volume: &Volume, known: &options::Known) -> Option<api::OptionValue> {
    let key = known.key.to_owned();
    if let Some(value) = volume.option(known.key) {
        return Some(api::OptionValue { key, value: value.to_owned(), default: false });
    }
    // On replicated volumes only, where it was set at creation.
    let (value, default) = match (known.key, volume.is_replicate()) {
        ("performance.client-io-threads", false) => ("on", false),
        _ => known.shown()?,
    };
    Some(api::OptionValue { key, value: value.to_owned(), default })
}

fn no_such_option(key: &str) -> Error {
    let hint = mortar_logic::pool::hint::did_you_mean(key);
    let hint = hint.map_or_else(String::new, |hint| format!("\nDid you mean {hint}?"));
    Error::new(ErrorKind::NotFound, format!("Option {key} does not exist{hint}"))
}

/// Values of pool-wide options that nothing has set (`glusterd-op-sm.c: valid_all_vol_opts`).
const POOL_DEFAULTS: &[(&str, &str)] = &[
    ("cluster.server-quorum-ratio", "51"),
    ("cluster.enable-shared-storage", "disable"),
    ("cluster.op-version", "100000"),
    ("cluster.max-op-version", "100000"),
    ("cluster.brick-multiplex", "disable"),
    ("cluster.max-bricks-per-process", "250"),
    ("glusterd.vol_count_per_thread", "100"),
    ("cluster.localtime-logging", "disable"),
    ("cluster.daemon-log-level", "INFO"),
];

fn get_pool_option(state: &State, key: &str) -> Result<Vec<api::OptionValue>, Error> {
    let value = |(key, default): &(&str, &str)| {
        let set = state.global_options.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone());
        api::OptionValue {
            key: (*key).to_owned(),
            default: set.is_none(),
            value: set.unwrap_or_else(|| (*default).to_owned()),
        }
    };
    if key == "all" {
        return Ok(POOL_DEFAULTS.iter().map(value).collect());
    }
    let known = options::complete(key).ok_or_else(|| no_such_option(key))?;
    match POOL_DEFAULTS.iter().find(|(name, _)| *name == known.key) {
        Some(entry) => Ok(vec![value(entry)]),
        None => Err(Error::new(ErrorKind::Invalid, "Not a valid option for all volumes")),
    }
}

fn option_help() -> BTreeMap<String, String> {
    let documented = options::all().iter().filter(|known| known.documented);
    documented.filter_map(|known| known.shown().map(|(value, _)| (known.key.to_owned(), value.to_owned()))).collect()
}

fn get_spec(node: &Node, request: &api::GetSpec) -> Result<String, Error> {
    let view = node.view();
    getspec::volfile(&view.state, &request.volfile_id, Trust::Trusted, &node.paths.data).map_err(|errno| {
        Error::new(ErrorKind::NotFound, format!("Failed to get volfile for {}: {}", request.volfile_id, errno.text()))
    })
}
