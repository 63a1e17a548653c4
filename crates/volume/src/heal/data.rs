//! Data heal of one file: bring the content of the good copy to the stale ones.
//!
//! ```text
//!  heal lock ┬─ range lock 0..: read marks, decide, cut or extend sinks ─┐
//!            ├─ per block: range lock on it, compare or copy             ├─ a file of one block does all of it
//!            ├─ fsync the sinks                                          │  under the one range lock
//!            └─ range lock 0..: check the source, times, take back marks ┘
//! ```
//! Clients write to every brick that is up, the sinks included, so a block copied under its lock stays equal. What cannot
//! be trusted any more is the source: if a client's write failed on it in between, the marks say so and nothing is taken
//! back (GlusterFS does not check this).

use bytes::Bytes;
use mortar_logic::heal::blocks::{self, BLOCK_BYTES, Step};
use mortar_logic::heal::data::{Decision, Plan, decide};
use mortar_logic::heal::undo::{drop_accusations, undo};
use mortar_logic::heal::{Children, Matrix, find_direction};
use mortar_logic::replicate::changelog::Slot;
use mortar_types::fop::{Discard, Fsync, Rchecksum, RchecksumReply, Read, Truncate, Write};
use mortar_types::{Errno, Fd, FopKind, Gfid, SubvolId};

use crate::heal::error::SplitBrain;
use crate::heal::look::Looks;
use crate::heal::set::Session;
use crate::heal::{Error, Healed};

pub async fn heal(session: &Session<'_>, gfid: Gfid) -> Result<Healed, Error> {
    let heal_lock = session.heal_lock(gfid);
    session.lock_unless_busy(&heal_lock).await?;
    let result = Heal::run(session, gfid).await;
    session.unlock(&heal_lock).await;
    result
}

/// A heal that knows its direction.
struct Heal<'a> {
    session: &'a Session<'a>,
    gfid: Gfid,
    plan: Plan,
    /// The marks that the decision was made from: exactly these are taken back.
    read: Matrix,
    /// Sinks that have taken everything so far.
    sinks: Children,
    failed: Vec<(SubvolId, Error)>,
    bytes: u64,
}

/// What the first look came to.
enum Begun<'a> {
    /// Nothing to copy; marks, if any, are taken back.
    Settled(Healed),
    ToCopy(Box<Heal<'a>>, Looks),
}

impl<'a> Heal<'a> {
    async fn run(session: &'a Session<'a>, gfid: Gfid) -> Result<Healed, Error> {
        let whole = session.range_lock(gfid, 0, 0);
        session.lock(&whole).await?;
        let begun = Self::begin(session, gfid).await;
        let (mut heal, looks) = match begun {
            Ok(Begun::ToCopy(heal, looks)) => (*heal, looks),
            Ok(Begun::Settled(healed)) => {
                session.unlock(&whole).await;
                return Ok(healed);
            }
            Err(error) => {
                session.unlock(&whole).await;
                return Err(error);
            }
        };
        let size = looks.get(heal.plan.source).map_or(0, |look| look.stat.size);
        if size <= BLOCK_BYTES {
            let copied = heal.copy_all(&looks, size, None).await;
            let result = match copied {
                Ok(()) => heal.finish().await,
                Err(error) => Err(error),
            };
            session.unlock(&whole).await;
            return result;
        }
        session.unlock(&whole).await;
        heal.copy_all(&looks, size, Some(BLOCK_BYTES)).await?;
        session.lock(&whole).await?;
        let result = heal.finish().await;
        session.unlock(&whole).await;
        result
    }

