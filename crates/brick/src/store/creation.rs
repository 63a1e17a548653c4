//! What all fops share that make an entry: the checks before, the new inode's xattrs, the answer after.

use std::os::fd::AsFd;
use std::sync::Arc;

use mortar_sys::xattr::{self, SetMode};
use mortar_sys::{Loc, Result, at};
use mortar_types::keys::{
    ENTRYLK_COUNT, FORCE_REPLACE, GFID_REQ, GFIDLESS_LOOKUP, INODELK_COUNT, INODELK_DOM_COUNT, INTERNAL_FOP,
    PARENT_ENTRYLK, POSIXLK_COUNT, PREOP_CHECK_FAILED, PREOP_PARENT_KEY, XATTR_ACL_ACCESS, XATTR_ACL_DEFAULT,
    XATTR_GFID, XATTR_MDATA,
};
use mortar_types::{Context, Dict, EntryName, Errno, Failure, Gfid, Iatt, Mdata, Outcome, Value};
use rustix::fs::Stat;

use super::brick::Brick;
use super::gfid2path;
use super::inode::{Cached, Inode};
use super::permission::Want;
use super::resolve::{Parent, is_dir};

const S_ISGID: u32 = 0o2000;
/// setuid and setgid.
const S_ISUGID: u32 = 0o6000;

/// An entry about to be made.
pub(crate) struct Creation<'a> {
    pub(crate) ctx: &'a Context,
    pub(crate) parent: Parent,
    pub(crate) name: EntryName,
    pub(crate) parent_stat: Stat,
    pub(crate) preparent: Iatt,
    /// The new inode, not yet on disk.
    pub(crate) inode: Arc<Inode>,
    xdata: Option<&'a Dict>,
    preop_key: Option<&'a str>,
    uid: u32,
    gid: u32,
}

impl Creation<'_> {
    pub(crate) fn gfid(&self) -> Gfid {
        self.inode.gfid
    }

    pub(crate) fn is_internal(&self) -> bool {
        self.xdata.is_some_and(|xdata| xdata.contains(INTERNAL_FOP))
    }
}

impl Brick {
    /// Checks a request that makes `name`, and reads the parent.
    pub(crate) fn prepare_creation<'a>(
        &self,
        ctx: &'a Context,
        parent: Gfid,
        name: bytes::Bytes,
        xdata: Option<&'a Dict>,
    ) -> Outcome<Creation<'a>> {
        let name = self.entry_name(parent, name)?;
        let parent = self.parent(parent)?;
        self.check_space(ctx, xdata)?;
        let gfid = xdata.and_then(|xdata| xdata.get_gfid(GFID_REQ)).filter(|gfid| !gfid.is_null());
        let gfid = gfid.ok_or(Errno::EINVAL)?;
        let parent_stat = parent.loc().stat()?;
        self.permit(ctx, parent.loc(), &parent_stat, Want::CHANGE_ENTRIES)?;
        let preop_key = check_preop(&parent, xdata)?;
        let preparent = self.iatt_from(&parent.inode, parent.loc(), &parent_stat);
        let gid = if parent_stat.st_mode & S_ISGID != 0 { parent_stat.st_gid } else { ctx.gid };
        let inode = self.inodes.get(gfid);
        Ok(Creation { ctx, parent, name, parent_stat, preparent, inode, xdata, preop_key, uid: ctx.uid, gid })
    }

    /// The mode to create with. The kernel, whose umask for this process is 0, lets a default ACL of the parent take the
    /// umask's place; without one the caller's umask counts.
    pub(crate) fn creation_mode(&self, creation: &Creation<'_>, mode: u32, umask: u32) -> Result<u32> {
        if umask & 0o777 == 0 || self.has_default_acl(&creation.parent)? {
            return Ok(mode);
        }
        Ok(mode & !(umask & 0o777))
    }

    fn has_default_acl(&self, parent: &Parent) -> Result<bool> {
        let mut memory = parent.inode.memory();
        if let Cached::Known(known) = memory.default_acl {
            return Ok(known);
        }
        let found = match xattr::get(parent.loc(), XATTR_ACL_DEFAULT.as_bytes()) {
            Ok(value) => value.is_some(),
            Err(Errno::EOPNOTSUPP) => false,
            Err(error) => return Err(error),
        };
        memory.default_acl = Cached::Known(found);
        Ok(found)
    }

    /// Gives the new inode its gfid, owner, times, note of its name and what the request wants stored. `mode` is the one
    /// it was created with.
    pub(crate) fn dress(&self, creation: &Creation<'_>, loc: Loc<'_>, mode: u32, is_dir: bool) -> Result<()> {
        creation.inode.forget();
        xattr::set(loc, XATTR_GFID.as_bytes(), creation.gfid().as_bytes(), SetMode::Create)?;
        // The brick's process is root, so a new inode is 0:0, or has the group of its setgid parent.
        let made_with_gid = if creation.parent_stat.st_mode & S_ISGID != 0 { creation.parent_stat.st_gid } else { 0 };
        if creation.uid != 0 || creation.gid != made_with_gid {
            at::chown(loc, Some(creation.uid), Some(creation.gid))?;
        }
        if mode & S_ISUGID != 0 {
            // mkdir(2) ignores these bits, and a change of owner clears a file's.
            let now = loc.stat()?.st_mode;
            at::chmod(loc, (now & 0o7777) | (mode & S_ISUGID))?;
        }
        if !is_dir && self.options.gfid2path {
            gfid2path::add(loc, creation.parent.gfid(), &creation.name)?;
        }
        let times = self.born_mdata(creation.ctx);
        if let Some(times) = &times {
            self.set_mdata(&creation.inode, loc, times)?;
        }
        self.store_request_keys(creation, loc, times.as_ref());
        Ok(())
    }

    /// Sets the request's keys as xattrs of the new inode: how disperse, shard and distribute give birth to theirs. The
    /// first that fails ends it, without failing the fop (`posix-helpers.c: posix_entry_create_xattr_set`).
    fn store_request_keys(&self, creation: &Creation<'_>, loc: Loc<'_>, times: Option<&Mdata>) {
        let Some(xdata) = creation.xdata else { return };
        let acl = |key: &str| matches!(key, XATTR_ACL_ACCESS | XATTR_ACL_DEFAULT);
        let wanted = |key: &str| {
            is_stored_key(key)
                && Some(key) != creation.preop_key
                // Times made from the request's clock win over a copy in the request.
                && !(key == XATTR_MDATA && times.is_some())
        };
        let plain = xdata.iter().filter(|(key, _)| wanted(key) && !acl(key));
        let acls = xdata.iter().filter(|(key, _)| wanted(key) && acl(key));
        for (key, value) in plain {
            let Some(value) = stored_value(value) else { continue };
            if let Err(errno) = xattr::set(loc, key.as_bytes(), &value, SetMode::Create) {
                tracing::debug!(gfid = %creation.gfid(), key, %errno, "a key of the request cannot be stored");
                break;
            }
        }
        for (key, value) in acls {
            let Some(value) = stored_value(value) else { continue };
            if let Err(errno) = xattr::set(loc, key.as_bytes(), &value, SetMode::Any) {
                tracing::debug!(gfid = %creation.gfid(), key, %errno, "an ACL of the request cannot be stored");
            }
        }
    }

    /// Names a dressed file: first its handle, then its name, which so appears complete.
    pub(crate) fn publish(&self, creation: &Creation<'_>, file: std::os::fd::BorrowedFd<'_>) -> Result<()> {
        self.make_new_handle(&creation.inode, |path| at::link_fd(file, self.root_fd(), path.as_bytes()))?;
        let named = at::link_fd(file, creation.parent.fd.as_fd(), creation.name.as_bytes());
        if named.is_err() {
            self.retire_handle(&creation.inode)?;
        }
        named
    }

    /// Moves the parent's times and reads the answer.
    pub(crate) fn finish_creation(&self, creation: &Creation<'_>, stat: Iatt) -> Result<mortar_types::fop::EntryReply> {
        let parent = &creation.parent;
        creation.inode.memory().handle_checked = true;
        self.touch_parent(creation.ctx, &parent.inode, parent.loc());
        let postparent = self.iatt(&parent.inode, parent.loc())?;
        Ok(mortar_types::fop::EntryReply { stat, preparent: creation.preparent, postparent, xdata: None })
    }
}

