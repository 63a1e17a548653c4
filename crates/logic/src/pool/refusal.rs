//! Why the configuration refuses a command, in GlusterFS's words.
//!
//! The texts are what GlusterFS 10.3 prints behind `volume create: V: failed: ` and the like (its own command line, its
//! `glusterd-*.c`), because scripts compare them. A trailing space in a text is theirs.

use serde::{Deserialize, Serialize};

/// A refused command. The variants carry what a caller may want to know; the `Display` is what a person reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    #[error("Volume {0} already exists")]
    VolumeExists(String),
    #[error("Volume {0} does not exist")]
    NoSuchVolume(String),
    #[error("{0:?} cannot be the name of a volume.")]
    ReservedName(String),
    #[error("Volume name {0} contains a character that is not a letter, a digit, '-', '_' or '.'")]
    BadVolumeName(String),
    #[error("Volume name {0} is too long")]
    LongVolumeName(String),
    /// The brick count is no multiple of a group, or a group is impossible.
    #[error("Failed to create volume files")]
    BrickCount,
    #[error("Brick: {host}:{path} not available. Brick may be containing or be contained by an existing brick.")]
    BrickOverlaps { host: String, path: String },
    #[error("Host {0} is not in 'Peer in Cluster' state")]
    HostNotInCluster(String),
    #[error(
        "Multiple bricks of a {kind} volume are present on the same server. This setup is not optimal. Bricks should be on \
         different nodes to have best fault tolerant configuration. Use 'force' at the end of the command if you want to \
         override this behavior. "
    )]
    BricksOfGroupOnOneHost { kind: String },
    #[error("Volume {0} already started")]
    AlreadyStarted(String),
    #[error("Volume {0} is not in the started state")]
    NotStarted(String),
    #[error("Volume {0} has been started.Volume needs to be stopped before deletion.")]
    DeleteStarted(String),
    #[error(
        "Peer {0} hosts one or more bricks. If the peer is in not recoverable state then use either replace-brick or \
         remove-brick command with force to remove all bricks from the peer and attempt the peer detach again."
    )]
    PeerHasBricks(String),
    #[error("{0} is not part of cluster")]
    NotAMember(String),
    #[error("{0} is the only member of its pool")]
    LastMember(String),
    #[error("option : {key} does not exist{}", did_you_mean(.hint.as_deref()))]
    NoSuchOption { key: String, hint: Option<String> },
    #[error("Option {key} does not exist{}", did_you_mean(.hint.as_deref()))]
    NoSuchOptionToReset { key: String, hint: Option<String> },
    #[error("Options not specified")]
    NoOptions,
    /// A value that the option does not take; the text says why.
    #[error("{0}")]
    BadValue(String),
    #[error("Not a valid option for all volumes")]
    NotGlobalOption,
    #[error("Not a valid option for single volume")]
    OnlyGlobalOption,
    #[error("Not a valid option to set")]
    NotSettable,
    #[error("Cannot set {key} for a non-{kind} volume.")]
    WrongVolumeKind { key: String, kind: String },
    /// Another command is the right way; the text names it.
    #[error("{0}")]
    OtherCommand(String),
    #[error("Changing '{0}' is not supported when the volume is in started state. Please stop the volume first.")]
    StopFirst(String),
    #[error("'{0}' is protected. To reset use 'force'.")]
    Protected(String),
    #[error("Brick {host}:{path} is not part of volume {volume}")]
    NoSuchBrick { volume: String, host: String, path: String },
    #[error(transparent)]
    Change(#[from] super::change::Refusal),
    /// The log's first entry came twice.
    #[error("The pool is formed already")]
    AlreadyFormed,
}

/// What kind of refusal, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Invalid,
    NotFound,
    Conflict,
}

impl Refusal {
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Change(refusal) => refusal.kind(),
            Self::NoSuchVolume(_) | Self::NotAMember(_) | Self::NoSuchBrick { .. } => Kind::NotFound,
            Self::NoSuchOption { .. } | Self::NoSuchOptionToReset { .. } => Kind::NotFound,
            Self::VolumeExists(_)
            | Self::BrickOverlaps { .. }
            | Self::AlreadyStarted(_)
            | Self::NotStarted(_)
            | Self::DeleteStarted(_)
            | Self::PeerHasBricks(_)
            | Self::LastMember(_)
            | Self::StopFirst(_)
            | Self::Protected(_)
            | Self::AlreadyFormed => Kind::Conflict,
            Self::ReservedName(_)
            | Self::BadVolumeName(_)
            | Self::LongVolumeName(_)
            | Self::BrickCount
            | Self::HostNotInCluster(_)
            | Self::BricksOfGroupOnOneHost { .. }
            | Self::NoOptions
            | Self::BadValue(_)
            | Self::NotGlobalOption
            | Self::OnlyGlobalOption
            | Self::NotSettable
            | Self::WrongVolumeKind { .. }
            | Self::OtherCommand(_) => Kind::Invalid,
        }
    }
}

fn did_you_mean(hint: Option<&str>) -> String {
    hint.map_or_else(String::new, |hint| format!("\nDid you mean {hint}?"))
}
