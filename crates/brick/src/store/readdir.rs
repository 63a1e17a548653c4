//! OPENDIR, READDIR, READDIRP and FSYNCDIR.
//!
//! Positions (d_off) are the kernel's own: they stay valid across fds, connections and restarts of the brick, they increase in
//! listing order on ext4 and XFS, and an entry that is neither made nor removed during a listing appears exactly once. What
//! the kernel gives beyond one reply is kept with the fd, so that a listing in order costs no seeks.

use std::os::fd::AsFd;
use std::sync::Arc;

use bytes::BytesMut;
use mortar_sys::dirents;
use mortar_sys::{Loc, Result, at, file};
use mortar_types::fop::{
    AckReply, Dirent, DirentPlus, Fsyncdir, OpenReply, Opendir, Readdir, ReaddirReply, Readdirp, ReaddirpReply,
};
use mortar_types::keys::GET_GFID_TYPE;
use mortar_types::{Context, Dict, EntryName, Errno, Fd, Gfid, Iatt, Outcome, Value};

use super::answers::Subject;
use super::brick::Brick;
use super::fds::{DirStream, Listed, Open, OpenDir, OpenIndex};
use super::handle::HIDDEN_DIR;
use super::known;
use super::permission::Want;
use super::resolve::{Parent, gfid_of, is_dir};

/// Bytes that an entry takes in a reply beside its name (`gfx_dirlist`, `gfx_dirplist`: with 148 bytes of attributes).
const ENTRY_BYTES: usize = 32;
const ENTRY_PLUS_BYTES: usize = 200;
/// The most that one reply lists whatever the client asks for; FUSE asks 128 KiB.
const REPLY_BYTES_MAX: usize = 1024 * 1024;

const FILTER_DIRECTORIES: &str = "readdir-filter-directories";

impl Brick {
    pub(crate) fn opendir(&self, ctx: &Context, request: &Opendir) -> Outcome<OpenReply> {
        if let Some(dir) = self.index.virtual_dir(request.gfid) {
            let fd = self.index.open(dir)?;
            let open = Open::Index(Arc::new(OpenIndex { dir, fd }));
            return Ok(OpenReply { fd: self.fds.insert(open), xdata: None });
        }
        let node = self.node(request.gfid)?;
        let fd = node.dir()?;
        if !super::permission::is_privileged(ctx) {
            let loc = node.loc(self);
            self.permit(ctx, loc, &loc.stat()?, Want::READ)?;
        }
        let dir = at::open_dir(fd.as_fd(), b".")?;
        node.inode.count_open();
        let open = OpenDir { inode: node.inode, dir, stream: parking_lot::Mutex::new(DirStream::default()) };
        Ok(OpenReply { fd: self.fds.insert(Open::Dir(Arc::new(open))), xdata: None })
    }

    /// The open directory, one made for this call for the anonymous fd.
    fn open_dir_of(&self, gfid: Gfid, fd: Fd) -> Result<Open> {
        if !fd.is_anonymous() {
            return self.fds.get(fd);
        }
        let node = self.find(gfid)?;
        let dir = at::open_dir(node.dir()?.as_fd(), b".")?;
        let stream = parking_lot::Mutex::new(DirStream::default());
        Ok(Open::Dir(Arc::new(OpenDir { inode: node.inode, dir, stream })))
    }

    pub(crate) fn readdir(&self, request: &Readdir) -> Outcome<ReaddirReply> {
        let open = match self.open_dir_of(request.gfid, request.fd)? {
            Open::Dir(open) => open,
            Open::Index(open) => return Ok(self.readdir_index(&open, request)?),
            Open::File(_) => return Err(Errno::ENOTDIR.into()),
        };
        let listing = Listing { brick: self, open: &open, now: known::now() };
        let mut entries = Vec::new();
        let eof = listing.walk(request.offset, request.size, ENTRY_BYTES, |parent, entry| {
            let gfid = listing.gfid_of_entry(parent, &entry);
            entries.push(listing.dirent(entry, gfid));
            Ok(0)
        })?;
        Ok(ReaddirReply { entries, eof, xdata: None })
    }

    pub(crate) fn readdirp(&self, request: &Readdirp) -> Outcome<ReaddirpReply> {
        let open = match self.open_dir_of(request.gfid, request.fd)? {
            Open::Dir(open) => open,
            Open::Index(open) => return Ok(self.readdirp_index(&open, request)?),
            Open::File(_) => return Err(Errno::ENOTDIR.into()),
        };
        let skip_dirs = request
            .xdata
            .as_ref()
            .is_some_and(|xdata| xdata.get(FILTER_DIRECTORIES).is_some_and(|value| value.as_i64() != Some(0)));
        let listing = Listing { brick: self, open: &open, now: known::now() };
        let mut entries = Vec::new();
        let eof = listing.walk(request.offset, request.size, ENTRY_PLUS_BYTES, |parent, entry| {
            let (entry, extra) = listing.dirent_plus(parent, entry, request.xdata.as_ref())?;
            if !(skip_dirs && entry.stat.is_dir()) {
                entries.push(entry);
            }
            Ok(extra)
        })?;
        Ok(ReaddirpReply { entries, eof, xdata: None })
    }

