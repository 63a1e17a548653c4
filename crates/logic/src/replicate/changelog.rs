//! The change log in `trusted.afr.CLIENT` and `trusted.afr.dirty`: three 32-bit big-endian counters.
//!
//! On brick i the value for client j counts operations that brick i saw and brick j is accused of having missed
//! (`afr/afr.h`, AFR_NUM_CHANGE_LOGS; observed on real bricks, `data/bricks`). Counters wrap: xattrop adds modulo 2^32.

use mortar_types::{Dict, SubvolId, SubvolMap, Value, keys};

/// Which counter an operation moves.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Slot {
    /// Contents of a file. On a directory: "needs a full crawl".
    Data = 0,
    /// Owner, mode, xattrs.
    Metadata = 1,
    /// Names in a directory.
    Entry = 2,
}

/// One value of 12 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash, Debug)]
pub struct Changelog(pub [u32; 3]);

impl Changelog {
    /// On disk and on the wire.
    pub const BYTES: usize = 12;

    /// Nothing pending.
    pub const CLEAN: Self = Self([0; 3]);

    /// `count` in one slot; -1 as `u32::MAX`.
    #[must_use]
    pub const fn in_slot(slot: Slot, count: u32) -> Self {
        let mut counters = [0; 3];
        counters[slot as usize] = count;
        Self(counters)
    }

    /// `None` when it is shorter than 12 bytes; longer values keep their first 12, as AFR reads them.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..Self::BYTES)?;
        let mut counters = [0; 3];
        for (counter, raw) in counters.iter_mut().zip(bytes.chunks_exact(4)) {
            *counter = u32::from_be_bytes(raw.try_into().ok()?);
        }
        Some(Self(counters))
    }

    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        for (raw, counter) in bytes.chunks_exact_mut(4).zip(self.0) {
            raw.copy_from_slice(&counter.to_be_bytes());
        }
        bytes
    }

    /// What xattrop ADD_ARRAY makes of the two.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at].wrapping_add(other.0[at])))
    }

    /// What must be added to take this back.
    #[must_use]
    pub fn negated(self) -> Self {
        Self(self.0.map(u32::wrapping_neg))
    }

    pub const fn get(self, slot: Slot) -> u32 {
        self.0[slot as usize]
    }

    pub const fn is_clean(self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0
    }
}

/// The names under which one replica set keeps its counters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Keys {
    /// `trusted.afr.CLIENT` by child; CLIENT comes from the volfile option `afr-pending-xattr`.
    pub pending: SubvolMap<String>,
    /// [`keys::XATTR_AFR_DIRTY`], kept here so that callers treat all keys alike.
    pub dirty: String,
}

impl Keys {
    /// From the brick ids of `afr-pending-xattr`, in subvolume order.
    pub fn new<I: IntoIterator<Item: AsRef<str>>>(brick_ids: I) -> Self {
        let pending: Vec<String> =
            brick_ids.into_iter().map(|id| format!("{}{}", keys::XATTR_AFR_PREFIX, id.as_ref())).collect();
        Self { pending: pending.into(), dirty: keys::XATTR_AFR_DIRTY.to_owned() }
    }

    /// The dict of an xattrop that adds `dirty` and, per child, `pending`. Zeros are sent too: they make the brick
    /// report the standing value, and its index watches the keys of the request.
    pub fn xattrop(&self, pending: &SubvolMap<Changelog>, dirty: Changelog) -> Dict {
        let mut dict = Dict::new();
        for (id, key) in self.pending.iter() {
            dict.set(key.clone(), Value::ptr(pending[id].to_bytes().to_vec()));
        }
        dict.set(self.dirty.clone(), Value::ptr(dirty.to_bytes().to_vec()));
        dict
    }

