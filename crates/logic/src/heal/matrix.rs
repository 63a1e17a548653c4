//! The changelog xattrs of one inode on all children, as numbers: who accuses whom of having missed how much.

use mortar_types::{SubvolId, SubvolMap};

use crate::heal::Children;
use crate::replicate::changelog::{Counters, Slot};

/// The three things a replica can have missed, in the order in which they are healed: metadata before data, so that a new
/// file is not readable by others before it has its owner and mode.
pub const SLOTS: [Slot; 3] = [Slot::Metadata, Slot::Data, Slot::Entry];

/// The counters of one kind: `count(i, j)` operations that child `i` saw and `j` missed, and the dirty marks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Matrix {
    counts: SubvolMap<SubvolMap<u32>>,
    dirty: SubvolMap<u32>,
}

impl Matrix {
    /// From what every child said; `None` for one that did not answer, whose row is zero.
    pub fn new(slot: Slot, answers: &SubvolMap<Option<Counters>>) -> Self {
        let count =
            |answer: Option<&Counters>, against| answer.map_or(0, |counters| counters.pending[against].get(slot));
        Self {
            counts: answers.map(|_, answer| SubvolMap::from_fn(answers.len(), |child| count(answer.as_ref(), child))),
            dirty: answers.map(|_, answer| answer.as_ref().map_or(0, |counters| counters.dirty.get(slot))),
        }
    }

    /// From bare numbers: rows of counts, then the dirty marks.
    pub fn from_rows(counts: &[&[u32]], dirty: &[u32]) -> Self {
        Self {
            counts: counts.iter().map(|row| row.to_vec().into()).collect::<Vec<_>>().into(),
            dirty: dirty.to_vec().into(),
        }
    }

    pub fn count(&self, witness: SubvolId, accused: SubvolId) -> u32 {
        self.counts[witness][accused]
    }

    pub fn dirty(&self, child: SubvolId) -> u32 {
        self.dirty[child]
    }

    pub fn len(&self) -> usize {
        self.dirty.len()
    }

    pub fn is_empty(&self) -> bool {
        self.dirty.is_empty()
    }

    pub fn children(&self) -> Children {
        Children::all(self.len())
    }

    /// Whether any child accuses any child.
    pub fn is_pending(&self) -> bool {
        self.counts.iter().any(|(_, row)| row.iter().any(|(_, count)| *count != 0))
    }

    pub fn dirty_max(&self) -> u32 {
        self.dirty.iter().map(|(_, count)| *count).max().unwrap_or(0)
    }

    /// Nothing pending and nothing dirty.
    pub fn is_clean(&self) -> bool {
        !self.is_pending() && self.dirty_max() == 0
    }

    /// The children that accuse themselves: they saw an operation fail on their own side.
    pub fn self_accused(&self) -> Children {
        self.children().filter(|child| self.count(child, child) != 0)
    }

    /// How many children accuse `accused`. One that accuses itself is no witness against others.
    pub fn accusers(&self, accused: SubvolId) -> usize {
        let trusted = self.children().minus(self.self_accused());
        trusted.filter(|witness| self.count(witness, accused) != 0).len()
    }

    /// Adds the correction that [`crate::heal::undo`] computed, as a brick's xattrop does (wrapping 32-bit addition).
    pub fn apply(&mut self, child: SubvolId, correction: &crate::heal::Correction) {
        for (against, delta) in correction.pending.iter() {
            let count = &mut self.counts[child][against];
            *count = count.wrapping_add_signed(*delta);
        }
        self.dirty[child] = self.dirty[child].wrapping_add_signed(correction.dirty);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replicate::changelog::Changelog;

    #[test]
    fn a_child_without_answer_accuses_nobody() {
        let pending = vec![Changelog::CLEAN, Changelog([0, 3, 0])].into();
        let counters = Counters { pending, dirty: Changelog([0, 1, 0]) };
        let matrix = Matrix::new(Slot::Metadata, &vec![Some(counters), None].into());
        assert_eq!(matrix, Matrix::from_rows(&[&[0, 3], &[0, 0]], &[1, 0]));
    }
}
