//! Directories as all subvolumes see them: asked together, judged, remembered.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mortar_logic::distribute::layout::{Layout, Part, Slot};
use mortar_logic::distribute::lookup::{Trust, asks_everywhere};
use mortar_logic::distribute::merge;
use mortar_types::fop::{Lookup, LookupReply};
use mortar_types::{Context, Dict, Errno, Gfid, Iatt, Outcome, SubvolId, SubvolMap, Value, keys};

use super::Core;
use super::known::{Dir, Known};
use super::subvols::{Replies, Subvols, errnos, worst};

/// On the root: the volume's commit hash as decimal text (`dht-common.h` conf->commithash_xattr_name).
pub(super) const XATTR_COMMIT_HASH: &str = "trusted.glusterfs.dht.commithash";
/// A layout read longer ago does not prove that a name is missing: another client or a rebalance may have changed it.
const PROOF_AGE_MAX: Duration = Duration::from_secs(1);

/// The volume's commit hash, and when it was read.
#[derive(Clone, Copy)]
pub(super) struct VolumeCommit {
    hash: Option<u32>,
    read_at: Instant,
}

/// What all subvolumes say about one directory.
pub(super) struct View {
    pub(super) gfid: Gfid,
    pub(super) replies: Replies<LookupReply>,
    pub(super) layout: Layout,
    /// Who keeps the metadata.
    pub(super) mds: Option<SubvolId>,
    /// The mds says that others missed a change of user xattrs.
    pub(super) is_stale: bool,
}

impl View {
    /// `None` when no subvolume has a directory.
    pub(super) fn new(replies: Replies<LookupReply>) -> Option<Self> {
        let dir = |reply: &Option<Outcome<LookupReply>>| match reply {
            Some(Ok(reply)) if reply.stat.is_dir() => Some(reply.stat.gfid),
            _ => None,
        };
        let gfid = replies.iter().find_map(|(_, reply)| dir(reply))?;
        for (id, reply) in replies.iter() {
            if let Some(other) = dir(reply).filter(|other| *other != gfid) {
                // As GlusterFS: told, and the first one is served.
                tracing::warn!(%gfid, %other, subvol = id.0, "two directories of one name have different gfids");
            }
        }
        let layout = Layout::new(replies.map(|_, reply| slot(reply.as_ref(), gfid)));
        let mds_value = |reply: &Option<Outcome<LookupReply>>| match reply {
            Some(Ok(reply)) => {
                let value: [u8; 4] = reply.xdata.as_ref()?.get_bytes(keys::XATTR_DHT_MDS)?[..].try_into().ok()?;
                Some(i32::from_be_bytes(value))
            }
            _ => None,
        };
        let mds = replies.iter().find_map(|(id, reply)| mds_value(reply).map(|value| (id, value)));
        let is_stale = mds.is_some_and(|(_, value)| value < 0);
        Some(Self { gfid, layout, mds: mds.map(|(id, _)| id), is_stale, replies })
    }

    pub(super) fn reply(&self, id: SubvolId) -> Option<&LookupReply> {
        match &self.replies[id] {
            Some(Ok(reply)) if reply.stat.gfid == self.gfid => Some(reply),
            _ => None,
        }
    }

    pub(super) fn has(&self) -> impl Iterator<Item = (SubvolId, &LookupReply)> {
        self.replies.ids().filter_map(|id| self.reply(id).map(|reply| (id, reply)))
    }

    /// Whose owner and mode count.
    pub(super) fn keeper(&self) -> Option<(SubvolId, Iatt)> {
        let mds = self.mds.and_then(|id| self.reply(id).map(|reply| (id, reply.stat)));
        if mds.is_some() && !self.gfid.is_root() {
            return mds;
        }
        // The root of a subvolume that was just added is the newest, and has never been told anything: it has no layout.
        let laid = |id: SubvolId| self.layout.part(id).is_some();
        let rank = |(id, reply): &(SubvolId, &LookupReply)| (laid(*id), reply.stat.ctime, std::cmp::Reverse(*id));
        self.has().max_by_key(rank).map(|(id, reply)| (id, reply.stat))
    }

    /// The one answer.
    pub(super) fn answer(&self) -> Outcome<LookupReply> {
        let mut stat = Iatt::default();
        let mut postparent = Iatt::default();
        let mut xdata = None;
        for (id, reply) in self.has() {
            merge::directory(&mut stat, &reply.stat);
            merge::directory(&mut postparent, &reply.postparent);
            if xdata.is_none() || self.mds == Some(id) {
                xdata = reply.xdata.clone();
            }
        }
        if stat.is_empty() {
            return Err(worst(&errnos(&self.replies)).into());
        }
        if let Some((_, keeper)) = self.keeper() {
            merge::owner(&mut stat, &keeper);
        }
        super::strip_own_keys(&mut xdata);
        Ok(LookupReply { stat, postparent, xdata })
    }
}

