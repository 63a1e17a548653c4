//! Volumes: life cycle, description, options.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use mortar_api::volume as api;
use mortar_api::{Error, ErrorKind};
use mortar_logic::pool::options;
use mortar_logic::pool::{Applied, Command, Layout, NewBrick, NewVolume, State, Volume, VolumeState, check};
use mortar_sys::brick_path;
use uuid::Uuid;

use super::internal::{Prepare, Settle, StartCheck, Step};
use super::route;
use crate::bricks::{Before, Place};
use crate::getspec;
use crate::node::{Node, refusal_error};
use crate::resolve;
use crate::supervisor::Missing;
use crate::volgen::Trust;

/// How long a member may take to check or make its bricks.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(30);
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

fn changed(applied: Applied) -> api::Changed {
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
    let mut bricks = Vec::new();
    for brick in &request.bricks {
        let owner = resolve::member(&view.state, node.uuid(), node.options.listen, &brick.host).await;
        let path = clean_path(&brick.path)?;
        brick_path::check_path(&request.name, &brick.host, Path::new(&path))
            .map_err(|refusal| Error::new(ErrorKind::Invalid, refusal.to_string()))?;
        bricks.push(NewBrick { host: brick.host.clone(), node: owner, path });
    }
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
    let work = Work::of(&view.state, &new);
    work.everywhere(node, &Step::Check).await.map_err(|failed| failed.named(node, &view.state, "Pre Validation"))?;
    let mut made: Vec<(Uuid, Vec<Before>)> = Vec::new();
    for (owner, places) in &work.places {
        match work.on(node, *owner, places, Step::Make).await {
            Ok(before) => made.push((*owner, before)),
            Err(failed) => {
                work.undo(node, made).await;
                return Err(failed.named(node, &view.state, "Commit"));
            }
        }
    }
    match node.write(command).await {
        Ok(applied) => Ok(changed(applied)),
        Err(error) => {
            work.undo(node, made).await;
            Err(error)
        }
    }
}

/// Without double and trailing slashes, and nothing that a volfile or a file name could not hold.
fn clean_path(path: &str) -> Result<String, Error> {
    let invalid = |why: &str| Error::new(ErrorKind::Invalid, format!("brick path {path} {why}"));
    if !path.starts_with('/') {
        return Err(invalid("is not absolute"));
    }
    if path
        .chars()
        .any(|character| character.is_control() || character.is_whitespace() || matches!(character, '"' | '`' | '\\'))
    {
        return Err(invalid("contains white space, quotes or control characters"));
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if parts.iter().any(|part| matches!(*part, "." | "..")) {
        return Err(invalid("contains . or .."));
    }
    if parts.is_empty() {
        return Err(invalid("is the root directory"));
    }
    Ok(format!("/{}", parts.join("/")))
}

/// The bricks of a volume to be, by the member that owns them.
struct Work {
    volume_id: Uuid,
    force: bool,
    places: BTreeMap<Uuid, Vec<Place>>,
}

/// A member said no, or nothing.
struct Failed {
    owner: Uuid,
    host: String,
    error: Error,
}

impl Failed {
    /// What happened elsewhere is said with the place (`glusterd-mgmt.c: gd_mgmt_v3_collate_errors`).
    fn named(self, node: &Node, state: &State, phase: &str) -> Error {
        if self.owner == node.uuid() {
            return self.error;
        }
        let known = state.members.get(&self.owner).map_or(self.host, |member| member.hostname.clone());
        match self.error.kind {
            ErrorKind::Unreachable => Error::new(ErrorKind::Unreachable, format!("Host {known} not connected")),
            _ => Error { message: format!("{phase} failed on {known}. {}", self.error.message), ..self.error },
        }
    }
}

impl Work {
    fn of(state: &State, new: &NewVolume) -> Self {
        let mut places: BTreeMap<Uuid, Vec<Place>> = BTreeMap::new();
        for brick in &new.bricks {
            if let Some(owner) = brick.node.filter(|owner| state.members.contains_key(owner)) {
                places.entry(owner).or_default().push(Place { host: brick.host.clone(), path: brick.path.clone() });
            }
        }
        Self { volume_id: new.id, force: new.force, places }
    }

    async fn everywhere(&self, node: &Node, step: &Step) -> Result<(), Failed> {
        // This node's own answer counts first, as with GlusterFS.
        let (own, others): (Vec<_>, Vec<_>) = self.places.iter().partition(|(owner, _)| **owner == node.uuid());
        for (owner, places) in own.into_iter().chain(others) {
            self.on(node, *owner, places, step.clone()).await?;
        }
        Ok(())
    }

    async fn on(&self, node: &Node, owner: Uuid, places: &[Place], step: Step) -> Result<Vec<Before>, Failed> {
        let request = Prepare { volume_id: self.volume_id, bricks: places.to_vec(), force: self.force, step };
        ask(node, owner, &request, PREPARE_TIMEOUT).await.map_err(|error| Failed {
            owner,
            host: places.first().map(|place| place.host.clone()).unwrap_or_default(),
            error,
        })
    }

    async fn undo(&self, node: &Node, made: Vec<(Uuid, Vec<Before>)>) {
        for (owner, before) in made {
            let Some(places) = self.places.get(&owner) else { continue };
            if let Err(failed) = self.on(node, owner, places, Step::Undo { before }).await {
                tracing::warn!(%owner, error = %failed.error, "the new bricks could not be undone");
            }
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
struct Settled {
    warnings: Vec<String>,
    /// The first brick that ended at its start, with its owner.
    failed: Option<(Uuid, String)>,
}

/// Waits until the members' processes have followed a change.
async fn settle(node: &Node, volume: &Volume) -> Settled {
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

#[cfg(test)]
mod tests {
    use super::clean_path;

    #[test]
    fn paths_are_cleaned_or_refused() {
        assert_eq!(clean_path("//srv//gfs/brick/").expect("is fit"), "/srv/gfs/brick");
        for bad in ["srv", "/", "/a b", "/a\nb", "/a/../b", "/a`x`", "/\""] {
            assert!(clean_path(bad).is_err(), "{bad}");
        }
    }
}
