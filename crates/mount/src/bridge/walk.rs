//! Directories whose files are looked up one after the other: a listing fetched meanwhile answers the lookups to come.
//!
//! A lookup costs a round trip to every replica, an entry of a listing a fraction of that. So when several lookups miss
//! in one directory, portions of its listing are fetched in the background, no more than a few entries for each lookup
//! that was made, and lookups are answered from them: with what is left of the time for which the kernel may believe
//! attributes, counted from when the portion was asked. An answer is given once; who looks the name up again (after
//! ESTALE, say) asks the volume. What this mount changed since, and what the volume said that others changed, is not
//! answered from here (see [`crate::changes`]), nor are directories, whose lookup does more than tell attributes.
//!
//! ```text
//!   Idle --lookups--> Fetching --portion--> Idle ... --end--> Listed --timeout--> Idle
//!                                              \--few answers come of it--> Useless
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mortar_types::fop::{DirentPlus, Opendir, Readdirp, Releasedir};
use mortar_types::{Context, Dict, Fd, Gfid, Iatt, Value, keys};
use parking_lot::Mutex;

use super::{Bridge, Response, Result};
use crate::changes::Watch;
use crate::kernel::reply::{Answer, Body, Entry, Validity};
use crate::nodes::NodeId;

/// Lookups in a directory, each within [`PACE`] of the one before, that make a walk.
const LOOKUPS_MIN: u64 = 3;
/// Lookups further apart than this have nothing to do with each other.
const PACE: Duration = Duration::from_millis(200);
/// Entries fetched for every lookup of the walk: one costs about a twentieth of a lookup.
const ENTRIES_PER_LOOKUP: u64 = 8;
/// What a portion asks, bytes on the wire.
const PORTION_BYTES: u32 = 48 * 1024;
/// The same when contents come with the entries.
const CONTENTS_BYTES: u32 = 256 * 1024;
/// After so many entries, fewer than one answer for this many lookups shows that the wrong files are listed.
const JUDGED_AFTER: u64 = 2048;
const LOOKUPS_PER_ANSWER_MAX: u64 = 8;
/// How long a directory is left alone then.
const USELESS_FOR: Duration = Duration::from_secs(30);
/// Walks and entries held at most, over all directories.
const WALKS_MAX: usize = 64;
const ENTRIES_MAX: usize = 32_768;

/// The walks of a mount.
#[derive(Debug, Default)]
pub(super) struct Walks {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    walks: HashMap<Gfid, Walk>,
    /// Entries in all of them.
    held: usize,
    /// Somebody looks after walks that are over.
    swept: bool,
}

#[derive(Debug)]
struct Walk {
    stage: Stage,
    /// Where the listing goes on; its directory is open.
    place: Option<Place>,
    /// Of the walk so far.
    lookups: u64,
    answered: u64,
    fetched: u64,
    /// Files found in the directory were opened for reading.
    opened: bool,
    last: Instant,
    entries: HashMap<Bytes, Ahead>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Idle,
    Fetching,
    /// All of it was asked for, at this time at the earliest.
    Listed(Instant),
    Useless(Instant),
}

/// An open directory and an offset in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    fd: Fd,
    offset: u64,
    begun: Instant,
}

/// An entry that nobody has asked for yet.
#[derive(Debug)]
struct Ahead {
    stat: Iatt,
    portion: Arc<Asked>,
}

/// When a portion was asked, and what changed since.
#[derive(Debug)]
struct Asked {
    at: Instant,
    watch: Watch,
}

/// An answer to a lookup, and how old it is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Found {
    pub(super) stat: Iatt,
    pub(super) age: Duration,
}

/// What to fetch next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wanted {
    place: Option<Place>,
    contents: bool,
}

impl Walk {
    fn new(now: Instant) -> Self {
        Self {
            stage: Stage::Idle,
            place: None,
            lookups: 0,
            answered: 0,
            fetched: 0,
            opened: false,
            last: now,
            entries: HashMap::new(),
        }
    }

    /// A file was looked up.
    fn counts(&mut self, now: Instant) {
        if now.saturating_duration_since(self.last) > PACE {
            // What was fetched was paid for by the lookups before.
            (self.lookups, self.answered, self.fetched) = (0, 0, 0);
            self.opened = false;
        }
        self.last = now;
        self.lookups += 1;
    }

