//! `trusted.glusterfs.mdata`: the times of an inode as clients set them, the same on every brick.
//!
//! 57 bytes: u8 version (1), then big-endian u64 flags (0), and ctime, mtime, atime, each as u64 seconds and u64 nanoseconds.
//! Source: GlusterFS `posix/posix-metadata.c`, `posix/posix-metadata-disk.h`.

use mortar_types::{Mdata, TimeFlags, Timespec};

/// The xattr's length.
pub(crate) const BYTES: usize = 1 + 8 + 3 * 16;
const VERSION: u8 = 1;

pub(crate) fn encode(mdata: &Mdata) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[0] = VERSION;
    for (slot, time) in bytes[9..].chunks_exact_mut(16).zip([mdata.ctime, mdata.mtime, mdata.atime]) {
        slot[..8].copy_from_slice(&time.sec.to_be_bytes());
        slot[8..].copy_from_slice(&u64::from(time.nsec).to_be_bytes());
    }
    bytes
}

/// `None` for another length or version.
pub(crate) fn decode(bytes: &[u8]) -> Option<Mdata> {
    let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
    if bytes[0] != VERSION {
        return None;
    }
    let time = |at: usize| {
        let sec = i64::from_be_bytes(bytes[at..at + 8].try_into().ok()?);
        let nsec = u64::from_be_bytes(bytes[at + 8..at + 16].try_into().ok()?);
        Some(Timespec::new(sec, u32::try_from(nsec).ok().filter(|nsec| *nsec < 1_000_000_000)?))
    };
    Some(Mdata { ctime: time(9)?, mtime: time(25)?, atime: time(41)? })
}

/// All three times of a new inode.
pub(crate) const fn born(time: Timespec) -> Mdata {
    Mdata { atime: time, mtime: time, ctime: time }
}

/// Moves the times that `flags` name (the inode's own bits) forward to `time`, never back.
pub(crate) fn advance(mdata: &mut Mdata, time: Timespec, flags: TimeFlags) {
    let moves = [
        (TimeFlags::CTIME, &mut mdata.ctime),
        (TimeFlags::MTIME, &mut mdata.mtime),
        (TimeFlags::ATIME, &mut mdata.atime),
    ];
    for (flag, slot) in moves {
        if flags.contains(flag) {
            *slot = time.max(*slot);
        }
    }
}

/// The later of each time.
pub(crate) fn merge(one: &Mdata, two: &Mdata) -> Mdata {
    Mdata { atime: one.atime.max(two.atime), mtime: one.mtime.max(two.mtime), ctime: one.ctime.max(two.ctime) }
}

/// The bits meant for the parent, as the parent's own.
pub(crate) const fn parent_flags(flags: TimeFlags) -> TimeFlags {
    TimeFlags((flags.0 >> 3) & 7)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The root of fixture a-replica2-clean, brick 0.
    const REAL: &str = "010000000000000000000000006b03b13200000000075dccbe000000006b03b13200000000075dccbe\
                        000000006b03b1140000000027f5615f";

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len() / 2).map(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).expect("hex")).collect()
    }

    #[test]
    fn a_real_value_round_trips() {
        let bytes = unhex(REAL);
        let mdata = decode(&bytes).expect("a real one decodes");
        assert_eq!(mdata.ctime, Timespec::new(0x6b03_b132, 0x075d_ccbe));
        assert_eq!(mdata.atime, Timespec::new(0x6b03_b114, 0x27f5_615f));
        assert_eq!(encode(&mdata)[..], bytes[..]);
    }

    #[test]
    fn damage_is_not_read_as_times() {
        let mut bytes = unhex(REAL);
        assert_eq!(decode(&bytes[1..]), None);
        bytes[0] = 2;
        assert_eq!(decode(&bytes), None);
    }

    #[test]
    fn times_move_forward_only_and_only_those_named() {
        let mut mdata = born(Timespec::new(10, 5));
        advance(&mut mdata, Timespec::new(9, 0), TimeFlags(7));
        assert_eq!(mdata, born(Timespec::new(10, 5)));
        advance(&mut mdata, Timespec::new(11, 0), TimeFlags::CTIME);
        assert_eq!((mdata.ctime.sec, mdata.mtime.sec), (11, 10));
    }

    #[test]
    fn the_parents_bits_are_the_higher_ones() {
        let create = TimeFlags(0x1f);
        assert_eq!(parent_flags(create), TimeFlags::CTIME.or(TimeFlags::MTIME));
    }
}
