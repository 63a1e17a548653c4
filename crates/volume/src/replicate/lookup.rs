//! Lookup on all children, and what it teaches about an inode's copies.

use std::sync::Arc;
use std::time::Duration;

use mortar_logic::replicate::lookup::{self as rules, Decision};
use mortar_logic::replicate::readable::{self, Report};
use mortar_logic::replicate::{Set, SetExt};
use mortar_types::fop::{Fstat, Lookup, LookupReply};
use mortar_types::{Context, Dict, Errno, FileType, Gfid, Iatt, Outcome, Reply, SubvolMap, Value, keys};

use tokio::time::Instant;

use super::Core;
use super::fds::OpenFd;
use super::gate::Name;
use super::hints::Hint;
use super::inode::{Inode, Known};

/// Where heal parks what it moves away; clients do not see it.
pub(super) const ANONYMOUS_INODE_PREFIX: &[u8] = b".glusterfs-anonymous-inode-";

/// How long a copy is distrusted before a change without asking again; bounds what that costs while a heal goes on.
const DISTRUST_LASTS: Duration = Duration::from_millis(100);

type Replies = SubvolMap<Option<Outcome<LookupReply>>>;

impl Core {
    pub(super) async fn lookup(self: &Arc<Self>, ctx: &Context, mut request: Lookup) -> Outcome<Reply> {
        let named = !request.name.is_empty();
        if named && is_hidden(request.parent, &request.name) && !ctx.pid.is_internal() {
            return Err(Errno::ENOENT.into());
        }
        let up = self.children.up();
        self.check_quorum(&up)?;
        let parent = named.then(|| self.inodes.get(request.parent));
        if let Some(parent) = &parent
            && !ctx.pid.is_internal()
            && self.is_absent(parent, &request.name)
        {
            return Err(Errno::ENOENT.into());
        }
        let generation = self.children.generation();
        self.ask(request.xdata.get_or_insert_default(), named);
        let bearers = self.content_bearers(ctx, &request, &up, generation);
        let asked = Instant::now();
        let mut replies = self.ask_all(ctx, &up, &request, &bearers).await;
        self.pending.learn(generation, asked, &up, &replies);
        let mut reports = replies.map(|_, reply| report(reply.as_ref()));
        if let Some(parent) = &parent
            && rules::is_contradictory(&reports)
        {
            // Perhaps just a change on its way: look again when none of ours, and where one of another client's shows
            // or the name leads to two inodes, none at all is under way.
            let _order = parent.names.enter(Name::One(request.name.clone())).await;
            let locked = rules::is_gfid_mismatch(&reports) || is_any_entry_locked(&replies);
            let name = Some(request.name.clone());
            let _lock = if locked { self.hold_name(parent, name, &self.new_owner()).await.ok() } else { None };
            replies = self.ask_all(ctx, &up, &request, &bearers).await;
            reports = replies.map(|_, reply| report(reply.as_ref()));
        }
        let parent_readable = match &parent {
            Some(parent) if rules::is_contradictory(&reports) => {
                Some(self.known(ctx, parent, None).await?.readable.data)
            }
            Some(parent) => match parent.known(generation).map(|known| known.readable.data) {
                Some(trusted) if rules::only_doubted_answer(&reports, &trusted) => {
                    Some(self.refresh(ctx, parent, None).await.map_or(trusted, |known| known.readable.data))
                }
                remembered => remembered,
            },
            None => None,
        };
        // A kept lock of our own is no change under way.
        let entry_locked = parent.as_ref().is_none_or(|parent| parent.entry.is_free()) && is_any_entry_locked(&replies);
        let judged = rules::judge(&reports, parent_readable.as_ref(), self.options.quorum, entry_locked);
        if judged.suspect {
            self.suspect(request.gfid, request.parent, &request.name);
        }
        let among = match judged.decision {
            Decision::Found { among } => among,
            Decision::Fail(errno) => {
                if let Some(parent) = &parent {
                    self.hints.forget(request.parent, &request.name);
                    if errno == Errno::ENOENT {
                        self.missed_name(parent);
                    }
                }
                return Err(failure_with(replies, errno));
            }
        };
        let Some((gfid, kind)) = identity(&reports, &among) else { return Err(Errno::EIO.into()) };
        let known = self.interpret(&replies, &among, generation, gfid, kind, request.parent, &request.name);
        let good = known.readable.both().and(&among);
        // Whoever alone was asked for the contents, if that was a good guess: attributes and contents belong together.
        let bearer = bearers.ids().find(|id| bearers[*id] && bearers.count() == 1 && good[*id]);
        let from = bearer.or_else(|| self.choose(&good, gfid, ctx, known.kind));
        // A split-brain can still be looked at: from the first copy there is.
        let from = from.or_else(|| among.ids().find(|id| among[*id])).ok_or(Errno::EIO)?;
        if named {
            self.hints.note(request.parent, &request.name, Hint { gfid, kind });
        }
        // Also where copies disagree, if only for a moment: contents that somebody keeps must be everybody's.
        let contents_doubtful = good.none() || judged.suspect;
        if judged.suspect {
            // Perhaps only until another client's change has reached all: not to be remembered.
            self.inodes.get(gfid).forget();
        } else {
            self.inodes.get(gfid).learn(known);
        }
        let postparent = parent_readable
            .and_then(|readable| self.choose(&readable, request.parent, ctx, FileType::Directory))
            .and_then(|id| replies[id].as_ref()?.as_ref().ok().map(|reply| reply.postparent));
        let mut reply = replies[from].take().unwrap_or(Err(Errno::EIO.into()))?;
        if let Some(postparent) = postparent.filter(|stat| !stat.is_empty()) {
            reply.postparent = postparent;
        }
        if contents_doubtful && let Some(xdata) = &mut reply.xdata {
            xdata.remove(keys::CONTENT);
        }
        self.strip_counters(&mut reply.xdata);
        Ok(reply.into())
    }