    /// Counts a lookup that the volume answered; what to fetch, if it is time to.
    fn missed(&mut self, now: Instant, believed_for: Duration) -> Option<Wanted> {
        self.counts(now);
        if let Stage::Listed(begun) | Stage::Useless(begun) = self.stage {
            let rest = if matches!(self.stage, Stage::Useless(_)) { USELESS_FOR } else { believed_for };
            if now.saturating_duration_since(begun) < rest {
                return None;
            }
            self.stage = Stage::Idle;
            (self.lookups, self.answered, self.fetched) = (LOOKUPS_MIN.min(self.lookups), 0, 0);
        }
        self.due(now)
    }

    /// What to fetch, if it is time to.
    fn due(&mut self, now: Instant) -> Option<Wanted> {
        if self.stage != Stage::Idle {
            return None;
        }
        if self.fetched >= JUDGED_AFTER && self.answered * LOOKUPS_PER_ANSWER_MAX < self.lookups {
            self.stage = Stage::Useless(now);
            return None;
        }
        let due = self.lookups >= LOOKUPS_MIN && self.fetched <= ENTRIES_PER_LOOKUP * self.lookups;
        due.then(|| {
            self.stage = Stage::Fetching;
            Wanted { place: self.place, contents: self.opened }
        })
    }
}

impl Walks {
    /// Answers a lookup of `name` in `dir` from what is at hand, if it may be believed for some time yet; and what to fetch
    /// ahead now, if anything.
    fn find(&self, dir: Gfid, name: &Bytes, now: Instant, believed_for: Duration) -> Option<(Found, Option<Wanted>)> {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let walk = inner.walks.get_mut(&dir)?;
        let Ahead { stat, portion } = walk.entries.remove(name)?;
        inner.held -= 1;
        let age = now.saturating_duration_since(portion.at);
        if age >= believed_for || portion.watch.look().is_stale(dir, name, &stat) {
            return None;
        }
        walk.counts(now);
        walk.answered += 1;
        let wanted = if inner.held < ENTRIES_MAX { walk.due(now) } else { None };
        Some((Found { stat, age }, wanted))
    }

    /// The volume found a file in `dir`. What to fetch ahead now, if anything.
    fn missed(&self, dir: Gfid, now: Instant, believed_for: Duration) -> Option<Wanted> {
        let mut inner = self.inner.lock();
        if !inner.walks.contains_key(&dir) {
            // The first look costs no more than this.
            if inner.walks.len() < WALKS_MAX {
                inner.walks.insert(dir, Walk { lookups: 1, ..Walk::new(now) });
            }
            return None;
        }
        if inner.held >= ENTRIES_MAX {
            return None;
        }
        inner.walks.get_mut(&dir)?.missed(now, believed_for)
    }

    /// A file in `dir` was opened for reading.
    fn opened(&self, dir: Gfid) {
        if let Some(walk) = self.inner.lock().walks.get_mut(&dir) {
            walk.opened = true;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.inner.lock().walks.is_empty()
    }

    /// Takes a portion. `next`: where the listing goes on, `None` at its end. The open directory, when nobody needs it
    /// any more.
    fn fetched(
        &self,
        dir: Gfid,
        asked: Asked,
        entries: Vec<DirentPlus>,
        place: Place,
        next: Option<u64>,
    ) -> Option<Fd> {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let Some(walk) = inner.walks.get_mut(&dir) else { return Some(place.fd) };
        let portion = Arc::new(asked);
        for DirentPlus { entry, stat, .. } in entries {
            walk.fetched += 1;
            let is_plain = !stat.gfid.is_null() && !stat.is_dir() && stat.file_type().is_some();
            if is_plain && inner.held < ENTRIES_MAX {
                let before = walk.entries.insert(entry.name, Ahead { stat, portion: Arc::clone(&portion) });
                inner.held += usize::from(before.is_none());
            }
        }
        walk.place = next.map(|offset| Place { offset, ..place });
        walk.stage = if next.is_some() { Stage::Idle } else { Stage::Listed(place.begun) };
        next.is_none().then_some(place.fd)
    }

    /// The listing could not be had, or not gone on with: its directory is the caller's to close.
    fn failed(&self, dir: Gfid, now: Instant) {
        if let Some(walk) = self.inner.lock().walks.get_mut(&dir) {
            (walk.stage, walk.place) = (Stage::Useless(now), None);
        }
    }

    /// Whether the caller is to call [`Self::sweep`] from time to time from now on.
    fn needs_sweeper(&self) -> bool {
        let mut inner = self.inner.lock();
        !inner.walks.is_empty() && !std::mem::replace(&mut inner.swept, true)
    }

    /// Drops what is over: entries that nobody may believe any more, walks that nobody goes on with. The directories to
    /// close, and whether there is something left to look after.
    fn sweep(&self, now: Instant, believed_for: Duration) -> (Vec<(Gfid, Fd)>, bool) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let mut closed = Vec::new();
        inner.held = 0;
        inner.walks.retain(|dir, walk| {
            walk.entries.retain(|_, ahead| now.saturating_duration_since(ahead.portion.at) < believed_for);
            let idle = now.saturating_duration_since(walk.last);
            let stays = match walk.stage {
                Stage::Fetching => true,
                Stage::Useless(since) => now.saturating_duration_since(since) < USELESS_FOR,
                Stage::Idle | Stage::Listed(_) => idle < believed_for.max(PACE),
            };
            // Nobody goes on with it soon. While a portion is fetched the fetcher has it.
            if !stays || matches!(walk.stage, Stage::Useless(_)) {
                closed.extend(walk.place.take().map(|place| (*dir, place.fd)));
            }
            if stays {
                inner.held += walk.entries.len();
            }
            stays
        });
        inner.swept = !inner.walks.is_empty();
        (closed, inner.swept)
    }
}

