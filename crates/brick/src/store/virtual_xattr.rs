//! GETXATTR of names that are questions rather than stored xattrs.
//!
//! Source: GlusterFS `posix-inode-fd-ops.c: posix_getxattr`, `index.c: index_getxattr`.

use std::os::unix::ffi::OsStrExt;

use mortar_sys::{Loc, Result, dirents};
use mortar_types::fop::DictReply;
use mortar_types::keys::{
    NODE_UUID, OPEN_FD_COUNT, PATHINFO, XATTR_ACL_ACCESS, XATTR_ACL_DEFAULT, XATTROP_DIRTY_GFID,
    XATTROP_ENTRY_CHANGES_GFID, XATTROP_INDEX_COUNT, XATTROP_INDEX_GFID,
};
use mortar_types::{Dict, EntryName, Errno, Gfid, Value};

use crate::index::VirtualDir;

use super::acl_text;
use super::brick::Brick;
use super::gfid2path;
use super::handle::DirHandle;
use super::inode::Inode;

const REAL_FILENAME_PREFIX: &str = "glusterfs.get_real_filename:";
/// Paths longer than a client could use are cut off at this many components: also the guard against damaged handles.
const DEPTH_MAX: usize = 4096;

impl Brick {
    /// The answer, `None` for a name that is an xattr.
    pub(crate) fn virtual_xattr(&self, inode: &Inode, loc: Loc<'_>, name: &str) -> Result<Option<DictReply>> {
        let gfid = inode.gfid;
        let value = match name {
            PATHINFO | "glusterfs.pathinfo" => Value::Str(self.pathinfo(gfid, loc)?.into()),
            NODE_UUID => Value::str(self.options.node_uuid.ok_or(Errno::ENODATA)?.to_string()),
            "trusted.glusterfs.list-node-uuids" => {
                Value::str(self.options.node_uuid.ok_or(Errno::ENODATA)?.to_string())
            }
            "glusterfs.gfid" => Value::ptr(gfid.0.to_vec()),
            "glusterfs.gfid.string" => Value::str(gfid.to_string()),
            "glusterfs.gfidtopath" | "glusterfs.gfid2path" => Value::Str(self.joined_paths(gfid, loc)?.into()),
            "glusterfs.ancestry.path" => {
                let path = self.paths_of(gfid, loc)?.into_iter().next().ok_or(Errno::ENODATA)?;
                Value::Str(path.into())
            }
            OPEN_FD_COUNT => Value::Uint(inode.open_fds().into()),
            acl_text::ACCESS_KEY => acl_value(loc, XATTR_ACL_ACCESS)?,
            acl_text::DEFAULT_KEY => acl_value(loc, XATTR_ACL_DEFAULT)?,
            XATTROP_INDEX_GFID => return Ok(Some(self.virtual_gfid(VirtualDir::Pending, XATTROP_INDEX_GFID))),
            XATTROP_DIRTY_GFID => return Ok(Some(self.virtual_gfid(VirtualDir::Dirty, XATTROP_DIRTY_GFID))),
            XATTROP_ENTRY_CHANGES_GFID => {
                return Ok(Some(self.virtual_gfid(VirtualDir::EntryChanges, XATTROP_ENTRY_CHANGES_GFID)));
            }
            XATTROP_INDEX_COUNT => Value::Uint(self.index.pending_count()),
            _ => match name.strip_prefix(REAL_FILENAME_PREFIX) {
                Some(wanted) => Value::Str(real_filename(loc, wanted)?.into()),
                None => return Ok(None),
            },
        };
        let len = match &value {
            Value::Str(text) => text.len() + 1,
            other => other.as_bytes().map_or(0, bytes::Bytes::len),
        };
        let dict = Dict::new().with(name.to_owned(), value);
        Ok(Some(DictReply { len: u32::try_from(len).unwrap_or(u32::MAX), dict: Some(dict), xdata: None }))
    }

    /// op_ret is 0 for these on 10.3, though a value of 16 bytes is there.
    fn virtual_gfid(&self, dir: VirtualDir, key: &'static str) -> DictReply {
        let gfid = self.index.gfid_of(dir);
        DictReply { len: 0, dict: Some(Dict::new().with(key, Value::ptr(gfid.0.to_vec()))), xdata: None }
    }

    /// `<POSIX(BRICK):HOST:REALPATH>`.
    fn pathinfo(&self, gfid: Gfid, loc: Loc<'_>) -> Result<Vec<u8>> {
        let brick = self.options.root.as_os_str().as_bytes();
        let path = if gfid.is_root() {
            b"/".to_vec()
        } else {
            self.paths_of(gfid, loc)?.into_iter().next().unwrap_or_default()
        };
        let host = self.options.hostname.as_bytes();
        Ok([b"<POSIX(", brick, b"):", host, b":", brick, &path[..], b">"].concat())
    }

    fn joined_paths(&self, gfid: Gfid, loc: Loc<'_>) -> Result<Vec<u8>> {
        let paths = self.paths_of(gfid, loc)?;
        if paths.is_empty() {
            return Err(Errno::ENODATA);
        }
        Ok(paths.join(&b':'))
    }

    /// All paths of an inode in the brick, from `/`. Notes of links that are gone are left out.
    pub(crate) fn paths_of(&self, gfid: Gfid, loc: Loc<'_>) -> Result<Vec<Vec<u8>>> {
        if gfid.is_root() {
            return Ok(vec![b"/".to_vec()]);
        }
        if let Ok(DirHandle { parent, name }) = self.dir_handle(gfid) {
            // A client's own symbolic link may have such a text too; only a directory is a directory.
            if self.open_dir(gfid).is_ok() {
                return Ok(vec![self.path_below(parent, &name)?]);
            }
        }
        let mut paths = Vec::new();
        for (parent, name) in gfid2path::list(loc)? {
            if self.leads_to(parent, &name, gfid) {
                paths.push(self.path_below(parent, &name)?);
            }
        }
        paths.sort();
        Ok(paths)
    }

    fn path_below(&self, parent: Gfid, name: &EntryName) -> Result<Vec<u8>> {
        let mut names = vec![name.clone()];
        let mut at = parent;
        while !at.is_root() {
            if names.len() > DEPTH_MAX {
                return Err(Errno::ELOOP);
            }
            let handle = self.dir_handle(at)?;
            names.push(handle.name);
            at = handle.parent;
        }
        let mut path = Vec::new();
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name.as_bytes());
        }
        Ok(path)
    }
}

fn acl_value(loc: Loc<'_>, name: &str) -> Result<Value> {
    let raw = mortar_sys::xattr::get(loc, name.as_bytes())?.ok_or(Errno::ENODATA)?;
    acl_text::to_text(&raw).map(Value::str).ok_or(Errno::EIO)
}

/// The name in a directory that is `wanted` but for upper and lower case: what Samba asks instead of listing itself.
fn real_filename(loc: Loc<'_>, wanted: &str) -> Result<Vec<u8>> {
    let Loc::Fd(dir) = loc else { return Err(Errno::ENOTDIR) };
    // A description of its own: listing moves its position.
    let dir = mortar_sys::at::open_dir(dir, b".")?;
    let mut found = None;
    dirents::list(std::os::fd::AsFd::as_fd(&dir), 0, |entry| {
        if entry.name.eq_ignore_ascii_case(wanted.as_bytes()) {
            found = Some(entry.name);
        }
        found.is_none()
    })?;
    found.ok_or(Errno::ENODATA)
}
