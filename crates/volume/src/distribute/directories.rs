//! MKDIR and RMDIR: on the hashed subvolume the name is decided, the others follow (`dht-common.c` dht_mkdir, dht_rmdir).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use mortar_logic::distribute::assign::{self, new_directory};
use mortar_logic::distribute::layout::{COMMIT_INVALID, Part};
use mortar_logic::distribute::{linkto, merge};
use mortar_types::fop::{ChangeReply, EntryReply, Lookup, Mkdir, Opendir, Readdirp, Releasedir, Rmdir};
use mortar_types::{Context, Dict, Errno, Failure, Gfid, Iatt, Outcome, Reply, SubvolId, SubvolMap, Value, keys};

use super::Core;
use super::create::{guard, outdated, require_gfid};
use super::dir::nameless;
use super::heal::internal_xdata;
use super::known::{Dir, Hint, Known};
use super::lock::Ask;
use super::subvols::{Subvol, Subvols};

const ATTEMPTS_MAX: usize = 3;
/// RMDIR's flag to throw away a whole tree.
const FLAG_TREE: i32 = 1;
/// What one READDIRP of an emptiness check asks, bytes.
const LIST_BYTES: u32 = 64 * 1024;

impl Core {
    pub(super) async fn mkdir(self: &Arc<Self>, ctx: &Context, mut request: Mkdir) -> Outcome<Reply> {
        let gfid = require_gfid(&mut request.xdata);
        let (parent, name) = (request.parent, request.name.clone());
        let root = super::internal(ctx);
        let mut last = Failure::from(Errno::EIO);
        for attempt in 0..ATTEMPTS_MAX {
            let dir = if attempt > 0 { self.read_dir(ctx, parent).await? } else { self.dir(ctx, parent).await? };
            let set = Arc::clone(&dir.set);
            let hashed = dir.hashed(&name).ok_or(Errno::EIO)?;
            let members = self.members(&set).await;
            let held = match self.lock(&root, Ask::namespace(set.get(hashed), parent, &name)).await {
                Err(failure) if outdated(&failure) => {
                    last = failure;
                    continue;
                }
                held => held?,
            };
            let mut asked = request.clone();
            guard(&mut asked.xdata, &dir, hashed);
            asked.xdata.get_or_insert_default().set(keys::XATTR_DHT_MDS, Value::ptr(vec![0; 4]));
            let generation = self.generation.load(Ordering::Acquire);
            match set.get(hashed).fop(ctx, asked).await {
                Err(failure) if outdated(&failure) => {
                    last = failure;
                    drop(held);
                }
                Err(failure) => return Err(failure),
                Ok(reply) => {
                    let mut terms = self.terms(&set, gfid, COMMIT_INVALID);
                    terms.seed = self.seed(&set, gfid, Some((parent, &name)));
                    terms.commit_hash = self.new_commit(&root, &set).await;
                    let parts = new_directory(&members, &terms);
                    let made = self.mkdir_rest(ctx, &set, hashed, &request, gfid, &parts).await;
                    self.memories.names.insert((parent, name.clone()), Hint { gfid, cached: None });
                    if made.iter().all(|(_, made)| *made) {
                        let dir = Dir {
                            gfid,
                            layout: assign::layout(&parts),
                            set,
                            generation,
                            read_at: Instant::now(),
                            mds: Some(hashed),
                            place: Some((parent, name)),
                        };
                        self.memories.inodes.insert(gfid, Known::Dir(Arc::new(dir)));
                    }
                    drop(held);
                    return Ok(shown_entry(reply).into());
                }
            }
        }
        Err(if last.errno == Errno::ENODATA { Errno::EIO.into() } else { last })
    }