    /// Asks for all counters in a lookup's xdata (`afr/afr-common.c` afr_xattr_req_prepare): the value is a size hint.
    pub fn request(&self, dict: &mut Dict) {
        for (_, key) in self.pending.iter() {
            dict.set(key.clone(), Value::Uint(Changelog::BYTES as u64));
        }
        dict.set(self.dirty.clone(), Value::Uint(Changelog::BYTES as u64));
    }

    /// What one brick's reply says; a missing or short value is clean.
    pub fn parse(&self, xdata: Option<&Dict>) -> Counters {
        let read = |key: &String| {
            xdata
                .and_then(|dict| dict.get_bytes(key))
                .and_then(|bytes| Changelog::from_bytes(bytes))
                .unwrap_or_default()
        };
        Counters { pending: self.pending.map(|_, key| read(key)), dirty: read(&self.dirty) }
    }
}

/// All counters of one inode on one brick: a row of the pending matrix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counters {
    /// What this brick says each child has missed.
    pub pending: SubvolMap<Changelog>,
    pub dirty: Changelog,
}

impl Counters {
    pub fn clean(children: usize) -> Self {
        Self { pending: SubvolMap::filled(children, Changelog::CLEAN), dirty: Changelog::CLEAN }
    }

    pub fn accuses(&self, child: SubvolId, slot: Slot) -> bool {
        self.pending[child].get(slot) != 0
    }

    pub fn is_clean(&self) -> bool {
        self.dirty.is_clean() && self.pending.iter().all(|(_, value)| value.is_clean())
    }
}

/// Counters of one inode by the brick that reported them; `None` where a brick did not answer.
pub type Matrix = SubvolMap<Option<Counters>>;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_are_big_endian_data_metadata_entry() {
        let value = Changelog([2, 1, 0]);
        assert_eq!(value.to_bytes(), [0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(Changelog::from_bytes(&value.to_bytes()), Some(value));
        assert_eq!(Changelog::from_bytes(&[0; 11]), None);
    }

    #[test]
    fn taking_one_back_is_all_ones_as_on_the_wire() {
        let minus = Changelog::in_slot(Slot::Data, 1).negated();
        assert_eq!(minus.to_bytes(), [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert!(Changelog::in_slot(Slot::Data, 1).plus(minus).is_clean());
    }

    #[test]
    fn an_xattrop_names_every_child_and_dirty() {
        let keys = Keys::new(["v-client-0", "v-client-1"]);
        let mut pending = SubvolMap::filled(2, Changelog::CLEAN);
        pending[SubvolId(1)] = Changelog::in_slot(Slot::Entry, 1);
        let dict = keys.xattrop(&pending, Changelog::in_slot(Slot::Entry, 1).negated());
        assert_eq!(
            dict.keys().collect::<Vec<_>>(),
            ["trusted.afr.v-client-0", "trusted.afr.v-client-1", "trusted.afr.dirty"]
        );
        let counters = keys.parse(Some(&dict));
        assert!(counters.accuses(SubvolId(1), Slot::Entry) && !counters.accuses(SubvolId(0), Slot::Entry));
        assert_eq!(counters.dirty, Changelog([0, 0, u32::MAX]));
    }

    #[test]
    fn missing_and_short_values_are_clean() {
        let keys = Keys::new(["a"]);
        assert!(keys.parse(None).is_clean());
        let short = Dict::new().with("trusted.afr.a", Value::ptr(vec![1, 2, 3]));
        assert_eq!(keys.parse(Some(&short)), Counters::clean(1));
    }

    proptest! {
        #[test]
        fn adding_the_negative_cancels(a: [u32; 3], b: [u32; 3]) {
            let (a, b) = (Changelog(a), Changelog(b));
            prop_assert_eq!(a.plus(b).plus(b.negated()), a);
            prop_assert_eq!(a.plus(b), b.plus(a));
        }

        #[test]
        fn any_bytes_decode_without_panic(bytes: Vec<u8>) {
            prop_assert_eq!(Changelog::from_bytes(&bytes).is_some(), bytes.len() >= 12);
        }
    }
}
