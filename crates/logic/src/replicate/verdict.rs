//! What the outcomes of a change mean: for the caller, and for the counters that accuse who missed it
//! (`afr/afr-transaction.c` afr_changelog_post_op_do, afr_is_symmetric_error, afr_has_fop_cbk_quorum).

use mortar_types::{Errno, SubvolId, SubvolMap};

use super::changelog::{Changelog, Slot};
use super::lookup::final_errno;
use super::quorum::Quorum;
use super::{Set, SetExt};

/// What became of the fop at one child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Down, not locked, or without the dirty mark: not asked.
    NotTried,
    Done,
    Failed(Errno),
}

/// What the judgement depends on besides the outcomes.
#[derive(Clone, Debug)]
pub struct Terms<'a> {
    pub slot: Slot,
    pub quorum: Quorum,
    /// Children that held a good copy when the lock was taken; `None` for entry changes, which AFR does not check.
    pub good: Option<&'a Set>,
    /// What children said that are not asked because they refused the lock or the mark.
    pub refused: Option<Errno>,
}

/// What the caller gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The reply of one of the children that did it (the first good one).
    From(SubvolId),
    Error(Errno),
}

/// What must be recorded, on the children that did the change, before the caller may be answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mark {
    /// Nothing; a standing dirty mark may be cleared.
    Clean,
    /// These missed the change: +1 in the slot of each; a standing dirty mark may be cleared with it.
    Accuse(Set),
    /// The outcome is unknown or useless: dirty must stand (and be raised where it does not) until a heal decides.
    StayDirty,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    pub answer: Answer,
    /// Who did it: where marks are written.
    pub done: Set,
    pub mark: Mark,
}

pub fn judge(outcomes: &SubvolMap<Outcome>, terms: &Terms<'_>) -> Verdict {
    let done = outcomes.map(|_, outcome| *outcome == Outcome::Done);
    let verdict = |answer, mark| Verdict { answer, done: done.clone(), mark };
    let errnos = || {
        outcomes.iter().filter_map(|(_, outcome)| match outcome {
            Outcome::Failed(errno) => Some(*errno),
            _ => None,
        })
    };
    if done.none() {
        let errno = final_errno(errnos());
        let symmetric = errno != Errno::ENOTCONN && errnos().all(|other| other == errno);
        // All said the same no: nothing changed anywhere, so nothing is pending.
        return verdict(Answer::Error(errno), if symmetric { Mark::Clean } else { Mark::StayDirty });
    }
    if let Some(good) = terms.good
        && good.and(&done).none()
    {
        // Only copies that were already bad took it: accusing the good ones now would make a split-brain.
        let of_good = outcomes.iter().filter(|(id, _)| good[*id]).find_map(|(_, outcome)| match outcome {
            Outcome::Failed(errno) => Some(*errno),
            _ => None,
        });
        return verdict(Answer::Error(of_good.unwrap_or(Errno::EIO)), Mark::StayDirty);
    }
    if !terms.quorum.is_met(&done) {
        // What the failed children said tells the caller more than the lost quorum (`afr_handle_quorum`); ENOTCONN when
        // they said nothing. Refusals count too: where an inode is about to go, some children no longer know it.
        let errno = final_errno(errnos().chain(terms.refused));
        // But a good copy has done it: "no such name" from a stale one would be a lie that the caller acts upon.
        let misleads =
            terms.slot == Slot::Entry && terms.good.is_some() && matches!(errno, Errno::ENOENT | Errno::EEXIST);
        return verdict(Answer::Error(if misleads { Errno::EIO } else { errno }), Mark::StayDirty);
    }
    let preferred = terms.good.map_or_else(|| done.clone(), |good| good.and(&done));
    let from = preferred.ids().find(|id| preferred[*id]).expect("one did it, and one of the good if they are known");
    let missed = done.map(|_, did| !did);
    verdict(Answer::From(from), if missed.none() { Mark::Clean } else { Mark::Accuse(missed) })
}

/// A child that wrote less than the best has failed (`afr/afr-inode-write.c` afr_writev_handle_short_writes).
pub fn short_writes(written: &SubvolMap<Option<u32>>) -> Set {
    let best = written.iter().filter_map(|(_, bytes)| *bytes).max();
    written.map(|_, bytes| bytes.is_some() && *bytes != best)
}

