//! Going on with a listing in another graph, whose offsets are others: it is begun anew there, and what the caller has had
//! is left out. So a name that is there all the time is listed once, whatever moves meanwhile.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use mortar_types::fop::Readdir;
use mortar_types::{Context, Fd, Fops, Gfid, Outcome, Reply, Request};

/// Names remembered of one listing at most, 24 bytes each; a longer one may show names again after a change of the graph.
const NAMES_MAX: usize = 1 << 20;
/// How much is asked for at a time when a listing is gone through again.
const PAGE_BYTES: u32 = 128 << 10;

/// Hashes of names. Two names that collide would hide one of them: 64 bits, and a key of this process.
type Names = HashSet<u64>;

/// How far the listing of one open directory is.
#[derive(Default)]
pub(super) struct Listing {
    /// The offset behind the last entry that was given out, 0 at the beginning.
    at: u64,
    /// What the graphs before gave out.
    before: Option<Arc<Before>>,
    /// Offsets of the graph now that were given out since it is the one.
    given: HashSet<u64>,
    /// What to leave out now.
    skip: Arc<Names>,
}

/// A listing as earlier graphs gave it out.
#[derive(Default)]
struct Before {
    /// Left out already then.
    skipped: Arc<Names>,
    /// In order.
    names: Vec<u64>,
    /// An old offset, and how many of `names` lie before it.
    offsets: HashMap<u64, usize>,
    hasher: RandomState,
}

/// Where to read, and what to leave out.
struct Start {
    offset: u64,
    skip: Arc<Names>,
    hasher: Option<RandomState>,
}

impl Listing {
    fn start(&mut self, offset: u64) -> Start {
        if offset == 0 {
            *self = Self::default();
        }
        let Some(before) = &self.before else { return Start { offset, skip: Arc::default(), hasher: None } };
        let hasher = Some(before.hasher.clone());
        if !self.given.contains(&offset)
            && let Some(seen) = before.offsets.get(&offset)
        {
            let seen = before.names.iter().take(*seen).chain(&*before.skipped).copied().collect();
            self.skip = Arc::new(seen);
            return Start { offset: 0, skip: Arc::clone(&self.skip), hasher };
        }
        Start { offset, skip: Arc::clone(&self.skip), hasher }
    }

    fn gave(&mut self, last: Option<u64>, offsets: impl Iterator<Item = u64>) {
        self.at = last.unwrap_or(self.at);
        if self.before.is_some() {
            self.given.extend(offsets);
        }
    }

    /// Whether its caller has had something of it.
    pub(super) const fn is_under_way(&self) -> bool {
        self.at != 0
    }
}

/// Answers READDIR or READDIRP of a directory that is open at `top`; the request has its fd there.
pub(super) async fn list(
    listing: &parking_lot::Mutex<Listing>,
    top: &Arc<dyn Fops>,
    ctx: &Context,
    mut request: Request,
) -> Outcome<Reply> {
    let start = listing.lock().start(offset_of(&request));
    set_offset(&mut request, start.offset);
    loop {
        let mut reply = top.call(ctx, request.clone()).await?;
        let last = last_offset(&reply);
        let filtered = start.hasher.as_ref().is_some_and(|hasher| leave_out(&mut reply, &start.skip, hasher));
        match last {
            // An empty page would be taken for the end.
            Some(last) if filtered && last_offset(&reply).is_none() && !is_end(&reply) => {
                set_offset(&mut request, last);
            }
            _ => {
                listing.lock().gave(last_offset(&reply), offsets(&reply));
                return Ok(reply);
            }
        }
    }
}

/// Goes through what the caller has had of a listing in the graph that is left. To be called when nobody lists any more.
pub(super) async fn remember(
    listing: &parking_lot::Mutex<Listing>,
    top: &Arc<dyn Fops>,
    gfid: Gfid,
    fd: Fd,
) -> Outcome<()> {
    let (at, skipped, hasher) = {
        let listing = listing.lock();
        let hasher = listing.before.as_ref().map(|before| before.hasher.clone()).unwrap_or_default();
        (listing.at, Arc::clone(&listing.skip), hasher)
    };
    let mut before = Before { skipped, hasher, ..Before::default() };
    let mut offset = 0;
    'pages: while before.names.len() < NAMES_MAX {
        let request = Readdir { gfid, fd, offset, size: PAGE_BYTES, xdata: None };
        let reply = top.fop(&Context::default(), request).await?;
        for entry in &reply.entries {
            before.names.push(before.hasher.hash_one(&entry.name[..]));
            before.offsets.insert(entry.offset, before.names.len());
            offset = entry.offset;
            if offset == at {
                break 'pages;
            }
        }
        if reply.eof || reply.entries.is_empty() {
            break;
        }
    }
    // The last entry may have been removed, and its offset with it.
    let all = before.names.len();
    before.offsets.entry(at).or_insert(all);
    *listing.lock() = Listing { at, before: Some(Arc::new(before)), ..Listing::default() };
    Ok(())
}

/// Takes out known names; `true`: looked at.
fn leave_out(reply: &mut Reply, skip: &Names, hasher: &RandomState) -> bool {
    match reply {
        Reply::ReaddirReply(reply) => reply.entries.retain(|entry| !skip.contains(&hasher.hash_one(&entry.name[..]))),
        Reply::ReaddirpReply(reply) => {
            reply.entries.retain(|entry| !skip.contains(&hasher.hash_one(&entry.entry.name[..])));
        }
        _ => return false,
    }
    true
}

fn offsets(reply: &Reply) -> Box<dyn Iterator<Item = u64> + '_> {
    match reply {
        Reply::ReaddirReply(reply) => Box::new(reply.entries.iter().map(|entry| entry.offset)),
        Reply::ReaddirpReply(reply) => Box::new(reply.entries.iter().map(|entry| entry.entry.offset)),
        _ => Box::new(std::iter::empty()),
    }
}

fn last_offset(reply: &Reply) -> Option<u64> {
    match reply {
        Reply::ReaddirReply(reply) => reply.entries.last().map(|entry| entry.offset),
        Reply::ReaddirpReply(reply) => reply.entries.last().map(|entry| entry.entry.offset),
        _ => None,
    }
}

const fn is_end(reply: &Reply) -> bool {
    match reply {
        Reply::ReaddirReply(reply) => reply.eof,
        Reply::ReaddirpReply(reply) => reply.eof,
        _ => true,
    }
}

const fn offset_of(request: &Request) -> u64 {
    match request {
        Request::Readdir(request) => request.offset,
        Request::Readdirp(request) => request.offset,
        _ => 0,
    }
}

const fn set_offset(request: &mut Request, offset: u64) {
    match request {
        Request::Readdir(request) => request.offset = offset,
        Request::Readdirp(request) => request.offset = offset,
        _ => {}
    }
}
