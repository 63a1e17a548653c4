//! Layouts as GlusterFS 10.3 wrote them, before and after an added brick group and a fix-layout, and ours beside them.

use std::collections::BTreeMap;

use mortar_logic::distribute::assign::{self, Member, Terms, fix, new_directory};
use mortar_logic::distribute::hash::davies_meyer;
use mortar_logic::distribute::layout::{Layout, Part, Slot};
use mortar_types::{SubvolId, SubvolMap};

type State = BTreeMap<String, Vec<Option<Part>>>;

/// The two states of the fixture: a directory's part on each of three groups.
fn states() -> Vec<State> {
    let mut states: Vec<State> = Vec::new();
    let (mut group, mut file) = (0, String::new());
    for line in include_str!("fixtures/dht-layouts.txt").lines() {
        if line.starts_with("# state") {
            states.push(State::new());
        } else if let Some(number) = line.strip_prefix("== group ") {
            group = number.parse().unwrap();
        } else if let Some(name) = line.strip_prefix("# file: ") {
            file = if name == "." { "/".to_owned() } else { format!("/{name}") };
        } else if let Some(hex) = line.strip_prefix("trusted.glusterfs.dht=0x") {
            let bytes: Vec<u8> =
                (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
            let parts = states.last_mut().unwrap().entry(file.clone()).or_insert_with(|| vec![None; 3]);
            parts[group] = Some(Part::decode(&bytes).unwrap());
        }
    }
    states
}

fn members(count: usize) -> SubvolMap<Member> {
    SubvolMap::from_fn(count, |id| Member {
        name: format!("dr-replicate-{}", id.0),
        size_mib: 1000,
        usable: true,
        full: false,
    })
}

fn terms(path: &str) -> Terms {
    Terms { weighted: true, spread: None, seed: davies_meyer(path.as_bytes()), commit_hash: 0 }
}

fn range(part: &Part) -> (u32, u32) {
    (part.start, part.stop)
}

#[test]
fn new_directories_are_laid_out_as_there() {
    let states = states();
    for path in ["/after3", "/after3b", "/after3c", "/A/x y"] {
        let ours = new_directory(&members(3), &terms(path));
        let theirs = &states[0][path];
        for (id, part) in ours.iter() {
            assert_eq!(range(part), range(theirs[id.0].as_ref().unwrap()), "{path} {id:?}");
        }
    }
}

#[test]
fn a_fixed_layout_is_the_one_that_glusterfs_chose() {
    let states = states();
    assert_eq!(states[0].len(), 10);
    for (path, before) in &states[0] {
        let slots = before.iter().map(|part| part.map_or(Slot::Missing, Slot::Part)).collect::<Vec<_>>();
        let old = Layout::new(slots.into());
        let ours = fix(&old, &members(3), &terms(path));
        for (id, part) in ours.iter() {
            assert_eq!(range(part), range(states[1][path][id.0].as_ref().unwrap()), "{path} {id:?}");
        }
        let rest = assign::layout(&ours);
        assert!(rest.anomalies().none());
        assert!(rest.search(davies_meyer(b"any")).is_some_and(|id| id < SubvolId(3)));
    }
}
