//! Contents of small files, and which of them may still be believed.
//!
//! A content is believed for the timeout, counted from the *sending* of the request whose reply brought or confirmed it.
//! Own changes drop it when they begin, and until they have ended nothing is kept; a reply to a request sent before the
//! end of a change is not kept either, for it may tell of the time before. Pure: the time is an argument.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use mortar_types::{Gfid, Iatt};
use parking_lot::Mutex;
use tokio::time::Instant;

/// What an entry costs besides its bytes.
const ENTRY_BYTES: u64 = 512;
/// Changes remembered at most, not counting those under way; each is some 60 bytes.
const CHANGES_MAX: usize = 4096;
/// A change whose caller went away may reach a brick until the connection gives up on it (`network.frame-timeout`).
const ABANDONED_FOR: Duration = Duration::from_secs(1800);

/// When a request was sent, in time and in the order of own changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    at: Instant,
    change: u64,
    names: u64,
}

pub(super) struct Cache {
    bytes_max: u64,
    timeout: Duration,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<Gfid, Entry>,
    /// By last use, oldest first.
    order: BTreeMap<u64, Gfid>,
    bytes: u64,
    uses: u64,
    /// Counts beginnings and ends of own changes.
    change: u64,
    /// Replies to requests sent before this change are not kept, whatever they are about.
    floor: u64,
    changes: HashMap<Gfid, Change>,
    /// When ended changes are forgotten next, if above [`CHANGES_MAX`].
    changes_limit: usize,
    /// Counts beginnings and ends of own removals of names: they change link counts of inodes that are not known.
    names: u64,
}

struct Entry {
    data: Bytes,
    stat: Iatt,
    believed_from: Instant,
    names: u64,
    used: u64,
}

#[derive(Default)]
struct Change {
    running: usize,
    last: u64,
    abandoned_until: Option<Instant>,
}

impl Cache {
    pub(super) fn new(bytes_max: u64, timeout: Duration) -> Self {
        Self { bytes_max, timeout, inner: Mutex::default() }
    }

    /// To be taken before a request is sent whose reply is then given to [`Self::keep`] or [`Self::confirm`].
    pub(super) fn sent(&self, now: Instant) -> Sent {
        let inner = self.inner.lock();
        Sent { at: now, change: inner.change, names: inner.names }
    }

    /// Whether there is a content, believed or not: a reply's attributes tell whether it is current.
    pub(super) fn contains(&self, gfid: Gfid) -> bool {
        self.inner.lock().entries.contains_key(&gfid)
    }

    /// Takes the contents that came with `stat`.
    pub(super) fn keep(&self, stat: &Iatt, data: &Bytes, sent: Sent) {
        let (gfid, cost) = (stat.gfid, data.len() as u64 + ENTRY_BYTES);
        if data.len() as u64 != stat.size || cost > self.bytes_max {
            return;
        }
        let mut inner = self.inner.lock();
        if !inner.is_settled(gfid, sent) || inner.entries.get(&gfid).is_some_and(|known| known.believed_from > sent.at)
        {
            return;
        }
        inner.remove(gfid);
        while inner.bytes + cost > self.bytes_max {
            let Some((_, oldest)) = inner.order.pop_first() else { break };
            inner.remove(oldest);
        }
        inner.uses += 1;
        let used = inner.uses;
        // The bytes are a slice of a whole record: keep only them alive.
        let data = Bytes::copy_from_slice(data);
        let entry = Entry { data, stat: *stat, believed_from: sent.at, names: sent.names, used };
        inner.bytes += cost;
        inner.order.insert(used, gfid);
        inner.entries.insert(gfid, entry);
    }

    /// A reply told the attributes: what is kept is current, or it goes.
    pub(super) fn confirm(&self, stat: &Iatt, sent: Sent) {
        let mut inner = self.inner.lock();
        if !inner.is_settled(stat.gfid, sent) {
            return;
        }
        let Some(entry) = inner.entries.get_mut(&stat.gfid) else { return };
        if is_same(&entry.stat, stat) {
            if sent.at >= entry.believed_from {
                entry.believed_from = sent.at;
                entry.names = sent.names;
                entry.stat = *stat;
            }
        } else {
            inner.remove(stat.gfid);
        }
    }

    /// The contents and attributes, when they may be believed now.
    pub(super) fn read(&self, gfid: Gfid, now: Instant) -> Option<(Bytes, Iatt)> {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let entry = inner.entries.get_mut(&gfid).filter(|entry| entry.is_believed(self.timeout, now))?;
        inner.order.remove(&entry.used);
        inner.uses += 1;
        entry.used = inner.uses;
        inner.order.insert(entry.used, gfid);
        Some((entry.data.clone(), entry.stat))
    }

