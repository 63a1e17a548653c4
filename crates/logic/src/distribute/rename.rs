//! The steps of a file's rename (`dht-rename.c` dht_rename_create_links and what follows): four places, none of them
//! alike. At every step the file is found under one of its names.

use mortar_types::SubvolId;

/// Where the two names lie. The data of the old name is at `source_cached`; a link file points to it from
/// `source_hashed` when that is another one. Likewise for the new name, when there is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Places {
    pub source_hashed: SubvolId,
    pub source_cached: SubvolId,
    pub target_hashed: SubvolId,
    /// `None`: nothing has the new name.
    pub target_cached: Option<SubvolId>,
}

/// Which of the two names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Name {
    Old,
    New,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Remove the name there; its failure changes nothing.
    Unlink { name: Name, at: SubvolId },
    /// Make a link file to `source_cached` under the name.
    MakeLink { name: Name, at: SubvolId },
    /// A second name for the data: from here on the new name is there.
    HardLink { at: SubvolId },
    /// RENAME there. Fatal when it fails at `source_cached`; elsewhere it moves a link file, and a lookup repairs that.
    Rename { at: SubvolId },
}

/// All steps in order; the unlinks after the rename may run at once.
pub fn steps(places: &Places) -> Vec<Step> {
    let Places { source_hashed: sh, source_cached: sc, target_hashed: dh, target_cached: dc } = *places;
    let mut steps = Vec::new();
    let replaces_in_place = dc == Some(sc);
    let at = if replaces_in_place { sc } else { dh };
    if replaces_in_place {
        if dh != sc {
            steps.push(Step::Unlink { name: Name::New, at: dh });
        }
    } else if sc != dh {
        if dh != sh {
            steps.push(Step::MakeLink { name: Name::Old, at: dh });
        }
        steps.push(Step::HardLink { at: sc });
    }
    steps.push(Step::Rename { at });
    if replaces_in_place && dh != sc {
        steps.push(Step::MakeLink { name: Name::New, at: dh });
    }
    if sc != dh && !replaces_in_place {
        steps.push(Step::Unlink { name: Name::Old, at: sc });
    }
    if sh != at && sh != sc {
        steps.push(Step::Unlink { name: Name::Old, at: sh });
    }
    if let Some(dc) = dc.filter(|dc| *dc != dh && *dc != sc) {
        steps.push(Step::Unlink { name: Name::New, at: dc });
    }
    steps
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Entry {
        Source,
        Target,
        LinkTo(usize),
    }

    type Dir = BTreeMap<(usize, bool), Entry>;

    fn start(places: &Places) -> Dir {
        let mut dir = Dir::new();
        let (sh, sc, dh) = (places.source_hashed.0, places.source_cached.0, places.target_hashed.0);
        dir.insert((sc, false), Entry::Source);
        if sh != sc {
            dir.insert((sh, false), Entry::LinkTo(sc));
        }
        if let Some(dc) = places.target_cached {
            dir.insert((dc.0, true), Entry::Target);
            if dh != dc.0 {
                dir.insert((dh, true), Entry::LinkTo(dc.0));
            }
        }
        dir
    }

    fn run(dir: &mut Dir, step: Step, sc: usize) {
        let is_new = |name| name == Name::New;
        match step {
            Step::Unlink { name, at } => assert!(dir.remove(&(at.0, is_new(name))).is_some(), "{step:?}"),
            Step::MakeLink { name, at } => {
                assert_eq!(dir.insert((at.0, is_new(name)), Entry::LinkTo(sc)), None, "{step:?}");
            }
            Step::HardLink { at } => {
                let entry = dir[&(at.0, false)];
                let replaced = dir.insert((at.0, true), entry);
                assert!(matches!(replaced, None | Some(Entry::LinkTo(_))), "{step:?}");
            }
            Step::Rename { at } => {
                let entry = dir.remove(&(at.0, false)).expect("the old name is there");
                dir.insert((at.0, true), entry);
            }
        }
    }

    /// The data is reachable: under a name where it is, or by that name's link file.
    fn is_found(dir: &Dir, hashed: usize, new: bool) -> bool {
        match dir.get(&(hashed, new)) {
            Some(Entry::Source) => true,
            Some(Entry::LinkTo(at)) => dir.get(&(*at, new)) == Some(&Entry::Source),
            _ => false,
        }
    }

    #[test]
    fn every_arrangement_ends_with_the_new_name_alone() {
        let ids = || (0..4).map(SubvolId);
        let mut seen = 0;
        for (sh, sc, dh) in ids().flat_map(|a| ids().flat_map(move |b| ids().map(move |c| (a, b, c)))) {
            for dc in ids().map(Some).chain([None]) {
                let places = Places { source_hashed: sh, source_cached: sc, target_hashed: dh, target_cached: dc };
                let mut dir = start(&places);
                for step in steps(&places) {
                    run(&mut dir, step, sc.0);
                    let found = is_found(&dir, sh.0, false) || is_found(&dir, dh.0, true);
                    // In place: between the rename and its new link file a lookup everywhere finds it.
                    let misplaced = dir.get(&(sc.0, true)) == Some(&Entry::Source);
                    assert!(found || misplaced, "{places:?} after {step:?}: {dir:?}");
                }
                let mut end = Dir::from([((sc.0, true), Entry::Source)]);
                if dh != sc {
                    end.insert((dh.0, true), Entry::LinkTo(sc.0));
                }
                assert_eq!(dir, end, "{places:?}");
                seen += 1;
            }
        }
        assert_eq!(seen, 320);
    }

    #[test]
    fn everything_in_one_place_is_one_rename() {
        let a = SubvolId(1);
        let places = Places { source_hashed: a, source_cached: a, target_hashed: a, target_cached: None };
        assert_eq!(steps(&places), [Step::Rename { at: a }]);
    }
}
