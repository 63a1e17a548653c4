//! The tree of a brick in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use mortar_types::{Dict, Errno, FileType, Gfid, Iatt, Timespec, Value, keys};

/// An inode.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    pub gfid: Gfid,
    /// Type and permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub nlink: u32,
    pub data: Vec<u8>,
    /// What a power cut would leave.
    pub synced: Vec<u8>,
    pub target: Bytes,
    pub xattrs: BTreeMap<String, Bytes>,
    pub entries: BTreeMap<Bytes, Gfid>,
    pub atime: Timespec,
    pub mtime: Timespec,
    pub ctime: Timespec,
    /// Open fds.
    pub opens: usize,
}

impl Node {
    pub fn new(gfid: Gfid, mode: u32) -> Self {
        Self {
            gfid,
            mode,
            uid: 0,
            gid: 0,
            rdev: 0,
            nlink: 1,
            data: Vec::new(),
            synced: Vec::new(),
            target: Bytes::new(),
            xattrs: BTreeMap::new(),
            entries: BTreeMap::new(),
            atime: Timespec::default(),
            mtime: Timespec::default(),
            ctime: Timespec::default(),
            opens: 0,
        }
    }

    pub fn kind(&self) -> FileType {
        FileType::from_mode(self.mode).unwrap_or(FileType::Regular)
    }

    pub fn is_dir(&self) -> bool {
        self.kind() == FileType::Directory
    }

    pub fn iatt(&self) -> Iatt {
        let size = if self.kind() == FileType::Symlink { self.target.len() } else { self.data.len() } as u64;
        Iatt {
            gfid: self.gfid,
            flags: mortar_types::iatt::iatt_flags::POSIX,
            ino: self.gfid.ino(),
            rdev: self.rdev,
            size,
            blocks: size.div_ceil(512),
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            blksize: 4096,
            mode: self.mode,
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            ..Iatt::default()
        }
    }
}

pub(super) struct Store {
    nodes: HashMap<Gfid, Node>,
    /// Open fds: inode and whether it is a directory.
    pub(super) fds: HashMap<i64, Gfid>,
    next_fd: i64,
    entry_changes: HashMap<Gfid, BTreeSet<Bytes>>,
}

impl Store {
    pub(super) fn new() -> Self {
        let root = Node::new(Gfid::ROOT, FileType::Directory.mode_bits() | 0o755);
        Self {
            nodes: HashMap::from([(Gfid::ROOT, root)]),
            fds: HashMap::new(),
            next_fd: 0,
            entry_changes: HashMap::new(),
        }
    }

    /// Whether the index of a real brick would hold something (`indices/xattrop`).
    pub(super) fn accuses_anybody(&self) -> bool {
        let accuses = |key: &str, value: &Bytes| {
            key.starts_with(keys::XATTR_AFR_PREFIX)
                && key != keys::XATTR_AFR_DIRTY
                && value.iter().any(|byte| *byte != 0)
        };
        self.nodes.values().any(|node| node.xattrs.iter().any(|(key, value)| accuses(key, value)))
    }

    pub(super) fn node(&self, gfid: Gfid) -> Option<&Node> {
        self.nodes.get(&gfid)
    }

    pub(super) fn node_mut(&mut self, gfid: Gfid) -> Option<&mut Node> {
        self.nodes.get_mut(&gfid)
    }

