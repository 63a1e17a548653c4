//! Which readable copy answers a read (`afr/afr-common.c` afr_read_subvol_select_by_policy, `cluster.read-hash-mode`).

use mortar_types::{Gfid, SubvolId, SubvolMap};

use super::Set;

/// `cluster.read-hash-mode`. Mode 5 is latency times pending reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HashMode {
    FirstUp,
    Gfid,
    GfidAndPid,
    FewestPending,
    LowestLatency,
    LatencyTimesPending,
}

impl HashMode {
    /// The option's number; `None` outside 0..=5.
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::FirstUp,
            1 => Self::Gfid,
            2 => Self::GfidAndPid,
            3 => Self::FewestPending,
            4 => Self::LowestLatency,
            5 => Self::LatencyTimesPending,
            _ => return None,
        })
    }
}

/// What the choice depends on besides the inode.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// `cluster.read-subvolume(-index)`, or with `cluster.choose-local` the child on this node: wins when readable.
    pub preferred: Option<SubvolId>,
    pub mode: HashMode,
}

/// How busy a child is, for the modes that ask.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Load {
    pub reads_pending: u32,
    pub latency_us: u32,
}

/// The child to read `gfid` from, or `None` when none is readable. `is_dir` keeps mode 2 from hashing the pid, so that
/// all processes list a directory from the same child.
pub fn choose(
    policy: &Policy,
    readable: &Set,
    gfid: &Gfid,
    pid: i32,
    is_dir: bool,
    load: &SubvolMap<Load>,
) -> Option<SubvolId> {
    let usable = |child: SubvolId| child.0 < readable.len() && readable[child];
    if let Some(preferred) = policy.preferred.filter(|child| usable(*child)) {
        return Some(preferred);
    }
    let hashed = |hash: u32| Some(SubvolId(hash as usize % readable.len().max(1)));
    let least = |weight: fn(&Load) -> u64| readable.ids().filter(|id| usable(*id)).min_by_key(|id| weight(&load[*id]));
    let wanted = match policy.mode {
        HashMode::FirstUp => None,
        HashMode::GfidAndPid if !is_dir => {
            let mut bytes = gfid.0;
            for (byte, of_pid) in bytes.iter_mut().zip(pid.to_le_bytes()) {
                *byte ^= of_pid;
            }
            hashed(super_fast_hash(&bytes))
        }
        HashMode::Gfid | HashMode::GfidAndPid => hashed(super_fast_hash(&gfid.0)),
        HashMode::FewestPending => least(|load| load.reads_pending.into()),
        HashMode::LowestLatency => least(|load| load.latency_us.into()),
        HashMode::LatencyTimesPending => least(|load| u64::from(load.latency_us) * (u64::from(load.reads_pending) + 1)),
    };
    wanted.filter(|child| usable(*child)).or_else(|| readable.ids().find(|id| usable(*id)))
}

