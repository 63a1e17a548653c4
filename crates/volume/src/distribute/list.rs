//! Listings: one subvolume after the other, a name once (`dht-common.c` dht_readdirp_cbk, dht_opendir).
//!
//! Link files are left out, and so are directories where they do not belong. A file that moves while it is listed would
//! be seen twice, or on neither side: names are remembered with the subvolume that gave them, and where files may be on
//! their way everything is asked a second time for names that nobody has given.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use mortar_logic::distribute::{linkto, merge, offset};
use mortar_types::fop::{
    AckReply, DirentPlus, Fsyncdir, OpenReply, Opendir, Readdir, ReaddirReply, Readdirp, ReaddirpReply,
};
use mortar_types::{Context, Dict, Errno, Fd, Gfid, Outcome, Reply, Request, SubvolId, Value, keys};

use super::Core;
use super::fds::{OpenFd, Opened};
use super::known::Dir;
use super::subvols::{errnos, worst};

/// Names remembered per open directory, 16 bytes each; beyond, one that moves may be listed twice.
const SEEN_MAX: usize = 500_000;

/// Where an open directory's listing stands.
#[derive(Default)]
pub(super) struct Listing {
    /// The layout when the listing began: a directory's name must not change its place half-way.
    dir: Option<Arc<Dir>>,
    /// Which leg gave a name, by the name's hash.
    seen: HashMap<u64, usize>,
    /// After this offset the next leg begins.
    ended: Option<(u64, usize)>,
    /// There is a second round.
    again: bool,
    /// Begun while there was one subvolume only: offsets are that one's own until the listing starts again.
    is_raw: bool,
}

impl Listing {
    pub(super) fn of_only_subvolume() -> Self {
        Self { is_raw: true, ..Self::default() }
    }

    fn restart(&mut self) {
        *self = Self::default();
    }

    /// Whether nobody but `leg` has given the name.
    fn is_new(&mut self, leg: usize, name: &[u8]) -> bool {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let hash = hasher.finish();
        match self.seen.get(&hash) {
            Some(first) => *first == leg,
            None => {
                if self.seen.len() < SEEN_MAX {
                    self.seen.insert(hash, leg);
                }
                true
            }
        }
    }
}

impl Core {
    pub(super) async fn opendir(self: &Arc<Self>, ctx: &Context, request: &Opendir) -> Outcome<Reply> {
        let set = self.set();
        let replies = set.broadcast(ctx, |_| true, request).await;
        let opened: Vec<_> = replies
            .iter()
            .filter_map(|(id, reply)| match reply {
                Some(Ok(reply)) => Some((Arc::clone(set.get(id)), reply.fd)),
                _ => None,
            })
            .collect();
        if opened.is_empty() {
            return Err(worst(&errnos(&replies)).into());
        }
        let fd = self.register_fd(&set, Opened { ctx, gfid: request.gfid, flags: 0, is_dir: true, at: opened });
        Ok(OpenReply { fd, xdata: None }.into())
    }

    pub(super) async fn readdirp(self: &Arc<Self>, ctx: &Context, request: Readdirp) -> Outcome<Reply> {
        let (entries, eof) = self.list(ctx, request).await?;
        Ok(ReaddirpReply { entries, eof, xdata: None }.into())
    }

    /// Also asked with attributes: only they tell link files.
    pub(super) async fn readdir(self: &Arc<Self>, ctx: &Context, request: Readdir) -> Outcome<Reply> {
        let Readdir { gfid, fd, offset, size, xdata } = request;
        let (entries, eof) = self.list(ctx, Readdirp { gfid, fd, offset, size, xdata }).await?;
        let entries = entries.into_iter().map(|entry| entry.entry).collect();
        Ok(ReaddirReply { entries, eof, xdata: None }.into())
    }

    async fn list(self: &Arc<Self>, ctx: &Context, request: Readdirp) -> Outcome<(Vec<DirentPlus>, bool)> {
        let (gfid, size) = (request.gfid, request.size);
        let open = match self.open_fd(ctx, gfid, request.fd, true)? {
            Some(open) => open,
            // Nobody may have opened it: for the one call.
            None => {
                let Reply::OpenReply(opened) = self.opendir(ctx, &Opendir { gfid, xdata: None }).await? else {
                    return Err(Errno::EPROTO.into());
                };
                let open = self.open_fd(ctx, gfid, opened.fd, true)?;
                self.release_fd(opened.fd);
                open.ok_or(Errno::EBADF)?
            }
        };
        if open.listing.lock().is_raw && request.offset != 0 {
            return self.list_raw(ctx, &open, request).await;
        }
        if request.offset == 0 {
            open.listing.lock().restart();
        }
        let dir = self.listed_dir(ctx, gfid, &open).await?;
        let set = &open.set;
        // Two rounds: legs 0..n, then n..2n.
        let legs = 2 * set.len();
        let (leg, place) = offset::decode(request.offset, legs);
        let (mut leg, mut place) = (leg.0, place);
        let ended = open.listing.lock().ended;
        if let Some((after, next)) = ended.filter(|_| request.offset != 0)
            && after == request.offset
        {
            (leg, place) = (next, 0);
        }
        let mut xdata = request.xdata.unwrap_or_default();
        xdata.set(keys::XATTR_DHT_LINKTO, Value::Uint(256));
        while leg < legs {
            if leg == set.len() && place == 0 && !self.goes_again(&open, &dir) {
                break;
            }
            let id = SubvolId(leg % set.len());
            let page = match self.page(ctx, &open, id, place, size, &xdata).await {
                Ok(page) => page,
                // What is away is left out, as GlusterFS does: the rest can be worked with.
                Err(failure) if matches!(failure.errno, Errno::ENOTCONN | Errno::ENOENT | Errno::ESTALE) => {
                    if set.first_up().is_none() {
                        return Err(failure);
                    }
                    ReaddirpReply { entries: Vec::new(), eof: true, xdata: None }
                }
                Err(failure) => return Err(failure),
            };
            let next = page.entries.last().map(|entry| entry.entry.offset);
            let eof = page.eof || next.is_none();
            let mut entries = self.shown(&open, &dir, id, leg, page.entries);
            for entry in &mut entries {
                entry.entry.offset = offset::encode(entry.entry.offset, SubvolId(leg), legs);
            }
            let ends_all = eof && leg + 1 == legs;
            if let Some(last) = entries.last() {
                if eof {
                    open.listing.lock().ended = Some((last.entry.offset, leg + 1));
                }
                return Ok((entries, ends_all));
            }
            match next.filter(|_| !eof) {
                Some(next) => place = next,
                None => (leg, place) = (leg + 1, 0),
            }
        }
        Ok((Vec::new(), true))
    }