    /// By gfid, as a request names it: an inode without names is found only while open.
    pub(super) fn get(&mut self, gfid: Gfid) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&gfid).filter(|node| node.nlink > 0 || node.opens > 0).ok_or(Errno::ESTALE)
    }

    pub(super) fn dir(&mut self, gfid: Gfid) -> Result<&mut Node, Errno> {
        let node = self.get(gfid)?;
        if node.is_dir() { Ok(node) } else { Err(Errno::ENOTDIR) }
    }

    pub(super) fn child(&mut self, parent: Gfid, name: &Bytes) -> Result<Gfid, Errno> {
        self.dir(parent)?.entries.get(name).copied().ok_or(Errno::ENOENT)
    }

    pub(super) fn open(&mut self, gfid: Gfid) -> Result<i64, Errno> {
        self.get(gfid)?.opens += 1;
        let fd = self.next_fd;
        self.next_fd += 1;
        self.fds.insert(fd, gfid);
        Ok(fd)
    }

    pub(super) fn close(&mut self, fd: i64) {
        if let Some(gfid) = self.fds.remove(&fd)
            && let Some(node) = self.nodes.get_mut(&gfid)
        {
            node.opens -= 1;
            self.drop_if_gone(gfid);
        }
    }

    /// A new inode under a name.
    pub(super) fn make(&mut self, parent: Gfid, name: &Bytes, node: Node) -> Result<Gfid, Errno> {
        let gfid = node.gfid;
        let directory = self.dir(parent)?;
        if directory.entries.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        directory.entries.insert(name.clone(), gfid);
        self.nodes.insert(gfid, node);
        Ok(gfid)
    }

    pub(super) fn link(&mut self, gfid: Gfid, parent: Gfid, name: &Bytes) -> Result<(), Errno> {
        self.get(gfid)?;
        let directory = self.dir(parent)?;
        if directory.entries.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        directory.entries.insert(name.clone(), gfid);
        self.get(gfid)?.nlink += 1;
        Ok(())
    }

    /// Removes a name; `tree`: also a directory that is not empty.
    pub(super) fn remove(&mut self, parent: Gfid, name: &Bytes, dir: bool, tree: bool) -> Result<(), Errno> {
        let gfid = self.child(parent, name)?;
        let node = self.get(gfid)?;
        match (dir, node.is_dir()) {
            (true, false) => return Err(Errno::ENOTDIR),
            (false, true) => return Err(Errno::EISDIR),
            _ => {}
        }
        if dir && !tree && !node.entries.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        node.nlink -= 1;
        self.dir(parent)?.entries.remove(name);
        self.drop_if_gone(gfid);
        Ok(())
    }

    pub(super) fn rename(&mut self, old: (Gfid, &Bytes), new: (Gfid, &Bytes)) -> Result<Gfid, Errno> {
        let gfid = self.child(old.0, old.1)?;
        let target = match self.child(new.0, new.1) {
            Ok(target) => Some(target),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(errno),
        };
        if let Some(target) = target {
            if target == gfid {
                return Ok(gfid);
            }
            let source_is_dir = self.get(gfid)?.is_dir();
            self.remove(new.0, new.1, source_is_dir, false)?;
        }
        self.dir(old.0)?.entries.remove(old.1);
        self.dir(new.0)?.entries.insert(new.1.clone(), gfid);
        Ok(gfid)
    }

    fn drop_if_gone(&mut self, gfid: Gfid) {
        if self.nodes.get(&gfid).is_some_and(|node| node.nlink == 0 && node.opens == 0) {
            self.nodes.remove(&gfid);
        }
    }

    /// XATTROP ADD_ARRAY: all-zero values only read, and missing ones are not made by them.
    pub(super) fn add_arrays(&mut self, gfid: Gfid, dict: &Dict) -> Result<Dict, Errno> {
        let node = self.get(gfid)?;
        let mut reply = Dict::new();
        for (key, value) in dict.iter() {
            let add = value.as_bytes().ok_or(Errno::EINVAL)?.to_vec();
            let old = node.xattrs.get(key).map_or_else(|| vec![0; add.len()], |old| old.to_vec());
            let sum: Vec<u8> = old
                .chunks(4)
                .zip(add.chunks(4))
                .flat_map(|(old, add)| {
                    let word = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap_or([0; 4]));
                    word(old).wrapping_add(word(add)).to_be_bytes()
                })
                .collect();
            if add.iter().any(|byte| *byte != 0) {
                node.xattrs.insert(key.to_owned(), Bytes::from(sum.clone()));
            }
            reply.set(key.to_owned(), Value::ptr(sum));
        }
        Ok(reply)
    }

    pub(super) fn index_name(&mut self, gfid: Gfid, xdata: &Dict) {
        if let Some(name) = xdata.get_bytes(keys::XATTROP_ENTRY_CREATE) {
            self.entry_changes.entry(gfid).or_default().insert(name.clone());
        }
        if let Some(name) = xdata.get_bytes(keys::XATTROP_ENTRY_DELETE)
            && let Some(names) = self.entry_changes.get_mut(&gfid)
        {
            names.remove(name);
        }
    }

    pub(super) fn indexed_names(&self, gfid: Gfid) -> Vec<Bytes> {
        self.entry_changes.get(&gfid).map(|names| names.iter().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn lose_unsynced(&mut self) {
        for node in self.nodes.values_mut() {
            node.data = node.synced.clone();
        }
    }

    /// Names after the first `offset`, with their places.
    pub(super) fn list(&mut self, gfid: Gfid, offset: u64) -> Result<Vec<(u64, Bytes, Gfid)>, Errno> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let entries = &self.dir(gfid)?.entries;
        Ok(entries
            .iter()
            .enumerate()
            .skip(start)
            .map(|(at, (name, gfid))| (at as u64 + 1, name.clone(), *gfid))
            .collect())
    }
}
