//! Extended attributes: which names are the application's, which are the file system's own, and sizes.

use bytes::Bytes;
use mortar_types::fop::{Fgetxattr, Fremovexattr, Fsetxattr, Getxattr, Removexattr, Setxattr};
use mortar_types::{Context, Dict, Errno, Gfid, Value, keys};

use super::{Bridge, Response, Result, errno};
use crate::kernel::reply::{Answer, Body};
use crate::nodes::NodeId;

const SELINUX: &str = "security.selinux";
const CAPABILITY: &str = "security.capability";

/// Names that belong to bricks and translators: never listed.
const HIDDEN_PREFIXES: [&str; 6] =
    ["glusterfs.", "trusted.glusterfs.", "trusted.gfid", "trusted.afr.", "trusted.mortar.", "trusted.pgfid."];

/// Names whose change by hand would break the volume (`posix-helpers.c`, `afr-inode-write.c`, `dht-common.c`).
const GUARDED_PREFIXES: [&str; 6] = [
    "trusted.gfid",
    "trusted.afr.",
    "trusted.mortar.",
    keys::XATTR_VOLUME_ID,
    "trusted.glusterfs.dht",
    "trusted.glusterfs.mdata",
];

impl Bridge {
    pub(super) async fn setxattr(
        &self,
        ctx: &Context,
        node: NodeId,
        gfid: Gfid,
        flags: u32,
        name: &Bytes,
        value: Bytes,
    ) -> Result<Response> {
        let key = text(name)?;
        self.settable(key)?;
        let dict = Some(Dict::new().with(key.to_owned(), Value::Ptr(value)));
        let request = Setxattr { gfid, flags, dict: dict.clone(), xdata: None };
        if let Err(failure) = self.volume.fop(ctx, request).await {
            let fd = self.open_file(node, failure)?.fd;
            self.volume.fop(ctx, Fsetxattr { gfid, fd, flags, dict, xdata: None }).await.map_err(errno)?;
        }
        Ok(Response::empty())
    }

    pub(super) async fn getxattr(
        &self,
        ctx: &Context,
        node: NodeId,
        gfid: Gfid,
        name: &Bytes,
        size: u32,
    ) -> Result<Response> {
        let key = text(name)?;
        self.gettable(key)?;
        let dict = self.fetch_xattrs(ctx, node, gfid, Some(name.clone())).await?;
        let value = dict.as_ref().and_then(|dict| dict.get_bytes(key)).ok_or(Errno::ENODATA)?;
        sized(value.clone(), size)
    }

    pub(super) async fn listxattr(&self, ctx: &Context, node: NodeId, gfid: Gfid, size: u32) -> Result<Response> {
        let dict = self.fetch_xattrs(ctx, node, gfid, None).await?.unwrap_or_default();
        let mut names = Vec::new();
        for key in dict.keys().filter(|key| self.listed(key, ctx.uid == 0)) {
            names.extend_from_slice(key.as_bytes());
            names.push(0);
        }
        sized(Bytes::from(names), size)
    }

    pub(super) async fn removexattr(&self, ctx: &Context, node: NodeId, gfid: Gfid, name: Bytes) -> Result<Response> {
        self.settable(text(&name)?)?;
        let request = Removexattr { gfid, name: name.clone(), xdata: None };
        if let Err(failure) = self.volume.fop(ctx, request).await {
            let fd = self.open_file(node, failure)?.fd;
            self.volume.fop(ctx, Fremovexattr { gfid, fd, name, xdata: None }).await.map_err(errno)?;
        }
        Ok(Response::empty())
    }

    async fn fetch_xattrs(&self, ctx: &Context, node: NodeId, gfid: Gfid, name: Option<Bytes>) -> Result<Option<Dict>> {
        match self.volume.fop(ctx, Getxattr { gfid, name: name.clone(), xdata: None }).await {
            Ok(reply) => Ok(reply.dict),
            Err(failure) => {
                let fd = self.open_file(node, failure)?.fd;
                Ok(self.volume.fop(ctx, Fgetxattr { gfid, fd, name, xdata: None }).await.map_err(errno)?.dict)
            }
        }
    }

    /// Refuses what the mount does not serve without asking the volume: the kernel asks for labels, capabilities and ACLs
    /// at every turn.
    fn gettable(&self, key: &str) -> Result<()> {
        match key {
            keys::XATTR_ACL_ACCESS | keys::XATTR_ACL_DEFAULT if !self.config.acl => Err(Errno::EOPNOTSUPP),
            SELINUX if !self.config.selinux => Err(Errno::ENODATA),
            CAPABILITY => Err(Errno::ENODATA),
            _ => Ok(()),
        }
    }

    fn settable(&self, key: &str) -> Result<()> {
        match key {
            keys::XATTR_ACL_ACCESS | keys::XATTR_ACL_DEFAULT if !self.config.acl => Err(Errno::EOPNOTSUPP),
            SELINUX if !self.config.selinux => Err(Errno::EOPNOTSUPP),
            CAPABILITY => Err(Errno::EOPNOTSUPP),
            _ if GUARDED_PREFIXES.iter().any(|prefix| key.starts_with(prefix)) => Err(Errno::EPERM),
            _ => Ok(()),
        }
    }

    fn listed(&self, key: &str, root: bool) -> bool {
        match key {
            keys::XATTR_ACL_ACCESS | keys::XATTR_ACL_DEFAULT => self.config.acl,
            SELINUX => self.config.selinux,
            CAPABILITY => false,
            _ if HIDDEN_PREFIXES.iter().any(|prefix| key.starts_with(prefix)) => false,
            _ => root || !key.starts_with("trusted."),
        }
    }
}

/// Dict keys are text; a name that is not has never been set.
fn text(name: &Bytes) -> Result<&str> {
    std::str::from_utf8(name).map_err(|_| Errno::EOPNOTSUPP)
}

/// The answer of a value for a caller with `size` bytes of room; 0 asks how much is needed.
fn sized(value: Bytes, size: u32) -> Result<Response> {
    let length = u32::try_from(value.len()).map_err(|_| Errno::E2BIG)?;
    match size {
        0 => Ok(Response::body(Body::size(length))),
        _ if length > size => Err(Errno::ERANGE),
        _ => Ok(Response::answer(Answer::Data(value))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_without_room_is_erange_and_size_zero_asks() {
        let value = || Bytes::from_static(b"abc");
        assert_eq!(sized(value(), 2).unwrap_err(), Errno::ERANGE);
        assert_eq!(sized(value(), 0).unwrap(), Response::body(Body::size(3)));
        assert_eq!(sized(value(), 3).unwrap(), Response::answer(Answer::Data(value())));
    }
}