impl Bridge {
    /// How long an entry fetched ahead may be believed, counted from the question.
    fn believed_for(&self) -> Duration {
        self.config.attribute_timeout.min(self.config.entry_timeout)
    }

    /// The answer to a lookup that a walk has at hand.
    pub(super) fn found_ahead(
        self: &Arc<Self>,
        ctx: &Context,
        parent: NodeId,
        dir: Gfid,
        name: &Bytes,
    ) -> Option<Result<Response>> {
        let (found, wanted) = self.walks.find(dir, name, Instant::now(), self.believed_for())?;
        if let Some(wanted) = wanted {
            self.fetch_in_background(ctx, dir, wanted);
        }
        let left = |timeout: Duration| Validity::from(timeout.saturating_sub(found.age));
        let (entry_valid, attr_valid) = (left(self.config.entry_timeout), left(self.config.attribute_timeout));
        let entry = self.entry(parent, name, &found.stat).map(|entry| Entry { entry_valid, attr_valid, ..entry });
        Some(entry.map(|entry| Response {
            answer: Answer::Body(Body::entry(&entry)),
            grant: super::Grant::Lookup(NodeId(entry.node)),
        }))
    }

    /// The volume found a file in `dir`: perhaps it is time to fetch ahead.
    pub(super) fn walk_on(self: &Arc<Self>, ctx: &Context, dir: Gfid) {
        if self.believed_for().is_zero() {
            return;
        }
        let wanted = self.walks.missed(dir, Instant::now(), self.believed_for());
        if self.walks.needs_sweeper() {
            // Not waited for at the unmount, which closes all that is open.
            tokio::spawn(sweep_walks(Arc::downgrade(self)));
        }
        if let Some(wanted) = wanted {
            self.fetch_in_background(ctx, dir, wanted);
        }
    }

    fn fetch_in_background(self: &Arc<Self>, ctx: &Context, dir: Gfid, wanted: Wanted) {
        let (bridge, ctx) = (Arc::clone(self), ctx.clone());
        self.background.spawn(async move { bridge.fetch_ahead(&ctx, dir, wanted).await });
    }

    /// A file was opened for reading: contents are worth fetching where its name was found.
    pub(super) fn note_opened(&self, node: NodeId) {
        if self.walks.is_empty() {
            return;
        }
        if let Some(dir) = self.nodes.parent(node) {
            self.walks.opened(dir);
        }
    }

    async fn fetch_ahead(&self, ctx: &Context, dir: Gfid, wanted: Wanted) {
        let begun = Instant::now();
        let place = match wanted.place {
            Some(place) => place,
            None => match self.volume.fop(ctx, Opendir { gfid: dir, xdata: None }).await {
                Ok(reply) => Place { fd: reply.fd, offset: 0, begun },
                Err(_) => return self.walks.failed(dir, Instant::now()),
            },
        };
        let asked = Asked { at: Instant::now(), watch: self.changes.watch() };
        let (size, xdata) = match wanted.contents {
            // How small a file must be for it, the layer below knows that keeps the contents.
            true => (CONTENTS_BYTES, Some(Dict::new().with(keys::CONTENT, Value::Uint(0)))),
            false => (PORTION_BYTES, None),
        };
        let request = Readdirp { gfid: dir, fd: place.fd, offset: place.offset, size, xdata };
        let unneeded = match self.volume.fop(ctx, request).await {
            Ok(reply) => {
                let next = reply.entries.last().map(|last| last.entry.offset).filter(|_| !reply.eof);
                self.walks.fetched(dir, asked, reply.entries, place, next)
            }
            Err(_) => {
                self.walks.failed(dir, Instant::now());
                Some(place.fd)
            }
        };
        if let Some(fd) = unneeded {
            self.close_walked(dir, fd).await;
        }
    }

