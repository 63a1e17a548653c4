//! Heal of a directory (`dht-selfheal.c`): subvolumes without it get it, parts without an owner get one, and those who
//! missed a change of its metadata get it from the subvolume that keeps it. Nothing is touched while anybody is silent.

use std::sync::Arc;

use bytes::Bytes;
use mortar_logic::distribute::assign::{Member, Terms, new_directory};
use mortar_logic::distribute::hash::davies_meyer;
use mortar_logic::distribute::layout::{COMMIT_INVALID, Layout, Part, Slot};
use mortar_types::fop::{Getxattr, Mkdir, Setattr, Setxattr, setattr_valid};
use mortar_types::{Context, Dict, Errno, Gfid, Iatt, Outcome, SubvolId, SubvolMap, Value, keys};

use super::Core;
use super::dir::{View, nameless};
use super::known::Known;
use super::lock::Ask;
use super::subvols::Subvols;

/// How deep a remembered path may be; deeper directories start their layout by gfid.
const DEPTH_MAX: usize = 256;

impl Core {
    /// The directory after what could be healed was. `place`: parent and name, without which missing copies cannot be
    /// made.
    pub(super) async fn heal_directory(
        self: &Arc<Self>,
        ctx: &Context,
        set: &Arc<Subvols>,
        place: Option<&(Gfid, Bytes)>,
        view: View,
    ) -> View {
        let found = view.layout.anomalies();
        if !found.is_certain() {
            return view;
        }
        let (gfid, root) = (view.gfid, super::internal(ctx));
        let mut view = view;
        if found.missing > 0
            && let Some((parent, name)) = place
        {
            match Box::pin(self.make_missing(&root, set, *parent, name, gfid)).await {
                Ok(Some(healed)) => view = healed,
                Ok(None) => {}
                Err(failure) => tracing::debug!(%gfid, errno = %failure.errno, "a directory was not made everywhere"),
            }
        }
        if self.heal_metadata(&root, set, &view).await {
            view = self.look_again(&root, set, view).await;
        }
        let found = view.layout.anomalies();
        if found.is_torn() || found.unlaid > 0 {
            match self.heal_layout(&root, set, gfid).await {
                Ok(Some(healed)) => view = healed,
                Ok(None) => {}
                Err(failure) => tracing::debug!(%gfid, errno = %failure.errno, "a layout was not healed"),
            }
        }
        if view.mds.is_none() && set.len() > 1 && set.all_up() {
            self.choose_mds(&root, set, place, &mut view).await;
        }
        view
    }

    async fn look_again(&self, root: &Context, set: &Arc<Subvols>, view: View) -> View {
        let replies = self.look_everywhere(root, set, &nameless(view.gfid), None).await;
        View::new(replies).unwrap_or(view)
    }

    /// MKDIR where the directory is missing, under the name's lock. `None`: nothing was missing any more.
    async fn make_missing(
        self: &Arc<Self>,
        root: &Context,
        set: &Arc<Subvols>,
        parent: Gfid,
        name: &Bytes,
        gfid: Gfid,
    ) -> Outcome<Option<View>> {
        let dir = self.read_dir(root, parent).await?;
        let hashed = dir.hashed(name).ok_or(Errno::EIO)?;
        let held = self.lock(root, Ask::namespace(dir.set.get(hashed), parent, name)).await?;
        let lookup = mortar_types::fop::Lookup { parent, name: name.clone(), ..nameless(Gfid::NULL) };
        let replies = self.look_everywhere(root, set, &lookup, None).await;
        // Another one of the same name, or gone: not ours to make.
        let Some(view) = View::new(replies).filter(|view| view.gfid == gfid) else { return Ok(None) };
        let Some((keeper, stat)) = view.keeper() else { return Ok(None) };
        let acls = view.reply(keeper).and_then(|reply| reply.xdata.clone());
        let missing = |id: SubvolId| matches!(view.layout.slots()[id], Slot::Missing);
        let mut xdata = new_directory_xdata(gfid);
        for key in [keys::XATTR_ACL_ACCESS, keys::XATTR_ACL_DEFAULT] {
            if let Some(value) = acls.as_ref().and_then(|acls| acls.get(key)) {
                xdata.set(key, value.clone());
            }
        }
        if !view.layout.anomalies().is_torn() {
            let part = Part::empty(view_commit(&view.layout));
            xdata.set(keys::XATTR_DHT, Value::ptr(part.encode().to_vec()));
        }
        let mkdir = Mkdir { parent, mode: stat.mode & 0o7777, umask: 0, name: name.clone(), xdata: Some(xdata) };
        set.broadcast(root, missing, &mkdir).await;
        drop(held);
        let valid = setattr_valid::UID | setattr_valid::GID | setattr_valid::MODE;
        set.broadcast(root, missing, &Setattr { gfid, stat, valid, xdata: internal_xdata() }).await;
        self.copy_xattrs(root, set, gfid, keeper, missing).await;
        let replies = self.look_everywhere(root, set, &nameless(gfid), None).await;
        Ok(View::new(replies))
    }

