//! Heal of one inode: whatever of metadata, content and names its marks ask for.

use mortar_logic::heal::metadata::Attributes;
use mortar_logic::heal::{Children, Resolve};
use mortar_logic::replicate::changelog::Slot;
use mortar_types::{Errno, FileType, Gfid};

use crate::heal::entry::{self, Scope};
use crate::heal::error::SplitBrain;
use crate::heal::look::Looks;
use crate::heal::set::{ReplicaSet, Session};
use crate::heal::{Error, Healed, data, metadata};

/// How an inode is after a heal was tried.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// Something was done for it; unless [`Healed::left`] says otherwise all copies are good now.
    Healed(Healed),
    /// All copies were good.
    Clean,
    /// It exists on no brick any more.
    Gone,
}

/// Heals it; an error means that nothing was done. Metadata first: a file that was not there yet has neither owner nor mode of its own, and must have them before
/// it has content.
pub async fn heal(set: &ReplicaSet, gfid: Gfid, scope: Scope) -> Result<State, Error> {
    if !set.are_all_up() {
        return Err(Error::NotAllUp);
    }
    let session = Session::new(set);
    let looks = session.look(gfid).await;
    if is_gone(set, &looks)? {
        return Ok(State::Gone);
    }
    let need = Need::new(set, &looks)?;
    let mut total = Healed::default();
    // One kind in split-brain does not keep the others from healing.
    let mut note = |result: Result<Healed, Error>| {
        total.add(result.unwrap_or_else(|error| Healed { left: Some(error), ..Healed::default() }));
    };
    if need.metadata {
        note(metadata::heal(&session, gfid).await);
    }
    if need.data {
        note(data::heal(&session, gfid).await);
    }
    if need.entry || (scope == Scope::All && need.is_dir) {
        note(entry::heal(&session, gfid, scope).await);
    }
    if need.is_nothing() {
        // The index named it all the same (a crash between mark and index): let the bricks look again.
        session.touch_index(gfid, Some(&entry::purge())).await;
    }
    if set.policy != Resolve::Leave && total.changed {
        level_change_times(&session, gfid).await;
    }
    match total.left {
        Some(error) if !total.changed => Err(error),
        _ if !total.changed => Ok(State::Clean),
        _ => Ok(State::Healed(total)),
    }
}

/// The copy that a rule chose may be older than those that it replaced, and a brick does not take a change time back: all
/// get the latest. Times are no reason for a heal, so a failure is of no consequence.
async fn level_change_times(session: &Session<'_>, gfid: Gfid) {
    let looks = session.look(gfid).await;
    let Some(latest) = looks.newest(session.set.all()).and_then(|child| looks.get(child)) else { return };
    for (child, look) in session.set.all().iter().filter_map(|child| Some((child, looks.get(child)?))) {
        if let Err(error) = session.raise_ctime(child, &look.stat, latest.stat.ctime).await {
            tracing::debug!(%gfid, %error, "change times differ");
        }
    }
}

fn is_gone(set: &ReplicaSet, looks: &Looks) -> Result<bool, Error> {
    if looks.missing() == set.all() {
        return Ok(true);
    }
    looks.complete().map(|()| false)
}

/// What an inode's marks and copies ask for, seen without locks: each heal looks again under its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Need {
    pub(crate) metadata: bool,
    pub(crate) data: bool,
    pub(crate) entry: bool,
    pub(crate) is_dir: bool,
}

impl Need {
    pub(crate) fn new(set: &ReplicaSet, looks: &Looks) -> Result<Self, Error> {
        let Some(kind) = looks.first().and_then(|look| look.stat.file_type()) else {
            return Err(Error::fop(mortar_types::SubvolId(0), mortar_types::FopKind::Lookup, Errno::EIO));
        };
        if set.all().iter().filter_map(|child| looks.get(child)).any(|look| look.stat.file_type() != Some(kind)) {
            return Err(Error::SplitBrain(SplitBrain::Type));
        }
        let is_dir = kind == FileType::Directory;
        let (data, metadata) = (looks.matrix(Slot::Data), looks.matrix(Slot::Metadata));
        let entry = looks.matrix(Slot::Entry);
        Ok(Self {
            metadata: !metadata.is_clean() || attributes_differ(looks),
            data: kind == FileType::Regular && (!data.is_clean() || sizes_differ(set, looks)),
            entry: is_dir && !(entry.is_clean() && data.is_clean()),
            is_dir,
        })
    }

    pub(crate) const fn is_nothing(self) -> bool {
        !self.metadata && !self.data && !self.entry
    }
}

fn attributes_differ(looks: &Looks) -> bool {
    let attributes: Vec<Attributes> = looks.attributes().iter().filter_map(|(_, copy)| copy.clone()).collect();
    attributes.windows(2).any(|pair| !pair[0].is_like(&pair[1]))
}

fn sizes_differ(set: &ReplicaSet, looks: &Looks) -> bool {
    let content: Children = set.all().filter(|child| !set.is_arbiter(child));
    let sizes: Vec<u64> = content.iter().filter_map(|child| looks.get(child).map(|look| look.stat.size)).collect();
    sizes.windows(2).any(|pair| pair[0] != pair[1])
}
