//! What a volume of given bricks would hold, and what may fail: the HOWTO's last question, before any disk is bought.
//!
//! A replica set holds what its smallest data brick holds; distribute adds the sets up and fills each in proportion to its
//! size. Whether a set serves when nodes are down is asked of the same [`Quorum`] that decides in the client.

use std::collections::BTreeSet;

use crate::replicate::quorum::Quorum;

/// Up to how many nodes that share sets all combinations of failures are tried: 2^16 of them take some milliseconds.
pub const NODES_TRIED_MAX: usize = 16;

/// The largest replica count that is planned; combinations within a set are tried as well.
pub const REPLICA_MAX: usize = 16;

/// A brick to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brick {
    /// The host that holds it.
    pub node: String,
    pub size_bytes: u64,
}

/// How files are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copies {
    /// Bricks in a set, the arbiter among them. 1: files are only distributed.
    pub replica: usize,
    /// The last brick of each set holds names and no data (GlusterFS: of three).
    pub arbiter: bool,
}

/// Why bricks make no volume.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("no bricks are given")]
    NoBricks,
    #[error("replica {0} is not planned: give 1 to {REPLICA_MAX}")]
    Replica(usize),
    #[error("an arbiter is the third brick of replica 3 (also written replica 2 arbiter 1)")]
    Arbiter,
    #[error("{bricks} bricks cannot be parted into sets of {replica}: add {missing} or leave {surplus} away")]
    Count { bricks: usize, replica: usize, missing: usize, surplus: usize },
    #[error("the sizes together exceed what a number can hold")]
    TooLarge,
}

/// A replica set: bricks one after the other, as `volume create` groups them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    pub bricks: Vec<Brick>,
    /// What its smallest data brick holds.
    pub usable_bytes: u64,
    /// What larger data bricks have in vain.
    pub unused_bytes: u64,
    /// How many of its nodes may be down, whichever they are, while it reads and writes.
    pub may_fail: usize,
    /// Two of its bricks are on one node, which takes both along.
    pub shares_node: bool,
}

/// How many nodes may fail at once, out of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failures {
    /// Whichever they are.
    pub any: usize,
    /// If they are the right ones. `None`: more nodes share sets than combinations are tried.
    pub best: Option<usize>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub sets: Vec<Set>,
    /// What `df` on the volume shows as its size, but for what the file systems keep for themselves.
    pub usable_bytes: u64,
    /// All data bricks together.
    pub raw_bytes: u64,
    pub nodes: usize,
    /// While all files are read and written.
    pub serving: Failures,
    /// For good, without a file being lost.
    pub keeping: Failures,
}

/// Plans a volume of these bricks, in this order.
pub fn plan(copies: Copies, bricks: &[Brick]) -> Result<Capacity, Unfit> {
    check(copies, bricks.len())?;
    let raw = bricks.chunks(copies.replica).flat_map(|set| data_bricks(copies, set)).map(|brick| brick.size_bytes);
    let raw_bytes = total(raw)?;
    let sets: Vec<Set> = bricks.chunks(copies.replica).map(|set| set_of(copies, set)).collect();
    let usable_bytes = total(sets.iter().map(|set| set.usable_bytes))?;
    let keeps = |set: &[Brick], down: &BTreeSet<&str>| {
        data_bricks(copies, set).iter().any(|brick| !down.contains(brick.node.as_str()))
    };
    Ok(Capacity {
        usable_bytes,
        raw_bytes,
        nodes: nodes_of(bricks).len(),
        serving: failures(&sets, &serves),
        keeping: failures(&sets, &keeps),
        sets,
    })
}

fn check(copies: Copies, bricks: usize) -> Result<(), Unfit> {
    let replica = copies.replica;
    if bricks == 0 {
        return Err(Unfit::NoBricks);
    }
    if !(1..=REPLICA_MAX).contains(&replica) {
        return Err(Unfit::Replica(replica));
    }
    if copies.arbiter && replica != 3 {
        return Err(Unfit::Arbiter);
    }
    match bricks % replica {
        0 => Ok(()),
        surplus => Err(Unfit::Count { bricks, replica, missing: replica - surplus, surplus }),
    }
}

fn total(mut sizes: impl Iterator<Item = u64>) -> Result<u64, Unfit> {
    sizes.try_fold(0_u64, u64::checked_add).ok_or(Unfit::TooLarge)
}

fn data_bricks(copies: Copies, set: &[Brick]) -> &[Brick] {
    &set[..set.len() - usize::from(copies.arbiter)]
}

fn set_of(copies: Copies, bricks: &[Brick]) -> Set {
    let data = data_bricks(copies, bricks);
    let usable_bytes = data.iter().map(|brick| brick.size_bytes).min().unwrap_or(0);
    Set {
        bricks: bricks.to_vec(),
        usable_bytes,
        unused_bytes: data.iter().map(|brick| brick.size_bytes - usable_bytes).sum(),
        may_fail: any_of(bricks, &serves),
        shares_node: nodes_of(bricks).len() < bricks.len(),
    }
}

