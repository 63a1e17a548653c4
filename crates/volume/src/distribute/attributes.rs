//! Attributes and xattrs: of a file where it is, of a directory on all subvolumes, with one that keeps what counts
//! (`dht-inode-write.c` dht_setattr, `dht-common.c` dht_dir_common_set_remove_xattr).

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use mortar_logic::distribute::merge;
use mortar_types::fop::{
    AckReply, ChangeReply, DictReply, Fsetattr, Getxattr, Removexattr, Setattr, Setxattr, Stat, StatReply, Xattrop,
    XattropOp,
};
use mortar_types::{Context, Dict, Errno, Gfid, Iatt, Outcome, Reply, Request, SubvolId, Value, keys};

use super::Core;
use super::file::pathinfo_key;
use super::heal::{internal_xdata, is_kept_by_mds};
use super::known::{Dir, Known};
use super::subvols::{Replies, Subvol, errnos, worst};

impl Core {
    pub(super) async fn stat(self: &Arc<Self>, ctx: &Context, request: Stat) -> Outcome<Reply> {
        let Known::Dir(dir) = self.whereabouts(ctx, request.gfid).await? else {
            return self.on_file(ctx, request.into()).await;
        };
        let replies = dir.set.broadcast(ctx, |_| true, &request).await;
        let mut stat = Iatt::default();
        for (_, reply) in replies.iter() {
            if let Some(Ok(reply)) = reply {
                merge::directory(&mut stat, &reply.stat);
            }
        }
        if stat.is_empty() {
            return Err(worst(&errnos(&replies)).into());
        }
        if let Some(mds) = dir.mds.filter(|_| !request.gfid.is_root())
            && let Some(Ok(reply)) = &replies[mds]
        {
            merge::owner(&mut stat, &reply.stat);
        }
        Ok(StatReply { stat, xdata: None }.into())
    }

    pub(super) async fn setattr(self: &Arc<Self>, ctx: &Context, request: Setattr) -> Outcome<Reply> {
        let Known::Dir(dir) = self.whereabouts(ctx, request.gfid).await? else {
            let (gfid, stat, valid) = (request.gfid, request.stat, request.valid);
            return self.set_file(ctx, gfid, (&stat, valid), request.into()).await;
        };
        let keeper = keeper(&dir)?;
        let first = dir.set.get(keeper).fop(ctx, request.clone()).await?;
        let replies = dir.set.broadcast(ctx, |id| id != keeper, &request).await;
        // One that missed it is given the keeper's by the next lookup.
        Ok(merged(first, &replies).into())
    }

    pub(super) async fn fsetattr(self: &Arc<Self>, ctx: &Context, request: Fsetattr) -> Outcome<Reply> {
        if let Known::Dir(_) = self.whereabouts(ctx, request.gfid).await? {
            let Fsetattr { gfid, stat, valid, xdata, .. } = request;
            return self.setattr(ctx, Setattr { gfid, stat, valid, xdata }).await;
        }
        let (gfid, stat, valid) = (request.gfid, request.stat, request.valid);
        self.set_file(ctx, gfid, (&stat, valid), request.into()).await
    }

    async fn set_file(
        self: &Arc<Self>,
        ctx: &Context,
        gfid: Gfid,
        change: (&Iatt, i32),
        request: Request,
    ) -> Outcome<Reply> {
        let before = match self.whereabouts(ctx, gfid).await? {
            Known::File(at) if change.1 & mortar_types::fop::setattr_valid::MODE != 0 && self.set().len() > 1 => {
                self.look_at(&super::internal(ctx), &at, gfid).await.map(|reply| reply.stat).unwrap_or_default()
            }
            _ => Iatt::default(),
        };
        let reply = self.on_file(ctx, request).await?;
        self.keep_marks(ctx, gfid, &before, change).await;
        Ok(reply)
    }

    pub(super) async fn setxattr(self: &Arc<Self>, ctx: &Context, request: Setxattr) -> Outcome<Reply> {
        match self.whereabouts(ctx, request.gfid).await? {
            Known::File(_) => self.on_file(ctx, request.into()).await,
            Known::Dir(dir) => {
                let kept = request.dict.iter().flat_map(Dict::keys).any(is_kept_by_mds);
                self.change_dir_xattrs(ctx, &dir, kept, request.into()).await
            }
        }
    }

