//! UNLINK and RMDIR.

use std::os::fd::AsFd;

use mortar_sys::{Loc, Result, at, xattr};
use mortar_types::fop::{ChangeReply, Rmdir, Unlink};
use mortar_types::keys::{
    GET_FILE_BLOCK_COUNT, GET_LINK_COUNT, REQUEST_LINK_COUNT, RESPONSE_LINK_COUNT, XATTR_DHT_LINKTO,
};
use mortar_types::{Context, Dict, EntryName, Errno, Gfid, Outcome, Value};
use rustix::fs::Stat;

use super::attributes::backend_iatt;
use super::brick::Brick;
use super::handle::{HandlePath, gfid_text, hidden_path};
use super::inode::Cached;
use super::permission::Want;
use super::resolve::{Parent, gfid_of, is_dir, is_regular};

/// Distribute's guards of an unlink (`dht-common.h`).
const DONT_UNLINK_FOR_OPEN_FD: &str = "dont-unlink-for-open-fd";
const UNLINK_ONLY_IF_LINKTO: &str = "unlink-only-if-dht-linkto-file";
const DHT_IATT_IN_XATTR: &str = "dht-get-iatt-in-xattr";

/// RMDIR's flag to throw away a whole tree.
const FLAG_TREE: i32 = 1;

impl Brick {
    pub(crate) fn unlink(&self, ctx: &Context, request: Unlink) -> Outcome<ChangeReply> {
        if let Some(dir) = self.index.virtual_dir(request.parent) {
            self.index.unlink(dir, &request.name)?;
            if let Some((gfid, kind)) = self.index.forgets(dir, &request.name) {
                self.inodes.get(gfid).memory().indexed[kind] = Cached::Unknown;
            }
            return self.index_change_reply(request.parent, dir);
        }
        let name = self.entry_name(request.parent, request.name)?;
        let parent = self.parent(request.parent)?;
        let _entries = parent.inode.lock_entries();
        let victim = parent.at(&name).stat()?;
        if is_dir(&victim) {
            return Err(Errno::EISDIR.into());
        }
        let parent_stat = parent.loc().stat()?;
        self.permit(ctx, parent.loc(), &parent_stat, Want::CHANGE_ENTRIES)?;
        self.permit_removal(ctx, &parent_stat, &victim)?;
        self.check_unlink_guards(&parent, &name, &victim, request.xdata.as_ref())?;
        let pre = self.iatt_from(&parent.inode, parent.loc(), &parent_stat);
        let gfid = self.remove_file_entry(&parent, &name, &victim)?;
        if let Some(gfid) = gfid.filter(|_| victim.st_nlink > 2) {
            let handle = HandlePath::new(gfid);
            self.touch_self(ctx, &self.inodes.get(gfid), Loc::At(self.root_fd(), handle.as_bytes()));
        }
        self.touch_parent(ctx, &parent.inode, parent.loc());
        let post = self.iatt(&parent.inode, parent.loc())?;
        let xdata = unlink_answers(gfid, &victim, request.xdata.as_ref());
        Ok(ChangeReply { pre, post, xdata: Some(xdata) })
    }

    fn check_unlink_guards(
        &self,
        parent: &Parent,
        name: &EntryName,
        victim: &Stat,
        xdata: Option<&Dict>,
    ) -> Result<()> {
        let Some(xdata) = xdata else { return Ok(()) };
        let asked = |key: &str| xdata.get(key).is_some_and(|value| value.as_i64() != Some(0));
        if asked(DONT_UNLINK_FOR_OPEN_FD)
            && let Some(gfid) = gfid_of(parent.at(name))?
            && self.inodes.get(gfid).open_fds() > 0
        {
            return Err(Errno::EBUSY);
        }
        if asked(UNLINK_ONLY_IF_LINKTO) && !is_linkto(victim, parent.at(name))? {
            return Err(Errno::EBUSY);
        }
        Ok(())
    }

    /// Removes a name of a file, and with the last one its handle. The caller holds the parent's entry lock. Returns the gfid
    /// when it had one.
    pub(crate) fn remove_file_entry(&self, parent: &Parent, name: &EntryName, victim: &Stat) -> Result<Option<Gfid>> {
        let loc = parent.at(name);
        let Some(gfid) = gfid_of(loc)? else {
            at::unlink(parent.fd.as_fd(), name.as_bytes())?;
            return Ok(None);
        };
        let inode = self.inodes.get(gfid);
        let _serial = inode.serialise();
        at::unlink(parent.fd.as_fd(), name.as_bytes())?;
        // The name and the handle were all: the handle goes too.
        if victim.st_nlink <= 2 {
            self.retire_handle(&inode)?;
        } else {
            let handle = HandlePath::new(gfid);
            self.forget_link(&inode, Loc::At(self.root_fd(), handle.as_bytes()), parent.gfid(), name);
        }
        Ok(Some(gfid))
    }