    /// Who is asked for the contents, when a layer above wants them: the child that will be read from, as far as that
    /// can be told before the lookup; else everybody who has contents.
    fn content_bearers(&self, ctx: &Context, request: &Lookup, up: &Set, generation: u64) -> Set {
        if !request.xdata.as_ref().is_some_and(|xdata| xdata.contains(keys::CONTENT)) {
            return up.map(|_, _| false);
        }
        let with_contents = self.arbiters.as_ref().map_or_else(|| up.clone(), |arbiters| up.minus(arbiters));
        let gfid = if request.name.is_empty() {
            Some(request.gfid)
        } else {
            self.hints.get(request.parent, &request.name).map(|hint| hint.gfid)
        };
        let Some(gfid) = gfid else { return with_contents };
        let known = self.inodes.peek(gfid).and_then(|inode| inode.known(generation));
        let good = known.map_or_else(|| with_contents.clone(), |known| known.readable.both().and(&with_contents));
        match self.choose(&good, gfid, ctx, FileType::Regular) {
            Some(child) => up.map(|id, _| id == child),
            None => with_contents,
        }
    }

    /// Sends a lookup to all in `up`, with the question for contents only to `bearers`.
    async fn ask_all(&self, ctx: &Context, up: &Set, request: &Lookup, bearers: &Set) -> Replies {
        let mut plain = request.clone();
        if let Some(xdata) = &mut plain.xdata {
            xdata.remove(keys::CONTENT);
        }
        let ask = |id| {
            let request = if bearers[id] { request } else { &plain };
            self.children.get(id).call(ctx, request.clone().into())
        };
        typed(self.children.each(up, ask).await)
    }

