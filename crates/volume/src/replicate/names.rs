//! Which names a directory may have, known while its entry lock is kept.
//!
//! Under the kept lock nobody else makes a name, so after one listing every name that there can be is known, and a
//! lookup of any other one, as before each create, mkdir and rename, is answered without asking the bricks. The set is
//! never too small: own new names come in before they are asked for, and names go only when all copies have removed them.
//!
//! The knowledge belongs to one grant of the lock and ends with it; what may be lost without notice (a brick that cannot
//! be reached) is bounded by the age up to which a grant is used ([`super::Options::keep_age_max`]).

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use mortar_logic::replicate::SetExt;
use mortar_types::fop::{Opendir, Readdir, Releasedir};
use mortar_types::{Context, Errno, FileType, Outcome, Request};
use parking_lot::Mutex;

use super::Core;
use super::inode::Inode;
use super::kept::Grant;

/// Names known at most, 8 bytes each.
const NAMES_MAX: usize = 65_536;
/// What one READDIR asks, bytes on the wire.
const PAGE_BYTES: u32 = 64 * 1024;
/// Absent names asked for under one grant before the directory is listed ...
const MISSES_MIN: u32 = 2;
/// ... and in a large one, so many names listed for each of them at most: what the bricks' answer to it costs.
const NAMES_PER_MISS: usize = 64;

/// What is known under one grant.
pub(super) struct Names {
    hasher: RandomState,
    state: Mutex<State>,
}

enum State {
    /// So many absent names were asked for, and these may have come by own changes: one that is under way may reach the
    /// brick after the listing.
    Unknown {
        misses: u32,
        own: HashSet<u64>,
    },
    /// Being listed; holds own names already.
    Coming(HashSet<u64>),
    Known(HashSet<u64>),
    /// Not to be had under this grant.
    Never,
}

impl Default for Names {
    fn default() -> Self {
        Self { hasher: RandomState::new(), state: Mutex::new(State::Unknown { misses: 0, own: HashSet::new() }) }
    }
}

impl Names {
    /// Whether there is no such name for sure. Two names that collide are both taken for being there.
    pub(super) fn is_absent(&self, name: &[u8]) -> bool {
        match &*self.state.lock() {
            State::Known(names) => !names.contains(&self.hasher.hash_one(name)),
            _ => false,
        }
    }

    /// The name may come to be: before the bricks are asked to make it.
    pub(super) fn may_come(&self, name: &[u8]) {
        let mut state = self.state.lock();
        let (State::Known(names) | State::Coming(names) | State::Unknown { own: names, .. }) = &mut *state else {
            return;
        };
        names.insert(self.hasher.hash_one(name));
        if names.len() > NAMES_MAX {
            *state = State::Never;
        }
    }

    /// The name is gone from every copy. To be called before anybody may make it again.
    pub(super) fn is_gone(&self, name: &[u8]) {
        // A listing under way may still bring it.
        if let State::Known(names) = &mut *self.state.lock() {
            names.remove(&self.hasher.hash_one(name));
        }
    }

    /// The bricks had no such name. Whether the caller is to list the directory now, which had `expected` names before.
    fn missed(&self, expected: usize) -> bool {
        let mut state = self.state.lock();
        let State::Unknown { misses, own } = &mut *state else { return false };
        *misses += 1;
        let enough = *misses >= MISSES_MIN && *misses as usize * NAMES_PER_MISS >= expected;
        if !enough || expected > NAMES_MAX {
            return false;
        }
        *state = State::Coming(std::mem::take(own));
        true
    }

    /// Takes names that are listed; whether there is room for more.
    fn listed<'a>(&self, listed: impl Iterator<Item = &'a [u8]>) -> bool {
        let mut state = self.state.lock();
        let State::Coming(names) = &mut *state else { return false };
        names.extend(listed.map(|name| self.hasher.hash_one(name)));
        names.len() <= NAMES_MAX
    }

    /// All are listed, or they cannot be. How many there are, as far as that is known: all, or too many.
    fn settle(&self, complete: bool) -> Option<usize> {
        let mut state = self.state.lock();
        let State::Coming(names) = &mut *state else { return None };
        let names = std::mem::take(names);
        let count = names.len();
        *state = if complete { State::Known(names) } else { State::Never };
        (complete || count > NAMES_MAX).then_some(count)
    }
}

impl Core {
    /// Whether the directory has no such name, as far as this client's kept lock of it tells.
    pub(super) fn is_absent(&self, parent: &Inode, name: &[u8]) -> bool {
        parent.entry.held(self).is_some_and(|grant| grant.names.is_absent(name))
    }

    /// The bricks had no such name: others like it may be asked for.
    pub(super) fn missed_name(self: &Arc<Self>, parent: &Arc<Inode>) {
        let Some(grant) = parent.entry.held(self) else { return };
        if grant.names.missed(parent.names_count.load(Ordering::Relaxed)) {
            let (core, parent) = (Arc::clone(self), Arc::clone(parent));
            self.runtime.spawn(async move {
                let complete = core.list_names(&parent, &grant).await.unwrap_or(false);
                if let Some(count) = grant.names.settle(complete) {
                    parent.names_count.store(count, Ordering::Relaxed);
                }
            });
        }
    }

