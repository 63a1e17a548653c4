//! What a simulated disk does with each request: the shape of a real brick's answers, and the checks that matter.

use bytes::Bytes;
use mortar_types::fop::{
    AckReply, ChangeReply, CreateReply, DictReply, Dirent, DirentPlus, EntryReply, LookupReply, OpenReply,
    RchecksumReply, ReadReply, ReaddirReply, ReaddirpReply, ReadlinkReply, RenameReply, SeekReply, SeekWhat, StatReply,
    StatfsReply, WriteReply, XattropOp, setattr_valid,
};
use mortar_types::{Dict, Errno, Fd, FileType, Gfid, Iatt, Outcome, Reply, Request, Statvfs, Timespec, Value, keys};
use xxhash_rust::xxh64::xxh64;

use super::State;
use super::tree::Node;

const O_EXCL: u32 = 0o200;
const O_DSYNC: u32 = 0o10000;
const XATTR_CREATE: u32 = 1;
const XATTR_REPLACE: u32 = 2;

impl State {
    pub(super) fn perform(&mut self, request: Request, time: Timespec, brick: &str) -> Outcome<Reply> {
        Ok(self.dispatch(request, time, brick)?)
    }

    fn dispatch(&mut self, request: Request, time: Timespec, brick: &str) -> Result<Reply, Errno> {
        let xdata = request.xdata().cloned();
        let xdata = xdata.as_ref();
        match request {
            Request::Lookup(r) => self.lookup(r.gfid, r.parent, &r.name, xdata),
            Request::Stat(r) => self.stat(r.gfid, xdata),
            Request::Fstat(r) => {
                let gfid = self.opened(r.gfid, r.fd)?;
                self.stat(gfid, xdata)
            }
            Request::Access(r) => self.tree.get(r.gfid).map(|_| ack()),
            Request::Readlink(r) => {
                let node = self.tree.get(r.gfid)?;
                Ok(ReadlinkReply { stat: node.iatt(), target: node.target.clone(), xdata: None }.into())
            }
            Request::Create(r) => self.create(r.parent, &r.name, r.flags, r.mode, xdata, time),
            Request::Mkdir(r) => {
                let node = |gfid| Node::new(gfid, FileType::Directory.mode_bits() | (r.mode & 0o7777));
                self.make(r.parent, &r.name, xdata, time, node)
            }
            Request::Mknod(r) => {
                let bits = if FileType::from_mode(r.mode).is_some() { 0 } else { FileType::Regular.mode_bits() };
                self.make(r.parent, &r.name, xdata, time, |gfid| Node::new(gfid, r.mode | bits))
            }
            Request::Symlink(r) => self.make(r.parent, &r.name, xdata, time, |gfid| Node {
                target: r.target.clone(),
                ..Node::new(gfid, FileType::Symlink.mode_bits() | 0o777)
            }),
            Request::Link(r) => {
                let preparent = self.tree.dir(r.new_parent)?.iatt();
                self.remember();
                self.tree.link(r.gfid, r.new_parent, &r.new_name)?;
                self.tree.get_mut(r.gfid)?.ctime = time;
                let postparent = self.touch_dir(r.new_parent, time)?;
                Ok(EntryReply { stat: self.tree.get(r.gfid)?.iatt(), preparent, postparent, xdata: None }.into())
            }
            Request::Unlink(r) => self.remove(r.parent, &r.name, false, false, time),
            Request::Rmdir(r) => self.remove(r.parent, &r.name, true, r.flags & 1 != 0, time),
            Request::Rename(r) => {
                let preoldparent = self.tree.dir(r.old_parent)?.iatt();
                let prenewparent = self.tree.dir(r.new_parent)?.iatt();
                self.remember();
                let (gfid, gone) = self.tree.rename((r.old_parent, &r.old_name), (r.new_parent, &r.new_name))?;
                self.forget(&gone);
                self.tree.get_mut(gfid)?.ctime = time;
                let postoldparent = self.touch_dir(r.old_parent, time)?;
                let postnewparent = self.touch_dir(r.new_parent, time)?;
                let stat = self.tree.get(gfid)?.iatt();
                Ok(RenameReply { stat, preoldparent, postoldparent, prenewparent, postnewparent, xdata: None }.into())
            }
            Request::Open(r) => Ok(OpenReply { fd: self.open(r.gfid)?, xdata: None }.into()),
            Request::Opendir(r) => {
                if self.virtual_of(r.gfid).is_none() {
                    self.tree.dir(r.gfid)?;
                }
                Ok(OpenReply { fd: self.open(r.gfid)?, xdata: None }.into())
            }
            Request::Release(r) => Ok(self.release(r.fd)),
            Request::Releasedir(r) => Ok(self.release(r.fd)),
            Request::Read(r) => {
                let node = self.tree.get(self.opened(r.gfid, r.fd)?)?;
                let start = at(r.offset).min(node.data.len());
                let end = start.saturating_add(r.size as usize).min(node.data.len());
                let data = Bytes::copy_from_slice(&node.data[start..end]);
                Ok(ReadReply { stat: node.iatt(), data, eof: end == node.data.len(), xdata: None }.into())
            }
            Request::Seek(r) => {
                let size = self.tree.get(self.opened(r.gfid, r.fd)?)?.data.len() as u64;
                if r.offset >= size {
                    return Err(Errno::ENXIO);
                }
                let offset = if r.what == SeekWhat::Data { r.offset } else { size };
                Ok(SeekReply { offset, xdata: None }.into())
            }
            Request::Rchecksum(r) => {
                let node = self.tree.get(self.opened(r.gfid, r.fd)?)?;
                let start = at(r.offset).min(node.data.len());
                let end = start.saturating_add(r.len as usize).min(node.data.len());
                let sum = xxh64(&node.data[start..end], (end - start) as u64);
                let strong = Bytes::copy_from_slice(&sum.to_le_bytes());
                Ok(RchecksumReply { flags: 1, weak: 0, strong, xdata: None }.into())
            }
            Request::Write(r) => {
                let gfid = self.opened(r.gfid, r.fd)?;
                let node = self.tree.get_mut(gfid)?;
                let pre = node.iatt();
                if !self.is_arbiter {
                    put(node, r.offset, &r.data);
                }
                (node.mtime, node.ctime) = (time, time);
                let post = node.iatt();
                if r.flags & O_DSYNC != 0 {
                    self.sync(gfid)?;
                }
                let asked = xdata.is_some_and(|xdata| xdata.contains(keys::WRITE_IS_APPEND));
                let appends = Value::Uint((r.offset == pre.size).into());
                let xdata = asked.then(|| Dict::new().with(keys::WRITE_IS_APPEND, appends));
                Ok(WriteReply { written: r.data.len() as u32, pre, post, xdata }.into())
            }
            Request::Truncate(r) => self.resize(r.gfid, r.offset, time),
            Request::Ftruncate(r) => {
                let gfid = self.opened(r.gfid, r.fd)?;
                self.resize(gfid, r.offset, time)
            }
            Request::Discard(r) => self.change(r.gfid, |node| {
                let start = at(r.offset).min(node.data.len());
                let end = start.saturating_add(at(r.size)).min(node.data.len());
                node.data[start..end].fill(0);
            }),
            Request::Fsync(r) => {
                let gfid = self.opened(r.gfid, r.fd)?;
                self.sync(gfid)?;
                self.change(gfid, |_| ())
            }
            Request::Fsyncdir(_) => {
                self.commit();
                Ok(ack())
            }
            Request::Flush(_) => Ok(ack()),
            Request::Setattr(r) => self.set_attributes(r.gfid, &r.stat, r.valid, time),
            Request::Fsetattr(r) => self.set_attributes(r.gfid, &r.stat, r.valid, time),
            Request::Setxattr(r) => self.set_xattrs(r.gfid, r.flags, r.dict, time),
            Request::Fsetxattr(r) => self.set_xattrs(r.gfid, r.flags, r.dict, time),
            Request::Removexattr(r) => self.remove_xattr(r.gfid, &r.name, time),
            Request::Fremovexattr(r) => self.remove_xattr(r.gfid, &r.name, time),
            Request::Getxattr(r) => self.get_xattr(brick, r.gfid, r.name.as_ref()),
            Request::Fgetxattr(r) => self.get_xattr(brick, r.gfid, r.name.as_ref()),
            Request::Xattrop(r) => self.xattrop(r.gfid, r.op, r.dict, xdata),
            Request::Fxattrop(r) => {
                let gfid = self.opened(r.gfid, r.fd)?;
                self.xattrop(gfid, r.op, r.dict, xdata)
            }
            Request::Readdir(r) => {
                let entries = self.list(r.gfid, r.offset)?.into_iter().map(|(entry, _)| entry).collect();
                Ok(ReaddirReply { entries, eof: true, xdata: None }.into())
            }
            Request::Readdirp(r) => {
                let entries = self.list(r.gfid, r.offset)?;
                let entries =
                    entries.into_iter().map(|(entry, stat)| DirentPlus { entry, stat, xdata: None }).collect();
                Ok(ReaddirpReply { entries, eof: true, xdata: None }.into())
            }
            Request::Statfs(_) => {
                let statfs = Statvfs { bsize: 4096, frsize: 4096, blocks: 1000, bavail: 500, ..Statvfs::default() };
                Ok(StatfsReply { statfs, xdata: None }.into())
            }
            _ => Err(Errno::ENOSYS),
        }
    }

