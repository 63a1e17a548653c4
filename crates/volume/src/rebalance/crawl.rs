//! A job: the tree is walked, directory by directory, and what is left is kept on disk, so that a process that was killed
//! is followed by one that goes on where it was.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mortar_api::rebalance::{Control, Mode, Progress, State};
use mortar_logic::distribute::layout::COMMIT_INVALID;
use mortar_logic::rebalance::checkpoint::{Checkpoint, Directory};
use mortar_logic::rebalance::pending::{Ended, Pending, Visit};
use mortar_logic::rebalance::throttle::{Level, Throttle};
use mortar_types::fop::Lookup;
use mortar_types::{Errno, Gfid};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::orders::Orders;
use super::owners::Owners;
use super::saved::Saved;
use super::slots::Slots;
use super::tally::Tally;
use super::{Mover, Volume, probe, visit};

/// Directories worked on at once: the round trips of one are the time of another.
const DIRECTORIES_AT_ONCE: usize = 4;
/// Clients believe a layout that they have read for a second; from then on they know that a rebalance has begun.
const CLIENTS_FOLLOW: Duration = Duration::from_millis(1500);
/// Between two looks whether a subvolume is back.
const RETRY: Duration = Duration::from_millis(500);
/// A look at what others have left to do, when nobody tells.
const LOOK: Duration = Duration::from_millis(100);
/// So often is the tree gone through when bricks leave and each time there was something to move.
const ROUNDS_MAX: u32 = 5;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Job {
    pub mode: Mode,
    pub task: Uuid,
    /// This node: its share of the files is moved.
    pub node: Uuid,
    /// Only this directory and what is below it, absolute from the volume's root.
    pub path: Option<String>,
    /// Only counts.
    pub dry_run: bool,
    pub checkpoint: PathBuf,
    /// `cluster.rebal-throttle`.
    pub level: Level,
}

impl Job {
    /// What directories are marked with when they are done: the same on all nodes, other than that of any job before.
    pub fn commit_hash(&self) -> u32 {
        let (hash, ..) = self.task.as_fields();
        // 0 means none, and 1 not to be trusted.
        if hash <= COMMIT_INVALID { u32::MAX } else { hash }
    }
}

/// A job's reins and its numbers, also before it can begin.
#[derive(Debug)]
pub struct Desk {
    pub(super) orders: Orders,
    pub(super) tally: Arc<Tally>,
}

impl Desk {
    pub fn new(mode: Mode, dry_run: bool) -> Arc<Self> {
        Arc::new(Self { orders: Orders::default(), tally: Arc::new(Tally::new(mode, dry_run)) })
    }

    pub fn progress(&self) -> Progress {
        self.tally.progress()
    }

    /// Files that are under way are finished in any case.
    pub fn order(&self, control: Control) {
        self.orders.give(control);
        match (self.orders.is_paused(), self.tally.progress().state) {
            (true, State::InProgress) => self.tally.set_state(State::Paused),
            (false, State::Paused) => self.tally.set_state(State::InProgress),
            _ => {}
        }
    }
}

pub(super) struct Crawl {
    pub(super) job: Job,
    pub(super) volume: Volume,
    pub(super) desk: Arc<Desk>,
    pub(super) owners: Owners,
    pub(super) slots: Arc<Slots>,
    pub(super) pending: Mutex<Pending>,
    /// Something in `pending` has changed.
    pub(super) changed: Notify,
    saved: Saved,
}

/// Does the job, or what is left of it, until it is done or is told to stop. Its state is then final.
pub async fn run(job: Job, volume: Volume, desk: Arc<Desk>) {
    let slots = Slots::new(Throttle::new(job.level).parallel());
    let probing = probe::probe(volume.clone(), job.level, Arc::clone(&slots), Arc::clone(&desk.tally));
    let crawl = Arc::new(Crawl {
        owners: Owners::new(job.node),
        saved: Saved::new(&job.checkpoint),
        pending: Mutex::new(Pending::new(Vec::new(), 0)),
        changed: Notify::new(),
        job,
        volume,
        desk,
        slots,
    });
    let working = async {
        tokio::select! {
            state = crawl.work() => state,
            never = crawl.keep_saving() => never,
        }
    };
    let state = tokio::select! {
        state = working => state,
        () = probing => State::Failed,
    };
    crawl.desk.tally.set_state(state);
    // The same job, started again after a crash, goes on from here.
    crawl.saved.store(crawl.checkpoint()).await;
}

impl Crawl {
    async fn work(self: &Arc<Self>) -> State {
        let tally = &self.desk.tally;
        if let Some(checkpoint) = self.saved.load(&self.name()).await {
            let done = checkpoint.counters.directories_done;
            let state = checkpoint.counters.state;
            tally.restore(Progress { state: State::InProgress, ..checkpoint.counters });
            *self.pending.lock() = Pending::new(checkpoint.pending, done);
            if state == State::Completed {
                return state;
            }
            tracing::info!(left = self.pending.lock().known() - done, "going on");
        }
        tally.set_state(State::InProgress);
        if self.desk.orders.is_paused() {
            tally.set_state(State::Paused);
        }
        if !self.begin().await {
            return self.interrupted();
        }
        if self.pending.lock().known() == 0 {
            match self.start_directory().await {
                Some(start) => *self.pending.lock() = Pending::new(vec![start], 0),
                None => return self.interrupted(),
            }
        }
        for round in 1..=ROUNDS_MAX {
            let before = tally.progress().files;
            if !self.walk().await {
                return self.interrupted();
            }
            let moved = tally.progress().files > before;
            if self.job.mode != Mode::Decommission || self.job.dry_run || !moved || round == ROUNDS_MAX {
                break;
            }
            // A directory may have been renamed from where nobody had been to where somebody had.
            tally.begin_again();
            match self.start_directory().await {
                Some(start) => *self.pending.lock() = Pending::new(vec![start], 0),
                None => return self.interrupted(),
            }
        }
        State::Completed
    }

