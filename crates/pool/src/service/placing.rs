//! Bricks by their names: whose they are, and directories made fit on the members that own them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use mortar_api::volume::BrickRef;
use mortar_api::{Error, ErrorKind};
use mortar_logic::pool::{NewBrick, Refusal, State};
use mortar_sys::brick_path;
use uuid::Uuid;

use super::internal::{Prepare, Step};
use super::volume::ask;
use crate::bricks::{Before, Place};
use crate::node::{Node, refusal_error};
use crate::resolve;

/// How long a member may take to check or make its bricks.
pub(super) const PREPARE_TIMEOUT: Duration = Duration::from_secs(30);

/// New bricks as the admin names them, with the members that their hosts are.
///
/// # Errors
/// When a path cannot be a brick's.
pub(super) async fn named(
    node: &Node,
    state: &State,
    volume: &str,
    bricks: &[BrickRef],
) -> Result<Vec<NewBrick>, Error> {
    let mut named = Vec::new();
    for brick in bricks {
        let brick = known(node, state, brick).await?;
        brick_path::check_path(volume, &brick.host, Path::new(&brick.path))
            .map_err(|refusal| Error::new(ErrorKind::Invalid, refusal.to_string()))?;
        named.push(brick);
    }
    Ok(named)
}

/// A brick that may exist already.
///
/// # Errors
/// When the path cannot be a brick's.
pub(super) async fn known(node: &Node, state: &State, brick: &BrickRef) -> Result<NewBrick, Error> {
    let owner = resolve::member(state, node.uuid(), node.options.listen, &brick.host).await;
    Ok(NewBrick { host: brick.host.clone(), node: owner, path: clean_path(&brick.path)? })
}

/// A refusal about a change of bricks. GlusterFS's owner of a brick is who finds that its place is taken, and its answer
/// is told with its name.
pub(super) fn change_error(node: &Node, state: &State, bricks: &[NewBrick], refusal: &Refusal) -> Error {
    let error = refusal_error(refusal);
    let Refusal::BrickOverlaps { host, path } = refusal else { return error };
    let owner = bricks.iter().find(|brick| brick.host == *host && brick.path == *path).and_then(|brick| brick.node);
    match owner.filter(|owner| *owner != node.uuid()).and_then(|owner| state.members.get(&owner)) {
        Some(member) => {
            Error { message: format!("Pre Validation failed on {}. {}", member.hostname, error.message), ..error }
        }
        None => error,
    }
}

/// Without double and trailing slashes, and nothing that a volfile or a file name could not hold.
pub(super) fn clean_path(path: &str) -> Result<String, Error> {
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
pub(super) struct Work {
    volume_id: Uuid,
    force: bool,
    /// The bricks belong to the volume already and come back.
    returning: bool,
    places: BTreeMap<Uuid, Vec<Place>>,
}

/// A member said no, or nothing.
pub(super) struct Failed {
    pub(super) owner: Uuid,
    pub(super) host: String,
    pub(super) error: Error,
}

impl Failed {
    /// What happened elsewhere is said with the place (`glusterd-mgmt.c: gd_mgmt_v3_collate_errors`).
    pub(super) fn named(self, node: &Node, state: &State, phase: &str) -> Error {
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
    pub(super) fn of(state: &State, volume_id: Uuid, force: bool, bricks: &[NewBrick]) -> Self {
        let mut places: BTreeMap<Uuid, Vec<Place>> = BTreeMap::new();
        for brick in bricks {
            if let Some(owner) = brick.node.filter(|owner| state.members.contains_key(owner)) {
                places.entry(owner).or_default().push(Place { host: brick.host.clone(), path: brick.path.clone() });
            }
        }
        Self { volume_id, force, returning: false, places }
    }

    /// For a brick that has been in the volume before.
    #[must_use]
    pub(super) const fn returning(mut self) -> Self {
        self.returning = true;
        self
    }

    /// Checks all, then makes all; on a failure nothing is left of it.
    pub(super) async fn make(&self, node: &Node, state: &State) -> Result<Vec<(Uuid, Vec<Before>)>, Error> {
        self.everywhere(node, &Step::Check).await.map_err(|failed| failed.named(node, state, "Pre Validation"))?;
        let mut made: Vec<(Uuid, Vec<Before>)> = Vec::new();
        for (owner, places) in &self.places {
            match self.on(node, *owner, places, Step::Make).await {
                Ok(before) => made.push((*owner, before)),
                Err(failed) => {
                    self.undo(node, made).await;
                    return Err(failed.named(node, state, "Commit"));
                }
            }
        }
        Ok(made)
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
        let request = Prepare {
            volume_id: self.volume_id,
            bricks: places.to_vec(),
            force: self.force,
            step,
            returning: self.returning,
        };
        ask(node, owner, &request, PREPARE_TIMEOUT).await.map_err(|error| Failed {
            owner,
            host: places.first().map(|place| place.host.clone()).unwrap_or_default(),
            error,
        })
    }

    pub(super) async fn undo(&self, node: &Node, made: Vec<(Uuid, Vec<Before>)>) {
        for (owner, before) in made {
            let Some(places) = self.places.get(&owner) else { continue };
            if let Err(failed) = self.on(node, owner, places, Step::Undo { before }).await {
                tracing::warn!(%owner, error = %failed.error, "the new bricks could not be undone");
            }
        }
    }
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
