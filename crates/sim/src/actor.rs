//! An application: random operations on a few names, each noted in the history.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mortar_types::fop::{
    Create, Fsync, Link, Lookup, Mkdir, Open, Opendir, Read, Readdirp, Release, Releasedir, Rename, Rmdir, Setattr,
    Setxattr, Truncate, Unlink, Write, setattr_valid,
};
use mortar_types::{Context, Dict, Errno, Fd, Fops, Gfid, Iatt, Outcome, Pid, Timespec, Value as Xvalue, keys};
use parking_lot::Mutex;

use crate::disk::BLOCK_BYTES;
use crate::history::{Begun, History, Register, Value};
use crate::net::Net;
use crate::rng::Rng;
use crate::trace::Trace;

pub const BLOCKS: u64 = 4;
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// Second links get names of their own, so that a rename never meets another link of its inode, which POSIX makes a no-op.
const LINK_NAMES: [&str; 2] = ["l0", "l1"];
const DIR_NAMES: [&str; 2] = ["x", "y"];
/// Files that an actor keeps open.
const FDS_MAX: usize = 3;
const O_CREAT_EXCL_RDWR: u32 = 0o302;
const O_RDWR: u32 = 2;
const O_DSYNC: u32 = 0o10000;

/// What the actors of all clients share.
#[derive(Clone)]
pub struct Stage {
    pub net: Net,
    pub history: History,
    pub trace: Trace,
    /// Operations that took longest: ms, and which.
    pub slowest: Arc<Mutex<(u64, String)>>,
    /// From this moment on (ms) operations have a bound.
    pub bounded_from: Arc<Mutex<Option<u64>>>,
}

pub struct Actor {
    pub name: String,
    pub fops: Arc<dyn Fops>,
    pub rng: Rng,
    pub stage: Stage,
    pub clock_skew: i64,
    /// Works on one file's contents only.
    pub contended: bool,
    dirs: Vec<Gfid>,
    files: Vec<Gfid>,
    open: Vec<(Gfid, Fd)>,
    number: u64,
}

impl Actor {
    pub fn new(name: String, fops: Arc<dyn Fops>, rng: Rng, stage: Stage, number: u64) -> Self {
        let (dirs, files, open) = (vec![Gfid::ROOT], Vec::new(), Vec::new());
        Self { name, fops, rng, stage, clock_skew: 0, contended: false, dirs, files, open, number: number << 32 }
    }

    /// Performs `count` operations with pauses of up to `pause_ms`, then closes its files.
    pub async fn run(mut self, count: usize, pause_ms: u64) {
        for _ in 0..count {
            let pause = self.rng.below(pause_ms.max(1));
            if pause > 0 {
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            let began = self.stage.net.now_ms();
            let what = self.step().await;
            let took = self.stage.net.now_ms() - began;
            if self.stage.bounded_from.lock().is_some_and(|from| began >= from) {
                let mut slowest = self.stage.slowest.lock();
                if took > slowest.0 {
                    *slowest = (took, format!("{} {what} at {began} ms", self.name));
                }
            }
        }
        for (gfid, fd) in std::mem::take(&mut self.open) {
            self.release(gfid, fd).await;
        }
    }

    async fn step(&mut self) -> &'static str {
        if self.contended {
            return self.contended_step().await;
        }
        match self.rng.below(100) {
            0..14 => self.create().await,
            14..22 => self.lookup().await,
            22..48 => self.write().await,
            48..54 => self.fsync().await,
            54..66 => self.read().await,
            66..74 => self.rename().await,
            74..80 => self.unlink().await,
            80..83 => self.link().await,
            83..87 => self.mkdir().await,
            87..89 => self.rmdir().await,
            89..92 => self.setattr().await,
            92..94 => self.setxattr().await,
            94..96 => self.truncate().await,
            96..98 => self.list().await,
            _ => self.close_one().await,
        }
    }

