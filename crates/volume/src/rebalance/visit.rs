//! One directory: its subdirectories are everywhere, its layout spans all subvolumes, its files are where their names lie.
//!
//! In this order: a layout that gave a subdirectory's name to a subvolume without that subdirectory would hide it. And it
//! is settled last, when every file is found where lookups look first, itself or a link file: from then on they look
//! nowhere else.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::StreamExt as _;
use mortar_api::rebalance::{Mode, SkipReason};
use mortar_logic::distribute::layout::Layout;
use mortar_logic::distribute::moves::{self, Decision, Order, Skip};
use mortar_logic::distribute::space::Usage;
use mortar_logic::rebalance::checkpoint::Directory;
use mortar_logic::rebalance::judge::{Judged, Kind, Met, judge};
use mortar_logic::rebalance::pending::{Ended, Visit};
use mortar_types::fop::Lookup;
use mortar_types::{Errno, FopKind, Fops as _, Gfid, Outcome, SubvolId};
use tokio::task::JoinSet;

use super::crawl::Crawl;
use super::listing::{Entry, Listing};
use super::migrate::{Migration, migrate_file};
use super::owners::Share;
use super::slots::Slot;
use super::{Error, File, Moved, Mover};

/// Subdirectories looked up at once.
const LOOKUPS_AT_ONCE: usize = 16;
/// More misplaced files than this are not compared with their link files: the directory is not settled.
const MISPLACED_MAX: usize = 1_000_000;

pub(super) async fn visit(crawl: &Arc<Crawl>, visit: &Visit) -> Result<Ended, Error> {
    let gfid = visit.directory.gfid().unwrap_or(Gfid::NULL);
    let directory = OneDirectory { crawl, visit, gfid };
    if !visit.directory.expanded {
        directory.expand().await?;
    }
    let layout = directory.lay_out().await?;
    if crawl.job.mode == Mode::FixLayout {
        return Ok(Ended::Done);
    }
    directory.spread(layout).await
}

struct OneDirectory<'a> {
    crawl: &'a Arc<Crawl>,
    visit: &'a Visit,
    gfid: Gfid,
}

/// What the moves of a directory's files came to.
#[derive(Default)]
struct Found {
    /// Something may go better soon.
    again: AtomicBool,
}

