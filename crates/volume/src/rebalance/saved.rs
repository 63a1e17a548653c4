//! The checkpoint file: replaced as a whole, and on the disk before it counts.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mortar_api::rebalance::Progress;
use mortar_logic::rebalance::checkpoint::Checkpoint;

/// How often the checkpoint is written.
const EVERY: Duration = Duration::from_secs(2);
/// Writing it takes at most one part in so many of the time.
const RARER: u32 = 50;

/// Where a job is kept.
#[derive(Clone, Debug)]
pub(super) struct Saved {
    path: Arc<Path>,
}

impl Saved {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: Arc::from(path) }
    }

    /// The job as it was left; `None` when there is none that `job` can go on with.
    pub(super) async fn load(&self, job: &str) -> Option<Checkpoint<Progress>> {
        let path = Arc::clone(&self.path);
        let read = tokio::task::spawn_blocking(move || std::fs::read(path)).await.ok()?;
        let read = read.inspect_err(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(%error, "the checkpoint cannot be read");
            }
        });
        let checkpoint: Checkpoint<Progress> = serde_json::from_slice(&read.ok()?).ok()?;
        checkpoint.fits(job).then_some(checkpoint)
    }

    /// Writes it. A failure is logged: the job goes on, and only a later run does more than it need.
    /// How long to wait until the next time.
    pub(super) async fn store(&self, checkpoint: Checkpoint<Progress>) -> Duration {
        let (path, begun) = (Arc::clone(&self.path), Instant::now());
        let written = tokio::task::spawn_blocking(move || write(&path, &checkpoint)).await;
        if let Err(error) = written.map_err(io::Error::other).flatten() {
            tracing::warn!(path = %self.path.display(), %error, "the checkpoint cannot be written");
        }
        EVERY.max(begun.elapsed() * RARER)
    }
}

fn write(path: &Path, checkpoint: &Checkpoint<Progress>) -> io::Result<()> {
    let text = serde_json::to_vec(checkpoint)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    std::fs::create_dir_all(dir)?;
    let fresh: PathBuf = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(&text)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use mortar_api::rebalance::Mode;
    use mortar_logic::rebalance::checkpoint::Directory;

    use super::*;

    #[tokio::test]
    async fn a_job_goes_on_from_its_own_checkpoint_only() {
        let dir = tempfile::tempdir().unwrap();
        let saved = Saved::new(&dir.path().join("vols/rebalance.checkpoint"));
        assert_eq!(saved.load("one").await, None);
        let checkpoint = Checkpoint::new("one", vec![Directory::root()], Progress::new(Mode::Force));
        assert_eq!(saved.store(checkpoint.clone()).await, EVERY);
        assert_eq!(saved.load("one").await, Some(checkpoint));
        assert_eq!(saved.load("two").await, None);
        std::fs::write(&saved.path, "{").unwrap();
        assert_eq!(saved.load("one").await, None);
    }
}
