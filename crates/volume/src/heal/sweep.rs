//! Healing all that is pending: by the index, again and again while it helps, or by walking the whole tree.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use mortar_logic::heal::Children;
use mortar_types::{FileType, Gfid, SubvolId};
use parking_lot::Mutex;

use crate::heal::entry::{Scope, seen};
use crate::heal::inode::{self, State};
use crate::heal::set::{ReplicaSet, Session};
use crate::heal::{Error, index, listing};

/// Inodes healed at once: enough to fill the round trips to the bricks, few enough to leave them to clients.
pub const PARALLEL_MAX: usize = 8;

/// How far the running (or last) sweep of a replica set is; read by others at any time.
#[derive(Default, Debug)]
pub struct Progress {
    running: AtomicBool,
    healed: AtomicU64,
    failed: AtomicU64,
    pending: AtomicU64,
    bytes: AtomicU64,
    began: Mutex<Option<Instant>>,
}

/// [`Progress`] at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Snapshot {
    pub running: bool,
    pub healed_entries: u64,
    pub failed_entries: u64,
    pub pending_entries: u64,
    pub bytes_copied: u64,
    /// Since the sweep began.
    pub elapsed_ms: u64,
}

impl Progress {
    pub fn snapshot(&self) -> Snapshot {
        let began = *self.began.lock();
        Snapshot {
            running: self.running.load(Ordering::Relaxed),
            healed_entries: self.healed.load(Ordering::Relaxed),
            failed_entries: self.failed.load(Ordering::Relaxed),
            pending_entries: self.pending.load(Ordering::Relaxed),
            bytes_copied: self.bytes.load(Ordering::Relaxed),
            elapsed_ms: began.map_or(0, |began| u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)),
        }
    }

    fn begin(&self) {
        *self.began.lock() = Some(Instant::now());
        for counter in [&self.healed, &self.failed, &self.pending, &self.bytes] {
            counter.store(0, Ordering::Relaxed);
        }
        self.running.store(true, Ordering::Relaxed);
    }

    fn end(&self) {
        self.running.store(false, Ordering::Relaxed);
    }
}

/// What a sweep came to.
#[derive(Clone, Default, Debug)]
pub struct Summary {
    pub healed: usize,
    /// What is still pending, and why.
    pub left: Vec<(Gfid, Error)>,
}

impl Summary {
    /// Whether another sweep soon may do better without anybody doing anything.
    pub fn is_worth_retrying(&self) -> bool {
        self.left.iter().any(|(_, error)| error.is_passing())
    }
}

/// Heals what the indexes of `children` (the bricks of this node) name; repeats while that makes something else
/// possible, since an inode can heal only after the directory that names it.
pub async fn index_sweep(set: &ReplicaSet, children: Children, progress: &Progress) -> Result<Summary, Error> {
    progress.begin();
    let result = sweep_passes(set, children, progress).await;
    progress.end();
    result
}

async fn sweep_passes(set: &ReplicaSet, children: Children, progress: &Progress) -> Result<Summary, Error> {
    let mut total = Summary::default();
    loop {
        if !set.are_all_up() {
            return Err(Error::NotAllUp);
        }
        let mut gfids = BTreeSet::new();
        for child in children.iter() {
            gfids.extend(index::all_entries(&Session::new(set), child).await?);
        }
        let pass = pass(set, gfids.into_iter().collect(), Scope::Changed, progress).await;
        total.healed += pass.healed;
        total.left = pass.left;
        if pass.healed == 0 || total.left.is_empty() && !any_left(set, children).await? {
            return Ok(total);
        }
    }
}

