//! What `heal info` says about an inode, decided without taking a lock (`afr_get_heal_info`).

use crate::heal::Matrix;

/// The answer, in GlusterFS's words (`glusterfs.heal-info`). "…Pending": some brick accuses another; otherwise only dirty
/// marks or differing attributes stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    NoHeal,
    Heal,
    HealPending,
    SplitBrain,
    SplitBrainPending,
    PossiblyHealing,
    PossiblyHealingPending,
}

impl Verdict {
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoHeal => "no-heal",
            Self::Heal => "heal",
            Self::HealPending => "heal-pending",
            Self::SplitBrain => "split-brain",
            Self::SplitBrainPending => "split-brain-pending",
            Self::PossiblyHealing => "possibly-healing",
            Self::PossiblyHealingPending => "possibly-healing-pending",
        }
    }

    pub const fn is_split_brain(self) -> bool {
        matches!(self, Self::SplitBrain | Self::SplitBrainPending)
    }
}

/// One kind's result of a look without locks.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Inspection {
    pub needs_heal: bool,
    pub split_brain: bool,
    pub pending: bool,
    pub dirty_max: u32,
}

impl Inspection {
    pub fn new(matrix: &Matrix, needs_heal: bool, split_brain: bool) -> Self {
        Self { needs_heal, split_brain, pending: matrix.is_pending(), dirty_max: matrix.dirty_max() }
    }
}

/// Which locks somebody holds on the inode.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Locks {
    /// In the replica set's own domain: a client is in the middle of an operation.
    pub operation: bool,
    /// In its `:self-heal` domain: a healer is at work.
    pub heal: bool,
}

/// Sums up the three kinds.
pub fn verdict(kinds: &[Inspection], locks: Locks) -> Verdict {
    let any = |test: fn(&Inspection) -> bool| kinds.iter().any(test);
    let pending = any(|kind| kind.pending);
    if any(|kind| kind.split_brain) {
        return if pending { Verdict::SplitBrainPending } else { Verdict::SplitBrain };
    }
    if !any(|kind| kind.needs_heal) {
        return Verdict::NoHeal;
    }
    if pending {
        return if locks.heal { Verdict::PossiblyHealingPending } else { Verdict::HealPending };
    }
    // A dirty mark under a held lock is an operation under way, not one that was lost.
    let dirty_max = kinds.iter().map(|kind| kind.dirty_max).max().unwrap_or(0);
    match (dirty_max > 1 || !locks.operation, locks.heal) {
        (_, true) => Verdict::PossiblyHealing,
        (true, false) => Verdict::Heal,
        (false, false) => Verdict::NoHeal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRTY: Inspection = Inspection { needs_heal: true, split_brain: false, pending: false, dirty_max: 1 };
    const PENDING: Inspection = Inspection { needs_heal: true, split_brain: false, pending: true, dirty_max: 0 };
    const NOTHING: Inspection = Inspection { needs_heal: false, split_brain: false, pending: false, dirty_max: 0 };
    const FREE: Locks = Locks { operation: false, heal: false };
    const BUSY: Locks = Locks { operation: true, heal: false };

    #[test]
    fn a_dirty_mark_in_use_is_no_work() {
        assert_eq!(verdict(&[DIRTY, NOTHING], BUSY), Verdict::NoHeal);
        assert_eq!(verdict(&[DIRTY, NOTHING], FREE), Verdict::Heal);
        assert_eq!(verdict(&[Inspection { dirty_max: 2, ..DIRTY }], BUSY), Verdict::Heal);
    }

    #[test]
    fn pending_work_shows_whatever_clients_do() {
        assert_eq!(verdict(&[PENDING], BUSY), Verdict::HealPending);
        assert_eq!(verdict(&[PENDING], Locks { heal: true, ..FREE }), Verdict::PossiblyHealingPending);
    }

    #[test]
    fn split_brain_outranks_everything() {
        let split = Inspection { split_brain: true, ..PENDING };
        assert_eq!(verdict(&[DIRTY, split], Locks { operation: true, heal: true }), Verdict::SplitBrainPending);
        assert_eq!(verdict(&[NOTHING], FREE), Verdict::NoHeal);
    }
}
