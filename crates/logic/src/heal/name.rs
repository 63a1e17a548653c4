//! One name of a directory on every child: what to create, delete or replace where. Used by entry heal (name by name) and
//! by name heal during a lookup.

use mortar_types::{Errno, FileType, Gfid, SubvolId, SubvolMap};

use crate::heal::data::Copy;
use crate::heal::entry::Decision as Direction;
use crate::heal::{Children, Resolve};

/// What a child says about the name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    Absent,
    Present {
        gfid: Gfid,
        kind: FileType,
    },
    /// It did not say: nothing can be concluded about this child.
    Unknown(Errno),
}

/// What to do. Deletions come before creations.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Plan {
    /// Remove the name here (it names the wrong inode, or nothing is to be there).
    pub delete: Children,
    /// Make the name here, as it is on `from`.
    pub create: Children,
    /// Give the nameless inode (no gfid) found here the gfid that it has on `from`.
    pub assign: Children,
    /// The copy to follow; `None` exactly when nothing is created or assigned.
    pub from: Option<SubvolId>,
}

impl Plan {
    pub fn is_nothing(&self) -> bool {
        self.delete.is_empty() && self.create.is_empty() && self.assign.is_empty()
    }
}

/// Why a name cannot be healed by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conflict {
    /// The same name, the same type, two inodes.
    Gfid { one: SubvolId, other: SubvolId },
    /// The same name for two kinds of object.
    Type { one: SubvolId, other: SubvolId },
    /// A child that matters did not answer.
    NoAnswer { child: SubvolId, errno: Errno },
    /// No copy knows the inode's gfid.
    NoGfid,
}

/// Decides for one name, by the directory's direction.
pub fn decide(direction: &Direction, seen: &SubvolMap<Seen>) -> Result<Plan, Conflict> {
    match *direction {
        Direction::Clean => Ok(Plan::default()),
        Direction::Follow { source, sinks, .. } => follow(source, sinks, seen),
        Direction::Merge { children } => merge(children, seen),
    }
}

fn follow(source: SubvolId, sinks: Children, seen: &SubvolMap<Seen>) -> Result<Plan, Conflict> {
    require_answers(sinks.or(Children::only(source)), seen)?;
    let mut plan = Plan::default();
    let Seen::Present { gfid, kind } = seen[source] else {
        plan.delete = sinks.filter(|sink| matches!(seen[sink], Seen::Present { .. }));
        return Ok(plan);
    };
    if gfid.is_null() {
        return Err(Conflict::NoGfid);
    }
    for sink in sinks.iter() {
        match seen[sink] {
            Seen::Absent => plan.create.insert(sink),
            Seen::Present { gfid: theirs, kind: their_kind } if theirs == gfid && their_kind == kind => {}
            Seen::Present { gfid: theirs, kind: their_kind } if theirs.is_null() && their_kind == kind => {
                plan.assign.insert(sink);
            }
            _ => {
                plan.delete.insert(sink);
                plan.create.insert(sink);
            }
        }
    }
    plan.from = (!plan.create.or(plan.assign).is_empty()).then_some(source);
    Ok(plan)
}

fn merge(children: Children, seen: &SubvolMap<Seen>) -> Result<Plan, Conflict> {
    require_answers(children, seen)?;
    let has_gfid = |child: SubvolId| matches!(seen[child], Seen::Present { gfid, .. } if !gfid.is_null());
    let present = children.filter(|child| matches!(seen[child], Seen::Present { .. }));
    let Some(model) = present.filter(has_gfid).first() else {
        return if present.is_empty() { Ok(Plan::default()) } else { Err(Conflict::NoGfid) };
    };
    let Seen::Present { gfid, kind } = seen[model] else { return Ok(Plan::default()) };
    let mut plan = Plan { create: children.minus(present), ..Plan::default() };
    for child in present.iter() {
        let Seen::Present { gfid: theirs, kind: their_kind } = seen[child] else { continue };
        if their_kind != kind {
            return Err(Conflict::Type { one: model, other: child });
        }
        if theirs.is_null() {
            plan.assign.insert(child);
        } else if theirs != gfid {
            return Err(Conflict::Gfid { one: model, other: child });
        }
    }
    plan.from = (!plan.create.or(plan.assign).is_empty()).then_some(model);
    Ok(plan)
}

