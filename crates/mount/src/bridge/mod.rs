//! The translation itself: a request of the kernel becomes fops, their outcome becomes its answer.
//!
//! One method per operation, grouped by what they are about. Nothing here waits except for the volume; no lock is held
//! while it does.

pub mod ahead;
mod attributes;
mod directory;
mod entries;
mod files;
mod locking;
mod touched;
mod walk;
mod xattrs;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mortar_types::{Context, Errno, Failure, Fops, Gfid, Iatt, LkOwner, Pid};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use crate::attr::{InodeNumbers, attr};
use crate::changes::Changes;
use crate::groups::GroupCache;
use crate::handles::{DirHandle, FileHandle, HandleTable};
use crate::kernel::reply::{Answer, Body, Entry, Validity};
use crate::kernel::request::{Header, Operation, Request};
use crate::locks::LockBook;
use crate::nodes::{NodeId, NodeTable, Place};
use walk::Walks;

/// When the page cache is by-passed (option `direct-io-mode`).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum DirectIo {
    /// As the application opens the file.
    #[default]
    Asked,
    /// Always.
    Always,
}

/// What users may choose about the translation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    pub attribute_timeout: Duration,
    pub entry_timeout: Duration,
    /// How long the kernel may believe that a name does not exist.
    pub negative_timeout: Duration,
    /// How long a caller's supplementary groups are believed.
    pub gid_timeout: Duration,
    pub direct_io: DirectIo,
    /// Cached data survives an open; needs automatic invalidation by mtime.
    pub keep_cache: bool,
    pub writeback_cache: bool,
    pub inode_numbers: InodeNumbers,
    /// POSIX ACLs are served, and the kernel enforces them.
    pub acl: bool,
    /// `security.selinux` is served.
    pub selinux: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            attribute_timeout: Duration::from_secs(1),
            entry_timeout: Duration::from_secs(1),
            negative_timeout: Duration::ZERO,
            gid_timeout: Duration::from_secs(2),
            direct_io: DirectIo::Asked,
            keep_cache: true,
            writeback_cache: false,
            inode_numbers: InodeNumbers::Wide,
            acl: false,
            selinux: false,
        }
    }
}

/// What an answer gives the kernel to keep; taken back when the answer does not reach it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Grant {
    Nothing,
    /// A lookup of each of these nodes.
    Lookups(Vec<NodeId>),
    Lookup(NodeId),
    File(u64),
    Dir(u64),
    Created(NodeId, u64),
}

/// An answer and what it grants.
#[derive(Clone, PartialEq, Debug)]
pub struct Response {
    pub answer: Answer,
    pub grant: Grant,
}

impl Response {
    const fn empty() -> Self {
        Self::answer(Answer::empty())
    }

    /// The request came to nothing.
    pub const fn failed(errno: Errno) -> Self {
        Self::answer(Answer::Error(for_kernel(errno)))
    }

    const fn answer(answer: Answer) -> Self {
        Self { answer, grant: Grant::Nothing }
    }

    const fn body(body: Body) -> Self {
        Self::answer(Answer::Body(body))
    }
}

/// What an operation comes to.
type Result<T> = std::result::Result<T, Errno>;

/// Signals that the caller of a waiting request was interrupted.
pub type Interrupted = oneshot::Receiver<()>;

/// The adapter of one mount.
pub struct Bridge {
    volume: Arc<dyn Fops>,
    config: Config,
    nodes: NodeTable,
    handles: HandleTable,
    locks: LockBook,
    groups: GroupCache,
    /// What entries fetched ahead must be compared with.
    changes: Arc<Changes>,
    walks: Walks,
    /// Work that no caller waits for; finished before the mount ends.
    background: TaskTracker,
}

impl std::fmt::Debug for Bridge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bridge").field("volume", &self.volume.name()).finish_non_exhaustive()
    }
}

impl Bridge {
    /// Serves `volume` from its inode `root` on.
    pub fn new(volume: Arc<dyn Fops>, root: Gfid, config: Config) -> Self {
        let groups = GroupCache::new(config.gid_timeout);
        Self {
            volume,
            nodes: NodeTable::new(root),
            handles: HandleTable::default(),
            locks: LockBook::default(),
            groups,
            changes: Arc::default(),
            walks: Walks::default(),
            background: TaskTracker::new(),
            config,
        }
    }

    pub const fn nodes(&self) -> &NodeTable {
        &self.nodes
    }

    /// Where changes that this mount did not make itself are noted.
    pub const fn changes(&self) -> &Arc<Changes> {
        &self.changes
    }

    /// Answers a request. `interrupted` is there for requests that may wait for somebody else's lock.
    pub async fn respond(self: &Arc<Self>, request: Request, interrupted: Option<Interrupted>) -> Response {
        let Request { header, operation } = request;
        let change = self.change_by(&header, &operation);
        let outcome = self.perform(&header, operation, interrupted).await;
        // Failed or not: part of it may be done.
        if let Some(change) = change {
            self.changes.note(change);
        }
        match outcome {
            Ok(response) => response,
            Err(errno) => Response::failed(errno),
        }
    }

