//! Bricks as subvolumes, clients over them, and what tests ask of both.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use mortar_brick::locks::Locks;
use mortar_types::fop::*;
use mortar_types::{Context, Dict, Fd, Fop, Fops, Gfid, Iatt, Outcome, Statvfs, Value};
use mortar_volume::distribute::{Distribute, Options};

use crate::connection::{Connection, PretendedSpace, empty_brick, locks_over};

pub(crate) const VOLUME_ID: Gfid = Gfid([0x4e; 16]);

pub(crate) struct Brick {
    pub(crate) root: PathBuf,
    pub(crate) locks: Arc<Locks>,
    space: PretendedSpace,
    _dir: Option<tempfile::TempDir>,
}

impl Brick {
    pub(crate) fn new(at: usize) -> Self {
        let (dir, root) = empty_brick(VOLUME_ID);
        let brick = Self { _dir: Some(dir), ..Self::open(&root, at, VOLUME_ID) };
        // How full the machine is must not decide where files go.
        brick.pretend_free(50);
        brick
    }

    pub(crate) fn open(root: &Path, at: usize, volume_id: Gfid) -> Self {
        let locks = locks_over(root, at, volume_id);
        Self { root: root.to_owned(), locks, space: PretendedSpace::default(), _dir: None }
    }

    pub(crate) fn connect(&self, name: &str) -> Arc<Connection> {
        Connection::new(name, &self.locks, &self.space)
    }

    /// Says that so many percent are free.
    pub(crate) fn pretend_free(&self, percent: u64) {
        let statfs =
            Statvfs { bsize: 4096, frsize: 4096, blocks: 100_000, bavail: percent * 1000, ..Statvfs::default() };
        *self.space.lock() = Some(statfs);
    }

    pub(crate) fn mode(&self, path: &str) -> Option<u32> {
        use std::os::unix::fs::MetadataExt;
        self.root.join(path).symlink_metadata().ok().map(|meta| meta.mode() & 0o7777)
    }

    pub(crate) fn is_link_file(&self, path: &str) -> bool {
        self.mode(path) == Some(0o1000) && self.xattr(path, "trusted.glusterfs.dht.linkto").is_some()
    }

    pub(crate) fn xattr(&self, path: &str, name: &str) -> Option<Vec<u8>> {
        let mut value = vec![0; 256];
        let len = rustix::fs::lgetxattr(self.root.join(path), name, &mut value[..]).ok()?;
        value.truncate(len);
        Some(value)
    }

    pub(crate) fn set_xattr(&self, path: &str, name: &str, value: &[u8]) {
        rustix::fs::lsetxattr(self.root.join(path), name, value, rustix::fs::XattrFlags::empty()).unwrap();
    }
}

pub(crate) struct Volume {
    pub(crate) bricks: Vec<Brick>,
}

impl Volume {
    pub(crate) fn new(count: usize) -> Self {
        Self { bricks: (0..count).map(Brick::new).collect() }
    }

    pub(crate) fn client(&self) -> Client {
        self.client_with(Options::default())
    }

    pub(crate) fn client_with(&self, options: Options) -> Client {
        let connections: Vec<_> =
            self.bricks.iter().enumerate().map(|(at, brick)| brick.connect(&format!("v-client-{at}"))).collect();
        let subvolumes = connections.iter().map(|connection| Arc::clone(connection) as Arc<dyn Fops>).collect();
        let layer = Distribute::new("v-dht", subvolumes, options);
        Client { connections, fops: Arc::clone(&layer) as Arc<dyn Fops>, layer, ctx: Context::default() }
    }

    /// On which bricks a path is data, and on which a link file.
    pub(crate) fn where_is(&self, path: &str) -> (Vec<usize>, Vec<usize>) {
        let there = |at: &usize| self.bricks[*at].mode(path).is_some();
        (0..self.bricks.len()).filter(there).partition(|at| !self.bricks[*at].is_link_file(path))
    }

    /// Every name of a directory on any brick: data copies and link files.
    pub(crate) fn census(&self, dir: &str) -> BTreeMap<String, (usize, usize)> {
        let mut census = BTreeMap::new();
        for brick in &self.bricks {
            for entry in std::fs::read_dir(brick.root.join(dir)).unwrap() {
                let name = entry.unwrap().file_name().to_string_lossy().into_owned();
                if name == ".glusterfs" {
                    continue;
                }
                let path = if dir.is_empty() { name.clone() } else { format!("{dir}/{name}") };
                let slot: &mut (usize, usize) = census.entry(name).or_default();
                if brick.is_link_file(&path) { slot.1 += 1 } else { slot.0 += 1 }
            }
        }
        census
    }
}

pub(crate) struct Client {
    pub(crate) connections: Vec<Arc<Connection>>,
    pub(crate) layer: Arc<Distribute>,
    pub(crate) fops: Arc<dyn Fops>,
    pub(crate) ctx: Context,
}

impl Client {
    pub(crate) async fn fop<F: Fop>(&self, request: F) -> Outcome<F::Reply> {
        self.fops.fop(&self.ctx, request).await
    }

    pub(crate) fn clear_logs(&self) {
        self.connections.iter().for_each(|connection| drop(connection.take_log()));
    }

