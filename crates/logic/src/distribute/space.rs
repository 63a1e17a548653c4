//! Room for new files: who is full, and who takes a file instead (`dht-diskusage.c`).

use mortar_types::{Statvfs, SubvolId, SubvolMap};

/// When a subvolume counts as full (`cluster.min-free-disk`, `cluster.min-free-inodes`).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Limits {
    pub free_disk: FreeDisk,
    /// Percent of all inodes.
    pub free_inodes: f64,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum FreeDisk {
    Percent(f64),
    Bytes(u64),
}

impl Default for Limits {
    fn default() -> Self {
        Self { free_disk: FreeDisk::Percent(10.0), free_inodes: 5.0 }
    }
}

/// What a subvolume has left.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Usage {
    pub free_percent: f64,
    pub free_bytes: u64,
    /// 100 where the file system has no fixed number of inodes.
    pub free_inodes_percent: f64,
    pub size_bytes: u64,
}

impl Usage {
    pub fn of(statfs: &Statvfs) -> Self {
        let unit = if statfs.frsize > 0 { statfs.frsize } else { statfs.bsize };
        let percent = |free: u64, all: u64| if all == 0 { 100.0 } else { free as f64 * 100.0 / all as f64 };
        Self {
            free_percent: percent(statfs.bavail, statfs.blocks),
            free_bytes: statfs.bavail.saturating_mul(unit),
            free_inodes_percent: percent(statfs.ffree, statfs.files),
            size_bytes: statfs.blocks.saturating_mul(unit),
        }
    }

    /// The weight of a subvolume when layouts are divided by size, MiB.
    pub const fn size_mib(&self) -> u64 {
        self.size_bytes.div_ceil(1 << 20)
    }

    fn has_room(&self, limits: &Limits) -> bool {
        match limits.free_disk {
            FreeDisk::Percent(percent) => self.free_percent >= percent,
            FreeDisk::Bytes(bytes) => self.free_bytes >= bytes,
        }
    }

    /// Takes no new files while others can (`dht_is_subvol_filled`).
    pub fn is_full(&self, limits: &Limits) -> bool {
        !self.has_room(limits) || self.free_inodes_percent < limits.free_inodes
    }
}

/// Who takes a new file: the hashed one while it has room, otherwise the candidate with the most room above the limits,
/// otherwise the one with the most room at all. `None` in `usages`: not known or not a candidate.
pub fn choose(hashed: SubvolId, usages: &SubvolMap<Option<Usage>>, limits: &Limits) -> SubvolId {
    if usages[hashed].is_some_and(|usage| !usage.is_full(limits)) {
        return hashed;
    }
    let known = || usages.iter().filter_map(|(id, usage)| usage.map(|usage| (id, usage)));
    let most = |candidates: &mut dyn Iterator<Item = (SubvolId, Usage)>| {
        candidates.max_by(|(_, a), (_, b)| a.free_percent.total_cmp(&b.free_percent)).map(|(id, _)| id)
    };
    most(&mut known().filter(|(_, usage)| !usage.is_full(limits)))
        .or_else(|| most(&mut known().filter(|(_, usage)| usage.free_inodes_percent > 0.0)))
        .unwrap_or(hashed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(percent: u64) -> Option<Usage> {
        Some(Usage::of(&Statvfs { frsize: 4096, blocks: 100, bavail: percent, ..Statvfs::default() }))
    }

    fn chosen(usages: &[Option<Usage>]) -> usize {
        choose(SubvolId(0), &usages.to_vec().into(), &Limits::default()).0
    }

    #[test]
    fn the_hashed_one_takes_files_until_it_is_full() {
        assert_eq!(chosen(&[usage(10), usage(90)]), 0);
        assert_eq!(chosen(&[usage(9), usage(20), usage(30)]), 2);
        assert_eq!(chosen(&[None, usage(20)]), 1);
        assert_eq!(chosen(&[None, None]), 0);
    }

    #[test]
    fn when_all_are_full_the_emptiest_takes_files() {
        assert_eq!(chosen(&[usage(3), usage(5), usage(4)]), 1);
    }

    #[test]
    fn limits_are_in_percent_or_bytes_and_inodes_count() {
        let limits = Limits { free_disk: FreeDisk::Bytes(50 * 4096), free_inodes: 5.0 };
        assert!(usage(49).unwrap().is_full(&limits) && !usage(50).unwrap().is_full(&limits));
        let few = Statvfs { frsize: 1, blocks: 10, bavail: 10, files: 100, ffree: 4, ..Statvfs::default() };
        assert!(Usage::of(&few).is_full(&Limits::default()));
        assert_eq!(Usage::of(&Statvfs { frsize: 4096, blocks: 257, ..Statvfs::default() }).size_mib(), 2);
    }
}