impl OneDirectory<'_> {
    fn path_of(&self, name: &[u8]) -> String {
        let (path, name) = (&self.visit.directory.path, String::from_utf8_lossy(name));
        if path == "/" { format!("/{name}") } else { format!("{path}/{name}") }
    }

    fn failed<T>(&self, kind: FopKind, outcome: Outcome<T>) -> Result<T, Error> {
        let subvolume = self.crawl.volume.layer.name().to_owned();
        outcome.map_err(|failure| Error::Fop { subvolume, kind, errno: failure.errno })
    }

    /// Sees to it that every subdirectory is on all subvolumes, and adds them to what is to be done.
    async fn expand(&self) -> Result<(), Error> {
        let names = self.subdirectories().await?;
        let looked = names.into_iter().map(|name| async move { (self.subdirectory(&name).await, name) });
        let mut looked = futures::stream::iter(looked).buffered(LOOKUPS_AT_ONCE);
        let mut children = Vec::new();
        while let Some((child, name)) = looked.next().await {
            if let Some(gfid) = child? {
                children.push(Directory::new(gfid, self.path_of(&name)));
            }
        }
        self.crawl.pending.lock().expand(self.visit, children);
        self.crawl.changed.notify_waiters();
        Ok(())
    }

    async fn subdirectories(&self) -> Result<Vec<Bytes>, Error> {
        let (mut seen, mut names) = (HashSet::new(), Vec::new());
        for (_, subvolume) in self.crawl.volume.subvolumes.iter() {
            let Some(mut listing) = Listing::open(subvolume, self.gfid).await? else { continue };
            while let Some(page) = listing.page().await? {
                for entry in page.into_iter().filter(Entry::is_dir) {
                    if seen.insert(entry.name.clone()) {
                        names.push(entry.name);
                    }
                }
            }
            listing.close().await;
        }
        Ok(names)
    }

    /// Its gfid; `None` when it is gone. A lookup heals: it is made where it is missing.
    async fn subdirectory(&self, name: &Bytes) -> Result<Option<Gfid>, Error> {
        let (layer, ctx) = (&self.crawl.volume.layer, Mover::new().ctx);
        let lookup = Lookup { gfid: Gfid::NULL, parent: self.gfid, flags: 0, name: name.clone(), xdata: None };
        if self.crawl.job.dry_run {
            // At a subvolume itself nothing is healed.
            return self.look_without_healing(lookup).await;
        }
        let gfid = match self.crawl.volume.ask(lookup).await {
            Ok(reply) if reply.stat.is_dir() => reply.stat.gfid,
            Ok(_) => return Ok(None),
            Err(failure) if super::is_absent(failure.errno) => return Ok(None),
            Err(failure) => return self.failed(FopKind::Lookup, Err(failure)),
        };
        match layer.layout(&ctx, gfid).await {
            Ok(layout) if layout.anomalies().missing == 0 => Ok(Some(gfid)),
            Ok(_) => self.failed(FopKind::Mkdir, Err(Errno::EBUSY.into())),
            Err(failure) if super::is_absent(failure.errno) => Ok(None),
            Err(failure) => self.failed(FopKind::Lookup, Err(failure)),
        }
    }

    async fn look_without_healing(&self, lookup: Lookup) -> Result<Option<Gfid>, Error> {
        for (_, subvolume) in self.crawl.volume.subvolumes.iter() {
            let found = Mover::new().find(subvolume, lookup.clone()).await?;
            if let Some(found) = found.filter(|found| found.stat.is_dir()) {
                return Ok(Some(found.stat.gfid));
            }
        }
        Ok(None)
    }

    /// The layout that counts from now on, in a dry run the one that would.
    async fn lay_out(&self) -> Result<Layout, Error> {
        let (layer, ctx) = (&self.crawl.volume.layer, Mover::new().ctx);
        if self.crawl.job.dry_run {
            return self.failed(FopKind::Lookup, layer.planned_layout(&ctx, self.gfid).await);
        }
        self.failed(FopKind::Setxattr, layer.fix_layout(&ctx, self.gfid).await)?;
        self.failed(FopKind::Lookup, layer.layout(&ctx, self.gfid).await)
    }

    /// Moves this node's share of the files; settles the directory when nobody has anything left to move.
    async fn spread(&self, layout: Layout) -> Result<Ended, Error> {
        let crawl = self.crawl;
        let share = crawl.owners.share(&crawl.volume.subvolumes).await;
        let found = Arc::new(Found::default());
        let mut moving = JoinSet::new();
        let begun = self.spread_all(&layout, &share, &found, &mut moving).await;
        // Each must come to its end, whatever happened to the listing.
        while moving.join_next().await.is_some() {}
        let misplaced = begun?;
        if crawl.desk.orders.is_ended() {
            return Ok(Ended::Interrupted);
        }
        if found.again.load(Ordering::Relaxed) && !self.visit.is_last() {
            return Ok(if crawl.volume.away().is_some() { Ended::Interrupted } else { Ended::Again });
        }
        if !crawl.job.dry_run && (!misplaced || self.all_are_found(&layout).await?) {
            self.settle(&layout).await;
        }
        Ok(Ended::Done)
    }

    /// Whether any file lies elsewhere, whoever moves it.
    async fn spread_all(
        &self,
        layout: &Layout,
        share: &Share,
        found: &Arc<Found>,
        moving: &mut JoinSet<()>,
    ) -> Result<bool, Error> {
        let mut misplaced = false;
        for (at, subvolume) in self.crawl.volume.subvolumes.iter() {
            let Some(mut listing) = Listing::open(subvolume, self.gfid).await? else { continue };
            let begun = self.spread_from(at, &mut listing, (layout, share, found), moving).await;
            listing.close().await;
            misplaced |= begun?;
        }
        Ok(misplaced)
    }

    async fn spread_from(
        &self,
        at: SubvolId,
        listing: &mut Listing<'_>,
        (layout, share, found): (&Layout, &Share, &Arc<Found>),
        moving: &mut JoinSet<()>,
    ) -> Result<bool, Error> {
        let crawl = self.crawl;
        let mut misplaced = false;
        while let Some(entries) = listing.page().await? {
            crawl.desk.tally.looked_at(entries.iter().filter(|entry| !entry.is_dir()).count() as u64);
            for entry in entries {
                let judged = self.judge(at, layout, &entry);
                misplaced |= matches!(judged, Judged::Misplaced { .. });
                let hashed = match judged {
                    Judged::Misplaced { hashed, moves: true } => hashed,
                    Judged::Leftover { hashed } if !crawl.job.dry_run => hashed,
                    _ => continue,
                };
                if !share.has(entry.stat.gfid, at) {
                    continue;
                }
                let Some(slot) = crawl.slots.take(&crawl.desk.orders).await else { return Ok(misplaced) };
                // Those that have come to their end.
                while moving.try_join_next().is_some() {}
                moving.spawn(self.one_file(entry, at, hashed, found).go(slot));
            }
        }
        Ok(misplaced)
    }

    fn one_file(&self, entry: Entry, at: SubvolId, hashed: SubvolId, found: &Arc<Found>) -> OneFile {
        OneFile {
            crawl: Arc::clone(self.crawl),
            path: self.path_of(&entry.name),
            parent: self.gfid,
            entry,
            at,
            hashed,
            is_last: self.visit.is_last(),
            found: Arc::clone(found),
        }
    }

    fn judge(&self, at: SubvolId, layout: &Layout, entry: &Entry) -> Judged {
        let options = self.crawl.volume.layer.options();
        let volume = &self.crawl.volume;
        let kind = if entry.is_dir() {
            Kind::Directory
        } else {
            entry.link.as_ref().map_or(Kind::File, |name| Kind::Link(volume.by_name(name)))
        };
        let hashed = layout.search(options.names.of(&entry.name));
        let leaving = options.decommissioned.contains(volume.subvolumes[at].name());
        judge(&Met { at, hashed, kind }, self.crawl.job.mode == Mode::Decommission, leaving)
    }

    /// Whether every file is found at the first place that lookups look at: it is there, or a link file is.
    async fn all_are_found(&self, layout: &Layout) -> Result<bool, Error> {
        let mut pointers: HashSet<(SubvolId, u64)> = HashSet::new();
        let mut misplaced: HashSet<(SubvolId, u64)> = HashSet::new();
        for (at, subvolume) in self.crawl.volume.subvolumes.iter() {
            let Some(mut listing) = Listing::open(subvolume, self.gfid).await? else { continue };
            while let Some(page) = listing.page().await? {
                for entry in page {
                    match self.judge(at, layout, &entry) {
                        Judged::Pointer => drop(pointers.insert((at, hash_of(&entry.name)))),
                        Judged::Misplaced { hashed, .. } => drop(misplaced.insert((hashed, hash_of(&entry.name)))),
                        _ => {}
                    }
                }
            }
            listing.close().await;
            if misplaced.len() > MISPLACED_MAX {
                return Ok(false);
            }
        }
        Ok(misplaced.is_subset(&pointers))
    }

    /// What fails leaves the directory as it is: lookups go on looking everywhere.
    async fn settle(&self, layout: &Layout) {
        let commit_hash = self.crawl.job.commit_hash();
        if layout.commit_hash() == commit_hash {
            return;
        }
        if let Err(failure) = self.crawl.volume.layer.settle(&Mover::new().ctx, self.gfid, commit_hash).await {
            tracing::info!(path = self.visit.directory.path, errno = %failure.errno, "not settled");
        }
    }
}