    /// Under the whole lock: decide, and make the sinks as long as the source.
    async fn begin(session: &'a Session<'a>, gfid: Gfid) -> Result<Begun<'a>, Error> {
        let set = session.set;
        let looks = session.look(gfid).await;
        looks.complete()?;
        let read = looks.matrix(Slot::Data);
        let direction = find_direction(Slot::Data, &read, set.all(), set.quorum);
        let plan = match decide(&direction, set.all(), &looks.copies(set.arbiter), set.policy) {
            Decision::Heal(plan) => plan,
            Decision::Clean => {
                let changed = !read.is_clean();
                if changed {
                    let corrections = undo(&read, set.all(), Children::NONE);
                    session.correct(gfid, &[(Slot::Data, corrections)], None).await?;
                }
                return Ok(Begun::Settled(Healed { changed, ..Healed::default() }));
            }
            Decision::SplitBrain => return Err(Error::SplitBrain(SplitBrain::Data)),
            Decision::OnlyArbiterIsGood => return Err(Error::OnlyArbiterIsGood),
        };
        let mut read = read;
        if plan.resolved_split_brain {
            let corrections = drop_accusations(&read, plan.source, plan.sinks);
            session.correct(gfid, &[(Slot::Data, corrections.clone())], None).await?;
            for (child, correction) in corrections.iter() {
                if let Some(correction) = correction {
                    read.apply(child, correction);
                }
            }
        }
        let mut heal = Self { session, gfid, plan, read, sinks: plan.sinks, failed: Vec::new(), bytes: 0 };
        heal.fit_sinks(&looks).await?;
        Ok(Begun::ToCopy(Box::new(heal), looks))
    }

    /// The sinks that hold content.
    fn full_sinks(&self) -> Children {
        self.sinks.filter(|child| !self.session.set.is_arbiter(child))
    }

    async fn fit_sinks(&mut self, looks: &Looks) -> Result<(), Error> {
        let size_of = |child| looks.get(child).map_or(0, |look| look.stat.size);
        let size = size_of(self.plan.source);
        let unfit = self.full_sinks().filter(|child| size_of(child) != size);
        let request = |_| Truncate { gfid: self.gfid, offset: size, xdata: None };
        let failed = self.session.failures(unfit, request).await;
        self.lose(failed)
    }

    /// Copies every block; with `lock_bytes`, each under a lock of its own.
    async fn copy_all(&mut self, looks: &Looks, size: u64, lock_bytes: Option<u64>) -> Result<(), Error> {
        for (offset, len) in blocks::blocks(size) {
            if self.full_sinks().is_empty() {
                break;
            }
            let lock = lock_bytes.map(|_| self.session.range_lock(self.gfid, offset, len));
            if let Some(lock) = &lock {
                self.session.lock(lock).await?;
            }
            let result = self.copy_block(offset, len, looks).await;
            if let Some(lock) = &lock {
                self.session.unlock(lock).await;
            }
            result?;
        }
        let failed = self
            .session
            .failures(self.full_sinks(), |_| Fsync { gfid: self.gfid, fd: Fd::ANONYMOUS, datasync: 0, xdata: None })
            .await;
        self.lose(failed)
    }

    /// `before`: the sinks as they were before they were cut or extended.
    async fn copy_block(&mut self, offset: u64, len: u64, before: &Looks) -> Result<(), Error> {
        let sinks = self.full_sinks();
        let old_size = |child| before.get(child).map_or(0, |look| look.stat.size);
        let step = |child| blocks::step(self.session.set.algorithm, offset, old_size(child));
        let compared = sinks.filter(|child| step(child) == Step::Compare);
        let equal = self.find_equal(compared, offset, len).await?;
        let unequal = sinks.minus(equal);
        if unequal.is_empty() {
            return Ok(());
        }
        let source = self.plan.source;
        let size = u32::try_from(len).unwrap_or(u32::MAX);
        let read = Read { gfid: self.gfid, fd: Fd::ANONYMOUS, offset, size, flags: 0, xdata: None };
        let data = self.session.must(source, read).await?.data;
        let filled = unequal.filter(|child| step(child) == Step::Fill);
        let written = unequal.minus(filled);
        let punched = if blocks::is_zeros(&data) { self.punch(written, offset, len).await } else { Children::NONE };
        self.write(written.minus(punched), offset, data.clone()).await?;
        for part in blocks::written_parts(&data) {
            let at = offset + part.start as u64;
            self.write(filled.and(self.sinks), at, data.slice(part)).await?;
        }
        Ok(())
    }

    async fn write(&mut self, children: Children, offset: u64, data: Bytes) -> Result<(), Error> {
        let request =
            |_| Write { gfid: self.gfid, fd: Fd::ANONYMOUS, offset, flags: 0, data: data.clone(), xdata: None };
        let answers = self.session.each(children, request).await;
        let mut failed = Vec::new();
        for (child, answer) in answers.iter() {
            let errno = match answer {
                Some(Ok(reply)) if reply.written as usize == data.len() => {
                    self.bytes += data.len() as u64;
                    continue;
                }
                Some(Ok(_)) => Errno::EIO,
                Some(Err(failure)) => failure.errno,
                None => continue,
            };
            failed.push((child, Error::fop(child, FopKind::Write, errno)));
        }
        self.lose(failed)
    }

    /// Makes holes where the source has zeros; those that could.
    async fn punch(&self, children: Children, offset: u64, size: u64) -> Children {
        let request = |_| Discard { gfid: self.gfid, fd: Fd::ANONYMOUS, offset, size, xdata: None };
        let answers = self.session.each(children, request).await;
        children.filter(|child| matches!(answers[child], Some(Ok(_))))
    }

    /// Those of `sinks` whose block has the source's checksums.
    async fn find_equal(&self, sinks: Children, offset: u64, len: u64) -> Result<Children, Error> {
        if sinks.is_empty() {
            return Ok(Children::NONE);
        }
        let source = self.plan.source;
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let request = |_| Rchecksum { gfid: self.gfid, fd: Fd::ANONYMOUS, offset, len, flags: 0, xdata: None };
        let answers = self.session.each(sinks.or(Children::only(source)), request).await;
        // A brick that computes no checksum is no obstacle: the block is copied.
        let Some(Ok(model)) = &answers[source] else { return Ok(Children::NONE) };
        let is_equal = |reply: &RchecksumReply| {
            (reply.flags, reply.weak, &reply.strong) == (model.flags, model.weak, &model.strong)
        };
        Ok(sinks.filter(|child| matches!(&answers[child], Some(Ok(reply)) if is_equal(reply))))
    }

    /// Under the whole lock again: is the source still good; times; marks.
    async fn finish(mut self) -> Result<Healed, Error> {
        let looks = self.session.look(self.gfid).await;
        looks.complete()?;
        let now = looks.matrix(Slot::Data);
        let source = self.plan.source;
        let accused_anew =
            now.children().iter().any(|witness| now.count(witness, source) != self.read.count(witness, source));
        if accused_anew {
            return Err(Error::SourceChanged);
        }
        if let Some(model) = looks.get(source) {
            let failed = self.session.copy_times(self.gfid, model, self.sinks).await;
            self.lose(failed)?;
        }
        let failed: Children = self.failed.iter().map(|(child, _)| *child).collect();
        let corrections = undo(&self.read, self.plan.sources.or(self.sinks), failed);
        self.session.correct(self.gfid, &[(Slot::Data, corrections)], None).await?;
        match self.failed.into_iter().next() {
            Some((_, error)) => Err(error),
            None => Ok(Healed { changed: true, bytes: self.bytes, ..Healed::default() }),
        }
    }

    /// Goes on without the sinks that failed, as long as there are others.
    fn lose(&mut self, failed: Vec<(SubvolId, Error)>) -> Result<(), Error> {
        for (child, error) in failed {
            self.sinks.remove(child);
            self.failed.push((child, error));
        }
        match self.failed.first() {
            Some((_, error)) if self.sinks.is_empty() => Err(error.clone()),
            _ => Ok(()),
        }
    }
}
