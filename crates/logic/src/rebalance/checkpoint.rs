//! Where a job goes on after its process has ended: the directories that are still to be done, and the counters.
//!
//! Directories made after the job began have the new layout from birth, so what is not listed needs no visit. A directory
//! is listed until all its files are done; doing one twice moves nothing twice.

use mortar_types::Gfid;
use serde::{Deserialize, Serialize};

/// The format's version: written into each checkpoint, and one of another version is not read.
const VERSION: u32 = 1;

/// A directory to be done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Directory {
    /// As text, so that people can read a checkpoint.
    gfid: String,
    /// From the volume's root, for people; bytes that are no text are replaced.
    pub path: String,
    /// Its subdirectories are listed, or done.
    #[serde(default)]
    pub expanded: bool,
}

impl Directory {
    pub fn new(gfid: Gfid, path: impl Into<String>) -> Self {
        Self { gfid: gfid.to_string(), path: path.into(), expanded: false }
    }

    pub fn root() -> Self {
        Self::new(Gfid::ROOT, "/")
    }

    /// `None` when a checkpoint was tampered with.
    pub fn gfid(&self) -> Option<Gfid> {
        self.gfid.parse::<uuid::Uuid>().ok().map(|uuid| Gfid(uuid.into_bytes()))
    }
}

/// `Counters` is what the shell keeps of its progress.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Checkpoint<Counters> {
    version: u32,
    /// The job's name; another job does not go on from here, since it marks directories otherwise.
    pub job: String,
    pub pending: Vec<Directory>,
    pub counters: Counters,
}

impl<Counters: Serialize + serde::de::DeserializeOwned> Checkpoint<Counters> {
    pub fn new(job: impl Into<String>, pending: Vec<Directory>, counters: Counters) -> Self {
        Self { version: VERSION, job: job.into(), pending, counters }
    }

    /// Whether `job` can go on from here.
    pub fn fits(&self, job: &str) -> bool {
        self.version == VERSION && self.job == job && self.pending.iter().all(|directory| directory.gfid().is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint<u64> {
        Checkpoint::new("rebalance /", vec![Directory::new(Gfid([7; 16]), "/user/a")], 12)
    }

    #[test]
    fn it_survives_the_disk() {
        let text = serde_json::to_string(&checkpoint()).unwrap();
        let read: Checkpoint<u64> = serde_json::from_str(&text).unwrap();
        assert_eq!(read, checkpoint());
        assert!(read.fits("rebalance /"));
        assert_eq!(read.pending[0].gfid(), Some(Gfid([7; 16])));
    }

    #[test]
    fn another_job_another_version_and_nonsense_do_not_fit() {
        assert!(!checkpoint().fits("force /"));
        let text = serde_json::to_string(&checkpoint()).unwrap();
        let later: Checkpoint<u64> = serde_json::from_str(&text.replace("\"version\":1", "\"version\":2")).unwrap();
        assert!(!later.fits("rebalance /"));
        let broken: Checkpoint<u64> = serde_json::from_str(&text.replace("07070707-", "xyz-")).unwrap();
        assert!(!broken.fits("rebalance /"));
        let more: Checkpoint<u64> = serde_json::from_str(&text.replacen('{', "{\"later\":1,", 1)).unwrap();
        assert_eq!(more, checkpoint());
    }
}
