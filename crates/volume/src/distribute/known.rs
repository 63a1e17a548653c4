//! What the layer remembers: where a file is, how a directory is laid out, what a name was. All of it may be wrong a
//! moment later; whoever uses it notices and asks again. Bounded.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use mortar_logic::distribute::layout::Layout;
use mortar_types::{Gfid, SubvolId};
use parking_lot::Mutex;

use super::subvols::{Subvol, Subvols};

/// Inodes and names remembered, each; at most twice as many for a moment. About 200 bytes each.
const REMEMBERED_MAX: usize = 32_768;

/// Where an inode is.
#[derive(Clone)]
pub(super) enum Known {
    File(Arc<Subvol>),
    Dir(Arc<Dir>),
}

/// A directory as its last lookup on all subvolumes found it.
pub(super) struct Dir {
    pub(super) gfid: Gfid,
    pub(super) layout: Layout,
    /// The set that the layout is about.
    pub(super) set: Arc<Subvols>,
    pub(super) generation: u64,
    pub(super) read_at: Instant,
    /// Keeps the directory's owner, mode and user xattrs.
    pub(super) mds: Option<SubvolId>,
    /// Parent and name, when it was looked up by them.
    pub(super) place: Option<(Gfid, Bytes)>,
}

impl Dir {
    /// Where a name belongs.
    pub(super) fn hashed(&self, name: &[u8]) -> Option<SubvolId> {
        self.layout.search(self.set.options.names.of(name))
    }
}

/// What a name was.
#[derive(Clone)]
pub(super) struct Hint {
    pub(super) gfid: Gfid,
    /// `None`: a directory.
    pub(super) cached: Option<Arc<Subvol>>,
}

/// A map that forgets: when the young half is full it becomes the old one, and what nobody asked for since is gone.
pub(super) struct Memory<K, V> {
    halves: Mutex<(HashMap<K, V>, HashMap<K, V>)>,
}

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self { halves: Mutex::new((HashMap::new(), HashMap::new())) }
    }
}

impl<K: Hash + Eq, V: Clone> Memory<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<V> {
        let mut halves = self.halves.lock();
        if let Some(value) = halves.0.get(key) {
            return Some(value.clone());
        }
        let (key, value) = halves.1.remove_entry(key)?;
        halves.0.insert(key, value.clone());
        Some(value)
    }

    pub(super) fn insert(&self, key: K, value: V) {
        let mut halves = self.halves.lock();
        halves.0.insert(key, value);
        if halves.0.len() >= REMEMBERED_MAX {
            halves.1 = std::mem::take(&mut halves.0);
        }
    }

    pub(super) fn remove(&self, key: &K) {
        let mut halves = self.halves.lock();
        halves.0.remove(key);
        halves.1.remove(key);
    }
}

pub(super) type Name = (Gfid, Bytes);

#[derive(Default)]
pub(super) struct Memories {
    pub(super) inodes: Memory<Gfid, Known>,
    pub(super) names: Memory<Name, Hint>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unused_is_forgotten_and_the_used_stays() {
        let memory: Memory<usize, usize> = Memory::default();
        memory.insert(0, 7);
        for at in 1..3 * REMEMBERED_MAX {
            memory.insert(at, at);
            assert!(at % 1000 != 0 || memory.get(&0) == Some(7));
        }
        assert_eq!(memory.get(&1), None);
        memory.remove(&0);
        assert_eq!(memory.get(&0), None);
    }
}
