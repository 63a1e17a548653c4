//! The free-space reserve and statfs.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use mortar_sys::{Result, file};
use mortar_types::fop::{Statfs, StatfsReply};
use mortar_types::keys::INTERNAL_FOP;
use mortar_types::{Context, Dict, Errno, Outcome, Statvfs};
use parking_lot::Mutex;

use super::brick::Brick;
use super::options::Reserve;

/// How long a measurement counts (GlusterFS looks every 5 s from a thread; here the first fop after that pays).
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Whether the reserve is reached, as of the last look.
#[derive(Default)]
pub(crate) struct Space {
    last: Mutex<Option<(Instant, bool)>>,
}

impl Brick {
    /// ENOSPC for a growing fop when only the reserve is left. Internal callers (heal, rebalance) may use it.
    pub(crate) fn check_space(&self, ctx: &Context, xdata: Option<&Dict>) -> Result<()> {
        if ctx.pid.is_internal() || xdata.is_some_and(|xdata| xdata.contains(INTERNAL_FOP)) || !self.is_full() {
            return Ok(());
        }
        Err(Errno::ENOSPC)
    }

    fn is_full(&self) -> bool {
        let mut last = self.space.last.lock();
        match *last {
            Some((when, full)) if when.elapsed() < CHECK_INTERVAL => full,
            _ => {
                // An unreadable file system is not a full one; the fop itself will say what is wrong.
                let full = file::statvfs(self.root.as_fd())
                    .is_ok_and(|figures| figures.bfree <= reserved_blocks(self.options.reserve, &figures));
                *last = Some((Instant::now(), full));
                full
            }
        }
    }

    pub(crate) fn statfs(&self, request: &Statfs) -> Outcome<StatfsReply> {
        self.node(request.gfid)?;
        let mut figures = file::statvfs(self.root.as_fd())?;
        let reserved = reserved_blocks(self.options.reserve, &figures);
        figures.bfree = figures.bfree.saturating_sub(reserved);
        figures.bavail = figures.bavail.saturating_sub(reserved);
        let share = self.options.shared_brick_count.max(1);
        for figure in [
            &mut figures.blocks,
            &mut figures.bfree,
            &mut figures.bavail,
            &mut figures.files,
            &mut figures.ffree,
            &mut figures.favail,
        ] {
            *figure /= share;
        }
        Ok(StatfsReply { statfs: figures, xdata: None })
    }
}

/// The reserve in blocks of the file system; 0 when there is none, so that a full file system is left to say so itself.
fn reserved_blocks(reserve: Reserve, figures: &Statvfs) -> u64 {
    match reserve {
        Reserve::Percent(percent) => (figures.blocks as f64 * percent / 100.0) as u64,
        Reserve::Bytes(bytes) => bytes / figures.frsize.max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_a_share_or_a_number_of_bytes() {
        let figures = Statvfs { blocks: 1000, frsize: 4096, ..Statvfs::default() };
        assert_eq!(reserved_blocks(Reserve::from_option(1.0), &figures), 10);
        assert_eq!(reserved_blocks(Reserve::from_option(0.0), &figures), 0);
        assert_eq!(reserved_blocks(Reserve::from_option(40_960.0), &figures), 10);
    }
}
