//! RENAME of a directory: on every subvolume, where the new name belongs first; taken back where it was done when it
//! cannot be done everywhere (`dht-rename.c` dht_rename_dir).

use std::sync::Arc;

use mortar_logic::distribute::merge;
use mortar_types::fop::{Rename, RenameReply};
use mortar_types::{Context, Errno, Gfid, Outcome, Reply};

use super::Core;
use super::known::Hint;
use super::lock::Ask;
use super::subvols::Subvol;

impl Core {
    pub(super) async fn rename_dir(
        self: &Arc<Self>,
        ctx: &Context,
        request: Rename,
        gfid: Gfid,
        target: Option<(Gfid, Option<Arc<Subvol>>)>,
    ) -> Outcome<Reply> {
        let old = (request.old_parent, request.old_name.clone());
        let new = (request.new_parent, request.new_name.clone());
        let (old_dir, new_dir) = (self.dir(ctx, old.0).await?, self.dir(ctx, new.0).await?);
        let set = Arc::clone(&new_dir.set);
        if !set.all_up() || !Arc::ptr_eq(&set, &old_dir.set) {
            return Err(Errno::ENOTCONN.into());
        }
        match &target {
            Some((_, Some(_))) => return Err(Errno::ENOTDIR.into()),
            Some((other, None)) if *other != gfid => self.check_empty(ctx, &set, *other).await?,
            _ => {}
        }
        let root = super::internal(ctx);
        let old_hashed = old_dir.hashed(&old.1).ok_or(Errno::EIO)?;
        let new_hashed = new_dir.hashed(&new.1).ok_or(Errno::EIO)?;
        let mut names = [(set.get(old_hashed), &old), (set.get(new_hashed), &new)];
        names.sort_by(|a, b| (&a.0.name, a.1).cmp(&(&b.0.name, b.1)));
        let asks: Vec<Ask> = names.iter().flat_map(|(subvol, name)| Ask::namespace(subvol, name.0, &name.1)).collect();
        let held = self.lock(&root, asks).await?;
        let first = set.get(new_hashed).fop(ctx, request.clone()).await?;
        let replies = set.broadcast(ctx, |id| id != new_hashed, &request).await;
        let gone = |errno| matches!(errno, Errno::ENOENT | Errno::ESTALE);
        let failed = replies.iter().find_map(|(_, reply)| match reply {
            // Not there yet: the next lookup makes it under the new name.
            Some(Err(failure)) if !gone(failure.errno) => Some(failure.clone()),
            _ => None,
        });
        if let Some(failure) = failed {
            let back = Rename {
                old_parent: new.0,
                old_name: new.1.clone(),
                new_parent: old.0,
                new_name: old.1.clone(),
                xdata: None,
            };
            let done = |id| id == new_hashed || matches!(replies[id], Some(Ok(_)));
            set.broadcast(&root, done, &back).await;
            return Err(failure);
        }
        drop(held);
        self.memories.names.remove(&old);
        self.memories.names.insert(new, Hint { gfid, cached: None });
        // It knows its place by its old name.
        self.memories.inodes.remove(&gfid);
        if let Some((other, _)) = target.filter(|(other, _)| *other != gfid) {
            self.memories.inodes.remove(&other);
        }
        let mut answer = first;
        for (_, reply) in replies.iter() {
            if let Some(Ok(reply)) = reply {
                fold(&mut answer, reply);
            }
        }
        for parent in [
            &mut answer.stat,
            &mut answer.preoldparent,
            &mut answer.postoldparent,
            &mut answer.prenewparent,
            &mut answer.postnewparent,
        ] {
            merge::shown(parent);
        }
        Ok(answer.into())
    }
}

fn fold(into: &mut RenameReply, other: &RenameReply) {
    merge::directory(&mut into.stat, &other.stat);
    merge::directory(&mut into.preoldparent, &other.preoldparent);
    merge::directory(&mut into.postoldparent, &other.postoldparent);
    merge::directory(&mut into.prenewparent, &other.prenewparent);
    merge::directory(&mut into.postnewparent, &other.postnewparent);
}