/// Settles a name that leads to different inodes by `resolve`: the winner's inode stays, wherever it is, and the others
/// get it (`afr_selfheal_name`'s gfid split-brain, `afr_gfid_split_brain_source`). `None`: the rule settles nothing, or
/// a directory would have to be thrown away.
pub fn settle(seen: &SubvolMap<Seen>, copies: &SubvolMap<Option<Copy>>, resolve: Resolve) -> Option<Plan> {
    let copy = |child: SubvolId| copies[child].unwrap_or_default();
    let all = Children::all(seen.len());
    let present = all.filter(|child| matches!(seen[child], Seen::Present { .. }) && copies[child].is_some());
    let with_content = present.filter(|child| !copy(child).is_arbiter);
    let winner = resolve.winner(with_content, &copy)?;
    let Seen::Present { gfid, .. } = seen[winner] else { return None };
    if gfid.is_null() || all.iter().any(|child| matches!(seen[child], Seen::Unknown(_))) {
        return None;
    }
    let losers = present.filter(|child| seen[child] != seen[winner]);
    let is_directory = |child| matches!(seen[child], Seen::Present { kind: FileType::Directory, .. });
    if losers.iter().any(is_directory) {
        return None;
    }
    let create = losers.or(all.filter(|child| seen[child] == Seen::Absent));
    Some(Plan { delete: losers, create, from: (!create.is_empty()).then_some(winner), ..Plan::default() })
}