fn slot(reply: Option<&Outcome<LookupReply>>, gfid: Gfid) -> Slot {
    match reply {
        Some(Ok(reply)) if reply.stat.is_dir() && reply.stat.gfid == gfid => {
            let part = reply.xdata.as_ref().and_then(|xdata| xdata.get_bytes(keys::XATTR_DHT));
            part.and_then(|bytes| Part::decode(bytes)).map_or(Slot::NoLayout, Slot::Part)
        }
        Some(Ok(_)) => Slot::Odd,
        Some(Err(failure)) => match failure.errno {
            Errno::ENOENT | Errno::ESTALE => Slot::Missing,
            Errno::ENOTCONN => Slot::Down,
            _ => Slot::Odd,
        },
        None => Slot::Down,
    }
}

/// Puts the layer's questions into a lookup's xdata. The gfid for a nameless object stays out: giving it is a heal's
/// business.
pub(super) fn ask(xdata: Option<Dict>) -> Option<Dict> {
    let mut xdata = xdata.unwrap_or_default();
    xdata.remove(keys::GFID_REQ);
    xdata.set(keys::XATTR_DHT_LINKTO, Value::Uint(256));
    xdata.set(keys::XATTR_DHT, Value::Uint(16));
    xdata.set(keys::XATTR_DHT_MDS, Value::Uint(4));
    xdata.set(keys::OPEN_FD_COUNT, Value::Uint(4));
    xdata.set(keys::XATTR_ACL_ACCESS, Value::Uint(4096));
    xdata.set(keys::XATTR_ACL_DEFAULT, Value::Uint(4096));
    Some(xdata)
}

pub(super) fn nameless(gfid: Gfid) -> Lookup {
    Lookup { gfid, parent: Gfid::NULL, flags: 0, name: Bytes::new(), xdata: None }
}

impl Core {
    /// A lookup at every subvolume of which `known` has no reply yet.
    pub(super) async fn look_everywhere(
        &self,
        ctx: &Context,
        set: &Subvols,
        lookup: &Lookup,
        known: Option<(SubvolId, Outcome<LookupReply>)>,
    ) -> Replies<LookupReply> {
        let skip = known.as_ref().map(|(id, _)| *id);
        let lookup = Lookup { xdata: ask(lookup.xdata.clone()), ..lookup.clone() };
        let mut replies = set.broadcast(ctx, |id| Some(id) != skip, &lookup).await;
        if let Some((id, reply)) = known {
            replies[id] = Some(reply);
        }
        replies
    }

    /// The directory, from memory while nothing makes that worthless.
    pub(super) async fn dir(self: &Arc<Self>, ctx: &Context, gfid: Gfid) -> Outcome<Arc<Dir>> {
        match self.memories.inodes.get(&gfid) {
            Some(Known::Dir(dir)) if dir.generation == self.generation.load(Ordering::Acquire) => Ok(dir),
            _ => self.read_dir(ctx, gfid).await,
        }
    }

    /// The directory as it is now, healed if it needs that.
    pub(super) async fn read_dir(self: &Arc<Self>, ctx: &Context, gfid: Gfid) -> Outcome<Arc<Dir>> {
        self.read_dir_and(ctx, gfid, true).await
    }

    /// The directory as it is now, for who holds a lock that a heal would wait for.
    pub(super) async fn read_dir_locked(self: &Arc<Self>, ctx: &Context, gfid: Gfid) -> Outcome<Arc<Dir>> {
        self.read_dir_and(ctx, gfid, false).await
    }

    async fn read_dir_and(self: &Arc<Self>, ctx: &Context, gfid: Gfid, heals: bool) -> Outcome<Arc<Dir>> {
        let place = match self.memories.inodes.get(&gfid) {
            Some(Known::Dir(dir)) => dir.place.clone(),
            _ => None,
        };
        let (set, generation) = (self.set(), self.generation.load(Ordering::Acquire));
        let begun = Instant::now();
        let mut lookup = nameless(gfid);
        if gfid.is_root() {
            lookup.xdata = Some(Dict::new().with(XATTR_COMMIT_HASH, Value::Uint(32)));
        }
        let replies = self.look_everywhere(&super::internal(ctx), &set, &lookup, None).await;
        if gfid.is_root() {
            *self.volume_commit.lock() = Some(VolumeCommit { hash: volume_commit(&replies), read_at: begun });
        }
        if let Some(error) = not_a_directory(&replies) {
            self.memories.inodes.remove(&gfid);
            return Err(error.into());
        }
        let Some(view) = View::new(replies) else { return Err(Errno::ESTALE.into()) };
        let view = if heals { self.heal_directory(ctx, &set, place.as_ref(), view).await } else { view };
        Ok(self.remember_dir(set, generation, begun, place, &view))
    }

