//! Which children are sources and which are sinks (`afr_selfheal_find_direction`).

use mortar_types::SubvolMap;

use crate::heal::{Children, Matrix};
use crate::replicate::changelog::Slot;

/// What the changelogs say by themselves. Each kind's `decide` refines it with what the copies look like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Direction {
    /// Locked children that no trustworthy witness accuses. Empty: split-brain.
    pub sources: Children,
    /// Children accused by a source that does not accuse itself.
    pub sinks: Children,
    /// How many operations with unknown outcome each child saw; breaks ties between sources.
    pub witness: SubvolMap<u64>,
    /// Some child accuses some child; otherwise only dirty marks can be standing.
    pub pending: bool,
}

impl Direction {
    pub fn has_witness(&self) -> bool {
        self.witness.iter().any(|(_, count)| *count != 0)
    }
}

/// Reads sources and sinks out of the matrix. `locked`: the children that take part. `quorum`: the number of children
/// whose agreement an acknowledged write needed, when the volume has a client quorum.
pub fn find_direction(slot: Slot, matrix: &Matrix, locked: Children, quorum: Option<usize>) -> Direction {
    let self_accused = matrix.self_accused();
    let mut sources = locked.filter(|child| matrix.accusers(child) == 0);
    let honest_sources = sources.minus(self_accused);
    let sinks =
        matrix.children().filter(|accused| honest_sources.iter().any(|source| matrix.count(source, accused) != 0));
    if sources.is_empty() && slot != Slot::Entry {
        // A write that failed in its post-op left accusations that fewer than a quorum of witnesses share: it cannot
        // have been acknowledged, so who misses it is not stale.
        if let Some(quorum) = quorum {
            sources = locked.filter(|child| matrix.accusers(child) < quorum);
        }
    }
    Direction { sources, sinks, witness: witnesses(matrix, self_accused), pending: matrix.is_pending() }
}

fn witnesses(matrix: &Matrix, self_accused: Children) -> SubvolMap<u64> {
    let others = |child| {
        let others = matrix.children().minus(Children::only(child));
        others.iter().map(|other| u64::from(matrix.count(child, other))).sum::<u64>()
    };
    let somebody_accuses_another = matrix.children().iter().any(|child| others(child) != 0);
    SubvolMap::from_fn(matrix.len(), |child| {
        let mut seen = u64::from(matrix.dirty(child));
        if self_accused.contains(child) {
            let of_others = others(child);
            seen += of_others;
            if !somebody_accuses_another || of_others != 0 {
                seen += u64::from(matrix.count(child, child));
            }
        }
        seen
    })
}

#[cfg(test)]
mod tests {
    use mortar_types::SubvolId;

    use super::*;

    fn set(children: &[usize]) -> Children {
        children.iter().copied().map(SubvolId).collect()
    }

    fn check(matrix: &Matrix) -> (Children, Children) {
        let direction = find_direction(Slot::Data, matrix, matrix.children(), None);
        (direction.sources, direction.sinks)
    }

    #[test]
    fn a_clean_matrix_has_only_sources() {
        assert_eq!(check(&Matrix::from_rows(&[&[0, 0], &[0, 0]], &[0, 0])), (set(&[0, 1]), set(&[])));
    }

    #[test]
    fn the_accused_is_a_sink() {
        assert_eq!(check(&Matrix::from_rows(&[&[0, 2], &[0, 0]], &[0, 0])), (set(&[0]), set(&[1])));
    }

    #[test]
    fn mutual_accusation_leaves_no_source() {
        assert_eq!(check(&Matrix::from_rows(&[&[0, 2], &[1, 0]], &[0, 0])), (set(&[]), set(&[])));
    }

    #[test]
    fn who_accuses_itself_is_no_witness_against_others() {
        let matrix = Matrix::from_rows(&[&[0, 1], &[3, 1]], &[0, 0]);
        assert_eq!(check(&matrix), (set(&[0]), set(&[1])));
    }

    #[test]
    fn dirty_marks_count_as_witness_only() {
        let matrix = Matrix::from_rows(&[&[0, 0], &[0, 0]], &[0, 1]);
        let direction = find_direction(Slot::Data, &matrix, matrix.children(), None);
        assert_eq!((direction.sources, direction.sinks), (set(&[0, 1]), set(&[])));
        assert_eq!(direction.witness, vec![0, 1].into());
        assert!(!direction.pending);
    }

    #[test]
    fn a_self_accusation_counts_when_nobody_accuses_another() {
        let alone = Matrix::from_rows(&[&[2, 0], &[0, 0]], &[0, 0]);
        assert_eq!(find_direction(Slot::Data, &alone, alone.children(), None).witness, vec![2, 0].into());
        let beside = Matrix::from_rows(&[&[2, 0, 0], &[0, 0, 1], &[0, 0, 0]], &[0, 0, 0]);
        assert_eq!(find_direction(Slot::Data, &beside, beside.children(), None).witness, vec![0, 0, 0].into());
    }

    #[test]
    fn with_quorum_accusations_of_a_minority_do_not_unseat_a_source() {
        // Every child is accused, child 0 by two, 1 and 2 by one.
        let matrix = Matrix::from_rows(&[&[0, 1, 0], &[1, 0, 1], &[1, 0, 0]], &[0, 0, 0]);
        let all = matrix.children();
        assert_eq!(find_direction(Slot::Data, &matrix, all, None).sources, set(&[]));
        assert_eq!(find_direction(Slot::Data, &matrix, all, Some(2)).sources, set(&[1, 2]));
        assert_eq!(find_direction(Slot::Entry, &matrix, all, Some(2)).sources, set(&[]));
    }

    #[test]
    fn an_unlocked_child_is_no_source() {
        let matrix = Matrix::from_rows(&[&[0, 0], &[0, 0]], &[0, 0]);
        assert_eq!(find_direction(Slot::Data, &matrix, set(&[1]), None).sources, set(&[1]));
    }
}
