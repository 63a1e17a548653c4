//! LOOKUP: at the hashed subvolume first, elsewhere only when that does not settle it (`dht-common.c` dht_lookup and
//! what follows from its replies).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use mortar_logic::distribute::linkto;
use mortar_logic::distribute::lookup::{Answer, Found, Pointer, everywhere};
use mortar_logic::distribute::merge;
use mortar_types::fop::{Lookup, LookupReply, Mknod, Setattr, Unlink, setattr_valid};
use mortar_types::{Context, Dict, Errno, Gfid, Iatt, Outcome, Reply, SubvolId, Value, keys};

use super::Core;
use super::dir::{View, ask, nameless};
use super::heal::new_directory_xdata;
use super::known::{Dir, Hint, Known};
use super::lock::Ask;
use super::subvols::{Replies, Subvol, Subvols, errnos, worst};

/// Guards of an unlink on the brick (`dht-common.h`).
const UNLINK_ONLY_IF_LINKTO: &str = "unlink-only-if-dht-linkto-file";
const DONT_UNLINK_FOR_OPEN_FD: &str = "dont-unlink-for-open-fd";
const FILE_TYPE_REGULAR: u32 = 0o100_000;

/// A name that was found.
pub(super) struct Entry {
    pub(super) reply: LookupReply,
    /// Where the data is; `None` for a directory.
    pub(super) cached: Option<Arc<Subvol>>,
}

impl Core {
    pub(super) async fn lookup(self: &Arc<Self>, ctx: &Context, request: Lookup) -> Outcome<Reply> {
        let entry = if request.name.is_empty() {
            self.discover(ctx, &request).await?
        } else {
            self.find(ctx, &request).await?
        };
        let mut reply = entry.reply;
        linkto::strip(&mut reply.stat);
        merge::shown(&mut reply.stat);
        merge::shown(&mut reply.postparent);
        super::strip_own_keys(&mut reply.xdata);
        Ok(reply.into())
    }

    /// What a name is, asked now.
    pub(super) async fn find(self: &Arc<Self>, ctx: &Context, request: &Lookup) -> Outcome<Entry> {
        let dir = self.dir(ctx, request.parent).await?;
        let name: super::known::Name = (request.parent, request.name.clone());
        let outcome = match self.find_in(ctx, request, &dir).await {
            // The directory is not where the name lies, or is another one by now.
            Err(failure) if failure.errno == Errno::ESTALE => {
                let dir = self.read_dir(ctx, request.parent).await?;
                self.find_in(ctx, request, &dir).await
            }
            outcome => outcome,
        };
        match &outcome {
            Ok(entry) => {
                let hint = Hint { gfid: entry.reply.stat.gfid, cached: entry.cached.clone() };
                self.memories.names.insert(name, hint);
            }
            Err(_) => self.memories.names.remove(&name),
        }
        outcome
    }

    async fn find_in(self: &Arc<Self>, ctx: &Context, request: &Lookup, dir: &Arc<Dir>) -> Outcome<Entry> {
        let set = Arc::clone(&dir.set);
        let hashed = dir.hashed(&request.name);
        let hint = self.memories.names.get(&(request.parent, request.name.clone()));
        let (Some(at), false) = (hashed, hint.is_some_and(|hint| hint.cached.is_none())) else {
            // All subvolumes have a say about a directory: they are asked together.
            return self.find_everywhere(ctx, request, dir, None).await;
        };
        let asked = Lookup { xdata: ask(request.xdata.clone()), ..request.clone() };
        match set.get(at).fop(ctx, asked).await {
            Ok(reply) if reply.stat.is_dir() => self.find_everywhere(ctx, request, dir, Some((at, Ok(reply)))).await,
            Ok(reply) => match linkto::target(&reply.stat, reply.xdata.as_ref()).map(str::to_owned) {
                None => Ok(self.found_file(reply, set.get(at))),
                Some(target) => {
                    if let Some(entry) = self.follow_link(ctx, request, &set, &reply, &target).await? {
                        return Ok(entry);
                    }
                    self.find_everywhere(ctx, request, dir, Some((at, Ok(reply)))).await
                }
            },
            Err(failure) if failure.errno == Errno::ENOENT => {
                let (elsewhere, now) = self.may_be_elsewhere(ctx, Arc::clone(dir)).await?;
                if now.hashed(&request.name) != hashed || now.set.len() != set.len() {
                    return Box::pin(self.find_everywhere(ctx, request, &now, None)).await;
                }
                if elsewhere {
                    return self.find_everywhere(ctx, request, &now, Some((at, Err(failure)))).await;
                }
                Err(failure)
            }
            Err(failure) if matches!(failure.errno, Errno::ENOTCONN | Errno::ENODATA) => {
                self.find_everywhere(ctx, request, dir, Some((at, Err(failure)))).await
            }
            Err(failure) => Err(failure),
        }
    }

