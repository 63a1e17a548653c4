//! The store: one directory in GlusterFS's on-disk format, as a layer of fops.
//!
//! [`Store`] is the shell: it decides what may block and sends that to a thread that may. [`brick::Brick`] does the work,
//! synchronously. Nothing is remembered that is not on disk, except open files; see [`inode`].
//!
//! Invariants:
//! * No symbolic link below the brick is ever followed, and no name has a slash: nothing outside the brick is reached.
//! * `.glusterfs` is never seen nor touched through a name.
//! * No lock is held across an await: the only awaits are in this file.
//! * What was acknowledged after an fsync is on disk, or the fd says EIO from then on.
//!
//! It can fail with whatever the file system says: ENOSPC, EDQUOT, EIO and EROFS are answered as they are.

mod acl_text;
mod answers;
mod attr_fops;
mod attributes;
mod brick;
mod checksum;
mod create;
mod creation;
mod data;
mod extents;
mod fds;
mod gfid2path;
pub(crate) mod handle;
mod handles;
mod health;
pub(crate) mod inode;
mod known;
mod landfill;
mod lookup;
mod mdata;
mod open_flags;
mod opening;
mod options;
mod pattern;
mod permission;
mod readdir;
mod remove;
mod rename;
mod resolve;
mod space;
mod virtual_xattr;
mod xattr_fops;
mod xattrop;

use std::sync::Arc;

use async_trait::async_trait;
use mortar_types::{Context, Errno, Fops, Outcome, Reply, Request};

use brick::Brick;
use health::HealthCheck;
use landfill::Janitor;

pub use health::HealthFailure;
pub use opening::initialise;
pub use options::{OnHealthFailure, OpenError, Reserve, StoreOptions};

/// The most one READ or RCHECKSUM moves: above what any client asks (FUSE 1 MiB, heal 1 MiB), below what hurts.
pub(crate) const IO_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// Reads and writes up to this size are done where the request came in: the page cache takes them faster than a thread could
/// be woken.
const INLINE_IO_BYTES: usize = 256 * 1024;

/// A brick's directory, served.
pub struct Store {
    brick: Arc<Brick>,
    name: String,
    _health: Option<HealthCheck>,
    _janitor: Option<Janitor>,
}

impl Store {
    /// Opens the directory: checks that it belongs to the volume, prepares `.glusterfs`, starts the health check and the
    /// landfill's janitor. Sets the process's umask to 0 and its limit of open files to the most it may have.
    pub fn open(options: StoreOptions) -> Result<Arc<Self>, OpenError> {
        let name = options.name.clone();
        let brick = Arc::new(Brick::open_brick(options)?);
        let health = health::start(brick.root.clone(), &brick.options);
        let janitor = landfill::start(Arc::downgrade(&brick), brick.options.landfill_purge_interval);
        Ok(Arc::new(Self { brick, name, _health: health, _janitor: janitor }))
    }

    /// Open fds, for the brick's figures.
    pub fn open_fds(&self) -> usize {
        self.brick.fds.len()
    }

    /// Entries of the index: inodes that wait for heal.
    pub fn pending_count(&self) -> u64 {
        self.brick.index.pending_count()
    }
}

#[async_trait]
impl Fops for Store {
    async fn call(&self, ctx: &Context, request: Request) -> Outcome<Reply> {
        if !self.may_block(&request) {
            return self.brick.perform(ctx, request);
        }
        let (brick, ctx) = (self.brick.clone(), ctx.clone());
        match tokio::task::spawn_blocking(move || brick.perform(&ctx, request)).await {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::error!(%error, "a fop did not come to its end");
                Err(Errno::EIO.into())
            }
        }
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl Store {
    /// Whether a fop may wait for the disk so long that other requests of the connection should not wait with it.
    fn may_block(&self, request: &Request) -> bool {
        match request {
            Request::Fsync(_)
            | Request::Fsyncdir(_)
            | Request::Fallocate(_)
            | Request::Discard(_)
            | Request::Zerofill(_)
            | Request::Rchecksum(_)
            | Request::CopyFileRange(_)
            | Request::Truncate(_)
            | Request::Ftruncate(_) => true,
            Request::Read(read) => read.size as usize > INLINE_IO_BYTES,
            Request::Write(write) => {
                write.data.len() > INLINE_IO_BYTES
                    || write.flags & open_flags::O_DSYNC != 0
                    || self.brick.fds.is_synced(write.fd)
            }
            Request::Put(put) => put.data.len() > INLINE_IO_BYTES,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use mortar_types::fop::{Create, Fsync, Write};
    use mortar_types::keys::GFID_REQ;
    use mortar_types::{Dict, Fd, Gfid, Value};

    use super::*;

    #[test]
    fn after_a_failed_fsync_an_fd_says_eio_until_the_file_is_opened_again() {
        let path = std::env::temp_dir().join(format!("mortar-store-latch-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the temporary directory is writable");
        if initialise(&path, Gfid::TRASH).is_err() {
            mortar_testkit::needs::skip("no trusted xattrs here");
            return;
        }
        let brick = Brick::open_brick(StoreOptions::new(&path, Gfid::TRASH)).expect("it opens");
        let (ctx, gfid) = (Context::default(), Gfid::random());
        let create = Create {
            parent: Gfid::ROOT,
            flags: 0o302,
            mode: 0o644,
            umask: 0,
            name: "f".into(),
            xdata: Some(Dict::new().with(GFID_REQ, Value::Gfid(gfid))),
        };
        let fd = brick.create(&ctx, create).expect("it is new").fd;
        let write = |fd| {
            let request = Write { gfid, fd, offset: 0, flags: 0, data: "x".into(), xdata: None };
            brick.write(&ctx, &request).map(drop).map_err(|failure| failure.errno)
        };
        let fsync = |fd| {
            let request = Fsync { gfid, fd, datasync: 0, xdata: None };
            brick.fsync(&request).map(drop).map_err(|failure| failure.errno)
        };
        assert_eq!((write(fd), fsync(fd)), (Ok(()), Ok(())));
        // What sync_file does when the kernel says that data was lost.
        brick.inodes.get(gfid).latch_failure();
        assert_eq!((write(fd), fsync(fd)), (Err(Errno::EIO), Err(Errno::EIO)));
        let open = mortar_types::fop::Open { gfid, flags: 2, xdata: None };
        let again = brick.open(&ctx, &open).expect("it opens").fd;
        assert_eq!((write(again), fsync(again), write(fd)), (Ok(()), Ok(()), Err(Errno::EIO)));
        assert_eq!(write(Fd::ANONYMOUS), Ok(()));
        let _ = std::fs::remove_dir_all(path);
    }
}
