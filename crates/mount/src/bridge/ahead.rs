//! Entries of an open directory between the volume and the kernel: while the kernel and the application are busy with
//! one portion the volume is asked for the next.
//!
//! ```text
//!   volume --READDIRP--> coming (asked or arrived, one portion) --> here (being given) --READDIRPLUS--> kernel
//! ```
//!
//! At most two portions are held per open directory. A portion serves the one offset where it begins; any other offset
//! (a seek, a rewind) drops both. Attributes age: see [`Portion::is_fresh`] and [`crate::changes`].

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use mortar_types::fop::{DirentPlus, Readdir, Readdirp};
use mortar_types::{Context, Errno, Fd, Fops, Gfid, Iatt};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::{Result, errno};
use crate::changes::{Changes, Watch};

/// What the first READDIR(P) of a listing asks, bytes on the wire: little, because somebody waits for it.
const FIRST_BYTES: u32 = 16 * 1024;
/// What every other one asks: enough that the round trip is paid by few entries, little enough that the brick, this
/// client and the application work at the same time on a directory of a thousand files.
const PORTION_BYTES: u32 = 48 * 1024;
/// Entries that waited longer are asked again even where attributes may be older: somebody paused in a listing.
const AGE_MAX: Duration = Duration::from_secs(1);

/// Entries that the volume gave in one reply.
#[derive(Debug)]
pub struct Portion {
    pub(super) entries: VecDeque<DirentPlus>,
    /// The offset that continues where `entries` begins.
    pub(super) offset: u64,
    /// Nothing follows `entries`.
    pub(super) eof: bool,
    /// The entries have attributes.
    plus: bool,
    /// When they were asked: nothing in them is older.
    pub(super) asked: Instant,
    /// What changed since; `None` once there is nothing left that a change could concern.
    pub(super) watch: Option<Watch>,
}

impl Portion {
    /// Whether it may be given to the kernel that asks for attributes or does not (`plus`) and believes them for
    /// `attribute_timeout`.
    fn is_fresh(&self, plus: bool, attribute_timeout: Duration) -> bool {
        let age_max = if plus && !self.entries.is_empty() { AGE_MAX.min(attribute_timeout) } else { AGE_MAX };
        (self.plus || !plus) && self.asked.elapsed() < age_max
    }

    /// Where the listing goes on after the last entry.
    fn end(&self) -> u64 {
        self.entries.back().map_or(self.offset, |entry| entry.entry.offset)
    }
}

/// Whom to ask, for what.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) ctx: Context,
    pub(super) gfid: Gfid,
    pub(super) fd: Fd,
    pub(super) offset: u64,
    pub(super) plus: bool,
}

impl Question {
    /// Asks the volume. The first portion of a listing is a small one.
    pub(super) async fn ask(self, volume: Arc<dyn Fops>, changes: Arc<Changes>) -> Result<Portion> {
        let Self { ctx, gfid, fd, offset, plus } = self;
        let (watch, asked) = (changes.watch(), Instant::now());
        let size = if offset == 0 { FIRST_BYTES } else { PORTION_BYTES };
        let (entries, eof) = if plus {
            let reply = volume.fop(&ctx, Readdirp { gfid, fd, offset, size, xdata: None }).await.map_err(errno)?;
            (reply.entries.into(), reply.eof)
        } else {
            let reply = volume.fop(&ctx, Readdir { gfid, fd, offset, size, xdata: None }).await.map_err(errno)?;
            let bare = |entry| DirentPlus { entry, stat: Iatt::default(), xdata: None };
            (reply.entries.into_iter().map(bare).collect(), reply.eof)
        };
        Ok(Portion { entries, offset, eof, plus, asked, watch: Some(watch) })
    }
}

/// The portion after the one that is being given. Dropping it stops the waiting for the reply.
#[derive(Debug)]
struct Coming {
    offset: u64,
    plus: bool,
    reply: Reply,
}

#[derive(Debug)]
enum Reply {
    Arrived(Box<Result<Portion>>),
    Asked(JoinHandle<Result<Portion>>),
}

impl Coming {
    fn has_arrived(&self) -> bool {
        match &self.reply {
            Reply::Arrived(_) => true,
            Reply::Asked(task) => task.is_finished(),
        }
    }

    async fn portion(mut self) -> Result<Portion> {
        match &mut self.reply {
            Reply::Arrived(result) => std::mem::replace(&mut **result, Err(Errno::EIO)),
            // A panic there has been reported by the runtime.
            Reply::Asked(task) => task.await.unwrap_or(Err(Errno::EIO)),
        }
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        if let Reply::Asked(task) = &self.reply {
            task.abort();
        }
    }
}

/// Where an open directory's listing stands.
#[derive(Debug, Default)]
pub struct Listing {
    here: Option<Portion>,
    coming: Option<Coming>,
}