    /// What is known of an inode's copies; asks the bricks when nothing is, or when children came or went since. That no
    /// copy is good is asked again each time: who settles a split-brain tells nobody.
    pub(super) async fn known(
        self: &Arc<Self>,
        ctx: &Context,
        inode: &Arc<Inode>,
        fd: Option<&Arc<OpenFd>>,
    ) -> Outcome<Known> {
        match inode.known(self.children.generation()) {
            Some(known) if !known.readable.both().none() => Ok(known),
            _ => self.refresh(ctx, inode, fd).await,
        }
    }

    /// As [`Self::known`], before a change that only good copies may make: a heal makes a distrusted copy good and tells
    /// nobody, so while one that is up is distrusted, the bricks are asked again from time to time.
    pub(super) async fn known_lately(
        self: &Arc<Self>,
        ctx: &Context,
        inode: &Arc<Inode>,
        fd: Option<&Arc<OpenFd>>,
    ) -> Outcome<Known> {
        let known = self.known(ctx, inode, fd).await?;
        let up = self.children.up();
        let with_contents = self.arbiters.as_ref().map_or_else(|| up.clone(), |arbiters| up.minus(arbiters));
        if with_contents.minus(&known.readable.both()).none() || known.learnt.elapsed() < DISTRUST_LASTS {
            return Ok(known);
        }
        Ok(self.refresh(ctx, inode, fd).await.unwrap_or(known))
    }

    pub(super) async fn refresh(
        self: &Arc<Self>,
        ctx: &Context,
        inode: &Arc<Inode>,
        fd: Option<&Arc<OpenFd>>,
    ) -> Outcome<Known> {
        let ctx = &Context::internal(ctx.pid);
        let up = self.children.up();
        self.check_quorum(&up)?;
        let generation = self.children.generation();
        let mut xdata = Dict::new();
        self.ask(&mut xdata, false);
        let gfid = inode.gfid;
        let lookup =
            Lookup { gfid, parent: Gfid::NULL, flags: 0, name: bytes::Bytes::new(), xdata: Some(xdata.clone()) };
        let asked = Instant::now();
        let replies = self.children.broadcast(ctx, &up, &lookup.into()).await;
        let mut replies: Replies = typed(replies);
        self.pending.learn(generation, asked, &up, &replies);
        let gone = |reply: &Option<Outcome<LookupReply>>| matches!(reply, Some(Err(failure)) if matches!(failure.errno, Errno::ENOENT | Errno::ESTALE));
        if let Some(open) = fd
            && replies.iter().any(|(_, reply)| gone(reply))
        {
            // Unlinked while open: only the open file still leads to it.
            let fstat = Fstat { gfid, fd: mortar_types::Fd::ANONYMOUS, xdata: Some(xdata) };
            let stats = self.send_with_fds(ctx, &fstat.into(), &open.open_at().and(&up), fd, None).await;
            for (id, stat) in stats.iter() {
                if let Some(Ok(Reply::StatReply(stat))) = stat {
                    let postparent = Iatt::default();
                    replies[id] = Some(Ok(LookupReply { stat: stat.stat, postparent, xdata: stat.xdata.clone() }));
                }
            }
        }
        let reports = replies.map(|_, reply| report(reply.as_ref()));
        let among = replies.map(|_, reply| matches!(reply, Some(Ok(_))));
        let Some((_, kind)) = identity(&reports, &among) else {
            let errno = rules::final_errno(reports.iter().filter_map(|(_, report)| match report {
                rules::Report::Failed(errno) => Some(*errno),
                _ => None,
            }));
            return Err(failure_with(replies, errno));
        };
        let known = self.interpret(&replies, &among, generation, gfid, kind, Gfid::NULL, &bytes::Bytes::new());
        if among == up {
            inode.learn(known.clone());
        }
        Ok(known)
    }