    /// Names in a directory reach the disk: more than GlusterFS 10 does, which answers without doing anything.
    pub(crate) fn fsyncdir(&self, request: &Fsyncdir) -> Outcome<AckReply> {
        match self.open_dir_of(request.gfid, request.fd)? {
            Open::Dir(open) => file::fsync(open.dir.as_fd())?,
            Open::Index(open) => file::fsync(open.fd.as_fd())?,
            Open::File(_) => return Err(Errno::ENOTDIR.into()),
        }
        Ok(AckReply { xdata: None })
    }

    fn readdir_index(&self, open: &OpenIndex, request: &Readdir) -> Result<ReaddirReply> {
        let with_type = request.xdata.as_ref().is_some_and(|xdata| xdata.contains(GET_GFID_TYPE));
        let (mut entries, eof) = self.list_index(open, request.offset, request.size)?;
        for entry in &mut entries {
            entry.kind = if with_type { self.kind_of_indexed(&entry.name) } else { 0 };
        }
        Ok(ReaddirReply { entries, eof, xdata: None })
    }

    fn readdirp_index(&self, open: &OpenIndex, request: &Readdirp) -> Result<ReaddirpReply> {
        let (entries, eof) = self.list_index(open, request.offset, request.size)?;
        let plain = |entry| DirentPlus { entry, stat: Iatt::default(), xdata: None };
        Ok(ReaddirpReply { entries: entries.into_iter().map(plain).collect(), eof, xdata: None })
    }

    fn list_index(&self, open: &OpenIndex, offset: u64, size: u32) -> Result<(Vec<Dirent>, bool)> {
        let mut room = (size as usize).min(REPLY_BYTES_MAX);
        let mut entries = Vec::new();
        let ended = dirents::list(open.fd.as_fd(), offset, |entry| {
            if !self.index.is_entry(open.dir, &entry.name) {
                return true;
            }
            let bytes = ENTRY_BYTES + entry.name.len();
            if bytes > room {
                return false;
            }
            room -= bytes;
            entries.push(Dirent { ino: entry.ino, offset: entry.next, kind: 0, name: entry.name.into() });
            true
        })?;
        Ok((entries, ended))
    }

    /// `DT_*` of the inode that an index entry names, 0 when it is no more (or in `entry-changes`, where names are names).
    fn kind_of_indexed(&self, name: &[u8]) -> u32 {
        let Some(gfid) = super::handle::parse_gfid(name) else { return 0 };
        let stat = self.find(gfid).and_then(|node| node.loc(self).stat());
        stat.map_or(0, |stat| (stat.st_mode & super::resolve::S_IFMT) >> 12)
    }
}

/// A listing under way.
struct Listing<'a> {
    brick: &'a Brick,
    open: &'a OpenDir,
    /// When it began, seconds.
    now: i64,
}