    /// The file that a link file points to; `None` when it is not there.
    async fn follow_link(
        &self,
        ctx: &Context,
        request: &Lookup,
        set: &Subvols,
        link: &LookupReply,
        target: &str,
    ) -> Outcome<Option<Entry>> {
        let Some(target) = set.by_name(target) else { return Ok(None) };
        let asked = Lookup { xdata: ask(request.xdata.clone()), ..request.clone() };
        match set.get(target).fop(ctx, asked).await {
            Ok(reply) => {
                let is_link = linkto::target(&reply.stat, reply.xdata.as_ref()).is_some();
                let same = reply.stat.gfid == link.stat.gfid && !reply.stat.is_dir();
                Ok((same && !is_link).then(|| self.found_file(reply, set.get(target))))
            }
            Err(failure) if matches!(failure.errno, Errno::ENOENT | Errno::ESTALE) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    fn found_file(&self, reply: LookupReply, at: &Arc<Subvol>) -> Entry {
        self.memories.inodes.insert(reply.stat.gfid, Known::File(Arc::clone(at)));
        Entry { reply, cached: Some(Arc::clone(at)) }
    }

    /// Asks everybody and judges. `known`: a reply that is there already.
    pub(super) async fn find_everywhere(
        self: &Arc<Self>,
        ctx: &Context,
        request: &Lookup,
        dir: &Arc<Dir>,
        known: Option<(SubvolId, Outcome<LookupReply>)>,
    ) -> Outcome<Entry> {
        let set = Arc::clone(&dir.set);
        let hashed = dir.hashed(&request.name);
        let (begun, generation) = (Instant::now(), self.generation.load(Ordering::Acquire));
        let replies = self.look_everywhere(ctx, &set, request, known).await;
        let findings = everywhere(&answers(&set, &replies), hashed);
        match findings.found {
            Found::Directory => {
                let place = (request.parent, request.name.clone());
                self.found_directory(ctx, set, generation, begun, Some(place), replies).await
            }
            Found::File { at } if findings.pointer == Pointer::Right && findings.stale.is_empty() => {
                take(replies, at).map(|reply| self.found_file(reply, set.get(at)))
            }
            Found::Nothing if findings.stale.is_empty() => Err(Errno::ENOENT.into()),
            Found::Unknown(errno) => Err(failure_of(replies, errno)),
            // Link files are wrong, or seem so because a file is on its way: looked at again while nobody changes them.
            Found::File { .. } | Found::Nothing => self.tidy(ctx, request, dir).await,
        }
    }

    async fn tidy(self: &Arc<Self>, ctx: &Context, request: &Lookup, dir: &Arc<Dir>) -> Outcome<Entry> {
        let (set, parent, name) = (&dir.set, request.parent, &request.name);
        let hashed = dir.hashed(name).ok_or(Errno::EIO)?;
        let root = super::internal(ctx);
        // Without the lock nothing is changed; what is found is served all the same.
        let held = self.lock(&root, Ask::namespace(set.get(hashed), parent, name)).await.ok();
        let replies = self.look_everywhere(ctx, set, request, None).await;
        let findings = everywhere(&answers(set, &replies), Some(hashed));
        if held.is_some() {
            for stale in &findings.stale {
                drop(self.unlink_link(&root, set.get(*stale), parent, name, true).await);
            }
        }
        match findings.found {
            Found::File { at } => {
                let reply = take(replies, at)?;
                if held.is_some() {
                    if findings.pointer == Pointer::Replace {
                        drop(self.unlink_link(&root, set.get(hashed), parent, name, true).await);
                    }
                    if findings.pointer != Pointer::Right {
                        let made =
                            self.make_link(&root, set.get(hashed), (parent, name), &reply.stat, set.get(at)).await;
                        if let Err(failure) = made {
                            tracing::debug!(gfid = %reply.stat.gfid, errno = %failure.errno, "no link file was made");
                        }
                    }
                }
                Ok(self.found_file(reply, set.get(at)))
            }
            Found::Directory => {
                drop(held);
                let generation = self.generation.load(Ordering::Acquire);
                let place = (parent, name.clone());
                self.found_directory(ctx, Arc::clone(set), generation, Instant::now(), Some(place), replies).await
            }
            Found::Nothing => Err(Errno::ENOENT.into()),
            Found::Unknown(errno) => Err(failure_of(replies, errno)),
        }
    }

    async fn found_directory(
        self: &Arc<Self>,
        ctx: &Context,
        set: Arc<Subvols>,
        generation: u64,
        begun: Instant,
        place: Option<(Gfid, Bytes)>,
        replies: Replies<LookupReply>,
    ) -> Outcome<Entry> {
        let Some(view) = View::new(replies) else { return Err(Errno::ESTALE.into()) };
        let view = self.heal_directory(ctx, &set, place.as_ref(), view).await;
        let reply = view.answer()?;
        self.remember_dir(set, generation, begun, place, &view);
        Ok(Entry { reply, cached: None })
    }

    /// By gfid alone: where it is known to be, else everywhere.
    pub(super) async fn discover(self: &Arc<Self>, ctx: &Context, request: &Lookup) -> Outcome<Entry> {
        let gfid = request.gfid;
        let set = self.set();
        if let Some(Known::File(at)) = self.memories.inodes.get(&gfid) {
            let asked = Lookup { xdata: ask(request.xdata.clone()), ..request.clone() };
            if let Ok(reply) = at.fop(ctx, asked).await
                && linkto::target(&reply.stat, reply.xdata.as_ref()).is_none()
            {
                return Ok(self.found_file(reply, &at));
            }
        }
        let place = match self.memories.inodes.get(&gfid) {
            Some(Known::Dir(dir)) => dir.place.clone(),
            _ => None,
        };
        let (begun, generation) = (Instant::now(), self.generation.load(Ordering::Acquire));
        let replies = self.look_everywhere(ctx, &set, request, None).await;
        match everywhere(&answers(&set, &replies), None).found {
            Found::Directory => self.found_directory(ctx, set, generation, begun, place, replies).await,
            Found::File { at } => take(replies, at).map(|reply| self.found_file(reply, set.get(at))),
            Found::Nothing => {
                self.memories.inodes.remove(&gfid);
                Err(failure_of(replies, Errno::ENOENT))
            }
            Found::Unknown(errno) => Err(failure_of(replies, errno)),
        }
    }

    /// Where an inode is, asked when it is not known.
    pub(super) async fn whereabouts(self: &Arc<Self>, ctx: &Context, gfid: Gfid) -> Outcome<Known> {
        let generation = self.generation.load(Ordering::Acquire);
        match self.memories.inodes.get(&gfid) {
            Some(Known::Dir(dir)) if dir.generation != generation => {}
            Some(known) => return Ok(known),
            None => {}
        }
        self.discover(&super::internal(ctx), &nameless(gfid)).await.map_err(|failure| match failure.errno {
            Errno::ENOENT => Errno::ESTALE.into(),
            _ => failure,
        })?;
        self.memories.inodes.get(&gfid).ok_or_else(|| Errno::ESTALE.into())
    }

    /// A link file under `name` at `at` for the file of `stat` at `target` (`dht-linkfile.c` dht_linkfile_create).
    pub(super) async fn make_link(
        &self,
        root: &Context,
        at: &Arc<Subvol>,
        (parent, name): (Gfid, &Bytes),
        stat: &Iatt,
        target: &Arc<Subvol>,
    ) -> Outcome<()> {
        let xdata = new_directory_xdata(stat.gfid).with(keys::XATTR_DHT_LINKTO, linkto::value(&target.name));
        let mode = FILE_TYPE_REGULAR | linkto::MODE;
        let mknod = Mknod { parent, dev: 0, mode, umask: 0, name: name.clone(), xdata: Some(xdata) };
        at.fop(root, mknod).await?;
        if (stat.uid, stat.gid) != (0, 0) {
            let valid = setattr_valid::UID | setattr_valid::GID;
            let xdata = super::heal::internal_xdata();
            // Only quotas look at a link file's owner.
            drop(at.fop(root, Setattr { gfid: stat.gfid, stat: *stat, valid, xdata }).await);
        }
        Ok(())
    }

    /// As [`Self::make_link`]; a link file in the way gives way. Only for who holds the name's lock and knows that what is
    /// there leads to nothing.
    pub(super) async fn force_link(
        &self,
        root: &Context,
        at: &Arc<Subvol>,
        name: (Gfid, &Bytes),
        stat: &Iatt,
        target: &Arc<Subvol>,
    ) -> Outcome<()> {
        match self.make_link(root, at, name, stat, target).await {
            Err(failure) if failure.errno == Errno::EEXIST => {
                self.unlink_link(root, at, name.0, name.1, false).await?;
                self.make_link(root, at, name, stat, target).await
            }
            made => made,
        }
    }

    /// Removes a link file, and nothing else. `closed`: only when nobody has it open.
    pub(super) async fn unlink_link(
        &self,
        root: &Context,
        at: &Arc<Subvol>,
        parent: Gfid,
        name: &Bytes,
        closed: bool,
    ) -> Outcome<()> {
        let mut xdata = Dict::new()
            .with(UNLINK_ONLY_IF_LINKTO, Value::Int(1))
            .with(keys::INTERNAL_FOP, Value::str("yes"))
            .with("glusters.marker.dont-account", Value::str("yes"));
        if closed {
            xdata.set(DONT_UNLINK_FOR_OPEN_FD, Value::Int(1));
        }
        at.fop(root, Unlink { parent, name: name.clone(), flags: 0, xdata: Some(xdata) }).await?;
        Ok(())
    }
}

/// The replies in the terms of the decision.
pub(super) fn answers(set: &Subvols, replies: &Replies<LookupReply>) -> mortar_types::SubvolMap<Answer> {
    replies.map(|_, reply| match reply {
        Some(Ok(reply)) if reply.stat.is_dir() => Answer::Directory { gfid: reply.stat.gfid },
        Some(Ok(reply)) => match linkto::target(&reply.stat, reply.xdata.as_ref()) {
            Some(target) => Answer::Link {
                gfid: reply.stat.gfid,
                target: set.by_name(target),
                is_open: reply.xdata.as_ref().and_then(|x| x.get_u64(keys::OPEN_FD_COUNT)).unwrap_or(0) > 0,
            },
            None => Answer::File { gfid: reply.stat.gfid },
        },
        Some(Err(failure)) => match failure.errno {
            // Without a gfid nobody can use it; a missing parent has no names.
            Errno::ENOENT | Errno::ESTALE | Errno::ENODATA => Answer::Absent,
            errno => Answer::Failed(errno),
        },
        None => Answer::Failed(Errno::ENOTCONN),
    })
}

fn take(mut replies: Replies<LookupReply>, at: SubvolId) -> Outcome<LookupReply> {
    replies[at].take().unwrap_or_else(|| Err(Errno::ENOTCONN.into()))
}

fn failure_of(mut replies: Replies<LookupReply>, errno: Errno) -> mortar_types::Failure {
    if errno == Errno::ENOENT {
        let errno = worst(&errnos(&replies));
        return if errno == Errno::ENOTCONN { Errno::ENOENT.into() } else { errno.into() };
    }
    replies
        .iter_mut()
        .find_map(|(_, reply)| match reply.take() {
            Some(Err(failure)) if failure.errno == errno => Some(failure),
            _ => None,
        })
        .unwrap_or_else(|| errno.into())
}
