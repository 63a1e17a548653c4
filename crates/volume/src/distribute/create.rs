//! New files: CREATE, MKNOD, SYMLINK, LINK (`dht-common.c` dht_create, dht_mknod, dht_symlink, dht_link).

use std::sync::Arc;

use bytes::Bytes;
use mortar_logic::distribute::linkto;
use mortar_logic::distribute::merge;
use mortar_logic::distribute::space;
use mortar_types::fop::{Create, CreateReply, EntryReply, Link, Lookup, Open};
use mortar_types::{Context, Dict, Errno, Failure, Gfid, Iatt, Outcome, Reply, Request, SubvolId, Value, keys};

use super::Core;
use super::dir::nameless;
use super::fds::Opened;
use super::known::{Dir, Hint, Known};
use super::lock::{Ask, Held};
use super::subvols::Subvol;

const O_CREAT: u32 = 0o100;
const O_EXCL: u32 = 0o200;
/// How often a change is tried again because the layout was not what it was thought to be.
const ATTEMPTS_MAX: usize = 3;

/// Where a new file goes.
struct Spot {
    dir: Arc<Dir>,
    hashed: SubvolId,
    /// Another one when the hashed one is full or leaves.
    at: SubvolId,
    _held: Option<Held>,
}

impl Core {
    pub(super) async fn create(self: &Arc<Self>, ctx: &Context, mut request: Create) -> Outcome<Reply> {
        let gfid = require_gfid(&mut request.xdata);
        let mut last = Failure::from(Errno::EIO);
        for attempt in 0..ATTEMPTS_MAX {
            let spot = self.spot(ctx, request.parent, &request.name, attempt > 0).await?;
            match self.create_at(ctx, &spot, request.clone(), gfid).await {
                Err(failure) if outdated(&failure) => last = failure,
                outcome => return outcome,
            }
        }
        Err(final_failure(last))
    }

    async fn create_at(self: &Arc<Self>, ctx: &Context, spot: &Spot, request: Create, gfid: Gfid) -> Outcome<Reply> {
        let set = &spot.dir.set;
        let (parent, name, flags) = (request.parent, request.name.clone(), request.flags);
        let at = set.get(spot.at);
        if spot.at != spot.hashed {
            match self.point(ctx, spot, parent, &name, gfid).await {
                Err(failure) if failure.errno == Errno::EEXIST => {
                    return self.open_existing(ctx, parent, &name, flags).await;
                }
                other => other?,
            }
        }
        let mut asked = request;
        if spot.at == spot.hashed {
            guard(&mut asked.xdata, &spot.dir, spot.at);
        }
        let outcome = at.fop(ctx, asked).await;
        if outcome.is_err() && spot.at != spot.hashed {
            drop(self.unlink_link(&super::internal(ctx), set.get(spot.hashed), parent, &name, false).await);
        }
        let mut reply = outcome?;
        if linkto::may_be_link(&reply.stat) {
            // A link file was opened instead: the name is there, elsewhere.
            let opened =
                Opened { ctx, gfid: reply.stat.gfid, flags, is_dir: false, at: vec![(Arc::clone(at), reply.fd)] };
            let fd = self.register_fd(set, opened);
            let entry = self.find(ctx, &Lookup { parent, name: name.clone(), ..nameless(Gfid::NULL) }).await;
            if !entry.is_ok_and(|entry| entry.cached.is_some_and(|cached| Arc::ptr_eq(&cached, at))) {
                self.release_fd(fd);
                return self.open_existing(ctx, parent, &name, flags).await;
            }
            return Ok(CreateReply { fd, ..reply }.into());
        }
        linkto::strip(&mut reply.stat);
        self.note(parent, &name, reply.stat.gfid, at);
        let at = vec![(Arc::clone(at), reply.fd)];
        reply.fd = self.register_fd(set, Opened { ctx, gfid: reply.stat.gfid, flags, is_dir: false, at });
        merge::shown(&mut reply.preparent);
        merge::shown(&mut reply.postparent);
        Ok(reply.into())
    }

    /// CREATE of a name that is there: as OPEN, unless it must be new.
    async fn open_existing(self: &Arc<Self>, ctx: &Context, parent: Gfid, name: &Bytes, flags: u32) -> Outcome<Reply> {
        if flags & O_EXCL != 0 {
            return Err(Errno::EEXIST.into());
        }
        let entry = self.find(ctx, &Lookup { parent, name: name.clone(), ..nameless(Gfid::NULL) }).await?;
        if entry.cached.is_none() {
            return Err(Errno::EISDIR.into());
        }
        let (mut stat, postparent) = (entry.reply.stat, entry.reply.postparent);
        let open = Open { gfid: stat.gfid, flags: flags & !O_CREAT, xdata: None };
        let Reply::OpenReply(opened) = self.on_file(ctx, open.into()).await? else { return Err(Errno::EPROTO.into()) };
        linkto::strip(&mut stat);
        let shown = |mut stat: Iatt| {
            merge::shown(&mut stat);
            stat
        };
        let parent = shown(postparent);
        Ok(CreateReply { fd: opened.fd, stat, preparent: parent, postparent: parent, xdata: None }.into())
    }