impl Listing<'_> {
    /// Feeds entries from `offset` on to `take`, which returns what the entry adds to the fixed size, until `size` bytes are
    /// filled. Returns whether the directory has nothing more.
    fn walk(
        &self,
        offset: u64,
        size: u32,
        entry_bytes: usize,
        mut take: impl FnMut(&Parent, Listed) -> Result<usize>,
    ) -> Result<bool> {
        let parent = self.parent()?;
        let mut room = (size as usize).min(REPLY_BYTES_MAX);
        let mut stream = self.open.stream.lock();
        if stream.at != offset {
            *stream = DirStream { at: offset, ..DirStream::default() };
        }
        loop {
            let Some(entry) = stream.waiting.pop_front() else {
                if stream.ended {
                    // Forgotten, so that asking again at the end sees what was added since.
                    stream.ended = false;
                    return Ok(true);
                }
                self.fetch(&mut stream)?;
                continue;
            };
            let bytes = entry_bytes + entry.name.len();
            if bytes > room {
                stream.waiting.push_front(entry);
                return Ok(false);
            }
            stream.at = entry.next;
            if self.is_hidden(&entry) {
                continue;
            }
            let extra = take(&parent, entry)?;
            room = room.saturating_sub(bytes + extra);
        }
    }

    fn fetch(&self, stream: &mut DirStream) -> Result<()> {
        let (mut names, mut lengths) = (BytesMut::new(), Vec::new());
        stream.ended = dirents::portion(self.open.dir.as_fd(), stream.at, |entry| {
            names.extend_from_slice(entry.name);
            lengths.push((entry.name.len(), entry.ino, entry.kind, entry.next));
        })?;
        let mut names = names.freeze();
        let listed = lengths.into_iter().map(|(length, ino, kind, next)| Listed {
            name: names.split_to(length),
            ino,
            kind,
            next,
        });
        stream.waiting.extend(listed);
        Ok(())
    }

    fn parent(&self) -> Result<Parent> {
        let inode = self.open.inode.clone();
        let known = inode.memory().dir.clone();
        let fd = match known {
            Some(fd) => fd,
            // Removed while it is being listed, or forgotten: the open directory itself will do.
            None => Arc::new(at::open_dir(self.open.dir.as_fd(), b".")?),
        };
        Ok(Parent { inode, fd })
    }

    fn is_hidden(&self, entry: &Listed) -> bool {
        self.open.inode.gfid.is_root() && entry.name == HIDDEN_DIR
    }

    /// The gfid of an entry, null when it has none (or is gone).
    fn gfid_of_entry(&self, parent: &Parent, entry: &Listed) -> Gfid {
        match &entry.name[..] {
            b"." => parent.gfid(),
            b".." if parent.gfid().is_root() => Gfid::ROOT,
            b".." => self.brick.dir_handle(parent.gfid()).map_or(Gfid::NULL, |handle| handle.parent),
            name => gfid_of(Loc::At(parent.fd.as_fd(), name)).ok().flatten().unwrap_or(Gfid::NULL),
        }
    }

    fn dirent(&self, entry: Listed, gfid: Gfid) -> Dirent {
        let ino = if gfid.is_null() { entry.ino } else { gfid.ino() };
        Dirent { ino, offset: entry.next, kind: entry.kind, name: entry.name }
    }

    /// An entry with its attributes and answers, and the bytes that those answers add. Empty attributes tell the client to
    /// look the name up: for `..`, for what is gone meanwhile, for what has no gfid.
    fn dirent_plus(&self, parent: &Parent, entry: Listed, request: Option<&Dict>) -> Result<(DirentPlus, usize)> {
        if matches!(&entry.name[..], b"." | b"..") {
            return self.dots_plus(parent, entry, request);
        }
        // A reference to the name, not a copy: the entry itself goes into the reply.
        let name = entry.name.clone();
        let loc = Loc::At(parent.fd.as_fd(), &name);
        let Ok(stat) = loc.stat() else { return Ok((self.without_stat(entry, Gfid::NULL), 0)) };
        if let Some(known) = self.brick.known.get(&stat) {
            let iatt = self.brick.iatt_with(known.gfid, known.times.as_ref(), &stat);
            if request.is_none() {
                return Ok((self.with_stat(entry, iatt, Dict::new()), 0));
            }
            let inode = self.brick.inodes.get(known.gfid);
            return self.answered(entry, iatt, &Subject { inode: &inode, loc, stat: &stat }, request);
        }
        let gfid = self.gfid_of_entry(parent, &entry);
        if gfid.is_null() {
            return Ok((self.without_stat(entry, gfid), 0));
        }
        let inode = self.brick.inodes.get(gfid);
        if let Ok(name) = EntryName::new(name.clone()) {
            self.brick.check_handle(&inode, parent, &name, &stat)?;
        }
        let iatt = self.brick.iatt_from(&inode, loc, &stat);
        self.brick.remember(&inode, &stat, self.now);
        self.answered(entry, iatt, &Subject { inode: &inode, loc, stat: &stat }, request)
    }

    fn dots_plus(&self, parent: &Parent, entry: Listed, request: Option<&Dict>) -> Result<(DirentPlus, usize)> {
        let gfid = self.gfid_of_entry(parent, &entry);
        if entry.name == b".."[..] {
            return Ok((self.without_stat(entry, gfid), 0));
        }
        let loc = parent.loc();
        let Ok(stat) = loc.stat() else { return Ok((self.without_stat(entry, gfid), 0)) };
        let iatt = self.brick.iatt_from(&parent.inode, loc, &stat);
        self.answered(entry, iatt, &Subject { inode: &parent.inode, loc, stat: &stat }, request)
    }

    fn answered(
        &self,
        entry: Listed,
        iatt: Iatt,
        subject: &Subject<'_>,
        request: Option<&Dict>,
    ) -> Result<(DirentPlus, usize)> {
        debug_assert_eq!(iatt.is_dir(), is_dir(subject.stat));
        let xdata = self.brick.answer(subject, request)?;
        let extra = xdata.iter().map(|(key, value)| key.len() + value_bytes(value)).sum();
        Ok((self.with_stat(entry, iatt, xdata), extra))
    }

    fn with_stat(&self, entry: Listed, stat: Iatt, xdata: Dict) -> DirentPlus {
        DirentPlus { entry: self.dirent(entry, stat.gfid), stat, xdata: Some(xdata) }
    }

    fn without_stat(&self, entry: Listed, gfid: Gfid) -> DirentPlus {
        DirentPlus { entry: self.dirent(entry, gfid), stat: Iatt::default(), xdata: None }
    }
}

/// About what a value takes on the wire.
fn value_bytes(value: &Value) -> usize {
    const PAIR_OVERHEAD: usize = 16;
    PAIR_OVERHEAD + value.as_bytes().map_or(8, bytes::Bytes::len)
}