/// The guard of distribute: the parent's layout must be what the client thinks it is. Returns the guarding key, which is
/// not stored with the new entry.
fn check_preop<'a>(parent: &Parent, xdata: Option<&'a Dict>) -> Outcome<Option<&'a str>> {
    let Some(xdata) = xdata else { return Ok(None) };
    let Some(key) = xdata.get_str(PREOP_PARENT_KEY) else { return Ok(None) };
    let Some(expected) = xdata.get_bytes(key) else { return Ok(Some(key)) };
    match xattr::get(parent.loc(), key.as_bytes())? {
        Some(found) if found == expected[..] => Ok(Some(key)),
        Some(_) => Err(Failure { errno: Errno::EIO, xdata: Some(Dict::new().with(PREOP_CHECK_FAILED, Value::Int(1))) }),
        None => Err(Errno::ENODATA.into()),
    }
}

/// Whether a creation request's key is stored as an xattr.
fn is_stored_key(key: &str) -> bool {
    const OWN: [&str; 11] = [
        GFID_REQ,
        XATTR_GFID,
        INTERNAL_FOP,
        ENTRYLK_COUNT,
        INODELK_COUNT,
        INODELK_DOM_COUNT,
        POSIXLK_COUNT,
        PARENT_ENTRYLK,
        GFIDLESS_LOOKUP,
        FORCE_REPLACE,
        PREOP_PARENT_KEY,
    ];
    !OWN.contains(&key) && has_xattr_namespace(key)
}

/// Whether the kernel could store an xattr of this name.
pub(crate) fn has_xattr_namespace(key: &str) -> bool {
    ["trusted.", "user.", "security.", "system."].iter().any(|space| key.starts_with(space))
}

/// A dict value as GlusterFS's bricks store it: text with its NUL, numbers as decimal text.
pub(crate) fn stored_value(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::Ptr(bytes) | Value::Old(bytes) => Some(bytes.to_vec()),
        Value::Str(text) => Some([&text[..], b"\0"].concat()),
        Value::Int(number) => Some(format!("{number}\0").into_bytes()),
        Value::Uint(number) => Some(format!("{number}\0").into_bytes()),
        Value::Gfid(gfid) => Some(gfid.0.to_vec()),
        Value::Double(_) | Value::Iatt(_) | Value::Mdata(_) => None,
    }
}

/// Whether an existing entry of this type stands in the way of opening it as a file.
pub(crate) fn existing_file_error(stat: &Stat) -> Option<Errno> {
    if is_dir(stat) {
        return Some(Errno::EISDIR);
    }
    (!super::resolve::is_regular(stat)).then_some(Errno::EEXIST)
}
