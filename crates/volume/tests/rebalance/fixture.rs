//! Two subvolumes over real bricks, a mover's stack over connections of its own, and what is on the bricks.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use mortar_types::fop::{Create, Lookup, Write};
use mortar_types::{Context, Dict, Fd, Fops, Gfid, Outcome, SubvolId, SubvolMap, TimeFlags, Timespec, Value, keys};
use mortar_volume::rebalance::migrate::{Migration, migrate_file};
use mortar_volume::rebalance::{Error, File, Moved, Subvolume, WriterLock};
use mortar_volume::replicate::{Options, Replicate};

use crate::bricks::Brick;
use crate::connection::Connection;

pub(crate) const SOURCE: SubvolId = SubvolId(0);
pub(crate) const TARGET: SubvolId = SubvolId(1);

/// Two replica sets of two bricks each, or two plain bricks.
pub(crate) struct Volume {
    pub(crate) sets: Vec<Vec<Brick>>,
    replicated: bool,
}

/// One process's stack: a mover's or a client's.
pub(crate) struct Stack {
    pub(crate) connections: Vec<Vec<Arc<Connection>>>,
    pub(crate) subvolumes: SubvolMap<Subvolume>,
}

/// A connection of a plain subvolume under the name that link files know.
struct Named(String, Arc<dyn Fops>);

#[async_trait::async_trait]
impl Fops for Named {
    async fn call(&self, ctx: &Context, request: mortar_types::Request) -> Outcome<mortar_types::Reply> {
        self.1.call(ctx, request).await
    }

    fn is_up(&self) -> bool {
        self.1.is_up()
    }

    fn name(&self) -> &str {
        &self.0
    }
}

impl Volume {
    pub(crate) fn replicated() -> Self {
        let set = |at: usize| vec![Brick::new(2 * at), Brick::new(2 * at + 1)];
        Self { sets: vec![set(0), set(1)], replicated: true }
    }

    pub(crate) fn plain() -> Self {
        Self { sets: vec![vec![Brick::new(0)], vec![Brick::new(1)]], replicated: false }
    }

    pub(crate) fn stack(&self) -> Stack {
        self.stack_reading(None)
    }

    /// A stack that reads from this brick of each set.
    pub(crate) fn stack_reading(&self, child: Option<SubvolId>) -> Stack {
        let connections: Vec<Vec<_>> = self.sets.iter().map(|set| set.iter().map(Brick::connect).collect()).collect();
        let subvolumes: Vec<Subvolume> =
            connections.iter().enumerate().map(|(at, set)| self.subvolume(at, set, child)).collect();
        Stack { connections, subvolumes: subvolumes.into() }
    }

    fn subvolume(&self, at: usize, connections: &[Arc<Connection>], read: Option<SubvolId>) -> Subvolume {
        let children: Vec<Arc<dyn Fops>> =
            connections.iter().map(|connection| Arc::clone(connection) as Arc<dyn Fops>).collect();
        if !self.replicated {
            return Subvolume::plain(Arc::new(Named(format!("v-client-{at}"), Arc::clone(&children[0]))));
        }
        let name = format!("v-replicate-{at}");
        let ids = [format!("v-client-{}", 2 * at), format!("v-client-{}", 2 * at + 1)];
        let options = Options { read_subvolume: read, ..Options::new(name.clone(), ids) };
        let layer = Replicate::new(options, children.clone());
        Subvolume { fops: layer, writers: Some(WriterLock { domain: name.into(), bricks: children }) }
    }

    pub(crate) fn path(&self, subvolume: SubvolId, brick: usize, name: &str) -> PathBuf {
        self.sets[subvolume.0][brick].root.join(name)
    }

    /// A name on one brick; `None` when it is not there.
    pub(crate) fn on_brick(&self, subvolume: SubvolId, brick: usize, name: &str) -> Option<OnBrick> {
        let path = self.path(subvolume, brick, name);
        let meta = std::fs::symlink_metadata(&path).ok()?;
        let content = if meta.is_file() { std::fs::read(&path).ok()? } else { Vec::new() };
        let mut xattrs = BTreeMap::new();
        let mut list = vec![0; 4096];
        let len = rustix::fs::llistxattr(&path, &mut list[..]).unwrap();
        for key in list[..len].split(|byte| *byte == 0).filter(|key| !key.is_empty()) {
            let key = String::from_utf8(key.to_vec()).unwrap();
            let mut value = vec![0; 4096];
            let len = rustix::fs::lgetxattr(&path, key.as_str(), &mut value[..]).unwrap();
            xattrs.insert(key, value[..len].to_vec());
        }
        let (mode, uid, gid) = (meta.permissions().mode() & 0o7777, meta.uid(), meta.gid());
        Some(OnBrick { content, mode, uid, gid, blocks: meta.blocks(), xattrs })
    }

    /// The copies of a name that are files, not link files, over all bricks of a subvolume.
    pub(crate) fn files(&self, subvolume: SubvolId, name: &str) -> Vec<OnBrick> {
        let bricks = 0..self.sets[subvolume.0].len();
        bricks.filter_map(|brick| self.on_brick(subvolume, brick, name)).filter(|file| !file.is_link()).collect()
    }