/// Paul Hsieh's SuperFastHash, which AFR uses over the gfid (`libglusterfs/src/hashfn.c` SuperFastHash; the algorithm
/// is published at azillionmonkeys.com/qed/hash.html). Left-over bytes are sign-extended there; a gfid has none.
pub fn super_fast_hash(data: &[u8]) -> u32 {
    let half = |bytes: &[u8]| u32::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    let signed = |byte: u8| i32::from(byte.cast_signed()).cast_unsigned();
    if data.is_empty() {
        return 0;
    }
    let mut hash = data.len() as u32;
    let groups = data.chunks_exact(4);
    let rest = groups.remainder();
    for group in groups {
        hash = hash.wrapping_add(half(&group[..2]));
        let mixed = (half(&group[2..]) << 11) ^ hash;
        hash = (hash << 16) ^ mixed;
        hash = hash.wrapping_add(hash >> 11);
    }
    match rest {
        [a, b, c] => {
            hash = hash.wrapping_add(half(&[*a, *b]));
            hash ^= hash << 16;
            hash ^= signed(*c) << 18;
            hash = hash.wrapping_add(hash >> 11);
        }
        [a, b] => {
            hash = hash.wrapping_add(half(&[*a, *b]));
            hash ^= hash << 11;
            hash = hash.wrapping_add(hash >> 17);
        }
        [a] => {
            hash = hash.wrapping_add(signed(*a));
            hash ^= hash << 10;
            hash = hash.wrapping_add(hash >> 1);
        }
        _ => {}
    }
    hash ^= hash << 3;
    hash = hash.wrapping_add(hash >> 5);
    hash ^= hash << 4;
    hash = hash.wrapping_add(hash >> 17);
    hash ^= hash << 25;
    hash.wrapping_add(hash >> 6)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(members: &[u8]) -> Set {
        members.iter().map(|member| *member == 1).collect::<Vec<_>>().into()
    }

    fn pick(policy: Policy, readable: &[u8]) -> Option<usize> {
        let readable = set(readable);
        let load = SubvolMap::filled(readable.len(), Load::default());
        choose(&policy, &readable, &Gfid::ROOT, 7, true, &load).map(|child| child.0)
    }

    #[test]
    fn the_preferred_child_wins_while_readable() {
        let policy = Policy { preferred: Some(SubvolId(1)), mode: HashMode::FirstUp };
        assert_eq!(pick(policy, &[1, 1]), Some(1));
        assert_eq!(pick(policy, &[1, 0]), Some(0));
        assert_eq!(pick(policy, &[0, 0]), None);
        assert_eq!(pick(Policy { preferred: Some(SubvolId(5)), ..policy }, &[0, 1]), Some(1));
    }

    #[test]
    fn a_hashed_child_that_is_not_readable_gives_way_to_the_first() {
        let policy = Policy { preferred: None, mode: HashMode::Gfid };
        let hashed = super_fast_hash(&Gfid::ROOT.0) as usize % 3;
        let mut readable = [1; 3];
        assert_eq!(pick(policy, &readable), Some(hashed));
        readable[hashed] = 0;
        assert_eq!(pick(policy, &readable), readable.iter().position(|member| *member == 1));
    }

    #[test]
    fn the_hash_is_that_of_libglusterfs() {
        // Computed with SuperFastHash of Debian's libglusterfs 10.3.
        assert_eq!(super_fast_hash(&Gfid::ROOT.0), 0xfe51_3317);
        assert_eq!(super_fast_hash(&std::array::from_fn::<u8, 16, _>(|at| at as u8)), 0x8338_b518);
        assert_eq!(super_fast_hash(b"hello"), 0xb09d_c87b);
        assert_eq!(super_fast_hash(b"ab\xff"), 0xc25f_0954);
        assert_eq!(super_fast_hash(b""), 0);
    }

    #[test]
    fn load_decides_in_mode_three() {
        let mut load = SubvolMap::filled(2, Load::default());
        load[SubvolId(0)].reads_pending = 4;
        let policy = Policy { preferred: None, mode: HashMode::FewestPending };
        assert_eq!(choose(&policy, &set(&[1, 1]), &Gfid::ROOT, 0, false, &load), Some(SubvolId(1)));
    }

    proptest! {
        #[test]
        fn only_a_readable_child_is_chosen(
            members in proptest::collection::vec(0u8..2, 1..6), gfid: [u8; 16], mode in 0u32..6, pid: i32,
        ) {
            let readable = set(&members);
            let policy = Policy { preferred: None, mode: HashMode::from_number(mode).unwrap() };
            let load = SubvolMap::filled(members.len(), Load::default());
            let chosen = choose(&policy, &readable, &Gfid(gfid), pid, false, &load);
            prop_assert_eq!(chosen.is_some(), members.contains(&1));
            if let Some(chosen) = chosen { prop_assert!(readable[chosen]); }
        }
    }
}
