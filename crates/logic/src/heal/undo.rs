//! Taking back pending marks after a heal (`afr_selfheal_undo_pending`).
//!
//! Exactly what was read when the heal decided is subtracted, never "set to zero": an operation that failed in the meantime
//! added its own mark, and that one must stay.

use mortar_types::{SubvolId, SubvolMap};

use crate::heal::{Children, Matrix};

/// What to add to one child's counters, in xattrop's ADD_ARRAY.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Correction {
    pub pending: SubvolMap<i32>,
    pub dirty: i32,
}

impl Correction {
    pub fn is_zero(&self) -> bool {
        self.dirty == 0 && self.pending.iter().all(|(_, delta)| *delta == 0)
    }
}

/// The corrections after a heal that left `good` children right (sources and healed sinks) and `failed` ones wrong.
/// Children in neither set are left as they are: nothing is known about them. `None`: do not touch this child.
pub fn undo(read: &Matrix, good: Children, failed: Children) -> SubvolMap<Option<Correction>> {
    let delta = |child: SubvolId, against: SubvolId| {
        let count = read.count(child, against);
        if good.contains(against) {
            // Counters are 32 bits of two's complement on the brick; the negation of u32 wraps the same way.
            count.wrapping_neg() as i32
        } else if failed.contains(against) && count == 0 {
            // A child that this heal made good must accuse too, or it would look as stale as the failed one.
            1
        } else {
            0
        }
    };
    SubvolMap::from_fn(read.len(), |child| {
        good.contains(child).then(|| Correction {
            pending: SubvolMap::from_fn(read.len(), |against| delta(child, against)),
            dirty: read.dirty(child).wrapping_neg() as i32,
        })
    })
}

/// The corrections that drop what `losers` hold against others, before a settled split-brain is healed: the winner's
/// accusations stand, so that an interrupted heal goes on in the same direction.
pub fn drop_accusations(read: &Matrix, winner: SubvolId, losers: Children) -> SubvolMap<Option<Correction>> {
    SubvolMap::from_fn(read.len(), |child| {
        if child == winner {
            let accuse = |against| if losers.contains(against) && read.count(child, against) == 0 { 1 } else { 0 };
            return Some(Correction { pending: SubvolMap::from_fn(read.len(), accuse), dirty: 0 });
        }
        losers.contains(child).then(|| Correction {
            pending: SubvolMap::from_fn(read.len(), |against| {
                if against == child { 0 } else { read.count(child, against).wrapping_neg() as i32 }
            }),
            dirty: 0,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(mut matrix: Matrix, corrections: &SubvolMap<Option<Correction>>) -> Matrix {
        for (child, correction) in corrections.iter() {
            if let Some(correction) = correction {
                matrix.apply(child, correction);
            }
        }
        matrix
    }

    #[test]
    fn a_complete_heal_leaves_a_clean_matrix() {
        let matrix = Matrix::from_rows(&[&[0, 5], &[0, 1]], &[1, 0]);
        let corrections = undo(&matrix, matrix.children(), Children::NONE);
        assert!(applied(matrix, &corrections).is_clean());
    }

    #[test]
    fn marks_made_during_the_heal_stay() {
        let read = Matrix::from_rows(&[&[0, 5], &[0, 0]], &[0, 0]);
        let now = Matrix::from_rows(&[&[0, 7], &[0, 0]], &[0, 0]);
        let corrections = undo(&read, read.children(), Children::NONE);
        assert_eq!(applied(now, &corrections), Matrix::from_rows(&[&[0, 2], &[0, 0]], &[0, 0]));
    }

    #[test]
    fn a_healed_sink_accuses_the_one_that_failed() {
        let read = Matrix::from_rows(&[&[0, 1, 1], &[0, 0, 0], &[0, 0, 0]], &[0, 0, 0]);
        let good = [SubvolId(0), SubvolId(1)].into_iter().collect();
        let corrections = undo(&read, good, Children::only(SubvolId(2)));
        assert_eq!(corrections[SubvolId(2)], None);
        let after = applied(read, &corrections);
        assert_eq!(after, Matrix::from_rows(&[&[0, 0, 1], &[0, 0, 1], &[0, 0, 0]], &[0, 0, 0]));
    }

    #[test]
    fn a_settled_split_brain_points_one_way() {
        let read = Matrix::from_rows(&[&[0, 2], &[3, 0]], &[0, 0]);
        let corrections = drop_accusations(&read, SubvolId(1), Children::only(SubvolId(0)));
        assert_eq!(applied(read, &corrections), Matrix::from_rows(&[&[0, 0], &[3, 0]], &[0, 0]));
    }
}
