//! Why a change of bricks or a job is refused.

use serde::{Deserialize, Serialize};

use crate::pool::refusal::Kind;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    #[error("Unable to get volinfo for volume name {0}")]
    NoVolumeToGrow(String),
    #[error("volume: {0} does not exist")]
    NoVolumeToReplaceIn(String),
    #[error("volume: {0} is not started")]
    NotStartedToReplace(String),
    #[error("Incorrect number of bricks supplied {bricks} with count {group}")]
    NotAMultiple { bricks: usize, group: u32 },
    #[error("Incorrect number of bricks ({bricks}) supplied for replica count ({replica}).")]
    CountForReplica { bricks: usize, replica: u32 },
    #[error("Incorrect replica count ({wanted}) supplied. Volume already has ({present})")]
    LowerReplica { wanted: u32, present: u32 },
    #[error("Cannot convert replica 3 volume to arbiter volume.")]
    ReplicaToArbiter,
    #[error(
        "For arbiter configuration, replica count must be 3 and arbiter count must be 1. The 3rd brick of the replica will be the arbiter"
    )]
    ArbiterCount,
    #[error("Volume {0} cannot be converted from dispersed to replicated-dispersed")]
    DisperseToReplicate(String),
    #[error(" Volume must not be in stopped state when replica-count needs to  be increased.")]
    StoppedForReplica,
    #[error("Increasing replica count for arbiter volumes is not supported.")]
    ArbiterGrows,
    #[error("Volume name {0} rebalance is in progress. Please retry after completion")]
    RebalanceInTheWay(String),
    #[error("A remove-brick task on volume {0} is not yet committed. Either commit or stop the remove-brick task.")]
    RemovalNotCommitted(String),
    /// Another change of the volume came between the look and the command.
    #[error("Volume {0} was changed at the same time. Please retry.")]
    ChangedMeanwhile(String),
    #[error("No bricks specified")]
    NoBricks,
    #[error("replica count ({replica}) option given for non replicate volume {volume}")]
    ReplicaOfOther { volume: String, replica: u32 },
    #[error("given replica count ({wanted}) option is more than volume {volume}'s replica count ({present})")]
    HigherReplica { volume: String, wanted: u32, present: u32 },
    #[error("number of bricks provided ({bricks}) is not valid. need at least {group} (or {group}xN)")]
    PartOfSet { bricks: usize, group: u32 },
    #[error("need {needed}(xN) bricks for reducing replica count of the volume from {from} to {to}")]
    CountForReduction { needed: usize, from: u32, to: u32 },
    #[error("Removing bricks from replicate configuration is not allowed without reducing replica count explicitly.")]
    OnlySet,
    #[error("Remove brick incorrect brick count of {bricks} for {kind} {group}")]
    RemovedCount { bricks: usize, kind: String, group: u32 },
    #[error("Incorrect brick {brick} for volume {volume}")]
    NoSuchBrick { brick: String, volume: String },
    #[error("Brick {0} is named twice")]
    NamedTwice(String),
    #[error("Remove exactly {0} brick(s) from each subvolume.")]
    UnevenReduction(u32),
    #[error("Bricks not from same subvol for {0}")]
    AcrossSets(String),
    #[error("Remove arbiter brick(s) only when converting from arbiter to replica 2 subvolume.")]
    ArbiterFirst,
    #[error("Removed bricks must contain arbiter when converting to plain distribute.")]
    ArbiterStays,
    #[error("Deleting all the bricks of the volume is not allowed")]
    AllBricks,
    #[error("Migration of data is not needed when reducing replica count. Use the 'force' option")]
    NothingToMigrate,
    #[error(
        "Volume {0} needs to be started before remove-brick (you can use 'force' or 'commit' to override this behavior)"
    )]
    NotStartedToRemove(String),
    #[error(
        "An earlier remove-brick task exists for volume {0}. Either commit it or stop it before starting a new task."
    )]
    EarlierRemoval(String),
    #[error("Rebalance is in progress. Please retry after completion")]
    RebalanceRuns,
    #[error("Brick {0} is not decommissioned. Use start or force option")]
    NotDecommissioned(String),
    #[error("use 'force' option as migration is in progress")]
    MigrationRuns,
    #[error("use 'force' option as migration has failed")]
    MigrationFailed,
    #[error("use 'force' option as migration of some files might have been skipped or has failed")]
    MigrationSkipped,
    /// The commit must name the bricks that are leaving: a part of them would leave the rest in between.
    #[error("The remove-brick task of volume {0} is for other bricks.")]
    OtherBricks(String),
    #[error("remove-brick not started for volume {0}.")]
    NoRemoval(String),
    #[error("brick: {brick} does not exist in volume: {volume}")]
    NoBrickToReplace { brick: String, volume: String },
    #[error(
        "replace-brick is not permitted on distribute only volumes. Please use add-brick and remove-brick operations \
         instead."
    )]
    ReplaceInDistribute,
    #[error(
        "When destination brick is new, please use gluster volume replace-brick <volname> <src-brick> <dst-brick> commit \
         force"
    )]
    ResetElsewhere,
    #[error("Source brick must be stopped. Please use gluster volume reset-brick <volname> <dst-brick> start.")]
    ResetNotStarted,
    #[error("Volume {0} is not a distribute volume or contains only 1 brick.\nNot performing rebalance")]
    NotDistributed(String),
    #[error("Volume {0} needs to be started to perform rebalance")]
    NotStartedToRebalance(String),
    #[error("Rebalance on {0} is already started")]
    RebalanceStarted(String),
    #[error("Rebalance not started for volume {0}.")]
    NoRebalance(String),
    #[error("rebalance session is in progress for the volume '{0}'")]
    RebalanceSession(String),
    #[error("path {0} is not absolute or contains . or ..")]
    BadPath(String),
}

impl Refusal {
    pub const fn kind(&self) -> Kind {
        match self {
            Self::NoVolumeToGrow(_) | Self::NoVolumeToReplaceIn(_) => Kind::NotFound,
            Self::NoSuchBrick { .. } | Self::NoBrickToReplace { .. } => Kind::NotFound,
            Self::NotStartedToReplace(_)
            | Self::StoppedForReplica
            | Self::RebalanceInTheWay(_)
            | Self::RemovalNotCommitted(_)
            | Self::ChangedMeanwhile(_)
            | Self::NotStartedToRemove(_)
            | Self::EarlierRemoval(_)
            | Self::RebalanceRuns
            | Self::NotDecommissioned(_)
            | Self::MigrationRuns
            | Self::MigrationFailed
            | Self::MigrationSkipped
            | Self::OtherBricks(_)
            | Self::NoRemoval(_)
            | Self::ResetNotStarted
            | Self::NotStartedToRebalance(_)
            | Self::RebalanceStarted(_)
            | Self::NoRebalance(_)
            | Self::RebalanceSession(_) => Kind::Conflict,
            _ => Kind::Invalid,
        }
    }
}