    /// The attributes that the contents came with, when those may be believed: enough to open the file.
    pub(super) fn peek(&self, gfid: Gfid, now: Instant) -> Option<Iatt> {
        let inner = self.inner.lock();
        inner.entries.get(&gfid).filter(|entry| entry.is_believed(self.timeout, now)).map(|entry| entry.stat)
    }

    /// As [`Self::peek`], for who asks for the attributes: own removals of names may have changed the link count.
    pub(super) fn attributes(&self, gfid: Gfid, now: Instant) -> Option<Iatt> {
        let inner = self.inner.lock();
        let entry = inner.entries.get(&gfid).filter(|entry| entry.is_believed(self.timeout, now))?;
        (entry.names == inner.names).then_some(entry.stat)
    }

    /// An own change of the inode is about to be sent.
    pub(super) fn begin_change(&self, gfid: Gfid) {
        let mut inner = self.inner.lock();
        inner.remove(gfid);
        inner.change += 1;
        let number = inner.change;
        let change = inner.changes.entry(gfid).or_default();
        change.running += 1;
        change.last = number;
    }

    /// The change was answered.
    pub(super) fn end_change(&self, gfid: Gfid, now: Instant) {
        let mut inner = self.inner.lock();
        inner.change += 1;
        let number = inner.change;
        if let Some(change) = inner.changes.get_mut(&gfid) {
            change.running = change.running.saturating_sub(1);
            change.last = number;
        }
        inner.bound_changes(now);
    }

    /// The change was sent, and nobody waits for its answer.
    pub(super) fn abandon_change(&self, gfid: Gfid, now: Instant) {
        if let Some(change) = self.inner.lock().changes.get_mut(&gfid) {
            change.abandoned_until = Some(now + ABANDONED_FOR);
        }
        self.end_change(gfid, now);
    }

    /// A removal of a name begins or has ended.
    pub(super) fn names_changed(&self) {
        self.inner.lock().names += 1;
    }

    /// The inode was changed.
    pub(super) fn forget(&self, gfid: Gfid, now: Instant) {
        self.begin_change(gfid);
        self.end_change(gfid, now);
    }

    /// Anything may have changed.
    pub(super) fn clear(&self) {
        let mut inner = self.inner.lock();
        inner.entries.clear();
        inner.order.clear();
        inner.bytes = 0;
        inner.change += 1;
        inner.floor = inner.change;
    }
}

impl Entry {
    fn is_believed(&self, timeout: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.believed_from) < timeout
    }
}

impl Inner {
    fn remove(&mut self, gfid: Gfid) {
        if let Some(entry) = self.entries.remove(&gfid) {
            self.order.remove(&entry.used);
            self.bytes -= entry.data.len() as u64 + ENTRY_BYTES;
        }
    }

    /// Whether the reply to a request sent then tells of a time after all own changes of the inode.
    fn is_settled(&self, gfid: Gfid, sent: Sent) -> bool {
        sent.change >= self.floor
            && self.changes.get(&gfid).is_none_or(|change| {
                change.running == 0
                    && change.last <= sent.change
                    && change.abandoned_until.is_none_or(|until| sent.at >= until)
            })
    }

    /// Forgets old changes; requests that were under way then tell nothing any more.
    fn bound_changes(&mut self, now: Instant) {
        if self.changes.len() < self.changes_limit.max(CHANGES_MAX) {
            return;
        }
        self.changes.retain(|_, change| change.running > 0 || change.abandoned_until.is_some_and(|until| now < until));
        // Those under way stay: many of them must not be looked at again by every change.
        self.changes_limit = 2 * self.changes.len();
        self.floor = self.change;
    }
}

/// Whether the contents are the same, as far as attributes tell.
fn is_same(left: &Iatt, right: &Iatt) -> bool {
    (left.size, left.mtime, left.ctime) == (right.size, right.mtime, right.ctime)
}

#[cfg(test)]
mod tests {
    use mortar_types::Timespec;
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn gfid(number: u8) -> Gfid {
        Gfid([number; 16])
    }

    fn stat(number: u8, size: u64, mtime: i64) -> Iatt {
        Iatt { gfid: gfid(number), mode: 0o100_644, size, mtime: Timespec::new(mtime, 0), ..Iatt::default() }
    }

    fn cache() -> (Cache, Instant) {
        (Cache::new(1 << 20, SECOND), Instant::now())
    }

    #[test]
    fn contents_are_believed_for_the_timeout_and_again_after_a_confirmation() {
        let (cache, now) = cache();
        cache.keep(&stat(1, 3, 0), &Bytes::from_static(b"abc"), cache.sent(now));
        assert_eq!(cache.read(gfid(1), now).unwrap().0, "abc");
        assert_eq!(cache.read(gfid(1), now + SECOND), None);
        cache.confirm(&stat(1, 3, 0), cache.sent(now + SECOND));
        assert!(cache.read(gfid(1), now + SECOND).is_some());
        cache.confirm(&stat(1, 3, 7), cache.sent(now + SECOND));
        assert!(!cache.contains(gfid(1)));
    }

