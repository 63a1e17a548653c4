//! What a brick in memory does with each request.

use bytes::Bytes;
use mortar_types::fop::{
    AckReply, ChangeReply, CopyReply, CreateReply, DictReply, Dirent, DirentPlus, EntryReply, EntrylkCmd, Flock,
    LkReply, LockCmd, LockType, LookupReply, OpenReply, ReadReply, ReaddirReply, ReaddirpReply, ReadlinkReply,
    RenameReply, SeekReply, SeekWhat, StatReply, StatfsReply, WriteReply, XattropOp, setattr_valid,
};
use mortar_types::{Dict, Errno, Fd, FileType, Gfid, Iatt, Reply, Request, Statvfs, Value, keys};

use super::State;
use super::compound::Compound;
use super::connection::Step;
use super::locks::{Claim, Notices, Owner, Space};
use super::store::Node;

/// GlusterFS's range for attribute changes gets a domain of its own (`locks/inodelk.c`).
const METADATA_START: u64 = i64::MAX as u64 - 1;

impl State {
    pub(super) fn perform(&mut self, brick: &str, owner: Owner, mut request: Request) -> (Step, Notices) {
        if let Some(victim) = self.victim(&request)
            && let Some((released, notices)) = self.locks.park_removal(victim, &owner)
        {
            return (Step::Park(released, request), notices);
        }
        if self.compounds
            && let Some(compound) = Compound::take(&mut request)
        {
            return self.compound(brick, owner.0, request, compound);
        }
        match request {
            Request::Inodelk(r) => self.inodelk(r.gfid, owner, r.cmd, r.kind, r.flock, &r.domain),
            Request::Finodelk(r) => self.inodelk(r.gfid, owner, r.cmd, r.kind, r.flock, &r.domain),
            Request::Entrylk(r) => self.entrylk(r.gfid, owner, r.cmd, r.name, r.domain),
            Request::Fentrylk(r) => self.entrylk(r.gfid, owner, r.cmd, r.name, r.domain),
            Request::Lk(r) => self.posix_lk(r.gfid, owner, r.cmd, r.kind, r.flock),
            request => (Step::Done(self.simple(brick, request).map_err(Into::into)), Vec::new()),
        }
    }

    fn inodelk(
        &mut self,
        gfid: Gfid,
        owner: Owner,
        cmd: LockCmd,
        kind: LockType,
        flock: Flock,
        domain: &Bytes,
    ) -> (Step, Notices) {
        if owner.1.is_empty() {
            return (Step::Done(Err(Errno::EINVAL.into())), Vec::new());
        }
        let domain = if flock.start == METADATA_START && flock.len == 0 {
            Bytes::from([&domain[..], b":metadata"].concat())
        } else {
            domain.clone()
        };
        let space = Space::Inode(gfid, domain);
        let claim = range(&flock, kind);
        if kind == LockType::Unlock {
            let (result, notices) = self.locks.unlock(&space, &owner, &claim);
            return (Step::Done(result.map(|()| ack()).map_err(Into::into)), notices);
        }
        if let Err(errno) = self.store.get(gfid) {
            return (Step::Done(Err(errno.into())), Vec::new());
        }
        let (asked, notices) = self.locks.ask(&space, &owner, claim, cmd == LockCmd::SetWait);
        (asked.into_step(ack()), notices)
    }

    fn entrylk(
        &mut self,
        gfid: Gfid,
        owner: Owner,
        cmd: EntrylkCmd,
        name: Option<Bytes>,
        domain: Bytes,
    ) -> (Step, Notices) {
        let space = Space::Entry(gfid, domain);
        let claim = Claim::Name(name);
        if cmd == EntrylkCmd::Unlock {
            let (result, notices) = self.locks.unlock(&space, &owner, &claim);
            return (Step::Done(result.map(|()| ack()).map_err(Into::into)), notices);
        }
        if let Err(errno) = self.store.get(gfid) {
            return (Step::Done(Err(errno.into())), Vec::new());
        }
        let (asked, notices) = self.locks.ask(&space, &owner, claim, cmd == EntrylkCmd::Lock);
        (asked.into_step(ack()), notices)
    }

