//! What is pending, brick by brick, told without taking a lock or changing anything (`glfsheal`, `afr_get_heal_info`).

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bytes::Bytes;
use mortar_logic::heal::name::{self, Conflict};
use mortar_logic::heal::verdict::verdict;
use mortar_logic::heal::{Children, Inspection, Locks, Verdict, data, entry, find_direction, metadata};
use mortar_logic::replicate::changelog::Slot;
use mortar_types::{Dict, Gfid, Pid, SubvolId, Value, keys};

use crate::heal::entry::seen;
use crate::heal::error::SplitBrain;
use crate::heal::inode::Need;
use crate::heal::look::{Looks, nameless};
use crate::heal::set::{ReplicaSet, Session};
use crate::heal::{Error, index, path};

/// Names of a directory that are looked at to tell a conflict from mere difference.
const NAMES_MAX: usize = 1024;
/// How often an inode that only has a dirty mark is looked at before it counts as work.
const LOOKS_MAX: usize = 3;

/// What one brick's indexes name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrickPending {
    pub child: SubvolId,
    /// `false`: it did not answer and `entries` is empty.
    pub connected: bool,
    pub entries: Vec<Pending>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pending {
    pub gfid: Gfid,
    /// From the volume's root as this brick (or else another one) knows it.
    pub path: Option<Bytes>,
    pub verdict: Verdict,
    /// What keeps it from healing by itself, as far as a look can tell.
    pub why: Option<Error>,
}

/// A verdict and what keeps the inode from healing.
pub(crate) type Judgement = (Verdict, Option<Error>);

/// Asks every brick of the set. A brick that is down or fails is told as not connected.
pub async fn info(set: &ReplicaSet) -> Vec<BrickPending> {
    let session = Session::with_pid(set, Pid::HEAL_INFO);
    let mut judged: HashMap<Gfid, Option<Judgement>> = HashMap::new();
    let mut bricks = Vec::with_capacity(set.children.len());
    for (child, brick) in set.children.iter() {
        let gfids = if brick.is_up() { index::all_entries(&session, child).await.ok() } else { None };
        let connected = gfids.is_some();
        let mut entries = Vec::new();
        for gfid in gfids.unwrap_or_default() {
            let known = match judged.entry(gfid) {
                Entry::Occupied(known) => known.get().clone(),
                Entry::Vacant(slot) => slot.insert(judge(&session, gfid).await).clone(),
            };
            let Some((verdict, why)) = known else { continue };
            let why = why.or_else(|| (!set.are_all_up()).then_some(Error::NotAllUp));
            entries.push(Pending { gfid, path: find_path(&session, child, gfid).await, verdict, why });
        }
        bricks.push(BrickPending { child, connected, entries });
    }
    bricks
}

async fn find_path(session: &Session<'_>, child: SubvolId, gfid: Gfid) -> Option<Bytes> {
    let others = session.set.all().minus(Children::only(child));
    for brick in Children::only(child).iter().chain(others.iter()) {
        if !session.set.children[brick].is_up() {
            continue;
        }
        let path = path::path(session, brick, gfid).await;
        // A parked inode has no place in the tree.
        if path.as_ref().is_some_and(|path| !path.starts_with(b"/.glusterfs-anonymous-inode-")) {
            return path;
        }
    }
    None
}

/// `None`: nothing to tell (healthy, or gone from every brick).
pub(crate) async fn judge(session: &Session<'_>, gfid: Gfid) -> Option<Judgement> {
    let mut judged = None;
    for _ in 0..LOOKS_MAX {
        judged = judge_once(session, gfid).await;
        // Mark and lock are not seen at one moment: a burst that began or ended in between looks like a lost one.
        if !matches!(judged, Some((Verdict::Heal, _))) {
            break;
        }
    }
    judged
}

async fn judge_once(session: &Session<'_>, gfid: Gfid) -> Option<Judgement> {
    let all = session.set.all().filter(|child| session.set.children[child].is_up());
    let before = locks(session, gfid, all).await;
    let looks = session.look(gfid).await;
    looks.first()?;
    let answered = session.set.all().filter(|child| looks.get(child).is_some());
    let inspected = match inspect(session, gfid, &looks, answered).await {
        Ok(inspected) => inspected,
        Err(error @ Error::SplitBrain(_)) => return Some((Verdict::SplitBrain, Some(error))),
        Err(error) => return Some((Verdict::HealPending, Some(error))),
    };
    let after = locks(session, gfid, answered).await;
    let locks = Locks { operation: before.operation || after.operation, heal: before.heal || after.heal };
    match verdict(&inspected.kinds, locks) {
        Verdict::NoHeal => None,
        verdict => Some((verdict, inspected.why)),
    }
}

