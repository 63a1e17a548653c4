//! What rebalance and the command line ask of the layer: layouts anew, where a name lies, the volume's space.

use std::sync::Arc;

use mortar_logic::distribute::assign::{self, needs_fix};
use mortar_logic::distribute::layout::{COMMIT_INVALID, Layout, Part, Slot};
use mortar_logic::distribute::merge;
use mortar_logic::distribute::space::Usage;
use mortar_types::fop::{AckReply, Ipc, Lookup, Setxattr, Statfs, StatfsReply};
use mortar_types::{Context, Dict, Errno, Fops, Gfid, Outcome, Reply, SubvolId, SubvolMap, Value};

use super::dir::{View, XATTR_COMMIT_HASH, nameless};
use super::heal::{internal_xdata, layout_locks};
use super::subvols::{errnos, worst};
use super::{Core, Distribute};

/// Where a name belongs and where its data is.
#[derive(Clone)]
pub struct Located {
    pub gfid: Gfid,
    /// `None` in a layout's hole.
    pub hashed: Option<Arc<dyn Fops>>,
    /// `None`: a directory, which is everywhere.
    pub cached: Option<Arc<dyn Fops>>,
}

impl Distribute {
    /// Where `name` belongs in `parent` by its layout of now, and where it is found.
    pub async fn locate(&self, ctx: &Context, parent: Gfid, name: &[u8]) -> Outcome<Located> {
        let core = &self.core;
        let name = bytes::Bytes::copy_from_slice(name);
        let entry = core.find(ctx, &Lookup { parent, name: name.clone(), ..nameless(Gfid::NULL) }).await?;
        let dir = core.dir(ctx, parent).await?;
        Ok(Located {
            gfid: entry.reply.stat.gfid,
            hashed: dir.hashed(&name).map(|id| Arc::clone(&dir.set.get(id).fops)),
            cached: entry.cached.map(|cached| Arc::clone(&cached.fops)),
        })
    }

    /// The layout of a directory as stored now, in the order of the subvolumes.
    pub async fn layout(&self, ctx: &Context, dir: Gfid) -> Outcome<Layout> {
        Ok(self.core.read_dir(ctx, dir).await?.layout.clone())
    }

    /// Gives a directory the layout that it should have with the subvolumes of now, moving as few names as possible;
    /// whether anything was written (`dht-selfheal.c` dht_fix_layout_of_directory). Files stay where they are: names
    /// whose place has changed are found by asking everywhere until the directory is settled. ENOTCONN while a
    /// subvolume is away.
    pub async fn fix_layout(&self, ctx: &Context, dir: Gfid) -> Outcome<bool> {
        self.core.fix_layout(ctx, dir).await
    }

    /// The layout that [`Self::fix_layout`] would leave; nothing is changed.
    pub async fn planned_layout(&self, ctx: &Context, dir: Gfid) -> Outcome<Layout> {
        let core = &self.core;
        let (set, root) = (core.set(), super::internal(ctx));
        let replies = core.look_everywhere(&root, &set, &nameless(dir), None).await;
        let Some(view) = View::new(replies) else { return Err(Errno::ESTALE.into()) };
        let members = core.members(&set).await;
        let terms = core.terms(&set, dir, COMMIT_INVALID);
        if !needs_fix(&view.layout, &members, &terms) {
            return Ok(view.layout);
        }
        Ok(Layout::new(assign::fix(&view.layout, &members, &terms).map(|_, part| Slot::Part(*part))))
    }

    /// Marks a directory whose files all are where their names belong with the volume's commit hash: names that are
    /// missing there are from now on believed to be missing.
    pub async fn settle(&self, ctx: &Context, dir: Gfid, commit_hash: u32) -> Outcome<()> {
        self.core.settle(ctx, dir, commit_hash).await
    }

    /// What a subvolume has left, as of the last second. `None`: it does not say.
    pub async fn usage(&self, at: SubvolId) -> Option<Usage> {
        let set = self.core.set();
        let subvol = set.iter().find(|(id, _)| *id == at).map(|(_, subvol)| Arc::clone(subvol))?;
        subvol.usage().await
    }

