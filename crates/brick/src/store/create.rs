//! CREATE, MKNOD, MKDIR, SYMLINK, LINK and PUT.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use mortar_sys::at::{self, OpenFlags};
use mortar_sys::xattr::SetMode;
use mortar_sys::{Loc, Result, file};
use mortar_types::fop::{Create, CreateReply, EntryReply, Link, Mkdir, Mknod, Put, Symlink};
use mortar_types::keys::FORCE_REPLACE;
use mortar_types::{Context, Dict, EntryName, Errno, Fd, Iatt, Outcome};

use super::brick::Brick;
use super::creation::{Creation, existing_file_error};
use super::fds::{Open, OpenFile};
use super::handle::HandlePath;
use super::inode::Inode;
use super::open_flags;
use super::permission::Want;
use super::remove::is_linkto;
use super::resolve::{Parent, Place, S_IFMT, S_IFREG};

/// Links beyond which no more are noted in gfid2path xattrs: they would not fit (`posix-entry-ops.c: posix_link`).
const NOTED_LINKS_MAX: u64 = 500;

const O_EXCL: u32 = 0o200;

impl Brick {
    pub(crate) fn create(&self, ctx: &Context, request: Create) -> Outcome<CreateReply> {
        let creation = self.prepare_creation(ctx, request.parent, request.name, request.xdata.as_ref())?;
        let mode = self.creation_mode(&creation, request.mode & 0o7777, request.umask)?;
        let _entries = creation.parent.inode.lock_entries();
        let serial = creation.inode.serialise();
        let (inode, file, stat) = match self.create_file(&creation, request.flags, mode) {
            Ok((file, stat)) => (creation.inode.clone(), file, stat),
            Err(Errno::EEXIST) if request.flags & O_EXCL == 0 => {
                drop(serial);
                return self.open_existing(&creation, request.flags);
            }
            Err(error) => return Err(error.into()),
        };
        let entry = self.finish_creation(&creation, stat)?;
        let fd = self.add_file(inode, file, request.flags);
        Ok(CreateReply { fd, stat, preparent: entry.preparent, postparent: entry.postparent, xdata: None })
    }

