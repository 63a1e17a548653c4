//! The changelogs that GlusterFS 10.3 left on real bricks, and what a heal must make of them.
//!
//! `fixtures/*.xattrs.txt`: getfattr dumps of both (or all three) bricks of a replica set; brick N is child N.

use std::collections::{BTreeMap, BTreeSet};

use mortar_logic::heal::data::{self, Copy};
use mortar_logic::heal::{Children, Inspection, Locks, Matrix, Resolve, SLOTS, Verdict};
use mortar_logic::heal::{entry, find_direction, metadata, name, verdict};
use mortar_logic::replicate::changelog::{Changelog, Counters, Slot};
use mortar_types::{FileType, Gfid, SubvolId, SubvolMap};

type Xattrs = BTreeMap<String, Vec<u8>>;

/// Per brick: path to its xattrs.
struct Fixture {
    volume: &'static str,
    bricks: Vec<BTreeMap<String, Xattrs>>,
}

impl Fixture {
    fn parse(volume: &'static str, text: &str) -> Self {
        let mut bricks: Vec<BTreeMap<String, Xattrs>> = Vec::new();
        let mut path = None;
        for line in text.lines() {
            if line.starts_with("## brick ") {
                bricks.push(BTreeMap::new());
                path = None;
            } else if let Some(file) = line.strip_prefix("# file: ") {
                path = Some(file.to_owned());
                bricks.last_mut().unwrap().insert(file.to_owned(), Xattrs::new());
            } else if line.starts_with('#') || line.is_empty() {
                path = None;
            } else if let (Some(path), Some((key, value))) = (&path, line.split_once("=0x")) {
                bricks.last_mut().unwrap().get_mut(path).unwrap().insert(key.to_owned(), unhex(value));
            }
        }
        Self { volume, bricks }
    }

    /// What each brick says about the inode that brick `home` has at `path`: found by gfid, as a heal does.
    fn counters(&self, home: usize, path: &str) -> SubvolMap<Option<Counters>> {
        let gfid = &self.bricks[home][path]["trusted.gfid"];
        let of = |brick: &BTreeMap<String, Xattrs>| {
            let xattrs = brick.values().find(|xattrs| xattrs.get("trusted.gfid") == Some(gfid))?;
            let value = |key: &str| xattrs.get(key).and_then(|value| Changelog::from_bytes(value)).unwrap_or_default();
            let pending = SubvolMap::from_fn(self.bricks.len(), |child| {
                value(&format!("trusted.afr.{}-client-{}", self.volume, child.0))
            });
            Some(Counters { pending, dirty: value("trusted.afr.dirty") })
        };
        self.bricks.iter().map(of).collect::<Vec<_>>().into()
    }

    fn paths(&self) -> BTreeSet<(usize, String)> {
        let of = |(brick, files): (usize, &BTreeMap<String, Xattrs>)| {
            files.keys().map(move |path| (brick, path.clone())).collect::<Vec<_>>()
        };
        self.bricks.iter().enumerate().flat_map(of).collect()
    }

