//! Open files and directories: the kernel's file handle numbers and what we know behind them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mortar_types::{Fd, Gfid};
use parking_lot::{Mutex, RwLock};

use crate::bridge::ahead::Listing;
use crate::nodes::NodeId;

/// An open file.
#[derive(Debug)]
pub struct FileHandle {
    pub node: NodeId,
    pub gfid: Gfid,
    /// The volume's fd.
    pub fd: Fd,
}

/// An open directory.
#[derive(Debug)]
pub struct DirHandle {
    pub gfid: Gfid,
    pub fd: Fd,
    /// Entries on their way to the kernel.
    pub listing: Mutex<Listing>,
}

/// A handle by its number.
#[derive(Clone, Debug)]
enum Handle {
    File(Arc<FileHandle>),
    Dir(Arc<DirHandle>),
}

/// All open handles of a mount.
#[derive(Debug, Default)]
pub struct HandleTable {
    next: AtomicU64,
    open: RwLock<HashMap<u64, Handle>>,
}

impl HandleTable {
    pub fn insert_file(&self, handle: FileHandle) -> u64 {
        self.insert(Handle::File(Arc::new(handle)))
    }

    pub fn insert_dir(&self, gfid: Gfid, fd: Fd) -> u64 {
        self.insert(Handle::Dir(Arc::new(DirHandle { gfid, fd, listing: Mutex::default() })))
    }

    /// The numbers of all open files, and of all open directories.
    pub fn all(&self) -> (Vec<u64>, Vec<u64>) {
        let open = self.open.read();
        let numbers = |wanted: fn(&Handle) -> bool| {
            open.iter().filter(|(_, handle)| wanted(handle)).map(|(number, _)| *number).collect()
        };
        (numbers(|handle| matches!(handle, Handle::File(_))), numbers(|handle| matches!(handle, Handle::Dir(_))))
    }

    pub fn file(&self, number: u64) -> Option<Arc<FileHandle>> {
        match self.open.read().get(&number) {
            Some(Handle::File(handle)) => Some(Arc::clone(handle)),
            _ => None,
        }
    }

    pub fn dir(&self, number: u64) -> Option<Arc<DirHandle>> {
        match self.open.read().get(&number) {
            Some(Handle::Dir(handle)) => Some(Arc::clone(handle)),
            _ => None,
        }
    }

    pub fn remove_file(&self, number: u64) -> Option<Arc<FileHandle>> {
        match self.open.write().remove(&number) {
            Some(Handle::File(handle)) => Some(handle),
            _ => None,
        }
    }

    pub fn remove_dir(&self, number: u64) -> Option<Arc<DirHandle>> {
        match self.open.write().remove(&number) {
            Some(Handle::Dir(handle)) => Some(handle),
            _ => None,
        }
    }

    pub fn len(&self) -> usize {
        self.open.read().len()
    }

    pub fn is_empty(&self) -> bool {
        self.open.read().is_empty()
    }

    fn insert(&self, handle: Handle) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        self.open.write().insert(number, handle);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_not_used_again() {
        let handles = HandleTable::default();
        let first = handles.insert_dir(Gfid::ROOT, Fd(1));
        assert!(handles.remove_dir(first).is_some());
        assert_ne!(handles.insert_dir(Gfid::ROOT, Fd(1)), first);
    }

    #[test]
    fn a_directory_is_no_file() {
        let handles = HandleTable::default();
        let number = handles.insert_dir(Gfid::ROOT, Fd(1));
        assert!(handles.file(number).is_none());
        assert!(handles.dir(number).is_some());
    }
}