    pub(super) async fn removexattr(self: &Arc<Self>, ctx: &Context, request: Removexattr) -> Outcome<Reply> {
        match self.whereabouts(ctx, request.gfid).await? {
            Known::File(_) => self.on_file(ctx, request.into()).await,
            Known::Dir(dir) => {
                let kept = std::str::from_utf8(&request.name).is_ok_and(is_kept_by_mds);
                self.change_dir_xattrs(ctx, &dir, kept, request.into()).await
            }
        }
    }

    /// At the mds first; while others have not followed, the mds says so.
    async fn change_dir_xattrs(&self, ctx: &Context, dir: &Dir, kept: bool, request: Request) -> Outcome<Reply> {
        let set = &dir.set;
        let keeper = keeper(dir)?;
        let root = super::internal(ctx);
        let marked = kept && dir.mds == Some(keeper) && !dir.gfid.is_root();
        if marked {
            self.mark_mds(&root, set.get(keeper), dir.gfid, -1).await?;
        }
        let first = set.get(keeper).call(ctx, request.clone()).await;
        if first.is_err() {
            if marked {
                drop(self.mark_mds(&root, set.get(keeper), dir.gfid, 1).await);
            }
            return first;
        }
        let replies = set
            .each(
                |id| id != keeper,
                |_, subvol| {
                    let request = request.clone();
                    async move { subvol.call(ctx, request).await }
                },
            )
            .await;
        let missed = replies.iter().any(|(_, reply)| match reply {
            // Removed there already.
            Some(Err(failure)) => failure.errno != Errno::ENODATA,
            _ => false,
        });
        if marked && !missed {
            drop(self.mark_mds(&root, set.get(keeper), dir.gfid, 1).await);
        }
        Ok(AckReply { xdata: None }.into())
    }

    async fn mark_mds(&self, root: &Context, mds: &Arc<Subvol>, gfid: Gfid, by: i32) -> Outcome<()> {
        let dict = Some(Dict::new().with(keys::XATTR_DHT_MDS, Value::ptr(by.to_be_bytes().to_vec())));
        mds.fop(root, Xattrop { gfid, op: XattropOp::AddArray, dict, xdata: internal_xdata() }).await.map(drop)
    }

    pub(super) async fn getxattr(self: &Arc<Self>, ctx: &Context, request: Getxattr) -> Outcome<Reply> {
        if !ctx.pid.is_internal()
            && request.name.as_ref().is_some_and(|name| name.starts_with(keys::XATTR_DHT.as_bytes()))
        {
            return Err(Errno::ENODATA.into());
        }
        if let Some(key) = request.name.as_ref().and_then(|name| pathinfo_key(name)) {
            return self.pathinfo(ctx, key, &request).await;
        }
        let Known::Dir(dir) = self.whereabouts(ctx, request.gfid).await? else {
            return self.on_file(ctx, request.into()).await;
        };
        let set = &dir.set;
        if request.name.is_some() {
            return Ok(set.get(keeper(&dir)?).fop(ctx, request).await?.into());
        }
        let replies = set.broadcast(ctx, |_| true, &request).await;
        let keeper = keeper(&dir)?;
        let mut all = Dict::new();
        let mut any = false;
        for (id, reply) in replies.iter() {
            let Some(Ok(reply)) = reply else { continue };
            any = true;
            let listed = reply.dict.iter().flat_map(Dict::iter);
            // What others have left of these is out of date.
            let counts = listed.filter(|(key, _)| id == keeper || !is_kept_by_mds(key));
            all.extend(counts.map(|(key, value)| (key.to_owned().into(), value.clone())));
        }
        if !any {
            return Err(worst(&errnos(&replies)).into());
        }
        let len = u32::try_from(all.len()).unwrap_or(u32::MAX);
        let mut reply = DictReply { len, dict: Some(all), xdata: None }.into();
        super::single::hide_own_keys(ctx, &mut reply);
        Ok(reply)
    }

