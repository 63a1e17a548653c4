//! Byte ranges of locks.

use mortar_types::Errno;

/// From `start` to `end`, both included; `end` is `i64::MAX` for "to the end of the file".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    pub start: u64,
    pub end: u64,
}

/// The last byte that a lock can cover (`LLONG_MAX`).
const LAST: u64 = i64::MAX as u64;

impl Range {
    /// An inodelk's range: a negative start or length is refused (GlusterFS `pl_common_inodelk`).
    pub fn of_inodelk(start: u64, len: u64) -> Result<Self, Errno> {
        if start > LAST || len > LAST {
            return Err(Errno::EINVAL);
        }
        Ok(Self { start, end: if len == 0 { LAST } else { start.saturating_add(len - 1).min(LAST) } })
    }

    /// A POSIX lock's range: a negative length reaches backwards from `start` (fcntl(2), GlusterFS `pl_lk`).
    pub fn of_posix(start: u64, len: u64) -> Result<Self, Errno> {
        if len <= LAST {
            return Self::of_inodelk(start, len);
        }
        let backwards = len.wrapping_neg();
        if start > LAST || backwards > start {
            return Err(Errno::EINVAL);
        }
        Ok(Self { start: start - backwards, end: start - 1 })
    }

    pub const fn overlaps(&self, other: &Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    /// The length as flocks carry it: 0 when it goes to the end of the file.
    pub const fn flock_len(&self) -> u64 {
        if self.end >= LAST { 0 } else { self.end - self.start + 1 }
    }

    /// The parts of `self` that `hole` does not cover.
    pub fn without(&self, hole: &Self) -> impl Iterator<Item = Self> {
        if !self.overlaps(hole) {
            return [Some(*self), None].into_iter().flatten();
        }
        let before = (self.start < hole.start).then(|| Self { start: self.start, end: hole.start - 1 });
        let after = (self.end > hole.end).then(|| Self { start: hole.end + 1, end: self.end });
        [before, after].into_iter().flatten()
    }

    /// The smallest range that covers both.
    pub fn hull(&self, other: &Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_zero_reaches_the_end_and_comes_back_as_zero() {
        let range = Range::of_inodelk(10, 0).unwrap();
        assert_eq!(range, Range { start: 10, end: LAST });
        assert_eq!(range.flock_len(), 0);
        assert_eq!(Range::of_inodelk(10, 5).unwrap().flock_len(), 5);
    }

    #[test]
    fn negative_numbers_are_refused_or_reach_backwards() {
        assert_eq!(Range::of_inodelk(u64::MAX, 1), Err(Errno::EINVAL));
        assert_eq!(Range::of_inodelk(1, u64::MAX), Err(Errno::EINVAL));
        assert_eq!(Range::of_posix(10, 3u64.wrapping_neg()), Ok(Range { start: 7, end: 9 }));
        assert_eq!(Range::of_posix(2, 3u64.wrapping_neg()), Err(Errno::EINVAL));
        assert_eq!(Range::of_posix(2, i64::MIN as u64), Err(Errno::EINVAL));
    }

    #[test]
    fn a_hole_leaves_what_lies_before_and_after() {
        let range = Range { start: 0, end: 9 };
        let parts: Vec<_> = range.without(&Range { start: 3, end: 5 }).collect();
        assert_eq!(parts, [Range { start: 0, end: 2 }, Range { start: 6, end: 9 }]);
        assert_eq!(range.without(&Range { start: 0, end: 9 }).count(), 0);
        assert_eq!(range.without(&Range { start: 20, end: 30 }).collect::<Vec<_>>(), [range]);
    }
}
