//! Beginning a change again when children were lost between its lock and its sending.
//!
//! A lock is taken on the children that are up. One that dies, or dies and comes back, in that moment leaves less than a
//! quorum locked, although a quorum is up and the change could be made there. Nothing has been sent yet, so to lock again
//! cannot do anything twice.

use mortar_types::{Errno, Failure, Outcome};

use super::Core;

/// How often a change begins again. Each time costs a round trip and needs another loss of a connection in that time; a
/// child that is dead but not yet known to be must not keep a change going round for ever.
const TRIES_MAX: u32 = 8;

/// How often a change has begun.
#[derive(Default)]
pub(super) struct Tries(u32);

impl Core {
    /// Whether a change that could not begin, for `failure`, shall try again: only when nobody said no, and those who are
    /// up would be enough.
    pub(super) fn may_begin_again(&self, tries: &mut Tries, failure: Failure) -> Outcome<()> {
        tries.0 += 1;
        let again =
            failure.errno == Errno::ENOTCONN && tries.0 < TRIES_MAX && self.options.quorum.is_met(&self.children.up());
        if again { Ok(()) } else { Err(failure) }
    }
}
