//! A directory's division of the ring among subvolumes (`dht-layout.c`), and the xattr that stores a subvolume's part.

use mortar_types::{SubvolId, SubvolMap};

/// The commit hash that says nothing about where files are (`DHT_LAYOUT_HASH_INVALID`).
pub const COMMIT_INVALID: u32 = 1;

/// How a directory's ranges came about (`dht_hashfn_type_t`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    DaviesMeyer,
    /// Set by a person; never recomputed.
    User,
    /// From a version that is not known here; left alone like [`Kind::User`].
    Other(u32),
}

impl Kind {
    const fn from_raw(raw: u32) -> Self {
        match raw {
            0 => Self::DaviesMeyer,
            1 => Self::User,
            other => Self::Other(other),
        }
    }

    const fn raw(self) -> u32 {
        match self {
            Self::DaviesMeyer => 0,
            Self::User => 1,
            Self::Other(raw) => raw,
        }
    }
}

/// `trusted.glusterfs.dht`: one subvolume's part of one directory. Both ends belong to it; equal ends mean no part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    pub commit_hash: u32,
    pub kind: Kind,
    pub start: u32,
    pub stop: u32,
}

impl Part {
    /// The xattr's length.
    pub const BYTES: usize = 16;

    pub const fn new(commit_hash: u32, start: u32, stop: u32) -> Self {
        Self { commit_hash, kind: Kind::DaviesMeyer, start, stop }
    }

    /// No names.
    pub const fn empty(commit_hash: u32) -> Self {
        Self::new(commit_hash, 0, 0)
    }

    pub const fn is_empty(&self) -> bool {
        self.start == self.stop
    }

    pub const fn contains(&self, hash: u32) -> bool {
        !self.is_empty() && self.start <= hash && hash <= self.stop
    }

    /// How many places of the ring.
    pub const fn width(&self) -> u64 {
        if self.is_empty() { 0 } else { (self.stop as u64).saturating_sub(self.start as u64) + 1 }
    }

    /// How many places both have.
    pub fn overlap(&self, other: &Self) -> u64 {
        if self.is_empty() || other.is_empty() {
            return 0;
        }
        let (start, stop) = (self.start.max(other.start), self.stop.min(other.stop));
        if start > stop { 0 } else { u64::from(stop - start) + 1 }
    }

    /// Four big-endian words.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let words = [self.commit_hash, self.kind.raw(), self.start, self.stop];
        for (slot, word) in bytes.chunks_exact_mut(4).zip(words) {
            slot.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    /// `None` for anything but 16 bytes with ends in order: another subvolume's damage must not move names.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks::<4>();
        let [commit_hash, kind, start, stop] = *<&[[u8; 4]; 4]>::try_from(words).ok()?;
        let word = u32::from_be_bytes;
        let part = Self {
            commit_hash: word(commit_hash),
            kind: Kind::from_raw(word(kind)),
            start: word(start),
            stop: word(stop),
        };
        (rest.is_empty() && part.start <= part.stop).then_some(part)
    }
}

/// What one subvolume says about a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    Part(Part),
    /// The directory is there without a (readable) layout.
    NoLayout,
    /// The directory is not there.
    Missing,
    /// Nobody knows.
    Down,
    /// It answered with something else.
    Odd,
}

impl Slot {
    pub const fn part(&self) -> Option<&Part> {
        match self {
            Self::Part(part) => Some(part),
            _ => None,
        }
    }
}

/// What is wrong with a layout (`dht_layout_anomalies`).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Anomalies {
    pub holes: u32,
    pub overlaps: u32,
    /// Subvolumes without the directory.
    pub missing: u32,
    /// Subvolumes with the directory and no layout.
    pub unlaid: u32,
    pub down: u32,
    pub odd: u32,
}

impl Anomalies {
    /// Names would have no home, or two.
    pub const fn is_torn(&self) -> bool {
        self.holes + self.overlaps > 0
    }

    /// Whether a heal may judge: everybody has answered.
    pub const fn is_certain(&self) -> bool {
        self.down + self.odd == 0
    }

    pub const fn none(&self) -> bool {
        !self.is_torn() && self.is_certain() && self.missing + self.unlaid == 0
    }
}

/// All subvolumes' parts of one directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    slots: SubvolMap<Slot>,
}

impl Layout {
    pub const fn new(slots: SubvolMap<Slot>) -> Self {
        Self { slots }
    }

    pub const fn slots(&self) -> &SubvolMap<Slot> {
        &self.slots
    }

    pub fn part(&self, id: SubvolId) -> Option<&Part> {
        self.slots.iter().find(|(at, _)| *at == id).and_then(|(_, slot)| slot.part())
    }

    /// Whose names lie at `hash`; `None` in a hole. With overlaps the lowest start wins, so that all clients agree.
    pub fn search(&self, hash: u32) -> Option<SubvolId> {
        let owners = self.slots.iter().filter_map(|(id, slot)| slot.part().map(|part| (id, part)));
        owners.filter(|(_, part)| part.contains(hash)).min_by_key(|(id, part)| (part.start, *id)).map(|(id, _)| id)
    }

    /// The commit hash that all parts have; [`COMMIT_INVALID`] when they differ or one is not known.
    pub fn commit_hash(&self) -> u32 {
        let mut common = None;
        for (_, slot) in self.slots.iter() {
            match (slot, common) {
                (Slot::Part(part), None) => common = Some(part.commit_hash),
                (Slot::Part(part), Some(hash)) if part.commit_hash == hash => {}
                _ => return COMMIT_INVALID,
            }
        }
        common.unwrap_or(COMMIT_INVALID)
    }

