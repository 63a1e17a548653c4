//! A set of children of one replica set.

use mortar_types::SubvolId;

/// A set of children, by position. Replica sets are small (GlusterFS's limit is far below 64), so a word holds it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Children(u64);

impl Children {
    /// The most children that a set can name.
    pub const COUNT_MAX: usize = 64;
    pub const NONE: Self = Self(0);

    /// The first `count` children.
    ///
    /// # Panics
    /// When `count` exceeds [`Self::COUNT_MAX`]: the volume's graph is checked long before.
    pub fn all(count: usize) -> Self {
        assert!(count <= Self::COUNT_MAX, "a replica set has at most {} children", Self::COUNT_MAX);
        (0..count).map(SubvolId).collect()
    }

    pub fn only(child: SubvolId) -> Self {
        Self(Self::bit(child))
    }

    const fn bit(child: SubvolId) -> u64 {
        1 << child.0
    }

    pub const fn contains(self, child: SubvolId) -> bool {
        self.0 & Self::bit(child) != 0
    }

    pub fn insert(&mut self, child: SubvolId) {
        self.0 |= Self::bit(child);
    }

    pub fn remove(&mut self, child: SubvolId) {
        self.0 &= !Self::bit(child);
    }

    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    pub fn first(self) -> Option<SubvolId> {
        self.iter().next()
    }

    pub fn iter(self) -> impl Iterator<Item = SubvolId> {
        (0..Self::COUNT_MAX).map(SubvolId).filter(move |child| self.contains(*child))
    }

    /// Those that satisfy the condition.
    #[must_use]
    pub fn filter(self, mut keep: impl FnMut(SubvolId) -> bool) -> Self {
        self.iter().filter(|child| keep(*child)).collect()
    }

    /// Those with the greatest value; several on a tie.
    #[must_use]
    pub fn with_max<T: Ord>(self, mut value: impl FnMut(SubvolId) -> T) -> Self {
        let Some(max) = self.iter().map(&mut value).max() else { return Self::NONE };
        self.filter(|child| value(child) == max)
    }
}

impl FromIterator<SubvolId> for Children {
    fn from_iter<I: IntoIterator<Item = SubvolId>>(children: I) -> Self {
        let mut set = Self::NONE;
        for child in children {
            set.insert(child);
        }
        set
    }
}

impl std::fmt::Debug for Children {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter().map(|child| child.0)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_max_keeps_every_child_on_a_tie() {
        let sizes = [3, 7, 7];
        let all = Children::all(3);
        assert_eq!(all.with_max(|child| sizes[child.0]), [SubvolId(1), SubvolId(2)].into_iter().collect());
        assert_eq!(Children::NONE.with_max(|child| sizes[child.0]), Children::NONE);
    }

    #[test]
    fn set_arithmetic() {
        let (all, one) = (Children::all(3), Children::only(SubvolId(1)));
        assert_eq!(all.minus(one).len(), 2);
        assert_eq!(all.and(one), one);
        assert_eq!(all.minus(one).or(one), all);
        assert_eq!(all.first(), Some(SubvolId(0)));
    }
}