    /// FORGET and BATCH_FORGET: the only requests that neither need the volume nor have a reply.
    pub fn forget(&self, request: &Request) {
        match &request.operation {
            Operation::Forget { lookups } => self.nodes.forget(NodeId(request.header.node), *lookups),
            Operation::BatchForget { nodes } => {
                nodes.iter().for_each(|(node, lookups)| self.nodes.forget(NodeId(*node), *lookups));
            }
            _ => {}
        }
    }

    /// Takes back what an answer granted that the kernel did not receive.
    pub fn revoke(self: &Arc<Self>, grant: Grant) {
        match grant {
            Grant::Nothing => {}
            Grant::Lookup(node) => self.nodes.forget(node, 1),
            Grant::Lookups(nodes) => nodes.into_iter().for_each(|node| self.nodes.forget(node, 1)),
            Grant::File(handle) => self.release(handle),
            Grant::Dir(handle) => self.releasedir(handle),
            Grant::Created(node, handle) => {
                self.release(handle);
                self.nodes.forget(node, 1);
            }
        }
    }

    /// Closes what is open and waits for the work that nobody waited for. To be called when the mount is gone: umount(8)
    /// does not wait for the kernel's last RELEASE, which may be lost with the mount.
    pub async fn finish(self: &Arc<Self>) {
        let (files, directories) = self.handles.all();
        files.into_iter().for_each(|handle| self.release(handle));
        directories.into_iter().for_each(|handle| self.releasedir(handle));
        self.background.close();
        self.background.wait().await;
    }

    async fn perform(
        self: &Arc<Self>,
        header: &Header,
        operation: Operation,
        interrupted: Option<Interrupted>,
    ) -> Result<Response> {
        let node = NodeId(header.node);
        let gfid = self.nodes.gfid(node).ok_or(Errno::ESTALE);
        let context = || self.context(header);
        match operation {
            Operation::Lookup { name } => self.lookup(&context(), node, gfid?, name).await,
            Operation::Getattr { fh } => self.getattr(&context(), node, gfid?, fh).await,
            Operation::Setattr(change) => self.setattr(&context(), node, gfid?, &change).await,
            Operation::Readlink => self.readlink(&context(), gfid?).await,
            Operation::Symlink { name, target } => self.symlink(&context(), node, gfid?, name, target).await,
            Operation::Mknod { mode, rdev, umask, name } => {
                self.mknod(&context(), node, gfid?, name, (mode, umask, rdev)).await
            }
            Operation::Mkdir { mode, umask, name } => self.mkdir(&context(), node, gfid?, name, (mode, umask)).await,
            Operation::Unlink { name } => self.unlink(&context(), gfid?, name).await,
            Operation::Rmdir { name } => self.rmdir(&context(), gfid?, name).await,
            Operation::Rename { new_parent, flags, name, new_name } => {
                let new_parent = self.nodes.gfid(NodeId(new_parent)).ok_or(Errno::ESTALE)?;
                self.rename(&context(), (gfid?, name), (new_parent, new_name), flags).await
            }
            Operation::Link { old_node, name } => self.link(&context(), NodeId(old_node), node, gfid?, name).await,
            Operation::Open { flags, open_flags } => self.open(&context(), node, gfid?, flags, open_flags).await,
            Operation::Create { flags, mode, umask, name, .. } => {
                self.create(&context(), node, gfid?, name, flags, (mode, umask)).await
            }
            Operation::Read { fh, offset, size, lock_owner } => {
                self.read(&owned(context(), lock_owner), fh, offset, size).await
            }
            Operation::Write { fh, offset, write_flags, lock_owner, data } => {
                self.write(&owned(context(), lock_owner), fh, offset, write_flags, data).await
            }
            Operation::Statfs => self.statfs(&context(), gfid?).await,
            Operation::Release { fh, .. } => {
                self.release(fh);
                Ok(Response::empty())
            }
            Operation::Flush { fh, lock_owner } => self.flush(&context(), fh, lock_owner).await,
            Operation::Fsync { fh, datasync } => self.fsync(&context(), fh, datasync).await,
            Operation::Opendir => self.opendir(&context(), gfid?).await,
            Operation::Readdir { fh, offset, size, plus } => {
                self.readdir(&context(), node, fh, offset, size, plus).await
            }
            Operation::Releasedir { fh } => {
                self.releasedir(fh);
                Ok(Response::empty())
            }
            Operation::Fsyncdir { fh, datasync } => self.fsyncdir(&context(), fh, datasync).await,
            Operation::Setxattr { flags, name, value } => {
                self.setxattr(&context(), node, gfid?, flags, &name, value).await
            }
            Operation::Getxattr { size, name } => self.getxattr(&context(), node, gfid?, &name, size).await,
            Operation::Listxattr { size } => self.listxattr(&context(), node, gfid?, size).await,
            Operation::Removexattr { name } => self.removexattr(&context(), node, gfid?, name).await,
            Operation::Access { mask } => self.access(&context(), gfid?, mask).await,
            Operation::Getlk(lock) => self.getlk(&context(), &lock).await,
            Operation::Setlk { lock, wait } => self.setlk(&context(), lock, wait, interrupted).await,
            Operation::Fallocate { fh, offset, length, mode } => {
                self.fallocate(&context(), fh, offset, length, mode).await
            }
            Operation::Lseek { fh, offset, whence } => self.lseek(&context(), fh, offset, whence).await,
            Operation::CopyFileRange { fh_in, offset_in, fh_out, offset_out, length, flags, .. } => {
                self.copy_file_range(&context(), (fh_in, offset_in), (fh_out, offset_out), length, flags).await
            }
            Operation::Forget { .. }
            | Operation::BatchForget { .. }
            | Operation::Interrupt { .. }
            | Operation::Destroy => Ok(Response::answer(Answer::None)),
            Operation::Ioctl => Err(Errno::ENOTTY),
            Operation::Bmap | Operation::Unknown => Err(Errno::ENOSYS),
        }
    }

