//! Random fops on the store and on a small POSIX model in memory: the same answers, the same tree.

use std::collections::BTreeMap;

use mortar_types::fop::Truncate;
use mortar_types::{Errno, Fd, Gfid};
use proptest::prelude::*;

use crate::support::Brick;

/// Names are few, so that operations meet.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Indices count modulo what exists.
#[derive(Clone, Debug)]
enum Op {
    Create { dir: usize, name: usize },
    Mkdir { dir: usize, name: usize },
    Symlink { dir: usize, name: usize },
    Link { inode: usize, dir: usize, name: usize },
    Unlink { dir: usize, name: usize },
    Rmdir { dir: usize, name: usize },
    Rename { old: (usize, usize), new: (usize, usize) },
    Write { inode: usize, offset: u64, data: Vec<u8> },
    Truncate { inode: usize, size: u64 },
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let (dir, name) = (0..8_usize, 0..NAMES.len());
    let place = (dir.clone(), name.clone());
    prop_oneof![
        4 => place.clone().prop_map(|(dir, name)| Op::Create { dir, name }),
        3 => place.clone().prop_map(|(dir, name)| Op::Mkdir { dir, name }),
        1 => place.clone().prop_map(|(dir, name)| Op::Symlink { dir, name }),
        2 => (0..8_usize, dir, name).prop_map(|(inode, dir, name)| Op::Link { inode, dir, name }),
        3 => place.clone().prop_map(|(dir, name)| Op::Unlink { dir, name }),
        2 => place.clone().prop_map(|(dir, name)| Op::Rmdir { dir, name }),
        5 => (place.clone(), place).prop_map(|(old, new)| Op::Rename { old, new }),
        3 => (0..8_usize, 0..5000_u64, prop::collection::vec(any::<u8>(), 0..3000))
            .prop_map(|(inode, offset, data)| Op::Write { inode, offset, data }),
        1 => (0..8_usize, 0..6000_u64).prop_map(|(inode, size)| Op::Truncate { inode, size }),
        1 => Just(Op::Reopen),
    ]
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Kind {
    Dir(BTreeMap<&'static str, Gfid>),
    File(Vec<u8>),
    Symlink,
}

/// The obvious file system.
struct Model {
    inodes: BTreeMap<Gfid, Kind>,
}

impl Model {
    fn new() -> Self {
        Self { inodes: BTreeMap::from([(Gfid::ROOT, Kind::Dir(BTreeMap::new()))]) }
    }

    fn dirs(&self) -> Vec<Gfid> {
        self.inodes.iter().filter(|(_, kind)| matches!(kind, Kind::Dir(_))).map(|(gfid, _)| *gfid).collect()
    }

    fn dir(&self, index: usize) -> Gfid {
        let dirs = self.dirs();
        dirs[index % dirs.len()]
    }

    fn files(&self) -> Vec<Gfid> {
        self.inodes.iter().filter(|(_, kind)| matches!(kind, Kind::File(_))).map(|(gfid, _)| *gfid).collect()
    }

    fn entries(&self, dir: Gfid) -> &BTreeMap<&'static str, Gfid> {
        match &self.inodes[&dir] {
            Kind::Dir(entries) => entries,
            _ => panic!("a directory"),
        }
    }

    fn entries_mut(&mut self, dir: Gfid) -> &mut BTreeMap<&'static str, Gfid> {
        match self.inodes.get_mut(&dir) {
            Some(Kind::Dir(entries)) => entries,
            _ => panic!("a directory"),
        }
    }

    fn links(&self, gfid: Gfid) -> usize {
        self.dirs().iter().flat_map(|dir| self.entries(*dir).values()).filter(|entry| **entry == gfid).count()
    }

    fn add(&mut self, dir: Gfid, name: &'static str, gfid: Gfid, kind: Kind) {
        self.entries_mut(dir).insert(name, gfid);
        self.inodes.insert(gfid, kind);
    }

    fn drop_if_unlinked(&mut self, gfid: Gfid) {
        if self.links(gfid) == 0 {
            self.inodes.remove(&gfid);
        }
    }