/// Whether a set reads and writes with these nodes down, its bricks in sync before.
fn serves(set: &[Brick], down: &BTreeSet<&str>) -> bool {
    let up: Vec<bool> = set.iter().map(|brick| !down.contains(brick.node.as_str())).collect();
    if up.len() == 1 {
        return up[0];
    }
    Quorum::default_for(up.len()).is_met(&up.into())
}

type Holds<'a> = &'a dyn Fn(&[Brick], &BTreeSet<&str>) -> bool;

fn failures(sets: &[Set], holds: Holds<'_>) -> Failures {
    let any = sets.iter().map(|set| any_of(&set.bricks, holds)).min().unwrap_or(0);
    let best = groups(sets).iter().map(|group| best_of(group, holds)).sum();
    Failures { any, best }
}

/// How many nodes of one set may be down whichever they are.
fn any_of(set: &[Brick], holds: Holds<'_>) -> usize {
    let nodes: Vec<&str> = nodes_of(set).into_iter().collect();
    let breaking = combinations(&nodes).filter(|down| !holds(set, down)).map(|down| down.len()).min();
    breaking.map_or(nodes.len(), |least| least.saturating_sub(1))
}

/// How many nodes of sets that share nodes may be down at best.
fn best_of(sets: &[&Set], holds: Holds<'_>) -> Option<usize> {
    let nodes: BTreeSet<&str> = sets.iter().flat_map(|set| nodes_of(&set.bricks)).collect();
    if nodes.len() > NODES_TRIED_MAX {
        return None;
    }
    let nodes: Vec<&str> = nodes.into_iter().collect();
    let held = |down: &BTreeSet<&str>| sets.iter().all(|set| holds(&set.bricks, down));
    combinations(&nodes).filter(held).map(|down| down.len()).max()
}

