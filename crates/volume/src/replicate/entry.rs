//! Changes of names: under entry locks, without a mark while every child takes part.

use std::sync::Arc;

use bytes::Bytes;
use mortar_logic::replicate::changelog::{Changelog, Slot};
use mortar_logic::replicate::readable::Readable;
use mortar_logic::replicate::verdict::{self, Answer, Mark, NewInode, Terms, Verdict};
use mortar_logic::replicate::{Set, SetExt};
use mortar_types::fop::{Lookup, Release};
use mortar_types::{Context, Dict, Errno, Fd, FileType, Gfid, Iatt, Outcome, Reply, Request, SubvolMap, Value, keys};

use tokio::time::Instant;

use super::Core;
use super::data::{answer, outcomes};
use super::gate::Name;
use super::hints::Hint;
use super::inode::{Inode, Known};
use super::kept::{LockKind, NameLock};
use super::names::{Names, comes_and_goes};
use super::tries::Tries;

/// A change of names, as far as locks and marks care.
struct Plan {
    /// The names it changes, each in its directory.
    places: Vec<(Gfid, Bytes)>,
    /// Directories that vanish: nobody may make names in them meanwhile.
    victims: Vec<Gfid>,
    /// What it makes.
    makes: Option<NewInode>,
}

/// Locked, and marked where that is needed.
struct Begun {
    /// Held until the change is settled.
    locks: Vec<(Gfid, NameLock)>,
    /// Where the change goes: a quorum.
    targets: Set,
    /// Why other children are left out.
    refused: Option<Errno>,
    marked: bool,
}

impl Begun {
    /// What is known of the names of `dir`.
    fn names_of(&self, dir: Gfid) -> impl Iterator<Item = &Names> {
        self.locks.iter().filter(move |(gfid, _)| *gfid == dir).filter_map(|(_, lock)| lock.names())
    }
}

impl Core {
    /// CREATE, MKNOD, MKDIR, SYMLINK, LINK, UNLINK, RMDIR, RENAME.
    pub(super) async fn change_entry(self: &Arc<Self>, ctx: &Context, mut request: Request) -> Outcome<Reply> {
        self.check_quorum(&self.children.up())?;
        if makes_inode(&request) {
            require_gfid(request.xdata_mut());
        }
        let plan = self.plan(ctx, &request).await?;
        let mut gates: Vec<(Gfid, Name)> =
            plan.places.iter().map(|(parent, name)| (*parent, Name::One(name.clone()))).collect();
        gates.extend(plan.victims.iter().map(|victim| (*victim, Name::All)));
        // One order for gates and locks, everywhere: by gfid, whole directories first (`afr/afr-lk-common.c`).
        gates.sort();
        gates.dedup();
        let mut order = Vec::with_capacity(gates.len());
        for (gfid, name) in &gates {
            order.push(self.inodes.get(*gfid).names.enter(name.clone()).await);
        }
        let mut tries = Tries::default();
        let begun = loop {
            match self.begin_entry(&request, &plan, &gates).await {
                Ok(begun) => break begun,
                Err(failure) => self.may_begin_again(&mut tries, failure)?,
            }
        };
        let outcome = self.run_entry(ctx, request, &plan, &begun).await;
        drop(begun);
        drop(order);
        outcome
    }

    /// All that comes before the change itself.
    async fn begin_entry(self: &Arc<Self>, request: &Request, plan: &Plan, gates: &[(Gfid, Name)]) -> Outcome<Begun> {
        let mut locks = Vec::with_capacity(gates.len());
        // One owner for both names of a rename: the bricks let a holder overtake who waits for the whole directory, who
        // otherwise would wait for the first name while the second waits behind him.
        let owner = self.new_owner();
        for (gfid, name) in gates {
            let name = match name {
                Name::All => None,
                Name::One(name) => Some(name.clone()),
            };
            if !joins_kept(&locks, *gfid) {
                locks.push((*gfid, self.hold_name(&self.inodes.get(*gfid), name, &owner).await?));
            }
        }
        self.settle_victims(plan, request).await;
        let mut targets = self.children.up();
        for (_, lock) in &locks {
            targets = targets.and(&lock.valid());
        }
        let mut refused = locks.iter().find_map(|(_, lock)| lock.refused());
        let marked = !self.options.optimistic_change_log || !targets.all();
        let mark = Changelog::in_slot(Slot::Entry, 1);
        let nobody = self.nobody();
        let mut raised_at = Vec::new();
        if marked {
            for (parent, xdata) in self.marked_places(plan, keys::XATTROP_ENTRY_CREATE) {
                let raised = self.mark(parent, &targets, &nobody, Slot::Entry, mark, xdata).await;
                targets = raised.done;
                refused = refused.or(raised.errno);
                raised_at.push(targets.clone());
            }
        }
        if self.options.quorum.is_met(&targets) {
            return Ok(Begun { locks, targets, refused, marked });
        }
        // The names stay in the index: one may be there for an older miss too.
        for ((parent, _), at) in plan.places.iter().zip(raised_at).filter(|(_, at)| !at.none()) {
            self.mark(*parent, &at, &nobody, Slot::Entry, mark.negated(), None).await;
        }
        for (_, lock) in &locks {
            lock.give_back();
        }
        Err(refused.unwrap_or(Errno::ENOTCONN).into())
    }