    /// Whether another brick says that this one missed a change of names in the root: a heal then removes what it has too
    /// much (`trusted.afr.*`, the third number).
    fn missed_names(&self, subvolume: SubvolId, brick: usize) -> bool {
        let key = format!("trusted.afr.v-client-{}", 2 * subvolume.0 + brick);
        let accuses = |root: OnBrick| root.xattrs.get(&key).is_some_and(|marks| marks[8..] != [0; 4]);
        (0..self.sets[subvolume.0].len()).filter_map(|other| self.on_brick(subvolume, other, "")).any(accuses)
    }

    /// What a heal of the root's names would clear.
    pub(crate) fn forget_missed_names(&self) {
        for brick in self.sets.iter().flatten() {
            for missing in 0..4 {
                let key = format!("trusted.afr.v-client-{missing}");
                match rustix::fs::removexattr(&brick.root, key.as_str()) {
                    Ok(()) | Err(rustix::io::Errno::NODATA) => {}
                    Err(error) => panic!("{key}: {error}"),
                }
            }
        }
    }

    /// The one content of a file that is at the target only, with nothing left of the move.
    #[track_caller]
    pub(crate) fn assert_moved(&self, name: &str) -> OnBrick {
        for brick in (0..self.sets[0].len()).filter(|brick| !self.missed_names(SOURCE, *brick)) {
            assert_eq!(self.on_brick(SOURCE, brick, name), None, "the source is gone");
        }
        let files = self.files(TARGET, name);
        assert_eq!(files.len(), self.sets[1].len(), "every target brick has it");
        for file in &files {
            let left: Vec<_> = file.xattrs.keys().filter(|key| key.contains("dht") || key.contains("mortar")).collect();
            assert!(left.is_empty(), "{left:?}");
            assert_eq!((&file.content, file.mode, file.uid), (&files[0].content, files[0].mode, files[0].uid));
        }
        files.into_iter().next().unwrap()
    }

    /// It is at the source only, as it was.
    #[track_caller]
    pub(crate) fn assert_stayed(&self, name: &str, content: &[u8], mode: u32) {
        let files = self.files(SOURCE, name);
        assert_eq!(files.len(), self.sets[0].len());
        for file in files {
            assert_eq!((&file.content[..], file.mode), (content, mode));
            assert!(!file.xattrs.keys().any(|key| key.contains("dht") || key.contains("mortar")), "{:?}", file.xattrs);
        }
        assert_eq!(self.files(TARGET, name), []);
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct OnBrick {
    pub(crate) content: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) blocks: u64,
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
}

impl OnBrick {
    pub(crate) fn is_link(&self) -> bool {
        self.mode == 0o1000 && self.xattrs.contains_key("trusted.glusterfs.dht.linkto")
    }
}

/// An application's clock.
pub(crate) fn user(second: i64) -> Context {
    let flags = TimeFlags::CTIME.or(TimeFlags::MTIME).or(TimeFlags::ATIME);
    Context { time: Some(Timespec::new(second, 7)), time_flags: flags, ..Context::default() }
}

pub(crate) fn name(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

impl Stack {
    pub(crate) fn fops(&self, at: SubvolId) -> &Arc<dyn Fops> {
        &self.subvolumes[at].fops
    }

    /// A file in the root of the source.
    pub(crate) async fn create(&self, file_name: &str, content: &[u8], mode: u32) -> File {
        let mut gfid = Gfid([0; 16]);
        gfid.0[..8].copy_from_slice(&rand::random::<[u8; 8]>());
        gfid.0[15] = 2;
        let xdata = Some(Dict::new().with(keys::GFID_REQ, Value::Gfid(gfid)));
        let request = Create { parent: Gfid::ROOT, flags: 0o102, mode, umask: 0, name: name(file_name), xdata };
        let fd = self.fops(SOURCE).fop(&user(1000), request).await.unwrap().fd;
        self.write_fd(SOURCE, gfid, fd, 0, content).await.unwrap();
        let release = mortar_types::fop::Release { gfid, fd, xdata: None };
        self.fops(SOURCE).fop(&user(1000), release).await.unwrap();
        File { parent: Gfid::ROOT, name: name(file_name), gfid }
    }

    pub(crate) async fn write(&self, at: SubvolId, gfid: Gfid, offset: u64, data: &[u8]) -> Outcome<()> {
        self.write_fd(at, gfid, Fd::ANONYMOUS, offset, data).await
    }

    pub(crate) async fn write_fd(&self, at: SubvolId, gfid: Gfid, fd: Fd, offset: u64, data: &[u8]) -> Outcome<()> {
        if data.is_empty() {
            return Ok(());
        }
        let request = Write { gfid, fd, offset, flags: 0, data: Bytes::copy_from_slice(data), xdata: None };
        self.fops(at).fop(&user(1001), request).await.map(drop)
    }

    pub(crate) async fn lookup(&self, at: SubvolId, file_name: &str) -> Outcome<mortar_types::Iatt> {
        let request = Lookup { gfid: Gfid::NULL, parent: Gfid::ROOT, flags: 0, name: name(file_name), xdata: None };
        self.fops(at).fop(&Context::default(), request).await.map(|reply| reply.stat)
    }

    pub(crate) async fn migrate(&self, file: &File) -> Result<Moved, Error> {
        let migration = Migration { subvolumes: &self.subvolumes, file, source: SOURCE, target: TARGET };
        migrate_file(migration).await
    }
}

/// A process that ends: its bricks drop its locks.
impl Drop for Stack {
    fn drop(&mut self) {
        for connection in self.connections.iter().flatten() {
            connection.cut();
        }
    }
}