    async fn close_walked(&self, gfid: Gfid, fd: Fd) {
        // Nobody waits for it, and a brick that is gone has closed it.
        drop(self.volume.fop(&Context::default(), Releasedir { gfid, fd, xdata: None }).await);
    }
}

/// Looks after the walks until there are none.
async fn sweep_walks(bridge: Weak<Bridge>) {
    while let Some(bridge) = bridge.upgrade() {
        let (closed, more) = bridge.walks.sweep(Instant::now(), bridge.believed_for());
        for (dir, fd) in closed {
            bridge.close_walked(dir, fd).await;
        }
        let rest = bridge.believed_for().max(PACE);
        drop(bridge);
        if !more {
            return;
        }
        tokio::time::sleep(rest).await;
    }
}

#[cfg(test)]
mod tests {
    use mortar_types::fop::Dirent;

    use super::*;
    use crate::changes::{Change, Changes};

    const DIR: Gfid = Gfid([1; 16]);
    const SECOND: Duration = Duration::from_secs(1);

    fn entry(name: u64) -> DirentPlus {
        let gfid = Gfid(u128::from(name + 100).to_be_bytes());
        let stat = Iatt { gfid, mode: 0o100_644, nlink: 1, ..Iatt::default() };
        let entry = Dirent { ino: 1, offset: name + 1, kind: 8, name: Bytes::from(name.to_string()) };
        DirentPlus { entry, stat, xdata: None }
    }

    fn asked(changes: &Arc<Changes>, at: Instant) -> Asked {
        Asked { at, watch: changes.watch() }
    }

    /// Walks until something is to be fetched.
    fn wanted(walks: &Walks, now: Instant) -> (u64, Wanted) {
        (1..1000).find_map(|lookups| Some((lookups, walks.missed(DIR, now, SECOND)?))).expect("a walk")
    }

    fn place(now: Instant) -> Place {
        Place { fd: Fd(5), offset: 0, begun: now }
    }

    #[test]
    fn the_third_lookup_in_a_row_begins_a_walk_and_slow_ones_do_not() {
        let (walks, now) = (Walks::default(), Instant::now());
        let (lookups, first) = wanted(&walks, now);
        assert_eq!((lookups, first), (LOOKUPS_MIN, Wanted { place: None, contents: false }));
        let slow = Walks::default();
        assert!((0..100).all(|at| slow.missed(DIR, now + at * 2 * PACE, SECOND).is_none()));
    }

    #[test]
    fn one_portion_is_fetched_at_a_time_and_none_beyond_what_the_lookups_paid_for() {
        let (walks, changes, now) = (Walks::default(), Arc::new(Changes::default()), Instant::now());
        wanted(&walks, now);
        assert_eq!(walks.missed(DIR, now, SECOND), None, "one is under way");
        let entries = (0..400).map(entry).collect();
        assert_eq!(walks.fetched(DIR, asked(&changes, now), entries, place(now), Some(400)), None);
        walks.opened(DIR);
        let (lookups, next) = wanted(&walks, now);
        assert_eq!(lookups + LOOKUPS_MIN + 1, 400 / ENTRIES_PER_LOOKUP);
        assert_eq!(next, Wanted { place: Some(Place { offset: 400, ..place(now) }), contents: true });
    }

    #[test]
    fn after_a_pause_a_walk_goes_on_where_it_was() {
        let (walks, changes, now) = (Walks::default(), Arc::new(Changes::default()), Instant::now());
        wanted(&walks, now);
        walks.fetched(DIR, asked(&changes, now), (0..400).map(entry).collect(), place(now), Some(400));
        let (lookups, next) = wanted(&walks, now + 2 * PACE);
        assert_eq!((lookups, next.place.map(|place| place.offset)), (LOOKUPS_MIN, Some(400)));
    }

