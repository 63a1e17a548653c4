//! Rebalance: the job that lays directories out anew and moves files to the subvolume that their names hash to, and the
//! same job emptying bricks that leave (remove-brick). One process per node does that node's share; what is here is what
//! the process says of itself and what the admin asks of the volume.
//!
//! Everything counts from the start of the task, over restarts of the process: the counters are in the checkpoint.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::operation;

/// What the job does (GlusterFS: `enum gf_defrag_cmd`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Directories get layouts over all subvolumes; no file moves (`rebalance VOL fix-layout start`).
    FixLayout,
    /// Files move too, unless the target would then be fuller than the source (`rebalance VOL start`).
    Rebalance,
    /// Files move whatever the targets' fill (`rebalance VOL start force`).
    Force,
    /// Everything leaves the subvolumes of the volfile's option `decommissioned-bricks` (`remove-brick start`).
    Decommission,
}

impl Mode {
    pub const ALL: [Self; 4] = [Self::FixLayout, Self::Rebalance, Self::Force, Self::Decommission];

    /// The word on the command line and in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FixLayout => "fix-layout",
            Self::Rebalance => "rebalance",
            Self::Force => "force",
            Self::Decommission => "decommission",
        }
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, UnknownMode> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text).ok_or_else(|| UnknownMode(text.to_owned()))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no mode; expected fix-layout, rebalance, force or decommission")]
pub struct UnknownMode(pub String);

/// Where a node's part of the job is (GlusterFS: `enum gf_defrag_status_t`; the numbers are those of its XML).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    #[default]
    NotStarted,
    InProgress,
    /// By the admin; goes on when told to. GlusterFS has no such state and shows `in progress`.
    Paused,
    Stopped,
    Completed,
    Failed,
}

impl State {
    /// No process works on it any more.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Stopped | Self::Completed | Self::Failed)
    }

    /// The number in GlusterFS's XML for a job of this mode (`GF_DEFRAG_STATUS_*`).
    pub const fn gluster_number(self, mode: Mode) -> u32 {
        match (self, mode) {
            (Self::NotStarted, _) => 0,
            (Self::InProgress | Self::Paused, Mode::FixLayout) => 5,
            (Self::Stopped, Mode::FixLayout) => 6,
            (Self::Completed, Mode::FixLayout) => 7,
            (Self::Failed, Mode::FixLayout) => 8,
            (Self::InProgress | Self::Paused, _) => 1,
            (Self::Stopped, _) => 2,
            (Self::Completed, _) => 3,
            (Self::Failed, _) => 4,
        }
    }

    /// GlusterFS's words for a job of this mode (`cli_vol_task_status_str`).
    pub const fn gluster_words(self, mode: Mode) -> &'static str {
        match (self, mode) {
            (Self::NotStarted, _) => "not started",
            (Self::InProgress | Self::Paused, Mode::FixLayout) => "fix-layout in progress",
            (Self::Stopped, Mode::FixLayout) => "fix-layout stopped",
            (Self::Completed, Mode::FixLayout) => "fix-layout completed",
            (Self::Failed, Mode::FixLayout) => "fix-layout failed",
            (Self::InProgress | Self::Paused, _) => "in progress",
            (Self::Stopped, _) => "stopped",
            (Self::Completed, _) => "completed",
            (Self::Failed, _) => "failed",
        }
    }
}

/// Why a file that should have moved stays. A later run may move it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SkipReason {
    /// After the move the target would have less free space than the source.
    TargetFuller,
    /// The target has no room for it.
    NoSpace,
    /// It has several names; they move together only when bricks leave.
    HardLinks,
    /// A POSIX lock is held on it and cannot be carried along.
    Locked,
    /// Another client or process is moving or renaming it.
    Busy,
    /// It kept changing while it was copied.
    Changing,
    /// It has writes pending to a brick: heal comes first.
    NeedsHeal,
    /// The subvolume where it is or should go is not up, or lacks a brick.
    SubvolumeDown,
    /// It was removed or renamed meanwhile: nothing left to do.
    Gone,
}

impl SkipReason {
    pub const ALL: [Self; 9] = [
        Self::TargetFuller,
        Self::NoSpace,
        Self::HardLinks,
        Self::Locked,
        Self::Busy,
        Self::Changing,
        Self::NeedsHeal,
        Self::SubvolumeDown,
        Self::Gone,
    ];

    /// For people, as the end of "12 files stay: …".
    pub const fn words(self) -> &'static str {
        match self {
            Self::TargetFuller => "the target would have less free space than the source (start with force moves them)",
            Self::NoSpace => "no room on the target",
            Self::HardLinks => "hard links (they move only when bricks leave)",
            Self::Locked => "an application holds a lock",
            Self::Busy => "being moved or renamed by somebody else",
            Self::Changing => "written to all the time",
            Self::NeedsHeal => "waiting for heal",
            Self::SubvolumeDown => "bricks are down",
            Self::Gone => "removed or renamed meanwhile",
        }
    }
}