    fn posix_lk(&mut self, gfid: Gfid, owner: Owner, cmd: LockCmd, kind: LockType, flock: Flock) -> (Step, Notices) {
        let space = Space::Posix(gfid);
        let claim = range(&flock, kind);
        let reply = |flock: Flock| LkReply { flock, xdata: None };
        if cmd == LockCmd::Get {
            let free = Flock { kind: LockType::Unlock, ..flock };
            let found = self.locks.conflict(&space, &owner, &claim).unwrap_or(free);
            return (Step::Done(Ok(reply(found).into())), Vec::new());
        }
        if kind == LockType::Unlock {
            self.locks.unlock_posix(&space, &owner, &claim);
            return (Step::Done(Ok(reply(flock).into())), Vec::new());
        }
        let (asked, _) = self.locks.ask(&space, &owner, claim, cmd == LockCmd::SetWait);
        (asked.into_step(reply(flock)), Vec::new())
    }

    /// The inode that loses a name.
    fn victim(&mut self, request: &Request) -> Option<Gfid> {
        match request {
            Request::Unlink(r) => self.store.child(r.parent, &r.name).ok(),
            Request::Rmdir(r) => self.store.child(r.parent, &r.name).ok(),
            Request::Rename(r) => self.store.child(r.new_parent, &r.new_name).ok(),
            _ => None,
        }
    }