    /// Why the walk has ended early.
    fn interrupted(&self) -> State {
        if self.desk.orders.is_ended() { State::Stopped } else { State::Failed }
    }

    fn name(&self) -> String {
        self.job.task.to_string()
    }

    /// Tells all clients that files are going to move; `false` when the job is to end before.
    async fn begin(&self) -> bool {
        loop {
            if !self.all_up().await {
                return false;
            }
            if self.job.dry_run {
                return true;
            }
            let begun = self.volume.layer.set_volume_commit(&Mover::new().ctx, self.job.commit_hash()).await;
            match begun {
                Ok(()) => return self.desk.orders.sleep(CLIENTS_FOLLOW).await,
                Err(failure) => {
                    tracing::warn!(errno = %failure.errno, "the root cannot be marked");
                    if !self.desk.orders.sleep(RETRY).await {
                        return false;
                    }
                }
            }
        }
    }

    /// Waits until every subvolume serves; `false` when the job is to end before.
    async fn all_up(&self) -> bool {
        let mut said = false;
        loop {
            if !self.desk.orders.go().await {
                return false;
            }
            let Some(away) = self.volume.away() else {
                if said {
                    self.desk.tally.say(None);
                }
                return true;
            };
            said = true;
            self.desk.tally.say(Some(format!("waits for {}, whose bricks do not answer", away.name())));
            if !self.desk.orders.sleep(RETRY).await {
                return false;
            }
        }
    }

    /// Where the job begins; `None` after a failure, or when the job is to end.
    async fn start_directory(&self) -> Option<Directory> {
        let Some(path) = &self.job.path else { return Some(Directory::root()) };
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        'again: loop {
            let mut gfid = Gfid::ROOT;
            for name in &names {
                let name = Bytes::copy_from_slice(name.as_bytes());
                let lookup = Lookup { gfid: Gfid::NULL, parent: gfid, flags: 0, name, xdata: None };
                match self.volume.ask(lookup).await {
                    Ok(reply) if reply.stat.is_dir() => gfid = reply.stat.gfid,
                    Ok(_) => return self.no_start(path, Errno::ENOTDIR),
                    Err(failure) if failure.errno == Errno::ENOTCONN => {
                        if !self.desk.orders.sleep(RETRY).await {
                            return None;
                        }
                        continue 'again;
                    }
                    Err(failure) => return self.no_start(path, failure.errno),
                }
            }
            let path = if names.is_empty() { "/".to_owned() } else { format!("/{}", names.join("/")) };
            return Some(Directory::new(gfid, path));
        }
    }

    fn no_start(&self, path: &str, errno: Errno) -> Option<Directory> {
        self.desk.tally.fail(format!("{path} is no directory of the volume: {errno}"));
        None
    }

    /// Everything that is pending; `false` when the job is to end before.
    async fn walk(self: &Arc<Self>) -> bool {
        let mut workers = JoinSet::new();
        for _ in 0..DIRECTORIES_AT_ONCE {
            let crawl = Arc::clone(self);
            workers.spawn(async move { crawl.take_directories().await });
        }
        let ended = workers.join_all().await;
        ended.into_iter().all(|done| done)
    }

    async fn take_directories(self: &Arc<Self>) -> bool {
        loop {
            if !self.all_up().await {
                return false;
            }
            let (visit, is_done) = {
                let mut pending = self.pending.lock();
                (pending.take(), pending.is_done())
            };
            match visit {
                Some(visit) => {
                    let ended = self.visit(&visit).await;
                    let mut pending = self.pending.lock();
                    pending.end(&visit, ended);
                    self.desk.tally.directories(pending.done(), pending.known());
                    drop(pending);
                    self.changed.notify_waiters();
                }
                None if is_done => return true,
                None => drop(tokio::time::timeout(LOOK, self.changed.notified()).await),
            }
        }
    }

    async fn visit(self: &Arc<Self>, visit: &Visit) -> Ended {
        if visit.number > 1 && !self.desk.orders.sleep(RETRY * visit.number).await {
            return Ended::Interrupted;
        }
        self.desk.tally.at(&visit.directory.path);
        match visit::visit(self, visit).await {
            Ok(ended) => ended,
            // Removed meanwhile.
            Err(error) if error.errno().is_some_and(super::is_absent) => Ended::Done,
            Err(error) if error.errno() == Some(Errno::ENOTCONN) => {
                tracing::info!(path = visit.directory.path, %error, "interrupted");
                self.desk.orders.sleep(RETRY).await;
                Ended::Interrupted
            }
            Err(error) => {
                if visit.is_last() {
                    self.desk.tally.failed(&visit.directory.path, error.to_string());
                } else {
                    tracing::info!(path = visit.directory.path, %error, "once more later");
                }
                Ended::Again
            }
        }
    }

    fn checkpoint(&self) -> Checkpoint<Progress> {
        // Counters first: files that are counted and done again count twice, rather than not at all.
        let counters = self.desk.tally.progress();
        Checkpoint::new(self.name(), self.pending.lock().left(), counters)
    }

    async fn keep_saving<T>(&self) -> T {
        loop {
            let checkpoint = self.checkpoint();
            let wait = match checkpoint.counters.state {
                // What an earlier run has left may not be read yet.
                State::NotStarted => LOOK,
                _ => self.saved.store(checkpoint).await,
            };
            tokio::time::sleep(wait).await;
        }
    }
}
