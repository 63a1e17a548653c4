//! What an application does, as fops on a client's stack. Paths are from the root, without a leading slash.

use std::sync::Arc;

use bytes::Bytes;
use mortar_types::fop::{
    Create, Flush, Link, Lookup, Mkdir, Mknod, Open, Read, Release, Removexattr, Rename, Rmdir, Setattr, Setxattr,
    Symlink, Truncate, Unlink, Write, setattr_valid,
};
use mortar_types::{Context, Dict, Errno, Fops, Gfid, Iatt, LkOwner, Pid, Timespec, Value, keys};

pub(crate) struct Files<'a>(pub(crate) &'a Arc<dyn Fops>);

pub(crate) type Result<T> = std::result::Result<T, Errno>;

fn ctx() -> Context {
    Context { pid: Pid(4242), lk_owner: LkOwner::from_u64(7), ..Context::default() }
}

fn gfid_req() -> Option<Dict> {
    Some(Dict::new().with(keys::GFID_REQ, Value::Gfid(Gfid::random())))
}

impl Files<'_> {
    async fn call<F: mortar_types::Fop>(&self, request: F) -> Result<F::Reply> {
        self.0.fop(&ctx(), request).await.map_err(|failure| failure.errno)
    }

    pub(crate) async fn stat(&self, path: &str) -> Result<Iatt> {
        let mut stat = self.call(lookup(Gfid::ROOT, Gfid::NULL, "")).await?.stat;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            stat = self.call(lookup(Gfid::NULL, stat.gfid, name)).await?.stat;
        }
        Ok(stat)
    }

    async fn gfid(&self, path: &str) -> Result<Gfid> {
        Ok(self.stat(path).await?.gfid)
    }

    async fn split(&self, path: &str) -> Result<(Gfid, Bytes)> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.gfid(parent).await?, Bytes::copy_from_slice(name.as_bytes())))
    }

    pub(crate) async fn create(&self, path: &str, data: &[u8]) -> Result<()> {
        let (parent, name) = self.split(path).await?;
        let request = Create { parent, flags: 0o102, mode: 0o644, umask: 0o22, name, xdata: gfid_req() };
        let reply = self.call(request).await?;
        let gfid = reply.stat.gfid;
        if !data.is_empty() {
            self.call(write(gfid, reply.fd, 0, data)).await?;
        }
        self.call(Flush { gfid, fd: reply.fd, xdata: None }).await?;
        self.call(Release { gfid, fd: reply.fd, xdata: None }).await?;
        Ok(())
    }

    pub(crate) async fn write_at(&self, path: &str, offset: u64, data: &[u8]) -> Result<()> {
        let gfid = self.gfid(path).await?;
        let fd = self.call(Open { gfid, flags: 2, xdata: None }).await?.fd;
        let mut at = 0;
        for part in data.chunks(128 << 10) {
            self.call(write(gfid, fd, offset + at, part)).await?;
            at += part.len() as u64;
        }
        self.call(Flush { gfid, fd, xdata: None }).await?;
        self.call(Release { gfid, fd, xdata: None }).await?;
        Ok(())
    }

    /// Opens it and reads its first bytes.
    pub(crate) async fn read(&self, path: &str) -> Result<Bytes> {
        let gfid = self.gfid(path).await?;
        let fd = self.call(Open { gfid, flags: 0, xdata: None }).await?.fd;
        let read = self.call(Read { gfid, fd, offset: 0, size: 4096, flags: 0, xdata: None }).await;
        self.call(Release { gfid, fd, xdata: None }).await?;
        Ok(read?.data)
    }

    pub(crate) async fn truncate(&self, path: &str, offset: u64) -> Result<()> {
        let gfid = self.gfid(path).await?;
        self.call(Truncate { gfid, offset, xdata: None }).await.map(|_| ())
    }

    pub(crate) async fn append(&self, path: &str, data: &[u8]) -> Result<()> {
        let size = self.stat(path).await?.size;
        self.write_at(path, size, data).await
    }

    pub(crate) async fn overwrite(&self, path: &str, data: &[u8]) -> Result<()> {
        self.truncate(path, 0).await?;
        self.write_at(path, 0, data).await
    }

    pub(crate) async fn chmod(&self, path: &str, mode: u32) -> Result<()> {
        self.setattr(path, Iatt { mode, ..Iatt::default() }, setattr_valid::MODE).await
    }

    pub(crate) async fn chown(&self, path: &str, uid: u32, gid: u32) -> Result<()> {
        self.setattr(path, Iatt { uid, gid, ..Iatt::default() }, setattr_valid::UID | setattr_valid::GID).await
    }

    pub(crate) async fn set_mtime(&self, path: &str, sec: i64) -> Result<()> {
        let time = Timespec::new(sec, 5);
        let stat = Iatt { mtime: time, atime: time, ..Iatt::default() };
        self.setattr(path, stat, setattr_valid::MTIME | setattr_valid::ATIME).await
    }

    async fn setattr(&self, path: &str, stat: Iatt, valid: i32) -> Result<()> {
        let gfid = self.gfid(path).await?;
        self.call(Setattr { gfid, stat, valid, xdata: None }).await.map(|_| ())
    }

    pub(crate) async fn setxattr(&self, path: &str, name: &str, value: &[u8]) -> Result<()> {
        let gfid = self.gfid(path).await?;
        let dict = Some(Dict::new().with(name.to_owned(), Value::ptr(value.to_vec())));
        self.call(Setxattr { gfid, flags: 0, dict, xdata: None }).await.map(|_| ())
    }

    pub(crate) async fn removexattr(&self, path: &str, name: &str) -> Result<()> {
        let gfid = self.gfid(path).await?;
        self.call(Removexattr { gfid, name: name.to_owned().into(), xdata: None }).await.map(|_| ())
    }

    pub(crate) async fn mkdir(&self, path: &str) -> Result<()> {
        let (parent, name) = self.split(path).await?;
        self.call(Mkdir { parent, mode: 0o755, umask: 0o22, name, xdata: gfid_req() }).await.map(|_| ())
    }

    pub(crate) async fn symlink(&self, path: &str, target: &str) -> Result<()> {
        let (parent, name) = self.split(path).await?;
        let target = target.to_owned().into();
        self.call(Symlink { parent, name, umask: 0o22, target, xdata: gfid_req() }).await.map(|_| ())
    }

    pub(crate) async fn mknod(&self, path: &str, mode: u32, dev: u64) -> Result<()> {
        let (parent, name) = self.split(path).await?;
        self.call(Mknod { parent, dev, mode, umask: 0o22, name, xdata: gfid_req() }).await.map(|_| ())
    }

    pub(crate) async fn fifo(&self, path: &str) -> Result<()> {
        self.mknod(path, 0o010_644, 0).await
    }

    pub(crate) async fn link(&self, old: &str, new: &str) -> Result<()> {
        let gfid = self.gfid(old).await?;
        let (new_parent, new_name) = self.split(new).await?;
        self.call(Link { gfid, new_parent, new_name, xdata: None }).await.map(|_| ())
    }

    pub(crate) async fn rename(&self, old: &str, new: &str) -> Result<()> {
        let ((old_parent, old_name), (new_parent, new_name)) = (self.split(old).await?, self.split(new).await?);
        self.call(Rename { old_parent, new_parent, old_name, new_name, xdata: None }).await.map(|_| ())
    }

    pub(crate) async fn unlink(&self, path: &str) -> Result<()> {
        let (parent, name) = self.split(path).await?;
        self.call(Unlink { parent, name, flags: 0, xdata: None }).await.map(|_| ())
    }

    pub(crate) async fn rmdir(&self, path: &str) -> Result<()> {
        let (parent, name) = self.split(path).await?;
        self.call(Rmdir { parent, flags: 0, name, xdata: None }).await.map(|_| ())
    }
}

fn lookup(gfid: Gfid, parent: Gfid, name: &str) -> Lookup {
    Lookup { gfid, parent, flags: 0, name: Bytes::copy_from_slice(name.as_bytes()), xdata: None }
}

fn write(gfid: Gfid, fd: mortar_types::Fd, offset: u64, data: &[u8]) -> Write {
    Write { gfid, fd, offset, flags: 0, data: Bytes::copy_from_slice(data), xdata: None }
}