    pub(super) fn simple(&mut self, brick: &str, request: Request) -> Result<Reply, Errno> {
        let xdata = request.xdata().cloned();
        let xdata = xdata.as_ref();
        Ok(match request {
            Request::Lookup(r) => return self.lookup(r.gfid, r.parent, &r.name, xdata),
            Request::Stat(r) => self.stat(r.gfid, xdata)?,
            Request::Fstat(r) => {
                let gfid = self.by_fd(r.gfid, r.fd)?;
                self.stat(gfid, xdata)?
            }
            Request::Access(r) => {
                self.store.get(r.gfid)?;
                ack()
            }
            Request::Readlink(r) => {
                let node = self.store.get(r.gfid)?;
                ReadlinkReply { stat: node.iatt(), target: node.target.clone(), xdata: None }.into()
            }
            Request::Create(r) => {
                let preparent = self.store.dir(r.parent)?.iatt();
                let gfid = match self.store.child(r.parent, &r.name) {
                    Ok(gfid) => gfid,
                    Err(_) => {
                        self.new_node(r.parent, &r.name, FileType::Regular.mode_bits() | r.mode, xdata, |_| ())?
                    }
                };
                let fd = Fd(self.store.open(gfid)?);
                let stat = self.store.get(gfid)?.iatt();
                CreateReply { fd, stat, preparent, postparent: self.store.dir(r.parent)?.iatt(), xdata: None }.into()
            }
            Request::Mkdir(r) => {
                self.entry(r.parent, &r.name, FileType::Directory.mode_bits() | r.mode, xdata, |_| ())?
            }
            Request::Mknod(r) => {
                let mode =
                    if FileType::from_mode(r.mode).is_some() { r.mode } else { FileType::Regular.mode_bits() | r.mode };
                self.entry(r.parent, &r.name, mode, xdata, |node| node.rdev = r.dev)?
            }
            Request::Symlink(r) => {
                let target = r.target.clone();
                self.entry(r.parent, &r.name, FileType::Symlink.mode_bits() | 0o777, xdata, |node| {
                    node.target = target;
                })?
            }
            Request::Link(r) => {
                let preparent = self.store.dir(r.new_parent)?.iatt();
                self.store.link(r.gfid, r.new_parent, &r.new_name)?;
                let postparent = self.store.dir(r.new_parent)?.iatt();
                EntryReply { stat: self.store.get(r.gfid)?.iatt(), preparent, postparent, xdata: None }.into()
            }
            Request::Unlink(r) => self.remove(r.parent, &r.name, false, false)?,
            Request::Rmdir(r) => self.remove(r.parent, &r.name, true, r.flags & 1 != 0)?,
            Request::Rename(r) => {
                let preoldparent = self.store.dir(r.old_parent)?.iatt();
                let prenewparent = self.store.dir(r.new_parent)?.iatt();
                let gfid = self.store.rename((r.old_parent, &r.old_name), (r.new_parent, &r.new_name))?;
                RenameReply {
                    stat: self.store.get(gfid)?.iatt(),
                    preoldparent,
                    postoldparent: self.store.dir(r.old_parent)?.iatt(),
                    prenewparent,
                    postnewparent: self.store.dir(r.new_parent)?.iatt(),
                    xdata: None,
                }
                .into()
            }
            Request::Open(r) => OpenReply { fd: Fd(self.store.open(r.gfid)?), xdata: None }.into(),
            Request::Opendir(r) => {
                self.store.dir(r.gfid)?;
                OpenReply { fd: Fd(self.store.open(r.gfid)?), xdata: None }.into()
            }
            Request::Release(r) => self.release(r.fd),
            Request::Releasedir(r) => self.release(r.fd),
            Request::Read(r) => {
                let gfid = self.by_fd(r.gfid, r.fd)?;
                let node = self.store.get(gfid)?;
                let start = usize::try_from(r.offset).unwrap_or(usize::MAX).min(node.data.len());
                let end = start.saturating_add(r.size as usize).min(node.data.len());
                let data = Bytes::copy_from_slice(&node.data[start..end]);
                ReadReply { stat: node.iatt(), data, eof: end == node.data.len(), xdata: None }.into()
            }
            Request::Seek(r) => {
                let gfid = self.by_fd(r.gfid, r.fd)?;
                let size = self.store.get(gfid)?.data.len() as u64;
                if r.offset >= size {
                    return Err(Errno::ENXIO);
                }
                SeekReply { offset: if r.what == SeekWhat::Data { r.offset } else { size }, xdata: None }.into()
            }
            Request::Write(r) => {
                let gfid = self.by_fd(r.gfid, r.fd)?;
                let locks = self.lock_counts(gfid, xdata);
                let node = self.store.get(gfid)?;
                let pre = node.iatt();
                let appends = r.offset == pre.size;
                put(node, r.offset, &r.data);
                let mut answer = locks.unwrap_or_default();
                if xdata.is_some_and(|xdata| xdata.contains(keys::WRITE_IS_APPEND)) {
                    answer.set(keys::WRITE_IS_APPEND, Value::Uint(appends.into()));
                }
                WriteReply { written: r.data.len() as u32, pre, post: node.iatt(), xdata: Some(answer) }.into()
            }
            Request::Truncate(r) => self.change(r.gfid, |node| resize(node, r.offset))?,
            Request::Ftruncate(r) => {
                let gfid = self.by_fd(r.gfid, r.fd)?;
                self.change(gfid, |node| resize(node, r.offset))?
            }
            Request::Fallocate(r) => self.change(r.gfid, |node| {
                let end = r.offset + r.size;
                resize(node, end.max(node.data.len() as u64));
            })?,
            Request::Discard(r) => self.change(r.gfid, |node| zero(node, r.offset, r.size))?,
            Request::Zerofill(r) => self.change(r.gfid, |node| zero(node, r.offset, r.size))?,
            Request::CopyFileRange(r) => {
                let source = self.store.get(r.gfid_in)?;
                let stat = source.iatt();
                let start = usize::try_from(r.offset_in).unwrap_or(usize::MAX).min(source.data.len());
                let end = start.saturating_add(r.size as usize).min(source.data.len());
                let data = source.data[start..end].to_vec();
                let target = self.store.get(r.gfid_out)?;
                let pre = target.iatt();
                put(target, r.offset_out, &data);
                CopyReply { copied: data.len() as u32, stat, pre, post: target.iatt(), xdata: None }.into()
            }
            Request::Fsync(r) => {
                let gfid = self.by_fd(r.gfid, r.fd)?;
                self.change(gfid, |node| node.synced = node.data.clone())?
            }
            Request::Flush(_) | Request::Fsyncdir(_) => ack(),
            Request::Setattr(r) => self.change(r.gfid, |node| set_attributes(node, &r.stat, r.valid))?,
            Request::Fsetattr(r) => self.change(r.gfid, |node| set_attributes(node, &r.stat, r.valid))?,
            Request::Setxattr(r) => self.set_xattrs(r.gfid, r.dict)?,
            Request::Fsetxattr(r) => self.set_xattrs(r.gfid, r.dict)?,
            Request::Removexattr(r) => self.remove_xattr(r.gfid, &r.name)?,
            Request::Fremovexattr(r) => self.remove_xattr(r.gfid, &r.name)?,
            Request::Getxattr(r) => self.get_xattr(brick, r.gfid, r.name.as_ref())?,
            Request::Fgetxattr(r) => self.get_xattr(brick, r.gfid, r.name.as_ref())?,
            Request::Xattrop(r) => self.xattrop(r.gfid, r.op, r.dict, xdata)?,
            Request::Fxattrop(r) => {
                let gfid = self.by_fd(r.gfid, r.fd)?;
                self.xattrop(gfid, r.op, r.dict, xdata)?
            }
            Request::Readdir(r) => {
                let (entries, eof) = self.page(r.gfid, r.offset, r.size)?;
                let entries = entries.into_iter().map(|(entry, _)| entry).collect();
                ReaddirReply { entries, eof, xdata: None }.into()
            }
            Request::Readdirp(r) => {
                let (entries, eof) = self.page(r.gfid, r.offset, r.size)?;
                let entries =
                    entries.into_iter().map(|(entry, stat)| DirentPlus { entry, stat, xdata: None }).collect();
                ReaddirpReply { entries, eof, xdata: None }.into()
            }
            Request::Statfs(_) => {
                let statfs = Statvfs { bsize: 4096, frsize: 4096, blocks: 1000, bavail: 500, ..Statvfs::default() };
                StatfsReply { statfs, xdata: None }.into()
            }
            _ => return Err(Errno::ENOSYS),
        })
    }

