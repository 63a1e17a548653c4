//! Data heal: from which copy to which (`__afr_selfheal_data_finalize_source`).

use mortar_types::{SubvolId, SubvolMap, Timespec};

use crate::heal::{Children, Direction, Resolve};

/// What a copy looks like from outside.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Copy {
    pub size: u64,
    pub mtime: Timespec,
    pub ctime: Timespec,
    /// It keeps names and attributes but no content: its size 0 says nothing and it can feed nobody.
    pub is_arbiter: bool,
}

/// What to do about a file's content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Every copy is a good copy: nothing to move, only marks (if any) to take back.
    Clean,
    Heal(Plan),
    /// Every copy misses something that another one has.
    SplitBrain,
    /// Only the arbiter has seen everything, and it has no content to give.
    OnlyArbiterIsGood,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    pub source: SubvolId,
    /// All good copies, the source among them.
    pub sources: Children,
    pub sinks: Children,
    /// A split-brain was settled by rule or by a person: the sinks' accusations must be dropped first, or the next look
    /// would find the split-brain again.
    pub resolved_split_brain: bool,
}

/// Decides. `copies` holds what each locked child answered; a child without an answer takes no part.
pub fn decide(direction: &Direction, locked: Children, copies: &SubvolMap<Option<Copy>>, resolve: Resolve) -> Decision {
    let locked = locked.filter(|child| copies[child].is_some());
    let copy = |child: SubvolId| copies[child].unwrap_or_default();
    let accused = direction.sinks.and(locked);
    let mut sources = direction.sources.and(locked);
    if sources.is_empty() || accused == locked {
        return settle(locked, &copy, resolve);
    }
    let with_content = sources.filter(|child| !copy(child).is_arbiter);
    let Some(first) = with_content.first() else {
        let is_empty_everywhere = locked.iter().all(|child| copy(child).size == 0);
        // Empty files need no content: the arbiter's word is enough.
        return match sources.first() {
            Some(source) if is_empty_everywhere => plan(source, sources, locked, false),
            _ => Decision::OnlyArbiterIsGood,
        };
    };
    let same_size = with_content.iter().all(|child| copy(child).size == copy(first).size);
    if !same_size || direction.has_witness() {
        // The fields in the order of their weight: content that exists, operations seen, the younger change.
        let largest = with_content.with_max(|child| copy(child).size);
        let best_informed = largest.with_max(|child| direction.witness[child]);
        let newest = best_informed.with_max(|child| copy(child).ctime);
        sources = newest.first().map_or(Children::NONE, Children::only);
    }
    let source = sources.filter(|child| !copy(child).is_arbiter).first().unwrap_or(first);
    plan(source, sources, locked, false)
}

fn plan(source: SubvolId, sources: Children, locked: Children, resolved_split_brain: bool) -> Decision {
    let sinks = locked.minus(sources);
    if sinks.is_empty() {
        return Decision::Clean;
    }
    Decision::Heal(Plan { source, sources, sinks, resolved_split_brain })
}

fn settle(locked: Children, copy: &dyn Fn(SubvolId) -> Copy, resolve: Resolve) -> Decision {
    let with_content = locked.filter(|child| !copy(child).is_arbiter);
    let winner = if locked.iter().all(|child| copy(child).size == 0) {
        locked.first()
    } else {
        resolve.winner(with_content, copy)
    };
    match winner {
        Some(source) => plan(source, Children::only(source), locked, true),
        None => Decision::SplitBrain,
    }
}

