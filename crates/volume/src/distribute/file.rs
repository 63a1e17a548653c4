//! Fops on files: at the subvolume that has the data, also while and after it moves to another one (`dht-helper.c`
//! dht_rebalance_in_progress_check, dht_rebalance_complete_check; `dht-inode-write.c`).
//!
//! While a file is copied its mode says so in every reply: a change is then made at the target too, or the copy would
//! lose it. When it has become a link file, or is not there any more, the request is made again at the target.

use std::sync::Arc;

use mortar_logic::distribute::linkto::{self, Phase};
use mortar_types::fop::{CopyFileRange, Setattr, setattr_valid};
use mortar_types::{Context, Dict, Errno, Failure, Gfid, Iatt, Outcome, Reply, Request, Value, keys};

use super::Core;
use super::fds::{OpenFd, Opened};
use super::heal::internal_xdata;
use super::known::Known;
use super::subvols::Subvol;
use crate::replicate::route::{fd_of, set_fd};

/// How often a file is followed in one request.
const HOPS_MAX: usize = 4;
/// With a change made at the target: the copier must not overwrite it (`dht-common.h` GF_PROTECT_FROM_EXTERNAL_WRITES).
const PROTECT_WRITES: &str = "trusted.glusterfs.protect.writes";
/// Asks for attributes in replies that have none of their own (DHT_IATT_IN_XDATA_KEY).
pub(super) const IATT_IN_XATTR: &str = "dht-get-iatt-in-xattr";

impl Core {
    /// A fop that names one file.
    pub(super) async fn on_file(self: &Arc<Self>, ctx: &Context, request: Request) -> Outcome<Reply> {
        let gfid = gfid_of(&request).ok_or(Errno::ENOSYS)?;
        let open = match fd_of(&request) {
            Some(fd) => self.open_fd(ctx, gfid, fd, false)?,
            None => None,
        };
        let at = match self.memories.inodes.get(&gfid) {
            Some(Known::File(at)) => at,
            _ => match open.as_ref().and_then(|open| open.home()) {
                Some(home) => home,
                None => match self.whereabouts(ctx, gfid).await? {
                    Known::File(at) => at,
                    Known::Dir(_) => return self.on_directory_as_file(ctx, gfid, request).await,
                },
            },
        };
        self.follow_file(ctx, gfid, open, at, request).await
    }

    async fn follow_file(
        self: &Arc<Self>,
        ctx: &Context,
        gfid: Gfid,
        open: Option<Arc<OpenFd>>,
        mut at: Arc<Subvol>,
        request: Request,
    ) -> Outcome<Reply> {
        let mut last = Failure::from(Errno::EIO);
        for _ in 0..HOPS_MAX {
            let outcome = self.send(ctx, &at, open.as_deref(), request.clone()).await;
            let moved = match &outcome {
                Ok(reply) => match stat_of(reply).map(linkto::phase) {
                    Some(Phase::Copying) if is_repeated(&request) => {
                        self.repeat_at_target(ctx, gfid, &at, open.as_deref(), &request).await?;
                        None
                    }
                    Some(Phase::Moved) => self.link_target(ctx, gfid, &at).await,
                    _ => None,
                },
                Err(failure) if matches!(failure.errno, Errno::ENOENT | Errno::ESTALE | Errno::EBADF) => {
                    self.moved_away(ctx, gfid, &at).await
                }
                Err(_) => None,
            };
            match moved {
                Some(target) if !Arc::ptr_eq(&target, &at) => {
                    self.memories.inodes.insert(gfid, Known::File(Arc::clone(&target)));
                    at = target;
                    last = outcome.err().unwrap_or(last);
                }
                _ => return self.finish(ctx, &open, gfid, &at, &request, outcome),
            }
        }
        Err(last)
    }

    async fn send(
        &self,
        ctx: &Context,
        at: &Arc<Subvol>,
        open: Option<&OpenFd>,
        mut request: Request,
    ) -> Outcome<Reply> {
        if let Some(open) = open {
            set_fd(&mut request, open.at(at).await?);
        }
        if asks_for_stat(&request) {
            request.xdata_mut().get_or_insert_with(Dict::new).set(IATT_IN_XATTR, Value::Int(1));
        }
        at.call(ctx, request).await
    }

