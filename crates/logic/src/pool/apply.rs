//! Commands and what they do to the state.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::change::{self, AddBricks, Removal, ReplaceBrick, Report, Reset, StartRemoval, StartTask, Steer};
use super::options::{self, Scope};
use super::refusal::Refusal;
use super::v1::{Layout, Member, State, Volume, VolumeState, put};
use super::{create, validate};

/// An entry of the pool's log. Part of the stored format: variants and fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "command")]
pub enum Command {
    /// The first entry: a node forms a pool of itself.
    Form {
        pool_id: Uuid,
        member: Member,
    },
    AddMember {
        member: Member,
    },
    RemoveMember {
        uuid: Uuid,
    },
    /// A member turned out to have one more name.
    NameMember {
        uuid: Uuid,
        name: String,
    },
    /// A member that knew itself by an address only has been called by its name, or listens elsewhere now.
    UpdateMember {
        member: Member,
    },
    CreateVolume(NewVolume),
    StartVolume {
        name: String,
        force: bool,
    },
    StopVolume {
        name: String,
        force: bool,
    },
    DeleteVolume {
        name: String,
    },
    /// `volume` may be `all`.
    SetOptions {
        volume: String,
        options: Vec<(String, String)>,
    },
    /// `key` `None`: all that may be reset.
    ResetOptions {
        volume: String,
        key: Option<String>,
        force: bool,
    },
    /// Heal switches (`cluster.granular-entry-heal`, …) that `volume set` refuses on a volume that was started.
    SetHealOption {
        volume: String,
        key: String,
        value: String,
    },
    AddBricks(AddBricks),
    StartRemoval(StartRemoval),
    StopRemoval {
        volume: String,
        bricks: Vec<NewBrick>,
    },
    RemoveBricks(Removal),
    ReplaceBrick(ReplaceBrick),
    StartReset(Reset),
    CommitReset {
        reset: Reset,
        to: NewBrick,
    },
    StartTask(StartTask),
    SteerTask {
        volume: String,
        what: Steer,
    },
    ReportTask(Report),
    /// Only `survivor` is left of the pool, which goes on under a new id.
    /// `state` is the survivor's: the new log begins with it, so that who joins later gets all of it.
    Recover {
        survivor: Uuid,
        pool_id: Uuid,
        state: Box<State>,
    },
}

/// A volume to be, with everything random in it already drawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewVolume {
    pub name: String,
    pub id: Uuid,
    pub layout: Layout,
    pub bricks: Vec<NewBrick>,
    pub force: bool,
    pub username: Uuid,
    pub password: Uuid,
    pub created_ms: u64,
}

