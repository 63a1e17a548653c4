//! RENAME of anything but directories (`dht-rename.c`).
//!
//! Both names are kept still by locks, looked at again, and then changed by the steps of
//! [`mortar_logic::distribute::rename`]. At every step the file is found under one of its names.

use std::sync::Arc;

use bytes::Bytes;
use mortar_logic::distribute::rename::{Name, Places, Step, steps};
use mortar_logic::distribute::{linkto, merge};
use mortar_types::fop::{Link, Lookup, LookupReply, Rename, RenameReply, Unlink};
use mortar_types::{Context, Dict, Errno, Failure, Gfid, Outcome, Reply, Value, keys};

use super::Core;
use super::attempts::Attempts;
use super::create::outdated;
use super::dir::nameless;
use super::known::Dir;
use super::lock::Ask;
use super::lookup::Entry;
use super::subvols::Subvol;

/// Both names of a rename, resolved.
struct Pair {
    old: (Gfid, Bytes),
    new: (Gfid, Bytes),
    old_dir: Arc<Dir>,
    new_dir: Arc<Dir>,
}

/// What a look under the locks found.
struct Sides {
    source: LookupReply,
    source_cached: Arc<Subvol>,
    /// `None`: nothing has the new name.
    target: Option<(LookupReply, Arc<Subvol>)>,
}

impl Core {
    pub(super) async fn rename(self: &Arc<Self>, ctx: &Context, request: Rename) -> Outcome<Reply> {
        let mut last = Failure::from(Errno::EIO);
        let mut attempts = Attempts::default();
        while let Some(attempt) = attempts.next().await {
            let fresh = attempt > 0;
            let old = (request.old_parent, request.old_name.clone());
            let new = (request.new_parent, request.new_name.clone());
            let source = self.glance(ctx, &old, fresh).await?.ok_or(Errno::ENOENT)?;
            // The second time also where nobody should have put it.
            let target =
                if fresh { self.find_anywhere(ctx, &new).await? } else { self.glance(ctx, &new, true).await? };
            let Some(cached) = source.1 else {
                return Box::pin(self.rename_dir(ctx, request, source.0, target)).await;
            };
            if matches!(target, Some((_, None))) {
                return Err(Errno::EISDIR.into());
            }
            let old_dir = self.dir(ctx, old.0).await?;
            let new_dir = self.dir(ctx, new.0).await?;
            if !Arc::ptr_eq(&old_dir.set, &new_dir.set) {
                self.memories.inodes.remove(&old.0);
                self.memories.inodes.remove(&new.0);
                continue;
            }
            let pair = Pair { old, new, old_dir, new_dir };
            match self.rename_file(ctx, &request, &pair, (source.0, cached), target).await {
                Ok(Some(reply)) => return Ok(reply.into()),
                // Somebody was faster: looked at anew.
                Ok(None) => last = Errno::EIO.into(),
                Err(failure)
                    if failure.errno == Errno::ESTALE || (outdated(&failure) && failure.errno == Errno::EIO) =>
                {
                    self.memories.inodes.remove(&pair.old.0);
                    self.memories.inodes.remove(&pair.new.0);
                    last = failure;
                }
                Err(failure) => return Err(failure),
            }
        }
        Err(last)
    }

