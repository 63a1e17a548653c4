//! Entry heal of one directory: the names of the good copies for the stale ones, or the union of all names when no copy
//! can be trusted to know every deletion.
//!
//! Names are healed in batches, each under AFR's lock on the whole directory, so that clients get in between. The
//! direction is found anew under every lock.

mod create;
mod delete;
mod names;

use bytes::Bytes;
use mortar_logic::heal::data::Copy;
use mortar_logic::heal::entry::{Decision, decide, needs_full_crawl};
use mortar_logic::heal::name::{self, Conflict, Plan, Seen};
use mortar_logic::heal::undo::undo;
use mortar_logic::heal::{Children, Matrix, Resolve, find_direction};
use mortar_logic::replicate::changelog::Slot;
use mortar_types::{Dict, Gfid, SubvolId, Value, keys};

use crate::heal::error::SplitBrain;
use crate::heal::look::{Looks, nameless};
use crate::heal::set::Session;
use crate::heal::{Error, Healed, index};

pub(crate) use delete::{is_parked, throw_away_parked, unpark_linked};
pub(crate) use names::{Names, seen};

/// Names healed under one lock: enough to pay for the lock, few enough that a client waiting for the directory does not
/// notice.
const BATCH_NAMES_MAX: usize = 32;

/// Which names are looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Those that the index names, if it can be relied on.
    Changed,
    /// All of them.
    All,
}

pub async fn heal(session: &Session<'_>, dir: Gfid, scope: Scope) -> Result<Healed, Error> {
    let heal_lock = session.entry_heal_lock(dir);
    session.lock_unless_busy(&heal_lock).await?;
    let result = Heal::new(session, dir).run(scope).await;
    session.unlock(&heal_lock).await;
    result
}

/// Heals one name (during a lookup): under the lock on just this name, following the directory's direction.
pub async fn heal_name(session: &Session<'_>, dir: Gfid, name: &Bytes) -> Result<Healed, Error> {
    let lock = session.name_lock(dir, Some(name.clone()));
    session.lock(&lock).await?;
    let mut heal = Heal::new(session, dir);
    let result = heal.name_alone(name).await;
    session.unlock(&lock).await;
    result?;
    Ok(heal.verdict())
}

/// A directory being healed.
struct Heal<'a> {
    session: &'a Session<'a>,
    dir: Gfid,
    healed: Healed,
    /// Names that are two things at once.
    conflicts: Vec<(Bytes, Conflict)>,
    /// Where something could not be done, and why.
    failed: Vec<(SubvolId, Error)>,
}

/// What the decision to heal was made from.
struct Begun {
    direction: Decision,
    /// The marks read then: exactly these are taken back.
    entry: Matrix,
    crawl: Matrix,
    all_names: bool,
}

impl<'a> Heal<'a> {
    const fn new(session: &'a Session<'a>, dir: Gfid) -> Self {
        let healed = Healed { changed: false, bytes: 0, follow: Vec::new(), left: None };
        Self { session, dir, healed, conflicts: Vec::new(), failed: Vec::new() }
    }

    async fn run(mut self, scope: Scope) -> Result<Healed, Error> {
        let lock = self.session.name_lock(self.dir, None);
        self.session.lock(&lock).await?;
        let begun = self.begin(scope).await;
        self.session.unlock(&lock).await;
        let Some(begun) = begun? else { return Ok(self.healed) };

        let names = Names::collect(self.session, self.dir, begun.all_names).await?;
        for batch in names.chunks(BATCH_NAMES_MAX) {
            self.session.lock(&lock).await?;
            let result = self.batch(batch).await;
            self.session.unlock(&lock).await;
            result?;
        }
        self.session.lock(&lock).await?;
        let result = self.finish(&begun).await;
        self.session.unlock(&lock).await;
        result?;
        Ok(self.verdict())
    }

