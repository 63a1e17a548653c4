//! How long answers take, and from when on one is late: the estimate of TCP's retransmission timer (RFC 6298, 2.2-2.3).

use std::time::Duration;

/// An answer is not late before this: what a scheduler or a disk takes now and then.
const LATE_MIN: Duration = Duration::from_millis(20);
/// One that takes longer is late, whatever was usual.
const LATE_MAX: Duration = Duration::from_millis(250);
/// Before anything is known.
const LATE_AT_FIRST: Duration = Duration::from_millis(100);

/// Microseconds throughout.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Latency {
    mean: Option<u32>,
    deviation: u32,
}

impl Latency {
    /// An answer took so long.
    pub fn record(&mut self, took: Duration) {
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX / 16).min(u32::MAX / 16);
        match self.mean {
            None => (self.mean, self.deviation) = (Some(took), took / 2),
            Some(mean) => {
                self.deviation = (3 * self.deviation + mean.abs_diff(took)) / 4;
                self.mean = Some((7 * mean + took) / 8);
            }
        }
    }

    /// The usual time; zero before the first answer.
    pub fn mean_us(&self) -> u32 {
        self.mean.unwrap_or_default()
    }

    /// From when on an answer is late.
    pub fn late_after(&self) -> Duration {
        let Some(mean) = self.mean else { return LATE_AT_FIRST };
        let late = u64::from(mean) + 4 * u64::from(self.deviation);
        Duration::from_micros(late).clamp(LATE_MIN, LATE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn steady_answers_make_a_short_limit_and_scattered_ones_a_long_one() {
        let mut latency = Latency::default();
        assert_eq!(latency.late_after(), LATE_AT_FIRST);
        for _ in 0..100 {
            latency.record(Duration::from_millis(30));
        }
        assert_eq!(latency.mean_us(), 30_000);
        assert!(latency.late_after() < Duration::from_millis(32), "{latency:?}");
        for number in 0..100 {
            latency.record(Duration::from_millis(if number % 2 == 0 { 5 } else { 55 }));
        }
        assert!(latency.late_after() > Duration::from_millis(100), "{latency:?}");
    }

    proptest! {
        #[test]
        fn the_mean_stays_within_what_was_seen(took in prop::collection::vec(0_u64..200_000_000, 1..100)) {
            let mut latency = Latency::default();
            for took in &took {
                latency.record(Duration::from_micros(*took));
            }
            let (least, most) = (*took.iter().min().unwrap(), *took.iter().max().unwrap());
            // Each step rounds down by less than one.
            prop_assert!(u64::from(latency.mean_us()) + 8 >= least && u64::from(latency.mean_us()) <= most);
            prop_assert!((LATE_MIN..=LATE_MAX).contains(&latency.late_after()));
        }
    }
}