    async fn run_entry(
        self: &Arc<Self>,
        ctx: &Context,
        mut request: Request,
        plan: &Plan,
        begun: &Begun,
    ) -> Outcome<Reply> {
        let (marked, targets) = (begun.marked, begun.targets.clone());
        let generation = self.children.generation();
        let believed = self.good_at(plan, |inode| inode.known(generation).map(|known| known.readable.data));
        let [comes, _] = comes_and_goes(&request);
        if let Some((parent, name)) = comes {
            begun.names_of(parent).for_each(|names| names.may_come(name));
        }
        let mut bundle = self.bundle_create(&mut request, &targets);
        let mut replies = self.children.broadcast(ctx, &targets, &request).await;
        if let Some(bundle) = &mut bundle {
            bundle.note(&mut replies);
        }
        let mut opened = self.opened_by_create(ctx, &replies);
        fail_other_gfids(&mut replies);
        let good = self.good_directories(ctx, plan, &replies, believed).await;
        let good = good.filter(|good| !good.none());
        let terms =
            Terms { slot: Slot::Entry, quorum: self.options.quorum, good: good.as_ref(), refused: begun.refused };
        let verdict = verdict::judge(&outcomes(&replies), &terms);
        self.settle_entry(plan, &verdict, marked, &replies).await?;
        self.note_names(&request, &verdict, &replies);
        if let ([_, Some((parent, name))], Answer::From(child)) = (comes_and_goes(&request), &verdict.answer)
            && verdict.done.all()
            && replies[*child].as_ref().is_some_and(|reply| took_old_name(&request, reply))
        {
            begun.names_of(parent).for_each(|names| names.is_gone(name));
        }
        let mut reply = answer(replies, verdict.answer)?;
        if let (Reply::CreateReply(reply), Request::Create(create)) = (&mut reply, &request) {
            let fds = opened.take(reply.stat.gfid);
            reply.fd = self.register_create(ctx, reply.stat, create.flags, &fds);
            if let Some(bundle) = bundle
                && verdict.mark != Mark::StayDirty
            {
                bundle.install(reply.stat.gfid, &verdict.done, self.open_fd(reply.fd)?);
            }
        }
        Ok(reply)
    }

    /// Whose names are right, where that decides what the replies mean. A child that came back without names that others
    /// have says "done" where they say "exists": accusing those would make a split-brain of a plain refusal. What is
    /// remembered may be older than another client's mark, so on such replies the bricks are asked, under the lock. So they
    /// are when only a child has done it that is remembered as stale: it may have been healed since.
    async fn good_directories(
        self: &Arc<Self>,
        ctx: &Context,
        plan: &Plan,
        replies: &SubvolMap<Option<Outcome<Reply>>>,
        believed: Option<Set>,
    ) -> Option<Set> {
        let done = replies.map(|_, reply| matches!(reply, Some(Ok(_))));
        let refused =
            |reply: &Option<Outcome<Reply>>| matches!(reply, Some(Err(failure)) if failure.errno != Errno::ENOTCONN);
        let is_refused = replies.iter().any(|(_, reply)| refused(reply));
        let is_doubted = believed.as_ref().is_some_and(|good| !good.none() && good.and(&done).none());
        if done.none() || !(is_refused || is_doubted) {
            return believed;
        }
        let mut good = believed;
        for (at, (parent, _)) in plan.places.iter().enumerate() {
            let Ok(known) = self.refresh(ctx, &self.inodes.get(*parent), None).await else { continue };
            let here = known.readable.data;
            good = Some(match good.filter(|_| at > 0) {
                Some(others) => others.and(&here),
                None => here,
            });
        }
        good
    }