fn hash_of(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// A file to be moved.
struct OneFile {
    crawl: Arc<Crawl>,
    path: String,
    parent: Gfid,
    entry: Entry,
    at: SubvolId,
    hashed: SubvolId,
    is_last: bool,
    found: Arc<Found>,
}

impl OneFile {
    async fn go(self, slot: Slot) {
        let tally = &self.crawl.desk.tally;
        match self.decide().await {
            Ok(Some(target)) if self.crawl.job.dry_run => {
                let _ = target;
                tally.moved(self.entry.stat.size);
            }
            Ok(Some(target)) => match self.migrate(target).await {
                Ok(Moved::Moved(bytes)) => tally.moved(bytes),
                Ok(Moved::Link) => {}
                Ok(Moved::Skipped(reason)) => self.skipped(reason),
                Err(error) if self.is_last => tally.failed(&self.path, error.to_string()),
                Err(error) => {
                    tracing::info!(path = self.path, %error, "once more later");
                    self.found.again.store(true, Ordering::Relaxed);
                }
            },
            Ok(None) => {}
            Err(reason) => self.skipped(reason),
        }
        drop(slot);
    }

    /// Where it goes; `None`: nowhere.
    async fn decide(&self) -> Result<Option<SubvolId>, SkipReason> {
        if self.entry.link.is_some() {
            return Ok(Some(self.hashed));
        }
        let (job, layer) = (&self.crawl.job, &self.crawl.volume.layer);
        let order = Order {
            force: job.mode == Mode::Force,
            leaves: job.mode == Mode::Decommission,
            limits: layer.options().limits,
        };
        let stat = &self.entry.stat;
        let file = moves::File {
            hashed: self.hashed,
            cached: self.at,
            size_bytes: stat.size,
            links: stat.nlink,
            // The mover looks: it may change until then.
            is_locked: false,
        };
        let (source, target) = tokio::join!(self.usage(self.at), self.usage(self.hashed));
        match moves::decide(&file, &order, source, target) {
            Decision::Move { to } => Ok(Some(to)),
            Decision::Stay => Ok(None),
            Decision::Skip(Skip::HardLinks) => Err(SkipReason::HardLinks),
            Decision::Skip(Skip::Locked) => Err(SkipReason::Locked),
            Decision::Skip(Skip::WouldUnbalance) => Err(SkipReason::TargetFuller),
            Decision::Skip(Skip::NoRoom) => Err(SkipReason::NoSpace),
        }
    }

    async fn usage(&self, at: SubvolId) -> Option<Usage> {
        self.crawl.volume.layer.usage(at).await
    }

    async fn migrate(&self, target: SubvolId) -> Result<Moved, Error> {
        let file = File { parent: self.parent, name: self.entry.name.clone(), gfid: self.entry.stat.gfid };
        let migration = Migration { subvolumes: &self.crawl.volume.subvolumes, file: &file, source: self.at, target };
        migrate_file(migration).await
    }

    fn skipped(&self, reason: SkipReason) {
        let passes = matches!(
            reason,
            SkipReason::Busy
                | SkipReason::Changing
                | SkipReason::NeedsHeal
                | SkipReason::SubvolumeDown
                | SkipReason::Gone
        );
        if passes {
            self.found.again.store(true, Ordering::Relaxed);
        }
        match reason {
            // Its new name, if it has one, is met on the next visit.
            SkipReason::Gone => {}
            _ if passes && !self.is_last => tracing::debug!(path = self.path, ?reason, "once more later"),
            _ => self.crawl.desk.tally.skipped(&self.path, reason),
        }
    }
}