/// One node's part of the job, as its process answers `rebalance-status` and as it is kept when the process has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    pub mode: Mode,
    pub state: State,
    /// Nothing is changed; the counters say what would be.
    #[serde(default)]
    pub dry_run: bool,
    /// Files moved.
    pub files: u64,
    /// Bytes of moved files (their sizes).
    pub bytes: u64,
    /// Files and directories looked at ("scanned").
    pub lookups: u64,
    pub failures: u64,
    /// Sum of `skipped_by_reason`.
    pub skipped: u64,
    #[serde(default)]
    pub skipped_by_reason: BTreeMap<SkipReason, u64>,
    /// Directories that are done, and all that are known.
    #[serde(default)]
    pub directories_done: u64,
    #[serde(default)]
    pub directories_known: u64,
    /// Work time of all runs, without pauses.
    pub elapsed_ms: u64,
    /// Seconds until the end at the present rate; `None` while nothing can be said.
    #[serde(default)]
    pub eta_s: Option<u64>,
    /// Over the last seconds.
    #[serde(default)]
    pub files_per_s: f64,
    #[serde(default)]
    pub bytes_per_s: f64,
    /// Files under way at once, as the throttle allows now.
    #[serde(default)]
    pub parallel: u32,
    /// What the throttle goes by: p99 of the bricks' answer to our probes now and when quiet, microseconds.
    #[serde(default)]
    pub probe_p99_us: u64,
    #[serde(default)]
    pub probe_quiet_p99_us: u64,
    /// The path that is being worked on.
    #[serde(default)]
    pub at: String,
    /// Why it failed or what waits, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The latest skipped and failed files with reasons, newest last, at most [`EXAMPLES_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<Example>,
}

/// How many examples [`Progress`] carries.
pub const EXAMPLES_MAX: usize = 20;

impl Progress {
    pub const fn new(mode: Mode) -> Self {
        Self {
            mode,
            state: State::NotStarted,
            dry_run: false,
            files: 0,
            bytes: 0,
            lookups: 0,
            failures: 0,
            skipped: 0,
            skipped_by_reason: BTreeMap::new(),
            directories_done: 0,
            directories_known: 0,
            elapsed_ms: 0,
            eta_s: None,
            files_per_s: 0.0,
            bytes_per_s: 0.0,
            parallel: 0,
            probe_p99_us: 0,
            probe_quiet_p99_us: 0,
            at: String::new(),
            message: None,
            examples: Vec::new(),
        }
    }
}

/// A file that stays, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    pub path: String,
    pub why: String,
}

/// What is asked of a running job, on the process's control socket and of the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Control {
    /// Finish the files under way, then wait.
    Pause,
    Resume,
    /// Finish the files under way, write the checkpoint, end. A later start goes on from it.
    Stop,
}

/// Starts the job on all nodes, or goes on with one that was stopped or has failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    pub volume: String,
    pub mode: Mode,
    /// Only this directory and what is below it; from the volume's root, absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(default)]
    pub dry_run: bool,
}
operation!(Start, "rebalance/start" -> Started);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    pub task: Uuid,
    /// Something the admin should know although it worked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steer {
    pub volume: String,
    pub control: Control,
}
operation!(Steer, "rebalance/control" -> Status);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetStatus {
    pub volume: String,
}
operation!(GetStatus, "rebalance/status" -> Status);

/// The job over all nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub task: Uuid,
    pub mode: Mode,
    pub nodes: Vec<NodeStatus>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// `localhost` or the peer's name.
    pub host: String,
    pub node: Uuid,
    /// The node answered; otherwise `progress` is the last that was known.
    pub connected: bool,
    pub progress: Progress,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_on_the_command_line_are_those_of_json() {
        for mode in Mode::ALL {
            assert_eq!(serde_json::to_value(mode).unwrap(), mode.as_str());
            assert_eq!(mode.as_str().parse(), Ok(mode));
        }
        assert!("start".parse::<Mode>().is_err());
    }

    #[test]
    fn states_have_gluster_numbers_by_mode() {
        assert_eq!(State::Completed.gluster_number(Mode::FixLayout), 7);
        assert_eq!(State::Completed.gluster_number(Mode::Rebalance), 3);
        assert_eq!(State::Paused.gluster_words(Mode::Force), "in progress");
    }

    #[test]
    fn reasons_are_keys_and_unknown_fields_of_later_versions_are_ignored() {
        let mut progress = Progress::new(Mode::Rebalance);
        progress.skipped_by_reason.insert(SkipReason::HardLinks, 3);
        let mut value = serde_json::to_value(&progress).unwrap();
        assert_eq!(value["skipped_by_reason"]["hard-links"], 3);
        value["of_a_later_version"] = 1.into();
        assert_eq!(serde_json::from_value::<Progress>(value).unwrap(), progress);
    }
}