    fn by_fd(&mut self, gfid: Gfid, fd: Fd) -> Result<Gfid, Errno> {
        if fd.is_anonymous() { Ok(gfid) } else { self.store.fds.get(&fd.0).copied().ok_or(Errno::EBADF) }
    }

    fn lookup(&mut self, gfid: Gfid, parent: Gfid, name: &Bytes, xdata: Option<&Dict>) -> Result<Reply, Errno> {
        let (gfid, postparent) = if name.is_empty() {
            (gfid, Iatt::default())
        } else {
            (self.store.child(parent, name)?, self.store.dir(parent)?.iatt())
        };
        let node = self.store.get(gfid).ok().filter(|node| node.nlink > 0).ok_or(Errno::ENOENT)?;
        let stat = node.iatt();
        let mut answer = self.asked_xattrs(gfid, xdata)?;
        if xdata.is_some_and(|xdata| xdata.contains(keys::LINK_COUNT)) {
            answer.set(keys::LINK_COUNT, Value::Int(self.store.accuses_anybody().into()));
        }
        if xdata.is_some_and(|xdata| xdata.contains(keys::PARENT_ENTRYLK)) && !name.is_empty() {
            answer.set(keys::PARENT_ENTRYLK, Value::Int(self.locks.is_name_locked(parent, name).into()));
        }
        Ok(LookupReply { stat, postparent, xdata: Some(answer) }.into())
    }

    fn stat(&mut self, gfid: Gfid, xdata: Option<&Dict>) -> Result<Reply, Errno> {
        let stat = self.store.get(gfid)?.iatt();
        Ok(StatReply { stat, xdata: Some(self.asked_xattrs(gfid, xdata)?) }.into())
    }

