//! Client quorum (`afr/afr-common.c` afr_has_quorum): which sets of children may serve.

use mortar_types::{Errno, SubvolId};

use super::{Set, SetExt};

/// `cluster.quorum-type` and `cluster.quorum-count`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quorum {
    /// Any one child will do. The default of two replicas.
    None,
    /// More than half, or exactly half with child 0 among them. The default from three replicas on.
    Auto,
    /// So many.
    Fixed(usize),
}

impl Quorum {
    /// The failure that a caller sees when quorum is lost (`afr_quorum_errno`).
    pub const ERRNO: Errno = Errno::ENOTCONN;

    /// What an unset option means for so many children (`afr/afr.c` set in init, not in the volfile).
    pub const fn default_for(children: usize) -> Self {
        if children >= 3 { Self::Auto } else { Self::None }
    }

    /// Whether `members` may serve. Without quorum at least one child is still needed.
    pub fn is_met(self, members: &Set) -> bool {
        let count = members.count();
        match self {
            Self::None => count > 0,
            Self::Auto => {
                let doubled = count * 2;
                doubled > members.len() || (doubled == members.len() && count > 0 && members[SubvolId(0)])
            }
            // A count above the number of children would make the volume unusable for ever; AFR caps it too.
            Self::Fixed(needed) => count > 0 && count >= needed.min(members.len()),
        }
    }

    pub const fn is_configured(self) -> bool {
        !matches!(self, Self::None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(members: &[u8]) -> Set {
        members.iter().map(|member| *member == 1).collect::<Vec<_>>().into()
    }

    #[test]
    fn auto_needs_more_than_half_or_half_with_child_zero() {
        let check = |members: &[u8]| Quorum::Auto.is_met(&set(members));
        assert!(check(&[1, 0]) && !check(&[0, 1]));
        assert!(check(&[1, 1, 0]) && check(&[0, 1, 1]) && !check(&[1, 0, 0]));
        assert!(check(&[1, 0, 0, 1]) && !check(&[0, 1, 1, 0]));
        assert!(check(&[1]) && !check(&[0]));
    }

    #[test]
    fn none_needs_one_and_fixed_needs_its_count() {
        assert!(Quorum::None.is_met(&set(&[0, 1])) && !Quorum::None.is_met(&set(&[0, 0])));
        assert!(!Quorum::Fixed(2).is_met(&set(&[1, 0])) && Quorum::Fixed(2).is_met(&set(&[1, 1])));
        assert!(Quorum::Fixed(9).is_met(&set(&[1, 1])) && !Quorum::Fixed(0).is_met(&set(&[0, 0])));
    }

    #[test]
    fn defaults_follow_the_replica_count() {
        assert_eq!([1, 2, 3, 4].map(Quorum::default_for), [Quorum::None, Quorum::None, Quorum::Auto, Quorum::Auto]);
    }

    proptest! {
        /// Two disjoint sets can never both have quorum: that is what quorum is for.
        #[test]
        fn auto_never_serves_two_disjoint_sets(owners in proptest::collection::vec(0u8..3, 1..8)) {
            let side = |which: u8| -> Set { owners.iter().map(|o| *o == which).collect::<Vec<_>>().into() };
            prop_assert!(!(Quorum::Auto.is_met(&side(0)) && Quorum::Auto.is_met(&side(1))));
        }
    }
}