impl Resolve {
    /// The copy that wins by this rule, `None` when it settles nothing (`afr_sh_fav_by_*`).
    pub fn winner(self, candidates: Children, copy: &dyn Fn(SubvolId) -> Copy) -> Option<SubvolId> {
        match self {
            Self::Leave => None,
            Self::Size => {
                let largest = candidates.with_max(|child| copy(child).size);
                (largest.len() == 1).then(|| largest.first()).flatten()
            }
            Self::Ctime => candidates.with_max(|child| copy(child).ctime).first(),
            Self::Mtime => candidates.with_max(|child| copy(child).mtime).first(),
            Self::Majority => {
                let look = |child| (copy(child).size, copy(child).mtime);
                let alike = |child| candidates.filter(|other| look(other) == look(child)).len();
                candidates.filter(|child| alike(child) * 2 > candidates.len()).first()
            }
            Self::Child(child) => candidates.contains(child).then_some(child),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heal::{Matrix, find_direction};
    use crate::replicate::changelog::Slot;

    fn of_size(size: u64) -> Option<Copy> {
        Some(Copy { size, ..Copy::default() })
    }

    fn arbiter() -> Option<Copy> {
        Some(Copy { is_arbiter: true, ..Copy::default() })
    }

    fn set(children: &[usize]) -> Children {
        children.iter().copied().map(SubvolId).collect()
    }

    fn check(matrix: &Matrix, copies: &[Option<Copy>], resolve: Resolve) -> Decision {
        let direction = find_direction(Slot::Data, matrix, matrix.children(), None);
        decide(&direction, matrix.children(), &copies.to_vec().into(), resolve)
    }

    fn heal(source: usize, sources: &[usize], sinks: &[usize]) -> Decision {
        Decision::Heal(Plan {
            source: SubvolId(source),
            sources: set(sources),
            sinks: set(sinks),
            resolved_split_brain: false,
        })
    }

    fn mutual() -> Matrix {
        Matrix::from_rows(&[&[0, 1], &[1, 0]], &[0, 0])
    }

    #[test]
    fn clean_and_equal_heals_nothing() {
        let matrix = Matrix::from_rows(&[&[0, 0], &[0, 0]], &[0, 0]);
        assert_eq!(check(&matrix, &[of_size(5), of_size(5)], Resolve::Leave), Decision::Clean);
    }

    #[test]
    fn the_accused_is_healed_whatever_its_size() {
        let matrix = Matrix::from_rows(&[&[0, 0], &[1, 0]], &[0, 0]);
        assert_eq!(check(&matrix, &[of_size(9), of_size(5)], Resolve::Leave), heal(1, &[1], &[0]));
    }

    #[test]
    fn a_standing_dirty_mark_heals_from_the_largest() {
        let matrix = Matrix::from_rows(&[&[0, 0], &[0, 0]], &[1, 1]);
        assert_eq!(check(&matrix, &[of_size(4), of_size(8)], Resolve::Leave), heal(1, &[1], &[0]));
    }

    #[test]
    fn dirty_and_equal_sizes_heal_from_the_newest() {
        let matrix = Matrix::from_rows(&[&[0, 0], &[0, 0]], &[1, 1]);
        let newer = Some(Copy { size: 4, ctime: Timespec::new(9, 0), ..Copy::default() });
        assert_eq!(check(&matrix, &[of_size(4), newer], Resolve::Leave), heal(1, &[1], &[0]));
    }

    #[test]
    fn who_saw_more_wins_before_the_newer_one() {
        let matrix = Matrix::from_rows(&[&[0, 0], &[0, 0]], &[2, 1]);
        let newer = Some(Copy { size: 4, ctime: Timespec::new(9, 0), ..Copy::default() });
        assert_eq!(check(&matrix, &[of_size(4), newer], Resolve::Leave), heal(0, &[0], &[1]));
    }

    #[test]
    fn an_empty_arbiter_does_not_make_sizes_differ() {
        let matrix = Matrix::from_rows(&[&[0, 2, 0], &[0, 0, 0], &[0, 2, 0]], &[0, 0, 0]);
        let copies = [of_size(8), of_size(4), arbiter()];
        assert_eq!(check(&matrix, &copies, Resolve::Leave), heal(0, &[0, 2], &[1]));
    }

    #[test]
    fn an_arbiter_alone_cannot_heal_content() {
        let matrix = Matrix::from_rows(&[&[0, 0, 0], &[0, 0, 0], &[1, 1, 0]], &[0, 0, 0]);
        let copies = [of_size(8), of_size(4), arbiter()];
        assert_eq!(check(&matrix, &copies, Resolve::Leave), Decision::OnlyArbiterIsGood);
    }

    #[test]
    fn split_brain_is_left_alone() {
        assert_eq!(check(&mutual(), &[of_size(1), of_size(2)], Resolve::Leave), Decision::SplitBrain);
    }

    #[test]
    fn split_brain_of_empty_files_is_none() {
        let decision = check(&mutual(), &[of_size(0), of_size(0)], Resolve::Leave);
        assert!(matches!(decision, Decision::Heal(Plan { source: SubvolId(0), resolved_split_brain: true, .. })));
    }

    #[test]
    fn a_policy_settles_split_brain_except_on_a_tie() {
        let decision = check(&mutual(), &[of_size(1), of_size(2)], Resolve::Size);
        assert!(matches!(decision, Decision::Heal(Plan { source: SubvolId(1), resolved_split_brain: true, .. })));
        assert_eq!(check(&mutual(), &[of_size(2), of_size(2)], Resolve::Size), Decision::SplitBrain);
        assert_eq!(check(&mutual(), &[of_size(1), of_size(2)], Resolve::Majority), Decision::SplitBrain);
    }
}
