//! Why an inode is not healed (yet).

use bytes::Bytes;
use mortar_logic::heal::Children;
use mortar_logic::heal::name::Conflict;
use mortar_types::{Errno, FopKind, SubvolId};

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    #[error("a brick of the replica set is down; heal needs all of them")]
    NotAllUp,
    #[error("{} on brick {}: {errno}", fop.label(), child.0)]
    Fop { child: SubvolId, fop: FopKind, errno: Errno },
    /// Another healer (or a client that does not let go) holds the lock: the inode is in good hands.
    #[error("another healer is at work on it")]
    Busy,
    /// The inode does not exist there: the directory that names it must be healed first.
    #[error("it does not exist on bricks {0:?} yet; its directory is healed first")]
    MissingOn(Children),
    #[error("{0}")]
    SplitBrain(SplitBrain),
    #[error("only the arbiter has seen every write, and it holds no content; the heal waits for a good copy")]
    OnlyArbiterIsGood,
    /// A client's operation failed on the source while we copied from it: what was copied may lack it.
    #[error("the source missed an operation while it was being copied; the heal starts over")]
    SourceChanged,
    /// A moved directory must first leave its old place on the stale brick.
    #[error("the directory is still at its old place on brick {}", .0.0)]
    WaitsForMove(SubvolId),
    /// Some names of the directory were not brought over; the first reason.
    #[error("{count} names of the directory are not healed, the first because: {first}")]
    Names { count: usize, first: Box<Self> },
}

impl Error {
    pub const fn fop(child: SubvolId, fop: FopKind, errno: Errno) -> Self {
        Self::Fop { child, fop, errno }
    }

    /// Whether trying again soon can help without anybody doing anything.
    pub const fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Busy | Self::MissingOn(_) | Self::SourceChanged | Self::WaitsForMove(_) | Self::Names { .. }
        )
    }
}

/// Copies that each miss something that another one has: no rule can tell which is right.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SplitBrain {
    #[error("every copy of the content misses a write that another copy has")]
    Data,
    #[error("every copy of owner, mode or xattrs misses a change that another copy has")]
    Metadata,
    #[error("its type differs between bricks")]
    Type,
    #[error("{}", describe(.0))]
    Names(Vec<(Bytes, Conflict)>),
}

fn describe(names: &[(Bytes, Conflict)]) -> String {
    let describe = |(name, conflict): &(Bytes, Conflict)| {
        let name = String::from_utf8_lossy(name).into_owned();
        match conflict {
            Conflict::Gfid { one, other } => {
                format!("\"{name}\" is one file on brick {} and another on brick {}", one.0, other.0)
            }
            Conflict::Type { one, other } => {
                format!("\"{name}\" has one type on brick {} and another on brick {}", one.0, other.0)
            }
            Conflict::NoGfid => format!("\"{name}\" has no gfid on any brick"),
            Conflict::NoAnswer { child, errno } => {
                format!("brick {} does not say what \"{name}\" is: {errno}", child.0)
            }
        }
    };
    names.iter().take(3).map(describe).collect::<Vec<_>>().join("; ")
}