    pub(crate) fn rmdir(&self, ctx: &Context, request: Rmdir) -> Outcome<ChangeReply> {
        if let Some(dir) = self.index.virtual_dir(request.parent) {
            self.index.rmdir(dir, &request.name)?;
            return self.index_change_reply(request.parent, dir);
        }
        let name = self.entry_name(request.parent, request.name)?;
        let parent = self.parent(request.parent)?;
        let _entries = parent.inode.lock_entries();
        let victim = parent.at(&name).stat()?;
        if !is_dir(&victim) {
            return Err(Errno::ENOTDIR.into());
        }
        let parent_stat = parent.loc().stat()?;
        self.permit(ctx, parent.loc(), &parent_stat, Want::CHANGE_ENTRIES)?;
        self.permit_removal(ctx, &parent_stat, &victim)?;
        let pre = self.iatt_from(&parent.inode, parent.loc(), &parent_stat);
        let gfid = gfid_of(parent.at(&name))?;
        let inode = gfid.map(|gfid| self.inodes.get(gfid));
        if request.flags & FLAG_TREE == 0 {
            at::rmdir(parent.fd.as_fd(), name.as_bytes()).map_err(|error| match error {
                Errno::EEXIST => Errno::ENOTEMPTY,
                other => other,
            })?;
        } else {
            self.throw_away(&parent, &name, gfid)?;
        }
        if let Some(inode) = &inode {
            self.remove_dir_handle(inode, parent.gfid(), &name)?;
        }
        self.touch_parent(ctx, &parent.inode, parent.loc());
        let post = self.iatt(&parent.inode, parent.loc())?;
        Ok(ChangeReply { pre, post, xdata: Some(Dict::new()) })
    }

    /// Moves a tree to the landfill, where the janitor takes it apart.
    fn throw_away(&self, parent: &Parent, name: &EntryName, gfid: Option<Gfid>) -> Result<()> {
        let into = |gfid: Gfid| {
            let path = hidden_path("landfill", &gfid_text(gfid));
            at::rename_noreplace(parent.fd.as_fd(), name.as_bytes(), self.root_fd(), &path)
        };
        match into(gfid.unwrap_or_else(Gfid::random)) {
            // An earlier tree of the same gfid waits there.
            Err(Errno::EEXIST) => into(Gfid::random()),
            result => result,
        }
    }

    fn index_change_reply(&self, gfid: Gfid, dir: crate::index::VirtualDir) -> Outcome<ChangeReply> {
        let fd = self.index.open(dir)?;
        let stat = backend_iatt(gfid, &Loc::Fd(fd.as_fd()).stat()?);
        Ok(ChangeReply { pre: stat, post: stat, xdata: None })
    }
}

/// Whether it is a pointer of distribute: mode exactly 01000, and the xattr that says where to.
pub(crate) fn is_linkto(stat: &Stat, loc: Loc<'_>) -> Result<bool> {
    if !is_regular(stat) || stat.st_mode & 0o7777 != 0o1000 {
        return Ok(false);
    }
    Ok(xattr::get(loc, XATTR_DHT_LINKTO.as_bytes())?.is_some())
}

fn unlink_answers(gfid: Option<Gfid>, victim: &Stat, request: Option<&Dict>) -> Dict {
    let asked = |key: &str| request.is_some_and(|request| request.contains(key));
    let links = victim.st_nlink.saturating_sub(1);
    // Real bricks always answer this one, 0 when it was not asked.
    let mut reply = Dict::new().with(GET_LINK_COUNT, Value::Uint(if asked(GET_LINK_COUNT) { links } else { 0 }));
    if asked(REQUEST_LINK_COUNT) {
        reply.set(RESPONSE_LINK_COUNT, Value::Uint(links));
    }
    if asked(GET_FILE_BLOCK_COUNT) {
        reply.set(GET_FILE_BLOCK_COUNT, Value::Uint(u64::try_from(victim.st_blocks).unwrap_or(0)));
    }
    if asked(DHT_IATT_IN_XATTR) {
        let mut stat = backend_iatt(gfid.unwrap_or(Gfid::NULL), victim);
        stat.nlink = stat.nlink.saturating_sub(1);
        reply.set(DHT_IATT_IN_XATTR, Value::Iatt(Box::new(stat)));
    }
    reply
}