    /// MKNOD and SYMLINK.
    pub(super) async fn make(self: &Arc<Self>, ctx: &Context, mut request: Request) -> Outcome<Reply> {
        let gfid = require_gfid(request.xdata_mut());
        let (parent, name) = match &request {
            Request::Mknod(r) => (r.parent, r.name.clone()),
            Request::Symlink(r) => (r.parent, r.name.clone()),
            _ => return Err(Errno::EINVAL.into()),
        };
        let mut last = Failure::from(Errno::EIO);
        for attempt in 0..ATTEMPTS_MAX {
            let spot = self.spot(ctx, parent, &name, attempt > 0).await?;
            let set = &spot.dir.set;
            let mut asked = request.clone();
            if spot.at == spot.hashed {
                guard(asked.xdata_mut(), &spot.dir, spot.at);
            } else {
                self.point(ctx, &spot, parent, &name, gfid).await?;
            }
            match set.get(spot.at).call(ctx, asked).await {
                Ok(mut reply) => {
                    if let Reply::EntryReply(reply) = &mut reply {
                        self.note(parent, &name, reply.stat.gfid, set.get(spot.at));
                        show_parents(reply);
                    }
                    return Ok(reply);
                }
                Err(failure) => {
                    if spot.at != spot.hashed {
                        let root = super::internal(ctx);
                        drop(self.unlink_link(&root, set.get(spot.hashed), parent, &name, false).await);
                    }
                    if !outdated(&failure) {
                        return Err(failure);
                    }
                    last = failure;
                }
            }
        }
        Err(final_failure(last))
    }

    /// LINK: the new name's pointer first, then the name beside the data.
    pub(super) async fn link(self: &Arc<Self>, ctx: &Context, request: Link) -> Outcome<Reply> {
        let (gfid, parent, name) = (request.gfid, request.new_parent, request.new_name.clone());
        let root = super::internal(ctx);
        let mut last = Failure::from(Errno::EIO);
        for attempt in 0..ATTEMPTS_MAX {
            let Known::File(cached) = self.whereabouts(ctx, gfid).await? else { return Err(Errno::EPERM.into()) };
            let dir = if attempt > 0 { self.read_dir(ctx, parent).await? } else { self.dir(ctx, parent).await? };
            let set = &dir.set;
            let hashed = set.get(dir.hashed(&name).ok_or(Errno::EIO)?);
            let pointed = !Arc::ptr_eq(hashed, &cached);
            // The file must not move away between its pointer and its new name.
            let mut asks = vec![Ask::migrate(Arc::clone(&cached), gfid)];
            asks.extend(Ask::namespace(hashed, parent, &name));
            let held = match self.lock(&root, asks).await {
                Err(failure) if outdated(&failure) || failure.errno == Errno::ESTALE => {
                    self.memories.inodes.remove(&gfid);
                    last = failure;
                    continue;
                }
                held => held?,
            };
            let now = self.look_at(&root, &cached, gfid).await;
            match now {
                Ok(reply) if linkto::target(&reply.stat, reply.xdata.as_ref()).is_none() => {
                    if pointed {
                        let stat = reply.stat;
                        self.make_link(&root, hashed, (parent, &name), &stat, &cached).await?;
                    }
                }
                Err(failure) if failure.errno == Errno::ENOTCONN => return Err(failure),
                _ => {
                    // It has moved.
                    self.memories.inodes.remove(&gfid);
                    continue;
                }
            }
            let outcome = cached.fop(ctx, request.clone()).await;
            if outcome.is_err() && pointed {
                drop(self.unlink_link(&root, hashed, parent, &name, false).await);
            }
            drop(held);
            let mut reply = outcome?;
            self.note(parent, &name, gfid, &cached);
            linkto::strip(&mut reply.stat);
            show_parents(&mut reply);
            return Ok(reply.into());
        }
        Err(final_failure(last))
    }

    /// A nameless look at one subvolume.
    pub(super) async fn look_at(
        &self,
        root: &Context,
        at: &Arc<Subvol>,
        gfid: Gfid,
    ) -> Outcome<mortar_types::fop::LookupReply> {
        at.fop(root, Lookup { xdata: super::dir::ask(None), ..nameless(gfid) }).await
    }

