//! Dividing the ring (`dht-selfheal.c`: dht_selfheal_layout_new_directory, dht_fix_layout_of_directory,
//! dht_selfheal_layout_maximize_overlap).

use mortar_types::{SubvolId, SubvolMap};

use super::layout::{Layout, Part, Slot};

/// The narrowest part there is: equal ends would mean none.
const WIDTH_MIN: u64 = 2;

/// A subvolume as a candidate for a part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its name: parts are dealt in the order of names.
    pub name: String,
    /// Its total size in MiB, rounded up; 0 when not known.
    pub size_mib: u64,
    /// Can take part: up, and not being decommissioned.
    pub usable: bool,
    /// Over its limit of space or inodes: takes part only when everybody usable is.
    pub full: bool,
}

/// How to divide.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// Parts in proportion to sizes (`cluster.weighted-rebalance`).
    pub weighted: bool,
    /// At most so many subvolumes per directory (`cluster.subvols-per-directory`).
    pub spread: Option<usize>,
    /// The hash of the directory's path (or of its gfid's text): says who comes first.
    pub seed: u32,
    pub commit_hash: u32,
}

/// The parts of a directory that has none yet. With nobody usable everybody takes part: a directory without owners could
/// not be used at all.
pub fn new_directory(members: &SubvolMap<Member>, terms: &Terms) -> SubvolMap<Part> {
    deal(members, &turn(members, terms), terms)
}

/// New parts for a directory that has some: the sizes that a new directory's would have, placed so that few names move.
pub fn fix(old: &Layout, members: &SubvolMap<Member>, terms: &Terms) -> SubvolMap<Part> {
    let usual = turn(members, terms);
    let mut best = deal(members, &usual, terms);
    if has_equal_parts(members, &usual, terms) {
        swap_for_overlap(old, &mut best, &usual);
    }
    // GlusterFS stops here; keeping the old order around the ring helps where parts differ in size.
    let kept = deal(members, &old_order(old, members, &usual, terms), terms);
    if overlap(old, &kept) > overlap(old, &best) { kept } else { best }
}

/// Whether a directory's layout should be replaced by [`fix`]'s (`dht_layout_index_from_conf`, `dht_should_fix_layout`).
pub fn needs_fix(old: &Layout, members: &SubvolMap<Member>, terms: &Terms) -> bool {
    if old.is_fixed() {
        return false;
    }
    let anomalies = old.anomalies();
    if !anomalies.none() {
        return true;
    }
    let chosen = turn(members, terms);
    let spans = if terms.spread.is_some_and(|spread| spread < members.len()) {
        let owners = old.slots().iter().filter(|(_, slot)| slot.part().is_some_and(|part| !part.is_empty()));
        let owners: Vec<SubvolId> = owners.map(|(id, _)| id).collect();
        owners.len() == chosen.len() && owners.iter().all(|id| members[*id].usable)
    } else {
        old.spans_exactly(|id| chosen.contains(&id))
    };
    !spans || !has_style(old, members, &chosen, terms)
}

/// Whether parts are as unequal as they should be, within rounding.
fn has_style(old: &Layout, members: &SubvolMap<Member>, chosen: &[SubvolId], terms: &Terms) -> bool {
    let widths: Vec<u64> =
        old.slots().iter().filter_map(|(_, slot)| slot.part()).map(Part::width).filter(|width| *width > 0).collect();
    let (min, max) = (widths.iter().min().copied().unwrap_or(0), widths.iter().max().copied().unwrap_or(0));
    let is_equal = max - min <= old.slots().len() as u64;
    is_equal == has_equal_parts(members, chosen, terms)
}

/// How many of the ring's places stay with their owner.
pub fn overlap(old: &Layout, new: &SubvolMap<Part>) -> u64 {
    new.iter().filter_map(|(id, part)| old.part(id).map(|was| was.overlap(part))).sum()
}