    /// The requests since the last time, without those that nobody waits for.
    pub(crate) fn logs(&self) -> Vec<Vec<&'static str>> {
        self.connections.iter().map(|connection| connection.take_log()).collect()
    }

    pub(crate) async fn create(&self, parent: Gfid, name: &str) -> Outcome<(Gfid, Fd)> {
        let reply = self.create_with(parent, name, 0o102).await?;
        Ok((reply.stat.gfid, reply.fd))
    }

    pub(crate) async fn create_with(&self, parent: Gfid, name: &str, flags: u32) -> Outcome<CreateReply> {
        let name = Bytes::from(name.to_owned());
        self.fop(Create { parent, flags, mode: 0o644, umask: 0, name, xdata: fresh() }).await
    }

    /// A closed file with its name as content.
    pub(crate) async fn put(&self, parent: Gfid, name: &str) -> Gfid {
        let (gfid, fd) = self.create(parent, name).await.unwrap();
        self.write((gfid, fd), 0, name).await.unwrap();
        self.release((gfid, fd)).await;
        gfid
    }

    pub(crate) async fn mkdir(&self, parent: Gfid, name: &str) -> Outcome<Gfid> {
        let name = Bytes::from(name.to_owned());
        Ok(self.fop(Mkdir { parent, mode: 0o755, umask: 0, name, xdata: fresh() }).await?.stat.gfid)
    }

    pub(crate) async fn write(&self, file: (Gfid, Fd), offset: u64, data: &str) -> Outcome<WriteReply> {
        let data = Bytes::from(data.to_owned());
        self.fop(Write { gfid: file.0, fd: file.1, offset, flags: 0, data, xdata: None }).await
    }

    pub(crate) async fn read(&self, file: (Gfid, Fd)) -> Outcome<String> {
        let read = Read { gfid: file.0, fd: file.1, offset: 0, size: 1 << 20, flags: 0, xdata: None };
        Ok(String::from_utf8_lossy(&self.fop(read).await?.data).into_owned())
    }

    pub(crate) async fn content(&self, parent: Gfid, name: &str) -> Outcome<String> {
        let gfid = self.lookup(parent, name).await?.stat.gfid;
        self.read((gfid, Fd::ANONYMOUS)).await
    }

    pub(crate) async fn lookup(&self, parent: Gfid, name: &str) -> Outcome<LookupReply> {
        let name = Bytes::from(name.to_owned());
        self.fop(Lookup { gfid: Gfid::NULL, parent, flags: 0, name, xdata: fresh() }).await
    }

    pub(crate) async fn unlink(&self, parent: Gfid, name: &str) -> Outcome<ChangeReply> {
        self.fop(Unlink { parent, name: Bytes::from(name.to_owned()), flags: 0, xdata: None }).await
    }

    pub(crate) async fn rmdir(&self, parent: Gfid, name: &str) -> Outcome<ChangeReply> {
        self.fop(Rmdir { parent, flags: 0, name: Bytes::from(name.to_owned()), xdata: None }).await
    }

    pub(crate) async fn rename(&self, old: (Gfid, &str), new: (Gfid, &str)) -> Outcome<RenameReply> {
        let (old_name, new_name) = (Bytes::from(old.1.to_owned()), Bytes::from(new.1.to_owned()));
        self.fop(Rename { old_parent: old.0, new_parent: new.0, old_name, new_name, xdata: None }).await
    }

    pub(crate) async fn link(&self, gfid: Gfid, new_parent: Gfid, name: &str) -> Outcome<EntryReply> {
        self.fop(Link { gfid, new_parent, new_name: Bytes::from(name.to_owned()), xdata: None }).await
    }

    pub(crate) async fn open(&self, gfid: Gfid) -> Outcome<Fd> {
        Ok(self.fop(Open { gfid, flags: 2, xdata: None }).await?.fd)
    }

    pub(crate) async fn release(&self, file: (Gfid, Fd)) {
        self.fop(Release { gfid: file.0, fd: file.1, xdata: None }).await.unwrap();
    }

    pub(crate) async fn chmod(&self, gfid: Gfid, mode: u32) -> Outcome<ChangeReply> {
        let stat = Iatt { mode, ..Iatt::default() };
        self.fop(Setattr { gfid, stat, valid: setattr_valid::MODE, xdata: None }).await
    }

    pub(crate) async fn setxattr(&self, gfid: Gfid, key: &'static str, value: &str) -> Outcome<AckReply> {
        let dict = Some(Dict::new().with(key, Value::ptr(value.as_bytes().to_vec())));
        self.fop(Setxattr { gfid, flags: 0, dict, xdata: None }).await
    }

    /// Names of a listing in small pages, sorted; with repetitions.
    pub(crate) async fn list(&self, gfid: Gfid) -> Vec<String> {
        let fd = self.fop(Opendir { gfid, xdata: None }).await.unwrap().fd;
        let names = self.list_from(gfid, fd, 0).await;
        self.fop(Releasedir { gfid, fd, xdata: None }).await.unwrap();
        names
    }

    pub(crate) async fn list_from(&self, gfid: Gfid, fd: Fd, mut offset: u64) -> Vec<String> {
        let mut names = Vec::new();
        loop {
            let page = self.fop(Readdirp { gfid, fd, offset, size: 1000, xdata: None }).await.unwrap();
            for entry in &page.entries {
                assert!(!entry.xdata.iter().flat_map(Dict::keys).any(|key| key.contains("dht")));
                offset = entry.entry.offset;
                if !matches!(&entry.entry.name[..], b"." | b"..") {
                    names.push(String::from_utf8_lossy(&entry.entry.name).into_owned());
                }
            }
            if page.eof || page.entries.is_empty() {
                names.sort();
                return names;
            }
        }
    }
}

fn fresh() -> Option<Dict> {
    Some(Dict::new().with(mortar_types::keys::GFID_REQ, Value::Gfid(Gfid::random())))
}

/// `count` names that spread.
pub(crate) fn many(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("file-{at:04}")).collect()
}