    async fn page(
        &self,
        ctx: &Context,
        open: &OpenFd,
        id: SubvolId,
        offset: u64,
        size: u32,
        xdata: &Dict,
    ) -> Outcome<ReaddirpReply> {
        let subvol = open.set.get(id);
        let fd = open.at(subvol).await?;
        subvol.fop(ctx, Readdirp { gfid: open.gfid, fd, offset, size, xdata: Some(xdata.clone()) }).await
    }

    /// What callers see of a page.
    fn shown(&self, open: &OpenFd, dir: &Dir, id: SubvolId, leg: usize, page: Vec<DirentPlus>) -> Vec<DirentPlus> {
        let mut listing = open.listing.lock();
        let first_up = open.set.first_up();
        let belongs = |name: &Bytes| match dir.hashed(name).filter(|hashed| open.set.get(*hashed).is_up()) {
            Some(hashed) => hashed == id,
            None => first_up == Some(id),
        };
        let mut shown = Vec::with_capacity(page.len());
        for mut entry in page {
            let name = &entry.entry.name;
            if matches!(&name[..], b"." | b"..") {
                if leg == 0 {
                    shown.push(entry);
                }
                continue;
            }
            if linkto::target(&entry.stat, entry.xdata.as_ref()).is_some() {
                continue;
            }
            if entry.stat.is_dir() && leg < open.set.len() && !belongs(name) {
                continue;
            }
            if !listing.is_new(leg, name) {
                continue;
            }
            linkto::strip(&mut entry.stat);
            merge::shown(&mut entry.stat);
            super::strip_own_keys(&mut entry.xdata);
            shown.push(entry);
        }
        shown
    }

    /// Whether everything is asked once more: files may have moved from where nobody had looked to where somebody had.
    fn goes_again(&self, open: &OpenFd, dir: &Dir) -> bool {
        let again = open.set.len() > 1 && self.may_be_moving(dir);
        let mut listing = open.listing.lock();
        listing.again |= again;
        listing.again
    }

    async fn listed_dir(self: &Arc<Self>, ctx: &Context, gfid: Gfid, open: &OpenFd) -> Outcome<Arc<Dir>> {
        let begun = open.listing.lock().dir.clone();
        if let Some(dir) = begun {
            return Ok(dir);
        }
        let dir = self.dir(ctx, gfid).await?;
        open.listing.lock().dir = Some(Arc::clone(&dir));
        Ok(dir)
    }

    /// The rest of a listing that began at the only subvolume.
    async fn list_raw(&self, ctx: &Context, open: &OpenFd, mut request: Readdirp) -> Outcome<(Vec<DirentPlus>, bool)> {
        let home = open.home().ok_or(Errno::EBADF)?;
        request.fd = open.at(&home).await?;
        let reply = home.fop(ctx, request).await?;
        Ok((reply.entries, reply.eof))
    }

    pub(super) async fn fsyncdir(self: &Arc<Self>, ctx: &Context, request: Fsyncdir) -> Outcome<Reply> {
        let open = self.open_fd(ctx, request.gfid, request.fd, true)?.ok_or(Errno::EBADF)?;
        let synced = open.everywhere().into_iter().map(|(subvol, fd)| {
            let request = Fsyncdir { fd, ..request.clone() };
            async move { subvol.fop(ctx, request).await }
        });
        let mut failed = None;
        let mut any = false;
        for outcome in futures::future::join_all(synced).await {
            match outcome {
                Ok(_) => any = true,
                Err(failure) if failure.errno == Errno::ENOTCONN => {}
                Err(failure) => failed = Some(failure),
            }
        }
        match failed {
            Some(failure) => Err(failure),
            None if any => Ok(AckReply { xdata: None }.into()),
            None => Err(Errno::ENOTCONN.into()),
        }
    }

    /// RELEASE and RELEASEDIR, also of fds from the time of the only subvolume.
    pub(super) async fn release(&self, ctx: &Context, fd: Fd, request: Request) -> Outcome<Reply> {
        if !self.release_fd(fd)
            && !super::fds::is_own(fd)
            && let Some(only) = self.only.get()
        {
            return only.call(ctx, request).await;
        }
        Ok(AckReply { xdata: None }.into())
    }
}
