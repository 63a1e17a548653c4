//! Entry heal of a directory: whose names count (`__afr_selfheal_entry_finalize_source`).

use mortar_types::SubvolId;

use crate::heal::{Children, Direction, Matrix};

/// What to do about a directory's names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    Clean,
    /// The sources' names are right: what they lack goes, what they have comes.
    Follow {
        source: SubvolId,
        sources: Children,
        sinks: Children,
    },
    /// Conservative merge: no copy can be trusted to have seen every deletion, so nothing is deleted and every name that
    /// exists anywhere comes to all.
    Merge {
        children: Children,
    },
}

pub fn decide(direction: &Direction, locked: Children) -> Decision {
    let accused = direction.sinks.and(locked);
    let sources = direction.sources.and(locked);
    if sources.is_empty() || accused == locked {
        return Decision::Merge { children: locked };
    }
    if direction.has_witness() {
        // Every acknowledged change is on every copy that nobody accuses, and an accused one may hold names that were
        // removed: a merge would bring those back. AFR merges all the same. What is unknown about the sources may go
        // either way, so one of them, the least doubtful, decides for all.
        let least = sources.iter().min_by_key(|source| direction.witness[*source]);
        return match least.filter(|_| direction.pending && !accused.is_empty()) {
            Some(source) => {
                let sources = Children::only(source);
                Decision::Follow { source, sources, sinks: locked.minus(sources) }
            }
            None => Decision::Merge { children: locked },
        };
    }
    let sinks = locked.minus(sources);
    match sources.first() {
        Some(source) if !sinks.is_empty() => Decision::Follow { source, sources, sinks },
        _ => Decision::Clean,
    }
}

/// Whether the directory needs a walk of all its names: on a directory, a data counter says that it was new for the accused
/// brick, so the index of changed names does not cover it.
pub fn needs_full_crawl(data: &Matrix) -> bool {
    data.is_pending()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heal::find_direction;
    use crate::replicate::changelog::Slot;

    fn check(matrix: &Matrix) -> Decision {
        decide(&find_direction(Slot::Entry, matrix, matrix.children(), None), matrix.children())
    }

    #[test]
    fn names_follow_the_unaccused() {
        let matrix = Matrix::from_rows(&[&[0, 4], &[0, 0]], &[0, 0]);
        assert_eq!(
            check(&matrix),
            Decision::Follow {
                source: SubvolId(0),
                sources: Children::only(SubvolId(0)),
                sinks: Children::only(SubvolId(1)),
            }
        );
    }

    #[test]
    fn mutual_accusation_and_dirty_marks_merge() {
        let merge = Decision::Merge { children: Children::all(2) };
        assert_eq!(check(&Matrix::from_rows(&[&[0, 1], &[1, 0]], &[0, 0])), merge);
        assert_eq!(check(&Matrix::from_rows(&[&[0, 0], &[0, 0]], &[1, 0])), merge);
    }

    #[test]
    fn a_doubtful_source_still_counts_more_than_an_accused_copy() {
        let follow = |source, sinks: &[usize]| Decision::Follow {
            source: SubvolId(source),
            sources: Children::only(SubvolId(source)),
            sinks: sinks.iter().copied().map(SubvolId).collect(),
        };
        assert_eq!(check(&Matrix::from_rows(&[&[0, 1], &[0, 0]], &[1, 0])), follow(0, &[1]));
        assert_eq!(check(&Matrix::from_rows(&[&[0, 1], &[0, 0]], &[0, 1])), follow(0, &[1]));
        let three = Matrix::from_rows(&[&[0, 1, 0], &[0, 0, 0], &[0, 1, 0]], &[1, 0, 0]);
        assert_eq!(check(&three), follow(2, &[0, 1]));
    }

    #[test]
    fn a_clean_directory_is_left_alone() {
        assert_eq!(check(&Matrix::from_rows(&[&[0, 0], &[0, 0]], &[0, 0])), Decision::Clean);
    }
}
