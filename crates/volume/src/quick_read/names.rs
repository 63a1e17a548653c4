//! Which inode a name was when it was last looked up, and whether its contents are worth asking for.
//!
//! Only advice: a wrong answer costs a content that is not asked for, or one too many. Two generations of a table make
//! it bounded: when the young one is full it becomes the old one, and what nobody saw meanwhile is gone.

use std::collections::HashMap;

use bytes::Bytes;
use mortar_types::Gfid;
use parking_lot::Mutex;

/// Names per generation, about 100 bytes each.
const NAMES_MAX: usize = 32_768;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hint {
    pub(super) gfid: Gfid,
    /// A regular file, and small enough.
    pub(super) fits: bool,
}

#[derive(Default)]
pub(super) struct Names {
    tables: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<(Gfid, Bytes), Hint>,
    old: HashMap<(Gfid, Bytes), Hint>,
}

impl Names {
    pub(super) fn note(&self, parent: Gfid, name: &Bytes, hint: Hint) {
        let mut tables = self.tables.lock();
        if tables.young.len() >= NAMES_MAX {
            tables.old = std::mem::take(&mut tables.young);
        }
        // The name may be a slice of a whole record: keep only its own bytes alive.
        tables.young.insert((parent, Bytes::copy_from_slice(name)), hint);
    }

    pub(super) fn get(&self, parent: Gfid, name: &Bytes) -> Option<Hint> {
        let key = (parent, name.clone());
        let tables = self.tables.lock();
        tables.young.get(&key).or_else(|| tables.old.get(&key)).copied()
    }

    pub(super) fn forget(&self, parent: Gfid, name: &Bytes) {
        let key = (parent, name.clone());
        let mut tables = self.tables.lock();
        tables.young.remove(&key);
        tables.old.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_nobody_sees_again_are_forgotten() {
        let names = Names::default();
        let name = |n: usize| Bytes::from(n.to_string());
        let hint = Hint { gfid: Gfid::ROOT, fits: true };
        for n in 0..3 * NAMES_MAX {
            names.note(Gfid::ROOT, &name(n), hint);
        }
        assert_eq!(names.get(Gfid::ROOT, &name(0)), None);
        assert_eq!(names.get(Gfid::ROOT, &name(3 * NAMES_MAX - 1)), Some(hint));
        names.forget(Gfid::ROOT, &name(3 * NAMES_MAX - 1));
        assert_eq!(names.get(Gfid::ROOT, &name(3 * NAMES_MAX - 1)), None);
    }
}
