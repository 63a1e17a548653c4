//! The state of one disk: a gfid tree and the brick's index.
//!
//! Cheap to copy (inodes are shared until they change), so that every state that a power cut could leave is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use mortar_types::{Errno, FileType, Gfid, Iatt, Timespec};

/// An inode.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    pub gfid: Gfid,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Names; 1 for a directory.
    pub nlink: u32,
    pub data: Vec<u8>,
    /// The contents that are on the platter.
    pub synced: Vec<u8>,
    pub target: Bytes,
    pub xattrs: BTreeMap<String, Bytes>,
    pub entries: BTreeMap<Bytes, Gfid>,
    /// Where a directory is.
    pub place: Option<(Gfid, Bytes)>,
    pub atime: Timespec,
    pub mtime: Timespec,
    pub ctime: Timespec,
}

impl Node {
    pub fn new(gfid: Gfid, mode: u32) -> Self {
        Self {
            gfid,
            mode,
            uid: 0,
            gid: 0,
            nlink: 1,
            data: Vec::new(),
            synced: Vec::new(),
            target: Bytes::new(),
            xattrs: BTreeMap::new(),
            entries: BTreeMap::new(),
            place: None,
            atime: Timespec::default(),
            mtime: Timespec::default(),
            ctime: Timespec::default(),
        }
    }

    pub const fn is_dir(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }

    pub fn is_regular(&self) -> bool {
        FileType::from_mode(self.mode) == Some(FileType::Regular)
    }

    pub fn iatt(&self) -> Iatt {
        let size = if self.target.is_empty() { self.data.len() } else { self.target.len() } as u64;
        Iatt {
            gfid: self.gfid,
            flags: mortar_types::iatt::iatt_flags::POSIX,
            ino: self.gfid.ino(),
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

#[derive(Clone)]
pub struct Tree {
    pub nodes: BTreeMap<Gfid, Arc<Node>>,
    /// `indices/xattrop`.
    pub pending: Arc<BTreeSet<Gfid>>,
    /// `indices/dirty`.
    pub dirty: Arc<BTreeSet<Gfid>>,
    /// `indices/entry-changes`.
    pub changes: Arc<BTreeMap<Gfid, BTreeSet<Bytes>>>,
}

impl Tree {
    /// A root and nothing in it.
    pub fn empty() -> Self {
        let root = Node::new(Gfid::ROOT, FileType::Directory.mode_bits() | 0o755);
        Self {
            nodes: BTreeMap::from([(Gfid::ROOT, Arc::new(root))]),
            pending: Arc::default(),
            dirty: Arc::default(),
            changes: Arc::default(),
        }
    }

    pub fn get(&self, gfid: Gfid) -> Result<&Node, Errno> {
        self.nodes.get(&gfid).map(|node| &**node).ok_or(Errno::ESTALE)
    }

    pub fn get_mut(&mut self, gfid: Gfid) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&gfid).map(Arc::make_mut).ok_or(Errno::ESTALE)
    }

    pub fn dir(&self, gfid: Gfid) -> Result<&Node, Errno> {
        let node = self.get(gfid)?;
        if node.is_dir() { Ok(node) } else { Err(Errno::ENOTDIR) }
    }

    pub fn child(&self, parent: Gfid, name: &Bytes) -> Result<Gfid, Errno> {
        self.dir(parent)?.entries.get(name).copied().ok_or(Errno::ENOENT)
    }

    pub fn insert(&mut self, parent: Gfid, name: &Bytes, mut node: Node) -> Result<(), Errno> {
        if self.dir(parent)?.entries.contains_key(name) || self.nodes.contains_key(&node.gfid) {
            return Err(Errno::EEXIST);
        }
        if node.is_dir() {
            node.place = Some((parent, name.clone()));
        }
        let gfid = node.gfid;
        self.get_mut(parent)?.entries.insert(name.clone(), gfid);
        self.nodes.insert(gfid, Arc::new(node));
        Ok(())
    }

    pub fn link(&mut self, gfid: Gfid, parent: Gfid, name: &Bytes) -> Result<(), Errno> {
        if self.get(gfid)?.is_dir() {
            return Err(Errno::EPERM);
        }
        if self.get(gfid)?.nlink == 0 {
            return Err(Errno::ENOENT);
        }
        if self.dir(parent)?.entries.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        self.get_mut(gfid)?.nlink += 1;
        self.get_mut(parent)?.entries.insert(name.clone(), gfid);
        Ok(())
    }

    /// Takes a name away. Answers inodes that lost their last name.
    pub fn remove(&mut self, parent: Gfid, name: &Bytes, dir: bool, tree: bool) -> Result<Vec<Gfid>, Errno> {
        let gfid = self.child(parent, name)?;
        let node = self.get(gfid)?;
        match (dir, node.is_dir()) {
            (true, false) => return Err(Errno::ENOTDIR),
            (false, true) => return Err(Errno::EISDIR),
            _ => {}
        }
        if dir && !node.entries.is_empty() {
            if !tree {
                return Err(Errno::ENOTEMPTY);
            }
            let mut gone = Vec::new();
            for (name, below) in node.entries.clone() {
                let is_dir = self.get(below)?.is_dir();
                gone.extend(self.remove(gfid, &name, is_dir, true)?);
            }
            gone.extend(self.remove(parent, name, true, false)?);
            return Ok(gone);
        }
        self.get_mut(parent)?.entries.remove(name);
        let node = self.get_mut(gfid)?;
        node.nlink -= 1;
        Ok(if node.nlink == 0 { vec![gfid] } else { Vec::new() })
    }

    pub fn rename(&mut self, old: (Gfid, &Bytes), new: (Gfid, &Bytes)) -> Result<(Gfid, Vec<Gfid>), Errno> {
        let gfid = self.child(old.0, old.1)?;
        self.dir(new.0)?;
        let is_dir = self.get(gfid)?.is_dir();
        if is_dir {
            let mut at = Some(new.0);
            while let Some(dir) = at {
                if dir == gfid {
                    return Err(Errno::EINVAL);
                }
                at = self.get(dir)?.place.as_ref().map(|(parent, _)| *parent);
            }
        }
        let mut gone = Vec::new();
        if let Ok(target) = self.child(new.0, new.1) {
            if target == gfid {
                return Ok((gfid, gone));
            }
            gone = self.remove(new.0, new.1, is_dir, false)?;
        }
        self.get_mut(old.0)?.entries.remove(old.1);
        self.get_mut(new.0)?.entries.insert(new.1.clone(), gfid);
        if is_dir {
            self.get_mut(gfid)?.place = Some((new.0, new.1.clone()));
        }
        Ok((gfid, gone))
    }

    /// `/a/b` of a directory.
    pub fn path(&self, gfid: Gfid) -> Option<String> {
        let (mut at, mut names) = (gfid, Vec::new());
        while at != Gfid::ROOT {
            let (parent, name) = self.get(at).ok()?.place.clone()?;
            names.push(String::from_utf8_lossy(&name).into_owned());
            at = parent;
        }
        names.reverse();
        Some(format!("/{}", names.join("/")))
    }
}