    /// Where a new name goes. `again`: what is remembered of the directory was wrong.
    async fn spot(self: &Arc<Self>, ctx: &Context, parent: Gfid, name: &Bytes, again: bool) -> Outcome<Spot> {
        let dir = if again { self.read_dir(ctx, parent).await? } else { self.dir(ctx, parent).await? };
        // In a layout's hole nothing can be made; GlusterFS says the same.
        let hashed = dir.hashed(name).ok_or(Errno::EIO)?;
        let set = Arc::clone(&dir.set);
        let leaves = set.is_decommissioned(hashed);
        let usage = set.get(hashed).usage().await;
        if !leaves && usage.is_none_or(|usage| !usage.is_full(&set.options.limits)) {
            return Ok(Spot { dir, hashed, at: hashed, _held: None });
        }
        if leaves {
            // The layout may be changed just now: looked at while it stays.
            let root = super::internal(ctx);
            let [layout, _] = Ask::namespace(set.get(hashed), parent, name);
            let held = self.lock(&root, [layout]).await?;
            let dir = self.read_dir_locked(ctx, parent).await?;
            let hashed = dir.hashed(name).ok_or(Errno::EIO)?;
            let at = self.roomiest(&dir, hashed).await;
            return Ok(Spot { dir, hashed, at, _held: Some(held) });
        }
        let at = self.roomiest(&dir, hashed).await;
        Ok(Spot { dir, hashed, at, _held: None })
    }

    async fn roomiest(&self, dir: &Dir, hashed: SubvolId) -> SubvolId {
        let set = &dir.set;
        let candidate = |id: SubvolId| set.get(id).is_up() && !set.is_decommissioned(id);
        let usages = set.each(candidate, |_, subvol| async move { subvol.usage().await }).await;
        space::choose(hashed, &usages.map(|_, usage| usage.flatten()), &set.options.limits)
    }

    /// The link file of a file that is about to be made elsewhere.
    async fn point(&self, ctx: &Context, spot: &Spot, parent: Gfid, name: &Bytes, gfid: Gfid) -> Outcome<()> {
        let set = &spot.dir.set;
        let stat = Iatt { gfid, uid: ctx.uid, gid: ctx.gid, ..Iatt::default() };
        self.make_link(&super::internal(ctx), set.get(spot.hashed), (parent, name), &stat, set.get(spot.at)).await
    }

    pub(super) fn note(&self, parent: Gfid, name: &Bytes, gfid: Gfid, at: &Arc<Subvol>) {
        self.memories.inodes.insert(gfid, Known::File(Arc::clone(at)));
        self.memories.names.insert((parent, name.clone()), Hint { gfid, cached: Some(Arc::clone(at)) });
    }
}

/// Every subvolume must give the new inode the same identity.
pub(super) fn require_gfid(xdata: &mut Option<Dict>) -> Gfid {
    let dict = xdata.get_or_insert_default();
    match dict.get_gfid(keys::GFID_REQ).filter(|gfid| !gfid.is_null()) {
        Some(gfid) => gfid,
        None => {
            let gfid = Gfid::random();
            dict.set(keys::GFID_REQ, Value::Gfid(gfid));
            gfid
        }
    }
}

/// The brick refuses when the parent's layout there is not this one (`dht_set_parent_layout_in_dict`).
pub(super) fn guard(xdata: &mut Option<Dict>, dir: &Dir, at: SubvolId) {
    if let Some(part) = dir.layout.part(at) {
        let xdata = xdata.get_or_insert_default();
        xdata.set(keys::PREOP_PARENT_KEY, Value::str(keys::XATTR_DHT));
        xdata.set(keys::XATTR_DHT, Value::ptr(part.encode().to_vec()));
    }
}

/// Whether a change failed because the directory is not what it was thought to be.
pub(super) fn outdated(failure: &Failure) -> bool {
    let guarded = failure.xdata.as_ref().is_some_and(|xdata| xdata.contains(keys::PREOP_CHECK_FAILED));
    matches!(failure.errno, Errno::ESTALE | Errno::ENODATA | Errno::ENOENT) || (failure.errno == Errno::EIO && guarded)
}

fn final_failure(failure: Failure) -> Failure {
    match failure.errno {
        Errno::ENODATA => Errno::EIO.into(),
        _ => failure,
    }
}

fn show_parents(reply: &mut EntryReply) {
    merge::shown(&mut reply.preparent);
    merge::shown(&mut reply.postparent);
}