    /// Owner, mode and user xattrs from the keeper to those who differ. Whether anything was done.
    async fn heal_metadata(&self, root: &Context, set: &Subvols, view: &View) -> bool {
        let Some((keeper, stat)) = view.keeper() else { return false };
        let same = |other: &Iatt| (other.uid, other.gid, other.mode) == (stat.uid, stat.gid, stat.mode);
        let differs = |id: SubvolId| id != keeper && view.reply(id).is_some_and(|reply| !same(&reply.stat));
        let mut done = false;
        if set.ids().any(differs) {
            let valid = setattr_valid::UID | setattr_valid::GID | setattr_valid::MODE;
            let setattr = Setattr { gfid: view.gfid, stat, valid, xdata: internal_xdata() };
            set.broadcast(root, differs, &setattr).await;
            done = true;
        }
        if view.is_stale && Some(keeper) == view.mds {
            done |= self.settle_xattrs(root, set, view.gfid, keeper).await;
        }
        done
    }

    /// Copies user xattrs from the mds and marks the others as good again.
    async fn settle_xattrs(&self, root: &Context, set: &Subvols, gfid: Gfid, mds: SubvolId) -> bool {
        if !self.copy_xattrs(root, set, gfid, mds, |id| id != mds).await {
            return false;
        }
        let zero = Dict::new().with(keys::XATTR_DHT_MDS, Value::ptr(vec![0; 4]));
        let setxattr = Setxattr { gfid, flags: 0, dict: Some(zero), xdata: internal_xdata() };
        set.get(mds).fop(root, setxattr).await.is_ok()
    }

    async fn copy_xattrs(
        &self,
        root: &Context,
        set: &Subvols,
        gfid: Gfid,
        from: SubvolId,
        to: impl Fn(SubvolId) -> bool + Copy,
    ) -> bool {
        let listed = set.get(from).fop(root, Getxattr { gfid, name: None, xdata: None }).await;
        let Ok(listed) = listed else { return false };
        let kept: Dict = listed
            .dict
            .iter()
            .flat_map(Dict::iter)
            .filter(|(key, _)| is_kept_by_mds(key))
            .map(|(key, value)| (key.to_owned().into(), value.clone()))
            .collect();
        if kept.is_empty() {
            return true;
        }
        let setxattr = Setxattr { gfid, flags: 0, dict: Some(kept), xdata: internal_xdata() };
        let replies = set.broadcast(root, to, &setxattr).await;
        replies.iter().all(|(_, reply)| !matches!(reply, Some(Err(_))))
    }

    /// A layout where there is none or a torn one, under the layout's lock everywhere. `None`: it is whole by now.
    async fn heal_layout(&self, root: &Context, set: &Arc<Subvols>, gfid: Gfid) -> Outcome<Option<View>> {
        let _held = self.lock(root, layout_locks(set, gfid)).await?;
        let replies = self.look_everywhere(root, set, &nameless(gfid), None).await;
        let Some(mut view) = View::new(replies) else { return Ok(None) };
        let found = view.layout.anomalies();
        if !found.is_certain() {
            return Ok(Some(view));
        }
        let parts: SubvolMap<Option<Part>> = if found.is_torn() {
            let mut members = self.members(set).await;
            for (id, member) in members.iter_mut() {
                member.usable &= view.reply(id).is_some();
            }
            let terms = self.terms(set, gfid, COMMIT_INVALID);
            new_directory(&members, &terms).map(|_, part| Some(*part))
        } else {
            let empty = Part::empty(view_commit(&view.layout));
            view.layout.slots().map(|_, slot| matches!(slot, Slot::NoLayout).then_some(empty))
        };
        self.write_parts(root, set, gfid, &parts, |id| view.reply(id).is_some()).await?;
        let slots = view.layout.slots().map(|id, slot| match (parts[id], slot) {
            (Some(part), Slot::Part(_) | Slot::NoLayout) => Slot::Part(part),
            _ => *slot,
        });
        view.layout = Layout::new(slots);
        Ok(Some(view))
    }

    /// Stores parts on those whom `wanted` says. Fails when one fails: the layout is torn then, and healed later.
    pub(super) async fn write_parts(
        &self,
        root: &Context,
        set: &Subvols,
        gfid: Gfid,
        parts: &SubvolMap<Option<Part>>,
        wanted: impl Fn(SubvolId) -> bool,
    ) -> Outcome<()> {
        let replies = set
            .each(
                |id| wanted(id) && parts[id].is_some(),
                |id, subvol| {
                    let bytes = parts[id].map(|part| part.encode().to_vec()).unwrap_or_default();
                    let dict = Some(Dict::new().with(keys::XATTR_DHT, Value::ptr(bytes)));
                    let setxattr = Setxattr { gfid, flags: 0, dict, xdata: internal_xdata() };
                    async move { subvol.fop(root, setxattr).await }
                },
            )
            .await;
        for (_, reply) in replies.iter() {
            if let Some(Err(failure)) = reply {
                return Err(failure.clone());
            }
        }
        Ok(())
    }

