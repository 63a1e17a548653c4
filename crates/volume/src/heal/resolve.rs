//! Settling split-brain as a person says: which copy of a file, or of all files of a replica set, is to be kept
//! (`heal/src/glfs-heal.c` glfsh_heal_splitbrain_file, `afr_heal_splitbrain_file`).
//!
//! Nothing that is not in split-brain is touched, and all bricks of the set must be up.

use bytes::Bytes;
use mortar_logic::heal::name::Seen;
use mortar_logic::heal::{Resolve, Verdict};
use mortar_types::{Errno, FileType, Gfid, SubvolId, SubvolMap};

use crate::heal::entry::{self, Scope, seen};
use crate::heal::error::SplitBrain;
use crate::heal::inode::{self, State};
use crate::heal::look::Looks;
use crate::heal::set::{ReplicaSet, Session};
use crate::heal::{Error, index, info};

/// What is to be settled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// From the volume's root, `/a/b`.
    Path(Bytes),
    Gfid(Gfid),
}

/// Why something was not settled.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// It is not there, or cannot be looked at.
    #[error("{}", .0.text())]
    Lookup(Errno),
    #[error("File not in split-brain")]
    NotInSplitBrain,
    #[error("No bigger file")]
    NoBiggerFile,
    #[error("No difference in mtime")]
    NoDifferenceInMtime,
    #[error("'bigger-file' not a valid option for directories")]
    NotForDirectories,
    /// The rule settles nothing here.
    #[error("{0}")]
    Heal(Error),
}

/// What was tried for one entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settled {
    pub gfid: Gfid,
    pub is_directory: bool,
    pub outcome: Result<(), Failure>,
}

/// Settles one file or directory by `rule`.
///
/// # Errors
/// [`Failure::Lookup`] when it is not there; other failures are in the answer.
pub async fn settle(set: &ReplicaSet, target: &Target, rule: Resolve) -> Result<Settled, Failure> {
    if !set.are_all_up() {
        return Err(Failure::Heal(Error::NotAllUp));
    }
    let set = &set.with_policy(rule);
    let session = Session::new(set);
    let gfid = match target {
        Target::Gfid(gfid) => *gfid,
        Target::Path(path) => match find(&session, path).await? {
            Found::Inode(gfid) => gfid,
            Found::Conflict { dir, name, gfid } => {
                let outcome = settle_name(&session, dir, &name).await;
                return Ok(Settled { gfid, is_directory: false, outcome });
            }
        },
    };
    settle_inode(&session, gfid, rule).await
}

/// Settles everything that the index of `child`, or of all children, names, by `rule`; in the order of the index.
///
/// # Errors
/// When a brick does not answer.
pub async fn settle_all(set: &ReplicaSet, child: Option<SubvolId>, rule: Resolve) -> Result<Vec<Settled>, Error> {
    if !set.are_all_up() {
        return Err(Error::NotAllUp);
    }
    let set = &set.with_policy(rule);
    let session = Session::new(set);
    let mut gfids: Vec<Gfid> = Vec::new();
    for child in set.all().iter().filter(|brick| child.is_none_or(|child| child == *brick)) {
        for gfid in index::all_entries(&session, child).await? {
            if !gfids.contains(&gfid) {
                gfids.push(gfid);
            }
        }
    }
    let mut settled = Vec::with_capacity(gfids.len());
    for gfid in gfids {
        match settle_inode(&session, gfid, rule).await {
            Ok(one) => settled.push(one),
            // What another one's heal has thrown away.
            Err(Failure::Lookup(Errno::ENOENT)) => {}
            Err(failure) => settled.push(Settled { gfid, is_directory: false, outcome: Err(failure) }),
        }
    }
    Ok(settled)
}

async fn settle_inode(session: &Session<'_>, gfid: Gfid, rule: Resolve) -> Result<Settled, Failure> {
    let looks = session.look(gfid).await;
    let Some(look) = looks.first() else { return Err(Failure::Lookup(Errno::ENOENT)) };
    let is_directory = look.stat.file_type() == Some(FileType::Directory);
    let outcome = match refusal(session, gfid, is_directory, &looks, rule).await {
        Some(failure) => Err(failure),
        None => heal(session, gfid).await,
    };
    Ok(Settled { gfid, is_directory, outcome })
}

