//! What a heal decides, without doing it: which copies are right, which are stale, what to change and which pending
//! marks to take back. The shell in `mortar-volume` reads the bricks, asks here and carries out the answer under locks.
//!
//! Rules: `docs/compat.md` on AFR's self-heal; their origin is `xlators/cluster/afr/src/afr-self-heal-common.c`
//! (`afr_selfheal_find_direction`) and the `*_finalize_source` functions beside it.
//!
//! **Invariant**: a copy that nobody accuses is never overwritten from one that somebody accuses, and where every copy is
//! accused the answer is "split-brain", not a guess.

pub mod blocks;
pub mod children;
pub mod data;
pub mod direction;
pub mod entry;
pub mod matrix;
pub mod metadata;
pub mod name;
pub mod undo;
pub mod verdict;

pub use children::Children;
pub use direction::{Direction, find_direction};
pub use matrix::{Matrix, SLOTS};
pub use undo::{Correction, undo};
pub use verdict::{Inspection, Locks, Verdict, verdict};

/// How a split-brain may be settled: by nothing (the default), by the volume's standing policy
/// (`cluster.favorite-child-policy`) or by a person's command.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Resolve {
    /// Leave it alone and say so.
    #[default]
    Leave,
    /// The largest file wins (`bigger-file`, policy `size`); a tie settles nothing.
    Size,
    /// The newest change time wins (policy `ctime`).
    Ctime,
    /// The newest modification time wins (`latest-mtime`, policy `mtime`).
    Mtime,
    /// Size and modification time shared by more than half of the copies win (policy `majority`).
    Majority,
    /// This copy wins (`source-brick`).
    Child(mortar_types::SubvolId),
}