    /// The children that `good` names for every directory of the change; `None` where nothing is known of one.
    fn good_at(&self, plan: &Plan, good: impl Fn(&Inode) -> Option<Set>) -> Option<Set> {
        let mut parents = plan.places.iter().map(|(parent, _)| good(&self.inodes.get(*parent)));
        let first = parents.next()??;
        parents.try_fold(first, |all, one| Some(all.and(&one?)))
    }

    /// Records on the bricks who missed the change, before the caller hears of it.
    async fn settle_entry(
        &self,
        plan: &Plan,
        verdict: &Verdict,
        marked: bool,
        replies: &SubvolMap<Option<Outcome<Reply>>>,
    ) -> Outcome<()> {
        let lower = if marked { Changelog::in_slot(Slot::Entry, 1).negated() } else { Changelog::CLEAN };
        let nobody = self.nobody();
        match &verdict.mark {
            Mark::Clean if !marked => {}
            Mark::Clean => {
                // Done everywhere, or the same refusal: whoever was asked still has the mark.
                let asked = replies.map(|_, reply| reply.is_some());
                for (parent, xdata) in self.marked_places(plan, keys::XATTROP_ENTRY_DELETE) {
                    // Some copy may have missed an older change of the name, unless it is right everywhere now: its heal
                    // needs the name in the index.
                    let xdata = xdata.filter(|_| verdict.done.all());
                    self.mark(parent, &asked, &nobody, Slot::Entry, lower, xdata).await;
                }
            }
            Mark::Accuse(missed) => {
                if let (Some(kind), Some(gfid)) = (plan.makes, new_gfid(replies, verdict)) {
                    let pending = verdict::new_inode_accusations(missed, kind);
                    self.mark_with(gfid, &verdict.done, &pending, Changelog::CLEAN, None).await;
                }
                for (parent, xdata) in self.marked_places(plan, keys::XATTROP_ENTRY_CREATE) {
                    self.inodes.get(parent).distrust_data(missed);
                    let recorded = self.mark(parent, &verdict.done, missed, Slot::Entry, lower, xdata).await;
                    recorded.or_errno()?;
                }
            }
            Mark::StayDirty => {
                for (parent, xdata) in self.marked_places(plan, keys::XATTROP_ENTRY_CREATE) {
                    self.inodes.get(parent).forget();
                    if !marked && !verdict.done.none() {
                        let raise = Changelog::in_slot(Slot::Entry, 1);
                        self.mark(parent, &verdict.done, &nobody, Slot::Entry, raise, xdata).await;
                    }
                }
            }
        }
        Ok(())
    }

    /// The directories whose counters move, with the name for the brick's index of names. A rename within one
    /// directory moves them once per name, so that both names are indexed.
    fn marked_places(&self, plan: &Plan, index_key: &'static str) -> Vec<(Gfid, Option<Dict>)> {
        let xdata = |name: &Bytes| {
            self.options.granular_entry_heal.then(|| Dict::new().with(index_key, Value::Str(name.clone())))
        };
        plan.places.iter().map(|(parent, name)| (*parent, xdata(name))).collect()
    }

    async fn plan(self: &Arc<Self>, ctx: &Context, request: &Request) -> Outcome<Plan> {
        let one = |parent: Gfid, name: &Bytes, makes| Plan {
            places: vec![(parent, name.clone())],
            victims: Vec::new(),
            makes,
        };
        Ok(match request {
            Request::Create(r) => one(r.parent, &r.name, Some(NewInode::Regular)),
            Request::Mkdir(r) => one(r.parent, &r.name, Some(NewInode::Directory)),
            Request::Mknod(r) => {
                let regular = matches!(FileType::from_mode(r.mode), Some(FileType::Regular) | None);
                one(r.parent, &r.name, Some(if regular { NewInode::Regular } else { NewInode::Special }))
            }
            Request::Symlink(r) => one(r.parent, &r.name, None),
            Request::Link(r) => one(r.new_parent, &r.new_name, None),
            Request::Unlink(r) => one(r.parent, &r.name, None),
            Request::Rmdir(r) => {
                let victim = self.resolve(ctx, r.parent, &r.name).await?;
                Plan { victims: directory(victim), ..one(r.parent, &r.name, None) }
            }
            Request::Rename(r) => {
                let mut plan = one(r.old_parent, &r.old_name, None);
                let new = (r.new_parent, r.new_name.clone());
                if plan.places[0] != new {
                    plan.places.push(new);
                }
                // Only a directory can replace a directory.
                let source = self.hints.get(r.old_parent, &r.old_name);
                if source.is_none_or(|hint| hint.kind == FileType::Directory) {
                    plan.victims = directory(self.resolve(ctx, r.new_parent, &r.new_name).await?);
                }
                plan
            }
            _ => return Err(Errno::EINVAL.into()),
        })
    }

