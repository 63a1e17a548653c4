//! Heal: making the copies of a replica set equal again, by what the bricks' changelogs and indexes say.
//!
//! * [`set`]: the replica set and one heal's session on it; [`lock`], [`look`]: what every heal does first;
//! * [`data`], [`metadata`], [`entry`]: one kind of heal each, of one inode; [`inode`]: all three;
//! * [`index`], [`sweep`]: what is pending, and healing all of it; [`info`]: only telling;
//! * [`resolve`]: settling split-brain as a person says;
//! * [`daemon`]: the process `mortar heald`; [`hook`]: heal on access, in a client.
//!
//! What is right and what is stale is decided in `mortar_logic::heal`. As in GlusterFS an inode heals only when **all**
//! bricks of its replica set are up: with one away, nobody can tell whether it holds the only good copy.
//!
//! **Invariants**: nothing is changed without the lock that clients take for the same change; marks are taken back only
//! after what they stand for was done (and, for content, is on disk), and only as far as they were read; every step can be
//! repeated, so a heal that was interrupted anywhere is finished by the next one.

pub mod daemon;
pub mod data;
pub mod entry;
pub mod error;
pub mod hook;
pub mod index;
pub mod info;
pub mod inode;
mod listing;
pub mod lock;
pub mod look;
pub mod metadata;
pub mod path;
pub mod resolve;
pub mod set;
pub mod sweep;
pub mod verify;
pub mod volfile;

pub use error::{Error, SplitBrain};
pub use set::{ReplicaSet, Session};

use mortar_types::Gfid;

/// What a heal did.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Healed {
    /// Something on some brick was changed, be it only marks.
    pub changed: bool,
    /// Content bytes written, over all sinks.
    pub bytes: u64,
    /// Inodes that were made on a sink: empty there, to be healed next.
    pub follow: Vec<Gfid>,
    /// What could not be done beside it, the first reason.
    pub left: Option<Error>,
}

impl Healed {
    pub(crate) fn add(&mut self, other: Self) {
        self.changed |= other.changed;
        self.bytes += other.bytes;
        self.follow.extend(other.follow);
        if self.left.is_none() {
            self.left = other.left;
        }
    }
}