async fn any_left(set: &ReplicaSet, children: Children) -> Result<bool, Error> {
    for child in children.iter() {
        if !index::all_entries(&Session::new(set), child).await?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Heals these inodes and those that come into being on the way, several at a time.
async fn pass(set: &ReplicaSet, gfids: VecDeque<Gfid>, scope: Scope, progress: &Progress) -> Summary {
    let (mut queue, mut summary) = (gfids, Summary::default());
    let mut known: HashSet<Gfid> = queue.iter().copied().collect();
    let mut running = FuturesUnordered::new();
    loop {
        while running.len() < PARALLEL_MAX {
            let Some(gfid) = queue.pop_front() else { break };
            running.push(async move { (gfid, one(set, gfid, scope).await) });
        }
        progress.pending.store((queue.len() + running.len()) as u64, Ordering::Relaxed);
        let Some((gfid, outcome)) = running.next().await else { return summary };
        // It may be named again, by the directory that has just brought it to a sink.
        known.remove(&gfid);
        summary.left.retain(|(earlier, _)| *earlier != gfid);
        let error = match outcome {
            Ok(State::Healed(healed)) => {
                summary.healed += 1;
                progress.healed.fetch_add(1, Ordering::Relaxed);
                progress.bytes.fetch_add(healed.bytes, Ordering::Relaxed);
                queue.extend(healed.follow.into_iter().filter(|follow| known.insert(*follow)));
                healed.left
            }
            Ok(State::Clean | State::Gone) => None,
            Err(error) => Some(error),
        };
        if let Some(error) = error {
            tracing::debug!(volume = %set.name, %gfid, %error, "not healed");
            progress.failed.fetch_add(1, Ordering::Relaxed);
            summary.left.push((gfid, error));
        }
    }
}

async fn one(set: &ReplicaSet, gfid: Gfid, scope: Scope) -> Result<State, Error> {
    let result = inode::heal(set, gfid, scope).await;
    // A brick's index tells of marks on its own inode: without the inode there are none.
    let forgetful = match &result {
        Ok(State::Gone) => set.all(),
        Err(Error::MissingOn(children)) => *children,
        _ => Children::NONE,
    };
    let session = Session::new(set);
    for child in forgetful.iter() {
        index::forget(&session, child, gfid).await?;
    }
    result
}

/// Heals everything by walking the tree from the root: every name of every directory, then every inode. Finds what no
/// index names (a replaced brick, marks that were lost).
pub async fn full_sweep(set: &ReplicaSet, progress: &Progress) -> Result<Summary, Error> {
    progress.begin();
    let result = walk(set, progress).await;
    progress.end();
    result
}

async fn walk(set: &ReplicaSet, progress: &Progress) -> Result<Summary, Error> {
    let mut total = Summary::default();
    let mut directories = VecDeque::from([Gfid::ROOT]);
    while let Some(dir) = directories.pop_front() {
        if !set.are_all_up() {
            return Err(Error::NotAllUp);
        }
        // The names first, the inodes they lead to afterwards.
        total.add(pass(set, VecDeque::from([dir]), Scope::All, progress).await);
        let (below, files) = entries(set, dir).await?;
        total.add(pass(set, files, Scope::Changed, progress).await);
        directories.extend(below);
    }
    Ok(total)
}

impl Summary {
    fn add(&mut self, other: Self) {
        self.healed += other.healed;
        self.left.extend(other.left);
    }
}

/// Directories and other inodes that a directory names on any child.
async fn entries(set: &ReplicaSet, dir: Gfid) -> Result<(Vec<Gfid>, VecDeque<Gfid>), Error> {
    let session = Session::new(set);
    let mut names = BTreeSet::new();
    for child in set.all().iter() {
        names.extend(listing::names(&session, child, dir).await?);
    }
    let (mut directories, mut files) = (Vec::new(), VecDeque::new());
    for name in names.iter().filter(|name| !set.is_private(dir, name)) {
        for (_, seen) in seen(&session, dir, name).await.iter() {
            match seen {
                mortar_logic::heal::name::Seen::Present { gfid, kind: FileType::Directory } => directories.push(*gfid),
                mortar_logic::heal::name::Seen::Present { gfid, .. } if !gfid.is_null() => files.push_back(*gfid),
                _ => {}
            }
        }
    }
    directories.sort_unstable();
    directories.dedup();
    files.make_contiguous().sort_unstable();
    let mut files: Vec<Gfid> = files.into();
    files.dedup();
    Ok((directories, files.into()))
}

/// Removes from the children's parking directories what waits there for nothing: inodes that no good copy has any more,
/// and second names of files that are at their place again.
pub async fn empty_parking(set: &ReplicaSet) -> Result<(), Error> {
    let session = Session::new(set);
    for child in set.all().iter() {
        for name in listing::names(&session, child, set.parking_gfid()).await? {
            let Some(gfid) = std::str::from_utf8(&name).ok().and_then(|text| text.parse::<Gfid>().ok()) else {
                continue;
            };
            if !has_use(&session, child, gfid).await? {
                crate::heal::entry::throw_away_parked(&session, child, gfid).await?;
            } else {
                // A healer that died between linking the inode into its directory and unparking it.
                crate::heal::entry::unpark_linked(&session, gfid, child).await?;
            }
        }
    }
    Ok(())
}

/// Whether a parked inode may still be wanted: it lives outside of the parking directory on another child.
async fn has_use(session: &Session<'_>, child: SubvolId, gfid: Gfid) -> Result<bool, Error> {
    for other in session.set.all().minus(Children::only(child)).iter() {
        if session.exists(other, gfid).await?.is_some() && !crate::heal::entry::is_parked(session, other, gfid).await? {
            return Ok(true);
        }
    }
    Ok(false)
}