    /// Nobody keeps the metadata: the hashed subvolume does from now on.
    async fn choose_mds(&self, root: &Context, set: &Subvols, place: Option<&(Gfid, Bytes)>, view: &mut View) {
        let parent = place.and_then(|(parent, name)| match self.memories.inodes.get(parent) {
            Some(Known::Dir(dir)) if dir.set.len() == set.len() => dir.hashed(name),
            _ => None,
        });
        let chosen = if view.gfid.is_root() { Some(SubvolId(0)) } else { parent };
        let Some(chosen) = chosen.filter(|id| view.reply(*id).is_some()) else { return };
        let zero = Dict::new().with(keys::XATTR_DHT_MDS, Value::ptr(vec![0; 4]));
        let setxattr = Setxattr { gfid: view.gfid, flags: 0, dict: Some(zero), xdata: internal_xdata() };
        if set.get(chosen).fop(root, setxattr).await.is_ok() {
            view.mds = Some(chosen);
        }
    }

    /// The subvolumes as candidates for parts.
    pub(super) async fn members(&self, set: &Subvols) -> SubvolMap<Member> {
        let usages = set.each(|_| true, |_, subvol| async move { subvol.usage().await }).await;
        usages.map(|id, usage| {
            let (subvol, usage) = (set.get(id), usage.flatten());
            Member {
                name: subvol.name.clone(),
                size_mib: usage.map_or(0, |usage| usage.size_mib()),
                usable: subvol.is_up() && !set.is_decommissioned(id),
                full: usage.is_some_and(|usage| usage.is_full(&set.options.limits)),
            }
        })
    }

    pub(super) fn terms(&self, set: &Subvols, gfid: Gfid, commit_hash: u32) -> Terms {
        let seed = self.seed(set, gfid, None);
        Terms { weighted: set.options.weighted, spread: set.options.spread, seed, commit_hash }
    }

    /// Where a directory's layout starts: by its path as far as that is remembered, else by its gfid. All clients read
    /// the layout that was written; they need not have written the same.
    pub(super) fn seed(&self, set: &Subvols, gfid: Gfid, place: Option<(Gfid, &Bytes)>) -> u32 {
        let path = if set.options.by_gfid { None } else { self.path(gfid, place) };
        path.map_or_else(|| davies_meyer(gfid.to_string().as_bytes()), |path| davies_meyer(&path))
    }

    fn path(&self, gfid: Gfid, place: Option<(Gfid, &Bytes)>) -> Option<Vec<u8>> {
        if gfid.is_root() {
            return Some(b"/".to_vec());
        }
        let mut names: Vec<Bytes> = Vec::new();
        let mut at = gfid;
        if let Some((parent, name)) = place {
            names.push(name.clone());
            at = parent;
        }
        while !at.is_root() {
            let Some(Known::Dir(dir)) = self.memories.inodes.get(&at) else { return None };
            let (parent, name) = dir.place.clone()?;
            names.push(name);
            at = parent;
            if names.len() > DEPTH_MAX {
                return None;
            }
        }
        let mut path = Vec::new();
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        Some(path)
    }
}

/// Write locks on a directory's layout at every subvolume, in the order that all clients keep.
pub(super) fn layout_locks(set: &Subvols, gfid: Gfid) -> Vec<Ask> {
    let mut asks: Vec<Ask> = set.iter().map(|(_, subvol)| Ask::layout(Arc::clone(subvol), gfid)).collect();
    asks.sort_by(|a, b| a.subvol.name.cmp(&b.subvol.name));
    asks
}

/// The commit hash of those who have a part.
fn view_commit(layout: &Layout) -> u32 {
    layout.slots().iter().find_map(|(_, slot)| slot.part().map(|part| part.commit_hash)).unwrap_or(COMMIT_INVALID)
}

/// For changes that are not the user's: they neither count for quotas nor are refused for want of space.
pub(super) fn internal_xdata() -> Option<Dict> {
    Some(Dict::new().with(keys::INTERNAL_FOP, Value::str("yes")))
}

pub(super) fn new_directory_xdata(gfid: Gfid) -> Dict {
    Dict::new().with(keys::GFID_REQ, Value::Gfid(gfid)).with(keys::INTERNAL_FOP, Value::str("yes"))
}

/// Which xattrs of a directory the mds keeps for all (`dht-common.c` mds_xattr_keys).
pub(super) fn is_kept_by_mds(key: &str) -> bool {
    key.starts_with("user.")
        || key == keys::XATTR_ACL_ACCESS
        || key == keys::XATTR_ACL_DEFAULT
        || key == "security.selinux"
        || key == "trusted.glusterfs.selinux"
        || key.starts_with("trusted.glusterfs.quota.limit")
}
