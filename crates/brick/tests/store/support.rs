//! A brick for one test, and the words to talk to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mortar_brick::store::{Store, StoreOptions, initialise};
use mortar_types::fop::{
    Create, CreateReply, Fsync, Getxattr, Link, Lookup, LookupReply, Mkdir, Open, Opendir, Read, Readdirp, Release,
    Rename, Rmdir, Setxattr, Stat, Symlink, Unlink, Write,
};
use mortar_types::keys::GFID_REQ;
use mortar_types::{Context, Dict, Errno, Failure, Fd, Fop, Fops, Gfid, Iatt, TimeFlags, Timespec, Value};

pub(crate) const VOLUME: Gfid = Gfid(*b"a volume's 16 id");

static SERIAL: AtomicU64 = AtomicU64::new(0);

/// A directory that goes with the test.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("mortar-store-test-{}-{serial}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("the temporary directory is writable");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A store over a scratch directory. The clock of its callers advances by one second a fop.
pub(crate) struct Brick {
    pub(crate) scratch: Scratch,
    pub(crate) store: Arc<dyn Fops>,
    runtime: tokio::runtime::Runtime,
    clock: AtomicU64,
}

pub(crate) const EPOCH: i64 = 1_700_000_000;

/// Options without background work.
pub(crate) fn options(root: &Path) -> StoreOptions {
    StoreOptions {
        health_check_interval: std::time::Duration::ZERO,
        landfill_purge_interval: None,
        reserve: mortar_brick::store::Reserve::Percent(0.0),
        hostname: "host".to_owned(),
        ..StoreOptions::new(root, VOLUME)
    }
}

impl Brick {
    /// `None`, with the reason printed, where no brick can be.
    pub(crate) fn new() -> Option<Self> {
        let scratch = Scratch::new();
        if let Err(errno) = initialise(&scratch.0, VOLUME) {
            mortar_testkit::needs::skip(&format!("no trusted xattrs in {}: {errno}", scratch.0.display()));
            return None;
        }
        Some(Self::over(scratch, options))
    }

    pub(crate) fn over(scratch: Scratch, options: impl FnOnce(&Path) -> StoreOptions) -> Self {
        let store = Store::open(options(&scratch.0)).expect("the brick opens");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        Self { scratch, store, runtime, clock: AtomicU64::new(0) }
    }

    /// Closes the store and opens it again.
    pub(crate) fn reopened(self) -> Self {
        self.reopened_with(|_| {})
    }

    /// As [`Self::reopened`], with the disk changed in between, as a crash or an administrator does.
    pub(crate) fn reopened_with(self, change: impl FnOnce(&Path)) -> Self {
        let Self { scratch, store, .. } = self;
        drop(store);
        change(&scratch.0);
        Self::over(scratch, options)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.scratch.0
    }

    /// Root, with the clock of a FUSE client and the time flags of a creation.
    pub(crate) fn ctx(&self) -> Context {
        self.ctx_with(TimeFlags(0x1f))
    }

    pub(crate) fn ctx_with(&self, time_flags: TimeFlags) -> Context {
        let tick = self.clock.fetch_add(1, Ordering::Relaxed);
        let time = Some(Timespec::new(EPOCH + i64::try_from(tick).expect("small"), 7));
        Context { time, time_flags, ..Context::default() }
    }

    pub(crate) fn call_as<F: Fop>(&self, ctx: &Context, request: F) -> Result<F::Reply, Failure> {
        self.runtime.block_on(self.store.fop(ctx, request))
    }

    pub(crate) fn call<F: Fop>(&self, request: F) -> Result<F::Reply, Errno> {
        self.call_as(&self.ctx(), request).map_err(|failure| failure.errno)
    }

    pub(crate) fn mkdir(&self, parent: Gfid, name: &str) -> Result<Gfid, Errno> {
        let gfid = Gfid::random();
        self.call(Mkdir { parent, mode: 0o755, umask: 0, name: bytes(name), xdata: gfid_req(gfid) }).map(|_| gfid)
    }

    pub(crate) fn create_open(&self, parent: Gfid, name: &str) -> Result<(Gfid, CreateReply), Errno> {
        let gfid = Gfid::random();
        let request =
            Create { parent, flags: 0o302, mode: 0o100_644, umask: 0, name: bytes(name), xdata: gfid_req(gfid) };
        self.call(request).map(|reply| (gfid, reply))
    }

    pub(crate) fn create(&self, parent: Gfid, name: &str, data: &[u8]) -> Result<Gfid, Errno> {
        let (gfid, reply) = self.create_open(parent, name)?;
        self.write(gfid, reply.fd, 0, data)?;
        self.release(gfid, reply.fd);
        Ok(gfid)
    }

    pub(crate) fn symlink(&self, parent: Gfid, name: &str, target: &str) -> Result<Gfid, Errno> {
        let gfid = Gfid::random();
        let request = Symlink { parent, name: bytes(name), umask: 0, target: bytes(target), xdata: gfid_req(gfid) };
        self.call(request).map(|_| gfid)
    }

    pub(crate) fn link(&self, gfid: Gfid, new_parent: Gfid, name: &str) -> Result<Iatt, Errno> {
        self.call(Link { gfid, new_parent, new_name: bytes(name), xdata: None }).map(|reply| reply.stat)
    }

    pub(crate) fn unlink(&self, parent: Gfid, name: &str) -> Result<(), Errno> {
        self.call(Unlink { parent, name: bytes(name), flags: 0, xdata: None }).map(drop)
    }

    pub(crate) fn rmdir(&self, parent: Gfid, name: &str) -> Result<(), Errno> {
        self.call(Rmdir { parent, flags: 0, name: bytes(name), xdata: None }).map(drop)
    }