/// Every set of nodes; callers bound their number.
fn combinations<'a>(nodes: &'a [&'a str]) -> impl Iterator<Item = BTreeSet<&'a str>> {
    (0_u32..1 << nodes.len())
        .map(|mask| nodes.iter().enumerate().filter(|(at, _)| mask >> at & 1 == 1).map(|(_, node)| *node).collect())
}

/// Sets parted so that no node is in two parts.
fn groups(sets: &[Set]) -> Vec<Vec<&Set>> {
    let mut groups: Vec<(BTreeSet<&str>, Vec<&Set>)> = Vec::new();
    for set in sets {
        let mut nodes = nodes_of(&set.bricks);
        let mut members = vec![set];
        let (touching, apart): (Vec<_>, Vec<_>) = groups.into_iter().partition(|(with, _)| !with.is_disjoint(&nodes));
        for (with, more) in touching {
            nodes.extend(with);
            members.extend(more);
        }
        groups = apart;
        groups.push((nodes, members));
    }
    groups.into_iter().map(|(_, members)| members).collect()
}

fn nodes_of(bricks: &[Brick]) -> BTreeSet<&str> {
    bricks.iter().map(|brick| brick.node.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB: u64 = 1 << 30;

    fn bricks(spec: &[(&str, u64)]) -> Vec<Brick> {
        spec.iter().map(|(node, gib)| Brick { node: (*node).to_owned(), size_bytes: gib * GIB }).collect()
    }

    fn apart(sizes: &[u64]) -> Vec<Brick> {
        let brick = |(at, gib): (usize, &u64)| Brick { node: format!("gfs{}", at + 1), size_bytes: gib * GIB };
        sizes.iter().enumerate().map(brick).collect()
    }

    fn copies(replica: usize) -> Copies {
        Copies { replica, arbiter: false }
    }

    const ARBITER: Copies = Copies { replica: 3, arbiter: true };

    #[test]
    fn the_howto_grows_from_ten_to_twenty() {
        let small = plan(copies(2), &apart(&[10, 10])).unwrap();
        let grown = plan(copies(2), &apart(&[10, 10, 10, 10])).unwrap();
        assert_eq!((small.usable_bytes, grown.usable_bytes, grown.raw_bytes), (10 * GIB, 20 * GIB, 40 * GIB));
        assert_eq!((small.nodes, grown.nodes), (2, 4));
        assert_eq!(small.serving, Failures { any: 1, best: Some(1) });
        assert_eq!(grown.serving, Failures { any: 1, best: Some(2) }, "one of each pair");
        assert_eq!(grown.keeping, grown.serving);
    }

    #[test]
    fn a_set_is_as_large_as_its_smallest_data_brick() {
        let found = plan(copies(2), &apart(&[10, 8, 20, 20])).unwrap();
        assert_eq!(found.usable_bytes, 28 * GIB);
        assert_eq!(found.sets[0].unused_bytes, 2 * GIB);
        let found = plan(ARBITER, &apart(&[10, 10, 1])).unwrap();
        assert_eq!((found.usable_bytes, found.raw_bytes, found.sets[0].unused_bytes), (10 * GIB, 20 * GIB, 0));
    }

    #[test]
    fn three_copies_serve_by_majority_and_keep_by_one() {
        let found = plan(copies(3), &apart(&[10, 10, 10])).unwrap();
        assert_eq!(found.serving, Failures { any: 1, best: Some(1) });
        assert_eq!(found.keeping, Failures { any: 2, best: Some(2) });
    }

    #[test]
    fn an_arbiter_counts_for_quorum_and_keeps_no_data() {
        let found = plan(ARBITER, &apart(&[10, 10, 1])).unwrap();
        assert_eq!(found.serving, Failures { any: 1, best: Some(1) });
        assert_eq!(found.keeping, Failures { any: 1, best: Some(2) }, "the arbiter and one of the others");
    }

    #[test]
    fn without_copies_no_node_may_fail() {
        let found = plan(copies(1), &apart(&[10, 20])).unwrap();
        assert_eq!((found.usable_bytes, found.serving.any, found.serving.best), (30 * GIB, 0, Some(0)));
    }

    #[test]
    fn copies_on_one_node_fail_with_it() {
        let found = plan(copies(2), &bricks(&[("a", 1), ("a", 1)])).unwrap();
        assert!(found.sets[0].shares_node);
        assert_eq!(found.serving, Failures { any: 0, best: Some(0) });
    }

    #[test]
    fn chained_sets_are_looked_at_together() {
        let ring = bricks(&[("a", 1), ("b", 1), ("b", 1), ("c", 1), ("c", 1), ("a", 1)]);
        let found = plan(copies(2), &ring).unwrap();
        assert_eq!((found.nodes, found.serving), (3, Failures { any: 1, best: Some(1) }));
    }

    #[test]
    fn many_nodes_in_pairs_are_summed_and_not_tried_together() {
        let found = plan(copies(2), &apart(&[1; 200])).unwrap();
        assert_eq!(found.serving, Failures { any: 1, best: Some(100) });
    }

    #[test]
    fn bricks_that_make_no_sets_are_refused_with_the_way_out() {
        assert_eq!(
            plan(copies(2), &apart(&[1, 1, 1])),
            Err(Unfit::Count { bricks: 3, replica: 2, missing: 1, surplus: 1 })
        );
        assert_eq!(plan(copies(2), &[]), Err(Unfit::NoBricks));
        assert_eq!(plan(Copies { replica: 2, arbiter: true }, &apart(&[1, 1])), Err(Unfit::Arbiter));
        let huge = vec![Brick { node: "a".into(), size_bytes: u64::MAX }; 2];
        assert_eq!(plan(copies(1), &huge), Err(Unfit::TooLarge));
    }

    fn any_volume() -> impl Strategy<Value = (Copies, Vec<Brick>)> {
        let copies = prop_oneof![(1_usize..5).prop_map(copies), Just(ARBITER)];
        copies.prop_flat_map(|copies| {
            let brick =
                (0_u8..8, 1_u64..1000).prop_map(|(node, size_bytes)| Brick { node: format!("n{node}"), size_bytes });
            (1_usize..5).prop_flat_map(move |sets| {
                (Just(copies), proptest::collection::vec(brick.clone(), sets * copies.replica))
            })
        })
    }

    proptest! {
        /// What is neither usable nor unused is the further copies.
        #[test]
        fn space_adds_up((copies, bricks) in any_volume()) {
            let found = plan(copies, &bricks).unwrap();
            let kept = copies.replica - usize::from(copies.arbiter);
            let unused: u64 = found.sets.iter().map(|set| set.unused_bytes).sum();
            prop_assert_eq!(found.usable_bytes * kept as u64 + unused, found.raw_bytes);
        }

        /// `any` holds for every choice of so many nodes and not for every choice of one more; `best` for one and no larger.
        #[test]
        fn failures_are_what_trying_all_of_them_says((copies, bricks) in any_volume()) {
            let found = plan(copies, &bricks).unwrap();
            let nodes: Vec<&str> = nodes_of(&bricks).into_iter().collect();
            let serving = |down: &BTreeSet<&str>| bricks.chunks(copies.replica).all(|set| serves(set, down));
            for down in combinations(&nodes) {
                prop_assert!(down.len() > found.serving.any || serving(&down), "{:?} of {:?}", down, bricks);
            }
            let all = nodes.len();
            let of = |count: usize| combinations(&nodes).filter(move |down| down.len() == count);
            let next = found.serving.any + 1;
            prop_assert!(next > all || of(next).any(|down| !serving(&down)));
            let best = found.serving.best.unwrap();
            prop_assert!(of(best).any(|down| serving(&down)));
            prop_assert!((best + 1..=all).all(|more| of(more).all(|down| !serving(&down))));
        }

        /// More bricks of the same kind never make a volume smaller, nor any node's failure worse.
        #[test]
        fn growing_only_adds((copies, bricks) in any_volume()) {
            let before = plan(copies, &bricks).unwrap();
            let fresh = (0..copies.replica).map(|at| Brick { node: format!("new{at}"), size_bytes: 7 });
            let grown: Vec<Brick> = bricks.iter().cloned().chain(fresh).collect();
            let after = plan(copies, &grown).unwrap();
            prop_assert_eq!(after.usable_bytes, before.usable_bytes + 7);
            prop_assert!(after.serving.any <= before.serving.any);
            prop_assert!(after.serving.best >= before.serving.best);
        }
    }
}