    /// Makes a regular file without a name, dresses it, and then names it. EEXIST when the name is taken.
    fn create_file(&self, creation: &Creation<'_>, flags: u32, mode: u32) -> Result<(OwnedFd, Iatt)> {
        let open = (open_flags::of_client(flags) - OpenFlags::TRUNC - OpenFlags::ACCMODE) | OpenFlags::RDWR;
        let file = match at::open_unnamed(creation.parent.fd.as_fd(), open, mode) {
            Ok(file) => file,
            Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL) => return self.create_named(creation, open, mode),
            Err(error) => return Err(error),
        };
        let loc = Loc::Fd(file.as_fd());
        self.dress(creation, loc, mode, false)?;
        self.publish(creation, file.as_fd())?;
        let stat = self.iatt(&creation.inode, loc)?;
        Ok((file, stat))
    }

    /// For file systems without unnamed files: the name comes first. After a crash the file may lack its gfid, which a lookup
    /// with `gfid-req` gives it, or its handle, which any lookup by name makes.
    fn create_named(&self, creation: &Creation<'_>, flags: OpenFlags, mode: u32) -> Result<(OwnedFd, Iatt)> {
        let flags = flags | OpenFlags::CREATE | OpenFlags::EXCL;
        let file = at::open(creation.parent.fd.as_fd(), creation.name.as_bytes(), flags, mode)?;
        let loc = Loc::Fd(file.as_fd());
        let made = self.dress(creation, loc, mode, false).and_then(|()| self.link_named(creation));
        if let Err(error) = made {
            at::unlink(creation.parent.fd.as_fd(), creation.name.as_bytes())?;
            return Err(error);
        }
        let stat = self.iatt(&creation.inode, loc)?;
        Ok((file, stat))
    }

    /// The handle of a file that has its name.
    fn link_named(&self, creation: &Creation<'_>) -> Result<()> {
        self.make_new_handle(&creation.inode, |path| {
            at::link(creation.parent.fd.as_fd(), creation.name.as_bytes(), self.root_fd(), path.as_bytes())
        })
    }

    /// CREATE of a name that is there, without O_EXCL: opens it.
    fn open_existing(&self, creation: &Creation<'_>, flags: u32) -> Outcome<CreateReply> {
        let (parent, name) = (&creation.parent, &creation.name);
        let found = parent.at(name).stat()?;
        if let Some(error) = existing_file_error(&found) {
            return Err(error.into());
        }
        let inode = self.identify(parent, name, &found, Some(creation.gfid()))?;
        self.permit(creation.ctx, parent.at(name), &found, Want::of_open(flags))?;
        let file = at::open(parent.fd.as_fd(), name.as_bytes(), open_flags::of_client(flags), 0)?;
        let stat = self.iatt(&inode, Loc::Fd(file.as_fd()))?;
        let postparent = self.iatt(&parent.inode, parent.loc())?;
        let fd = self.add_file(inode, file, flags);
        Ok(CreateReply { fd, stat, preparent: creation.preparent, postparent, xdata: None })
    }

    pub(crate) fn add_file(&self, inode: Arc<Inode>, file: OwnedFd, flags: u32) -> Fd {
        inode.count_open();
        let failures_at_open = inode.failures();
        self.fds.insert(Open::File(Arc::new(OpenFile { inode, file: Arc::new(file), flags, failures_at_open })))
    }

    pub(crate) fn mknod(&self, ctx: &Context, request: Mknod) -> Outcome<EntryReply> {
        let creation = self.prepare_creation(ctx, request.parent, request.name, request.xdata.as_ref())?;
        let kind = match request.mode & S_IFMT {
            0 => S_IFREG,
            kind => kind,
        };
        let mode = self.creation_mode(&creation, request.mode & 0o7777, request.umask)?;
        let _entries = creation.parent.inode.lock_entries();
        let _serial = creation.inode.serialise();
        if creation.is_internal()
            && let Some(stat) = self.link_living(&creation)?
        {
            return Ok(self.finish_creation(&creation, stat)?);
        }
        let stat = if kind == S_IFREG {
            self.create_file(&creation, 0, mode)?.1
        } else {
            self.make_special(&creation, kind | mode, request.dev)?
        };
        Ok(self.finish_creation(&creation, stat)?)
    }

    /// Heal makes a hard link by an internal MKNOD with the gfid of a file that is here under another name, or parked
    /// because it is open (`posix-entry-ops.c: posix_mknod`).
    fn link_living(&self, creation: &Creation<'_>) -> Result<Option<Iatt>> {
        let node = match self.find(creation.gfid()) {
            Ok(node) if !node.is_dir() => node,
            Ok(_) | Err(Errno::ENOENT | Errno::ESTALE) => return Ok(None),
            Err(error) => return Err(error),
        };
        if let Place::Unlinked(path) = &node.place {
            // Its handle first, so that it is never a name alone.
            let (root, handle) = (self.root_fd(), HandlePath::new(creation.gfid()));
            self.make_handle(&handle, |handle| at::rename(root, path, root, handle.as_bytes()))?;
        }
        let handle = HandlePath::new(creation.gfid());
        let (parent, name) = (&creation.parent, &creation.name);
        at::link(self.root_fd(), handle.as_bytes(), parent.fd.as_fd(), name.as_bytes())?;
        self.note_link(&creation.inode, parent.at(name), parent.gfid(), name);
        self.iatt(&creation.inode, parent.at(name)).map(Some)
    }

    /// A device, fifo or socket. Rare, so by the plain way of name first: see [`Self::create_named`].
    fn make_special(&self, creation: &Creation<'_>, mode: u32, dev: u64) -> Result<Iatt> {
        let (parent, name) = (&creation.parent, &creation.name);
        at::mknod(parent.fd.as_fd(), name.as_bytes(), mode, device(dev))?;
        let loc = parent.at(name);
        let made = self.dress(creation, loc, mode, false).and_then(|()| self.link_named(creation));
        if let Err(error) = made {
            at::unlink(parent.fd.as_fd(), name.as_bytes())?;
            return Err(error);
        }
        self.iatt(&creation.inode, loc)
    }

    pub(crate) fn mkdir(&self, ctx: &Context, request: Mkdir) -> Outcome<EntryReply> {
        let creation = self.prepare_creation(ctx, request.parent, request.name, request.xdata.as_ref())?;
        let mode = self.creation_mode(&creation, request.mode & 0o7777, request.umask)?;
        let (parent, name) = (&creation.parent, &creation.name);
        let _entries = parent.inode.lock_entries();
        let _serial = creation.inode.serialise();
        at::mkdir(parent.fd.as_fd(), name.as_bytes(), mode)?;
        match self.dress_dir(&creation, mode) {
            Ok(stat) => Ok(self.finish_creation(&creation, stat)?),
            Err(error) => {
                at::rmdir(parent.fd.as_fd(), name.as_bytes())?;
                Err(error.into())
            }
        }
    }

    fn dress_dir(&self, creation: &Creation<'_>, mode: u32) -> Result<Iatt> {
        let (parent, name) = (&creation.parent, &creation.name);
        let fd = Arc::new(at::open_dir(parent.fd.as_fd(), name.as_bytes())?);
        self.dress(creation, Loc::Fd(fd.as_fd()), mode, true)?;
        // A directory of this gfid elsewhere is an older one that heal has not moved: the new one wins.
        self.write_dir_handle(creation.gfid(), parent.gfid(), name)?;
        creation.inode.memory().dir = Some(fd.clone());
        self.iatt(&creation.inode, Loc::Fd(fd.as_fd()))
    }

    pub(crate) fn symlink(&self, ctx: &Context, request: Symlink) -> Outcome<EntryReply> {
        let creation = self.prepare_creation(ctx, request.parent, request.name, request.xdata.as_ref())?;
        let (parent, name) = (&creation.parent, &creation.name);
        let _entries = parent.inode.lock_entries();
        let _serial = creation.inode.serialise();
        // A link has no ACL to inherit, so it can be made as its handle and get its name when it is complete.
        self.make_new_handle(&creation.inode, |path| at::symlink(&request.target, self.root_fd(), path.as_bytes()))?;
        let handle = HandlePath::new(creation.gfid());
        let loc = Loc::At(self.root_fd(), handle.as_bytes());
        let named = self
            .dress_symlink(&creation, loc)
            .and_then(|()| at::link(self.root_fd(), handle.as_bytes(), parent.fd.as_fd(), name.as_bytes()));
        if let Err(error) = named {
            self.retire_handle(&creation.inode)?;
            return Err(error.into());
        }
        let stat = self.iatt(&creation.inode, loc)?;
        Ok(self.finish_creation(&creation, stat)?)
    }

    /// As [`Self::dress`]; the handle's folder hands no group down, so the owner is set whenever it is not root's.
    fn dress_symlink(&self, creation: &Creation<'_>, loc: Loc<'_>) -> Result<()> {
        self.dress(creation, loc, 0, false)?;
        if creation.parent_stat.st_mode & 0o2000 != 0 && creation.parent_stat.st_gid != 0 {
            at::chown(loc, None, Some(creation.parent_stat.st_gid))?;
        }
        Ok(())
    }

    pub(crate) fn link(&self, ctx: &Context, request: Link) -> Outcome<EntryReply> {
        let name = self.entry_name(request.new_parent, request.new_name)?;
        let node = self.node(request.gfid)?;
        if node.is_dir() {
            return Err(Errno::EPERM.into());
        }
        let parent = self.parent(request.new_parent)?;
        self.check_space(ctx, request.xdata.as_ref())?;
        let parent_stat = parent.loc().stat()?;
        self.permit(ctx, parent.loc(), &parent_stat, Want::CHANGE_ENTRIES)?;
        let preparent = self.iatt_from(&parent.inode, parent.loc(), &parent_stat);

        let _entries = parent.inode.lock_entries();
        if request.xdata.as_ref().is_some_and(|xdata| xdata.contains(FORCE_REPLACE)) {
            self.remove_linkto(&parent, &name)?;
        }
        let _serial = node.inode.serialise();
        let links = node.loc(self).stat()?.st_nlink;
        if self.options.max_hardlinks != 0 && links > u64::from(self.options.max_hardlinks) {
            return Err(Errno::EMLINK.into());
        }
        let Loc::At(root, path) = node.loc(self) else { return Err(Errno::EPERM.into()) };
        at::link(root, path, parent.fd.as_fd(), name.as_bytes())?;
        if let Place::Unlinked(path) = &node.place {
            let handle = HandlePath::new(request.gfid);
            self.make_handle(&handle, |handle| at::rename(root, path, root, handle.as_bytes()))?;
        }
        let loc = parent.at(&name);
        if links < NOTED_LINKS_MAX {
            self.note_link(&node.inode, loc, parent.gfid(), &name);
        }
        self.touch_self(ctx, &node.inode, loc);
        self.touch_parent(ctx, &parent.inode, parent.loc());
        Ok(EntryReply {
            stat: self.iatt(&node.inode, loc)?,
            preparent,
            postparent: self.iatt(&parent.inode, parent.loc())?,
            xdata: None,
        })
    }

    pub(crate) fn put(&self, ctx: &Context, request: Put) -> Outcome<EntryReply> {
        let creation = self.prepare_creation(ctx, request.parent, request.name, request.xdata.as_ref())?;
        let mode = self.creation_mode(&creation, request.mode & 0o7777, request.umask)?;
        let _entries = creation.parent.inode.lock_entries();
        let _serial = creation.inode.serialise();
        let (opened, _) = self.create_file(&creation, request.flags, mode)?;
        // The data comes after the name: on an error the client removes the entry, as GlusterFS's does.
        let written = file::write_at(opened.as_fd(), request.offset, &request.data)?;
        if written < request.data.len() {
            return Err(Errno::ENOSPC.into());
        }
        let loc = Loc::Fd(opened.as_fd());
        for (key, value) in request.xattr.iter().flat_map(Dict::iter) {
            self.set_one(&creation.inode, loc, key, value, SetMode::Any)?;
        }
        let stat = self.iatt(&creation.inode, loc)?;
        Ok(self.finish_creation(&creation, stat)?)
    }

    /// Removes a stale link file of distribute that stands where a real name must go.
    fn remove_linkto(&self, parent: &Parent, name: &EntryName) -> Result<()> {
        match parent.at(name).stat() {
            Ok(stat) if is_linkto(&stat, parent.at(name))? => self.remove_file_entry(parent, name, &stat).map(drop),
            Ok(_) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// A device number from the wire (Linux's 32-bit encoding) in the form the system call takes.
fn device(dev: u64) -> u64 {
    let (major, minor) = ((dev >> 8) & 0xfff, (dev & 0xff) | ((dev >> 12) & 0xf_ff00));
    rustix::fs::makedev(major as u32, minor as u32)
}