    /// MKDIR on the others together with the layout, and the layout on the hashed one. Who got both; the others are a
    /// heal's.
    async fn mkdir_rest(
        &self,
        ctx: &Context,
        set: &Arc<Subvols>,
        hashed: SubvolId,
        request: &Mkdir,
        gfid: Gfid,
        parts: &SubvolMap<Part>,
    ) -> SubvolMap<bool> {
        let root = super::internal(ctx);
        let made = set
            .each(
                |_| true,
                |id, subvol| {
                    let (request, root) = (request.clone(), root.clone());
                    let part = Value::ptr(parts[id].encode().to_vec());
                    async move {
                        if id == hashed {
                            let dict = Some(Dict::new().with(keys::XATTR_DHT, part));
                            let setxattr =
                                mortar_types::fop::Setxattr { gfid, flags: 0, dict, xdata: internal_xdata() };
                            return subvol.fop(&root, setxattr).await.is_ok();
                        }
                        let mut request = request;
                        request.xdata.get_or_insert_default().set(keys::XATTR_DHT, part);
                        subvol.fop(ctx, request).await.is_ok_and(|reply| reply.stat.gfid == gfid)
                    }
                },
            )
            .await;
        made.map(|_, made| made.unwrap_or(false))
    }

    /// What a new directory is marked with (`dht_mkdir_hashed_cbk`): the volume's commit hash, so that missing names are
    /// believed to be missing.
    async fn new_commit(self: &Arc<Self>, root: &Context, set: &Subvols) -> u32 {
        if !set.options.lookup_optimize {
            return COMMIT_INVALID;
        }
        self.current_commit(root).await.unwrap_or(COMMIT_INVALID)
    }

    pub(super) async fn rmdir(self: &Arc<Self>, ctx: &Context, request: Rmdir) -> Outcome<Reply> {
        let (parent, name) = (request.parent, request.name.clone());
        let lookup = Lookup { parent, name: name.clone(), ..nameless(Gfid::NULL) };
        let entry = self.find(ctx, &lookup).await?;
        if entry.cached.is_some() {
            return Err(Errno::ENOTDIR.into());
        }
        let gfid = entry.reply.stat.gfid;
        let dir = self.dir(ctx, parent).await?;
        let set = Arc::clone(&dir.set);
        let hashed = dir.hashed(&name).ok_or(Errno::EIO)?;
        if !set.all_up() {
            // What is on the one that is away would live on there.
            return Err(Errno::ENOTCONN.into());
        }
        if request.flags & FLAG_TREE == 0 {
            self.check_empty(ctx, &set, gfid).await?;
        }
        let root = super::internal(ctx);
        let held = self.lock(&root, Ask::namespace(set.get(hashed), parent, &name)).await?;
        let outcome = self.rmdir_locked(ctx, &set, hashed, &request, gfid).await;
        drop(held);
        self.memories.names.remove(&(parent, name));
        if outcome.is_ok() {
            self.memories.inodes.remove(&gfid);
        }
        outcome.map(|mut reply| {
            merge::shown(&mut reply.pre);
            merge::shown(&mut reply.post);
            reply.into()
        })
    }

    async fn rmdir_locked(
        self: &Arc<Self>,
        ctx: &Context,
        set: &Arc<Subvols>,
        hashed: SubvolId,
        request: &Rmdir,
        gfid: Gfid,
    ) -> Outcome<ChangeReply> {
        let replies = set.broadcast(ctx, |id| id != hashed, request).await;
        let gone = |errno| matches!(errno, Errno::ENOENT | Errno::ESTALE);
        let failed = replies.iter().find_map(|(_, reply)| match reply {
            Some(Err(failure)) if !gone(failure.errno) => Some(failure.clone()),
            _ => None,
        });
        let last = match failed {
            Some(failure) => Err(failure),
            None => set.get(hashed).fop(ctx, request.clone()).await,
        };
        if let Err(failure) = &last
            && !gone(failure.errno)
            && replies.iter().any(|(_, reply)| matches!(reply, Some(Ok(_))))
        {
            self.restore_later(ctx, request.parent, request.name.clone(), gfid);
        }
        last
    }

    /// A directory that was removed on some subvolumes only is made again there, once the name is free.
    fn restore_later(self: &Arc<Self>, ctx: &Context, parent: Gfid, name: Bytes, gfid: Gfid) {
        self.memories.inodes.remove(&gfid);
        let (core, root) = (Arc::clone(self), super::internal(ctx));
        self.runtime.spawn(async move {
            let lookup = Lookup { parent, name, ..nameless(Gfid::NULL) };
            drop(core.find(&root, &lookup).await);
        });
    }