    fn asked_xattrs(&mut self, gfid: Gfid, xdata: Option<&Dict>) -> Result<Dict, Errno> {
        let mut answer = self.lock_counts(gfid, xdata).unwrap_or_default();
        let node = self.store.get(gfid)?;
        let Some(xdata) = xdata else { return Ok(answer) };
        for key in xdata.keys() {
            if let Some(value) = node.xattrs.get(key) {
                answer.set(key.to_owned(), Value::Ptr(value.clone()));
            }
        }
        if xdata.contains(keys::LIST_XATTR) {
            for (key, value) in &node.xattrs {
                answer.set(key.clone(), Value::Ptr(value.clone()));
            }
        }
        if xdata.get_u64(keys::CONTENT).is_some_and(|max| node.data.len() as u64 <= max) && !node.is_dir() {
            answer.set(keys::CONTENT, Value::ptr(node.data.clone()));
        }
        Ok(answer)
    }

    fn lock_counts(&self, gfid: Gfid, xdata: Option<&Dict>) -> Option<Dict> {
        let xdata = xdata?;
        let count = |domain: Option<&Bytes>| self.locks.count_inode(gfid, domain) as i64;
        if let Some(domain) = xdata.get_bytes(keys::INODELK_DOM_COUNT) {
            return Some(Dict::new().with(keys::INODELK_COUNT, Value::Int(count(Some(domain)))));
        }
        xdata.contains(keys::INODELK_COUNT).then(|| Dict::new().with(keys::INODELK_COUNT, Value::Int(count(None))))
    }

    fn new_node(
        &mut self,
        parent: Gfid,
        name: &Bytes,
        mode: u32,
        xdata: Option<&Dict>,
        finish: impl FnOnce(&mut Node),
    ) -> Result<Gfid, Errno> {
        let gfid = xdata.and_then(|xdata| xdata.get_gfid(keys::GFID_REQ)).ok_or(Errno::EINVAL)?;
        let mut node = Node::new(gfid, mode);
        finish(&mut node);
        self.store.make(parent, name, node)
    }

    fn entry(
        &mut self,
        parent: Gfid,
        name: &Bytes,
        mode: u32,
        xdata: Option<&Dict>,
        finish: impl FnOnce(&mut Node),
    ) -> Result<Reply, Errno> {
        let preparent = self.store.dir(parent)?.iatt();
        let gfid = self.new_node(parent, name, mode, xdata, finish)?;
        let stat = self.store.get(gfid)?.iatt();
        Ok(EntryReply { stat, preparent, postparent: self.store.dir(parent)?.iatt(), xdata: None }.into())
    }

    fn remove(&mut self, parent: Gfid, name: &Bytes, dir: bool, tree: bool) -> Result<Reply, Errno> {
        let pre = self.store.dir(parent)?.iatt();
        self.store.remove(parent, name, dir, tree)?;
        Ok(ChangeReply { pre, post: self.store.dir(parent)?.iatt(), xdata: None }.into())
    }

    fn change(&mut self, gfid: Gfid, change: impl FnOnce(&mut Node)) -> Result<Reply, Errno> {
        let node = self.store.get(gfid)?;
        let pre = node.iatt();
        change(node);
        Ok(ChangeReply { pre, post: node.iatt(), xdata: None }.into())
    }

    fn release(&mut self, fd: Fd) -> Reply {
        self.store.close(fd.0);
        ack()
    }

    fn set_xattrs(&mut self, gfid: Gfid, dict: Option<Dict>) -> Result<Reply, Errno> {
        let node = self.store.get(gfid)?;
        for (key, value) in dict.unwrap_or_default().iter() {
            let value = value.as_bytes().ok_or(Errno::EINVAL)?;
            node.xattrs.insert(key.to_owned(), value.clone());
        }
        Ok(ack())
    }

    fn remove_xattr(&mut self, gfid: Gfid, name: &[u8]) -> Result<Reply, Errno> {
        let name = std::str::from_utf8(name).map_err(|_| Errno::EINVAL)?;
        self.store.get(gfid)?.xattrs.remove(name).map(|_| ack()).ok_or(Errno::ENODATA)
    }

