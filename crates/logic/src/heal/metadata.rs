//! Metadata heal: from which copy to which (`__afr_selfheal_metadata_finalize_source`), and which xattrs take part.

use bytes::Bytes;
use mortar_types::{Iatt, SubvolId, SubvolMap, Timespec};

use crate::heal::data::Copy;
use crate::heal::{Children, Direction, Resolve};

/// The attributes that replicas must share.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Attributes {
    pub uid: u32,
    pub gid: u32,
    /// Type and permission bits.
    pub mode: u32,
    pub size: u64,
    pub mtime: Timespec,
    pub ctime: Timespec,
    /// Those for which [`is_healed_xattr`] holds, sorted by name.
    pub xattrs: Vec<(String, Bytes)>,
}

impl Attributes {
    pub fn new<'a>(stat: &Iatt, xattrs: impl Iterator<Item = (&'a str, &'a Bytes)>) -> Self {
        let mut xattrs: Vec<_> = xattrs
            .filter(|(name, _)| is_healed_xattr(name))
            .map(|(name, value)| (name.to_owned(), value.clone()))
            .collect();
        xattrs.sort();
        Self {
            uid: stat.uid,
            gid: stat.gid,
            mode: stat.mode,
            size: stat.size,
            mtime: stat.mtime,
            ctime: stat.ctime,
            xattrs,
        }
    }

    /// Whether owner, mode and xattrs are the same; times are not compared.
    pub fn is_like(&self, other: &Self) -> bool {
        (self.uid, self.gid, self.mode) == (other.uid, other.gid, other.mode) && self.xattrs == other.xattrs
    }
}

/// Whether an xattr is user-visible state that all replicas must share (`afr_is_xattr_ignorable`). What a brick keeps for
/// itself (changelogs, identity, times, quota's sums) never is; keys without a namespace of Linux are answers of
/// the brick, not xattrs.
pub fn is_healed_xattr(name: &str) -> bool {
    const NAMESPACES: [&str; 4] = ["user.", "trusted.", "security.", "system.posix_acl_"];
    const OWN: [&str; 10] = [
        "trusted.afr.",
        "trusted.gfid",
        "trusted.pgfid.",
        "trusted.ec.",
        "trusted.mortar.",
        "trusted.glusterfs.volume-id",
        "trusted.glusterfs.mdata",
        "trusted.glusterfs.selinux",
        "trusted.glusterfs.quota.size",
        "security.selinux",
    ];
    NAMESPACES.iter().any(|prefix| name.starts_with(prefix)) && !OWN.iter().any(|prefix| name.starts_with(prefix))
}

/// What to do about an inode's attributes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    Clean,
    Heal(Plan),
    SplitBrain,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    pub source: SubvolId,
    pub sources: Children,
    pub sinks: Children,
    /// Sinks that no changelog accuses: they only look different. They get a pending mark before they are touched, so that
    /// an interrupted heal is found again.
    pub unmarked_sinks: Children,
    pub resolved_split_brain: bool,
}

/// Decides. `copies` holds what each locked child answered; a child without an answer takes no part.
pub fn decide(
    direction: &Direction,
    locked: Children,
    copies: &SubvolMap<Option<Attributes>>,
    resolve: Resolve,
) -> Decision {
    let locked = locked.filter(|child| copies[child].is_some());
    let accused = direction.sinks.and(locked);
    let sources = direction.sources.and(locked);
    if sources.is_empty() || accused == locked {
        return settle(locked, copies, resolve);
    }
    let witnesses = sources.filter(|child| direction.witness[child] != 0);
    let Some(source) = witnesses.first().or_else(|| sources.first()) else { return Decision::SplitBrain };
    let is_like_source = |child: SubvolId| match (&copies[child], &copies[source]) {
        (Some(copy), Some(model)) => copy.is_like(model),
        _ => false,
    };
    // A standing dirty mark: an operation's outcome is unknown, so only one copy can be the model, times included.
    let has_times_of_source = |child: SubvolId| match (&copies[child], &copies[source]) {
        (Some(copy), Some(model)) => (copy.mtime, copy.ctime) == (model.mtime, model.ctime),
        _ => false,
    };
    let good = sources.filter(|child| is_like_source(child) && (witnesses.is_empty() || has_times_of_source(child)));
    let sinks = locked.minus(good);
    if sinks.is_empty() {
        return Decision::Clean;
    }
    Decision::Heal(Plan {
        source,
        sources: good,
        sinks,
        unmarked_sinks: sinks.minus(accused),
        resolved_split_brain: false,
    })
}

