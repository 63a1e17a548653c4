//! LOOKUP, and finding out which inode a name belongs to.

use std::os::fd::AsFd;
use std::sync::Arc;

use mortar_sys::xattr::{self, SetMode};
use mortar_sys::{Loc, Result};
use mortar_types::fop::{Lookup, LookupReply};
use mortar_types::keys::{self, GFID_REQ, GFIDLESS_LOOKUP, UNLINKED_LOOKUP, XATTR_GFID};
use mortar_types::{Context, Dict, EntryName, Errno, Failure, Gfid, Iatt, InvalidName, Outcome, Pid, Value};
use rustix::fs::Stat;

use super::answers::Subject;
use super::attributes::backend_iatt;
use super::brick::Brick;
use super::handle::HIDDEN_DIR;
use super::inode::Inode;
use super::known;
use super::permission::Want;
use super::resolve::{Parent, Place, gfid_of, is_dir};
use crate::index::VirtualDir;

/// An inode without a gfid that changed so lately may be one that is being made: it is left alone
/// (`posix-helpers.c: posix_is_file_fresh`, 1 s).
const FRESH_SECONDS: i64 = 1;

impl Brick {
    pub(crate) fn lookup(&self, ctx: &Context, request: Lookup) -> Outcome<LookupReply> {
        let xdata = request.xdata.as_ref();
        let result = if request.name.is_empty() {
            self.lookup_by_gfid(request.gfid, xdata)
        } else if let Some(reply) = self.index_lookup_named(request.parent, &request.name)? {
            Ok(reply)
        } else {
            self.lookup_by_name(ctx, request.parent, request.name, xdata)
        };
        // A replica that lacks the name still tells whether its index has something to heal.
        result.map_err(|failure| self.with_link_count(failure, xdata))
    }

    fn with_link_count(&self, mut failure: Failure, xdata: Option<&Dict>) -> Failure {
        if failure.errno == Errno::ENOENT && failure.xdata.is_none() {
            let mut reply = Dict::new();
            self.answer_link_count(xdata, &mut reply);
            failure.xdata = (!reply.is_empty()).then_some(reply);
        }
        failure
    }

    fn lookup_by_name(
        &self,
        ctx: &Context,
        parent: Gfid,
        name: bytes::Bytes,
        xdata: Option<&Dict>,
    ) -> Outcome<LookupReply> {
        let name = EntryName::new(name).map_err(|invalid| match invalid {
            // Observed on 10.3: the entry exists but has no gfid of its own.
            InvalidName::DotOrDotDot => Errno::ENODATA,
            other => other.errno(),
        })?;
        if parent.is_root() && name.as_bytes() == HIDDEN_DIR {
            return Err(Errno::EPERM.into());
        }
        let parent = self.parent(parent)?;
        let now = known::now();
        let stat = parent.at(&name).stat()?;
        if (stat.st_dev, stat.st_ino) == self.hidden {
            return Err(Errno::ENOENT.into());
        }
        let parent_stat = parent.loc().stat()?;
        self.permit(ctx, parent.loc(), &parent_stat, Want::SEARCH)?;
        let postparent = self.iatt_from(&parent.inode, parent.loc(), &parent_stat);
        let gfid_req = xdata.and_then(|xdata| xdata.get_gfid(GFID_REQ)).filter(|gfid| !gfid.is_null());
        let inode = match self.identify(&parent, &name, &stat, gfid_req) {
            Ok(inode) => inode,
            Err(Errno::ENODATA) if xdata.is_some_and(|xdata| xdata.contains(GFIDLESS_LOOKUP)) => {
                let stat = backend_iatt(Gfid::NULL, &stat);
                return Ok(LookupReply { stat, postparent, xdata: Some(Dict::new()) });
            }
            Err(error) => return Err(error.into()),
        };
        if ctx.pid == Pid::SELF_HEAL_DAEMON && !is_dir(&stat) {
            self.settle_notes(&inode, &parent, &name);
        }
        let loc = parent.at(&name);
        let iatt = self.iatt_from(&inode, loc, &stat);
        self.remember(&inode, &stat, now);
        let reply = self.answer(&Subject { inode: &inode, loc, stat: &stat }, xdata)?;
        Ok(LookupReply { stat: iatt, postparent, xdata: Some(reply) })
    }