/// Who takes part, in the order around the ring.
fn turn(members: &SubvolMap<Member>, terms: &Terms) -> Vec<SubvolId> {
    let mut by_name: Vec<SubvolId> = members.ids().collect();
    by_name.sort_by(|a, b| members[*a].name.as_bytes().cmp(members[*b].name.as_bytes()));
    if by_name.is_empty() {
        return by_name;
    }
    let first = terms.seed as usize % by_name.len();
    by_name.rotate_left(first);
    let usable = |id: &SubvolId| members[*id].usable;
    let roomy = |id: &SubvolId| usable(id) && !members[*id].full;
    let mut chosen: Vec<SubvolId> = by_name.iter().copied().filter(roomy).collect();
    if chosen.is_empty() {
        chosen = by_name.iter().copied().filter(usable).collect();
    }
    if chosen.is_empty() {
        chosen = by_name;
    }
    chosen.truncate(terms.spread.unwrap_or(usize::MAX).max(1));
    chosen
}

fn weights(members: &SubvolMap<Member>, turn: &[SubvolId], terms: &Terms) -> Vec<u64> {
    let sizes: Vec<u64> = turn.iter().map(|id| members[*id].size_mib).collect();
    // A size that is not known makes the others' meaningless.
    if terms.weighted && sizes.iter().all(|size| *size > 0) { sizes } else { vec![1; turn.len()] }
}

fn has_equal_parts(members: &SubvolMap<Member>, turn: &[SubvolId], terms: &Terms) -> bool {
    let weights = weights(members, turn, terms);
    weights.iter().all(|weight| Some(weight) == weights.first())
}

/// Parts for `turn`, one after the other; nothing for others.
fn deal(members: &SubvolMap<Member>, turn: &[SubvolId], terms: &Terms) -> SubvolMap<Part> {
    let weights = weights(members, turn, terms);
    let mut parts = SubvolMap::filled(members.len(), Part::empty(terms.commit_hash));
    let total: f64 = weights.iter().map(|weight| *weight as f64).sum();
    // Equal parts are counted in whole places, weighted ones in fractions, as GlusterFS does: both come to its numbers.
    let equal = weights.iter().all(|weight| *weight == 1);
    let unit = if equal { f64::from(u32::MAX / (turn.len().max(1) as u32)) } else { f64::from(u32::MAX) / total };
    let mut start = 0_u64;
    let mut last = None;
    for (id, weight) in turn.iter().zip(&weights) {
        let width = (unit * *weight as f64) as u64;
        if width < WIDTH_MIN || start + width > u64::from(u32::MAX) + 1 {
            continue;
        }
        parts[*id] = Part::new(terms.commit_hash, start as u32, (start + width - 1) as u32);
        last = Some(*id);
        start += width;
    }
    // Rounding leaves a few places over; everything when all sizes round to nothing.
    if let Some(last) = last.or_else(|| turn.first().copied()) {
        parts[last] = Part::new(terms.commit_hash, parts[last].start, u32::MAX);
    }
    parts
}

/// Exchanges equal parts where that keeps more names in place.
fn swap_for_overlap(old: &Layout, parts: &mut SubvolMap<Part>, turn: &[SubvolId]) {
    // In the order of names, which is how GlusterFS's arrays are sorted.
    let mut order = turn.to_vec();
    order.sort_unstable_by_key(|id| parts.iter().position(|(at, _)| at == *id));
    let kept = |owner: SubvolId, part: &Part| old.part(owner).map_or(0, |was| was.overlap(part)) as i128;
    for (at, i) in order.iter().enumerate() {
        let gain = |j: &SubvolId| {
            let now = kept(*i, &parts[*i]) + kept(*j, &parts[*j]);
            kept(*i, &parts[*j]) + kept(*j, &parts[*i]) - now
        };
        let mut best = None;
        for j in &order[at + 1..] {
            let gain = gain(j);
            if gain > best.map_or(0, |(gain, _)| gain) {
                best = Some((gain, *j));
            }
        }
        if let Some((_, j)) = best {
            (parts[*i], parts[j]) = (parts[j], parts[*i]);
        }
    }
}

