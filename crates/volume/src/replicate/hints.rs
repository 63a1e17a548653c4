//! Which inode a name was, when it was last seen: lets most renames and removals skip a lookup.
//!
//! A hint may be stale; what depends on it must be correct without. Two generations of a table make it bounded: when the
//! young one is full it becomes the old one, and what nobody asked for meanwhile is gone.

use std::collections::HashMap;

use bytes::Bytes;
use mortar_types::{FileType, Gfid};
use parking_lot::Mutex;

/// Names per generation, about 100 bytes each.
const NAMES_MAX: usize = 8_192;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hint {
    pub(super) gfid: Gfid,
    pub(super) kind: FileType,
}

#[derive(Default)]
pub(super) struct Hints {
    tables: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<(Gfid, Bytes), Hint>,
    old: HashMap<(Gfid, Bytes), Hint>,
}

impl Hints {
    pub(super) fn note(&self, parent: Gfid, name: &Bytes, hint: Hint) {
        let mut tables = self.tables.lock();
        if tables.young.len() >= NAMES_MAX {
            tables.old = std::mem::take(&mut tables.young);
        }
        // The name may be a slice of a whole record: keep only its own bytes alive.
        tables.young.insert((parent, Bytes::copy_from_slice(name)), hint);
    }

    pub(super) fn get(&self, parent: Gfid, name: &Bytes) -> Option<Hint> {
        let tables = self.tables.lock();
        let key = (parent, name.clone());
        tables.young.get(&key).or_else(|| tables.old.get(&key)).copied()
    }

    pub(super) fn forget(&self, parent: Gfid, name: &Bytes) {
        let mut tables = self.tables.lock();
        let key = (parent, name.clone());
        tables.young.remove(&key);
        tables.old.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_names_go_and_forgotten_ones_stay_gone() {
        let hints = Hints::default();
        let name = |n: usize| Bytes::from(n.to_string());
        let hint = Hint { gfid: Gfid::ROOT, kind: FileType::Directory };
        for n in 0..3 * NAMES_MAX {
            hints.note(Gfid::ROOT, &name(n), hint);
        }
        assert_eq!(hints.get(Gfid::ROOT, &name(0)), None);
        assert_eq!(hints.get(Gfid::ROOT, &name(3 * NAMES_MAX - 1)), Some(hint));
        hints.forget(Gfid::ROOT, &name(3 * NAMES_MAX - 1));
        assert_eq!(hints.get(Gfid::ROOT, &name(3 * NAMES_MAX - 1)), None);
    }
}
