//! What a lookup's replies add up to (`afr/afr-common.c` afr_lookup_done, `afr/afr-self-heal-name.c`).

use mortar_types::{Errno, FileType, Gfid, SubvolMap};

use super::quorum::Quorum;
use super::{Set, SetExt};

/// What one child said of the name or gfid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Report {
    /// Down when the lookup was sent.
    NotAsked,
    Found {
        gfid: Gfid,
        kind: FileType,
    },
    Failed(Errno),
}

impl Report {
    /// The child surely does not have it: this counts as an answer, unlike a broken connection.
    const fn is_missing(self) -> bool {
        matches!(self, Self::Failed(Errno::ENOENT | Errno::ESTALE))
    }
}

/// What to answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// The object exists; any of these children holds it under the same gfid.
    Found {
        among: Set,
    },
    Fail(Errno),
}

/// A decision, and whether the copies disagree so that the name should be healed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Judgement {
    pub decision: Decision,
    pub suspect: bool,
}

/// Whether [`judge`] wants to know where the parent's names may be believed: copies contradict each other.
pub fn is_contradictory(reports: &SubvolMap<Report>) -> bool {
    let missing = reports.iter().any(|(_, report)| report.is_missing());
    let mut found = reports.iter().filter_map(|(_, report)| match report {
        Report::Found { gfid, kind } => Some((*gfid, *kind)),
        _ => None,
    });
    let Some(first) = found.next() else { return false };
    missing || found.any(|other| other != first)
}

/// Whether one name leads to two inodes.
pub fn is_gfid_mismatch(reports: &SubvolMap<Report>) -> bool {
    gfids_differ(reports, &reports.map(|_, report| matches!(report, Report::Found { .. })))
}

/// `parent_readable`: the children whose listing of the parent is not accused, if known; a child outside it may have
/// missed the creation or the removal of the name, so where children contradict each other only the others count.
/// `entry_locked`: some child reports a lock on the name, that is, a change under way.
pub fn judge(
    reports: &SubvolMap<Report>,
    parent_readable: Option<&Set>,
    quorum: Quorum,
    entry_locked: bool,
) -> Judgement {
    let suspect = is_contradictory(reports) || reports.iter().any(|(_, r)| *r == Report::Failed(Errno::ENODATA));
    let believed = believed(reports, parent_readable);
    let found = reports.map(|id, report| believed[id] && matches!(report, Report::Found { .. }));
    let decision = if found.none() && is_absence_doubtful(reports, parent_readable, quorum) {
        let failed = reports.iter().filter(|(_, report)| !answered(**report)).filter_map(|(_, r)| errno_of(r));
        Decision::Fail(final_errno(failed))
    } else if found.none() {
        Decision::Fail(final_errno(reports.iter().filter(|(id, _)| believed[*id]).filter_map(|(_, r)| errno_of(r))))
    } else if gfids_differ(reports, &found) {
        let first = found.iter().position(|(_, member)| *member);
        if entry_locked {
            Decision::Found { among: found.map(|id, _| Some(id.0) == first) }
        } else {
            Decision::Fail(Errno::EIO)
        }
    } else if quorum.is_configured() && !quorum.is_met(&reports.map(|_, r| answered(*r))) {
        Decision::Fail(Quorum::ERRNO)
    } else if entry_locked
        && quorum.is_configured()
        && !quorum.is_met(&found)
        && reports.iter().any(|(id, report)| believed[id] && report.is_missing())
    {
        // A create under way that has not reached enough children: to others it does not exist yet. Where only children
        // that missed it earlier lack the name, it is an old one.
        Decision::Fail(Errno::ENOENT)
    } else {
        Decision::Found { among: found }
    };
    Judgement { decision, suspect }
}

/// Whether nobody has the name only because those who would have it did not answer: fewer answered than a change needs, or
/// none of those whose listing of the parent is right.
fn is_absence_doubtful(reports: &SubvolMap<Report>, parent_readable: Option<&Set>, quorum: Quorum) -> bool {
    let answers = reports.map(|_, report| answered(*report));
    let has_quorum = !quorum.is_configured() || quorum.is_met(&answers);
    (any_silent(reports) && !has_quorum) || parent_readable.is_some_and(|trusted| only_doubted_answer(reports, trusted))
}

/// Whether those who are `trusted` with the parent's names are silent, and only others answer. Before an answer is made of
/// that, it is worth asking again who is to be trusted: a copy may have been healed since.
pub fn only_doubted_answer(reports: &SubvolMap<Report>, trusted: &Set) -> bool {
    any_silent(reports) && !reports.iter().any(|(id, report)| trusted[id] && answered(*report))
}

/// Whether somebody was asked and said nothing of the name.
fn any_silent(reports: &SubvolMap<Report>) -> bool {
    reports.iter().any(|(_, report)| *report != Report::NotAsked && !answered(*report))
}

/// Whose answers count: everybody's, unless they contradict each other and some stand above suspicion.
fn believed(reports: &SubvolMap<Report>, parent_readable: Option<&Set>) -> Set {
    let everyone = reports.map(|_, report| *report != Report::NotAsked);
    let Some(parent_readable) = parent_readable.filter(|_| is_contradictory(reports)) else { return everyone };
    let trusted = reports.map(|id, report| parent_readable[id] && answered(*report));
    if trusted.none() { everyone } else { trusted }
}

const fn answered(report: Report) -> bool {
    matches!(report, Report::Found { .. }) || report.is_missing()
}

const fn errno_of(report: &Report) -> Option<Errno> {
    match report {
        Report::Failed(errno) => Some(*errno),
        _ => None,
    }
}

