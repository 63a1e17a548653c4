//! What others feel of a job: a small question to the subvolumes, again and again, and the throttle that goes by how long
//! the answers take.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mortar_logic::rebalance::throttle::{Level, Throttle};
use mortar_types::fop::Stat;
use mortar_types::{Gfid, SubvolId};

use super::slots::Slots;
use super::tally::Tally;
use super::{Mover, Volume};

const EVERY: Duration = Duration::from_millis(40);
/// Over so many answers the throttle judges.
const WINDOW: usize = 25;

/// Asks for as long as it is polled.
pub(super) async fn probe(volume: Volume, level: Level, slots: Arc<Slots>, tally: Arc<Tally>) {
    let mut throttle = Throttle::new(level);
    let (mut asked, mut answers) = (0_usize, Vec::with_capacity(WINDOW));
    let mut tick = tokio::time::interval(EVERY);
    // Answers that are late say enough; asking faster afterwards would only add to it.
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let at = SubvolId(asked % volume.subvolumes.len().max(1));
        asked += 1;
        let begun = Instant::now();
        if Mover::new().must(&volume.subvolumes[at], Stat { gfid: Gfid::ROOT, xdata: None }).await.is_ok() {
            answers.push(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
        if asked.is_multiple_of(WINDOW) {
            if slots.were_used() {
                slots.allow(throttle.busy_window(&mut answers));
            } else {
                throttle.quiet_window(&mut answers);
            }
            answers.clear();
            tally.throttled(throttle.parallel(), throttle.last_p99_us(), throttle.quiet_p99_us());
            tally.tick();
        }
    }
}
