//! Indexing by subvolume: a position in a layer's list of children.

/// The position of a child in its layer's `subvolumes` line, from 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SubvolId(pub usize);

/// One `T` per subvolume; the length is fixed when it is made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubvolMap<T>(Vec<T>);

impl<T> SubvolMap<T> {
    pub fn from_fn(count: usize, make: impl FnMut(SubvolId) -> T) -> Self {
        Self((0..count).map(SubvolId).map(make).collect())
    }

    pub fn ids(&self) -> impl Iterator<Item = SubvolId> + use<T> {
        (0..self.0.len()).map(SubvolId)
    }

    pub fn iter(&self) -> impl Iterator<Item = (SubvolId, &T)> {
        self.0.iter().enumerate().map(|(at, value)| (SubvolId(at), value))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (SubvolId, &mut T)> {
        self.0.iter_mut().enumerate().map(|(at, value)| (SubvolId(at), value))
    }

    pub fn map<U>(&self, mut make: impl FnMut(SubvolId, &T) -> U) -> SubvolMap<U> {
        SubvolMap(self.iter().map(|(id, value)| make(id, value)).collect())
    }

    pub const fn len(&self) -> usize {
        self.0.len()
    }

    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: Clone> SubvolMap<T> {
    pub fn filled(count: usize, value: T) -> Self {
        Self(vec![value; count])
    }
}

impl<T> From<Vec<T>> for SubvolMap<T> {
    fn from(values: Vec<T>) -> Self {
        Self(values)
    }
}

impl<T> std::ops::Index<SubvolId> for SubvolMap<T> {
    type Output = T;

    fn index(&self, id: SubvolId) -> &T {
        &self.0[id.0]
    }
}

impl<T> std::ops::IndexMut<SubvolId> for SubvolMap<T> {
    fn index_mut(&mut self, id: SubvolId) -> &mut T {
        &mut self.0[id.0]
    }
}