    fn unlink(&mut self, dir: Gfid, name: &'static str) -> Result<(), Errno> {
        let gfid = *self.entries(dir).get(name).ok_or(Errno::ENOENT)?;
        if matches!(self.inodes[&gfid], Kind::Dir(_)) {
            return Err(Errno::EISDIR);
        }
        self.entries_mut(dir).remove(name);
        self.drop_if_unlinked(gfid);
        Ok(())
    }

    fn rmdir(&mut self, dir: Gfid, name: &'static str) -> Result<(), Errno> {
        let gfid = *self.entries(dir).get(name).ok_or(Errno::ENOENT)?;
        match &self.inodes[&gfid] {
            Kind::Dir(entries) if entries.is_empty() => {}
            Kind::Dir(_) => return Err(Errno::ENOTEMPTY),
            _ => return Err(Errno::ENOTDIR),
        }
        self.entries_mut(dir).remove(name);
        self.inodes.remove(&gfid);
        Ok(())
    }

    fn is_below(&self, dir: Gfid, top: Gfid) -> bool {
        dir == top
            || self
                .entries(top)
                .values()
                .any(|gfid| matches!(self.inodes[gfid], Kind::Dir(_)) && self.is_below(dir, *gfid))
    }

    /// rename(2).
    fn rename(&mut self, old: (Gfid, &'static str), new: (Gfid, &'static str)) -> Result<(), Errno> {
        let moved = *self.entries(old.0).get(old.1).ok_or(Errno::ENOENT)?;
        let target = self.entries(new.0).get(new.1).copied();
        if target == Some(moved) {
            return Ok(());
        }
        let is_dir = matches!(self.inodes[&moved], Kind::Dir(_));
        if is_dir && self.is_below(new.0, moved) {
            return Err(Errno::EINVAL);
        }
        if let Some(target) = target {
            match (is_dir, &self.inodes[&target]) {
                // The kernel looks at loops the other way round first: a target that holds the source is not empty.
                (_, Kind::Dir(_)) if self.is_below(old.0, target) => return Err(Errno::ENOTEMPTY),
                (true, Kind::Dir(entries)) if !entries.is_empty() => return Err(Errno::ENOTEMPTY),
                (true, Kind::Dir(_)) | (false, Kind::File(_) | Kind::Symlink) => {}
                (true, _) => return Err(Errno::ENOTDIR),
                (false, Kind::Dir(_)) => return Err(Errno::EISDIR),
            }
        }
        self.entries_mut(old.0).remove(old.1);
        self.entries_mut(new.0).insert(new.1, moved);
        if let Some(target) = target {
            if matches!(self.inodes[&target], Kind::Dir(_)) {
                self.inodes.remove(&target);
            } else {
                self.drop_if_unlinked(target);
            }
        }
        Ok(())
    }
}