/// +1 in `slot` for each accused child: the pending part of an xattrop.
pub fn accusations(accused: &Set, slot: Slot) -> SubvolMap<Changelog> {
    accused.map(|_, accused| if *accused { Changelog::in_slot(slot, 1) } else { Changelog::CLEAN })
}

/// The kind of a new inode, as far as its marks care.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NewInode {
    Regular,
    Directory,
    /// Device nodes, fifos, sockets.
    Special,
}

/// Marks on a new inode that some child does not have (`afr/afr-transaction.c` afr_mark_new_entry_changelog,
/// afr_pending_set_new_entry): all of it is missing there. Symlinks and hard links get none.
pub fn new_inode_accusations(accused: &Set, kind: NewInode) -> SubvolMap<Changelog> {
    let value = match kind {
        NewInode::Regular => Changelog([1, 1, 0]),
        // The data counter of a directory asks for a full crawl: its name index does not cover what is older.
        NewInode::Directory => Changelog([1, 1, 1]),
        NewInode::Special => Changelog([0, 1, 0]),
    };
    accused.map(|_, accused| if *accused { value } else { Changelog::CLEAN })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Outcome::{Done, Failed, NotTried};
    use super::*;

    fn set(members: &[u8]) -> Set {
        members.iter().map(|member| *member == 1).collect::<Vec<_>>().into()
    }

    fn run(outcomes: &[Outcome], quorum: Quorum, good: Option<&[u8]>) -> (Answer, Mark) {
        let good = good.map(set);
        let terms = Terms { slot: Slot::Data, quorum, good: good.as_ref(), refused: None };
        let verdict = judge(&outcomes.to_vec().into(), &terms);
        (verdict.answer, verdict.mark)
    }

    const FIRST: Answer = Answer::From(SubvolId(0));

    #[test]
    fn all_did_it() {
        assert_eq!(run(&[Done, Done], Quorum::None, Some(&[1, 1])), (FIRST, Mark::Clean));
    }

    #[test]
    fn who_failed_or_was_down_is_accused() {
        assert_eq!(run(&[Done, NotTried], Quorum::None, None), (FIRST, Mark::Accuse(set(&[0, 1]))));
        let died = Failed(Errno::ENOTCONN);
        let second = Answer::From(SubvolId(1));
        assert_eq!(run(&[died, Done], Quorum::None, Some(&[1, 1])), (second, Mark::Accuse(set(&[1, 0]))));
    }

    #[test]
    fn a_stale_childs_refusal_is_not_told_of_what_a_good_one_did() {
        let outcomes: Vec<Outcome> = vec![Done, Failed(Errno::ENOENT), NotTried];
        let judged = |good: &[u8]| {
            let good = set(good);
            let terms = Terms { slot: Slot::Entry, quorum: Quorum::Auto, good: Some(&good), refused: None };
            judge(&outcomes.clone().into(), &terms).answer
        };
        assert_eq!(judged(&[1, 0, 1]), Answer::Error(Errno::EIO));
        assert_eq!(judged(&[0, 1, 1]), Answer::Error(Errno::ENOENT));
    }

    #[test]
    fn the_same_error_everywhere_leaves_nothing_pending() {
        let full = Failed(Errno::ENOSPC);
        assert_eq!(run(&[full, full], Quorum::None, None), (Answer::Error(Errno::ENOSPC), Mark::Clean));
        assert_eq!(run(&[full, NotTried], Quorum::None, None), (Answer::Error(Errno::ENOSPC), Mark::Clean));
    }

    #[test]
    fn different_errors_leave_the_dirty_mark() {
        let outcomes = [Failed(Errno::ENOSPC), Failed(Errno::ENOTCONN)];
        assert_eq!(run(&outcomes, Quorum::None, None), (Answer::Error(Errno::ENOSPC), Mark::StayDirty));
        let lost = [Failed(Errno::ENOTCONN); 2];
        assert_eq!(run(&lost, Quorum::None, None), (Answer::Error(Errno::ENOTCONN), Mark::StayDirty));
    }

    #[test]
    fn quorum_lost_on_the_way_fails_the_change() {
        let outcomes = [Done, Failed(Errno::ENOTCONN), NotTried];
        assert_eq!(run(&outcomes, Quorum::Auto, None), (Answer::Error(Errno::ENOTCONN), Mark::StayDirty));
        let full = [Done, Failed(Errno::ENOSPC), Failed(Errno::ENOTCONN)];
        assert_eq!(run(&full, Quorum::Auto, None), (Answer::Error(Errno::ENOSPC), Mark::StayDirty));
        let outcomes = [Done, Done, NotTried];
        assert_eq!(run(&outcomes, Quorum::Auto, None), (FIRST, Mark::Accuse(set(&[0, 0, 1]))));
    }

    #[test]
    fn who_refused_the_lock_tells_why_quorum_was_lost() {
        let outcomes = vec![Done, Failed(Errno::ENOTCONN), NotTried].into();
        let terms = Terms { slot: Slot::Data, quorum: Quorum::Auto, good: None, refused: Some(Errno::ENOENT) };
        assert_eq!(judge(&outcomes, &terms).answer, Answer::Error(Errno::ENOENT));
        assert_eq!(judge(&outcomes, &terms).mark, Mark::StayDirty);
    }

    #[test]
    fn a_change_that_only_bad_copies_took_fails() {
        let outcomes = [Failed(Errno::ENOSPC), Done];
        assert_eq!(run(&outcomes, Quorum::None, Some(&[1, 0])), (Answer::Error(Errno::ENOSPC), Mark::StayDirty));
        let outcomes = [NotTried, Done];
        assert_eq!(run(&outcomes, Quorum::None, Some(&[1, 0])), (Answer::Error(Errno::EIO), Mark::StayDirty));
    }

    #[test]
    fn the_answer_comes_from_a_good_copy() {
        assert_eq!(run(&[Done, Done], Quorum::None, Some(&[0, 1])), (Answer::From(SubvolId(1)), Mark::Clean));
    }

    #[test]
    fn the_shorter_write_failed() {
        let written = SubvolMap::from(vec![Some(100), Some(40), None]);
        assert_eq!(short_writes(&written), set(&[0, 1, 0]));
    }

    #[test]
    fn marks_of_new_inodes_are_those_seen_on_real_bricks() {
        let of = |kind| new_inode_accusations(&set(&[0, 1]), kind)[SubvolId(1)].0;
        assert_eq!(of(NewInode::Regular), [1, 1, 0]);
        assert_eq!(of(NewInode::Directory), [1, 1, 1]);
        assert_eq!(of(NewInode::Special), [0, 1, 0]);
        assert_eq!(accusations(&set(&[1, 0]), Slot::Metadata)[SubvolId(0)].0, [0, 1, 0]);
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            Just(Done),
            Just(NotTried),
            Just(Failed(Errno::ENOTCONN)),
            Just(Failed(Errno::ENOSPC)),
            Just(Failed(Errno::EIO)),
        ]
    }

    proptest! {
        /// A change that is acknowledged is on a good copy, on a quorum, and everybody else is accused of missing it.
        #[test]
        fn an_acknowledged_change_is_safe(
            cases in proptest::collection::vec((outcome(), any::<bool>()), 1..6), auto: bool,
        ) {
            let outcomes = SubvolMap::from(cases.iter().map(|case| case.0).collect::<Vec<_>>());
            let good = Set::from(cases.iter().map(|case| case.1).collect::<Vec<_>>());
            let quorum = if auto { Quorum::Auto } else { Quorum::None };
            let verdict = judge(&outcomes, &Terms { slot: Slot::Data, quorum, good: Some(&good), refused: None });
            if let Answer::From(child) = verdict.answer {
                prop_assert!(good[child] && outcomes[child] == Done);
                prop_assert!(quorum.is_met(&verdict.done));
                match verdict.mark {
                    Mark::Clean => prop_assert!(verdict.done.all()),
                    Mark::Accuse(accused) => {
                        prop_assert_eq!(accused.and(&verdict.done).count(), 0);
                        prop_assert!(accused.or(&verdict.done).all());
                    }
                    Mark::StayDirty => prop_assert!(false, "an answer without its mark"),
                }
            }
        }
    }
}