    /// What a name is: gfid and, unless it is a directory, where. From memory unless `fresh`: it is looked at again
    /// under the locks.
    async fn glance(
        self: &Arc<Self>,
        ctx: &Context,
        name: &(Gfid, Bytes),
        fresh: bool,
    ) -> Outcome<Option<(Gfid, Option<Arc<Subvol>>)>> {
        if let Some(hint) = self.memories.names.get(name).filter(|_| !fresh) {
            return Ok(Some((hint.gfid, hint.cached)));
        }
        let lookup = Lookup { parent: name.0, name: name.1.clone(), ..nameless(Gfid::NULL) };
        match self.find(&super::internal(ctx), &lookup).await {
            Ok(Entry { reply, cached }) => Ok(Some((reply.stat.gfid, cached))),
            Err(failure) if failure.errno == Errno::ENOENT => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// As [`Self::glance`], wherever the name is.
    async fn find_anywhere(
        self: &Arc<Self>,
        ctx: &Context,
        name: &(Gfid, Bytes),
    ) -> Outcome<Option<(Gfid, Option<Arc<Subvol>>)>> {
        let dir = self.read_dir(ctx, name.0).await?;
        let lookup = Lookup { parent: name.0, name: name.1.clone(), ..nameless(Gfid::NULL) };
        match self.find_everywhere(&super::internal(ctx), &lookup, &dir, None).await {
            Ok(Entry { reply, cached }) => Ok(Some((reply.stat.gfid, cached))),
            Err(failure) if failure.errno == Errno::ENOENT => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// `None`: under the locks things were not as they had seemed.
    async fn rename_file(
        self: &Arc<Self>,
        ctx: &Context,
        request: &Rename,
        pair: &Pair,
        source: (Gfid, Arc<Subvol>),
        target: Option<(Gfid, Option<Arc<Subvol>>)>,
    ) -> Outcome<Option<RenameReply>> {
        let root = super::internal(ctx);
        let set = &pair.old_dir.set;
        let old_hashed = pair.old_dir.hashed(&pair.old.1).ok_or(Errno::EIO)?;
        let new_hashed = pair.new_dir.hashed(&pair.new.1).ok_or(Errno::EIO)?;
        let mut files = vec![Ask::migrate(Arc::clone(&source.1), source.0)];
        if let Some((gfid, Some(cached))) = &target {
            files.push(Ask::migrate(Arc::clone(cached), *gfid));
        }
        files.sort_by(|a, b| (&a.subvol.name, &a.what).cmp(&(&b.subvol.name, &b.what)));
        let mut names = [(set.get(old_hashed), &pair.old), (set.get(new_hashed), &pair.new)];
        names.sort_by(|a, b| (&a.0.name, a.1).cmp(&(&b.0.name, b.1)));
        let spaces = names.iter().flat_map(|(subvol, name)| Ask::namespace(subvol, name.0, &name.1));
        let asks: Vec<Ask> = files.into_iter().chain(spaces).collect();
        let held = match self.lock(&root, asks).await {
            // The file is not there any more.
            Err(failure) if matches!(failure.errno, Errno::ESTALE | Errno::ENOENT) => return Ok(None),
            held => held?,
        };
        let Some(sides) = self.look_at_sides(&root, pair, &source, target.as_ref()).await? else { return Ok(None) };
        if sides.target.as_ref().is_some_and(|(reply, _)| reply.stat.gfid == sides.source.stat.gfid) {
            // Two names of one file: rename(2) does nothing.
            return self.same_file(&root, pair, &sides).await.map(Some);
        }
        let id = |subvol: &Arc<Subvol>| set.id_of(subvol).ok_or(Errno::ESTALE);
        let places = Places {
            source_hashed: old_hashed,
            source_cached: id(&sides.source_cached)?,
            target_hashed: new_hashed,
            target_cached: sides.target.as_ref().map(|(_, cached)| id(cached)).transpose()?,
        };
        let outcome = self.run(ctx, request, pair, &sides, &places).await;
        drop(held);
        self.memories.names.remove(&pair.old);
        self.memories.names.remove(&pair.new);
        let Some(mut reply) = outcome? else { return Ok(None) };
        self.note(pair.new.0, &pair.new.1, sides.source.stat.gfid, &sides.source_cached);
        linkto::strip(&mut reply.stat);
        for parent in
            [&mut reply.preoldparent, &mut reply.postoldparent, &mut reply.prenewparent, &mut reply.postnewparent]
        {
            merge::shown(parent);
        }
        Ok(Some(reply))
    }

    /// Both names again, under the locks. `None`: not what the locks were taken for.
    async fn look_at_sides(
        &self,
        root: &Context,
        pair: &Pair,
        source: &(Gfid, Arc<Subvol>),
        target: Option<&(Gfid, Option<Arc<Subvol>>)>,
    ) -> Outcome<Option<Sides>> {
        let look = |name: &(Gfid, Bytes), at: &Arc<Subvol>| {
            let lookup =
                Lookup { parent: name.0, name: name.1.clone(), xdata: super::dir::ask(None), ..nameless(Gfid::NULL) };
            let at = Arc::clone(at);
            async move {
                match at.fop(root, lookup).await {
                    Ok(reply) => Ok(Some(reply)),
                    Err(failure) if matches!(failure.errno, Errno::ENOENT | Errno::ESTALE) => Ok(None),
                    Err(failure) => Err(failure),
                }
            }
        };
        let set = &pair.new_dir.set;
        let new_hashed = set.get(pair.new_dir.hashed(&pair.new.1).ok_or(Errno::EIO)?);
        let target_at = target.and_then(|(_, cached)| cached.clone()).unwrap_or_else(|| Arc::clone(new_hashed));
        let (old, new) = futures::future::join(look(&pair.old, &source.1), look(&pair.new, &target_at)).await;
        let (old, new) = (old?, new?);
        let is_data = |reply: &LookupReply, gfid: Gfid| {
            reply.stat.gfid == gfid && linkto::target(&reply.stat, reply.xdata.as_ref()).is_none()
        };
        let Some(old) = old.filter(|reply| is_data(reply, source.0)) else { return Ok(None) };
        let target = match (target, new) {
            (None, None) => None,
            // Nobody had found a file before the locks. A link file that leads nowhere is overwritten; one that leads to a
            // file is somebody's who was faster, and overwriting it would hide that file.
            (None, Some(reply)) => match linkto::target(&reply.stat, reply.xdata.as_ref()) {
                Some(at) if !self.leads_to_data(root, pair, at).await? => None,
                _ => return Ok(None),
            },
            (Some((gfid, _)), Some(reply)) if is_data(&reply, *gfid) => Some((reply, target_at)),
            _ => return Ok(None),
        };
        Ok(Some(Sides { source: old, source_cached: Arc::clone(&source.1), target }))
    }

    /// Whether the subvolume that a link file of the new name points to has a file of that name.
    async fn leads_to_data(&self, root: &Context, pair: &Pair, at: &str) -> Outcome<bool> {
        let set = &pair.new_dir.set;
        let Some(at) = set.by_name(at) else { return Ok(false) };
        let (parent, name) = pair.new.clone();
        let lookup = Lookup { parent, name, xdata: super::dir::ask(None), ..nameless(Gfid::NULL) };
        match set.get(at).fop(root, lookup).await {
            Ok(reply) => Ok(linkto::target(&reply.stat, reply.xdata.as_ref()).is_none()),
            Err(failure) if matches!(failure.errno, Errno::ENOENT | Errno::ESTALE) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    async fn same_file(&self, root: &Context, pair: &Pair, sides: &Sides) -> Outcome<RenameReply> {
        let parent = |gfid| self.look_at(root, &sides.source_cached, gfid);
        let (old, new) = (parent(pair.old.0).await?.stat, parent(pair.new.0).await?.stat);
        Ok(RenameReply {
            stat: sides.source.stat,
            preoldparent: old,
            postoldparent: old,
            prenewparent: new,
            postnewparent: new,
            xdata: None,
        })
    }

    async fn run(
        &self,
        ctx: &Context,
        request: &Rename,
        pair: &Pair,
        sides: &Sides,
        places: &Places,
    ) -> Outcome<Option<RenameReply>> {
        let set = &pair.old_dir.set;
        let root = super::internal(ctx);
        let name = |name: Name| if name == Name::Old { &pair.old } else { &pair.new };
        let mut renamed: Option<RenameReply> = None;
        let mut done: Vec<Step> = Vec::new();
        for step in steps(places) {
            let outcome = match step {
                Step::Unlink { name: which, at } => {
                    let (parent, name) = name(which);
                    let is_data = (which == Name::Old && at == places.source_cached)
                        || (which == Name::New && Some(at) == places.target_cached);
                    if is_data {
                        self.unlink_part(&root, set.get(at), *parent, name).await
                    } else {
                        self.unlink_link(&root, set.get(at), *parent, name, false).await
                    }
                }
                Step::MakeLink { name: which, at } => {
                    let (parent, name) = name(which);
                    self.force_link(&root, set.get(at), (*parent, name), &sides.source.stat, &sides.source_cached).await
                }
                Step::HardLink { at } => {
                    let xdata = Dict::new()
                        .with(keys::FORCE_REPLACE, Value::str("yes"))
                        .with(keys::INTERNAL_FOP, Value::str("yes"))
                        .with("glusters.marker.dont-account", Value::str("yes"));
                    let (new_parent, new_name) = pair.new.clone();
                    let link = Link { gfid: sides.source.stat.gfid, new_parent, new_name, xdata: Some(xdata) };
                    set.get(at).fop(ctx, link).await.map(drop)
                }
                Step::Rename { at } => set.get(at).fop(ctx, request.clone()).await.map(|reply| renamed = Some(reply)),
            };
            let refused = outcome.as_ref().is_err_and(|failure| matches!(failure.errno, Errno::EACCES | Errno::EPERM));
            let fatal = match step {
                _ if renamed.is_some() => false,
                Step::Unlink { .. } => false,
                Step::Rename { at } => refused || at == places.source_cached,
                Step::MakeLink { .. } | Step::HardLink { .. } => true,
            };
            match outcome {
                Ok(()) => done.push(step),
                Err(failure) if fatal => {
                    self.undo(&root, pair, &done).await;
                    let unseen = failure.errno == Errno::EEXIST;
                    // A file without a pointer has the name: an unlink is half-way, or was interrupted.
                    return if unseen { Ok(None) } else { Err(failure) };
                }
                Err(failure) => {
                    tracing::debug!(?step, errno = %failure.errno, "a step of a rename is left to a later lookup");
                }
            }
        }
        let at = set.get(places.source_cached);
        let stat = self.look_at(&root, at, sides.source.stat.gfid).await.map_or(sides.source.stat, |reply| reply.stat);
        let parents = match renamed {
            Some(reply) => reply,
            None => self.same_file(&root, pair, sides).await?,
        };
        Ok(Some(RenameReply { stat, ..parents }))
    }

    /// Takes back what was made before the rename could not be done.
    async fn undo(&self, root: &Context, pair: &Pair, done: &[Step]) {
        let set = &pair.old_dir.set;
        for step in done.iter().rev() {
            match *step {
                Step::MakeLink { name: Name::Old, at } => {
                    drop(self.unlink_link(root, set.get(at), pair.old.0, &pair.old.1, false).await);
                }
                Step::HardLink { at } => {
                    drop(self.unlink_part(root, set.get(at), pair.new.0, &pair.new.1).await);
                }
                // Only a pointer went: a lookup makes it again.
                Step::Unlink { .. } | Step::MakeLink { .. } | Step::Rename { .. } => {}
            }
        }
    }

    /// Removes a data name as part of a rename.
    async fn unlink_part(&self, root: &Context, at: &Arc<Subvol>, parent: Gfid, name: &Bytes) -> Outcome<()> {
        let xdata = Dict::new()
            .with(keys::INTERNAL_FOP, Value::str("yes"))
            .with("glusters.marker.dont-account", Value::str("yes"));
        at.fop(root, Unlink { parent, name: name.clone(), flags: 0, xdata: Some(xdata) }).await.map(drop)
    }
}