fn gfids_differ(reports: &SubvolMap<Report>, among: &Set) -> bool {
    let mut identities = reports.iter().filter(|(id, _)| among[*id]).map(|(_, report)| report);
    let first = identities.next();
    identities.any(|other| Some(other) != first)
}

/// The errno that says most when children failed differently (`afr/afr-common.c` afr_higher_errno): ENODATA over
/// ENOENT over ESTALE over anything over ENOTCONN. ENOTCONN when nobody was asked.
pub fn final_errno(errnos: impl Iterator<Item = Errno>) -> Errno {
    let rank = |errno: &Errno| match *errno {
        Errno::ENODATA => 4,
        Errno::ENOENT => 3,
        Errno::ESTALE => 2,
        Errno::ENOTCONN => 0,
        _ => 1,
    };
    errnos.max_by_key(rank).unwrap_or(Errno::ENOTCONN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Report = Report::Found { gfid: Gfid([1; 16]), kind: FileType::Regular };
    const B: Report = Report::Found { gfid: Gfid([2; 16]), kind: FileType::Regular };
    const GONE: Report = Report::Failed(Errno::ENOENT);
    const DOWN: Report = Report::Failed(Errno::ENOTCONN);

    fn run(reports: &[Report], parent: Option<&[bool]>, quorum: Quorum) -> (Result<Vec<bool>, Errno>, bool) {
        let parent = parent.map(|parent| Set::from(parent.to_vec()));
        let judgement = judge(&reports.to_vec().into(), parent.as_ref(), quorum, false);
        let decision = match judgement.decision {
            Decision::Found { among } => Ok(among.iter().map(|(_, member)| *member).collect()),
            Decision::Fail(errno) => Err(errno),
        };
        (decision, judgement.suspect)
    }

    #[test]
    fn agreement_needs_no_heal() {
        assert_eq!(run(&[A, A], None, Quorum::None), (Ok(vec![true, true]), false));
        assert_eq!(run(&[GONE, GONE], None, Quorum::None), (Err(Errno::ENOENT), false));
        assert_eq!(run(&[A, Report::NotAsked], None, Quorum::None), (Ok(vec![true, false]), false));
        assert_eq!(run(&[DOWN, DOWN], None, Quorum::None), (Err(Errno::ENOTCONN), false));
    }

    #[test]
    fn two_gfids_under_one_name_are_an_error() {
        assert!(is_gfid_mismatch(&vec![A, B].into()) && !is_gfid_mismatch(&vec![A, GONE].into()));
        assert_eq!(run(&[A, B], None, Quorum::None), (Err(Errno::EIO), true));
        assert_eq!(run(&[A, B], Some(&[true, true]), Quorum::None), (Err(Errno::EIO), true));
    }

    #[test]
    fn a_child_that_missed_changes_of_the_parent_is_not_believed() {
        // It missed an unlink ...
        assert_eq!(run(&[GONE, A], Some(&[true, false]), Quorum::None), (Err(Errno::ENOENT), true));
        // ... or a create ...
        assert_eq!(run(&[A, GONE], Some(&[true, false]), Quorum::None), (Ok(vec![true, false]), true));
        // ... or a replacement.
        assert_eq!(run(&[A, B], Some(&[false, true]), Quorum::None), (Ok(vec![false, true]), true));
    }

    #[test]
    fn a_name_is_not_absent_because_those_who_have_it_are_silent() {
        assert_eq!(run(&[DOWN, GONE, Report::NotAsked], None, Quorum::Auto), (Err(Errno::ENOTCONN), false));
        assert_eq!(run(&[DOWN, GONE], Some(&[true, false]), Quorum::None), (Err(Errno::ENOTCONN), false));
        assert_eq!(run(&[DOWN, GONE], Some(&[true, true]), Quorum::None), (Err(Errno::ENOENT), false));
    }

    #[test]
    fn an_old_name_that_a_stale_child_lacks_exists_while_somebody_holds_the_lock() {
        let reports = vec![DOWN, A, GONE].into();
        let decide = |trusted: Vec<bool>| judge(&reports, Some(&trusted.into()), Quorum::Auto, true).decision;
        assert_eq!(decide(vec![true, true, false]), Decision::Found { among: vec![false, true, false].into() });
        assert_eq!(decide(vec![true, true, true]), Decision::Fail(Errno::ENOENT));
    }

    #[test]
    fn without_a_trusted_parent_what_exists_anywhere_exists() {
        assert_eq!(run(&[GONE, A], Some(&[false, false]), Quorum::None), (Ok(vec![false, true]), true));
        assert_eq!(run(&[GONE, A], None, Quorum::None), (Ok(vec![false, true]), true));
    }

    #[test]
    fn with_quorum_too_few_answers_are_no_answer() {
        assert_eq!(run(&[A, DOWN, DOWN], None, Quorum::Auto), (Err(Errno::ENOTCONN), false));
        assert_eq!(run(&[A, A, DOWN], None, Quorum::Auto), (Ok(vec![true, true, false]), false));
    }

    #[test]
    fn a_create_under_way_below_quorum_does_not_exist_yet() {
        let reports = SubvolMap::from(vec![A, GONE, GONE]);
        assert_eq!(judge(&reports, None, Quorum::Auto, true).decision, Decision::Fail(Errno::ENOENT));
    }

    #[test]
    fn the_errno_that_says_most_wins() {
        assert_eq!(final_errno([Errno::ENOTCONN, Errno::EACCES].into_iter()), Errno::EACCES);
        assert_eq!(final_errno([Errno::ENOENT, Errno::ESTALE].into_iter()), Errno::ENOENT);
        assert_eq!(final_errno(std::iter::empty()), Errno::ENOTCONN);
    }
}
