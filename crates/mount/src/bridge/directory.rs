//! Listings: opendir, readdir with and without attributes, fsyncdir, releasedir.

use std::sync::Arc;
use std::time::Duration;

use mortar_types::fop::{Fsyncdir, Opendir, Releasedir};
use mortar_types::{Context, Errno, Gfid};

use super::ahead::{Listing, Portion, Question};
use super::{Bridge, Grant, Response, Result, errno};
use crate::changes::Watch;
use crate::handles::DirHandle;
use crate::kernel::reply::{Answer, Body, Entry, Validity};
use crate::nodes::NodeId;

/// The most that one READDIR(PLUS) is answered with: the kernel may ask for a mebibyte, and until it has the answer its
/// caller does nothing.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

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
        let limit = (size as usize).min(ANSWER_BYTES_MAX);
        // Taken, not borrowed: a second reader of the same open directory asks for itself.
        let mut listing = std::mem::take(&mut *dir.listing.lock());
        let result = self.give(ctx, node, &dir, &mut listing, (offset, limit, plus)).await;
        *dir.listing.lock() = listing;
        let page = result?;
        let grant = if page.lookups.is_empty() { Grant::Nothing } else { Grant::Lookups(page.lookups) };
        Ok(Response { answer: Answer::Body(page.body), grant })
    }

    /// Answers with what is at hand from `offset` on, `limit` bytes at most, and asks ahead for the rest. Waits for the
    /// volume only when there is nothing at hand.
    async fn give(
        &self,
        ctx: &Context,
        node: NodeId,
        dir: &DirHandle,
        listing: &mut Listing,
        (offset, limit, plus): (u64, usize, bool),
    ) -> Result<Page> {
        let (gfid, fd, timeout) = (dir.gfid, dir.fd, self.config.attribute_timeout);
        let question = |offset| Question { ctx: ctx.clone(), gfid, fd, offset, plus };
        // Attributes that nobody may believe are not worth fetching before they are asked for.
        let ahead = !(plus && timeout.is_zero());
        let mut page = Page { body: Body::with_capacity(limit), lookups: Vec::new() };
        let here = listing.take_here(offset, plus, timeout);
        let mut portion = match here {
            Some(here) => here,
            None => match listing.take_coming(offset, plus, timeout).await {
                Some(portion) => portion,
                None => question(offset).ask(Arc::clone(&self.volume), Arc::clone(&self.changes)).await?,
            },
        };
        loop {
            if ahead {
                let (volume, changes) = (&self.volume, &self.changes);
                listing.ask_ahead(&portion, question(offset), volume, changes, &self.background).await;
            }
            self.fill(node, gfid, &mut portion, limit, plus, &mut page);
            if !portion.entries.is_empty() || portion.eof || !listing.has_arrived(portion.offset) {
                break;
            }
            match listing.take_coming(portion.offset, plus, timeout).await {
                Some(next) => portion = next,
                None => break,
            }
        }
        let fits_none = page.body.0.is_empty() && !portion.entries.is_empty();
        listing.put_back(portion);
        if fits_none { Err(Errno::EINVAL) } else { Ok(page) }
    }

    pub(super) async fn fsyncdir(&self, ctx: &Context, handle: u64, datasync: bool) -> Result<Response> {
        let dir = self.dir(handle)?;
        let request = Fsyncdir { gfid: dir.gfid, fd: dir.fd, datasync: i32::from(datasync), xdata: None };
        self.volume.fop(ctx, request).await.map_err(errno)?;
        Ok(Response::empty())
    }

    pub(super) fn releasedir(self: &Arc<Self>, handle: u64) {
        let Some(dir) = self.handles.remove_dir(handle) else { return };
        // Nobody waits for what was asked ahead.
        drop(std::mem::take(&mut *dir.listing.lock()));
        let bridge = Arc::clone(self);
        self.background.spawn(async move {
            let request = Releasedir { gfid: dir.gfid, fd: dir.fd, xdata: None };
            if let Err(failure) = bridge.volume.fop(&Context::default(), request).await {
                tracing::debug!(gfid = %dir.gfid, errno = %failure.errno, "releasedir failed");
            }
        });
    }

    /// Moves as many entries as fit from the portion to the answer. What may have changed since the portion was asked is
    /// given without attributes, so that the kernel looks it up.
    fn fill(&self, node: NodeId, dir: Gfid, portion: &mut Portion, limit: usize, plus: bool, page: &mut Page) {
        let Portion { entries, offset: at, watch, asked, .. } = portion;
        let look = watch.as_ref().filter(|_| plus).map(Watch::look).filter(|look| !look.is_quiet());
        let age = asked.elapsed();
        let left = |timeout: Duration| Validity::from(timeout.saturating_sub(age));
        let (entry_valid, attr_valid) = (left(self.config.entry_timeout), left(self.config.attribute_timeout));
        while let Some(next) = entries.front() {
            let name = &next.entry.name;
            let ino = match next.stat.gfid.is_null() {
                true => self.config.inode_numbers.shown(next.entry.ino),
                false => self.config.inode_numbers.of(&next.stat.gfid),
            };
            let (offset, kind) = (next.entry.offset, next.entry.kind);
            let fits = match plus {
                false => page.body.push_dirent(limit, ino, offset, kind, name),
                true if !page.body.fits_direntplus(limit, name) => false,
                true => {
                    // The kernel counts no lookup for dots and for entries without a node.
                    let bare = matches!(&name[..], b"." | b"..")
                        || look.as_ref().is_some_and(|look| look.is_stale(dir, name, &next.stat));
                    let entry = if bare { None } else { self.entry(node, name, &next.stat).ok() };
                    page.lookups.extend(entry.map(|entry| NodeId(entry.node)));
                    let entry = entry.map(|entry| Entry { entry_valid, attr_valid, ..entry }).unwrap_or_default();
                    page.body.push_direntplus(limit, &entry, ino, offset, kind, name)
                }
            };
            if !fits {
                break;
            }
            *at = offset;
            entries.pop_front();
        }
    }
}

/// An answer to READDIR(PLUS) being filled.
struct Page {
    body: Body,
    /// The nodes in it, of each of which the kernel counts a lookup.
    lookups: Vec<NodeId>,
}
