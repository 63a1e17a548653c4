//! RENAME.
//!
//! The kernel's rename comes first and is the fop; handles and notes follow. See [`super::handles`] for what a crash between
//! them leaves, and what repairs it.

use std::os::fd::AsFd;
use std::sync::Arc;

use mortar_sys::{Loc, Result, at};
use mortar_types::fop::{Rename, RenameReply};
use mortar_types::keys::{GET_LINK_COUNT, REQUEST_LINK_COUNT, RESPONSE_LINK_COUNT};
use mortar_types::{Context, Dict, EntryName, Errno, Outcome, Value};
use rustix::fs::Stat;

use super::brick::Brick;
use super::handle::HandlePath;
use super::inode::{Inode, lock_pair};
use super::permission::Want;
use super::resolve::{Parent, gfid_of, is_dir};

/// One end of a rename.
struct End {
    parent: Parent,
    name: EntryName,
}

/// What the new name stood for.
struct Replaced {
    stat: Stat,
    inode: Option<Arc<Inode>>,
}

impl Brick {
    pub(crate) fn rename(&self, ctx: &Context, request: Rename) -> Outcome<RenameReply> {
        let old_name = self.entry_name(request.old_parent, request.old_name)?;
        let new_name = self.entry_name(request.new_parent, request.new_name)?;
        let old = End { parent: self.parent(request.old_parent)?, name: old_name };
        // A missing source is ENOENT whatever the target is (observed on 10.3).
        old.parent.at(&old.name).stat()?;
        let new = End { parent: self.parent(request.new_parent)?, name: new_name };
        let _entries = lock_pair(&old.parent.inode, &new.parent.inode);

        let stat = old.parent.at(&old.name).stat()?;
        let inode = self.identify(&old.parent, &old.name, &stat, None)?;
        let replaced = self.replaced(&new)?;
        let (old_stat, new_stat) = (old.parent.loc().stat()?, new.parent.loc().stat()?);
        self.permit_rename(ctx, &old, &new, [&old_stat, &new_stat], &stat, replaced.as_ref())?;
        let preoldparent = self.iatt_from(&old.parent.inode, old.parent.loc(), &old_stat);
        let prenewparent = self.iatt_from(&new.parent.inode, new.parent.loc(), &new_stat);

        at::rename(old.parent.fd.as_fd(), old.name.as_bytes(), new.parent.fd.as_fd(), new.name.as_bytes())?;
        // Renaming one hard link onto another of the same file does nothing at all.
        let same = replaced.as_ref().is_some_and(|replaced| replaced.stat.st_ino == stat.st_ino);
        if !same {
            if let Some(replaced) = &replaced {
                self.retire_replaced(&new, replaced)?;
                self.touch_replaced(ctx, replaced);
            }
            self.follow_rename(&inode, &stat, &old, &new)?;
        }

        let loc = new.parent.at(&new.name);
        self.touch_self(ctx, &inode, loc);
        self.touch_parent(ctx, &old.parent.inode, old.parent.loc());
        self.touch_parent(ctx, &new.parent.inode, new.parent.loc());
        Ok(RenameReply {
            stat: self.iatt(&inode, loc)?,
            preoldparent,
            postoldparent: self.iatt(&old.parent.inode, old.parent.loc())?,
            prenewparent,
            postnewparent: self.iatt(&new.parent.inode, new.parent.loc())?,
            xdata: Some(rename_answers(request.xdata.as_ref(), replaced.as_ref())),
        })
    }

    fn permit_rename(
        &self,
        ctx: &Context,
        old: &End,
        new: &End,
        parents: [&Stat; 2],
        moved: &Stat,
        replaced: Option<&Replaced>,
    ) -> Result<()> {
        self.permit(ctx, old.parent.loc(), parents[0], Want::CHANGE_ENTRIES)?;
        self.permit(ctx, new.parent.loc(), parents[1], Want::CHANGE_ENTRIES)?;
        self.permit_removal(ctx, parents[0], moved)?;
        replaced.map_or(Ok(()), |replaced| self.permit_removal(ctx, parents[1], &replaced.stat))
    }

    fn replaced(&self, new: &End) -> Result<Option<Replaced>> {
        let loc = new.parent.at(&new.name);
        match loc.stat() {
            Ok(stat) => {
                let inode = gfid_of(loc)?.map(|gfid| self.inodes.get(gfid));
                Ok(Some(Replaced { stat, inode }))
            }
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the new name stood for has lost that name.
    fn retire_replaced(&self, new: &End, replaced: &Replaced) -> Result<()> {
        let Some(inode) = &replaced.inode else { return Ok(()) };
        if is_dir(&replaced.stat) {
            return self.remove_dir_handle(inode, new.parent.gfid(), &new.name);
        }
        let _serial = inode.serialise();
        if replaced.stat.st_nlink <= 2 {
            return self.retire_handle(inode);
        }
        let handle = HandlePath::new(inode.gfid);
        self.forget_link(inode, Loc::At(self.root_fd(), handle.as_bytes()), new.parent.gfid(), &new.name);
        Ok(())
    }

    /// A file that goes on under other names has lost a link, which is a change of it.
    fn touch_replaced(&self, ctx: &Context, replaced: &Replaced) {
        if let Some(inode) = &replaced.inode
            && !is_dir(&replaced.stat)
            && replaced.stat.st_nlink > 2
        {
            let handle = HandlePath::new(inode.gfid);
            self.touch_self(ctx, inode, Loc::At(self.root_fd(), handle.as_bytes()));
        }
    }

    /// The moved inode's handle or note follows it.
    fn follow_rename(&self, inode: &Inode, stat: &Stat, old: &End, new: &End) -> Result<()> {
        if is_dir(stat) {
            return self.write_dir_handle(inode.gfid, new.parent.gfid(), &new.name);
        }
        let loc = new.parent.at(&new.name);
        // The old note first: an inode with many links may have no room for both.
        self.forget_link(inode, loc, old.parent.gfid(), &old.name);
        self.note_link(inode, loc, new.parent.gfid(), &new.name);
        Ok(())
    }
}

fn rename_answers(request: Option<&Dict>, replaced: Option<&Replaced>) -> Dict {
    let mut reply = Dict::new();
    let links = replaced.filter(|replaced| !is_dir(&replaced.stat)).map(|replaced| replaced.stat.st_nlink - 1);
    if let Some(links) = links {
        let asked = |key: &str| request.is_some_and(|request| request.contains(key));
        if asked(GET_LINK_COUNT) {
            reply.set(GET_LINK_COUNT, Value::Uint(links));
        }
        if asked(REQUEST_LINK_COUNT) {
            reply.set(RESPONSE_LINK_COUNT, Value::Uint(links));
        }
    }
    reply
}