impl Listing {
    /// The portion at hand that goes on at `offset`, if there is one that may still be shown.
    pub(super) fn take_here(&mut self, offset: u64, plus: bool, attribute_timeout: Duration) -> Option<Portion> {
        let here = self.here.take().filter(|here| here.offset == offset && here.is_fresh(plus, attribute_timeout))?;
        // At an end the volume is asked again only by a reader who starts over; at the end of a portion, always.
        (!here.entries.is_empty() || here.eof && offset != 0).then_some(here)
    }

    /// The portion that was asked ahead for `offset`; `None` when none was, it came to nothing, or it got too old. Waits
    /// for its reply.
    pub(super) async fn take_coming(
        &mut self,
        offset: u64,
        plus: bool,
        attribute_timeout: Duration,
    ) -> Option<Portion> {
        let coming = self.coming.take().filter(|coming| coming.offset == offset && (coming.plus || !plus))?;
        // An error is not passed on: the caller asks once more, and that failure is the one that counts.
        coming.portion().await.ok().filter(|portion| portion.is_fresh(plus, attribute_timeout))
    }

    /// Whether the portion at `offset` is there without waiting.
    pub(super) fn has_arrived(&self, offset: u64) -> bool {
        self.coming.as_ref().is_some_and(|coming| coming.offset == offset && coming.has_arrived())
    }

    /// Asks for what follows `portion`, unless nothing does. Returns when the question is on its way.
    pub(super) async fn ask_ahead(
        &mut self,
        portion: &Portion,
        question: Question,
        volume: &Arc<dyn Fops>,
        changes: &Arc<Changes>,
        tasks: &TaskTracker,
    ) {
        let offset = portion.end();
        if portion.eof || portion.entries.is_empty() || self.coming.as_ref().is_some_and(|c| c.offset == offset) {
            return;
        }
        let plus = question.plus;
        let question = Question { offset, ..question };
        let mut asking: Pin<Box<dyn Future<Output = Result<Portion>> + Send>> =
            Box::pin(question.ask(Arc::clone(volume), Arc::clone(changes)));
        // The first step, which sends the question, is taken here: a new task would wait until this one, which has an
        // answer to write, is done.
        let reply = match poll_fn(|context| Poll::Ready(asking.as_mut().poll(context))).await {
            Poll::Ready(result) => Reply::Arrived(Box::new(result)),
            Poll::Pending => Reply::Asked(tasks.spawn(asking)),
        };
        self.coming = Some(Coming { offset, plus, reply });
    }

    /// Keeps what was not given.
    pub(super) fn put_back(&mut self, mut portion: Portion) {
        if portion.entries.is_empty() {
            // A directory may stay open for long after its end was read.
            portion.watch = None;
        }
        self.here = Some(portion);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mortar_types::fop::Dirent;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn portion(offset: u64, names: usize, eof: bool) -> Portion {
        let entry = Dirent { ino: 1, offset: offset + 1, kind: 8, name: Bytes::from_static(b"x") };
        let entry = DirentPlus { entry, stat: Iatt::default(), xdata: None };
        let entries = std::iter::repeat_n(entry, names).collect();
        let watch = Some(Arc::new(Changes::default()).watch());
        Portion { entries, offset, eof, plus: true, asked: Instant::now(), watch }
    }

    fn listing(portion: Portion) -> Listing {
        Listing { here: Some(portion), coming: None }
    }

    #[test]
    fn a_listing_continues_only_where_it_stopped() {
        assert!(listing(portion(5, 1, false)).take_here(5, true, SECOND).is_some());
        assert!(listing(portion(5, 1, false)).take_here(0, true, SECOND).is_none());
        assert!(Listing::default().take_here(0, true, SECOND).is_none());
    }

    #[test]
    fn the_end_of_a_portion_is_not_the_end_of_the_directory() {
        assert!(listing(portion(5, 0, false)).take_here(5, true, SECOND).is_none());
        assert!(listing(portion(5, 0, true)).take_here(5, true, SECOND).is_some());
        assert!(listing(portion(0, 0, true)).take_here(0, true, SECOND).is_none());
    }

    #[test]
    fn attributes_older_than_the_kernel_would_believe_them_are_asked_again() {
        let old = || Portion { asked: Instant::now() - Duration::from_millis(500), ..portion(5, 1, false) };
        assert!(listing(old()).take_here(5, true, SECOND).is_some());
        assert!(listing(old()).take_here(5, true, Duration::from_millis(400)).is_none());
        assert!(listing(old()).take_here(5, true, Duration::ZERO).is_none());
        // Names alone have no attributes to age.
        assert!(listing(old()).take_here(5, false, Duration::ZERO).is_some());
    }

    #[test]
    fn names_without_attributes_do_not_answer_who_wants_both() {
        let bare = || Portion { plus: false, ..portion(5, 1, false) };
        assert!(listing(bare()).take_here(5, true, SECOND).is_none());
        assert!(listing(bare()).take_here(5, false, SECOND).is_some());
    }
}
