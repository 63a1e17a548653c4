//! Which file a rebalance moves where (`dht-rebalance.c` gf_defrag_migrate_single_file, __check_file_has_hardlink,
//! __dht_check_free_space).

use mortar_types::SubvolId;

use super::space::{Limits, Usage};

/// A file as a rebalance meets it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct File {
    pub hashed: SubvolId,
    pub cached: SubvolId,
    pub size_bytes: u64,
    pub links: u32,
    /// POSIX locks are held on it.
    pub is_locked: bool,
}

/// What the rebalance was asked for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Order {
    /// `start force`: also where the target has less room than the source.
    pub force: bool,
    /// The file's place is being taken away (`remove-brick start`).
    pub leaves: bool,
    pub limits: Limits,
}

/// Why a file stays although it is not where its name lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Skip {
    /// Its other names would lose it.
    HardLinks,
    Locked,
    /// The target would be fuller than the source.
    WouldUnbalance,
    /// The target would run over its limit, or out of space.
    NoRoom,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It is where its name lies.
    Stay,
    Move {
        to: SubvolId,
    },
    Skip(Skip),
}

/// Subvolumes whose free space differs by no more are equally full: GlusterFS compares whole percents, too. Else the last
/// files of every rebalance would stay, only because half of the others have come before them.
const EVEN_PERCENT: f64 = 1.0;

/// Decides about one file; `None` for a usage that is not known, which stops nothing.
pub fn decide(file: &File, order: &Order, source: Option<Usage>, target: Option<Usage>) -> Decision {
    if file.hashed == file.cached {
        return Decision::Stay;
    }
    if file.is_locked {
        return Decision::Skip(Skip::Locked);
    }
    if file.links > 1 && !order.leaves {
        return Decision::Skip(Skip::HardLinks);
    }
    let Some(target) = target else { return Decision::Move { to: file.hashed } };
    let after = target.free_bytes.checked_sub(file.size_bytes).map(|free_bytes| Usage {
        free_percent: percent(free_bytes, target.size_bytes),
        free_bytes,
        ..target
    });
    let Some(after) = after else { return Decision::Skip(Skip::NoRoom) };
    if !order.force && !order.leaves {
        if after.is_full(&order.limits) {
            return Decision::Skip(Skip::NoRoom);
        }
        if let Some(source) = source {
            let left = percent(source.free_bytes.saturating_add(file.size_bytes), source.size_bytes);
            if left > after.free_percent + EVEN_PERCENT {
                return Decision::Skip(Skip::WouldUnbalance);
            }
        }
    }
    Decision::Move { to: file.hashed }
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 100.0 } else { part as f64 * 100.0 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: File = File { hashed: SubvolId(1), cached: SubvolId(0), size_bytes: 10, links: 1, is_locked: false };

    fn order() -> Order {
        Order { force: false, leaves: false, limits: Limits::default() }
    }

    const fn free(bytes: u64) -> Option<Usage> {
        Some(Usage {
            free_percent: bytes as f64 / 10.0,
            free_bytes: bytes,
            free_inodes_percent: 100.0,
            size_bytes: 1000,
        })
    }

    #[test]
    fn files_move_towards_room() {
        assert_eq!(decide(&FILE, &order(), free(200), free(900)), Decision::Move { to: SubvolId(1) });
        assert_eq!(decide(&FILE, &order(), free(900), free(200)), Decision::Skip(Skip::WouldUnbalance));
        let forced = Order { force: true, ..order() };
        assert_eq!(decide(&FILE, &forced, free(900), free(200)), Decision::Move { to: SubvolId(1) });
        assert_eq!(decide(&FILE, &forced, free(900), free(5)), Decision::Skip(Skip::NoRoom));
        assert_eq!(decide(&FILE, &order(), free(50), free(105)), Decision::Skip(Skip::NoRoom));
    }

    #[test]
    fn a_noise_of_space_stops_nothing() {
        assert_eq!(decide(&FILE, &order(), free(500), free(500)), Decision::Skip(Skip::WouldUnbalance));
        let small = File { size_bytes: 4, ..FILE };
        assert_eq!(decide(&small, &order(), free(500), free(500)), Decision::Move { to: SubvolId(1) });
    }

    #[test]
    fn hard_links_and_locks_stay_and_the_right_place_is_left() {
        let linked = File { links: 2, ..FILE };
        assert_eq!(decide(&linked, &order(), None, None), Decision::Skip(Skip::HardLinks));
        let leaving = Order { leaves: true, ..order() };
        assert_eq!(decide(&linked, &leaving, None, None), Decision::Move { to: SubvolId(1) });
        assert_eq!(decide(&File { is_locked: true, ..FILE }, &leaving, None, None), Decision::Skip(Skip::Locked));
        assert_eq!(decide(&File { hashed: SubvolId(0), ..linked }, &order(), None, None), Decision::Stay);
    }
}