    /// What the layer changes in an answer.
    fn finish(
        &self,
        ctx: &Context,
        _open: &Option<Arc<OpenFd>>,
        gfid: Gfid,
        at: &Arc<Subvol>,
        request: &Request,
        outcome: Outcome<Reply>,
    ) -> Outcome<Reply> {
        let mut reply = outcome?;
        for stat in stats_of(&mut reply) {
            linkto::strip(stat);
        }
        match (&mut reply, request) {
            (Reply::OpenReply(reply), Request::Open(open)) => {
                let opened =
                    Opened { ctx, gfid, flags: open.flags, is_dir: false, at: vec![(Arc::clone(at), reply.fd)] };
                reply.fd = self.register_fd(&self.set(), opened);
            }
            (_, Request::Fgetxattr(_) | Request::Getxattr(_)) => super::single::hide_own_keys(ctx, &mut reply),
            _ => {}
        }
        if let Some(xdata) = reply.xdata_mut() {
            xdata.remove(IATT_IN_XATTR);
        }
        Ok(reply)
    }

    /// The subvolume that a file's link xattr names there; `None` when it has none, so is what it seems.
    async fn link_target(self: &Arc<Self>, ctx: &Context, gfid: Gfid, at: &Arc<Subvol>) -> Option<Arc<Subvol>> {
        let reply = self.look_at(&super::internal(ctx), at, gfid).await;
        match reply {
            Ok(reply) => {
                let name = reply.xdata.as_ref().and_then(linkto::named)?;
                let set = self.set();
                set.by_name(name).map(|id| Arc::clone(set.get(id)))
            }
            Err(_) => self.moved_away(ctx, gfid, at).await,
        }
    }

    /// Where a file is that is not at `at` any more; `None` when it is nowhere else.
    async fn moved_away(self: &Arc<Self>, ctx: &Context, gfid: Gfid, at: &Arc<Subvol>) -> Option<Arc<Subvol>> {
        if self.set().len() <= 1 {
            return None;
        }
        self.memories.inodes.remove(&gfid);
        match self.whereabouts(ctx, gfid).await.ok()? {
            Known::File(now) if !Arc::ptr_eq(&now, at) => Some(now),
            _ => None,
        }
    }

    /// Makes a change at the target of a copy that is under way. A target that is gone means a move given up.
    async fn repeat_at_target(
        self: &Arc<Self>,
        ctx: &Context,
        gfid: Gfid,
        at: &Arc<Subvol>,
        open: Option<&OpenFd>,
        request: &Request,
    ) -> Outcome<()> {
        let Some(target) = self.link_target(ctx, gfid, at).await else { return Ok(()) };
        if Arc::ptr_eq(&target, at) {
            return Ok(());
        }
        let mut request = request.clone();
        if is_content(&request) {
            request.xdata_mut().get_or_insert_with(Dict::new).set(PROTECT_WRITES, Value::Int(1));
        }
        // The copy's mode is a link file's: whoever may change the file may change it too.
        match self.send(&super::internal(ctx), &target, open, request).await {
            Err(failure) if matches!(failure.errno, Errno::ENOENT | Errno::ESTALE) => Ok(()),
            Err(failure) => Err(failure),
            Ok(_) => Ok(()),
        }
    }

    /// SETATTR of a file being copied must leave the marks of the move; attributes go along when it ends.
    pub(super) async fn keep_marks(&self, ctx: &Context, gfid: Gfid, pre: &Iatt, request: (&Iatt, i32)) {
        let (stat, valid) = request;
        if linkto::phase(pre) != Phase::Copying || valid & setattr_valid::MODE == 0 {
            return;
        }
        const MARKS: u32 = 0o3000;
        let Some(Known::File(at)) = self.memories.inodes.get(&gfid) else { return };
        let stat = Iatt { mode: stat.mode | MARKS, ..Iatt::default() };
        let setattr = Setattr { gfid, stat, valid: setattr_valid::MODE, xdata: internal_xdata() };
        if let Err(failure) = at.fop(&super::internal(ctx), setattr).await {
            tracing::warn!(%gfid, errno = %failure.errno, "a file being moved lost its mark");
        }
    }

    /// Between two files of one subvolume; otherwise callers copy themselves.
    pub(super) async fn copy_file_range(self: &Arc<Self>, ctx: &Context, request: CopyFileRange) -> Outcome<Reply> {
        let (Known::File(source), Known::File(target)) =
            (self.whereabouts(ctx, request.gfid_in).await?, self.whereabouts(ctx, request.gfid_out).await?)
        else {
            return Err(Errno::EISDIR.into());
        };
        let from = self.open_fd(ctx, request.gfid_in, request.fd_in, false)?;
        let into = self.open_fd(ctx, request.gfid_out, request.fd_out, false)?;
        if !Arc::ptr_eq(&source, &target) {
            return Err(Errno::EXDEV.into());
        }
        for gfid in [request.gfid_in, request.gfid_out] {
            let stat = self.look_at(&super::internal(ctx), &source, gfid).await?.stat;
            // Moves are not followed here.
            if linkto::phase(&stat) != Phase::Resting {
                return Err(Errno::EXDEV.into());
            }
        }
        let mut request = request;
        if let Some(from) = from {
            request.fd_in = from.at(&source).await?;
        }
        if let Some(into) = into {
            request.fd_out = into.at(&target).await?;
        }
        Ok(target.fop(ctx, request).await?.into())
    }
}