    /// Begins a rebalance: from now on no directory's commit hash is the volume's until it is settled. Clients believe
    /// what they have read of a layout for up to a second; whoever changes layouts waits that long.
    pub async fn set_volume_commit(&self, ctx: &Context, commit_hash: u32) -> Outcome<()> {
        let core = &self.core;
        let value = Value::ptr(format!("{commit_hash}\0").into_bytes());
        let dict = Some(Dict::new().with(XATTR_COMMIT_HASH, value));
        let set = core.set();
        let setxattr = Setxattr { gfid: Gfid::ROOT, flags: 0, dict, xdata: internal_xdata() };
        let replies = set.broadcast(&super::internal(ctx), |_| true, &setxattr).await;
        *core.volume_commit.lock() = None;
        replies
            .iter()
            .find_map(|(_, reply)| match reply {
                Some(Err(failure)) => Some(Err(failure.clone())),
                _ => None,
            })
            .unwrap_or(Ok(()))
    }
}

impl Core {
    async fn fix_layout(self: &Arc<Self>, ctx: &Context, gfid: Gfid) -> Outcome<bool> {
        let root = super::internal(ctx);
        // Makes it where it is missing.
        let set = Arc::clone(&self.read_dir(&root, gfid).await?.set);
        if !set.all_up() {
            return Err(Errno::ENOTCONN.into());
        }
        let members = self.members(&set).await;
        let terms = self.terms(&set, gfid, COMMIT_INVALID);
        let held = self.lock(&root, layout_locks(&set, gfid)).await?;
        let replies = self.look_everywhere(&root, &set, &nameless(gfid), None).await;
        let Some(view) = View::new(replies) else { return Err(Errno::ESTALE.into()) };
        let found = view.layout.anomalies();
        if !found.is_certain() || found.missing > 0 {
            return Err(Errno::ENOTCONN.into());
        }
        if !needs_fix(&view.layout, &members, &terms) {
            return Ok(false);
        }
        let parts = assign::fix(&view.layout, &members, &terms);
        let written = self.write_parts(&root, &set, gfid, &parts.map(|_, part| Some(*part)), |_| true).await;
        self.memories.inodes.remove(&gfid);
        drop(held);
        written.map(|()| true)
    }

    async fn settle(self: &Arc<Self>, ctx: &Context, gfid: Gfid, commit_hash: u32) -> Outcome<()> {
        let root = super::internal(ctx);
        let set = self.set();
        let held = self.lock(&root, layout_locks(&set, gfid)).await?;
        let replies = self.look_everywhere(&root, &set, &nameless(gfid), None).await;
        let Some(view) = View::new(replies) else { return Err(Errno::ESTALE.into()) };
        if !view.layout.anomalies().none() {
            return Err(Errno::EBUSY.into());
        }
        let parts: SubvolMap<Option<Part>> =
            view.layout.slots().map(|_, slot| slot.part().map(|part| Part { commit_hash, ..*part }));
        let written = self.write_parts(&root, &set, gfid, &parts, |_| true).await;
        self.memories.inodes.remove(&gfid);
        drop(held);
        written
    }

    pub(super) async fn statfs(&self, ctx: &Context, request: &Statfs) -> Outcome<Reply> {
        let set = self.set();
        // Only the root is sure to be everywhere.
        let request = Statfs { gfid: Gfid::ROOT, ..request.clone() };
        let replies = set.broadcast(ctx, |_| true, &request).await;
        let parts = replies.iter().filter_map(|(_, reply)| match reply {
            Some(Ok(reply)) => Some(reply.statfs),
            _ => None,
        });
        match merge::statfs(parts) {
            Some(statfs) => Ok(StatfsReply { statfs, xdata: None }.into()),
            None => Err(worst(&errnos(&replies)).into()),
        }
    }

    /// Everybody must hear it; one success is enough.
    pub(super) async fn ipc(&self, ctx: &Context, request: &Ipc) -> Outcome<Reply> {
        let replies = self.set().broadcast(ctx, |_| true, request).await;
        if replies.iter().any(|(_, reply)| matches!(reply, Some(Ok(_)))) {
            return Ok(AckReply { xdata: None }.into());
        }
        Err(worst(&errnos(&replies)).into())
    }
}

/// Positions are subvolumes' own business.
impl std::fmt::Debug for Located {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = |fops: &Option<Arc<dyn Fops>>| fops.as_ref().map(|fops| fops.name().to_owned());
        f.debug_struct("Located")
            .field("gfid", &self.gfid)
            .field("hashed", &name(&self.hashed))
            .field("cached", &name(&self.cached))
            .finish()
    }
}