    #[expect(clippy::too_many_arguments, reason = "one reading of one lookup; a struct would only rename them")]
    fn interpret(
        &self,
        replies: &Replies,
        among: &Set,
        generation: u64,
        gfid: Gfid,
        kind: FileType,
        parent: Gfid,
        name: &bytes::Bytes,
    ) -> Known {
        let reports = replies.map(|id, reply| match reply {
            Some(Ok(reply)) if among[id] => Some(Report {
                kind,
                size: reply.stat.size,
                counters: self.options.keys.parse(reply.xdata.as_ref()),
                locked: reply.xdata.as_ref().and_then(|x| x.get_i64(keys::INODELK_COUNT)).unwrap_or(0) > 0,
            }),
            _ => None,
        });
        if readable::needs_heal(&reports) {
            self.suspect(gfid, parent, name);
        }
        Known {
            generation,
            learnt: Instant::now(),
            kind,
            readable: readable::interpret(&reports, self.arbiters.as_ref()),
        }
    }

    /// Puts the questions of a lookup into its xdata. The gfid for a nameless object stays out: giving it is a heal's
    /// business, under locks.
    fn ask(&self, xdata: &mut Dict, named: bool) {
        xdata.remove(keys::GFID_REQ);
        self.options.keys.request(xdata);
        xdata.set(keys::INODELK_COUNT, Value::Uint(0));
        if named {
            xdata.set(keys::PARENT_ENTRYLK, Value::Uint(0));
        }
        xdata.set(keys::LINK_COUNT, Value::Str(bytes::Bytes::from_static(keys::XATTROP_INDEX_COUNT.as_bytes())));
    }

    /// The counters are between us and the bricks.
    pub(super) fn strip_counters(&self, xdata: &mut Option<Dict>) {
        if let Some(xdata) = xdata {
            xdata.retain(|key, _| !key.starts_with(keys::XATTR_AFR_PREFIX));
        }
    }
}

pub(super) fn is_hidden(parent: Gfid, name: &[u8]) -> bool {
    parent.is_root() && name.starts_with(ANONYMOUS_INODE_PREFIX)
}

fn typed(replies: SubvolMap<Option<Outcome<Reply>>>) -> Replies {
    let mut replies = replies;
    let count = replies.len();
    SubvolMap::from_fn(count, |id| {
        replies[id].take().map(|reply| reply.and_then(|reply| Ok(LookupReply::try_from(reply)?)))
    })
}

fn report(reply: Option<&Outcome<LookupReply>>) -> rules::Report {
    match reply {
        None => rules::Report::NotAsked,
        Some(Err(failure)) => rules::Report::Failed(failure.errno),
        Some(Ok(reply)) => reply
            .stat
            .file_type()
            .map_or(rules::Report::Failed(Errno::EIO), |kind| rules::Report::Found { gfid: reply.stat.gfid, kind }),
    }
}

fn is_any_entry_locked(replies: &Replies) -> bool {
    replies.iter().any(|(_, reply)| is_entry_locked(reply.as_ref()))
}

fn is_entry_locked(reply: Option<&Outcome<LookupReply>>) -> bool {
    let xdata = match reply {
        Some(Ok(reply)) => reply.xdata.as_ref(),
        Some(Err(failure)) => failure.xdata.as_ref(),
        None => None,
    };
    xdata.and_then(|xdata| xdata.get_i64(keys::PARENT_ENTRYLK)).unwrap_or(0) > 0
}

fn identity(reports: &SubvolMap<rules::Report>, among: &Set) -> Option<(Gfid, FileType)> {
    reports.iter().filter(|(id, _)| among[*id]).find_map(|(_, report)| match report {
        rules::Report::Found { gfid, kind } => Some((*gfid, *kind)),
        _ => None,
    })
}

/// The failure of a child that failed so: its xdata may matter to the layers above.
fn failure_with(mut replies: Replies, errno: Errno) -> mortar_types::Failure {
    replies
        .iter_mut()
        .find_map(|(_, reply)| match reply.take() {
            Some(Err(failure)) if failure.errno == errno => Some(failure),
            _ => None,
        })
        .unwrap_or_else(|| errno.into())
}
