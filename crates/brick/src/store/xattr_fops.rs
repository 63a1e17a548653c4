//! SETXATTR, GETXATTR, REMOVEXATTR and their fd forms, for xattrs that are stored. Names with other answers are in
//! [`super::virtual_xattr`].

use mortar_sys::xattr::{self, SetMode};
use mortar_sys::{Loc, Result};
use mortar_types::fop::{AckReply, DictReply, Fgetxattr, Fremovexattr, Fsetxattr, Getxattr, Removexattr, Setxattr};
use mortar_types::keys::{
    SET_CTIME_MDATA, XATTR_ACL_ACCESS, XATTR_ACL_DEFAULT, XATTR_GFID, XATTR_GFID2PATH_PREFIX, XATTR_MDATA,
    XATTR_VOLUME_ID,
};
use mortar_types::{Context, Dict, Errno, Iatt, Mdata, Outcome, Value};

use super::acl_text;
use super::brick::Brick;
use super::creation::{has_xattr_namespace, stored_value};
use super::inode::{Cached, Inode};
use super::mdata;
use super::permission::{Want, is_privileged};

const IO_STATS_DUMP: &str = "trusted.io-stats-dump";

const FLAG_CREATE: u32 = 1;
const FLAG_REPLACE: u32 = 2;

/// The inode's attributes around a change of its xattrs, as replies carry them (`posix_set_iatt_in_dict`).
const POSTSTAT_KEYS: [&str; 2] = ["dht-get-iatt-in-xattr", "virt-gf-poststat"];
const PRESTAT_KEY: &str = "virt-gf-prestat";

impl Brick {
    pub(crate) fn setxattr(&self, ctx: &Context, request: &Setxattr) -> Outcome<AckReply> {
        let node = self.node(request.gfid)?;
        self.set_all(ctx, &node.inode, node.loc(self), request.flags, request.dict.as_ref(), request.xdata.as_ref())
    }

    pub(crate) fn fsetxattr(&self, ctx: &Context, request: &Fsetxattr) -> Outcome<AckReply> {
        self.opened(request.gfid, request.fd)?.with(self, |inode, loc| {
            self.set_all(ctx, inode, loc, request.flags, request.dict.as_ref(), request.xdata.as_ref())
        })
    }

    fn set_all(
        &self,
        ctx: &Context,
        inode: &Inode,
        loc: Loc<'_>,
        flags: u32,
        dict: Option<&Dict>,
        xdata: Option<&Dict>,
    ) -> Outcome<AckReply> {
        let dict = dict.ok_or(Errno::EINVAL)?;
        self.check_space(ctx, xdata)?;
        let mode = match flags {
            FLAG_CREATE => SetMode::Create,
            FLAG_REPLACE => SetMode::Replace,
            _ => SetMode::Any,
        };
        for key in dict.keys() {
            self.permit_xattr(ctx, loc, key)?;
        }
        let pre = self.iatt(inode, loc)?;
        for (key, value) in dict.iter() {
            self.set_one(inode, loc, key, value, mode)?;
        }
        self.touch_self(ctx, inode, loc);
        Ok(AckReply { xdata: Some(with_iatts(&pre, &self.iatt(inode, loc)?)) })
    }

    /// Sets one key of a dict: an xattr, or what has a meaning of its own.
    pub(crate) fn set_one(&self, inode: &Inode, loc: Loc<'_>, key: &str, value: &Value, mode: SetMode) -> Result<()> {
        match (key, value) {
            (SET_CTIME_MDATA | XATTR_MDATA, Value::Mdata(times)) => self.merge_mdata(inode, loc, times),
            (XATTR_MDATA, value) => {
                let times = value.as_bytes().and_then(|bytes| mdata::decode(bytes)).ok_or(Errno::EINVAL)?;
                self.merge_mdata(inode, loc, &times)
            }
            (SET_CTIME_MDATA, _) => Err(Errno::EINVAL),
            (acl_text::ACCESS_KEY, value) => set_acl_text(loc, XATTR_ACL_ACCESS, value),
            (acl_text::DEFAULT_KEY, value) => {
                inode.memory().default_acl = Cached::Unknown;
                set_acl_text(loc, XATTR_ACL_DEFAULT, value)
            }
            // A command to the statistics translator, whose reports a Mortar brick gives elsewhere: taken, not stored.
            (IO_STATS_DUMP, _) => Ok(()),
            _ if is_own_key(key) => Err(Errno::EPERM),
            _ if key.starts_with(XATTR_GFID2PATH_PREFIX) => Err(Errno::EOPNOTSUPP),
            _ => {
                if key == XATTR_ACL_DEFAULT {
                    inode.memory().default_acl = Cached::Unknown;
                }
                if !has_xattr_namespace(key) {
                    // Commands to other translators travel as xattrs without a name space; there is nobody here to take them.
                    return Err(Errno::EOPNOTSUPP);
                }
                let value = stored_value_of_set(value).ok_or(Errno::EINVAL)?;
                xattr::set(loc, key.as_bytes(), &value, mode)
            }
        }
    }

