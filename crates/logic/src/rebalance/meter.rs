//! Rate and remaining time, from a few recent readings of a counter.

use std::collections::VecDeque;

/// Readings that the rate is taken over.
const READINGS_MAX: usize = 20;

/// The rate of something counted. Feed it at regular times.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    /// Time in milliseconds and the count then.
    readings: VecDeque<(u64, u64)>,
}

impl Meter {
    pub fn read(&mut self, now_ms: u64, count: u64) {
        if self.readings.len() == READINGS_MAX {
            self.readings.pop_front();
        }
        self.readings.push_back((now_ms, count));
    }

    /// Per second, over the readings kept.
    pub fn per_s(&self) -> f64 {
        let (Some((from_ms, from)), Some((to_ms, to))) = (self.readings.front(), self.readings.back()) else {
            return 0.0;
        };
        let time_ms = to_ms.saturating_sub(*from_ms);
        if time_ms == 0 { 0.0 } else { to.saturating_sub(*from) as f64 * 1000.0 / time_ms as f64 }
    }
}

/// Seconds until all directories are done, if those to come take as long as those behind: GlusterFS estimates by files, but
/// a tree's files are not known before it has been walked. `None` before anything can be said.
pub fn eta_s(elapsed_ms: u64, done: u64, known: u64) -> Option<u64> {
    if done == 0 {
        return None;
    }
    let left = known.saturating_sub(done);
    Some(elapsed_ms.saturating_mul(left) / done / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_of_the_last_readings() {
        let mut meter = Meter::default();
        assert_eq!(meter.per_s(), 0.0);
        for second in 0..100_u64 {
            meter.read(second * 1000, if second < 50 { 0 } else { (second - 50) * 7 });
        }
        assert!((meter.per_s() - 7.0).abs() < 1e-9);
    }

    #[test]
    fn the_end_is_as_far_as_the_beginning() {
        assert_eq!(eta_s(10_000, 0, 10), None);
        assert_eq!(eta_s(10_000, 5, 10), Some(10));
        assert_eq!(eta_s(10_000, 10, 10), Some(0));
    }
}