    fn opened(&self, gfid: Gfid, fd: Fd) -> Result<Gfid, Errno> {
        if fd.is_anonymous() { Ok(gfid) } else { self.fds.get(&fd.0).map(|(gfid, _)| *gfid).ok_or(Errno::EBADF) }
    }

    fn open(&mut self, gfid: Gfid) -> Result<Fd, Errno> {
        if self.virtual_of(gfid).is_none() {
            self.tree.get(gfid)?;
        }
        let fd = self.next_fd;
        self.next_fd += 1;
        self.fds.insert(fd, (gfid, self.client));
        Ok(Fd(fd))
    }

    pub(super) fn release(&mut self, fd: Fd) -> Reply {
        if let Some((gfid, _)) = self.fds.remove(&fd.0) {
            self.forget(&[gfid]);
        }
        ack()
    }

    /// Inodes without names go when nobody has them open.
    fn forget(&mut self, gfids: &[Gfid]) {
        for gfid in gfids {
            let nameless = self.tree.get(*gfid).is_ok_and(|node| node.nlink == 0);
            if nameless && !self.fds.values().any(|(open, _)| open == gfid) {
                self.tree.nodes.remove(gfid);
            }
        }
    }

    fn lookup(&self, gfid: Gfid, parent: Gfid, name: &Bytes, xdata: Option<&Dict>) -> Result<Reply, Errno> {
        if name.is_empty() {
            let node = self.tree.get(gfid).ok().filter(|node| node.nlink > 0).ok_or(Errno::ENOENT)?;
            let xdata = Some(self.answers(node, xdata));
            return Ok(LookupReply { stat: node.iatt(), postparent: Iatt::default(), xdata }.into());
        }
        if let Some(dir) = self.virtual_of(parent) {
            let gfid = self.virtual_lookup(dir, name)?;
            let stat = Node::new(gfid, FileType::Regular.mode_bits()).iatt();
            return Ok(LookupReply { stat, postparent: Iatt::default(), xdata: None }.into());
        }
        let node = self.tree.get(self.tree.child(parent, name)?)?;
        let (stat, postparent) = (node.iatt(), self.tree.dir(parent)?.iatt());
        Ok(LookupReply { stat, postparent, xdata: Some(self.answers(node, xdata)) }.into())
    }

