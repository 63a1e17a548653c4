//! One number for a subvolume and a place in its listing (`libglusterfs/src/gf-dirent.c` gf_itransform,
//! gf_deitransform): kernels and NFS keep only 63 bits.

use mortar_types::SubvolId;

/// Marks the lossy form.
const HUGE: u64 = 1 << 62;
const MASK_63: u64 = (1 << 63) - 1;

/// Bits that number `count` subvolumes.
const fn bits(count: usize) -> u32 {
    usize::BITS - count.saturating_sub(1).leading_zeros()
}

/// The number for a place. A large one loses its low bits: file systems with such places take a slightly smaller one.
pub fn encode(place: u64, subvol: SubvolId, count: usize) -> u64 {
    if count <= 1 || place == u64::MAX {
        return place;
    }
    let bits = bits(count);
    let (id, n) = (subvol.0 as u64, count as u64);
    if place & MASK_63 == place && place >> (63 - bits - 1) == 0 {
        return place * n + id;
    }
    HUGE | (((place & MASK_63) >> 1) & !low(bits)) | id
}

/// The subvolume and the place there. A subvolume that cannot be comes back as the last one.
pub fn decode(number: u64, count: usize) -> (SubvolId, u64) {
    if count <= 1 || number == u64::MAX {
        return (SubvolId(0), number);
    }
    let bits = bits(count);
    let n = count as u64;
    let (id, place) = if number & HUGE == 0 {
        (number % n, number / n)
    } else {
        (number & low(bits), (number & (HUGE - 1) & !low(bits)) << 1)
    };
    (SubvolId(usize::try_from(id.min(n - 1)).unwrap_or(0)), place)
}

const fn low(bits: u32) -> u64 {
    (1 << bits) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_those_seen_on_a_real_mount() {
        assert_eq!(encode(0x1efc_e248_700a_9a17, SubvolId(3), 4), 0x4f7e_7124_3805_4d0b);
        assert_eq!(encode(0x0f49_b4bf_9c7b_04aa, SubvolId(1), 4), 0x3d26_d2fe_71ec_12a9);
        assert_eq!(encode(0x7fff_ffff_ffff_ffff, SubvolId(1), 4), 0x7fff_ffff_ffff_fffd);
        assert_eq!(encode(0x7fff_ffff_ffff_ffff, SubvolId(3), 4), 0x7fff_ffff_ffff_ffff);
    }

    #[test]
    fn one_subvolume_changes_nothing() {
        assert_eq!((encode(77, SubvolId(0), 1), decode(77, 1)), (77, (SubvolId(0), 77)));
    }

    proptest! {
        #[test]
        fn numbers_come_back(place in 0..=MASK_63, count in 2_usize..40, id: usize) {
            let id = SubvolId(id % count);
            let number = encode(place, id, count);
            prop_assert!(number <= MASK_63);
            let (subvol, back) = decode(number, count);
            prop_assert_eq!(subvol, id);
            prop_assert!(back <= place && place - back < 4 * count as u64, "{} {}", place, back);
            if place < 1 << 55 {
                prop_assert_eq!(back, place);
            }
        }

        #[test]
        fn any_number_is_taken(number: u64, count in 0_usize..40) {
            let (subvol, _) = decode(number, count);
            prop_assert!(subvol.0 < count.max(1));
        }
    }
}