    /// Whether a person made it.
    pub fn is_fixed(&self) -> bool {
        self.slots.iter().any(|(_, slot)| slot.part().is_some_and(|part| part.kind != Kind::DaviesMeyer))
    }

    pub fn anomalies(&self) -> Anomalies {
        let mut found = Anomalies::default();
        for (_, slot) in self.slots.iter() {
            match slot {
                Slot::Part(_) => {}
                Slot::NoLayout => found.unlaid += 1,
                Slot::Missing => found.missing += 1,
                Slot::Down => found.down += 1,
                Slot::Odd => found.odd += 1,
            }
        }
        let mut parts: Vec<&Part> =
            self.slots.iter().filter_map(|(_, slot)| slot.part()).filter(|part| !part.is_empty()).collect();
        parts.sort_by_key(|part| (part.start, part.stop));
        // The first place not covered yet; beyond the ring when all is.
        let mut next = 0_u64;
        for part in parts {
            let (start, stop) = (u64::from(part.start), u64::from(part.stop));
            match start.cmp(&next) {
                std::cmp::Ordering::Greater => found.holes += 1,
                std::cmp::Ordering::Less => found.overlaps += 1,
                std::cmp::Ordering::Equal => {}
            }
            next = next.max(stop + 1);
        }
        if next <= u64::from(u32::MAX) {
            found.holes += 1;
        }
        found
    }

    /// Whether every member of `wanted` has a part and nobody else.
    pub fn spans_exactly(&self, wanted: impl Fn(SubvolId) -> bool) -> bool {
        self.slots.iter().all(|(id, slot)| wanted(id) == slot.part().is_some_and(|part| !part.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout(slots: &[Slot]) -> Layout {
        Layout::new(slots.to_vec().into())
    }

    const LOW: Slot = Slot::Part(Part::new(7, 0, 0x7fff_fffe));
    const HIGH: Slot = Slot::Part(Part::new(7, 0x7fff_ffff, u32::MAX));

    #[test]
    fn a_part_encodes_as_on_real_bricks() {
        let bytes = [0x58, 0x1d, 0x96, 0x14, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        let part = Part::new(0x581d_9614, 0x7fff_ffff, u32::MAX);
        assert_eq!((part.encode(), Part::decode(&bytes)), (bytes, Some(part)));
    }

    #[test]
    fn both_ends_belong_to_a_part_and_equal_ends_are_none() {
        let layout = layout(&[HIGH, LOW, Slot::Part(Part::empty(7))]);
        let at = |hash| layout.search(hash).map(|id| id.0);
        assert_eq!([at(0), at(0x7fff_fffe), at(0x7fff_ffff), at(u32::MAX)], [Some(1), Some(1), Some(0), Some(0)]);
        assert!(layout.anomalies().none());
        assert_eq!(layout.commit_hash(), 7);
        assert!(layout.spans_exactly(|id| id.0 < 2) && !layout.spans_exactly(|_| true));
    }

    #[test]
    fn anomalies_are_told_apart() {
        let hole = layout(&[LOW, Slot::NoLayout]).anomalies();
        assert_eq!(hole, Anomalies { holes: 1, unlaid: 1, ..Anomalies::default() });
        let double = layout(&[LOW, LOW, HIGH]).anomalies();
        assert_eq!(double, Anomalies { overlaps: 1, ..Anomalies::default() });
        let gap = layout(&[LOW, Slot::Part(Part::new(7, 0x8000_0000, u32::MAX)), Slot::Missing]).anomalies();
        assert_eq!(gap, Anomalies { holes: 1, missing: 1, ..Anomalies::default() });
        assert!(!layout(&[LOW, HIGH, Slot::Down]).anomalies().is_certain());
        assert_eq!(layout(&[LOW, HIGH, Slot::Missing]).commit_hash(), COMMIT_INVALID);
        assert_eq!(layout(&[]).anomalies().holes, 1);
    }

    proptest! {
        #[test]
        fn parts_round_trip(commit_hash: u32, kind: u32, a: u32, b: u32) {
            let part = Part { commit_hash, kind: Kind::from_raw(kind), start: a.min(b), stop: a.max(b) };
            prop_assert_eq!(Part::decode(&part.encode()), Some(part));
        }

        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(part) = Part::decode(&bytes) {
                prop_assert_eq!(&part.encode()[..], &bytes[..]);
            }
        }

        /// Without anomalies every place has exactly one owner; the oracle counts owners at the interesting places.
        #[test]
        fn anomalies_are_what_counting_finds(cuts in proptest::collection::vec((any::<u32>(), any::<u32>()), 0..5)) {
            let parts: Vec<Part> = cuts.iter().map(|(a, b)| Part::new(0, *a.min(b), *a.max(b))).collect();
            let found = layout(&parts.iter().copied().map(Slot::Part).collect::<Vec<_>>()).anomalies();
            let mut places = vec![0, u32::MAX];
            for part in &parts {
                places.extend([part.start, part.stop, part.start.saturating_sub(1), part.stop.saturating_add(1)]);
            }
            let owners = |place| parts.iter().filter(|part| part.contains(place)).count();
            prop_assert_eq!(!found.is_torn(), places.iter().all(|place| owners(*place) == 1));
        }
    }
}