    fn stat(&self, gfid: Gfid, xdata: Option<&Dict>) -> Result<Reply, Errno> {
        let node = self.tree.get(gfid)?;
        Ok(StatReply { stat: node.iatt(), xdata: Some(self.answers(node, xdata)) }.into())
    }

    fn answers(&self, node: &Node, xdata: Option<&Dict>) -> Dict {
        let mut answer = Dict::new();
        let Some(xdata) = xdata else { return answer };
        let all = xdata.contains(keys::LIST_XATTR);
        for (key, value) in &node.xattrs {
            if all || xdata.contains(key) {
                answer.set(key.clone(), Value::Ptr(value.clone()));
            }
        }
        if node.is_regular() && xdata.get_u64(keys::CONTENT).is_some_and(|max| node.data.len() as u64 <= max) {
            answer.set(keys::CONTENT, Value::ptr(node.data.clone()));
        }
        if xdata.contains(keys::LINK_COUNT) {
            answer.set(keys::LINK_COUNT, Value::Int((!self.tree.pending.is_empty()).into()));
        }
        answer
    }

    fn create(
        &mut self,
        parent: Gfid,
        name: &Bytes,
        flags: u32,
        mode: u32,
        xdata: Option<&Dict>,
        time: Timespec,
    ) -> Result<Reply, Errno> {
        let preparent = self.tree.dir(parent)?.iatt();
        let gfid = match self.tree.child(parent, name) {
            Ok(_) if flags & O_EXCL != 0 => return Err(Errno::EEXIST),
            Ok(gfid) => gfid,
            Err(_) => self.new_node(parent, name, xdata, time, |gfid| {
                Node::new(gfid, FileType::Regular.mode_bits() | (mode & 0o7777))
            })?,
        };
        let fd = self.open(gfid)?;
        let (stat, postparent) = (self.tree.get(gfid)?.iatt(), self.tree.dir(parent)?.iatt());
        Ok(CreateReply { fd, stat, preparent, postparent, xdata: None }.into())
    }