    /// ENOTEMPTY when any subvolume has more than link files in the directory; those that lead nowhere are removed
    /// (dht_rmdir_is_subvol_empty).
    pub(super) async fn check_empty(self: &Arc<Self>, ctx: &Context, set: &Arc<Subvols>, gfid: Gfid) -> Outcome<()> {
        let root = super::internal(ctx);
        let emptied = set.each(|_| true, |_, subvol| self.clean_links(&root, set, subvol, gfid)).await;
        for (_, outcome) in emptied.iter() {
            match outcome {
                Some(Err(failure)) if matches!(failure.errno, Errno::ENOENT | Errno::ESTALE) => {}
                Some(Err(failure)) => return Err(failure.clone()),
                _ => {}
            }
        }
        Ok(())
    }

    async fn clean_links(&self, root: &Context, set: &Subvols, at: Arc<Subvol>, gfid: Gfid) -> Outcome<()> {
        let outcome = match at.fop(root, Opendir { gfid, xdata: None }).await {
            Ok(opened) => {
                let outcome = self.clean_listed(root, set, &at, gfid, opened.fd).await;
                drop(at.fop(root, Releasedir { gfid, fd: opened.fd, xdata: None }).await);
                outcome
            }
            Err(failure) => Err(failure),
        };
        match outcome {
            Err(failure) if failure.errno != Errno::ENOTEMPTY => {
                // Opening or listing a directory that somebody removes meanwhile fails in one way here, in another there.
                self.look_at(root, &at, gfid).await?;
                Err(failure)
            }
            outcome => outcome,
        }
    }

    async fn clean_listed(
        &self,
        root: &Context,
        set: &Subvols,
        at: &Arc<Subvol>,
        gfid: Gfid,
        fd: mortar_types::Fd,
    ) -> Outcome<()> {
        let mut offset = 0;
        let mut links: Vec<(Bytes, Gfid, String)> = Vec::new();
        loop {
            let xdata = Some(Dict::new().with(keys::XATTR_DHT_LINKTO, Value::Uint(256)));
            let page = at.fop(root, Readdirp { gfid, fd, offset, size: LIST_BYTES, xdata }).await?;
            for entry in &page.entries {
                if matches!(&entry.entry.name[..], b"." | b"..") {
                    continue;
                }
                let Some(target) = linkto::target(&entry.stat, entry.xdata.as_ref()) else {
                    return Err(Errno::ENOTEMPTY.into());
                };
                links.push((entry.entry.name.clone(), entry.stat.gfid, target.to_owned()));
            }
            match page.entries.last() {
                Some(last) if !page.eof => offset = last.entry.offset,
                _ => break,
            }
        }
        for (name, linked, target) in links {
            if let Some(target) = set.by_name(&target) {
                let lookup = Lookup { parent: gfid, name: name.clone(), ..nameless(Gfid::NULL) };
                match set.get(target).fop(root, Lookup { xdata: super::dir::ask(None), ..lookup }).await {
                    // It leads to its file.
                    Ok(reply)
                        if reply.stat.gfid == linked && linkto::target(&reply.stat, reply.xdata.as_ref()).is_none() =>
                    {
                        return Err(Errno::ENOTEMPTY.into());
                    }
                    Ok(_) => {}
                    Err(failure) if matches!(failure.errno, Errno::ENOENT | Errno::ESTALE) => {}
                    Err(failure) => return Err(failure),
                }
            }
            match self.unlink_link(root, at, gfid, &name, false).await {
                Err(failure) if failure.errno != Errno::ENOENT => return Err(Errno::ENOTEMPTY.into()),
                _ => {}
            }
        }
        Ok(())
    }
}

fn shown_entry(mut reply: EntryReply) -> EntryReply {
    let show = |stat: &mut Iatt| merge::shown(stat);
    show(&mut reply.stat);
    show(&mut reply.preparent);
    show(&mut reply.postparent);
    reply
}