struct Inspected {
    kinds: [Inspection; 3],
    why: Option<Error>,
}

async fn inspect(session: &Session<'_>, gfid: Gfid, looks: &Looks, answered: Children) -> Result<Inspected, Error> {
    let set = session.set;
    let need = Need::new(set, looks)?;
    let mut why = unanswered(looks);
    let direction = |slot| find_direction(slot, &looks.matrix(slot), answered, set.quorum);

    let decision = metadata::decide(&direction(Slot::Metadata), answered, &looks.attributes(), set.policy);
    let metadata_split = decision == metadata::Decision::SplitBrain;
    if metadata_split {
        why = Some(Error::SplitBrain(SplitBrain::Metadata));
    }
    let mut data_split = false;
    if need.data {
        match data::decide(&direction(Slot::Data), answered, &looks.copies(set.arbiter), set.policy) {
            data::Decision::SplitBrain => {
                data_split = true;
                why = Some(Error::SplitBrain(SplitBrain::Data));
            }
            data::Decision::OnlyArbiterIsGood => why = Some(Error::OnlyArbiterIsGood),
            data::Decision::Clean | data::Decision::Heal(_) => {}
        }
    }
    let mut entry_split = false;
    if need.entry {
        let conflicts = conflicts(session, gfid, &entry::decide(&direction(Slot::Entry), answered)).await;
        if !conflicts.is_empty() {
            entry_split = true;
            why = Some(Error::SplitBrain(SplitBrain::Names(conflicts)));
        }
    }
    // On a directory the data counter belongs to its names.
    let mut entry_kind = Inspection::new(&looks.matrix(Slot::Entry), need.entry, entry_split);
    let mut data_kind = Inspection::new(&looks.matrix(Slot::Data), need.data, data_split);
    if need.is_dir {
        entry_kind.pending |= data_kind.pending;
        data_kind = Inspection::default();
    }
    let kinds = [Inspection::new(&looks.matrix(Slot::Metadata), need.metadata, metadata_split), data_kind, entry_kind];
    Ok(Inspected { kinds, why })
}

/// Why a heal cannot go on without the children that did not answer. A missing inode is no reason: its directory brings it.
fn unanswered(looks: &Looks) -> Option<Error> {
    match looks.complete() {
        Ok(()) | Err(Error::MissingOn(_)) => None,
        Err(error) => Some(error),
    }
}

/// Names that a merge could not settle.
async fn conflicts(session: &Session<'_>, dir: Gfid, direction: &entry::Decision) -> Vec<(Bytes, Conflict)> {
    if !matches!(direction, entry::Decision::Merge { .. }) {
        return Vec::new();
    }
    let mut names = std::collections::BTreeSet::new();
    for child in session.set.all().iter() {
        names.extend(index::changed_names(session, child, dir).await.unwrap_or_default());
    }
    let mut conflicts = Vec::new();
    for name in names.into_iter().take(NAMES_MAX) {
        match name::decide(direction, &seen(session, dir, &name).await) {
            Ok(_) | Err(Conflict::NoAnswer { .. }) => {}
            Err(conflict) => conflicts.push((name, conflict)),
        }
    }
    conflicts
}

/// Which locks any brick reports on the inode.
async fn locks(session: &Session<'_>, gfid: Gfid, children: Children) -> Locks {
    let domain = session.set.name.clone();
    let operation = is_locked(session, gfid, children, domain).await;
    let heal_domain = String::from_utf8_lossy(&session.heal_domain()).into_owned();
    Locks { operation, heal: is_locked(session, gfid, children, heal_domain).await }
}

async fn is_locked(session: &Session<'_>, gfid: Gfid, children: Children, domain: String) -> bool {
    let xdata = Dict::new().with(keys::INODELK_DOM_COUNT, Value::str(domain));
    let answers = session.each(children, |_| nameless(gfid, Some(xdata.clone()))).await;
    // Asked for by domain, answered under the plain count's name (`locks/posix.c: pl_get_inodelk_count`).
    let count = |xdata: &Dict| xdata.get_i64(keys::INODELK_COUNT).unwrap_or(0);
    answers.iter().any(|(_, answer)| match answer {
        Some(Ok(reply)) => reply.xdata.as_ref().is_some_and(|xdata| count(xdata) > 0),
        _ => false,
    })
}