    /// The later of what is kept and what is given: a replica, or a client that has just met an inode from before ctime, tells
    /// its times (`posix-metadata.c: posix_set_mdata_xattr_legacy_files`).
    fn merge_mdata(&self, inode: &Inode, loc: Loc<'_>, given: &Mdata) -> Result<()> {
        let new = match self.mdata(inode, loc) {
            Some(kept) => mdata::merge(&kept, given),
            None => *given,
        };
        self.set_mdata(inode, loc, &new)
    }

    pub(crate) fn getxattr(&self, ctx: &Context, request: &Getxattr) -> Outcome<DictReply> {
        let node = self.node(request.gfid)?;
        self.get_any(ctx, &node.inode, node.loc(self), request.name.as_deref())
    }

    pub(crate) fn fgetxattr(&self, ctx: &Context, request: &Fgetxattr) -> Outcome<DictReply> {
        self.opened(request.gfid, request.fd)?
            .with(self, |inode, loc| self.get_any(ctx, inode, loc, request.name.as_deref()))
    }

    fn get_any(&self, ctx: &Context, inode: &Inode, loc: Loc<'_>, name: Option<&[u8]>) -> Outcome<DictReply> {
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return self.list_all(ctx, loc);
        };
        // No name that is stored or known here is anything but text.
        let name = std::str::from_utf8(name).map_err(|_| Errno::ENODATA)?;
        if let Some(reply) = self.virtual_xattr(inode, loc, name)? {
            return Ok(reply);
        }
        if name == XATTR_GFID {
            // Observed on 10.3: the length, and an empty dict.
            return Ok(DictReply { len: 16, dict: Some(Dict::new()), xdata: None });
        }
        if !is_visible(ctx, name) || !has_xattr_namespace(name) {
            return Err(Errno::ENODATA.into());
        }
        let value = match xattr::get(loc, name.as_bytes()) {
            Ok(value) => value.ok_or(Errno::ENODATA)?,
            // A name space that the file system does not know holds nothing.
            Err(Errno::EOPNOTSUPP) => return Err(Errno::ENODATA.into()),
            Err(error) => return Err(error.into()),
        };
        Ok(DictReply {
            len: u32::try_from(value.len()).map_err(|_| Errno::ERANGE)?,
            dict: Some(Dict::new().with(name.to_owned(), Value::ptr(value))),
            xdata: None,
        })
    }

    /// Every stored xattr but the brick's own. `len` is what listxattr(2) would say.
    fn list_all(&self, ctx: &Context, loc: Loc<'_>) -> Outcome<DictReply> {
        let (mut dict, mut len) = (Dict::new(), 0);
        for name in xattr::list(loc)?.iter() {
            let Ok(key) = std::str::from_utf8(name) else { continue };
            if !is_visible(ctx, key) || key == XATTR_GFID || key == XATTR_VOLUME_ID {
                continue;
            }
            if let Some(value) = xattr::get(loc, name)? {
                len += name.len() + 1;
                dict.set(key.to_owned(), Value::ptr(value));
            }
        }
        Ok(DictReply { len: u32::try_from(len).map_err(|_| Errno::ERANGE)?, dict: Some(dict), xdata: None })
    }

    pub(crate) fn removexattr(&self, ctx: &Context, request: &Removexattr) -> Outcome<AckReply> {
        let node = self.node(request.gfid)?;
        self.remove_any(ctx, &node.inode, node.loc(self), &request.name, request.xdata.as_ref())
    }

    pub(crate) fn fremovexattr(&self, ctx: &Context, request: &Fremovexattr) -> Outcome<AckReply> {
        self.opened(request.gfid, request.fd)?
            .with(self, |inode, loc| self.remove_any(ctx, inode, loc, &request.name, request.xdata.as_ref()))
    }

    fn remove_any(
        &self,
        ctx: &Context,
        inode: &Inode,
        loc: Loc<'_>,
        name: &[u8],
        xdata: Option<&Dict>,
    ) -> Outcome<AckReply> {
        let pre = self.iatt(inode, loc)?;
        if name.is_empty() {
            // In bulk: the keys of xdata. One that is gone already is as good as removed.
            for key in xdata.into_iter().flat_map(Dict::keys).filter(|key| has_xattr_namespace(key)) {
                match self.remove_one(ctx, inode, loc, key) {
                    Ok(()) | Err(Errno::ENODATA) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        } else {
            let name = std::str::from_utf8(name).map_err(|_| Errno::ENODATA)?;
            self.remove_one(ctx, inode, loc, name)?;
        }
        self.touch_self(ctx, inode, loc);
        Ok(AckReply { xdata: Some(with_iatts(&pre, &self.iatt(inode, loc)?)) })
    }

    fn remove_one(&self, ctx: &Context, inode: &Inode, loc: Loc<'_>, name: &str) -> Result<()> {
        if is_own_key(name) || name.starts_with(XATTR_GFID2PATH_PREFIX) {
            return Err(Errno::EPERM);
        }
        let name = match name {
            acl_text::ACCESS_KEY => XATTR_ACL_ACCESS,
            acl_text::DEFAULT_KEY => XATTR_ACL_DEFAULT,
            other => other,
        };
        self.permit_xattr(ctx, loc, name)?;
        {
            let mut memory = inode.memory();
            if name == XATTR_ACL_DEFAULT {
                memory.default_acl = Cached::Unknown;
            }
            if name == XATTR_MDATA {
                memory.mdata = Cached::Unknown;
            }
        }
        xattr::remove(loc, name.as_bytes())
    }

    /// xattr(7): user.* like the data, ACLs by the owner, trusted.* and security.* by root.
    fn permit_xattr(&self, ctx: &Context, loc: Loc<'_>, name: &str) -> Result<()> {
        if is_privileged(ctx) {
            return Ok(());
        }
        let stat = loc.stat()?;
        if name.starts_with("user.") {
            return self.permit(ctx, loc, &stat, Want::WRITE);
        }
        if matches!(name, XATTR_ACL_ACCESS | XATTR_ACL_DEFAULT | acl_text::ACCESS_KEY | acl_text::DEFAULT_KEY) {
            return self.permit_owner(ctx, &stat);
        }
        // Clients' own translators (ctime, distribute) set these in the name of whoever made them do it.
        if name.starts_with("trusted.") || name.starts_with("glusterfs.") || name == SET_CTIME_MDATA {
            return Ok(());
        }
        Err(Errno::EPERM)
    }
}

/// Keys that only the brick itself writes, or whose value it keeps in memory.
pub(crate) fn is_brick_key(key: &str) -> bool {
    is_own_key(key) || key == XATTR_MDATA || key.starts_with(XATTR_GFID2PATH_PREFIX)
}

/// Keys that only the brick itself writes.
fn is_own_key(key: &str) -> bool {
    matches!(key, XATTR_GFID | XATTR_VOLUME_ID)
}

/// Whether a client may see it: links are the brick's notes, times travel in attributes.
fn is_visible(ctx: &Context, key: &str) -> bool {
    !key.starts_with(XATTR_GFID2PATH_PREFIX) && (key != XATTR_MDATA || ctx.pid.is_internal())
}

/// Values of SETXATTR are raw; text has no NUL added, because setfattr(1) of a plain string arrives so too.
fn stored_value_of_set(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::Str(text) => Some(text.to_vec()),
        other => stored_value(other),
    }
}

fn set_acl_text(loc: Loc<'_>, name: &str, value: &Value) -> Result<()> {
    let raw = value.as_str().and_then(acl_text::from_text).ok_or(Errno::EINVAL)?;
    xattr::set(loc, name.as_bytes(), &raw, SetMode::Any)
}

fn with_iatts(pre: &Iatt, post: &Iatt) -> Dict {
    let value = |iatt: &Iatt| Value::Iatt(Box::new(*iatt));
    let [dht, virt] = POSTSTAT_KEYS;
    Dict::new().with(dht, value(post)).with(PRESTAT_KEY, value(pre)).with(virt, value(post))
}
