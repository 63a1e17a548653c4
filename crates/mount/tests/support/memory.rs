//! A volume in memory: enough of the fops for the adapter's tests, and nothing between them and their effects. Open files
//! keep their inode alive, posix locks wait, and the last fops are recorded so that tests can count round trips.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use mortar_types::fop::*;
use mortar_types::{
    Context, Dict, Errno, Failure, Fd, FopKind, Fops, Gfid, Iatt, LkOwner, Outcome, Reply, Request, Statvfs, Timespec,
    Upcall, UpcallSink, Value, keys,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

#[derive(Clone, Debug)]
struct Inode {
    stat: Iatt,
    data: Vec<u8>,
    target: Bytes,
    entries: BTreeMap<Bytes, Gfid>,
    xattrs: BTreeMap<String, Bytes>,
    locks: Vec<(LkOwner, u64, u64, LockType)>,
    opens: u32,
}

#[derive(Default)]
struct State {
    inodes: HashMap<Gfid, Inode>,
    fds: HashMap<i64, (Gfid, u32)>,
    next_fd: i64,
    calls: Vec<FopKind>,
    sink: Option<Arc<dyn UpcallSink>>,
}

#[derive(Default)]
pub(crate) struct Memory {
    state: Mutex<State>,
    unlocked: Notify,
}

fn now() -> Timespec {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timespec::new(since.as_secs() as i64, since.subsec_nanos())
}

fn fail<T>(errno: Errno) -> Outcome<T> {
    Err(errno.into())
}

impl Memory {
    pub(crate) fn new() -> Arc<Self> {
        let memory = Self::default();
        memory.state.lock().add(&Context::default(), Gfid::ROOT, 0o040_755);
        Arc::new(memory)
    }

    /// How often a fop was called since the last look.
    pub(crate) fn take_calls(&self) -> Vec<FopKind> {
        std::mem::take(&mut self.state.lock().calls)
    }

    pub(crate) fn upcall(&self, upcall: Upcall) {
        let sink = self.state.lock().sink.clone();
        sink.expect("the mount subscribed").upcall(upcall);
    }

    pub(crate) fn child_of_root(&self, name: &'static str) -> Gfid {
        self.state.lock().child(Gfid::ROOT, &Bytes::from(name)).unwrap()
    }

    /// Makes a file in the root as another client would.
    pub(crate) fn make_file(&self, name: &str, data: &[u8]) {
        let (ctx, name) = (Context::default(), Bytes::copy_from_slice(name.as_bytes()));
        let identity = Some(Dict::new().with(keys::GFID_REQ, Value::Gfid(Gfid::random())));
        let stat = self.state.lock().make(&ctx, Gfid::ROOT, name, 0o100_644, identity).unwrap();
        self.overwrite(stat.gfid, data);
    }

    /// Gives a file in the root a second name there.
    pub(crate) fn make_link(&self, name: &str, second: &str) {
        let mut state = self.state.lock();
        let gfid = state.child(Gfid::ROOT, &Bytes::copy_from_slice(name.as_bytes())).unwrap();
        state.inode(Gfid::ROOT).unwrap().entries.insert(Bytes::copy_from_slice(second.as_bytes()), gfid);
        state.inode(gfid).unwrap().stat.nlink += 1;
    }

    /// Changes a file as another client would.
    pub(crate) fn overwrite(&self, gfid: Gfid, data: &[u8]) {
        let mut state = self.state.lock();
        let inode = state.inodes.get_mut(&gfid).unwrap();
        inode.data = data.to_vec();
        inode.touch();
    }

    async fn lk(&self, ctx: &Context, lk: Lk) -> Outcome<Reply> {
        let (start, end) =
            (lk.flock.start, if lk.flock.len == 0 { u64::MAX } else { lk.flock.start + lk.flock.len - 1 });
        loop {
            let notified = self.unlocked.notified();
            {
                let mut state = self.state.lock();
                let inode = state.inode(lk.gfid)?;
                let conflict = inode.locks.iter().find(|(owner, from, to, kind)| {
                    *owner != ctx.lk_owner
                        && *from <= end
                        && start <= *to
                        && (*kind == LockType::Write || lk.kind == LockType::Write)
                        && lk.kind != LockType::Unlock
                });
                match (conflict.cloned(), lk.cmd) {
                    (found, LockCmd::Get) => {
                        let mut flock = lk.flock.clone();
                        flock.kind = found.map_or(LockType::Unlock, |(.., kind)| kind);
                        return Ok(LkReply { flock, xdata: None }.into());
                    }
                    (None, _) => {
                        inode.locks.retain(|(owner, from, to, _)| *owner != ctx.lk_owner || *to < start || end < *from);
                        if lk.kind != LockType::Unlock {
                            inode.locks.push((ctx.lk_owner.clone(), start, end, lk.kind));
                        }
                        self.unlocked.notify_waiters();
                        return Ok(LkReply { flock: lk.flock, xdata: None }.into());
                    }
                    (Some(_), LockCmd::SetWait) => {}
                    (Some(_), _) => return fail(Errno::EAGAIN),
                }
            }
            notified.await;
        }
    }
}

impl Inode {
    fn touch(&mut self) {
        self.stat.size = self.data.len() as u64;
        self.stat.blocks = self.stat.size.div_ceil(512);
        self.stat.mtime = now();
        self.stat.ctime = now();
    }
}

impl State {
    fn add(&mut self, ctx: &Context, gfid: Gfid, mode: u32) -> Iatt {
        let time = now();
        let stat = Iatt {
            gfid,
            ino: gfid.ino(),
            mode,
            nlink: 1,
            uid: ctx.uid,
            gid: ctx.gid,
            atime: time,
            mtime: time,
            ctime: time,
            ..Iatt::default()
        };
        let inode = Inode {
            stat,
            data: vec![],
            target: Bytes::new(),
            entries: BTreeMap::new(),
            xattrs: BTreeMap::new(),
            locks: vec![],
            opens: 0,
        };
        self.inodes.insert(gfid, inode);
        stat
    }

    fn inode(&mut self, gfid: Gfid) -> Result<&mut Inode, Failure> {
        self.inodes.get_mut(&gfid).ok_or_else(|| Errno::ESTALE.into())
    }

    fn named(&mut self, gfid: Gfid) -> Result<&mut Inode, Failure> {
        let inode = self.inode(gfid)?;
        if inode.stat.nlink == 0 { fail(Errno::ENOENT) } else { Ok(inode) }
    }

    fn child(&mut self, parent: Gfid, name: &Bytes) -> Result<Gfid, Failure> {
        self.inode(parent)?.entries.get(name).copied().ok_or_else(|| Errno::ENOENT.into())
    }

    fn make(
        &mut self,
        ctx: &Context,
        parent: Gfid,
        name: Bytes,
        mode: u32,
        xdata: Option<Dict>,
    ) -> Result<Iatt, Failure> {
        if self.inode(parent)?.entries.contains_key(&name) {
            return fail(Errno::EEXIST);
        }
        let gfid = xdata.and_then(|xdata| xdata.get_gfid(keys::GFID_REQ)).ok_or_else(|| Failure::from(Errno::EPERM))?;
        let stat = self.add(ctx, gfid, mode);
        let parent = self.inode(parent)?;
        parent.entries.insert(name, gfid);
        parent.touch();
        Ok(stat)
    }

    fn unlink(&mut self, parent: Gfid, name: &Bytes) -> Result<(), Failure> {
        let gfid = self.child(parent, name)?;
        self.inode(parent)?.entries.remove(name);
        let inode = self.inode(gfid)?;
        inode.stat.nlink -= 1;
        if inode.stat.nlink == 0 && inode.opens == 0 {
            self.inodes.remove(&gfid);
        }
        Ok(())
    }

    fn open(&mut self, gfid: Gfid, flags: u32) -> Fd {
        self.next_fd += 1;
        self.fds.insert(self.next_fd, (gfid, flags));
        if let Some(inode) = self.inodes.get_mut(&gfid) {
            inode.opens += 1;
            if flags & 0o1000 != 0 {
                inode.data.clear();
                inode.touch();
            }
        }
        Fd(self.next_fd)
    }

    fn close(&mut self, fd: Fd) {
        let Some((gfid, _)) = self.fds.remove(&fd.0) else { return };
        if let Some(inode) = self.inodes.get_mut(&gfid) {
            inode.opens -= 1;
            if inode.stat.nlink == 0 && inode.opens == 0 {
                self.inodes.remove(&gfid);
            }
        }
    }

    fn by_fd(&mut self, fd: Fd) -> Result<&mut Inode, Failure> {
        let gfid = self.fds.get(&fd.0).ok_or_else(|| Failure::from(Errno::EBADFD))?.0;
        self.inode(gfid)
    }

    fn listing(&self, gfid: Gfid, offset: u64, size: u32) -> Result<(Vec<DirentPlus>, bool), Failure> {
        let dir = self.inodes.get(&gfid).ok_or_else(|| Failure::from(Errno::ESTALE))?;
        let dots = [(Bytes::from_static(b"."), gfid), (Bytes::from_static(b".."), gfid)];
        let all = dots.into_iter().chain(dir.entries.iter().map(|(name, gfid)| (name.clone(), *gfid)));
        let count = (size / 200).max(1) as usize;
        let entries: Vec<_> = all
            .enumerate()
            .skip(offset as usize)
            .take(count)
            .map(|(at, (name, gfid))| {
                let stat = self.inodes[&gfid].stat;
                let entry = Dirent { ino: stat.ino, offset: at as u64 + 1, kind: (stat.mode & 0o170_000) >> 12, name };
                DirentPlus { entry, stat, xdata: None }
            })
            .collect();
        let eof = entries.len() < count;
        Ok((entries, eof))
    }

    fn change(inode: &mut Inode, change: impl FnOnce(&mut Inode)) -> Reply {
        let pre = inode.stat;
        change(inode);
        ChangeReply { pre, post: inode.stat, xdata: None }.into()
    }

    fn setattr(inode: &mut Inode, stat: Iatt, valid: i32) -> Reply {
        use setattr_valid as v;
        Self::change(inode, |inode| {
            let own = &mut inode.stat;
            if valid & v::MODE != 0 {
                own.mode = own.mode & 0o170_000 | stat.mode & 0o7777;
            }
            if valid & v::UID != 0 {
                own.uid = stat.uid;
            }
            if valid & v::GID != 0 {
                own.gid = stat.gid;
            }
            if valid & v::ATIME != 0 {
                own.atime = stat.atime;
            }
            if valid & v::MTIME != 0 {
                own.mtime = stat.mtime;
            }
            own.ctime = now();
        })
    }

    fn xattrs(inode: &Inode, name: Option<Bytes>) -> Outcome<Reply> {
        let mut dict = Dict::new();
        match name {
            None => inode.xattrs.iter().for_each(|(key, value)| dict.set(key.clone(), Value::Ptr(value.clone()))),
            Some(name) => {
                let key = String::from_utf8_lossy(&name).into_owned();
                let value = inode.xattrs.get(&key).ok_or_else(|| Failure::from(Errno::ENODATA))?;
                dict.set(key, Value::Ptr(value.clone()));
            }
        }
        Ok(DictReply { len: 0, dict: Some(dict), xdata: None }.into())
    }

    fn set_xattrs(inode: &mut Inode, flags: u32, dict: Option<Dict>) -> Outcome<Reply> {
        for (key, value) in dict.unwrap_or_default().iter() {
            match (flags, inode.xattrs.contains_key(key)) {
                (1, true) => return fail(Errno::EEXIST),
                (2, false) => return fail(Errno::ENODATA),
                _ => inode.xattrs.insert(key.to_owned(), value.as_bytes().unwrap().clone()),
            };
        }
        Ok(AckReply { xdata: None }.into())
    }

    fn write(inode: &mut Inode, offset: usize, data: &[u8]) {
        if inode.data.len() < offset + data.len() {
            inode.data.resize(offset + data.len(), 0);
        }
        inode.data[offset..offset + data.len()].copy_from_slice(data);
        inode.touch();
    }

    fn call(&mut self, ctx: &Context, request: Request) -> Outcome<Reply> {
        let none = Iatt::default();
        let entry = |stat| Ok(EntryReply { stat, preparent: none, postparent: none, xdata: None }.into());
        match request {
            Request::Lookup(r) => {
                let gfid = if r.name.is_empty() { r.gfid } else { self.child(r.parent, &r.name)? };
                let stat = self.named(gfid)?.stat;
                Ok(LookupReply { stat, postparent: none, xdata: None }.into())
            }
            Request::Stat(r) => Ok(StatReply { stat: self.named(r.gfid)?.stat, xdata: None }.into()),
            Request::Fstat(r) => Ok(StatReply { stat: self.by_fd(r.fd)?.stat, xdata: None }.into()),
            Request::Readlink(r) => {
                let inode = self.inode(r.gfid)?;
                Ok(ReadlinkReply { stat: inode.stat, target: inode.target.clone(), xdata: None }.into())
            }
            Request::Mknod(r) => entry(self.make(ctx, r.parent, r.name, r.mode & !r.umask, r.xdata)?),
            Request::Mkdir(r) => entry(self.make(ctx, r.parent, r.name, 0o040_000 | r.mode & !r.umask, r.xdata)?),
            Request::Symlink(r) => {
                let mut stat = self.make(ctx, r.parent, r.name, 0o120_777, r.xdata)?;
                let inode = self.inode(stat.gfid)?;
                inode.stat.size = r.target.len() as u64;
                inode.target = r.target;
                stat = inode.stat;
                entry(stat)
            }
            Request::Unlink(r) => {
                self.unlink(r.parent, &r.name)?;
                Ok(ChangeReply { pre: none, post: none, xdata: None }.into())
            }
            Request::Rmdir(r) => {
                let gfid = self.child(r.parent, &r.name)?;
                if !self.inode(gfid)?.entries.is_empty() {
                    return fail(Errno::ENOTEMPTY);
                }
                self.unlink(r.parent, &r.name)?;
                Ok(ChangeReply { pre: none, post: none, xdata: None }.into())
            }
            Request::Link(r) => {
                if self.inode(r.new_parent)?.entries.contains_key(&r.new_name) {
                    return fail(Errno::EEXIST);
                }
                let inode = self.inode(r.gfid)?;
                inode.stat.nlink += 1;
                let stat = inode.stat;
                self.inode(r.new_parent)?.entries.insert(r.new_name, r.gfid);
                entry(stat)
            }
            Request::Rename(r) => {
                let gfid = self.child(r.old_parent, &r.old_name)?;
                if let Ok(over) = self.child(r.new_parent, &r.new_name) {
                    if !self.inode(over)?.entries.is_empty() {
                        return fail(Errno::ENOTEMPTY);
                    }
                    self.unlink(r.new_parent, &r.new_name)?;
                }
                self.inode(r.old_parent)?.entries.remove(&r.old_name);
                self.inode(r.new_parent)?.entries.insert(r.new_name, gfid);
                let stat = self.inode(gfid)?.stat;
                let (preoldparent, postoldparent, prenewparent, postnewparent) = (none, none, none, none);
                Ok(RenameReply { stat, preoldparent, postoldparent, prenewparent, postnewparent, xdata: None }.into())
            }
            Request::Open(r) => {
                self.named(r.gfid)?;
                Ok(OpenReply { fd: self.open(r.gfid, r.flags), xdata: None }.into())
            }
            Request::Opendir(r) => Ok(OpenReply { fd: self.open(r.gfid, 0), xdata: None }.into()),
            Request::Create(r) => {
                let mode = 0o100_000 | r.mode & !r.umask;
                let stat = match self.child(r.parent, &r.name) {
                    Ok(_) if r.flags & 0o200 != 0 => return fail(Errno::EEXIST),
                    Ok(gfid) => self.inode(gfid)?.stat,
                    Err(_) => self.make(ctx, r.parent, r.name, mode, r.xdata)?,
                };
                let fd = self.open(stat.gfid, r.flags);
                Ok(CreateReply { fd, stat, preparent: none, postparent: none, xdata: None }.into())
            }
            Request::Read(r) => {
                let inode = self.by_fd(r.fd)?;
                let start = inode.data.len().min(r.offset as usize);
                let end = inode.data.len().min(start + r.size as usize);
                let data = Bytes::copy_from_slice(&inode.data[start..end]);
                Ok(ReadReply { stat: inode.stat, data, eof: end == inode.data.len(), xdata: None }.into())
            }
            Request::Write(r) => {
                let append = self.fds.get(&r.fd.0).is_some_and(|(_, flags)| flags & 0o2000 != 0);
                let inode = self.by_fd(r.fd)?;
                let offset = if append { inode.data.len() } else { r.offset as usize };
                let pre = inode.stat;
                Self::write(inode, offset, &r.data);
                Ok(WriteReply { written: r.data.len() as u32, pre, post: inode.stat, xdata: None }.into())
            }
            Request::Truncate(r) => Ok(Self::change(self.named(r.gfid)?, |inode| {
                inode.data.resize(r.offset as usize, 0);
                inode.touch();
            })),
            Request::Ftruncate(r) => Ok(Self::change(self.by_fd(r.fd)?, |inode| {
                inode.data.resize(r.offset as usize, 0);
                inode.touch();
            })),
            Request::Fallocate(r) => Ok(Self::change(self.by_fd(r.fd)?, |inode| {
                let end = (r.offset + r.size) as usize;
                if r.flags & 1 == 0 && inode.data.len() < end {
                    inode.data.resize(end, 0);
                    inode.touch();
                }
            })),
            Request::Discard(Discard { fd, offset, size, .. }) => Ok(Self::change(self.by_fd(fd)?, |inode| {
                let end = inode.data.len().min((offset + size) as usize);
                let start = end.min(offset as usize);
                inode.data[start..end].fill(0);
            })),
            Request::Zerofill(r) => Ok(Self::change(self.by_fd(r.fd)?, |inode| {
                Self::write(inode, r.offset as usize, &vec![0; r.size as usize]);
            })),
            Request::Seek(r) => {
                let size = self.by_fd(r.fd)?.stat.size;
                if r.offset >= size {
                    return fail(Errno::ENXIO);
                }
                let offset = if r.what == SeekWhat::Hole { size } else { r.offset };
                Ok(SeekReply { offset, xdata: None }.into())
            }
            Request::Setattr(r) => Ok(Self::setattr(self.named(r.gfid)?, r.stat, r.valid)),
            Request::Fsetattr(r) => Ok(Self::setattr(self.by_fd(r.fd)?, r.stat, r.valid)),
            Request::Getxattr(r) => Self::xattrs(self.named(r.gfid)?, r.name),
            Request::Fgetxattr(r) => Self::xattrs(self.by_fd(r.fd)?, r.name),
            Request::Setxattr(r) => Self::set_xattrs(self.named(r.gfid)?, r.flags, r.dict),
            Request::Fsetxattr(r) => Self::set_xattrs(self.by_fd(r.fd)?, r.flags, r.dict),
            Request::Removexattr(r) => {
                let key = String::from_utf8_lossy(&r.name).into_owned();
                self.named(r.gfid)?.xattrs.remove(&key).ok_or_else(|| Failure::from(Errno::ENODATA))?;
                Ok(AckReply { xdata: None }.into())
            }
            Request::Readdir(r) => {
                let (entries, eof) = self.listing(r.gfid, r.offset, r.size)?;
                let entries = entries.into_iter().map(|plus| plus.entry).collect();
                Ok(ReaddirReply { entries, eof, xdata: None }.into())
            }
            Request::Readdirp(r) => {
                let (entries, eof) = self.listing(r.gfid, r.offset, r.size)?;
                Ok(ReaddirpReply { entries, eof, xdata: None }.into())
            }
            Request::Statfs(_) => {
                let statfs = Statvfs { bsize: 4096, frsize: 4096, blocks: 1000, namemax: 255, ..Statvfs::default() };
                Ok(StatfsReply { statfs, xdata: None }.into())
            }
            Request::Release(r) => {
                self.close(r.fd);
                Ok(AckReply { xdata: None }.into())
            }
            Request::Releasedir(r) => {
                self.close(r.fd);
                Ok(AckReply { xdata: None }.into())
            }
            Request::Flush(r) => {
                self.by_fd(r.fd)?.locks.retain(|(owner, ..)| *owner != ctx.lk_owner);
                Ok(AckReply { xdata: None }.into())
            }
            Request::Fsync(r) => Ok(Self::change(self.by_fd(r.fd)?, |_| {})),
            Request::Fsyncdir(_) | Request::Access(_) => Ok(AckReply { xdata: None }.into()),
            _ => fail(Errno::EOPNOTSUPP),
        }
    }
}

#[async_trait]
impl Fops for Memory {
    async fn call(&self, ctx: &Context, request: Request) -> Outcome<Reply> {
        self.state.lock().calls.push(request.kind());
        if matches!(&request, Request::Lookup(lookup) if lookup.name == "panic") {
            panic!("on purpose");
        }
        if let Request::Lk(lk) = request {
            return self.lk(ctx, lk).await;
        }
        let flush = matches!(request, Request::Flush(_));
        let outcome = self.state.lock().call(ctx, request);
        if flush {
            self.unlocked.notify_waiters();
        }
        outcome
    }

    fn subscribe(&self, sink: Arc<dyn UpcallSink>) {
        self.state.lock().sink = Some(sink);
    }
}
