//! What replication decides, without I/O: GlusterFS's AFR rules as plain functions (`xlators/cluster/afr/src/`).
//!
//! * [`changelog`]: the counters in `trusted.afr.*` and their arithmetic;
//! * [`quorum`]: may this set of children serve;
//! * [`readable`]: which copies the counters allow to be read;
//! * [`read_child`]: which of those answers a read;
//! * [`lookup`]: what a lookup's replies add up to;
//! * [`verdict`]: what a change's outcomes mean for the caller and for the counters.

pub mod changelog;
pub mod lookup;
pub mod quorum;
pub mod read_child;
pub mod readable;
pub mod verdict;

use mortar_types::SubvolMap;

/// A set of children.
pub type Set = SubvolMap<bool>;

/// Set arithmetic on [`Set`]; both operands have one entry per child of the same layer.
pub trait SetExt {
    fn count(&self) -> usize;
    fn none(&self) -> bool;
    fn all(&self) -> bool;
    #[must_use]
    fn and(&self, other: &Set) -> Set;
    #[must_use]
    fn or(&self, other: &Set) -> Set;
    #[must_use]
    fn minus(&self, other: &Set) -> Set;
}

impl SetExt for Set {
    fn count(&self) -> usize {
        self.iter().filter(|(_, member)| **member).count()
    }

    fn none(&self) -> bool {
        self.count() == 0
    }

    fn all(&self) -> bool {
        self.count() == self.len()
    }

    fn and(&self, other: &Set) -> Set {
        self.map(|id, member| *member && other[id])
    }

    fn or(&self, other: &Set) -> Set {
        self.map(|id, member| *member || other[id])
    }

    fn minus(&self, other: &Set) -> Set {
        self.map(|id, member| *member && !other[id])
    }
}
