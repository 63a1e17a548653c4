//! Which copies of an inode may be read (`afr/afr-common.c` afr_replies_interpret, afr_accuse_smallfiles).

use mortar_types::{FileType, SubvolMap};

use super::changelog::{Counters, Slot};
use super::{Set, SetExt};

/// What one child said of the inode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    pub kind: FileType,
    /// Bytes.
    pub size: u64,
    pub counters: Counters,
    /// An inodelk of the I/O domain is held there: sizes may differ in the middle of a write.
    pub locked: bool,
}

/// Where contents (names, for a directory) and where attributes may be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Readable {
    pub data: Set,
    pub metadata: Set,
}

impl Readable {
    /// Where both may be read.
    pub fn both(&self) -> Set {
        self.data.and(&self.metadata)
    }
}

/// The slot whose accusation makes the contents of such an inode unreadable.
pub const fn content_slot(kind: FileType) -> Slot {
    if matches!(kind, FileType::Directory) { Slot::Entry } else { Slot::Data }
}

/// From the replies of a lookup by gfid; `None` where a child failed or was not asked. `arbiter` children hold no data.
pub fn interpret(reports: &SubvolMap<Option<Report>>, arbiter: Option<&Set>) -> Readable {
    let answered = reports.map(|_, report| report.is_some());
    let mut readable = Readable { data: answered.clone(), metadata: answered };
    for (_, report) in reports.iter() {
        let Some(report) = report else { continue };
        for child in reports.ids() {
            if report.counters.accuses(child, content_slot(report.kind)) {
                readable.data[child] = false;
            }
            if report.counters.accuses(child, Slot::Metadata) {
                readable.metadata[child] = false;
            }
        }
    }
    if let Some(arbiter) = arbiter {
        readable.data = readable.data.minus(arbiter);
        readable.metadata = readable.metadata.minus(arbiter);
    }
    accuse_small_files(reports, &mut readable.data);
    readable
}

/// A regular file smaller than the largest copy that nobody accuses has missed an append, unless somebody is writing.
fn accuse_small_files(reports: &SubvolMap<Option<Report>>, data: &mut Set) {
    if reports.iter().any(|(_, report)| report.as_ref().is_some_and(|report| report.locked)) {
        return;
    }
    let regular_size = |child| {
        reports[child].as_ref().filter(|report| report.kind == FileType::Regular).map(|report: &Report| report.size)
    };
    let Some(largest) = data.ids().filter(|child| data[*child]).filter_map(regular_size).max() else { return };
    for child in reports.ids() {
        if regular_size(child).is_some_and(|size| size < largest) {
            data[child] = false;
        }
    }
}

/// Whether any child that answered is accused by another: work for a heal.
pub fn needs_heal(reports: &SubvolMap<Option<Report>>) -> bool {
    reports.iter().any(|(_, report)| {
        report.as_ref().is_some_and(|report| report.counters.pending.iter().any(|(_, value)| !value.is_clean()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replicate::changelog::Changelog;
    use mortar_types::SubvolId;

    fn report(size: u64, accused: &[(usize, Slot)]) -> Option<Report> {
        let mut counters = Counters::clean(2);
        for (child, slot) in accused {
            counters.pending[SubvolId(*child)] = Changelog::in_slot(*slot, 1);
        }
        Some(Report { kind: FileType::Regular, size, counters, locked: false })
    }

    fn sets(readable: &Readable) -> (Vec<bool>, Vec<bool>) {
        let list = |set: &Set| set.iter().map(|(_, member)| *member).collect();
        (list(&readable.data), list(&readable.metadata))
    }

    #[test]
    fn an_accused_child_is_not_read_for_what_it_missed() {
        let reports = SubvolMap::from(vec![report(4, &[(1, Slot::Data)]), report(4, &[])]);
        assert_eq!(sets(&interpret(&reports, None)), (vec![true, false], vec![true, true]));
        let reports = SubvolMap::from(vec![report(4, &[(1, Slot::Metadata)]), report(4, &[])]);
        assert_eq!(sets(&interpret(&reports, None)), (vec![true, true], vec![true, false]));
        assert!(needs_heal(&reports));
    }

    #[test]
    fn mutual_accusation_leaves_no_readable_copy() {
        let reports = SubvolMap::from(vec![report(4, &[(1, Slot::Data)]), report(4, &[(0, Slot::Data)])]);
        assert_eq!(sets(&interpret(&reports, None)).0, [false, false]);
    }

    #[test]
    fn the_full_crawl_mark_of_a_directory_accuses_no_data() {
        let mut reports = SubvolMap::from(vec![report(4096, &[(1, Slot::Data)]), report(4096, &[])]);
        for (_, report) in reports.iter_mut() {
            report.as_mut().unwrap().kind = FileType::Directory;
        }
        assert_eq!(sets(&interpret(&reports, None)).0, [true, true]);
    }

    #[test]
    fn the_smaller_copy_is_stale_unless_somebody_writes() {
        let mut reports = SubvolMap::from(vec![report(3, &[]), report(9, &[])]);
        assert_eq!(sets(&interpret(&reports, None)).0, [false, true]);
        reports[SubvolId(0)].as_mut().unwrap().locked = true;
        assert_eq!(sets(&interpret(&reports, None)).0, [true, true]);
    }

    #[test]
    fn an_accused_larger_copy_does_not_accuse_the_good_one() {
        let reports = SubvolMap::from(vec![report(3, &[(1, Slot::Data)]), report(9, &[])]);
        assert_eq!(sets(&interpret(&reports, None)).0, [true, false]);
    }

    #[test]
    fn silent_children_and_arbiters_are_not_readable() {
        let reports = SubvolMap::from(vec![report(4, &[]), None]);
        assert_eq!(sets(&interpret(&reports, None)), (vec![true, false], vec![true, false]));
        let arbiter = Set::from(vec![false, true]);
        let reports = SubvolMap::from(vec![report(4, &[]), report(0, &[])]);
        assert_eq!(sets(&interpret(&reports, Some(&arbiter))).1, [true, false]);
    }
}