/// Performs one operation on both; returns the brick, which a restart replaces.
fn step(brick: Brick, model: &mut Model, op: &Op) -> Brick {
    match op {
        Op::Create { dir, name } => {
            let (dir, name) = (model.dir(*dir), NAMES[*name]);
            let taken = model.entries(dir).contains_key(name);
            match brick.create(dir, name, b"") {
                Ok(gfid) => {
                    assert!(!taken);
                    model.add(dir, name, gfid, Kind::File(Vec::new()));
                }
                Err(errno) => assert_eq!((taken, errno), (true, Errno::EEXIST)),
            }
        }
        Op::Mkdir { dir, name } => {
            let (dir, name) = (model.dir(*dir), NAMES[*name]);
            let taken = model.entries(dir).contains_key(name);
            match brick.mkdir(dir, name) {
                Ok(gfid) => {
                    assert!(!taken);
                    model.add(dir, name, gfid, Kind::Dir(BTreeMap::new()));
                }
                Err(errno) => assert_eq!((taken, errno), (true, Errno::EEXIST)),
            }
        }
        Op::Symlink { dir, name } => {
            let (dir, name) = (model.dir(*dir), NAMES[*name]);
            let taken = model.entries(dir).contains_key(name);
            match brick.symlink(dir, name, "../../some/where/that/is/not") {
                Ok(gfid) => {
                    assert!(!taken);
                    model.add(dir, name, gfid, Kind::Symlink);
                }
                Err(errno) => assert_eq!((taken, errno), (true, Errno::EEXIST)),
            }
        }
        Op::Link { inode, dir, name } => {
            let files = model.files();
            if files.is_empty() {
                return brick;
            }
            let (gfid, dir, name) = (files[inode % files.len()], model.dir(*dir), NAMES[*name]);
            let taken = model.entries(dir).contains_key(name);
            match brick.link(gfid, dir, name) {
                Ok(_) => {
                    assert!(!taken);
                    model.entries_mut(dir).insert(name, gfid);
                }
                Err(errno) => assert_eq!((taken, errno), (true, Errno::EEXIST)),
            }
        }
        Op::Unlink { dir, name } => {
            let (dir, name) = (model.dir(*dir), NAMES[*name]);
            assert_eq!(brick.unlink(dir, name), model.unlink(dir, name));
        }
        Op::Rmdir { dir, name } => {
            let (dir, name) = (model.dir(*dir), NAMES[*name]);
            assert_eq!(brick.rmdir(dir, name), model.rmdir(dir, name));
        }
        Op::Rename { old, new } => {
            let (old, new) = ((model.dir(old.0), NAMES[old.1]), (model.dir(new.0), NAMES[new.1]));
            assert_eq!(brick.rename(old, new), model.rename(old, new), "{old:?} to {new:?}");
        }
        Op::Write { inode, offset, data } => {
            let files = model.files();
            if files.is_empty() {
                return brick;
            }
            let gfid = files[inode % files.len()];
            brick.write(gfid, Fd::ANONYMOUS, *offset, data).expect("it writes");
            if let Some(Kind::File(content)) = model.inodes.get_mut(&gfid)
                && !data.is_empty()
            {
                let end = *offset as usize + data.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset as usize..end].copy_from_slice(data);
            }
        }
        Op::Truncate { inode, size } => {
            let files = model.files();
            if files.is_empty() {
                return brick;
            }
            let gfid = files[inode % files.len()];
            brick.call(Truncate { gfid, offset: *size, xdata: None }).expect("it truncates");
            if let Some(Kind::File(content)) = model.inodes.get_mut(&gfid) {
                content.resize(*size as usize, 0);
            }
        }
        Op::Reopen => return brick.reopened(),
    }
    brick
}

/// Every inode is found by gfid and by name, with its links and its content, and nothing else is.
fn compare(brick: &Brick, model: &Model) {
    for (gfid, kind) in &model.inodes {
        let stat = brick.stat(*gfid).unwrap_or_else(|errno| panic!("{gfid}: {errno}"));
        assert_eq!(stat.gfid, *gfid);
        match kind {
            Kind::Dir(entries) => {
                let listed: BTreeMap<String, Gfid> = brick
                    .list(*gfid, 1500)
                    .expect("it lists")
                    .into_iter()
                    .map(|(name, stat)| (name, stat.gfid))
                    .collect();
                let expected = entries.iter().map(|(name, gfid)| ((*name).to_owned(), *gfid)).collect();
                assert_eq!(listed, expected);
                for (name, child) in entries {
                    assert_eq!(brick.lookup(*gfid, name).map(|stat| stat.gfid), Ok(*child));
                }
            }
            Kind::File(content) => {
                assert_eq!(stat.nlink as usize, model.links(*gfid));
                assert_eq!(brick.read_all(*gfid).as_ref(), Ok(content));
            }
            Kind::Symlink => assert_eq!(stat.mode & 0o170_000, 0o120_000),
        }
    }
    let handles = count_handles(brick);
    assert_eq!(handles, model.inodes.len(), "a handle each, and none beside");
}

fn count_handles(brick: &Brick) -> usize {
    let list = |path: std::path::PathBuf| {
        std::fs::read_dir(path).expect("it lists").map(|entry| entry.expect("an entry").path()).collect::<Vec<_>>()
    };
    let is_level = |path: &std::path::PathBuf| path.file_name().is_some_and(|name| name.len() == 2);
    list(brick.root().join(".glusterfs")).into_iter().filter(is_level).flat_map(list).flat_map(list).count()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_store_behaves_like_the_model(ops in prop::collection::vec(op(), 1..80)) {
        let Some(mut brick) = Brick::new() else { return Ok(()) };
        let mut model = Model::new();
        for op in &ops {
            brick = step(brick, &mut model, op);
        }
        compare(&brick, &model);
        let brick = brick.reopened();
        compare(&brick, &model);
    }
}