fn require_answers(children: Children, seen: &SubvolMap<Seen>) -> Result<(), Conflict> {
    children.iter().try_for_each(|child| match seen[child] {
        Seen::Unknown(errno) => Err(Conflict::NoAnswer { child, errno }),
        _ => Ok(()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Gfid = Gfid([0xa; 16]);
    const B: Gfid = Gfid([0xb; 16]);

    fn file(gfid: Gfid) -> Seen {
        Seen::Present { gfid, kind: FileType::Regular }
    }

    fn dir(gfid: Gfid) -> Seen {
        Seen::Present { gfid, kind: FileType::Directory }
    }

    fn only(child: usize) -> Children {
        Children::only(SubvolId(child))
    }

    fn from_zero() -> Direction {
        Direction::Follow { source: SubvolId(0), sources: only(0), sinks: only(1) }
    }

    fn both() -> Direction {
        Direction::Merge { children: Children::all(2) }
    }

    fn check(direction: Direction, seen: [Seen; 2]) -> Result<Plan, Conflict> {
        decide(&direction, &seen.to_vec().into())
    }

    #[test]
    fn equal_names_need_nothing() {
        assert_eq!(check(from_zero(), [file(A), file(A)]), Ok(Plan::default()));
        assert_eq!(check(both(), [file(A), file(A)]), Ok(Plan::default()));
        assert_eq!(check(both(), [Seen::Absent, Seen::Absent]), Ok(Plan::default()));
    }

    #[test]
    fn a_name_that_the_source_lacks_goes() {
        let plan = Plan { delete: only(1), ..Plan::default() };
        assert_eq!(check(from_zero(), [Seen::Absent, file(A)]), Ok(plan));
    }

    #[test]
    fn a_name_that_the_sink_lacks_comes() {
        let plan = Plan { create: only(1), from: Some(SubvolId(0)), ..Plan::default() };
        assert_eq!(check(from_zero(), [file(A), Seen::Absent]), Ok(plan));
    }

    #[test]
    fn another_inode_under_the_name_is_replaced_when_there_is_a_source() {
        let plan = Plan { delete: only(1), create: only(1), from: Some(SubvolId(0)), ..Plan::default() };
        assert_eq!(check(from_zero(), [file(A), file(B)]), Ok(plan.clone()));
        assert_eq!(check(from_zero(), [dir(A), file(B)]), Ok(plan));
    }

    #[test]
    fn a_merge_creates_and_never_deletes() {
        let plan = Plan { create: only(0), from: Some(SubvolId(1)), ..Plan::default() };
        assert_eq!(check(both(), [Seen::Absent, file(A)]), Ok(plan));
    }

    #[test]
    fn a_merge_of_two_inodes_is_a_conflict() {
        let (one, other) = (SubvolId(0), SubvolId(1));
        assert_eq!(check(both(), [file(A), file(B)]), Err(Conflict::Gfid { one, other }));
        assert_eq!(check(both(), [dir(A), file(B)]), Err(Conflict::Type { one, other }));
    }

    #[test]
    fn a_missing_gfid_is_taken_from_the_other_copy() {
        let plan = Plan { assign: only(0), from: Some(SubvolId(1)), ..Plan::default() };
        assert_eq!(check(both(), [file(Gfid::NULL), file(A)]), Ok(plan));
        assert_eq!(check(both(), [file(Gfid::NULL), Seen::Absent]), Err(Conflict::NoGfid));
    }

    #[test]
    fn silence_concludes_nothing() {
        let unknown = Seen::Unknown(Errno::ENOTCONN);
        let conflict = Conflict::NoAnswer { child: SubvolId(0), errno: Errno::ENOTCONN };
        assert_eq!(check(from_zero(), [unknown, file(A)]), Err(conflict));
        assert_eq!(check(both(), [unknown, file(A)]), Err(conflict));
    }

    fn sized(sizes: &[u64]) -> SubvolMap<Option<Copy>> {
        sizes.iter().map(|size| Some(Copy { size: *size, ..Copy::default() })).collect::<Vec<_>>().into()
    }

    #[test]
    fn of_two_inodes_under_a_name_the_rule_keeps_one_and_gives_it_to_all() {
        let seen = vec![file(A), file(B), Seen::Absent].into();
        let copies = vec![sized(&[1])[SubvolId(0)], sized(&[2])[SubvolId(0)], None].into();
        let plan = settle(&seen, &copies, Resolve::Size).unwrap();
        assert_eq!((plan.delete, plan.create, plan.from), (only(0), only(0).or(only(2)), Some(SubvolId(1))));
        let plan = settle(&seen, &copies, Resolve::Child(SubvolId(0))).unwrap();
        assert_eq!((plan.delete, plan.from), (only(1), Some(SubvolId(0))));
    }

    #[test]
    fn a_tie_and_a_directory_that_would_be_lost_settle_nothing() {
        let files = vec![file(A), file(B)].into();
        assert_eq!(settle(&files, &sized(&[1, 1]), Resolve::Size), None);
        assert_eq!(settle(&files, &sized(&[1, 2]), Resolve::Leave), None);
        let kinds = vec![file(A), dir(B)].into();
        assert_eq!(settle(&kinds, &sized(&[1, 1]), Resolve::Child(SubvolId(0))), None);
        assert!(settle(&kinds, &sized(&[1, 1]), Resolve::Child(SubvolId(1))).is_some(), "the file can go");
    }

    #[test]
    fn the_copies_that_agree_with_the_winner_stay_and_the_arbiter_is_no_winner() {
        let seen = vec![file(A), file(B), file(B)].into();
        let mut copies = sized(&[5, 7, 9]);
        copies[SubvolId(2)] = Some(Copy { size: 9, is_arbiter: true, ..Copy::default() });
        let plan = settle(&seen, &copies, Resolve::Size).unwrap();
        assert_eq!((plan.delete, plan.create, plan.from), (only(0), only(0), Some(SubvolId(1))));
    }
}
