//! Names: lookup, the makers of new inodes, link, rename, removal.

use std::sync::Arc;

use bytes::Bytes;
use mortar_types::fop::{Link, Lookup, Mkdir, Mknod, Readlink, Rename, Rmdir, Symlink, Unlink};
use mortar_types::{Context, Dict, Errno, Gfid, Value, keys};

use super::{Bridge, Response, Result, checked, errno};
use crate::kernel::reply::{Answer, Body, Entry};
use crate::nodes::NodeId;

/// Longest symlink target plus its NUL (Linux `PATH_MAX`).
const TARGET_BYTES_MAX: u32 = 4096;
/// `RENAME_NOREPLACE` of renameat2(2).
const RENAME_NOREPLACE: u32 = 1;

/// The dict that gives a new inode its identity: all bricks must make the same gfid.
pub(super) fn fresh_gfid() -> Option<Dict> {
    Some(Dict::new().with(keys::GFID_REQ, Value::Gfid(Gfid::random())))
}

impl Bridge {
    pub(super) async fn lookup(
        self: &Arc<Self>,
        ctx: &Context,
        parent: NodeId,
        gfid: Gfid,
        name: Bytes,
    ) -> Result<Response> {
        let name = checked(name)?;
        if let Some(found) = self.found_ahead(ctx, parent, gfid, &name) {
            return found;
        }
        let request = Lookup { gfid: Gfid::NULL, parent: gfid, flags: 0, name: name.clone(), xdata: fresh_gfid() };
        match self.volume.fop(ctx, request).await {
            Ok(reply) => {
                if !reply.stat.is_dir() {
                    self.walk_on(ctx, gfid);
                }
                self.entry_response(parent, &name, &reply.stat)
            }
            Err(failure) if failure.errno == Errno::ENOENT && !self.config.negative_timeout.is_zero() => {
                let nothing = Entry { entry_valid: self.config.negative_timeout.into(), ..Entry::default() };
                Ok(Response::body(Body::entry(&nothing)))
            }
            Err(failure) => Err(failure.errno),
        }
    }

    pub(super) async fn readlink(&self, ctx: &Context, gfid: Gfid) -> Result<Response> {
        let reply =
            self.volume.fop(ctx, Readlink { gfid, size: TARGET_BYTES_MAX, xdata: None }).await.map_err(errno)?;
        Ok(Response::answer(Answer::Data(reply.target)))
    }

    pub(super) async fn symlink(
        &self,
        ctx: &Context,
        parent: NodeId,
        gfid: Gfid,
        name: Bytes,
        target: Bytes,
    ) -> Result<Response> {
        let name = checked(name)?;
        let request = Symlink { parent: gfid, name: name.clone(), umask: 0, target, xdata: fresh_gfid() };
        let reply = self.volume.fop(ctx, request).await.map_err(errno)?;
        self.entry_response(parent, &name, &reply.stat)
    }

    /// `what`: mode with type bits, umask, device number.
    pub(super) async fn mknod(
        &self,
        ctx: &Context,
        parent: NodeId,
        gfid: Gfid,
        name: Bytes,
        what: (u32, u32, u32),
    ) -> Result<Response> {
        let ((mode, umask, rdev), name) = (what, checked(name)?);
        let request =
            Mknod { parent: gfid, dev: u64::from(rdev), mode, umask, name: name.clone(), xdata: fresh_gfid() };
        let reply = self.volume.fop(ctx, request).await.map_err(errno)?;
        self.entry_response(parent, &name, &reply.stat)
    }

    /// `permissions`: mode and umask.
    pub(super) async fn mkdir(
        &self,
        ctx: &Context,
        parent: NodeId,
        gfid: Gfid,
        name: Bytes,
        permissions: (u32, u32),
    ) -> Result<Response> {
        let ((mode, umask), name) = (permissions, checked(name)?);
        let request = Mkdir { parent: gfid, mode: mode & 0o7777, umask, name: name.clone(), xdata: fresh_gfid() };
        let reply = self.volume.fop(ctx, request).await.map_err(errno)?;
        self.entry_response(parent, &name, &reply.stat)
    }