    /// `None`: there is nothing to heal.
    async fn begin(&mut self, scope: Scope) -> Result<Option<Begun>, Error> {
        let looks = self.session.look(self.dir).await;
        looks.complete()?;
        let crawl = looks.matrix(Slot::Data);
        let all_names = scope == Scope::All || needs_full_crawl(&crawl) || !self.session.set.granular;
        let begun = Begun { direction: self.direction(&looks), entry: looks.matrix(Slot::Entry), crawl, all_names };
        if begun.direction == Decision::Clean && scope == Scope::Changed {
            self.take_back(&begun, self.session.set.all(), Children::NONE).await?;
            return Ok(None);
        }
        Ok(Some(begun))
    }

    fn direction(&self, looks: &Looks) -> Decision {
        let set = self.session.set;
        decide(&find_direction(Slot::Entry, &looks.matrix(Slot::Entry), set.all(), set.quorum), set.all())
    }

    async fn batch(&mut self, names: &[Bytes]) -> Result<(), Error> {
        let looks = self.session.look(self.dir).await;
        looks.complete()?;
        let direction = merge_if_clean(self.direction(&looks), self.session.set.all());
        for name in names {
            if self.name(&direction, name).await? {
                index::forget_name(self.session, self.dir, name).await;
            }
        }
        Ok(())
    }

    async fn name_alone(&mut self, name: &Bytes) -> Result<(), Error> {
        let looks = self.session.look(self.dir).await;
        looks.complete()?;
        let direction = merge_if_clean(self.direction(&looks), self.session.set.all());
        self.name(&direction, name).await?;
        Ok(())
    }

    /// Heals one name; whether it is right everywhere now. Only a lost brick ends the whole directory.
    async fn name(&mut self, direction: &Decision, name: &Bytes) -> Result<bool, Error> {
        let seen = seen(self.session, self.dir, name).await;
        let plan = match name::decide(direction, &seen) {
            Ok(plan) => plan,
            Err(Conflict::NoAnswer { child, errno }) => {
                if errno == mortar_types::Errno::ENOTCONN {
                    return Err(Error::NotAllUp);
                }
                self.failed.push((child, Error::fop(child, mortar_types::FopKind::Lookup, errno)));
                return Ok(false);
            }
            Err(conflict) => match self.settle(&seen, conflict).await {
                Some(plan) => plan,
                None => {
                    self.conflicts.push((name.clone(), conflict));
                    return Ok(false);
                }
            },
        };
        if plan.is_nothing() {
            return Ok(true);
        }
        let witnesses = witnesses(direction, &plan, &seen);
        let failures = self.apply(&plan, witnesses, &seen, name).await;
        let is_right = failures.is_empty();
        self.failed.extend(failures);
        Ok(is_right)
    }

    /// How the set's policy settles a name that leads to two inodes; `None`: it does not. Directories are never chosen
    /// between by rule: what is in the other one would go with it (GlusterFS from 11.1 on).
    async fn settle(&self, seen: &mortar_types::SubvolMap<Seen>, conflict: Conflict) -> Option<Plan> {
        let policy = self.session.set.policy;
        let by_person = matches!(policy, Resolve::Child(_));
        match conflict {
            Conflict::Gfid { .. } => {}
            Conflict::Type { .. } if by_person => {}
            _ => return None,
        }
        let mut copies = mortar_types::SubvolMap::from_fn(seen.len(), |_| None);
        for (child, seen) in seen.iter() {
            let Seen::Present { gfid, .. } = *seen else { continue };
            let reply = self.session.call(child, nameless(gfid, None)).await.ok()?;
            let (size, is_arbiter) = (reply.stat.size, self.session.set.is_arbiter(child));
            copies[child] = Some(Copy { size, mtime: reply.stat.mtime, ctime: reply.stat.ctime, is_arbiter });
        }
        name::settle(seen, &copies, policy)
    }