    /// The inode under a name, with its handle seen to. One without a gfid gets `gfid_req`; ENODATA when there is none,
    /// ENOENT when the inode is so fresh that its creation may be under way.
    pub(crate) fn identify(
        &self,
        parent: &Parent,
        name: &EntryName,
        stat: &Stat,
        gfid_req: Option<Gfid>,
    ) -> Result<Arc<Inode>> {
        let loc = parent.at(name);
        if let Some(known) = self.known.get(stat) {
            let inode = self.inodes.get(known.gfid);
            inode.memory().handle_checked = true;
            return Ok(inode);
        }
        let gfid = match gfid_of(loc)? {
            Some(gfid) if !gfid.is_null() => gfid,
            _ => self.give_gfid(loc, stat, gfid_req)?,
        };
        let inode = self.inodes.get(gfid);
        self.check_handle(&inode, parent, name, stat)?;
        Ok(inode)
    }

    fn give_gfid(&self, loc: Loc<'_>, stat: &Stat, gfid_req: Option<Gfid>) -> Result<Gfid> {
        let gfid = gfid_req.ok_or(Errno::ENODATA)?;
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
        if now.saturating_sub(stat.st_ctime) < FRESH_SECONDS {
            return Err(Errno::ENOENT);
        }
        match xattr::set(loc, XATTR_GFID.as_bytes(), gfid.as_bytes(), SetMode::Create) {
            Ok(()) => {
                tracing::info!(%gfid, "gave a gfid to an inode that had none");
                Ok(gfid)
            }
            // Another lookup was faster.
            Err(Errno::EEXIST) => gfid_of(loc)?.ok_or(Errno::ENODATA),
            Err(error) => Err(error),
        }
    }

    fn lookup_by_gfid(&self, gfid: Gfid, xdata: Option<&Dict>) -> Outcome<LookupReply> {
        if let Some(reply) = self.index_lookup(gfid, xdata)? {
            return Ok(reply);
        }
        // A handle that leads nowhere is no inode either; its directory may still be met by name.
        let (node, found) = self.find_with_stat(gfid).map_err(|error| match error {
            Errno::ESTALE => Errno::ENOENT,
            other => other,
        })?;
        let loc = node.loc(self);
        let stat = match found {
            Some(stat) => stat,
            None => loc.stat()?,
        };
        match &node.place {
            Place::File(_) if stat.st_nlink == 1 && self.drop_orphan(&node.inode)? => {
                return Err(Errno::ENOENT.into());
            }
            Place::Unlinked(_) if !xdata.is_some_and(|xdata| xdata.contains(UNLINKED_LOOKUP)) => {
                return Err(Errno::ENOENT.into());
            }
            _ => {}
        }
        let iatt = self.iatt_from(&node.inode, loc, &stat);
        let reply = self.answer(&Subject { inode: &node.inode, loc, stat: &stat }, xdata)?;
        Ok(LookupReply { stat: iatt, postparent: Iatt::default(), xdata: Some(reply) })
    }

    /// A lookup in the index's virtual directories; `None`: the gfid is not one of theirs. GlusterFS's self-heal daemon
    /// asks which kind of directory it is and sweeps nothing without an answer (`index.c: index_lookup_wrapper`).
    fn index_lookup(&self, gfid: Gfid, xdata: Option<&Dict>) -> Result<Option<LookupReply>> {
        let Some(dir) = self.index.virtual_dir(gfid) else { return Ok(None) };
        let fd = self.index.open(dir)?;
        let stat = backend_iatt(gfid, &Loc::Fd(fd.as_fd()).stat()?);
        let mut reply = Dict::new();
        if xdata.is_some_and(|xdata| xdata.contains(keys::INDEX_TYPE_REQUEST)) {
            // 1: entries are gfids to heal; 2: entries are directories of changed names.
            let kind = if dir == VirtualDir::EntryChanges { 2 } else { 1 };
            reply.set(keys::INDEX_TYPE_RESPONSE, Value::Uint(kind));
        }
        Ok(Some(LookupReply { stat, postparent: Iatt::default(), xdata: Some(reply) }))
    }

    fn index_lookup_named(&self, parent: Gfid, name: &[u8]) -> Result<Option<LookupReply>> {
        let Some(dir) = self.index.virtual_dir(parent) else { return Ok(None) };
        let (gfid, stat) = self.index.lookup(dir, name)?;
        let fd = self.index.open(dir)?;
        let postparent = backend_iatt(parent, &Loc::Fd(fd.as_fd()).stat()?);
        Ok(Some(LookupReply { stat: backend_iatt(gfid, &stat), postparent, xdata: Some(Dict::new()) }))
    }
}