    fn directions(&self, home: usize, path: &str, kind: Slot) -> (Matrix, Children, Children) {
        let matrix = Matrix::new(kind, &self.counters(home, path));
        let direction = find_direction(kind, &matrix, matrix.children(), None);
        (matrix, direction.sources, direction.sinks)
    }
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn set(children: &[usize]) -> Children {
    children.iter().copied().map(SubvolId).collect()
}

fn pending() -> Fixture {
    Fixture::parse("rb", include_str!("fixtures/b-replica2-pending.xattrs.txt"))
}

fn split_brain() -> Fixture {
    Fixture::parse("rc", include_str!("fixtures/c-replica2-splitbrain.xattrs.txt"))
}

fn arbiter() -> Fixture {
    Fixture::parse("ar", include_str!("fixtures/f2-arbiter-pending.xattrs.txt"))
}

#[test]
fn with_brick_one_killed_brick_zero_is_the_only_source_of_everything_pending() {
    let fixture = pending();
    let mut seen = BTreeSet::new();
    for (home, path) in fixture.paths() {
        for kind in SLOTS {
            let (matrix, sources, sinks) = fixture.directions(home, &path, kind);
            if matrix.is_pending() {
                assert_eq!((sources, sinks), (set(&[0]), set(&[1])), "{path} {kind:?}");
                seen.insert((path.clone(), format!("{kind:?}")));
            } else {
                assert_eq!((sources, sinks), (set(&[0, 1]), set(&[])), "{path} {kind:?}");
            }
        }
    }
    let has = |path: &str, kind: Slot| seen.contains(&(path.to_owned(), format!("{kind:?}")));
    for path in ["h1", "h2", "h5", "hd1/new"] {
        assert!(has(path, Slot::Data), "{path}");
    }
    for path in ["h3", "h4", "h5", "hd2", "hd1/fifo"] {
        assert!(has(path, Slot::Metadata), "{path}");
    }
    for path in ["hd1", "hd2", "hd1/newdir"] {
        assert!(has(path, Slot::Entry), "{path}");
    }
}

#[test]
fn the_eleven_entries_of_heal_info_are_the_ones_that_verdict_names() {
    let fixture = pending();
    let mut found = BTreeSet::new();
    for (_, path) in fixture.paths().into_iter().filter(|(home, _)| *home == 0) {
        let kinds = SLOTS.map(|kind| {
            let (matrix, _, sinks) = fixture.directions(0, &path, kind);
            Inspection::new(&matrix, !sinks.is_empty(), false)
        });
        match verdict(&kinds, Locks::default()) {
            Verdict::NoHeal => {}
            Verdict::HealPending => {
                found.insert(path);
            }
            other => panic!("{path}: {other:?}"),
        }
    }
    let expected = ["hd1/new", "h4", "hd2", "h2", "h3", "hd1", "h1", "hd1/newdir/nn", "h5", "hd1/fifo", "hd1/newdir"];
    assert_eq!(found, expected.map(str::to_owned).into_iter().collect());
}

#[test]
fn a_directory_new_for_the_accused_brick_needs_a_full_crawl_and_an_old_one_does_not() {
    let fixture = pending();
    assert!(entry::needs_full_crawl(&fixture.directions(0, "hd1/newdir", Slot::Data).0));
    assert!(!entry::needs_full_crawl(&fixture.directions(0, "hd1", Slot::Data).0));
}

#[test]
fn data_split_brain_is_recognised_and_left_alone() {
    let fixture = split_brain();
    let (matrix, sources, _) = fixture.directions(0, "data-sb", Slot::Data);
    assert_eq!(sources, Children::NONE);
    let direction = find_direction(Slot::Data, &matrix, matrix.children(), None);
    let copies = vec![Some(Copy { size: 3, ..Copy::default() }); 2].into();
    assert_eq!(data::decide(&direction, matrix.children(), &copies, Resolve::Leave), data::Decision::SplitBrain);
}

#[test]
fn metadata_split_brain_is_recognised_and_left_alone() {
    let (matrix, ..) = split_brain().directions(0, "meta-sb", Slot::Metadata);
    let direction = find_direction(Slot::Metadata, &matrix, matrix.children(), None);
    let copy = |mode| Some(metadata::Attributes { mode, ..metadata::Attributes::default() });
    let copies = vec![copy(0o100_600), copy(0o100_640)].into();
    let decision = metadata::decide(&direction, matrix.children(), &copies, Resolve::Leave);
    assert_eq!(decision, metadata::Decision::SplitBrain);
}

#[test]
fn entry_split_brain_merges_what_exists_once_and_refuses_what_differs() {
    let fixture = split_brain();
    let (matrix, sources, _) = fixture.directions(0, "dir", Slot::Entry);
    assert_eq!(sources, Children::NONE);
    let direction = entry::decide(&find_direction(Slot::Entry, &matrix, matrix.children(), None), matrix.children());
    assert_eq!(direction, entry::Decision::Merge { children: set(&[0, 1]) });

    let seen = |path: &str, kinds: [FileType; 2]| -> SubvolMap<name::Seen> {
        let on = |brick: usize| match fixture.bricks[brick].get(path) {
            Some(xattrs) => {
                name::Seen::Present { gfid: Gfid::from_slice(&xattrs["trusted.gfid"]).unwrap(), kind: kinds[brick] }
            }
            None => name::Seen::Absent,
        };
        vec![on(0), on(1)].into()
    };
    let files = [FileType::Regular; 2];
    let (one, other) = (SubvolId(0), SubvolId(1));
    assert_eq!(name::decide(&direction, &seen("dir/gfid-sb", files)), Err(name::Conflict::Gfid { one, other }));
    let type_sb = seen("dir/type-sb", [FileType::Directory, FileType::Regular]);
    assert_eq!(name::decide(&direction, &type_sb), Err(name::Conflict::Type { one, other }));
    for (path, missing, from) in [("dir/only0", other, one), ("dir/only1", one, other)] {
        let plan = name::decide(&direction, &seen(path, files)).unwrap();
        assert_eq!(
            (plan.create, plan.from, plan.delete),
            (Children::only(missing), Some(from), Children::NONE),
            "{path}"
        );
    }
    assert!(name::decide(&direction, &seen("dir/keep", files)).unwrap().is_nothing());
}

#[test]
fn a_killed_data_brick_is_healed_from_the_other_one_with_the_arbiter_as_witness() {
    let fixture = arbiter();
    for (path, kind) in [
        ("d", Slot::Entry),
        ("d/big", Slot::Metadata),
        ("d/hl", Slot::Data),
        ("d/new", Slot::Data),
        ("d/new", Slot::Metadata),
    ] {
        let (matrix, sources, sinks) = fixture.directions(0, path, kind);
        assert!(matrix.is_pending(), "{path}");
        assert_eq!((sources, sinks), (set(&[0, 2]), set(&[1])), "{path} {kind:?}");
    }
    let (matrix, ..) = fixture.directions(0, "d/hl", Slot::Data);
    let direction = find_direction(Slot::Data, &matrix, matrix.children(), Some(2));
    let copy = |size, is_arbiter| Some(Copy { size, is_arbiter, ..Copy::default() });
    let copies = vec![copy(8, false), copy(3, false), copy(0, true)].into();
    let data::Decision::Heal(plan) = data::decide(&direction, matrix.children(), &copies, Resolve::Leave) else {
        panic!("must heal")
    };
    assert_eq!((plan.source, plan.sinks), (SubvolId(0), set(&[1])));
}