    #[test]
    fn a_reply_that_was_under_way_during_a_change_is_not_kept() {
        let (cache, now) = cache();
        let (data, attributes) = (Bytes::from_static(b"abc"), stat(1, 3, 0));
        let before = cache.sent(now);
        cache.begin_change(gfid(1));
        cache.keep(&attributes, &data, before);
        let during = cache.sent(now);
        cache.keep(&attributes, &data, during);
        cache.end_change(gfid(1), now);
        cache.keep(&attributes, &data, before);
        cache.keep(&attributes, &data, during);
        assert!(!cache.contains(gfid(1)));
        cache.keep(&attributes, &data, cache.sent(now));
        assert!(cache.contains(gfid(1)));
    }

    #[test]
    fn after_an_abandoned_change_nothing_is_kept_until_it_cannot_happen_any_more() {
        let (cache, now) = cache();
        cache.begin_change(gfid(1));
        cache.abandon_change(gfid(1), now);
        let (data, attributes) = (Bytes::from_static(b"abc"), stat(1, 3, 0));
        cache.keep(&attributes, &data, cache.sent(now + SECOND));
        assert!(!cache.contains(gfid(1)));
        cache.keep(&attributes, &data, cache.sent(now + ABANDONED_FOR));
        assert!(cache.contains(gfid(1)));
    }

    #[test]
    fn an_older_reply_does_not_replace_a_newer_one_and_after_clear_none_counts() {
        let (cache, now) = cache();
        let (old, new) = (cache.sent(now), cache.sent(now + SECOND / 2));
        cache.keep(&stat(1, 3, 1), &Bytes::from_static(b"new"), new);
        cache.keep(&stat(1, 3, 0), &Bytes::from_static(b"old"), old);
        assert_eq!(cache.read(gfid(1), now).unwrap().0, "new");
        cache.clear();
        cache.keep(&stat(1, 3, 1), &Bytes::from_static(b"new"), new);
        assert!(!cache.contains(gfid(1)));
    }

    #[test]
    fn the_least_recently_used_goes_first_and_a_wrong_length_is_not_kept() {
        let now = Instant::now();
        let cache = Cache::new(3 * (ENTRY_BYTES + 4), SECOND);
        let data = Bytes::from_static(b"four");
        for number in 1..=3 {
            cache.keep(&stat(number, 4, 0), &data, cache.sent(now));
        }
        cache.read(gfid(1), now);
        cache.keep(&stat(4, 4, 0), &data, cache.sent(now));
        let kept: Vec<bool> = (1..=4).map(|number| cache.contains(gfid(number))).collect();
        assert_eq!(kept, [true, false, true, true]);
        cache.keep(&stat(5, 9, 0), &data, cache.sent(now));
        assert!(!cache.contains(gfid(5)));
    }

    #[test]
    fn a_removal_of_a_name_spoils_the_attributes_only() {
        let (cache, now) = cache();
        cache.keep(&stat(1, 0, 0), &Bytes::new(), cache.sent(now));
        assert!(cache.attributes(gfid(1), now).is_some());
        cache.names_changed();
        assert_eq!(cache.attributes(gfid(1), now), None);
        assert!(cache.read(gfid(1), now).is_some());
    }

    #[test]
    fn ended_changes_are_forgotten_in_bulk() {
        let (cache, now) = cache();
        let before = cache.sent(now);
        for number in 0..100_000_u128 {
            cache.forget(Gfid(number.to_be_bytes()), now);
        }
        assert!(cache.inner.lock().changes.len() <= 2 * CHANGES_MAX);
        cache.keep(&stat(1, 0, 0), &Bytes::new(), before);
        assert!(!cache.contains(gfid(1)));
    }

    proptest! {
        #[test]
        fn the_books_balance(steps in prop::collection::vec((0_u8..6, 0_u8..5, 0_usize..600), 0..200)) {
            let now = Instant::now();
            let cache = Cache::new(3000, SECOND);
            for (step, number, size) in steps {
                let attributes = stat(number, size as u64, size as i64);
                match step {
                    0 | 1 => cache.keep(&attributes, &Bytes::from(vec![0; size]), cache.sent(now)),
                    2 => cache.confirm(&attributes, cache.sent(now)),
                    3 => cache.forget(gfid(number), now),
                    4 => drop(cache.read(gfid(number), now)),
                    _ => cache.names_changed(),
                }
                let inner = cache.inner.lock();
                let sum: u64 = inner.entries.values().map(|entry| entry.data.len() as u64 + ENTRY_BYTES).sum();
                prop_assert_eq!(sum, inner.bytes);
                prop_assert!(inner.bytes <= 3000);
                prop_assert_eq!(inner.order.len(), inner.entries.len());
                for (used, gfid) in &inner.order {
                    prop_assert_eq!(inner.entries[gfid].used, *used);
                }
            }
        }
    }
}
