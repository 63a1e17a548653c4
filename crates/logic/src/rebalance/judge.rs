//! What a name on a subvolume is to a job: the directory's layout says where it lies, the subvolume where it was met.

use mortar_types::SubvolId;

/// A name in the listing of one subvolume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Met {
    pub at: SubvolId,
    /// Where the layout has it; `None` in a hole.
    pub hashed: Option<SubvolId>,
    pub kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Directory,
    /// A link file, and the subvolume that it names; `None`: none of this volume.
    Link(Option<SubvolId>),
    /// Anything with data or a meaning of its own.
    File,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judged {
    Directory,
    /// Where it should be.
    InPlace,
    /// A link file where lookups look for it.
    Pointer,
    /// A file that lookups do not find at the first place; `moves`: this job moves it there.
    Misplaced {
        hashed: SubvolId,
        moves: bool,
    },
    /// A link file where nobody looks, to where the name lies: the rest of a move that was cut off.
    Leftover {
        hashed: SubvolId,
    },
    /// No place by this layout, or nothing to this job.
    Ignored,
}

/// `leaving`: the job empties this subvolume. `only_leaving`: files elsewhere stay where they are.
pub fn judge(met: &Met, only_leaving: bool, leaving: bool) -> Judged {
    match (met.kind, met.hashed) {
        (Kind::Directory, _) => Judged::Directory,
        (Kind::Link(_), Some(hashed)) if hashed == met.at => Judged::Pointer,
        (Kind::Link(Some(target)), Some(hashed)) if target == hashed => Judged::Leftover { hashed },
        (Kind::Link(_), _) | (Kind::File, None) => Judged::Ignored,
        (Kind::File, Some(hashed)) if hashed == met.at => Judged::InPlace,
        (Kind::File, Some(hashed)) => Judged::Misplaced { hashed, moves: leaving || !only_leaving },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SubvolId = SubvolId(0);
    const B: SubvolId = SubvolId(1);
    const C: SubvolId = SubvolId(2);

    fn judged(at: SubvolId, hashed: Option<SubvolId>, kind: Kind) -> Judged {
        judge(&Met { at, hashed, kind }, false, false)
    }

    #[test]
    fn files_belong_where_their_names_lie() {
        assert_eq!(judged(A, Some(A), Kind::File), Judged::InPlace);
        assert_eq!(judged(A, Some(B), Kind::File), Judged::Misplaced { hashed: B, moves: true });
        assert_eq!(judged(A, None, Kind::File), Judged::Ignored);
        assert_eq!(judged(A, Some(B), Kind::Directory), Judged::Directory);
    }

    #[test]
    fn only_what_leaves_is_moved_when_bricks_leave() {
        let met = Met { at: A, hashed: Some(B), kind: Kind::File };
        assert_eq!(judge(&met, true, false), Judged::Misplaced { hashed: B, moves: false });
        assert_eq!(judge(&met, true, true), Judged::Misplaced { hashed: B, moves: true });
    }

    #[test]
    fn link_files_are_pointers_or_left_over() {
        assert_eq!(judged(A, Some(A), Kind::Link(Some(B))), Judged::Pointer);
        assert_eq!(judged(A, Some(B), Kind::Link(Some(B))), Judged::Leftover { hashed: B });
        assert_eq!(judged(A, Some(B), Kind::Link(Some(C))), Judged::Ignored);
        assert_eq!(judged(A, Some(B), Kind::Link(None)), Judged::Ignored);
    }
}