    #[test]
    fn an_entry_answers_once_while_it_is_fresh_and_unchanged() {
        let (walks, changes, now) = (Walks::default(), Arc::new(Changes::default()), Instant::now());
        wanted(&walks, now);
        let closed = walks.fetched(DIR, asked(&changes, now), (0..9).map(entry).collect(), place(now), None);
        assert_eq!(closed, Some(Fd(5)), "at its end");
        let find = |name: u64, after| {
            walks.find(DIR, &Bytes::from(name.to_string()), now + after, SECOND).map(|(found, _)| found)
        };
        assert_eq!(find(1, SECOND / 4), Some(Found { stat: entry(1).stat, age: SECOND / 4 }));
        assert_eq!(find(1, SECOND / 4), None);
        assert_eq!(find(2, SECOND), None);
        changes.note(Change { inodes: [Some(entry(3).stat.gfid), None, None], ..Change::default() });
        assert_eq!(find(3, SECOND / 4), None);
        assert!(find(4, SECOND / 4).is_some());
    }

    #[test]
    fn answers_pay_for_the_next_portion_too() {
        let (walks, changes, now) = (Walks::default(), Arc::new(Changes::default()), Instant::now());
        wanted(&walks, now);
        walks.fetched(DIR, asked(&changes, now), (0..200).map(entry).collect(), place(now), Some(200));
        let find = |name: u64| walks.find(DIR, &Bytes::from(name.to_string()), now, SECOND).unwrap().1;
        let paid = (0..200).find_map(|name| Some((name, find(name)?))).unwrap();
        assert_eq!(paid.0 + 1 + LOOKUPS_MIN, 200 / ENTRIES_PER_LOOKUP);
        assert_eq!(paid.1.place, Some(Place { offset: 200, ..place(now) }));
    }

    #[test]
    fn directories_and_entries_without_identity_are_left_to_the_volume() {
        let (walks, changes, now) = (Walks::default(), Arc::new(Changes::default()), Instant::now());
        wanted(&walks, now);
        let mut entries = [entry(1), entry(2)];
        entries[0].stat.mode = 0o040_755;
        entries[1].stat.gfid = Gfid::NULL;
        walks.fetched(DIR, asked(&changes, now), entries.into(), place(now), None);
        assert!((1..3_u64).all(|name| walks.find(DIR, &Bytes::from(name.to_string()), now, SECOND).is_none()));
    }

    #[test]
    fn a_large_directory_whose_listing_answers_nothing_is_left_alone() {
        let (walks, changes, now) = (Walks::default(), Arc::new(Changes::default()), Instant::now());
        let mut fetched = 0;
        for _ in 0..10_000 {
            if walks.missed(DIR, now, SECOND).is_some() {
                fetched += 200;
                let entries = (fetched..fetched + 200).map(entry).collect();
                walks.fetched(DIR, asked(&changes, now), entries, place(now), Some(fetched));
            }
        }
        assert!((JUDGED_AFTER..2 * JUDGED_AFTER).contains(&fetched), "{fetched}");
        assert_eq!(walks.sweep(now, SECOND), (vec![(DIR, Fd(5))], true), "it does not stay open");
        assert_eq!(walks.sweep(now + USELESS_FOR, SECOND), (vec![], false));
    }

    #[test]
    fn directories_that_were_looked_at_once_make_room_for_others() {
        let (walks, now) = (Walks::default(), Instant::now());
        for number in 0..WALKS_MAX as u128 {
            walks.missed(Gfid((number + 100).to_be_bytes()), now, SECOND);
        }
        assert!((0..10).all(|_| walks.missed(DIR, now, SECOND).is_none()));
        assert!(walks.needs_sweeper());
        walks.sweep(now + SECOND, SECOND);
        assert_eq!(wanted(&walks, now + SECOND).0, LOOKUPS_MIN);
    }

    #[test]
    fn what_nobody_goes_on_with_is_swept_away_and_closed() {
        let (walks, changes, now) = (Walks::default(), Arc::new(Changes::default()), Instant::now());
        wanted(&walks, now);
        assert!(walks.needs_sweeper() && !walks.needs_sweeper());
        walks.fetched(DIR, asked(&changes, now), (0..9).map(entry).collect(), place(now), Some(9));
        assert_eq!(walks.sweep(now, SECOND), (vec![], true));
        assert_eq!(walks.sweep(now + 2 * SECOND, SECOND), (vec![(DIR, Fd(5))], false));
        assert!(walks.is_empty() && walks.inner.lock().held == 0);
    }
}