    /// `trusted.glusterfs.pathinfo`: the subvolumes' parts in this layer's name (`dht-common.c` dht_vgetxattr_cbk).
    async fn pathinfo(self: &Arc<Self>, ctx: &Context, key: &'static str, request: &Getxattr) -> Outcome<Reply> {
        let (replies, is_dir) = match self.whereabouts(ctx, request.gfid).await? {
            Known::File(at) => (vec![at.fop(ctx, request.clone()).await], false),
            Known::Dir(dir) => {
                let mut replies = dir.set.broadcast(ctx, |_| true, request).await;
                let replies = replies.iter_mut().filter_map(|(_, reply)| reply.take()).collect();
                (replies, true)
            }
        };
        let mut text = BytesMut::new();
        text.put_slice(if is_dir { b"((" } else { b"(" });
        text.put_slice(format!("<DISTRIBUTE:{}>", self.name).as_bytes());
        let mut failure = None;
        let mut any = false;
        for reply in replies {
            match reply {
                Ok(reply) => {
                    if let Some(part) = reply.dict.as_ref().and_then(|dict| dict.get_bytes(key)) {
                        text.put_u8(b' ');
                        text.put_slice(part);
                        any = true;
                    }
                }
                Err(failed) => failure = Some(failed),
            }
        }
        if !any {
            return Err(failure.unwrap_or_else(|| Errno::ENODATA.into()));
        }
        text.put_u8(b')');
        if is_dir {
            text.put_slice(self.layout_text(ctx, request.gfid).await.as_bytes());
            text.put_u8(b')');
        }
        let text: Bytes = text.freeze();
        let len = u32::try_from(text.len()).map_err(|_| Errno::ERANGE)?;
        Ok(DictReply { len, dict: Some(Dict::new().with(key, Value::Str(text))), xdata: None }.into())
    }

    /// ` (v-dht-layout (v-replicate-0 0 2147483646) …)`.
    async fn layout_text(self: &Arc<Self>, ctx: &Context, gfid: Gfid) -> String {
        let Ok(dir) = self.dir(ctx, gfid).await else { return String::new() };
        let parts = dir.layout.slots().iter().filter_map(|(id, slot)| slot.part().map(|part| (id, part)));
        let parts: String =
            parts.map(|(id, part)| format!(" ({} {} {})", dir.set.get(id).name, part.start, part.stop)).collect();
        format!(" ({}-layout{parts})", self.name)
    }

    /// A fop on a file where it is, on a directory at its keeper.
    pub(super) async fn on_any(self: &Arc<Self>, ctx: &Context, gfid: Gfid, request: Request) -> Outcome<Reply> {
        match self.whereabouts(ctx, gfid).await? {
            Known::File(_) => self.on_file(ctx, request).await,
            Known::Dir(_) => self.on_directory_as_file(ctx, gfid, request).await,
        }
    }

    /// What is not about contents works on a directory too, at its keeper.
    pub(super) async fn on_directory_as_file(
        self: &Arc<Self>,
        ctx: &Context,
        gfid: Gfid,
        mut request: Request,
    ) -> Outcome<Reply> {
        let dir = self.dir(ctx, gfid).await?;
        let at = dir.set.get(keeper(&dir)?);
        if let Some(fd) = crate::replicate::route::fd_of(&request)
            && let Some(open) = self.open_fd(ctx, gfid, fd, true)?
        {
            crate::replicate::route::set_fd(&mut request, open.at(at).await?);
        }
        let mut reply = at.call(ctx, request).await?;
        super::single::hide_own_keys(ctx, &mut reply);
        Ok(reply)
    }
}

/// Whom to ask about a directory: its mds, else the first that is up and has it.
fn keeper(dir: &Dir) -> Outcome<SubvolId> {
    let mds = dir.mds.filter(|id| dir.set.get(*id).is_up());
    let has = |id: &SubvolId| dir.set.get(*id).is_up() && dir.layout.part(*id).is_some();
    mds.or_else(|| dir.set.ids().find(has)).or_else(|| dir.set.first_up()).ok_or_else(|| Errno::ENOTCONN.into())
}

fn merged(first: ChangeReply, others: &Replies<ChangeReply>) -> ChangeReply {
    let mut reply = first;
    let (pre, post) = (reply.pre, reply.post);
    for (_, other) in others.iter() {
        if let Some(Ok(other)) = other {
            merge::directory(&mut reply.pre, &other.pre);
            merge::directory(&mut reply.post, &other.post);
        }
    }
    merge::owner(&mut reply.pre, &pre);
    merge::owner(&mut reply.post, &post);
    merge::shown(&mut reply.pre);
    merge::shown(&mut reply.post);
    reply
}