/// Whether a change must be made at both ends of a copy.
const fn is_repeated(request: &Request) -> bool {
    is_content(request)
        || matches!(
            request,
            Request::Setxattr(_)
                | Request::Fsetxattr(_)
                | Request::Removexattr(_)
                | Request::Fremovexattr(_)
                | Request::Fsync(_)
        )
}

const fn is_content(request: &Request) -> bool {
    matches!(
        request,
        Request::Write(_)
            | Request::Truncate(_)
            | Request::Ftruncate(_)
            | Request::Fallocate(_)
            | Request::Discard(_)
            | Request::Zerofill(_)
    )
}

/// Whether the reply tells a file's phase only when asked.
const fn asks_for_stat(request: &Request) -> bool {
    matches!(request, Request::Setxattr(_) | Request::Fsetxattr(_) | Request::Removexattr(_) | Request::Fremovexattr(_))
}

/// The attributes that tell a file's phase: the latest of the reply.
fn stat_of(reply: &Reply) -> Option<&Iatt> {
    match reply {
        Reply::StatReply(r) => Some(&r.stat),
        Reply::ReadReply(r) => Some(&r.stat),
        Reply::WriteReply(r) => Some(&r.post),
        Reply::ChangeReply(r) => Some(&r.post),
        Reply::AckReply(r) => r.xdata.as_ref()?.get(IATT_IN_XATTR)?.as_iatt(),
        _ => None,
    }
}

fn stats_of(reply: &mut Reply) -> Vec<&mut Iatt> {
    match reply {
        Reply::StatReply(r) => vec![&mut r.stat],
        Reply::ReadReply(r) => vec![&mut r.stat],
        Reply::WriteReply(r) => vec![&mut r.pre, &mut r.post],
        Reply::ChangeReply(r) => vec![&mut r.pre, &mut r.post],
        Reply::ReadlinkReply(r) => vec![&mut r.stat],
        _ => Vec::new(),
    }
}

/// The inode that a request is about, when it is one.
pub(super) const fn gfid_of(request: &Request) -> Option<Gfid> {
    Some(match request {
        Request::Stat(r) => r.gfid,
        Request::Fstat(r) => r.gfid,
        Request::Access(r) => r.gfid,
        Request::Readlink(r) => r.gfid,
        Request::Truncate(r) => r.gfid,
        Request::Ftruncate(r) => r.gfid,
        Request::Open(r) => r.gfid,
        Request::Read(r) => r.gfid,
        Request::Write(r) => r.gfid,
        Request::Flush(r) => r.gfid,
        Request::Fsync(r) => r.gfid,
        Request::Setxattr(r) => r.gfid,
        Request::Getxattr(r) => r.gfid,
        Request::Removexattr(r) => r.gfid,
        Request::Fsetxattr(r) => r.gfid,
        Request::Fgetxattr(r) => r.gfid,
        Request::Fremovexattr(r) => r.gfid,
        Request::Lk(r) => r.gfid,
        Request::Inodelk(r) => r.gfid,
        Request::Finodelk(r) => r.gfid,
        Request::Entrylk(r) => r.gfid,
        Request::Fentrylk(r) => r.gfid,
        Request::Xattrop(r) => r.gfid,
        Request::Fxattrop(r) => r.gfid,
        Request::Rchecksum(r) => r.gfid,
        Request::Setattr(r) => r.gfid,
        Request::Fsetattr(r) => r.gfid,
        Request::Fallocate(r) => r.gfid,
        Request::Discard(r) => r.gfid,
        Request::Zerofill(r) => r.gfid,
        Request::Seek(r) => r.gfid,
        Request::Lease(r) => r.gfid,
        Request::GetActiveLk(r) => r.gfid,
        Request::SetActiveLk(r) => r.gfid,
        _ => return None,
    })
}

/// Whether an xattr list of a request touches the keys that other layers answer with text of their own.
pub(super) const fn pathinfo_key(name: &[u8]) -> Option<&'static str> {
    match name {
        b"trusted.glusterfs.pathinfo" => Some(keys::PATHINFO),
        b"glusterfs.pathinfo" => Some("glusterfs.pathinfo"),
        _ => None,
    }
}