    /// Who asks.
    fn context(&self, header: &Header) -> Context {
        Context {
            pid: Pid(header.pid.cast_signed()),
            uid: header.uid,
            gid: header.gid,
            groups: self.groups.groups(header.pid, header.uid, header.gid),
            ..Context::default()
        }
    }

    /// The entry of an inode that the volume reported under a name; counts a lookup.
    fn entry(&self, parent: NodeId, name: &Bytes, stat: &Iatt) -> Result<Entry> {
        let place = Place { parent, name: name.clone() };
        if stat.gfid.is_null() || stat.file_type().is_none() {
            return Err(Errno::EIO);
        }
        let node = self.nodes.looked_up(stat.gfid, stat.mode, Some(place));
        Ok(Entry {
            node: node.0,
            generation: 0,
            entry_valid: self.config.entry_timeout.into(),
            attr_valid: self.config.attribute_timeout.into(),
            attr: attr(stat, self.config.inode_numbers),
        })
    }

    fn entry_response(&self, parent: NodeId, name: &Bytes, stat: &Iatt) -> Result<Response> {
        let entry = self.entry(parent, name, stat)?;
        Ok(Response { answer: Answer::Body(Body::entry(&entry)), grant: Grant::Lookup(NodeId(entry.node)) })
    }

    /// The attributes of a node, also when the reply left its gfid out.
    fn attributes(&self, gfid: Gfid, stat: &Iatt) -> Response {
        let stat = Iatt { gfid: if stat.gfid.is_null() { gfid } else { stat.gfid }, ..*stat };
        let valid = Validity::from(self.config.attribute_timeout);
        Response::body(Body::attributes(valid, &attr(&stat, self.config.inode_numbers)))
    }

    fn file(&self, handle: u64) -> Result<Arc<FileHandle>> {
        self.handles.file(handle).ok_or(Errno::EBADF)
    }

    fn dir(&self, handle: u64) -> Result<Arc<DirHandle>> {
        self.handles.dir(handle).ok_or(Errno::EBADF)
    }

    /// An open file of the node, for an operation whose inode lost its last name: `gone` is how the attempt by gfid
    /// failed, and comes back when there is no open file.
    fn open_file(&self, node: NodeId, gone: Failure) -> Result<Arc<FileHandle>> {
        if !matches!(gone.errno, Errno::ENOENT | Errno::ESTALE) {
            return Err(gone.errno);
        }
        self.nodes.any_open(node).and_then(|handle| self.handles.file(handle)).ok_or(gone.errno)
    }
}

/// The caller with the lock owner that the kernel named.
fn owned(context: Context, lock_owner: Option<u64>) -> Context {
    match lock_owner {
        Some(owner) => Context { lk_owner: LkOwner::from_u64(owner), ..context },
        None => context,
    }
}

/// A name that fits a directory entry. The kernel lets through up to 1024 bytes.
fn checked(name: Bytes) -> Result<Bytes> {
    if name.len() > mortar_types::EntryName::BYTES_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    Ok(name)
}

/// The errno of a failure.
#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn errno(failure: Failure) -> Errno {
    failure.errno
}

/// The kernel takes 1 to 511 (`fuse_dev_do_write`); other numbers come from peers that mean something else by them.
const fn for_kernel(errno: Errno) -> Errno {
    if errno.0 >= 1 && errno.0 < 512 { errno } else { Errno::EIO }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_the_kernel_refuses_become_eio() {
        assert_eq!(for_kernel(Errno::ENOENT), Errno::ENOENT);
        assert_eq!(for_kernel(Errno(0)), Errno::EIO);
        assert_eq!(for_kernel(Errno(-2)), Errno::EIO);
        assert_eq!(for_kernel(Errno(512)), Errno::EIO);
    }

    #[test]
    fn a_name_of_256_bytes_is_too_long() {
        assert!(checked(Bytes::from(vec![b'x'; 255])).is_ok());
        assert_eq!(checked(Bytes::from(vec![b'x'; 256])), Err(Errno::ENAMETOOLONG));
    }
}