    fn new_node(
        &mut self,
        parent: Gfid,
        name: &Bytes,
        xdata: Option<&Dict>,
        time: Timespec,
        node: impl FnOnce(Gfid) -> Node,
    ) -> Result<Gfid, Errno> {
        let gfid = xdata.and_then(|xdata| xdata.get_gfid(keys::GFID_REQ)).ok_or(Errno::EINVAL)?;
        let mut node = node(gfid);
        (node.atime, node.mtime, node.ctime) = (time, time, time);
        self.remember();
        self.tree.insert(parent, name, node)?;
        self.touch_dir(parent, time)?;
        Ok(gfid)
    }

    fn make(
        &mut self,
        parent: Gfid,
        name: &Bytes,
        xdata: Option<&Dict>,
        time: Timespec,
        node: impl FnOnce(Gfid) -> Node,
    ) -> Result<Reply, Errno> {
        let preparent = self.tree.dir(parent)?.iatt();
        let gfid = self.new_node(parent, name, xdata, time, node)?;
        let (stat, postparent) = (self.tree.get(gfid)?.iatt(), self.tree.dir(parent)?.iatt());
        Ok(EntryReply { stat, preparent, postparent, xdata: None }.into())
    }

    fn remove(&mut self, parent: Gfid, name: &Bytes, dir: bool, tree: bool, time: Timespec) -> Result<Reply, Errno> {
        if let Some(of) = self.virtual_of(parent) {
            self.virtual_remove(of, name)?;
            return Ok(ChangeReply { pre: Iatt::default(), post: Iatt::default(), xdata: None }.into());
        }
        let pre = self.tree.dir(parent)?.iatt();
        self.remember();
        let gone = self.tree.remove(parent, name, dir, tree)?;
        self.forget(&gone);
        let post = self.touch_dir(parent, time)?;
        Ok(ChangeReply { pre, post, xdata: None }.into())
    }

    fn touch_dir(&mut self, gfid: Gfid, time: Timespec) -> Result<Iatt, Errno> {
        let node = self.tree.get_mut(gfid)?;
        (node.mtime, node.ctime) = (time, time);
        Ok(node.iatt())
    }

    fn resize(&mut self, gfid: Gfid, size: u64, time: Timespec) -> Result<Reply, Errno> {
        self.remember();
        let size = if self.is_arbiter { 0 } else { size };
        self.change(gfid, |node| {
            node.data.resize(at(size), 0);
            // Where a file ends is in the journal.
            node.synced.truncate(at(size));
            (node.mtime, node.ctime) = (time, time);
        })
    }

    fn sync(&mut self, gfid: Gfid) -> Result<(), Errno> {
        let node = self.tree.get_mut(gfid)?;
        node.synced = node.data.clone();
        self.commit();
        Ok(())
    }

    fn change(&mut self, gfid: Gfid, change: impl FnOnce(&mut Node)) -> Result<Reply, Errno> {
        let node = self.tree.get_mut(gfid)?;
        let pre = node.iatt();
        change(node);
        Ok(ChangeReply { pre, post: node.iatt(), xdata: None }.into())
    }

    fn set_attributes(&mut self, gfid: Gfid, stat: &Iatt, valid: i32, time: Timespec) -> Result<Reply, Errno> {
        self.tree.get(gfid)?;
        self.remember();
        self.change(gfid, |node| {
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
            node.ctime = if valid & setattr_valid::CTIME != 0 { stat.ctime } else { time };
        })
    }

