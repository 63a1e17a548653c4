//! Listing a directory from one child, and going on at another one when that is lost.
//!
//! Offsets are one brick's own, so a listing stays with the child where it began. When that child dies half-way, the
//! listing starts again at another one and leaves out the names that the caller has had: it must not fail, nor show a
//! name twice.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use mortar_logic::replicate::SetExt;
use mortar_types::{Context, Errno, Failure, Fd, FileType, Gfid, Outcome, Reply, Request, SubvolId};

use super::Core;
use super::fds::OpenFd;
use super::lookup::is_hidden;

/// Names remembered per open directory, 8 bytes each; a longer listing fails when its child dies.
const SEEN_MAX: usize = 500_000;

/// Where an open directory's listing stands.
#[derive(Default)]
pub(super) struct Listing {
    /// The child whose offsets the caller has.
    child: Option<SubvolId>,
    /// Hashes of the names given out since the start.
    seen: HashSet<u64>,
    /// Began again at another child: what was seen is left out.
    moved: bool,
}

impl Listing {
    fn restart(&mut self) {
        *self = Self::default();
    }

    /// Keeps of `names` what the caller has not had yet.
    fn is_new(&mut self, name: &[u8]) -> bool {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let hash = hasher.finish();
        if self.moved && self.seen.contains(&hash) {
            return false;
        }
        if self.seen.len() < SEEN_MAX {
            self.seen.insert(hash);
        }
        true
    }
}

impl Core {
    /// READDIR and READDIRP.
    pub(super) async fn list(
        self: &Arc<Self>,
        ctx: &Context,
        gfid: Gfid,
        fd: Fd,
        offset: u64,
        mut request: Request,
    ) -> Outcome<Reply> {
        self.check_quorum(&self.children.up())?;
        let open = self.open_fd(fd)?;
        if offset == 0
            && let Some(open) = &open
        {
            open.listing.lock().restart();
        }
        let lister = open.as_ref().and_then(|open| open.listing.lock().child);
        let (mut reply, child) = match lister {
            Some(child) => match self.send_one(ctx, request.clone(), child, open.as_ref(), None).await {
                Err(failure) if failure.errno == Errno::ENOTCONN && can_move(open.as_deref()) => {
                    self.list_elsewhere(ctx, gfid, open.as_ref(), Some(child), &mut request).await?
                }
                outcome => (outcome?, child),
            },
            // An offset without an open directory: whoever is chosen for this inode gave it.
            None => self.list_elsewhere(ctx, gfid, open.as_ref(), None, &mut request).await?,
        };
        while let Some(next) = self.tidy(gfid, open.as_deref(), &mut reply) {
            // Everything on this page was known: the caller would take an empty one for the end.
            set_offset(&mut request, next);
            reply = self.send_one(ctx, request.clone(), child, open.as_ref(), None).await?;
        }
        if let Reply::ReaddirpReply(reply) = &mut reply {
            self.distrust_entries(ctx, gfid, open.as_ref(), child, reply).await;
        }
        Ok(reply)
    }

    /// From a readable child other than `lost`, and which it is; from the start if `lost` was in the middle.
    async fn list_elsewhere(
        self: &Arc<Self>,
        ctx: &Context,
        gfid: Gfid,
        open: Option<&Arc<OpenFd>>,
        lost: Option<SubvolId>,
        request: &mut Request,
    ) -> Outcome<(Reply, SubvolId)> {
        let inode = self.inodes.get(gfid);
        let mut untried = self.known(ctx, &inode, open).await?.readable.data;
        if untried.none() {
            // Names that differ are united by a heal; until then one side is shown.
            untried = self.children.up();
        }
        let mut tried = self.nobody();
        if let Some(lost) = lost {
            untried[lost] = false;
            tried[lost] = true;
            set_offset(request, 0);
        }
        let mut last: Failure = Errno::ENOTCONN.into();
        let mut asked_again = false;
        loop {
            let Some(child) = self.choose(&untried, gfid, ctx, FileType::Directory) else {
                // All that were good are gone. What was remembered may be older than a heal of another copy.
                if asked_again || last.errno != Errno::ENOTCONN {
                    return Err(last);
                }
                asked_again = true;
                untried = self.refresh(ctx, &inode, open).await.map_err(|_| last.clone())?.readable.data.minus(&tried);
                continue;
            };
            untried[child] = false;
            tried[child] = true;
            match self.send_one(ctx, request.clone(), child, open, None).await {
                Ok(reply) => {
                    if let Some(open) = open {
                        let mut listing = open.listing.lock();
                        listing.child = Some(child);
                        listing.moved |= lost.is_some();
                    }
                    return Ok((reply, child));
                }
                Err(failure) => last = failure,
            }
        }
    }

    /// Takes out what the caller must not see. The offset to go on at when that leaves nothing before the end.
    fn tidy(&self, gfid: Gfid, open: Option<&OpenFd>, reply: &mut Reply) -> Option<u64> {
        let mut listing = open.map(|open| open.listing.lock());
        let mut shown =
            |name: &[u8]| !is_hidden(gfid, name) && listing.as_mut().is_none_or(|listing| listing.is_new(name));
        match reply {
            Reply::ReaddirReply(reply) => {
                let last = reply.entries.last().map(|entry| entry.offset);
                reply.entries.retain(|entry| shown(&entry.name));
                last.filter(|_| reply.entries.is_empty() && !reply.eof)
            }
            Reply::ReaddirpReply(reply) => {
                let last = reply.entries.last().map(|entry| entry.entry.offset);
                reply.entries.retain(|entry| shown(&entry.entry.name));
                for entry in &mut reply.entries {
                    self.strip_counters(&mut entry.xdata);
                }
                last.filter(|_| reply.entries.is_empty() && !reply.eof)
            }
            _ => None,
        }
    }
}

fn can_move(open: Option<&OpenFd>) -> bool {
    open.is_some_and(|open| open.listing.lock().seen.len() < SEEN_MAX)
}

const fn set_offset(request: &mut Request, offset: u64) {
    match request {
        Request::Readdir(request) => request.offset = offset,
        Request::Readdirp(request) => request.offset = offset,
        _ => {}
    }
}