    pub(super) fn remember_dir(
        &self,
        set: Arc<Subvols>,
        generation: u64,
        read_at: Instant,
        place: Option<(Gfid, Bytes)>,
        view: &View,
    ) -> Arc<Dir> {
        let (gfid, layout, mds) = (view.gfid, view.layout.clone(), view.mds);
        let dir = Arc::new(Dir { gfid, layout, set, generation, read_at, mds, place });
        self.memories.inodes.insert(gfid, Known::Dir(Arc::clone(&dir)));
        dir
    }

    /// Whether a name that is not at its hashed subvolume may be elsewhere. `dir` may be read again to tell; what counts
    /// afterwards comes back with the answer.
    pub(super) async fn may_be_elsewhere(self: &Arc<Self>, ctx: &Context, dir: Arc<Dir>) -> Outcome<(bool, Arc<Dir>)> {
        if dir.set.len() <= 1 || !dir.set.options.lookup_optimize {
            let trust = trust(&dir, None);
            return Ok((asks_everywhere(&trust), dir));
        }
        // Without reading anything: this one would not be trusted anyway.
        if !trust(&dir, None).spans {
            return Ok((true, dir));
        }
        let dir = if dir.read_at.elapsed() > PROOF_AGE_MAX { self.read_dir(ctx, dir.gfid).await? } else { dir };
        let known = *self.volume_commit.lock();
        // A rebalance changes the volume's hash first and layouts afterwards.
        let commit = match known.filter(|known| known.read_at >= dir.read_at) {
            Some(commit) => commit,
            None => {
                Box::pin(self.read_dir(ctx, Gfid::ROOT)).await?;
                let Some(commit) = *self.volume_commit.lock() else { return Ok((true, dir)) };
                commit
            }
        };
        Ok((asks_everywhere(&trust(&dir, Some(commit))), dir))
    }

    /// The volume's commit hash, read when it is not known or old; 0 while there is none.
    pub(super) async fn current_commit(self: &Arc<Self>, root: &Context) -> Outcome<u32> {
        let known = *self.volume_commit.lock();
        if known.is_none_or(|known| known.read_at.elapsed() > PROOF_AGE_MAX) {
            self.read_dir(root, Gfid::ROOT).await?;
        }
        let known = *self.volume_commit.lock();
        Ok(known.and_then(|known| known.hash).unwrap_or(0))
    }

    /// Whether files of the directory may be on their way: a rebalance has run since it was settled.
    pub(super) fn may_be_moving(&self, dir: &Dir) -> bool {
        let commit = *self.volume_commit.lock();
        let rebalanced = commit.is_none_or(|commit| commit.hash.is_some());
        let trust = Trust { optimize: true, ..trust(dir, commit) };
        !trust.spans || (rebalanced && asks_everywhere(&trust))
    }
}

fn trust(dir: &Dir, commit: Option<VolumeCommit>) -> Trust {
    let set = &dir.set;
    Trust {
        subvolumes: set.len(),
        optimize: set.options.lookup_optimize,
        unhashed: set.options.lookup_unhashed,
        layout_commit: dir.layout.commit_hash(),
        // A volume that was never rebalanced has none: 0, as directories made in it have.
        volume_commit: commit.and_then(|commit| commit.hash).unwrap_or(0),
        spans: set.options.spread.is_some() || dir.layout.spans_exactly(|id| !set.is_decommissioned(id)),
    }
}

/// The hash that all subvolumes' roots agree on; those without one do not count.
fn volume_commit(replies: &Replies<LookupReply>) -> Option<u32> {
    let of = |reply: &Option<Outcome<LookupReply>>| match reply {
        Some(Ok(reply)) => reply.xdata.as_ref()?.get_str(XATTR_COMMIT_HASH)?.trim().parse::<u32>().ok(),
        _ => None,
    };
    let mut hashes = replies.iter().filter_map(|(_, reply)| of(reply));
    let first = hashes.next()?;
    Some(if hashes.all(|hash| hash == first) { first } else { mortar_logic::distribute::layout::COMMIT_INVALID })
}

/// Why a nameless lookup found no directory.
fn not_a_directory(replies: &SubvolMap<Option<Outcome<LookupReply>>>) -> Option<Errno> {
    let mut other = None;
    for (_, reply) in replies.iter() {
        match reply {
            Some(Ok(reply)) if reply.stat.is_dir() => return None,
            Some(Ok(_)) => other = Some(Errno::ENOTDIR),
            _ => {}
        }
    }
    Some(other.unwrap_or_else(|| match worst(&errnos(replies)) {
        Errno::ENOENT => Errno::ESTALE,
        errno => errno,
    }))
}
