//! One answer from several (`dht-helper.c` dht_iatt_merge, `dht-common.c` dht_statfs_cbk).

use mortar_types::{Iatt, Statvfs};

/// What callers see of a directory's size, whatever its bricks say.
const DIRECTORY_BYTES: u64 = 4096;
const DIRECTORY_BLOCKS: u64 = 8;

/// Adds another subvolume's view of a directory: the latest times, the larger owner, the last word on the rest.
pub fn directory(into: &mut Iatt, other: &Iatt) {
    if into.is_empty() {
        *into = *other;
    } else if !other.is_empty() {
        let before = *into;
        *into = *other;
        into.uid = before.uid.max(other.uid);
        into.gid = before.gid.max(other.gid);
        into.atime = before.atime.max(other.atime);
        into.mtime = before.mtime.max(other.mtime);
        into.ctime = before.ctime.max(other.ctime);
        into.nlink = before.nlink.max(other.nlink);
    }
    shown(into);
}

/// A directory as callers see it: its size must not depend on who was asked.
pub const fn shown(stat: &mut Iatt) {
    if stat.is_dir() {
        stat.size = DIRECTORY_BYTES;
        stat.blocks = DIRECTORY_BLOCKS;
    }
}

/// Owner and mode from the subvolume that keeps a directory's metadata.
pub const fn owner(into: &mut Iatt, keeper: &Iatt) {
    into.uid = keeper.uid;
    into.gid = keeper.gid;
    into.mode = keeper.mode;
}

/// The space of a volume: the sum, in the smallest block size.
pub fn statfs(parts: impl IntoIterator<Item = Statvfs>) -> Option<Statvfs> {
    let parts: Vec<Statvfs> = parts.into_iter().collect();
    let unit = parts.iter().map(block).filter(|unit| *unit > 0).min()?;
    let mut sum = *parts.first()?;
    (sum.blocks, sum.bfree, sum.bavail, sum.files, sum.ffree, sum.favail) = (0, 0, 0, 0, 0, 0);
    for part in &parts {
        let scaled = |blocks: u64| {
            u64::try_from(u128::from(blocks) * u128::from(block(part)) / u128::from(unit)).unwrap_or(u64::MAX)
        };
        sum.blocks = sum.blocks.saturating_add(scaled(part.blocks));
        sum.bfree = sum.bfree.saturating_add(scaled(part.bfree));
        sum.bavail = sum.bavail.saturating_add(scaled(part.bavail));
        sum.files = sum.files.saturating_add(part.files);
        sum.ffree = sum.ffree.saturating_add(part.ffree);
        sum.favail = sum.favail.saturating_add(part.favail);
        sum.namemax = sum.namemax.min(part.namemax);
    }
    (sum.bsize, sum.frsize) = (unit, unit);
    Some(sum)
}

const fn block(part: &Statvfs) -> u64 {
    if part.frsize > 0 { part.frsize } else { part.bsize }
}

#[cfg(test)]
mod tests {
    use mortar_types::Timespec;

    use super::*;

    #[test]
    fn a_directory_has_the_latest_times_and_one_size() {
        let stat = |sec, uid, mode: u32| Iatt {
            mode: 0o040_000 | mode,
            uid,
            size: 77,
            mtime: Timespec::new(sec, 0),
            nlink: 2,
            ..Iatt::default()
        };
        let mut merged = Iatt::default();
        directory(&mut merged, &stat(9, 3, 0o700));
        directory(&mut merged, &stat(5, 1, 0o755));
        assert_eq!((merged.mtime.sec, merged.uid, merged.mode, merged.size, merged.blocks), (9, 3, 0o040_755, 4096, 8));
        owner(&mut merged, &stat(0, 1, 0o711));
        assert_eq!((merged.uid, merged.mode), (1, 0o040_711));
    }

    #[test]
    fn space_is_summed_in_one_unit() {
        let part = |frsize, blocks| Statvfs {
            frsize,
            blocks,
            bavail: blocks / 2,
            files: 3,
            namemax: 255,
            ..Statvfs::default()
        };
        let sum = statfs([part(4096, 10), part(1024, 8)]).unwrap();
        assert_eq!((sum.frsize, sum.blocks, sum.bavail, sum.files, sum.namemax), (1024, 48, 24, 6, 255));
        assert_eq!(statfs([]), None);
    }
}
