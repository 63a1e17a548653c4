//! A file system in memory, as far as the random operations use one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What one name is.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    /// A directory and its permission bits.
    Dir { mode: u32 },
    /// A name of the file with that number.
    File(usize),
    /// A symbolic link and its text.
    Symlink(String),
}

/// A regular file, which may have several names.
#[derive(Clone, Debug, Default)]
pub(super) struct File {
    pub(super) content: Vec<u8>,
    pub(super) mode: u32,
    pub(super) xattrs: BTreeMap<String, Vec<u8>>,
    pub(super) links: u64,
}

impl File {
    pub(super) fn write(&mut self, offset: usize, data: &[u8]) {
        let end = offset + data.len();
        if self.content.len() < end {
            self.content.resize(end, 0);
        }
        self.content[offset..end].copy_from_slice(data);
    }
}

/// Names by their path from the top; the top itself has the empty path.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) entries: BTreeMap<PathBuf, Entry>,
    pub(super) files: Vec<File>,
}

impl Model {
    pub(super) fn new() -> Self {
        let top = (PathBuf::new(), Entry::Dir { mode: 0o755 });
        Self { entries: BTreeMap::from([top]), files: Vec::new() }
    }

    /// The paths whose entry is wanted.
    pub(super) fn paths(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<PathBuf> {
        self.entries.iter().filter(|(_, entry)| wanted(entry)).map(|(path, _)| path.clone()).collect()
    }

    pub(super) fn dirs(&self) -> Vec<PathBuf> {
        self.paths(|entry| matches!(entry, Entry::Dir { .. }))
    }

    pub(super) fn regular(&self) -> Vec<PathBuf> {
        self.paths(|entry| matches!(entry, Entry::File(_)))
    }

    /// The names in a directory, in order.
    pub(super) fn names(&self, dir: &Path) -> Vec<String> {
        let below = self.entries.keys().filter(|path| path.parent() == Some(dir));
        let mut names: Vec<String> = below.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect();
        names.sort();
        names
    }

    pub(super) fn file_number(&self, path: &Path) -> usize {
        match self.entries.get(path) {
            Some(Entry::File(number)) => *number,
            other => unreachable!("{} was picked as a file and is {other:?}", path.display()),
        }
    }

    pub(super) fn file(&self, path: &Path) -> &File {
        &self.files[self.file_number(path)]
    }

    pub(super) fn file_mut(&mut self, path: &Path) -> &mut File {
        let number = self.file_number(path);
        &mut self.files[number]
    }

    pub(super) fn add_file(&mut self, path: &Path, file: File) {
        self.files.push(file);
        self.link(path, self.files.len() - 1);
    }

    pub(super) fn link(&mut self, path: &Path, number: usize) {
        self.files[number].links += 1;
        self.entries.insert(path.to_owned(), Entry::File(number));
    }

    pub(super) fn remove(&mut self, path: &Path) {
        if let Some(Entry::File(number)) = self.entries.remove(path) {
            self.files[number].links -= 1;
        }
    }

    /// Gives `from` and all below it the place `to`; what was there is gone.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) {
        self.remove(to);
        let moved: Vec<PathBuf> = self.entries.keys().filter(|path| path.starts_with(from)).cloned().collect();
        for path in moved {
            let Some(entry) = self.entries.remove(&path) else { continue };
            let rest = path.strip_prefix(from).expect("filtered by this prefix");
            let target = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            self.entries.insert(target, entry);
        }
    }
}