    fn get_xattr(&mut self, brick: &str, gfid: Gfid, name: Option<&Bytes>) -> Result<Reply, Errno> {
        let node = self.store.get(gfid)?;
        let mut dict = Dict::new();
        match name.map(|name| String::from_utf8_lossy(name).into_owned()) {
            None => {
                for (key, value) in &node.xattrs {
                    dict.set(key.clone(), Value::Ptr(value.clone()));
                }
            }
            Some(name) if name == keys::PATHINFO => {
                dict.set(name, Value::str(format!("<POSIX(/{brick}):host:/{brick}/x>")));
            }
            Some(name) => {
                let value = node.xattrs.get(&name).ok_or(Errno::ENODATA)?.clone();
                dict.set(name, Value::Ptr(value));
            }
        }
        Ok(DictReply { len: dict.len() as u32, dict: Some(dict), xdata: None }.into())
    }

    pub(super) fn xattrop(
        &mut self,
        gfid: Gfid,
        op: XattropOp,
        dict: Option<Dict>,
        xdata: Option<&Dict>,
    ) -> Result<Reply, Errno> {
        if op != XattropOp::AddArray {
            return Err(Errno::EOPNOTSUPP);
        }
        let dict = self.store.add_arrays(gfid, &dict.unwrap_or_default())?;
        if let Some(xdata) = xdata {
            self.store.index_name(gfid, xdata);
        }
        let answer = self.lock_counts(gfid, xdata);
        Ok(DictReply { len: 0, dict: Some(dict), xdata: answer }.into())
    }

    /// At most `size` entries (not bytes), and whether the end is reached.
    fn page(&mut self, gfid: Gfid, offset: u64, size: u32) -> Result<(Vec<(Dirent, Iatt)>, bool), Errno> {
        let mut entries = self.entries(gfid, offset)?;
        let eof = entries.len() <= size as usize;
        entries.truncate(size as usize);
        Ok((entries, eof))
    }

    fn entries(&mut self, gfid: Gfid, offset: u64) -> Result<Vec<(Dirent, Iatt)>, Errno> {
        let names = self.store.list(gfid, offset)?;
        Ok(names
            .into_iter()
            .map(|(offset, name, gfid)| {
                let stat = self.store.node(gfid).map(Node::iatt).unwrap_or_default();
                let kind = stat.file_type().map_or(0, FileType::dirent_type);
                (Dirent { ino: gfid.ino(), offset, kind, name }, stat)
            })
            .collect())
    }
}

fn ack() -> Reply {
    AckReply { xdata: None }.into()
}

fn range(flock: &Flock, kind: LockType) -> Claim {
    let end = if flock.len == 0 { u64::MAX } else { flock.start.saturating_add(flock.len) - 1 };
    Claim::Range { start: flock.start, end, write: kind == LockType::Write, flock: flock.clone() }
}

fn put(node: &mut Node, offset: u64, data: &[u8]) {
    let start = usize::try_from(offset).expect("test files are small");
    if node.data.len() < start + data.len() {
        node.data.resize(start + data.len(), 0);
    }
    node.data[start..start + data.len()].copy_from_slice(data);
}

fn resize(node: &mut Node, size: u64) {
    node.data.resize(usize::try_from(size).expect("test files are small"), 0);
}

fn zero(node: &mut Node, offset: u64, size: u64) {
    let start = usize::try_from(offset).expect("test files are small").min(node.data.len());
    let end = start.saturating_add(usize::try_from(size).expect("test files are small")).min(node.data.len());
    node.data[start..end].fill(0);
}

fn set_attributes(node: &mut Node, stat: &Iatt, valid: i32) {
    if valid & setattr_valid::MODE != 0 {
        node.mode = (node.mode & 0o170_000) | (stat.mode & 0o7777);
    }
    if valid & setattr_valid::UID != 0 {
        node.uid = stat.uid;
    }
    if valid & setattr_valid::GID != 0 {
        node.gid = stat.gid;
    }
    if valid & setattr_valid::ATIME != 0 {
        node.atime = stat.atime;
    }
    if valid & setattr_valid::MTIME != 0 {
        node.mtime = stat.mtime;
    }
}