/// Why the rule cannot be applied.
async fn refusal(
    session: &Session<'_>,
    gfid: Gfid,
    is_directory: bool,
    looks: &Looks,
    rule: Resolve,
) -> Option<Failure> {
    if is_directory && rule == Resolve::Size {
        return Some(Failure::NotForDirectories);
    }
    // Judged by the volume's bricks alone: with the rule nothing would be in split-brain.
    let unruled = session.set.with_policy(Resolve::Leave);
    let verdict = info::judge(&Session::new(&unruled), gfid).await.map(|(verdict, _)| verdict);
    if !verdict.is_some_and(Verdict::is_split_brain) {
        return Some(Failure::NotInSplitBrain);
    }
    if is_directory {
        return None;
    }
    let copies = looks.copies(session.set.arbiter);
    let copies: Vec<_> = copies.iter().filter_map(|(_, copy)| *copy).filter(|copy| !copy.is_arbiter).collect();
    let largest = copies.iter().map(|copy| copy.size).max();
    match rule {
        Resolve::Size if copies.iter().filter(|copy| Some(copy.size) == largest).count() != 1 => {
            Some(Failure::NoBiggerFile)
        }
        Resolve::Mtime if copies.windows(2).all(|pair| pair[0].mtime == pair[1].mtime) => {
            Some(Failure::NoDifferenceInMtime)
        }
        _ => None,
    }
}

async fn heal(session: &Session<'_>, gfid: Gfid) -> Result<(), Failure> {
    let state = inode::heal(session.set, gfid, Scope::Changed).await.map_err(Failure::Heal)?;
    match state {
        State::Healed(healed) => healed.left.map_or(Ok(()), |error| Err(Failure::Heal(error))),
        State::Clean => Ok(()),
        State::Gone => Err(Failure::Lookup(Errno::ENOENT)),
    }
}

/// A name that leads to two inodes: the loser goes, the winner comes to all, contents and all.
async fn settle_name(session: &Session<'_>, dir: Gfid, name: &Bytes) -> Result<(), Failure> {
    let healed = entry::heal_name(session, dir, name).await.map_err(Failure::Heal)?;
    if let Some(error) = healed.left {
        return Err(match (&error, session.set.policy) {
            (Error::SplitBrain(SplitBrain::Names(_)), Resolve::Size) => Failure::NoBiggerFile,
            _ => Failure::Heal(error),
        });
    }
    for gfid in healed.follow {
        heal(session, gfid).await?;
    }
    Ok(())
}

enum Found {
    Inode(Gfid),
    /// The last name is two inodes; `gfid` is one of them.
    Conflict {
        dir: Gfid,
        name: Bytes,
        gfid: Gfid,
    },
}

async fn find(session: &Session<'_>, path: &Bytes) -> Result<Found, Failure> {
    let names: Vec<Bytes> =
        path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).map(|name| path.slice_ref(name)).collect();
    let mut dir = Gfid::ROOT;
    for (at, name) in names.iter().enumerate() {
        let seen = seen(session, dir, name).await;
        let gfid = one_of(&seen)?;
        let agree = seen.iter().all(|(_, seen)| match *seen {
            Seen::Present { gfid: theirs, .. } => theirs == gfid,
            Seen::Absent | Seen::Unknown(_) => true,
        });
        if !agree {
            if at + 1 < names.len() {
                // One of the directories on the way is two: that one must be settled first.
                return Err(Failure::Lookup(Errno::EIO));
            }
            return Ok(Found::Conflict { dir, name: name.clone(), gfid });
        }
        dir = gfid;
    }
    Ok(Found::Inode(dir))
}

/// The gfid of the first child that has the name.
fn one_of(seen: &SubvolMap<Seen>) -> Result<Gfid, Failure> {
    let first = seen.iter().find_map(|(_, seen)| match *seen {
        Seen::Present { gfid, .. } => Some(gfid),
        _ => None,
    });
    let errno = seen.iter().find_map(|(_, seen)| match *seen {
        Seen::Unknown(errno) => Some(errno),
        _ => None,
    });
    first.ok_or_else(|| Failure::Lookup(errno.unwrap_or(Errno::ENOENT)))
}
