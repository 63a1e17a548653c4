//! Which node moves a file: one of those that have a brick of the subvolume where it is (`dht-rebalance.c`
//! gf_defrag_should_i_migrate). All nodes decide alike without talking, and a node that is down leaves its share to another.

use mortar_types::Gfid;
use uuid::Uuid;

/// Whether `node` moves the file. `nodes`: of the subvolume's bricks in order, `None` for a brick that does not answer; the
/// hash is over the gfid's text, as in GlusterFS.
pub fn is_ours(gfid: Gfid, nodes: &[Option<Uuid>], node: Uuid) -> bool {
    if nodes.is_empty() {
        return false;
    }
    let hash = crate::distribute::hash::davies_meyer(gfid.to_string().as_bytes()) as usize;
    let owner = nodes[hash % nodes.len()].or_else(|| nodes.iter().flatten().next().copied());
    owner == Some(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gfid(at: u8) -> Gfid {
        Gfid([at; 16])
    }

    #[test]
    fn every_file_has_exactly_one_mover() {
        let (a, b, c) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
        for nodes in [vec![Some(a), Some(b)], vec![Some(a), None], vec![None, Some(b), Some(c)], vec![Some(c)]] {
            for at in 0..=255 {
                let movers = [a, b, c].into_iter().filter(|node| is_ours(gfid(at), &nodes, *node)).count();
                assert_eq!(movers, 1, "{nodes:?}");
            }
        }
    }

    #[test]
    fn work_is_shared() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let ours = (0..=255).filter(|at| is_ours(gfid(*at), &[Some(a), Some(b)], a)).count();
        assert!((64..192).contains(&ours), "{ours}");
    }

    #[test]
    fn where_nobody_answers_nobody_moves() {
        assert!(!is_ours(gfid(1), &[None, None], Uuid::from_u128(1)));
        assert!(!is_ours(gfid(1), &[], Uuid::from_u128(1)));
    }
}
