//! What a job has done so far, for whoever asks.

use std::time::{Duration, Instant};

use mortar_api::rebalance::{EXAMPLES_MAX, Example, Mode, Progress, SkipReason, State};
use mortar_logic::rebalance::meter::{Meter, eta_s};
use parking_lot::Mutex;

#[derive(Debug)]
pub(super) struct Tally(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    progress: Progress,
    /// Since when the job is at work; `None` while it is not. `progress.elapsed_ms` has what was before.
    since: Option<Instant>,
    began: Instant,
    files: Meter,
    bytes: Meter,
}

impl Tally {
    pub(super) fn new(mode: Mode, dry_run: bool) -> Self {
        let progress = Progress { dry_run, ..Progress::new(mode) };
        let (files, bytes) = (Meter::default(), Meter::default());
        Self(Mutex::new(Inner { progress, since: None, began: Instant::now(), files, bytes }))
    }

    pub(super) fn progress(&self) -> Progress {
        let inner = self.0.lock();
        let mut progress = Progress { elapsed_ms: inner.elapsed_ms(), ..inner.progress.clone() };
        if progress.state == State::InProgress {
            (progress.files_per_s, progress.bytes_per_s) = (inner.files.per_s(), inner.bytes.per_s());
            progress.eta_s = eta_s(progress.elapsed_ms, progress.directories_done, progress.directories_known);
        }
        progress
    }

    /// Goes on from an earlier run's numbers.
    pub(super) fn restore(&self, saved: Progress) {
        let mut inner = self.0.lock();
        inner.progress = Progress { message: None, ..saved };
    }

    pub(super) fn set_state(&self, state: State) {
        let mut inner = self.0.lock();
        if inner.progress.state.is_final() {
            return;
        }
        inner.progress.elapsed_ms = inner.elapsed_ms();
        inner.since = (state == State::InProgress).then(Instant::now);
        inner.progress.state = state;
        if state.is_final() {
            (inner.progress.at, inner.progress.parallel) = (String::new(), 0);
        }
    }

    pub(super) fn fail(&self, message: String) {
        tracing::error!(message, "the rebalance has failed");
        self.say(Some(message));
        self.set_state(State::Failed);
    }

    /// What waits, for people.
    pub(super) fn say(&self, message: Option<String>) {
        self.0.lock().progress.message = message;
    }

    /// Reads the meters; to be called about once a second.
    pub(super) fn tick(&self) {
        let mut inner = self.0.lock();
        let now = u64::try_from(inner.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (files, bytes) = (inner.progress.files, inner.progress.bytes);
        inner.files.read(now, files);
        inner.bytes.read(now, bytes);
    }

    pub(super) fn throttled(&self, parallel: u32, p99_us: u64, quiet_p99_us: u64) {
        let progress = &mut self.0.lock().progress;
        (progress.parallel, progress.probe_p99_us, progress.probe_quiet_p99_us) = (parallel, p99_us, quiet_p99_us);
    }

    pub(super) fn at(&self, path: &str) {
        let progress = &mut self.0.lock().progress;
        path.clone_into(&mut progress.at);
        progress.lookups += 1;
    }

    pub(super) fn directories(&self, done: u64, known: u64) {
        let progress = &mut self.0.lock().progress;
        (progress.directories_done, progress.directories_known) = (done, known);
    }

    pub(super) fn looked_at(&self, names: u64) {
        self.0.lock().progress.lookups += names;
    }

    pub(super) fn moved(&self, bytes: u64) {
        let progress = &mut self.0.lock().progress;
        progress.files += 1;
        progress.bytes += bytes;
    }

    pub(super) fn skipped(&self, path: &str, reason: SkipReason) {
        tracing::info!(path, reason = reason.words(), "stays");
        let progress = &mut self.0.lock().progress;
        progress.skipped += 1;
        *progress.skipped_by_reason.entry(reason).or_insert(0) += 1;
        example(progress, path, reason.words().to_owned());
    }

    pub(super) fn failed(&self, path: &str, why: String) {
        tracing::warn!(path, why, "not moved");
        let progress = &mut self.0.lock().progress;
        progress.failures += 1;
        example(progress, path, why);
    }

    /// The tree is gone through once more: what stays is counted anew.
    pub(super) fn begin_again(&self) {
        let progress = &mut self.0.lock().progress;
        (progress.skipped, progress.failures) = (0, 0);
        progress.skipped_by_reason.clear();
        progress.examples.clear();
    }
}

impl Inner {
    fn elapsed_ms(&self) -> u64 {
        let now = self.since.map_or(Duration::ZERO, |since| since.elapsed());
        self.progress.elapsed_ms + u64::try_from(now.as_millis()).unwrap_or(0)
    }
}

fn example(progress: &mut Progress, path: &str, why: String) {
    if progress.examples.len() >= EXAMPLES_MAX {
        progress.examples.remove(0);
    }
    progress.examples.push(Example { path: path.to_owned(), why });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_final_state_stays_and_only_the_latest_examples_are_kept() {
        let tally = Tally::new(Mode::Rebalance, false);
        tally.set_state(State::InProgress);
        for at in 0..30 {
            tally.skipped(&format!("/{at}"), SkipReason::Locked);
        }
        tally.moved(7);
        tally.set_state(State::Completed);
        tally.set_state(State::InProgress);
        let progress = tally.progress();
        assert_eq!((progress.state, progress.files, progress.bytes, progress.skipped), (State::Completed, 1, 7, 30));
        assert_eq!(progress.skipped_by_reason[&SkipReason::Locked], 30);
        assert_eq!((progress.examples.len(), progress.examples[19].path.as_str()), (EXAMPLES_MAX, "/29"));
    }
}