    /// What a name is now; `None` when it is nothing.
    async fn resolve(self: &Arc<Self>, ctx: &Context, parent: Gfid, name: &Bytes) -> Outcome<Option<Hint>> {
        let lookup = Lookup { gfid: Gfid::NULL, parent, flags: 0, name: name.clone(), xdata: None };
        let ctx = Context::internal(ctx.pid);
        match self.read_one(&ctx, parent, None, lookup.into()).await {
            Ok(Reply::LookupReply(reply)) => {
                let hint = reply.stat.file_type().map(|kind| Hint { gfid: reply.stat.gfid, kind });
                if let Some(hint) = hint {
                    self.hints.note(parent, name, hint);
                }
                Ok(hint)
            }
            Ok(_) => Err(Errno::EPROTO.into()),
            Err(failure) if failure.errno == Errno::ENOENT => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// A file about to lose its name must not keep a dirty mark: nobody could clear it any more.
    async fn settle_victims(self: &Arc<Self>, plan: &Plan, request: &Request) {
        let removed = match request {
            Request::Unlink(_) => plan.places.first(),
            Request::Rename(_) => plan.places.get(1),
            _ => None,
        };
        let Some((parent, name)) = removed else { return };
        let Some(hint) = self.hints.get(*parent, name) else { return };
        if hint.kind == FileType::Regular
            && let Some(inode) = self.inodes.peek(hint.gfid)
            && !inode.data.is_free()
        {
            self.give_back_now(&inode, LockKind::Data).await;
        }
    }

    /// Keeps hints and what is known of a new inode up to date.
    fn note_names(&self, request: &Request, verdict: &Verdict, replies: &SubvolMap<Option<Outcome<Reply>>>) {
        let (parent, name) = match request {
            Request::Create(r) => (r.parent, &r.name),
            Request::Mkdir(r) => (r.parent, &r.name),
            Request::Mknod(r) => (r.parent, &r.name),
            Request::Symlink(r) => (r.parent, &r.name),
            Request::Link(r) => (r.new_parent, &r.new_name),
            Request::Unlink(r) => (r.parent, &r.name),
            Request::Rmdir(r) => (r.parent, &r.name),
            Request::Rename(r) => (r.new_parent, &r.new_name),
            _ => return,
        };
        self.hints.forget(parent, name);
        if let Request::Rename(r) = request {
            self.hints.forget(r.old_parent, &r.old_name);
        }
        let Answer::From(child) = verdict.answer else { return };
        let Some(Ok(reply)) = &replies[child] else { return };
        let Some((stat, kind)) = stat_of(reply).and_then(|stat| Some((stat, stat.file_type()?))) else {
            return;
        };
        self.hints.note(parent, name, Hint { gfid: stat.gfid, kind });
        if makes_inode(request) {
            // An arbiter has the file but never its contents: not even its size may be believed.
            let data = self.arbiters.as_ref().filter(|_| kind == FileType::Regular);
            let data = data.map_or_else(|| verdict.done.clone(), |arbiters| verdict.done.minus(arbiters));
            let readable = Readable { data, metadata: verdict.done.clone() };
            let generation = self.children.generation();
            self.inodes.get(stat.gfid).learn(Known { generation, learnt: Instant::now(), kind, readable });
        }
    }

    /// What a CREATE opened on the bricks.
    fn opened_by_create(
        self: &Arc<Self>,
        ctx: &Context,
        replies: &SubvolMap<Option<Outcome<Reply>>>,
    ) -> OpenedByCreate {
        let fds = replies.map(|_, reply| match reply {
            Some(Ok(Reply::CreateReply(reply))) => Some((reply.stat.gfid, reply.fd)),
            _ => None,
        });
        OpenedByCreate { core: Arc::clone(self), opener: ctx.clone(), fds }
    }

    fn register_create(self: &Arc<Self>, ctx: &Context, stat: Iatt, flags: u32, fds: &SubvolMap<Option<Fd>>) -> Fd {
        self.register_fd(ctx, self.inodes.get(stat.gfid), flags, false, fds)
    }
}

/// Files open on bricks whose CREATE the caller may not get: what is not taken is closed, or the bricks would keep files
/// without names until the client goes.
struct OpenedByCreate {
    core: Arc<Core>,
    opener: Context,
    fds: SubvolMap<Option<(Gfid, Fd)>>,
}

impl OpenedByCreate {
    /// The fds of the file that the caller gets.
    fn take(&mut self, gfid: Gfid) -> SubvolMap<Option<Fd>> {
        let ids = self.fds.ids();
        let taken = ids.map(|id| self.fds[id].take_if(|(opened, _)| *opened == gfid).map(|(_, fd)| fd));
        taken.collect::<Vec<_>>().into()
    }
}

impl Drop for OpenedByCreate {
    fn drop(&mut self) {
        for (id, fd) in self.fds.iter() {
            if let Some((gfid, fd)) = fd {
                self.core.close_on(id, self.opener.clone(), Release { gfid: *gfid, fd: *fd, xdata: None }.into());
            }
        }
    }
}

fn directory(hint: Option<Hint>) -> Vec<Gfid> {
    hint.filter(|hint| hint.kind == FileType::Directory).map(|hint| hint.gfid).into_iter().collect()
}

/// A kept lock covers every name of its directory.
fn joins_kept(locks: &[(Gfid, NameLock)], gfid: Gfid) -> bool {
    locks.iter().any(|(locked, lock)| *locked == gfid && matches!(lock, NameLock::Kept(_)))
}

/// Whether the name that the request was to remove is gone: a rename onto itself or onto another name of the same file
/// succeeds and does nothing (rename(2)).
fn took_old_name(request: &Request, reply: &Outcome<Reply>) -> bool {
    let (Request::Rename(rename), Ok(reply)) = (request, reply) else { return reply.is_ok() };
    let is_other = (rename.old_parent, &rename.old_name) != (rename.new_parent, &rename.new_name);
    is_other && stat_of(reply).is_some_and(|stat| stat.is_dir() || stat.nlink == 1)
}

const fn makes_inode(request: &Request) -> bool {
    matches!(request, Request::Create(_) | Request::Mknod(_) | Request::Mkdir(_) | Request::Symlink(_))
}

/// Every brick must give the new inode the same identity.
fn require_gfid(xdata: &mut Option<Dict>) {
    let dict = xdata.get_or_insert_default();
    if dict.get_gfid(keys::GFID_REQ).is_none_or(|gfid| gfid.is_null()) {
        dict.set(keys::GFID_REQ, Value::Gfid(Gfid::random()));
    }
}

const fn stat_of(reply: &Reply) -> Option<Iatt> {
    match reply {
        Reply::CreateReply(reply) => Some(reply.stat),
        Reply::EntryReply(reply) => Some(reply.stat),
        Reply::RenameReply(reply) => Some(reply.stat),
        _ => None,
    }
}

/// A child that did it to another inode than the first one has a name of its own there: it has failed.
fn fail_other_gfids(replies: &mut SubvolMap<Option<Outcome<Reply>>>) {
    let gfid_at = |reply: &Option<Outcome<Reply>>| match reply {
        Some(Ok(reply)) => stat_of(reply).map(|stat| stat.gfid),
        _ => None,
    };
    let Some(first) = replies.iter().find_map(|(_, reply)| gfid_at(reply)) else { return };
    for (_, reply) in replies.iter_mut() {
        if gfid_at(reply).is_some_and(|gfid| gfid != first) {
            *reply = Some(Err(Errno::EIO.into()));
        }
    }
}

fn new_gfid(replies: &SubvolMap<Option<Outcome<Reply>>>, verdict: &Verdict) -> Option<Gfid> {
    let Answer::From(child) = verdict.answer else { return None };
    match &replies[child] {
        Some(Ok(reply)) => stat_of(reply).map(|stat| stat.gfid),
        _ => None,
    }
}