fn settle(locked: Children, copies: &SubvolMap<Option<Attributes>>, resolve: Resolve) -> Decision {
    let attributes: Vec<_> = locked.iter().filter_map(|child| copies[child].as_ref()).collect();
    let equal = attributes.windows(2).all(|pair| pair[0].is_like(pair[1]));
    let is_dir = attributes.first().is_some_and(|copy| copy.mode & 0o170_000 == 0o040_000);
    let as_copy = |child: SubvolId| {
        copies[child].as_ref().map_or_else(Copy::default, |copy| Copy {
            size: copy.size,
            mtime: copy.mtime,
            ctime: copy.ctime,
            is_arbiter: false,
        })
    };
    let winner = match (equal, is_dir) {
        // Nothing but times can differ: the newest are right for a directory, and for a file any will do.
        (true, true) => locked.with_max(|child| as_copy(child).mtime).first(),
        (true, false) => locked.first(),
        (false, _) => match resolve {
            // The size says nothing about owner and mode.
            Resolve::Size | Resolve::Majority => None,
            other => other.winner(locked, &as_copy),
        },
    };
    let Some(source) = winner else { return Decision::SplitBrain };
    let sources = Children::only(source);
    let sinks = locked.minus(sources);
    Decision::Heal(Plan { source, sources, sinks, unmarked_sinks: Children::NONE, resolved_split_brain: true })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heal::{Matrix, find_direction};
    use crate::replicate::changelog::Slot;

    fn owned_by(uid: u32) -> Option<Attributes> {
        Some(Attributes { uid, mode: 0o100_644, ..Attributes::default() })
    }

    fn check(matrix: &Matrix, copies: &[Option<Attributes>]) -> Decision {
        let direction = find_direction(Slot::Metadata, matrix, matrix.children(), None);
        decide(&direction, matrix.children(), &copies.to_vec().into(), Resolve::Leave)
    }

    fn only(child: usize) -> Children {
        Children::only(SubvolId(child))
    }

    #[test]
    fn clean_and_equal_heals_nothing() {
        let matrix = Matrix::from_rows(&[&[0, 0], &[0, 0]], &[0, 0]);
        assert_eq!(check(&matrix, &[owned_by(1), owned_by(1)]), Decision::Clean);
    }

    #[test]
    fn copies_that_differ_unaccused_follow_the_first_and_are_marked() {
        let matrix = Matrix::from_rows(&[&[0, 0], &[0, 0]], &[0, 0]);
        let Decision::Heal(plan) = check(&matrix, &[owned_by(1), owned_by(2)]) else { panic!("must heal") };
        assert_eq!((plan.source, plan.sinks, plan.unmarked_sinks), (SubvolId(0), only(1), only(1)));
    }

    #[test]
    fn the_accused_follows_its_accuser() {
        let matrix = Matrix::from_rows(&[&[0, 0], &[2, 0]], &[0, 0]);
        let Decision::Heal(plan) = check(&matrix, &[owned_by(1), owned_by(2)]) else { panic!("must heal") };
        assert_eq!((plan.source, plan.sinks, plan.unmarked_sinks), (SubvolId(1), only(0), Children::NONE));
    }

    #[test]
    fn a_witness_is_the_only_model() {
        let matrix = Matrix::from_rows(&[&[0, 0], &[0, 0]], &[0, 1]);
        assert_eq!(check(&matrix, &[owned_by(1), owned_by(1)]), Decision::Clean);
        let Decision::Heal(plan) = check(&matrix, &[owned_by(1), owned_by(2)]) else { panic!("must heal") };
        assert_eq!((plan.source, plan.sinks), (SubvolId(1), only(0)));
    }

    #[test]
    fn split_brain_is_left_alone_unless_the_copies_agree() {
        let matrix = Matrix::from_rows(&[&[0, 1], &[1, 0]], &[0, 0]);
        assert_eq!(check(&matrix, &[owned_by(1), owned_by(2)]), Decision::SplitBrain);
        assert!(matches!(
            check(&matrix, &[owned_by(1), owned_by(1)]),
            Decision::Heal(Plan { source: SubvolId(0), resolved_split_brain: true, .. })
        ));
    }

    #[test]
    fn directories_that_differ_only_in_times_follow_the_newest() {
        let matrix = Matrix::from_rows(&[&[0, 1], &[1, 0]], &[0, 0]);
        let dir = |sec| Some(Attributes { mode: 0o040_755, mtime: Timespec::new(sec, 0), ..Attributes::default() });
        assert!(matches!(
            check(&matrix, &[dir(1), dir(2)]),
            Decision::Heal(Plan { source: SubvolId(1), resolved_split_brain: true, .. })
        ));
    }

    #[test]
    fn xattrs_that_a_brick_keeps_for_itself_do_not_take_part() {
        for name in
            ["trusted.afr.v-client-0", "trusted.gfid", "trusted.gfid2path.00", "trusted.glusterfs.mdata", "link-count"]
        {
            assert!(!is_healed_xattr(name), "{name}");
        }
        for name in
            ["user.a", "trusted.mine", "security.capability", "system.posix_acl_access", "trusted.glusterfs.dht"]
        {
            assert!(is_healed_xattr(name), "{name}");
        }
    }
}
