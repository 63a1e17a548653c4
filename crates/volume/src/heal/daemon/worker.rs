//! The healer of one replica set: when to sweep, and what after a sweep.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mortar_logic::heal::Children;
use mortar_rpc::control::SubvolumeCrawls;
use mortar_types::fop::Getxattr;
use mortar_types::{Gfid, SubvolId, Upcall, UpcallSink, keys};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::heal::Error;
use crate::heal::daemon::history::History;
use crate::heal::set::{ReplicaSet, Session};
use crate::heal::sweep::{Progress, Snapshot, Summary, empty_parking, full_sweep, index_sweep};
use crate::heal::volfile::Section;

/// A sweep that left entries which may heal by themselves is repeated after so long, then after twice that, and so on.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// … but not later than this (or the volume's heal timeout, if that is shorter).
const RETRY_MAX: Duration = Duration::from_secs(60);

/// The indexes of this node's bricks are looked at this often: a client may have lost a brick that never went away for us,
/// and then nobody tells of what it missed.
const INDEX_INTERVAL_MAX: Duration = Duration::from_secs(20);

/// One replica set under care. Dropping the handle's task ends it; what it was doing is finished by the next sweep of
/// anybody.
pub(super) struct Worker {
    set: ReplicaSet,
    node: Uuid,
    heal_timeout: Duration,
    progress: Progress,
    history: History,
    wake: Arc<Wake>,
    full: AtomicBool,
}

/// Wakes the worker when a brick comes up.
struct Wake(Notify);

impl UpcallSink for Wake {
    fn upcall(&self, upcall: Upcall) {
        if matches!(upcall, Upcall::Up) {
            self.0.notify_one();
        }
    }
}

impl Worker {
    pub(super) fn new(section: Section, node: Uuid) -> Arc<Self> {
        let wake = Arc::new(Wake(Notify::new()));
        for (_, child) in section.set.children.iter() {
            child.subscribe(Arc::clone(&wake) as Arc<dyn UpcallSink>);
        }
        Arc::new(Self {
            set: section.set,
            node,
            heal_timeout: section.heal_timeout,
            progress: Progress::default(),
            history: History::default(),
            wake,
            full: AtomicBool::new(false),
        })
    }

    /// Sweeps now, or again at once when a sweep is running.
    pub(super) fn request(&self, full: bool) {
        if full {
            self.full.store(true, Ordering::Relaxed);
        }
        self.wake.0.notify_one();
    }

    pub(super) fn progress(&self) -> Snapshot {
        self.progress.snapshot()
    }

    /// Of the bricks of this node; others have none here.
    pub(super) fn crawls(&self) -> Vec<SubvolumeCrawls> {
        let of = |(child, brick): (SubvolId, &Arc<dyn mortar_types::Fops>)| SubvolumeCrawls {
            subvolume: brick.name().to_owned(),
            crawls: self.history.of(child),
        };
        self.set.children.iter().map(of).filter(|of_brick| !of_brick.crawls.is_empty()).collect()
    }

    pub(super) fn are_all_up(&self) -> bool {
        self.set.are_all_up()
    }

    /// Runs for ever.
    pub(super) async fn run(self: Arc<Self>) {
        let mut retry = RETRY_FIRST;
        loop {
            let wait = match self.sweep().await {
                Ok(summary) if summary.left.is_empty() => {
                    retry = RETRY_FIRST;
                    INDEX_INTERVAL_MAX.min(self.heal_timeout)
                }
                Ok(_) => {
                    let wait = retry.min(self.heal_timeout);
                    retry = (retry * 2).min(RETRY_MAX);
                    wait
                }
                // A brick that comes up wakes us.
                Err(Error::NotAllUp) => self.heal_timeout,
                Err(error) => {
                    tracing::warn!(volume = %self.set.name, %error, "the sweep of the index failed");
                    RETRY_MAX.min(self.heal_timeout)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.wake.0.notified() => {}
            }
        }
    }

    async fn sweep(&self) -> Result<Summary, Error> {
        if !self.set.are_all_up() {
            return Err(Error::NotAllUp);
        }
        let homes = self.homes().await?;
        let local: Children = homes.iter().filter(|(_, node)| *node == self.node).map(|(child, _)| *child).collect();
        if local.is_empty() {
            return Ok(Summary::default());
        }
        // One node walks the tree, the one with the greatest uuid, as among GlusterFS's daemons.
        let is_walker = homes.iter().map(|(_, node)| *node).max() == Some(self.node);
        let mut walked = None;
        if self.full.swap(false, Ordering::Relaxed) && is_walker {
            self.history.begin(local, true);
            let swept = full_sweep(&self.set, &self.progress).await;
            self.history.end(local, swept.as_ref().ok());
            walked = Some(swept?);
            self.report("full", walked.as_ref());
        }
        self.history.begin(local, false);
        let swept = index_sweep(&self.set, local, &self.progress).await;
        self.history.end(local, swept.as_ref().ok());
        let mut summary = swept?;
        self.report("index", Some(&summary));
        if summary.left.is_empty() {
            empty_parking(&self.set).await?;
        }
        // Only what may heal by itself is worth coming back for soon; split-brain is not.
        let walked = walked.unwrap_or_default();
        summary.left.extend(walked.left);
        summary.left.retain(|(_, error)| !matches!(error, Error::SplitBrain(_) | Error::OnlyArbiterIsGood));
        Ok(summary)
    }

    fn report(&self, kind: &str, summary: Option<&Summary>) {
        let Some(summary) = summary else { return };
        if summary.healed > 0 || !summary.left.is_empty() {
            let (healed, left) = (summary.healed, summary.left.len());
            tracing::info!(volume = %self.set.name, kind, healed, left, "sweep");
        }
        for (gfid, error) in summary.left.iter().filter(|(_, error)| !error.is_passing()) {
            tracing::warn!(volume = %self.set.name, %gfid, %error, "not healed");
        }
    }

    /// On which node each brick is, as it says itself.
    async fn homes(&self) -> Result<Vec<(SubvolId, Uuid)>, Error> {
        let session = Session::new(&self.set);
        let mut homes = Vec::new();
        for child in self.set.all().iter() {
            let name = Some(Bytes::from_static(keys::NODE_UUID.as_bytes()));
            let reply = session.must(child, Getxattr { gfid: Gfid::ROOT, name, xdata: None }).await?;
            let text = reply.dict.as_ref().and_then(|dict| dict.get_str(keys::NODE_UUID));
            if let Some(node) = text.and_then(|text| text.parse().ok()) {
                homes.push((child, node));
            }
        }
        Ok(homes)
    }
}