/// The order of the old layout, newcomers put where they cost least, one after the other.
fn old_order(old: &Layout, members: &SubvolMap<Member>, usual: &[SubvolId], terms: &Terms) -> Vec<SubvolId> {
    let start = |id: &SubvolId| old.part(*id).filter(|part| !part.is_empty()).map(|part| part.start);
    let mut order: Vec<SubvolId> = usual.iter().copied().filter(|id| start(id).is_some()).collect();
    order.sort_by_key(start);
    for newcomer in usual.iter().filter(|id| start(id).is_none()) {
        let with = |at: usize| {
            let mut tried = order.clone();
            tried.insert(at, *newcomer);
            tried
        };
        let best = (0..=order.len()).max_by_key(|at| overlap(old, &deal(members, &with(*at), terms)));
        order = with(best.unwrap_or(0));
    }
    order
}

/// A layout of parts that all are known.
pub fn layout(parts: &SubvolMap<Part>) -> Layout {
    Layout::new(parts.map(|_, part| Slot::Part(*part)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn members(sizes: &[u64]) -> SubvolMap<Member> {
        SubvolMap::from_fn(sizes.len(), |id| Member {
            name: format!("dr-replicate-{}", id.0),
            size_mib: sizes[id.0],
            usable: true,
            full: false,
        })
    }

    const TERMS: Terms = Terms { weighted: true, spread: None, seed: 0, commit_hash: 0 };

    fn ranges(parts: &SubvolMap<Part>) -> Vec<(u32, u32)> {
        parts.iter().map(|(_, part)| (part.start, part.stop)).collect()
    }

    #[test]
    fn equal_bricks_get_glusterfs_s_numbers_and_the_seed_rotates_them() {
        let three = members(&[100, 100, 100]);
        let third = [(0, 0x5555_5554), (0x5555_5555, 0xaaaa_aaa9), (0xaaaa_aaaa, u32::MAX)];
        assert_eq!(ranges(&new_directory(&three, &TERMS)), third);
        let turned = new_directory(&three, &Terms { seed: 1, ..TERMS });
        assert_eq!(ranges(&turned), [third[2], third[0], third[1]]);
    }

    #[test]
    fn sizes_weigh_unless_one_is_not_known() {
        let quarter = new_directory(&members(&[100, 300]), &TERMS);
        assert_eq!(ranges(&quarter), [(0, 0x3fff_fffe), (0x3fff_ffff, u32::MAX)]);
        let unknown = new_directory(&members(&[100, 0]), &TERMS);
        assert_eq!(ranges(&unknown), [(0, 0x7fff_fffe), (0x7fff_ffff, u32::MAX)]);
    }

    #[test]
    fn names_are_ordered_as_bytes() {
        let mut eleven = members(&[1; 11]);
        eleven[SubvolId(10)].name = "dr-replicate-10".into();
        let parts = new_directory(&eleven, &Terms { weighted: false, ..TERMS });
        let mut order: Vec<_> = parts.iter().map(|(id, part)| (part.start, id.0)).collect();
        order.sort_unstable();
        assert_eq!(order.iter().map(|(_, id)| *id).take(3).collect::<Vec<_>>(), [0, 1, 10]);
    }

    #[test]
    fn the_decommissioned_and_the_full_take_no_part() {
        let mut four = members(&[1; 4]);
        four[SubvolId(1)].usable = false;
        four[SubvolId(2)].full = true;
        let parts = new_directory(&four, &TERMS);
        assert!(parts[SubvolId(1)].is_empty() && parts[SubvolId(2)].is_empty());
        assert!(layout(&parts).anomalies().none());
        for id in [0, 2, 3] {
            four[SubvolId(id)].full = true;
        }
        assert_eq!(new_directory(&four, &TERMS).iter().filter(|(_, part)| !part.is_empty()).count(), 3);
    }

    #[test]
    fn spread_limits_the_owners() {
        let parts = new_directory(&members(&[1; 5]), &Terms { spread: Some(2), ..TERMS });
        assert_eq!(parts.iter().filter(|(_, part)| !part.is_empty()).count(), 2);
        assert!(layout(&parts).anomalies().none());
    }

    #[test]
    fn what_needs_no_fix_is_left() {
        let two = members(&[5, 5]);
        let fresh = layout(&new_directory(&two, &TERMS));
        assert!(!needs_fix(&fresh, &two, &TERMS));
        assert!(needs_fix(&fresh, &members(&[5, 50]), &TERMS));
        let mut leaving = two.clone();
        leaving[SubvolId(1)].usable = false;
        assert!(needs_fix(&fresh, &leaving, &TERMS));
        let torn = Layout::new(vec![Slot::NoLayout, Slot::Part(Part::new(0, 0, 5))].into());
        assert!(needs_fix(&torn, &two, &TERMS));
        let grown =
            Layout::new(vec![*fresh_slot(&fresh, 0), *fresh_slot(&fresh, 1), Slot::Part(Part::empty(0))].into());
        assert!(needs_fix(&grown, &members(&[5, 5, 5]), &TERMS));
    }

    fn fresh_slot(layout: &Layout, at: usize) -> &Slot {
        &layout.slots()[SubvolId(at)]
    }

    fn grown(old: &SubvolMap<Part>, by: usize) -> Layout {
        let mut slots: Vec<Slot> = old.iter().map(|(_, part)| Slot::Part(*part)).collect();
        slots.extend(std::iter::repeat_n(Slot::Missing, by));
        Layout::new(slots.into())
    }

    proptest! {
        #[test]
        fn every_place_has_one_owner_whatever_the_sizes(
            sizes in proptest::collection::vec(prop_oneof![0_u64..4, any::<u64>()], 1..12),
            usable in proptest::collection::vec(any::<bool>(), 12),
            spread in proptest::option::of(0_usize..14),
            seed: u32, weighted: bool,
        ) {
            let mut members = members(&sizes);
            for (id, member) in members.iter_mut() {
                member.usable = usable[id.0];
            }
            let terms = Terms { weighted, spread, seed, commit_hash: 9 };
            let parts = new_directory(&members, &terms);
            prop_assert!(layout(&parts).anomalies().none(), "{:?}", ranges(&parts));
            let fixed = fix(&layout(&parts), &members, &Terms { seed: seed.wrapping_add(1), ..terms });
            prop_assert!(layout(&fixed).anomalies().none(), "{:?}", ranges(&fixed));
        }

        #[test]
        fn growing_by_one_moves_little_more_than_the_newcomer_s_share(count in 1_usize..12, seed: u32, again: u32) {
            let old = grown(&new_directory(&members(&vec![7; count]), &Terms { seed, ..TERMS }), 1);
            let new = fix(&old, &members(&vec![7; count + 1]), &Terms { seed: again, ..TERMS });
            prop_assert!(layout(&new).anomalies().none());
            let ring = (1_u64 << 32) as f64;
            let moved = 1.0 - overlap(&old, &new) as f64 / ring;
            let share = 1.0 / (count as f64 + 1.0);
            // One range per subvolume cannot reach the share itself from three subvolumes on: inner ranges shift.
            prop_assert!(moved >= share - 1e-6 && moved <= share + 0.2, "{} of {}: {:?}", moved, share, ranges(&new));
        }

        #[test]
        fn doubling_moves_half(count in 1_usize..8, seed: u32, again: u32) {
            let old = grown(&new_directory(&members(&vec![7; count]), &Terms { seed, ..TERMS }), count);
            let new = fix(&old, &members(&vec![7; 2 * count]), &Terms { seed: again, ..TERMS });
            let moved = 1.0 - overlap(&old, &new) as f64 / (1_u64 << 32) as f64;
            prop_assert!((moved - 0.5).abs() < 1e-6, "{}", moved);
        }

        #[test]
        fn fixing_what_is_right_moves_nothing(sizes in proptest::collection::vec(1_u64..1000, 1..8), seed: u32, again: u32) {
            let members = members(&sizes);
            let old = layout(&new_directory(&members, &Terms { seed, ..TERMS }));
            let new = fix(&old, &members, &Terms { seed: again, ..TERMS });
            let moved = (1_u64 << 32) - overlap(&old, &new);
            // Which part is last takes the rounding's rest.
            prop_assert!(moved <= 2 * sizes.len() as u64 * sizes.len() as u64, "{}", moved);
        }
    }
}
