//! Listings: opendir, readdir with and without attributes, fsyncdir, releasedir.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mortar_types::fop::{DirentPlus, Fsyncdir, Opendir, Readdir, Readdirp, Releasedir};
use mortar_types::{Context, Errno, Fd, Gfid, Iatt};

use super::{Bridge, Grant, Response, Result, errno};
use crate::handles::{DirHandle, Listing};
use crate::kernel::reply::{Answer, Body};
use crate::nodes::NodeId;

/// What one READDIR(P) asks of the volume, bytes: the kernel asks for a page at a time, and a round trip per page would
/// make long listings slow.
const PORTION_BYTES: u32 = 128 * 1024;
/// Entries that waited longer for the kernel are fetched again: somebody paused in the middle of a listing.
const PORTION_AGE_MAX: Duration = Duration::from_secs(1);

impl Bridge {
    pub(super) async fn opendir(&self, ctx: &Context, gfid: Gfid) -> Result<Response> {
        let reply = self.volume.fop(ctx, Opendir { gfid, xdata: None }).await.map_err(errno)?;
        let handle = self.handles.insert_dir(gfid, reply.fd);
        Ok(Response { answer: Answer::Body(Body::opened(handle, 0)), grant: Grant::Dir(handle) })
    }

    pub(super) async fn readdir(
        &self,
        ctx: &Context,
        node: NodeId,
        handle: u64,
        offset: u64,
        size: u32,
        plus: bool,
    ) -> Result<Response> {
        let dir = self.dir(handle)?;
        let mut listing = std::mem::take(&mut *dir.listing.lock());
        if !listing.continues(offset) {
            listing = self.fetch(ctx, &dir, offset, plus).await?;
        }
        let limit = size as usize;
        let (body, lookups) = self.fill(node, &mut listing, limit, plus);
        if body.0.is_empty() && !listing.entries.is_empty() {
            // Not even one entry fits.
            return Err(Errno::EINVAL);
        }
        *dir.listing.lock() = listing;
        let grant = if lookups.is_empty() { Grant::Nothing } else { Grant::Lookups(lookups) };
        Ok(Response { answer: Answer::Body(body), grant })
    }

    pub(super) async fn fsyncdir(&self, ctx: &Context, handle: u64, datasync: bool) -> Result<Response> {
        let dir = self.dir(handle)?;
        let request = Fsyncdir { gfid: dir.gfid, fd: dir.fd, datasync: i32::from(datasync), xdata: None };
        self.volume.fop(ctx, request).await.map_err(errno)?;
        Ok(Response::empty())
    }

    pub(super) fn releasedir(self: &Arc<Self>, handle: u64) {
        let Some(dir) = self.handles.remove_dir(handle) else { return };
        let bridge = Arc::clone(self);
        self.background.spawn(async move {
            let request = Releasedir { gfid: dir.gfid, fd: dir.fd, xdata: None };
            if let Err(failure) = bridge.volume.fop(&Context::default(), request).await {
                tracing::debug!(gfid = %dir.gfid, errno = %failure.errno, "releasedir failed");
            }
        });
    }

    async fn fetch(&self, ctx: &Context, dir: &DirHandle, offset: u64, plus: bool) -> Result<Listing> {
        let (gfid, fd): (Gfid, Fd) = (dir.gfid, dir.fd);
        let (entries, eof) = if plus {
            let request = Readdirp { gfid, fd, offset, size: PORTION_BYTES, xdata: None };
            let reply = self.volume.fop(ctx, request).await.map_err(errno)?;
            (reply.entries.into(), reply.eof)
        } else {
            let request = Readdir { gfid, fd, offset, size: PORTION_BYTES, xdata: None };
            let reply = self.volume.fop(ctx, request).await.map_err(errno)?;
            let bare = |entry| DirentPlus { entry, stat: Iatt::default(), xdata: None };
            (reply.entries.into_iter().map(bare).collect(), reply.eof)
        };
        Ok(Listing { entries, offset, eof, fetched: Some(Instant::now()) })
    }

    /// Moves as many entries as fit from the listing to the answer.
    fn fill(&self, dir: NodeId, listing: &mut Listing, limit: usize, plus: bool) -> (Body, Vec<NodeId>) {
        let (mut body, mut lookups) = (Body::with_capacity(limit), Vec::new());
        while let Some(next) = listing.entries.front() {
            let name = &next.entry.name;
            let ino = match next.stat.gfid.is_null() {
                true => self.config.inode_numbers.shown(next.entry.ino),
                false => self.config.inode_numbers.of(&next.stat.gfid),
            };
            let (offset, kind) = (next.entry.offset, next.entry.kind);
            let fits = match plus {
                false => body.push_dirent(limit, ino, offset, kind, name),
                true if !body.fits_direntplus(limit, name) => false,
                true => {
                    // The kernel counts no lookup for dots and for entries without a node.
                    let dots = matches!(&name[..], b"." | b"..");
                    let entry = if dots { None } else { self.entry(dir, name, &next.stat).ok() };
                    lookups.extend(entry.map(|entry| NodeId(entry.node)));
                    body.push_direntplus(limit, &entry.unwrap_or_default(), ino, offset, kind, name)
                }
            };
            if !fits {
                break;
            }
            listing.offset = offset;
            listing.entries.pop_front();
        }
        (body, lookups)
    }
}

impl Listing {
    /// Whether the entries at hand are what follows `offset`.
    fn continues(&self, offset: u64) -> bool {
        let fresh = self.fetched.is_some_and(|fetched| fetched.elapsed() < PORTION_AGE_MAX);
        // At an end the volume is asked again only by a reader who starts over; at the end of a portion, always.
        fresh && self.offset == offset && (!self.entries.is_empty() || self.eof && offset != 0)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mortar_types::fop::Dirent;

    use super::*;

    fn listing(offset: u64, names: usize, eof: bool) -> Listing {
        let entry = Dirent { ino: 1, offset: 1, kind: 8, name: Bytes::from_static(b"x") };
        let entry = DirentPlus { entry, stat: Iatt::default(), xdata: None };
        let entries = std::iter::repeat_n(entry, names).collect();
        Listing { entries, offset, eof, fetched: Some(Instant::now()) }
    }

    #[test]
    fn a_listing_continues_only_where_it_stopped() {
        assert!(listing(5, 1, false).continues(5));
        assert!(!listing(5, 1, false).continues(0));
        assert!(!Listing::default().continues(0));
    }

    #[test]
    fn the_end_of_a_portion_is_not_the_end_of_the_directory() {
        assert!(!listing(5, 0, false).continues(5));
        assert!(listing(5, 0, true).continues(5));
    }
}