    /// Lists a directory of which all copies are good. `false`: they are not, or it has too many names.
    async fn list_names(self: &Arc<Self>, parent: &Arc<Inode>, grant: &Grant) -> Outcome<bool> {
        let ctx = Context::internal(Context::default().pid);
        let known = self.refresh(&ctx, parent, None).await?;
        let with_names = self.arbiters.as_ref().map_or_else(|| self.nobody().map(|_, _| true), |a| a.map(|_, is| !is));
        if !with_names.minus(&known.readable.data).none() {
            return Ok(false);
        }
        let gfid = parent.gfid;
        let child = self.choose(&known.readable.data, gfid, &ctx, FileType::Directory).ok_or(Errno::ENOTCONN)?;
        let brick = self.children.get(child);
        let fd = brick.fop(&ctx, Opendir { gfid, xdata: None }).await?.fd;
        let mut offset = 0;
        let complete = loop {
            let page = brick.fop(&ctx, Readdir { gfid, fd, offset, size: PAGE_BYTES, xdata: None }).await;
            let Ok(page) = page else { break false };
            if !grant.names.listed(page.entries.iter().map(|entry| &entry.name[..])) {
                break false;
            }
            match page.entries.last().filter(|_| !page.eof) {
                Some(last) => offset = last.offset,
                None => break true,
            }
        };
        self.close_on(child, ctx, Releasedir { gfid, fd, xdata: None }.into());
        Ok(complete)
    }
}

/// The name that a request may bring into being, with its directory, and the one that its success removes.
pub(super) fn comes_and_goes(request: &Request) -> [Option<(mortar_types::Gfid, &Bytes)>; 2] {
    match request {
        Request::Create(r) => [Some((r.parent, &r.name)), None],
        Request::Mknod(r) => [Some((r.parent, &r.name)), None],
        Request::Mkdir(r) => [Some((r.parent, &r.name)), None],
        Request::Symlink(r) => [Some((r.parent, &r.name)), None],
        Request::Link(r) => [Some((r.new_parent, &r.new_name)), None],
        Request::Unlink(r) => [None, Some((r.parent, &r.name))],
        Request::Rmdir(r) => [None, Some((r.parent, &r.name))],
        Request::Rename(r) => [Some((r.new_parent, &r.new_name)), Some((r.old_parent, &r.old_name))],
        _ => [None, None],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(names: &Names, list: &[&str]) {
        assert!(!names.missed(0));
        assert!(names.missed(0));
        assert!(names.listed(list.iter().map(|name| name.as_bytes())));
    }

    #[test]
    fn nothing_is_absent_before_all_is_listed() {
        let names = Names::default();
        assert!(!names.is_absent(b"x"));
        listed(&names, &["a", "b"]);
        assert!(!names.is_absent(b"x"));
        assert_eq!(names.settle(true), Some(2));
        assert!(names.is_absent(b"x") && !names.is_absent(b"a"));
    }

    #[test]
    fn own_names_count_from_before_they_are_made_also_while_the_listing_is_under_way() {
        let names = Names::default();
        listed(&names, &["a"]);
        names.may_come(b"mine");
        // Removed before the listing passed it by: it may come up yet.
        names.is_gone(b"a");
        names.settle(true);
        assert!(!names.is_absent(b"mine") && !names.is_absent(b"a"));
        names.may_come(b"later");
        assert!(!names.is_absent(b"later"));
        names.is_gone(b"later");
        assert!(names.is_absent(b"later"));
    }

    #[test]
    fn a_name_on_its_way_when_the_listing_begins_counts() {
        let names = Names::default();
        names.may_come(b"mine");
        listed(&names, &["a"]);
        names.settle(true);
        assert!(!names.is_absent(b"mine") && names.is_absent(b"x"));
    }

    #[test]
    fn a_directory_that_had_too_many_names_is_not_listed_again() {
        let names = Names::default();
        assert!((0..10 * NAMES_MAX).all(|_| !names.missed(NAMES_MAX + 1)));
        let full = Names::default();
        full.missed(0);
        assert!(full.missed(0));
        let many: Vec<_> = (0..=NAMES_MAX as u64).map(u64::to_be_bytes).collect();
        assert!(!full.listed(many.iter().map(|name| &name[..])));
        assert_eq!(full.settle(false), Some(NAMES_MAX + 1));
    }

    #[test]
    fn a_listing_that_fails_says_nothing_and_is_not_tried_again_under_the_grant() {
        let names = Names::default();
        listed(&names, &["a"]);
        assert_eq!(names.settle(false), None, "not all were counted");
        assert!(!names.is_absent(b"x") && !names.missed(0) && !names.missed(0));
    }

    #[test]
    fn a_large_directory_is_listed_only_for_many_questions() {
        let names = Names::default();
        let asked = (1..).find(|_| names.missed(6400)).unwrap();
        assert_eq!(asked, 100);
    }
}