    fn set_xattrs(&mut self, gfid: Gfid, flags: u32, dict: Option<Dict>, time: Timespec) -> Result<Reply, Errno> {
        self.tree.get(gfid)?;
        self.remember();
        let node = self.tree.get_mut(gfid)?;
        for (key, value) in dict.unwrap_or_default().iter() {
            if let (keys::SET_CTIME_MDATA, Value::Mdata(times)) = (key, value) {
                node.ctime = node.ctime.max(times.ctime);
                continue;
            }
            let value = value.as_bytes().ok_or(Errno::EINVAL)?;
            match (flags, node.xattrs.contains_key(key)) {
                (XATTR_CREATE, true) => return Err(Errno::EEXIST),
                (XATTR_REPLACE, false) => return Err(Errno::ENODATA),
                _ => {}
            }
            node.xattrs.insert(key.to_owned(), value.clone());
            node.ctime = time;
        }
        Ok(ack())
    }

    fn remove_xattr(&mut self, gfid: Gfid, name: &[u8], time: Timespec) -> Result<Reply, Errno> {
        let name = std::str::from_utf8(name).map_err(|_| Errno::EINVAL)?;
        self.tree.get(gfid)?;
        self.remember();
        let node = self.tree.get_mut(gfid)?;
        node.xattrs.remove(name).ok_or(Errno::ENODATA)?;
        node.ctime = time;
        Ok(ack())
    }

    fn get_xattr(&self, brick: &str, gfid: Gfid, name: Option<&Bytes>) -> Result<Reply, Errno> {
        let node = self.tree.get(gfid)?;
        let mut dict = Dict::new();
        match name.map(|name| String::from_utf8_lossy(name).into_owned()) {
            None => {
                for (key, value) in &node.xattrs {
                    dict.set(key.clone(), Value::Ptr(value.clone()));
                }
            }
            Some(name) if name == keys::PATHINFO => {
                dict.set(name, Value::str(format!("<POSIX(/{brick}):sim-{brick}:/{brick}/x>")));
            }
            Some(name) if name == "glusterfs.ancestry.path" => {
                let path = self.tree.path(gfid).filter(|_| node.is_dir()).ok_or(Errno::ENODATA)?;
                dict.set(name, Value::str(path));
            }
            Some(name) => match self.index_gfid(&name) {
                Some(gfid) => dict.set(name, Value::Gfid(gfid)),
                None => {
                    let value = node.xattrs.get(&name).ok_or(Errno::ENODATA)?.clone();
                    dict.set(name, Value::Ptr(value));
                }
            },
        }
        Ok(DictReply { len: dict.iter().count() as u32, dict: Some(dict), xdata: None }.into())
    }

    fn xattrop(&mut self, gfid: Gfid, op: XattropOp, dict: Option<Dict>, xdata: Option<&Dict>) -> Result<Reply, Errno> {
        if op != XattropOp::AddArray {
            return Err(Errno::EOPNOTSUPP);
        }
        let dict = self.add_arrays(gfid, &dict.ok_or(Errno::EINVAL)?, xdata)?;
        Ok(DictReply { len: 0, dict: Some(dict), xdata: None }.into())
    }

    /// Directories of the simulation are small: one page holds all.
    fn list(&self, gfid: Gfid, offset: u64) -> Result<Vec<(Dirent, Iatt)>, Errno> {
        let named: Vec<(Bytes, Option<&Node>)> = match self.virtual_of(gfid) {
            Some(dir) => self.virtual_names(dir).into_iter().map(|name| (name, None)).collect(),
            None => {
                let entries = &self.tree.dir(gfid)?.entries;
                entries.iter().map(|(name, gfid)| (name.clone(), self.tree.get(*gfid).ok())).collect()
            }
        };
        let entry = |(place, (name, node)): (usize, (Bytes, Option<&Node>))| {
            let stat = node.map(Node::iatt).unwrap_or_default();
            let kind = stat.file_type().map_or(0, FileType::dirent_type);
            (Dirent { ino: stat.ino, offset: place as u64 + 1, kind, name }, stat)
        };
        Ok(named.into_iter().enumerate().skip(at(offset)).map(entry).collect())
    }
}

fn ack() -> Reply {
    AckReply { xdata: None }.into()
}

fn at(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

fn put(node: &mut Node, offset: u64, data: &[u8]) {
    let start = at(offset);
    let end = start + data.len();
    if node.data.len() < end {
        node.data.resize(end, 0);
    }
    node.data[start..end].copy_from_slice(data);
}