#[cfg(test)]
impl NewVolume {
    /// A volume `v` for tests of what comes after its creation.
    pub(crate) fn for_test(layout: Layout, bricks: Vec<NewBrick>) -> Self {
        let (name, id, username, password) = ("v".to_owned(), Uuid::from_u128(7), Uuid::nil(), Uuid::nil());
        Self { name, id, layout, bricks, force: false, username, password, created_ms: 0 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewBrick {
    pub host: String,
    /// The member that `host` names, `None` when it names none.
    pub node: Option<Uuid>,
    pub path: String,
}

/// What a command did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The volume that was made, changed or deleted.
    pub volume: Option<(String, Uuid)>,
    /// `false`: the state was so already.
    pub changed: bool,
    /// Something the admin should know although it worked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Applies a command; a refused one changes nothing.
///
/// # Errors
/// [`Refusal`] with the reason in GlusterFS's words.
pub fn apply(state: &mut State, command: Command) -> Result<Applied, Refusal> {
    let applied = match command {
        Command::Form { pool_id, member } => form(state, pool_id, member),
        Command::AddMember { member } => Ok(add_member(state, member)),
        Command::RemoveMember { uuid } => remove_member(state, uuid),
        Command::NameMember { uuid, name } => name_member(state, uuid, name),
        Command::UpdateMember { member } => update_member(state, member),
        Command::CreateVolume(new) => create_volume(state, &new),
        Command::StartVolume { name, force } => start_volume(state, &name, force),
        Command::StopVolume { name, force } => stop_volume(state, &name, force),
        Command::DeleteVolume { name } => delete_volume(state, &name),
        Command::SetOptions { volume, options } => set_options(state, &volume, &options),
        Command::ResetOptions { volume, key, force } => reset_options(state, &volume, key.as_deref(), force),
        Command::SetHealOption { volume, key, value } => set_heal_option(state, &volume, &key, value),
        Command::AddBricks(request) => change::add(state, &request).map(|volume| enter(state, volume)),
        Command::StartRemoval(request) => change::start_removal(state, &request).map(|volume| enter(state, volume)),
        Command::StopRemoval { volume, bricks } => {
            change::stop_removal(state, &volume, &bricks).map(|volume| enter(state, volume))
        }
        Command::RemoveBricks(request) => change::commit(state, &request).map(|volume| enter(state, volume)),
        Command::ReplaceBrick(request) => change::replace(state, &request).map(|volume| enter(state, volume)),
        Command::StartReset(request) => change::start_reset(state, &request).map(|volume| enter(state, volume)),
        Command::CommitReset { reset, to } => {
            change::commit_reset(state, &reset, &to).map(|volume| enter(state, volume))
        }
        Command::StartTask(request) => change::start_task(state, &request).map(|volume| enter(state, volume)),
        Command::SteerTask { volume, what } => {
            change::steer(state, &volume, what).map(|volume| enter_if_changed(state, volume))
        }
        Command::ReportTask(report) => {
            let volume = change::report(state, &report);
            Ok(enter_if_changed(state, volume))
        }
        Command::Recover { survivor, pool_id, state: kept } => recover(state, survivor, pool_id, *kept),
    }?;
    if applied.changed {
        state.revision += 1;
    }
    Ok(applied)
}

/// What [`apply`] would say, without doing it.
///
/// # Errors
/// As [`apply`].
pub fn check(state: &State, command: &Command) -> Result<Applied, Refusal> {
    apply(&mut state.clone(), command.clone())
}

fn changed() -> Applied {
    Applied { changed: true, ..Applied::default() }
}

fn changed_volume(volume: &Volume) -> Applied {
    Applied { volume: Some((volume.name.clone(), volume.id)), changed: true, warnings: Vec::new() }
}

fn form(state: &mut State, pool_id: Uuid, member: Member) -> Result<Applied, Refusal> {
    if !state.pool_id.is_nil() {
        return Err(Refusal::AlreadyFormed);
    }
    state.pool_id = pool_id;
    state.members.insert(member.uuid, member);
    Ok(changed())
}

fn add_member(state: &mut State, member: Member) -> Applied {
    state.removed.remove(&member.uuid);
    let same = state.members.get(&member.uuid) == Some(&member);
    state.members.insert(member.uuid, member);
    Applied { changed: !same, ..Applied::default() }
}

fn remove_member(state: &mut State, uuid: Uuid) -> Result<Applied, Refusal> {
    let member = state.members.get(&uuid).ok_or_else(|| Refusal::NotAMember(uuid.to_string()))?;
    if state.members.len() == 1 {
        return Err(Refusal::LastMember(member.hostname.clone()));
    }
    if state.volumes.values().flat_map(|volume| &volume.bricks).any(|brick| brick.node == uuid) {
        return Err(Refusal::PeerHasBricks(member.hostname.clone()));
    }
    state.members.remove(&uuid);
    state.removed.insert(uuid);
    Ok(changed())
}

fn name_member(state: &mut State, uuid: Uuid, name: String) -> Result<Applied, Refusal> {
    let member = state.members.get_mut(&uuid).ok_or_else(|| Refusal::NotAMember(name.clone()))?;
    if member.is_named(&name) {
        return Ok(Applied::default());
    }
    member.other_names.push(name);
    Ok(changed())
}

fn update_member(state: &mut State, member: Member) -> Result<Applied, Refusal> {
    match state.members.get_mut(&member.uuid) {
        None => Err(Refusal::NotAMember(member.hostname)),
        Some(known) if *known == member => Ok(Applied::default()),
        Some(known) => {
            *known = member;
            Ok(changed())
        }
    }
}

fn create_volume(state: &mut State, new: &NewVolume) -> Result<Applied, Refusal> {
    let volume = create::volume(state, new)?;
    let applied = changed_volume(&volume);
    state.volumes.insert(volume.name.clone(), volume);
    Ok(applied)
}

/// Puts a changed volume in the place of the old one.
fn enter(state: &mut State, volume: Volume) -> Applied {
    let applied = changed_volume(&volume);
    state.volumes.insert(volume.name.clone(), volume);
    applied
}

fn enter_if_changed(state: &mut State, volume: Option<Volume>) -> Applied {
    volume.map_or_else(Applied::default, |volume| enter(state, volume))
}

fn volume_mut<'a>(state: &'a mut State, name: &str) -> Result<&'a mut Volume, Refusal> {
    state.volumes.get_mut(name).ok_or_else(|| Refusal::NoSuchVolume(name.to_owned()))
}

fn start_volume(state: &mut State, name: &str, force: bool) -> Result<Applied, Refusal> {
    let volume = volume_mut(state, name)?;
    if volume.state == VolumeState::Started {
        if !force {
            return Err(Refusal::AlreadyStarted(name.to_owned()));
        }
        return Ok(Applied { changed: false, ..changed_volume(volume) });
    }
    volume.state = VolumeState::Started;
    volume.version += 1;
    Ok(changed_volume(volume))
}

fn stop_volume(state: &mut State, name: &str, force: bool) -> Result<Applied, Refusal> {
    let volume = volume_mut(state, name)?;
    if volume.state != VolumeState::Started {
        if !force {
            return Err(Refusal::NotStarted(name.to_owned()));
        }
        return Ok(Applied { changed: false, ..changed_volume(volume) });
    }
    if volume.task_in_progress().is_some() && !force {
        return Err(change::Refusal::RebalanceSession(name.to_owned()).into());
    }
    volume.state = VolumeState::Stopped;
    volume.version += 1;
    Ok(changed_volume(volume))
}

fn delete_volume(state: &mut State, name: &str) -> Result<Applied, Refusal> {
    let volume = volume_mut(state, name)?;
    if volume.state == VolumeState::Started {
        return Err(Refusal::DeleteStarted(name.to_owned()));
    }
    let applied = changed_volume(volume);
    state.volumes.remove(name);
    Ok(applied)
}

fn set_options(state: &mut State, name: &str, wanted: &[(String, String)]) -> Result<Applied, Refusal> {
    if wanted.is_empty() {
        return Err(Refusal::NoOptions);
    }
    if name == "all" {
        let resolved = validate::global(wanted)?;
        for (key, value) in &resolved {
            put(&mut state.global_options, key, value);
        }
        return Ok(changed());
    }
    let volume = volume_mut(state, name)?;
    // All are checked before the first is set.
    let resolved = validate::of_volume(volume, wanted)?;
    let rehashes = rehashes(volume, &resolved);
    for (key, value) in &resolved {
        volume.put(key, value);
    }
    volume.version += 1;
    if !rehashes {
        return Ok(changed_volume(volume));
    }
    volume.put("cluster.lookup-optimize", "off");
    let mut applied = changed_volume(volume);
    applied.warnings.push(REHASHED.to_owned());
    Ok(applied)
}

/// What to do after names have got other places.
const REHASHED: &str = "Names hash differently now, so cluster.lookup-optimize was set to off: files are looked for on all \
                        bricks. Run 'volume rebalance VOLNAME start', and when it has completed \
                        'volume reset VOLNAME cluster.lookup-optimize'.";

/// Whether files that are there may not be where their names say any more. With `lookup-optimize` nobody would look for
/// them elsewhere.
fn rehashes(volume: &Volume, options: &[(String, String)]) -> bool {
    let changes = |(key, value): &(String, String)| {
        matches!(key.as_str(), "cluster.extra-hash-regex" | "cluster.rsync-hash-regex")
            && volume.option(key) != Some(value.as_str())
    };
    volume.subvolumes() > 1
        && volume.state != VolumeState::Created
        && volume.option("cluster.lookup-optimize").is_none_or(|value| crate::values::boolean(value) != Some(false))
        && options.iter().any(changes)
}

fn set_heal_option(state: &mut State, name: &str, key: &str, value: String) -> Result<Applied, Refusal> {
    let volume = volume_mut(state, name)?;
    validate::value_of(volume, key, &value)?;
    volume.put(key, &value);
    volume.version += 1;
    Ok(changed_volume(volume))
}

fn reset_options(state: &mut State, name: &str, key: Option<&str>, force: bool) -> Result<Applied, Refusal> {
    let key = key.filter(|key| *key != "all");
    let known = key.map(|key| validate::key_to_reset(key, if name == "all" { Scope::Pool } else { Scope::Volume }));
    if name == "all" {
        let known = known.transpose()?;
        state.global_options.retain(|(set, _)| known.is_some_and(|known| known != set));
        return Ok(changed());
    }
    let volume = volume_mut(state, name)?;
    let known = known.transpose()?;
    let was: Vec<(String, String)> = volume.options.clone();
    let mut protected = false;
    let mut dropped = false;
    volume.options.retain(|(set, _)| {
        if known.is_some_and(|known| known != set) {
            return true;
        }
        let keep = options::find(set).is_some_and(|option| option.never_reset() || (option.needs_force() && !force));
        protected |= keep;
        dropped |= !keep;
        keep
    });
    if protected
        && !dropped
        && let Some(known) = known
    {
        return Err(Refusal::Protected(known.to_owned()));
    }
    for (key, value) in create::defaults_after_reset() {
        if known.is_none_or(|known| known == *key) {
            volume.put(key, value);
        }
    }
    volume.version += 1;
    let gone = was.into_iter().filter(|(key, _)| volume.option(key).is_none()).collect::<Vec<_>>();
    let rehashes = rehashes(volume, &gone);
    if rehashes {
        volume.put("cluster.lookup-optimize", "off");
    }
    let mut applied = changed_volume(volume);
    if rehashes {
        applied.warnings.push(REHASHED.to_owned());
    }
    if protected {
        applied
            .warnings
            .push("All unprotected fields were reset. To reset the protected fields, use 'force'.".to_owned());
    }
    Ok(applied)
}

fn recover(state: &mut State, survivor: Uuid, pool_id: Uuid, kept: State) -> Result<Applied, Refusal> {
    if !kept.members.contains_key(&survivor) {
        return Err(Refusal::NotAMember(survivor.to_string()));
    }
    *state = kept;
    // Members with bricks stay known: their bricks still belong to volumes, and they come back by being probed.
    let with_bricks: std::collections::BTreeSet<Uuid> =
        state.volumes.values().flat_map(|volume| volume.bricks.iter().map(|brick| brick.node)).collect();
    let gone: Vec<Uuid> =
        state.members.keys().copied().filter(|uuid| *uuid != survivor && !with_bricks.contains(uuid)).collect();
    for uuid in gone {
        state.members.remove(&uuid);
        state.removed.insert(uuid);
    }
    state.previous_pools.insert(state.pool_id);
    state.pool_id = pool_id;
    Ok(changed())
}