    async fn apply(
        &mut self,
        plan: &Plan,
        witnesses: Children,
        seen: &mortar_types::SubvolMap<Seen>,
        name: &Bytes,
    ) -> Vec<(SubvolId, Error)> {
        let mut failures = Vec::new();
        let sources = self.session.set.all().minus(plan.delete);
        for sink in plan.delete.iter() {
            let Seen::Present { gfid, kind } = seen[sink] else { continue };
            match delete::delete(self.session, self.dir, name, delete::Victim { gfid, kind }, sink, sources).await {
                Ok(()) => self.healed.changed = true,
                Err(error) => failures.push((sink, error)),
            }
        }
        let Some(from) = plan.from else { return failures };
        let create = plan.create.filter(|sink| !failures.iter().any(|(child, _)| *child == sink));
        match create::create(self.session, self.dir, name, from, create, plan.assign, witnesses).await {
            Ok(created) => {
                failures.extend(created.failures);
                if let Some(gfid) = created.gfid {
                    self.healed.changed = true;
                    self.healed.follow.push(gfid);
                }
            }
            Err(error) => failures.push((from, error)),
        }
        failures
    }

    /// Under the lock: times and marks.
    async fn finish(&mut self, begun: &Begun) -> Result<(), Error> {
        if !self.conflicts.is_empty() {
            return Ok(());
        }
        let looks = self.session.look(self.dir).await;
        looks.complete()?;
        let all = self.session.set.all();
        let model = match begun.direction {
            Decision::Clean => return Ok(()),
            Decision::Follow { source, .. } => {
                let now = looks.matrix(Slot::Entry);
                if all.iter().any(|witness| now.count(witness, source) != begun.entry.count(witness, source)) {
                    return Err(Error::SourceChanged);
                }
                Some(source)
            }
            Decision::Merge { .. } => looks.newest(all),
        };
        let Some(model) = model.filter(|model| !self.has_failed(*model)) else { return Ok(()) };
        if let Some(look) = looks.get(model) {
            let others = all.filter(|child| child != model && !self.has_failed(child));
            let failed = self.session.copy_times(self.dir, look, others).await;
            self.failed.extend(failed);
        }
        let failed = all.filter(|child| self.has_failed(child));
        if matches!(begun.direction, Decision::Merge { .. }) && !failed.is_empty() {
            // Of a union, an incomplete part is as good as none.
            return Ok(());
        }
        self.take_back(begun, all.minus(failed), failed).await
    }

    fn has_failed(&self, child: SubvolId) -> bool {
        self.failed.iter().any(|(failed, _)| *failed == child)
    }

    /// The marks of names, and of "needs a full crawl".
    async fn take_back(&mut self, begun: &Begun, good: Children, failed: Children) -> Result<(), Error> {
        if begun.entry.is_clean() && begun.crawl.is_clean() {
            return Ok(());
        }
        self.healed.changed = true;
        let xdata = failed.is_empty().then(purge);
        let slots = [(Slot::Entry, undo(&begun.entry, good, failed)), (Slot::Data, undo(&begun.crawl, good, failed))];
        self.session.correct(self.dir, &slots, xdata.as_ref()).await
    }

    fn verdict(mut self) -> Healed {
        let count = self.failed.len();
        let first = self.failed.into_iter().next().map(|(_, error)| error);
        self.healed.left = if self.conflicts.is_empty() {
            first.map(|first| Error::Names { count, first: Box::new(first) })
        } else {
            Some(Error::SplitBrain(SplitBrain::Names(self.conflicts)))
        };
        self.healed
    }
}

/// With "purge the names of this directory from the index when nothing is pending any more".
pub(crate) fn purge() -> Dict {
    Dict::new().with(keys::XATTROP_PURGE_INDEX, Value::Int(1))
}

/// A name that differs although no mark says so (an old crash): nothing may be deleted for it.
const fn merge_if_clean(direction: Decision, all: Children) -> Decision {
    match direction {
        Decision::Clean => Decision::Merge { children: all },
        other => other,
    }
}

/// The children whose marks must tell of a new inode before it is made.
fn witnesses(direction: &Decision, plan: &Plan, seen: &mortar_types::SubvolMap<Seen>) -> Children {
    let is_right = |child: SubvolId| plan.from.is_some_and(|from| seen[child] == seen[from]);
    match direction {
        Decision::Follow { sources, .. } => sources.filter(is_right),
        Decision::Merge { children } => children.filter(is_right),
        Decision::Clean => Children::NONE,
    }
}
