//! What makes a new volume acceptable, and what it is set to at first.

use std::collections::BTreeSet;

use super::apply::{NewBrick, NewVolume};
use super::refusal::Refusal;
use super::v1::{Brick, Layout, State, Volume, VolumeState};

/// GlusterFS's limit (`GD_VOLUME_NAME_MAX` less the NUL).
const NAME_BYTES_MAX: usize = 255;

/// Options that `volume reset` brings back when they were dropped (`glusterd_enable_default_options`).
pub(super) const fn defaults_after_reset() -> &'static [(&'static str, &'static str)] {
    &[("nfs.disable", "on"), ("transport.address-family", "inet"), ("storage.fips-mode-rchecksum", "on")]
}

/// Checks in GlusterFS's order, so that of several faults the same one is named.
pub(super) fn volume(state: &State, new: &NewVolume) -> Result<Volume, Refusal> {
    name_is_fit(&new.name)?;
    if state.volumes.contains_key(&new.name) {
        return Err(Refusal::VolumeExists(new.name.clone()));
    }
    count_fits(new.layout, new.bricks.len())?;
    let bricks = new
        .bricks
        .iter()
        .enumerate()
        .map(|(index, brick)| {
            let id = u32::try_from(index).map_err(|_| Refusal::BrickCount)?;
            place(state, &new.name, id, brick, is_arbiter(new.layout, index))
        })
        .collect::<Result<Vec<_>, _>>()?;
    if !new.force {
        groups_are_spread(new.layout, &bricks)?;
    }
    no_brick_overlaps(state, &bricks)?;
    Ok(Volume {
        name: new.name.clone(),
        id: new.id,
        state: VolumeState::Created,
        layout: new.layout,
        options: first_options(new.layout),
        next_brick: u32::try_from(bricks.len()).map_err(|_| Refusal::BrickCount)?,
        bricks,
        username: new.username,
        password: new.password,
        version: 1,
        created_ms: new.created_ms,
        task: None,
    })
}

fn name_is_fit(name: &str) -> Result<(), Refusal> {
    if name == "all" || name.is_empty() || name.starts_with('-') || name.starts_with('.') {
        return Err(Refusal::ReservedName(name.to_owned()));
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(Refusal::LongVolumeName(name.to_owned()));
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
        return Err(Refusal::BadVolumeName(name.to_owned()));
    }
    Ok(())
}

fn count_fits(layout: Layout, bricks: usize) -> Result<(), Refusal> {
    let possible = match layout {
        Layout::Distribute => true,
        Layout::Replicate { replica, arbiter } => replica >= 2 && arbiter <= 1 && (arbiter == 0 || replica >= 3),
        Layout::Disperse { data, redundancy } => redundancy >= 1 && redundancy < data,
    };
    let group = layout.group() as usize;
    if !possible || bricks == 0 || !bricks.is_multiple_of(group) {
        return Err(Refusal::BrickCount);
    }
    Ok(())
}

/// Whether the brick at this place in the volume holds no data.
pub(super) const fn is_arbiter(layout: Layout, index: usize) -> bool {
    match layout {
        Layout::Replicate { replica, arbiter } => {
            let group = replica as usize;
            index % group >= group - arbiter as usize
        }
        Layout::Distribute | Layout::Disperse { .. } => false,
    }
}

/// The brick number `id` of a volume, on the member that its host names.
pub(super) fn place(state: &State, volume: &str, id: u32, brick: &NewBrick, arbiter: bool) -> Result<Brick, Refusal> {
    let node = brick
        .node
        .filter(|node| state.members.contains_key(node))
        .ok_or_else(|| Refusal::HostNotInCluster(brick.host.clone()))?;
    Ok(Brick {
        host: brick.host.clone(),
        node,
        path: brick.path.clone(),
        brick_id: format!("{volume}-client-{id}"),
        arbiter,
        decommissioned: false,
        reset: false,
    })
}

pub(super) fn groups_are_spread(layout: Layout, bricks: &[Brick]) -> Result<(), Refusal> {
    let kind = match layout {
        Layout::Distribute => return Ok(()),
        Layout::Replicate { .. } => "replicate",
        Layout::Disperse { .. } => "disperse",
    };
    for group in bricks.chunks(layout.group().max(1) as usize) {
        let nodes: BTreeSet<_> = group.iter().map(|brick| brick.node).collect();
        if nodes.len() < group.len() {
            return Err(Refusal::BricksOfGroupOnOneHost { kind: kind.to_owned() });
        }
    }
    Ok(())
}

pub(super) fn no_brick_overlaps(state: &State, bricks: &[Brick]) -> Result<(), Refusal> {
    for (index, brick) in bricks.iter().enumerate() {
        let existing = state.volumes.values().flat_map(|volume| &volume.bricks);
        let clash = existing
            .chain(&bricks[..index])
            .any(|other| other.node == brick.node && contains_or_contained(&other.path, &brick.path));
        if clash {
            return Err(Refusal::BrickOverlaps { host: brick.host.clone(), path: brick.path.clone() });
        }
    }
    Ok(())
}

/// Component-wise: `/b/one` and `/b/one2` do not touch.
fn contains_or_contained(left: &str, right: &str) -> bool {
    let mut left = left.split('/').filter(|part| !part.is_empty());
    let mut right = right.split('/').filter(|part| !part.is_empty());
    loop {
        match (left.next(), right.next()) {
            (Some(a), Some(b)) if a == b => {}
            (Some(_), Some(_)) => return false,
            (None, _) | (_, None) => return true,
        }
    }
}

/// What a new volume is set to without being asked, oldest first (`glusterd_op_create_volume`).
fn first_options(layout: Layout) -> Vec<(String, String)> {
    let replicate = matches!(layout, Layout::Replicate { .. });
    let before: &[(&str, &str)] = if replicate { &[("performance.client-io-threads", "off")] } else { &[] };
    let after: &[(&str, &str)] = if replicate { &[("cluster.granular-entry-heal", "on")] } else { &[] };
    before
        .iter()
        .chain(defaults_after_reset())
        .chain(after)
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}