    pub(super) async fn unlink(&self, ctx: &Context, parent: Gfid, name: Bytes) -> Result<Response> {
        let name = checked(name)?;
        self.volume.fop(ctx, Unlink { parent, name, flags: 0, xdata: None }).await.map_err(errno)?;
        Ok(Response::empty())
    }

    pub(super) async fn rmdir(&self, ctx: &Context, parent: Gfid, name: Bytes) -> Result<Response> {
        let name = checked(name)?;
        self.volume.fop(ctx, Rmdir { parent, flags: 0, name, xdata: None }).await.map_err(errno)?;
        Ok(Response::empty())
    }

    pub(super) async fn link(
        &self,
        ctx: &Context,
        old: NodeId,
        parent: NodeId,
        new_parent: Gfid,
        name: Bytes,
    ) -> Result<Response> {
        let gfid = self.nodes.gfid(old).ok_or(Errno::ESTALE)?;
        let name = checked(name)?;
        let request = Link { gfid, new_parent, new_name: name.clone(), xdata: None };
        let reply = self.volume.fop(ctx, request).await.map_err(errno)?;
        self.entry_response(parent, &name, &reply.stat)
    }

    /// The wire's RENAME has no flags. RENAME_NOREPLACE is made of fops that refuse an existing name atomically;
    /// EXCHANGE and WHITEOUT cannot be, and get EINVAL as from every file system without them.
    pub(super) async fn rename(
        self: &Arc<Self>,
        ctx: &Context,
        old: (Gfid, Bytes),
        new: (Gfid, Bytes),
        flags: u32,
    ) -> Result<Response> {
        let (old, new) = ((old.0, checked(old.1)?), (new.0, checked(new.1)?));
        match flags {
            0 => self.rename_over(ctx, old, new).await?,
            RENAME_NOREPLACE => self.rename_aside(ctx, old, new).await?,
            _ => return Err(Errno::EINVAL),
        }
        Ok(Response::empty())
    }

    async fn rename_over(&self, ctx: &Context, old: (Gfid, Bytes), new: (Gfid, Bytes)) -> Result<()> {
        let request = Rename { old_parent: old.0, new_parent: new.0, old_name: old.1, new_name: new.1, xdata: None };
        self.volume.fop(ctx, request).await.map_err(errno)?;
        Ok(())
    }

    /// A file gets its new name by LINK, which fails on an existing one, and loses the old one; a crash in between
    /// leaves both names, and no data is lost. A directory is renamed over an empty one that MKDIR just made.
    async fn rename_aside(&self, ctx: &Context, old: (Gfid, Bytes), new: (Gfid, Bytes)) -> Result<()> {
        let lookup = Lookup { gfid: Gfid::NULL, parent: old.0, flags: 0, name: old.1.clone(), xdata: None };
        let stat = self.volume.fop(ctx, lookup).await.map_err(errno)?.stat;
        if !stat.is_dir() {
            let link = Link { gfid: stat.gfid, new_parent: new.0, new_name: new.1, xdata: None };
            self.volume.fop(ctx, link).await.map_err(errno)?;
            self.unlink(ctx, old.0, old.1).await?;
            return Ok(());
        }
        let mkdir = Mkdir { parent: new.0, mode: 0o700, umask: 0, name: new.1.clone(), xdata: fresh_gfid() };
        self.volume.fop(ctx, mkdir).await.map_err(errno)?;
        match self.rename_over(ctx, old, new.clone()).await {
            // Somebody else put something into the directory that we made: the name is taken.
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => Err(Errno::EEXIST),
            Err(failure) => {
                let rmdir = Rmdir { parent: new.0, flags: 0, name: new.1, xdata: None };
                // Best effort: it fails when the name is no longer ours, and the rename's failure is what counts.
                let _ = self.volume.fop(ctx, rmdir).await;
                Err(failure)
            }
            Ok(()) => Ok(()),
        }
    }
}