    pub(crate) fn rename(&self, old: (Gfid, &str), new: (Gfid, &str)) -> Result<(), Errno> {
        let request = Rename {
            old_parent: old.0,
            new_parent: new.0,
            old_name: bytes(old.1),
            new_name: bytes(new.1),
            xdata: None,
        };
        self.call(request).map(drop)
    }

    pub(crate) fn lookup(&self, parent: Gfid, name: &str) -> Result<Iatt, Errno> {
        self.lookup_with(parent, name, None).map(|reply| reply.stat)
    }

    pub(crate) fn lookup_with(&self, parent: Gfid, name: &str, xdata: Option<Dict>) -> Result<LookupReply, Errno> {
        self.call(Lookup { gfid: Gfid::NULL, parent, flags: 0, name: bytes(name), xdata })
    }

    pub(crate) fn lookup_gfid(&self, gfid: Gfid) -> Result<Iatt, Errno> {
        let request = Lookup { gfid, parent: Gfid::NULL, flags: 0, name: bytes(""), xdata: None };
        self.call(request).map(|reply| reply.stat)
    }

    pub(crate) fn stat(&self, gfid: Gfid) -> Result<Iatt, Errno> {
        self.call(Stat { gfid, xdata: None }).map(|reply| reply.stat)
    }

    pub(crate) fn open(&self, gfid: Gfid, flags: u32) -> Result<Fd, Errno> {
        self.call(Open { gfid, flags, xdata: None }).map(|reply| reply.fd)
    }

    pub(crate) fn release(&self, gfid: Gfid, fd: Fd) {
        self.call(Release { gfid, fd, xdata: None }).expect("a release always succeeds");
    }

    pub(crate) fn write(&self, gfid: Gfid, fd: Fd, offset: u64, data: &[u8]) -> Result<Iatt, Errno> {
        let data = bytes::Bytes::copy_from_slice(data);
        let reply = self.call(Write { gfid, fd, offset, flags: 0, data, xdata: None })?;
        Ok(reply.post)
    }

    pub(crate) fn fsync(&self, gfid: Gfid, fd: Fd) -> Result<(), Errno> {
        self.call(Fsync { gfid, fd, datasync: 0, xdata: None }).map(drop)
    }

    /// All of a file through the anonymous fd.
    pub(crate) fn read_all(&self, gfid: Gfid) -> Result<Vec<u8>, Errno> {
        self.read(gfid, Fd::ANONYMOUS, 0, 8 * 1024 * 1024)
    }

    pub(crate) fn read(&self, gfid: Gfid, fd: Fd, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        let reply = self.call(Read { gfid, fd, offset, size, flags: 0, xdata: None })?;
        Ok(reply.data.to_vec())
    }

    pub(crate) fn setxattr(&self, gfid: Gfid, key: &str, value: &[u8]) -> Result<(), Errno> {
        let dict = Some(Dict::new().with(key.to_owned(), Value::ptr(value.to_vec())));
        self.call(Setxattr { gfid, flags: 0, dict, xdata: None }).map(drop)
    }

    pub(crate) fn getxattr(&self, gfid: Gfid, key: &str) -> Result<Vec<u8>, Errno> {
        let reply = self.call(Getxattr { gfid, name: Some(bytes(key)), xdata: None })?;
        let dict = reply.dict.expect("a value comes in a dict");
        Ok(dict.get_bytes(key).expect("under its name").to_vec())
    }

    /// Names and attributes of a directory, without `.` and `..`, listed `size` bytes at a time.
    pub(crate) fn list(&self, gfid: Gfid, size: u32) -> Result<Vec<(String, Iatt)>, Errno> {
        let fd = self.call(Opendir { gfid, xdata: None })?.fd;
        let (mut found, mut offset) = (Vec::new(), 0);
        loop {
            let reply = self.call(Readdirp { gfid, fd, offset, size, xdata: None })?;
            for entry in &reply.entries {
                offset = entry.entry.offset;
                let name = String::from_utf8_lossy(&entry.entry.name).into_owned();
                if name != "." && name != ".." {
                    found.push((name, entry.stat));
                }
            }
            if reply.eof || reply.entries.is_empty() {
                break;
            }
        }
        self.call(mortar_types::fop::Releasedir { gfid, fd, xdata: None })?;
        found.sort_by(|one, two| one.0.cmp(&two.0));
        Ok(found)
    }

    pub(crate) fn names(&self, gfid: Gfid) -> Vec<String> {
        self.list(gfid, 128 * 1024).expect("it lists").into_iter().map(|(name, _)| name).collect()
    }

    /// Where a gfid's handle is on disk.
    pub(crate) fn handle(&self, gfid: Gfid) -> PathBuf {
        let text = gfid.to_string();
        self.root().join(".glusterfs").join(&text[..2]).join(&text[2..4]).join(text)
    }
}

pub(crate) fn bytes(text: &str) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn gfid_req(gfid: Gfid) -> Option<Dict> {
    Some(Dict::new().with(GFID_REQ, Value::Gfid(gfid)))
}

/// All xattrs of a path, not followed.
pub(crate) fn xattrs_on_disk(path: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut names = vec![0_u8; 65_536];
    let len = rustix::fs::llistxattr(path, &mut names[..]).expect("it lists");
    let mut found = std::collections::BTreeMap::new();
    for name in names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0_u8; 65_536];
        let len = rustix::fs::lgetxattr(path, name, &mut value[..]).expect("it is there");
        found.insert(String::from_utf8_lossy(name).into_owned(), value[..len].to_vec());
    }
    found
}
