//! A connection's fd numbers. Clients see the lowest free number, from 0, as real bricks give them.

use std::collections::BTreeSet;

use mortar_types::{Errno, Fd, Gfid};

/// Open files of one connection. Far above what a mount keeps open, and below what fills the memory.
const FDS_MAX: usize = 1 << 20;

/// An open file of the layer below.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Open {
    pub(super) fd: Fd,
    pub(super) gfid: Gfid,
    /// Opened by OPENDIR.
    pub(super) is_dir: bool,
}

#[derive(Default)]
pub(super) struct FdTable {
    slots: Vec<Option<Open>>,
    /// Free numbers below `slots.len()`.
    free: BTreeSet<usize>,
}

impl FdTable {
    /// The number for a newly opened file; EMFILE when there are too many.
    pub(super) fn insert(&mut self, open: Open) -> Result<Fd, Errno> {
        if let Some(number) = self.free.pop_first() {
            self.slots[number] = Some(open);
            return Ok(wire_fd(number));
        }
        if self.slots.len() >= FDS_MAX {
            return Err(Errno::EMFILE);
        }
        self.slots.push(Some(open));
        Ok(wire_fd(self.slots.len() - 1))
    }

    /// What a client's number stands for.
    pub(super) fn get(&self, number: Fd) -> Option<Open> {
        *self.slots.get(usize::try_from(number.0).ok()?)?
    }

    pub(super) fn remove(&mut self, number: Fd) -> Option<Open> {
        let at = usize::try_from(number.0).ok()?;
        let open = self.slots.get_mut(at)?.take()?;
        self.free.insert(at);
        Some(open)
    }

    /// Empties the table.
    pub(super) fn drain(&mut self) -> Vec<Open> {
        self.free.clear();
        std::mem::take(&mut self.slots).into_iter().flatten().collect()
    }
}

fn wire_fd(number: usize) -> Fd {
    Fd(number as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(number: i64) -> Open {
        Open { fd: Fd(number), gfid: Gfid::ROOT, is_dir: false }
    }

    #[test]
    fn the_lowest_free_number_is_given() {
        let mut table = FdTable::default();
        assert_eq!([10, 11, 12].map(|fd| table.insert(open(fd)).unwrap()), [Fd(0), Fd(1), Fd(2)]);
        assert_eq!(table.remove(Fd(1)), Some(open(11)));
        assert_eq!(table.remove(Fd(0)), Some(open(10)));
        assert_eq!(table.insert(open(13)), Ok(Fd(0)));
        assert_eq!(table.get(Fd(0)), Some(open(13)));
    }

    #[test]
    fn numbers_that_were_not_given_mean_nothing() {
        let mut table = FdTable::default();
        table.insert(open(1)).unwrap();
        for number in [-1, -2, 1, i64::MAX, i64::MIN] {
            assert_eq!((table.get(Fd(number)), table.remove(Fd(number))), (None, None));
        }
        assert_eq!(table.drain(), [open(1)]);
        assert_eq!(table.remove(Fd(0)), None);
    }
}