    async fn contended_step(&mut self) -> &'static str {
        if self.open.is_empty() {
            let name = Bytes::from_static(b"a");
            let Some(stat) = self.look_up(Gfid::ROOT, name.clone()).await else { return "lookup" };
            let open = Open { gfid: stat.gfid, flags: O_RDWR, xdata: None };
            if let Ok(reply) = self.fops.fop(&self.ctx(), open).await {
                self.open.push((stat.gfid, reply.fd));
            }
            return "open";
        }
        match self.rng.below(10) {
            0..6 => self.write().await,
            6..9 => self.read().await,
            _ => self.fsync().await,
        }
    }

    /// Makes the one file of a contended run.
    pub async fn make_shared_file(&mut self) {
        let (parent, name, gfid) = (Gfid::ROOT, Bytes::from_static(b"a"), self.rng.gfid());
        let writes = vec![(Register::Name(parent, name.clone()), Value::Inode(gfid))];
        let begun = self.begin(|| format!("create the shared file {gfid}"), writes);
        let xdata = Some(Dict::new().with(keys::GFID_REQ, Xvalue::Gfid(gfid)));
        let create = Create { parent, flags: O_CREAT_EXCL_RDWR, mode: 0o644, umask: 0, name, xdata };
        let outcome = self.fops.fop(&self.ctx(), create).await;
        if self.end(begun, &outcome, |_| None)
            && let Ok(reply) = outcome
        {
            self.open.push((gfid, reply.fd));
        }
    }

    fn ctx(&self) -> Context {
        let seconds = 1_000_000 + i64::try_from(self.stage.net.now_ms() / 1000).unwrap_or(0) + self.clock_skew;
        let nsec = u32::try_from(self.stage.net.now_ms() % 1000 * 1_000_000).unwrap_or(0);
        Context { pid: Pid(1000), time: Some(Timespec::new(seconds, nsec)), ..Context::default() }
    }

    fn dir(&mut self) -> Gfid {
        self.rng.pick(&self.dirs).copied().unwrap_or(Gfid::ROOT)
    }

    fn name_of(&mut self, names: &[&'static str]) -> Bytes {
        Bytes::from_static(names[self.rng.index(names.len())].as_bytes())
    }

    fn begin(&self, text: impl FnOnce() -> String, writes: Vec<(Register, Value)>) -> Begun {
        self.stage
            .trace
            .step(&[30, writes.len() as u64], || format!("{:>7} {}: {}", self.stage.net.now_ms(), self.name, text()));
        self.stage.history.begin(&self.name, writes)
    }

    /// Notes how a change ended; whether it was acknowledged.
    fn end<T>(&self, begun: Begun, outcome: &Outcome<T>, known: impl FnOnce(&T) -> Option<Value>) -> bool {
        let errno = outcome.as_ref().err().map(|failure| failure.errno);
        let fact = errno.map_or(0, |errno| u64::from(errno.0.unsigned_abs()));
        self.stage.trace.step(&[31, fact], || format!("{:>7} {}: ends {errno:?}", self.stage.net.now_ms(), self.name));
        match outcome {
            Ok(reply) => {
                self.stage.history.acknowledge(begun, known(reply));
                true
            }
            Err(failure) if is_refusal(failure.errno) => {
                self.stage.history.refuse(begun);
                false
            }
            Err(_) => false,
        }
    }

    fn know_file(&mut self, gfid: Gfid) {
        if !self.files.contains(&gfid) {
            self.files.push(gfid);
        }
    }

    async fn create(&mut self) -> &'static str {
        let (parent, name, gfid) = (self.dir(), self.name_of(&NAMES), self.rng.gfid());
        let begun = self.begin(
            || format!("create {parent}/{name:?} as {gfid}"),
            vec![(Register::Name(parent, name.clone()), Value::Inode(gfid))],
        );
        let request = Create {
            parent,
            flags: O_CREAT_EXCL_RDWR,
            mode: 0o644,
            umask: 0,
            name,
            xdata: Some(Dict::new().with(keys::GFID_REQ, Xvalue::Gfid(gfid))),
        };
        let outcome = self.fops.fop(&self.ctx(), request).await;
        self.end(begun, &outcome, |_| None);
        if let Ok(reply) = outcome {
            self.know_file(gfid);
            self.keep_open(gfid, reply.fd).await;
        }
        "create"
    }

    async fn keep_open(&mut self, gfid: Gfid, fd: Fd) {
        self.open.push((gfid, fd));
        if self.open.len() > FDS_MAX {
            let (gfid, fd) = self.open.remove(0);
            self.release(gfid, fd).await;
        }
    }

    async fn release(&self, gfid: Gfid, fd: Fd) {
        // Closing cannot fail in a way that an application sees.
        drop(self.fops.fop(&self.ctx(), Release { gfid, fd, xdata: None }).await);
    }

    async fn close_one(&mut self) -> &'static str {
        if !self.open.is_empty() {
            let (gfid, fd) = self.open.remove(0);
            self.release(gfid, fd).await;
        }
        "close"
    }

    async fn look_up(&mut self, parent: Gfid, name: Bytes) -> Option<Iatt> {
        let began = self.stage.history.tick();
        let request = Lookup { gfid: Gfid::NULL, parent, flags: 0, name: name.clone(), xdata: None };
        let outcome = self.fops.fop(&self.ctx(), request).await;
        let value = match &outcome {
            Ok(reply) => Value::Inode(reply.stat.gfid),
            Err(failure) if failure.errno == Errno::ENOENT => Value::Absent,
            Err(_) => return None,
        };
        self.stage.trace.step(&[32], || {
            format!("{:>7} {}: lookup {parent}/{name:?} is {value:?}", self.stage.net.now_ms(), self.name)
        });
        self.stage.history.read(&self.name, Register::Name(parent, name), value, began);
        outcome.ok().map(|reply| reply.stat)
    }

    async fn lookup(&mut self) -> &'static str {
        let parent = self.dir();
        let name = match self.rng.below(10) {
            0..5 => self.name_of(&NAMES),
            5..7 => self.name_of(&LINK_NAMES),
            _ => self.name_of(&DIR_NAMES),
        };
        let Some(stat) = self.look_up(parent, name).await else { return "lookup" };
        if stat.is_dir() {
            if !self.dirs.contains(&stat.gfid) {
                self.dirs.push(stat.gfid);
            }
        } else {
            self.know_file(stat.gfid);
            if self.rng.chance(50) {
                let open = Open { gfid: stat.gfid, flags: O_RDWR, xdata: None };
                if let Ok(reply) = self.fops.fop(&self.ctx(), open).await {
                    self.keep_open(stat.gfid, reply.fd).await;
                }
            }
        }
        "lookup"
    }

    async fn write(&mut self) -> &'static str {
        let Some((gfid, fd)) = self.rng.pick(&self.open).copied() else { return self.lookup().await };
        let first = self.rng.below(BLOCKS);
        let count = if first + 1 < BLOCKS && self.rng.chance(25) { 2 } else { 1 };
        let (mut data, mut writes) = (Vec::new(), Vec::new());
        for block in first..first + count {
            self.number += 1;
            data.extend_from_slice(&self.number.to_le_bytes());
            writes.push((Register::Block(gfid, block), Value::Number(self.number)));
        }
        let flags = if self.rng.chance(10) { O_DSYNC } else { 0 };
        let begun = self.begin(|| format!("write {gfid} {writes:?}"), writes.clone());
        let offset = first * BLOCK_BYTES as u64;
        let request = Write { gfid, fd, offset, flags, data: data.into(), xdata: None };
        let outcome = self.fops.fop(&self.ctx(), request).await;
        self.end(begun, &outcome, |_| None);
        "write"
    }

    async fn fsync(&mut self) -> &'static str {
        let Some((gfid, fd)) = self.rng.pick(&self.open).copied() else { return "fsync" };
        drop(self.fops.fop(&self.ctx(), Fsync { gfid, fd, datasync: 0, xdata: None }).await);
        "fsync"
    }

    async fn read(&mut self) -> &'static str {
        let Some((gfid, fd)) = self.rng.pick(&self.open).copied() else { return "read" };
        let began = self.stage.history.tick();
        let size = (BLOCKS * BLOCK_BYTES as u64) as u32;
        let outcome = self.fops.fop(&self.ctx(), Read { gfid, fd, offset: 0, size, flags: 0, xdata: None }).await;
        if let Ok(reply) = outcome {
            self.stage.trace.step(&[33, reply.data.len() as u64], || {
                format!("{:>7} {}: read {gfid} {:?}", self.stage.net.now_ms(), self.name, numbers(&reply.data))
            });
            for (block, number) in (0..).zip(numbers(&reply.data)) {
                let register = Register::Block(gfid, block);
                self.stage.history.read(&self.name, register, Value::Number(number), began);
            }
        }
        "read"
    }

    async fn rename(&mut self) -> &'static str {
        let (old_parent, new_parent) = (self.dir(), self.dir());
        let (old_name, new_name) = (self.name_of(&NAMES), self.name_of(&NAMES));
        if (old_parent, &old_name) == (new_parent, &new_name) {
            return "rename";
        }
        let begun = self.begin(
            || format!("rename {old_parent}/{old_name:?} to {new_parent}/{new_name:?}"),
            vec![
                (Register::Name(old_parent, old_name.clone()), Value::Absent),
                (Register::Name(new_parent, new_name.clone()), Value::AnyInode),
            ],
        );
        let request = Rename { old_parent, new_parent, old_name, new_name, xdata: None };
        let outcome = self.fops.fop(&self.ctx(), request).await;
        self.end(begun, &outcome, |reply| Some(Value::Inode(reply.stat.gfid)));
        "rename"
    }

    async fn unlink(&mut self) -> &'static str {
        let parent = self.dir();
        let name = if self.rng.chance(70) { self.name_of(&NAMES) } else { self.name_of(&LINK_NAMES) };
        let writes = vec![(Register::Name(parent, name.clone()), Value::Absent)];
        let begun = self.begin(|| format!("unlink {parent}/{name:?}"), writes);
        let outcome = self.fops.fop(&self.ctx(), Unlink { parent, name, flags: 0, xdata: None }).await;
        self.end(begun, &outcome, |_| None);
        "unlink"
    }

    async fn link(&mut self) -> &'static str {
        let Some(gfid) = self.rng.pick(&self.files).copied() else { return "link" };
        let (new_parent, new_name) = (self.dir(), self.name_of(&LINK_NAMES));
        let writes = vec![(Register::Name(new_parent, new_name.clone()), Value::Inode(gfid))];
        let begun = self.begin(|| format!("link {gfid} to {new_parent}/{new_name:?}"), writes);
        let outcome = self.fops.fop(&self.ctx(), Link { gfid, new_parent, new_name, xdata: None }).await;
        self.end(begun, &outcome, |_| None);
        "link"
    }

    async fn mkdir(&mut self) -> &'static str {
        let (parent, name, gfid) = (self.dir(), self.name_of(&DIR_NAMES), self.rng.gfid());
        let writes = vec![(Register::Name(parent, name.clone()), Value::Inode(gfid))];
        let begun = self.begin(|| format!("mkdir {parent}/{name:?} as {gfid}"), writes);
        let xdata = Some(Dict::new().with(keys::GFID_REQ, Xvalue::Gfid(gfid)));
        let outcome = self.fops.fop(&self.ctx(), Mkdir { parent, mode: 0o755, umask: 0, name, xdata }).await;
        if self.end(begun, &outcome, |_| None) {
            self.dirs.push(gfid);
        }
        "mkdir"
    }

    async fn rmdir(&mut self) -> &'static str {
        let (parent, name) = (self.dir(), self.name_of(&DIR_NAMES));
        let writes = vec![(Register::Name(parent, name.clone()), Value::Absent)];
        let begun = self.begin(|| format!("rmdir {parent}/{name:?}"), writes);
        let outcome = self.fops.fop(&self.ctx(), Rmdir { parent, flags: 0, name, xdata: None }).await;
        self.end(begun, &outcome, |_| None);
        "rmdir"
    }

    async fn setattr(&mut self) -> &'static str {
        let Some(gfid) = self.rng.pick(&self.files).copied() else { return "setattr" };
        self.number += 1;
        let mode = 0o400 | (self.number as u32 & 0o377);
        let begun =
            self.begin(|| format!("chmod {gfid} {mode:o}"), vec![(Register::Mode(gfid), Value::Number(mode.into()))]);
        let stat = Iatt { mode, ..Iatt::default() };
        let request = Setattr { gfid, stat, valid: setattr_valid::MODE, xdata: None };
        let outcome = self.fops.fop(&self.ctx(), request).await;
        self.end(begun, &outcome, |_| None);
        "setattr"
    }

    async fn setxattr(&mut self) -> &'static str {
        let Some(gfid) = self.rng.pick(&self.files).copied() else { return "setxattr" };
        self.number += 1;
        let number = self.number;
        let begun =
            self.begin(|| format!("setxattr {gfid} {number}"), vec![(Register::Xattr(gfid), Value::Number(number))]);
        let dict = Some(Dict::new().with("user.k", Xvalue::ptr(number.to_le_bytes().to_vec())));
        let outcome = self.fops.fop(&self.ctx(), Setxattr { gfid, flags: 0, dict, xdata: None }).await;
        self.end(begun, &outcome, |_| None);
        "setxattr"
    }

    async fn truncate(&mut self) -> &'static str {
        let Some(gfid) = self.rng.pick(&self.files).copied() else { return "truncate" };
        let left = self.rng.below(BLOCKS);
        let writes = (left..BLOCKS).map(|block| (Register::Block(gfid, block), Value::Number(0))).collect();
        let begun = self.begin(|| format!("truncate {gfid} to {left} blocks"), writes);
        let request = Truncate { gfid, offset: left * BLOCK_BYTES as u64, xdata: None };
        let outcome = self.fops.fop(&self.ctx(), request).await;
        self.end(begun, &outcome, |_| None);
        "truncate"
    }

    async fn list(&mut self) -> &'static str {
        let gfid = self.dir();
        let Ok(reply) = self.fops.fop(&self.ctx(), Opendir { gfid, xdata: None }).await else { return "list" };
        let fd = reply.fd;
        let began = self.stage.history.tick();
        let request = Readdirp { gfid, fd, offset: 0, size: 65_536, xdata: None };
        if let Ok(reply) = self.fops.fop(&self.ctx(), request).await {
            let mut names: Vec<Bytes> = reply.entries.iter().map(|entry| entry.entry.name.clone()).collect();
            names.sort();
            let count = names.len();
            names.dedup();
            if names.len() != count {
                self.stage.history.read(
                    "a listing with a name twice",
                    Register::Mode(Gfid::ROOT),
                    Value::Absent,
                    began,
                );
            }
            for entry in reply.entries.iter().filter(|entry| !entry.stat.gfid.is_null()) {
                let register = Register::Name(gfid, entry.entry.name.clone());
                self.stage.history.read(&self.name, register, Value::Inode(entry.stat.gfid), began);
            }
        }
        drop(self.fops.fop(&self.ctx(), Releasedir { gfid, fd, xdata: None }).await);
        "list"
    }
}

/// The blocks of a file's contents; what is not there is 0.
pub fn numbers(data: &[u8]) -> Vec<u64> {
    let block = |at: u64| {
        let start = at as usize * BLOCK_BYTES;
        let bytes = data.get(start..start + BLOCK_BYTES).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    };
    (0..BLOCKS).map(block).collect()
}

/// Errors that mean: nothing was done, and nothing will be.
const fn is_refusal(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EEXIST
            | Errno::ENOENT
            | Errno::ENOTDIR
            | Errno::EISDIR
            | Errno::ENOTEMPTY
            | Errno::EINVAL
            | Errno::EPERM
    )
}
