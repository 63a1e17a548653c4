//! How many files move at once: as many as leave the bricks' answers to others quick.
//!
//! Every window of probe latencies gives one p99. While it stays below 1.3 times the quiet one, one more file may move at
//! once; when it does not, a third of them must wait. The quiet p99 is measured before the first file moves, and again
//! whenever nothing has moved for a window; it never counts as less than [`NOISE_US`], below which ratios mean nothing.

use serde::{Deserialize, Serialize};

/// `cluster.rebal-throttle`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Level {
    /// One file at a time, and none while others wait.
    Lazy,
    #[default]
    Normal,
    /// As many as may be, whatever others feel.
    Aggressive,
    /// So many, GlusterFS's number of threads.
    Fixed(u32),
}

impl Level {
    /// The option's value; a number is a number of threads. `None`: no such level.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "lazy" => Some(Self::Lazy),
            "normal" => Some(Self::Normal),
            "aggressive" => Some(Self::Aggressive),
            number => number.parse().ok().filter(|count| (1..=PARALLEL_MAX).contains(count)).map(Self::Fixed),
        }
    }

    const fn most(self) -> u32 {
        match self {
            Self::Lazy => 1,
            Self::Normal => 16,
            Self::Aggressive => PARALLEL_MAX,
            Self::Fixed(count) => count,
        }
    }
}

/// More files at once than this only wait for each other.
pub const PARALLEL_MAX: u32 = 64;

/// Scheduling noise, microseconds: a quiet p99 below counts as this.
pub const NOISE_US: u64 = 400;

/// Foreground p99 under rebalance, in tenths of the quiet one.
const ALLOWED_TENTHS: u64 = 13;

/// Feed it windows; ask it for [`Self::parallel`].
#[derive(Clone, PartialEq, Debug)]
pub struct Throttle {
    level: Level,
    quiet_p99_us: Option<u64>,
    last_p99_us: u64,
    parallel: u32,
}

impl Throttle {
    pub const fn new(level: Level) -> Self {
        let parallel = match level {
            Level::Aggressive => 16,
            Level::Fixed(count) => count,
            Level::Lazy => 1,
            Level::Normal => 2,
        };
        Self { level, quiet_p99_us: None, last_p99_us: 0, parallel }
    }

    pub const fn set_level(&mut self, level: Level) {
        self.level = level;
        self.parallel = if self.parallel < level.most() { self.parallel } else { level.most() };
        if let Level::Fixed(count) = level {
            self.parallel = count;
        }
    }

    /// A window in which nothing moved.
    pub fn quiet_window(&mut self, latencies_us: &mut [u64]) {
        if let Some(p99) = p99(latencies_us) {
            self.quiet_p99_us = Some(p99);
            self.last_p99_us = p99;
        }
    }

    /// A window in which files moved. Returns how many may from now on; 0: none until the next window.
    pub fn busy_window(&mut self, latencies_us: &mut [u64]) -> u32 {
        let Some(p99) = p99(latencies_us) else { return self.parallel };
        self.last_p99_us = p99;
        match self.level {
            Level::Aggressive => self.parallel = (self.parallel + 4).min(PARALLEL_MAX),
            Level::Fixed(count) => self.parallel = count,
            Level::Lazy => self.parallel = u32::from(!self.is_felt(p99)),
            Level::Normal if self.is_felt(p99) => self.parallel = (self.parallel * 2 / 3).max(1),
            Level::Normal => self.parallel = (self.parallel.max(1) + 1).min(self.level.most()),
        }
        self.parallel
    }

    fn is_felt(&self, p99: u64) -> bool {
        self.quiet_p99_us.is_some_and(|quiet| p99 * 10 > quiet.max(NOISE_US) * ALLOWED_TENTHS)
    }

    pub const fn parallel(&self) -> u32 {
        self.parallel
    }

    pub fn quiet_p99_us(&self) -> u64 {
        self.quiet_p99_us.unwrap_or(0)
    }

    pub const fn last_p99_us(&self) -> u64 {
        self.last_p99_us
    }
}

fn p99(latencies: &mut [u64]) -> Option<u64> {
    latencies.sort_unstable();
    let last = latencies.len().checked_sub(1)?;
    Some(latencies[last * 99 / 100])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(quiet: u64) -> Throttle {
        let mut throttle = Throttle::new(Level::Normal);
        throttle.quiet_window(&mut [quiet; 20]);
        throttle
    }

    #[test]
    fn it_speeds_up_while_nobody_feels_it() {
        let mut throttle = normal(1000);
        let steps: Vec<u32> = (0..20).map(|_| throttle.busy_window(&mut [1200; 20])).collect();
        assert!(steps.is_sorted());
        assert_eq!(steps.last(), Some(&16));
    }

    #[test]
    fn it_slows_down_when_others_wait_but_never_stops() {
        let mut throttle = normal(1000);
        for _ in 0..20 {
            throttle.busy_window(&mut [900; 20]);
        }
        let steps: Vec<u32> = (0..20).map(|_| throttle.busy_window(&mut [1400; 20])).collect();
        assert_eq!((steps[0], steps[19]), (10, 1));
    }

    #[test]
    fn a_lazy_one_waits_for_quiet() {
        let mut throttle = Throttle::new(Level::Lazy);
        throttle.quiet_window(&mut [1000; 10]);
        assert_eq!(throttle.busy_window(&mut [2000; 10]), 0);
        assert_eq!(throttle.busy_window(&mut [1000; 10]), 1);
    }

    #[test]
    fn noise_is_not_felt() {
        let mut throttle = normal(50);
        assert_eq!(throttle.busy_window(&mut [300; 10]), 3);
    }

    #[test]
    fn an_aggressive_one_never_yields() {
        let mut throttle = Throttle::new(Level::Aggressive);
        throttle.quiet_window(&mut [100; 10]);
        assert!(throttle.busy_window(&mut [1_000_000; 10]) >= 16);
    }

    #[test]
    fn a_window_without_samples_changes_nothing() {
        let mut throttle = normal(100);
        assert_eq!(throttle.busy_window(&mut []), 2);
    }

    #[test]
    fn levels_are_words_or_numbers() {
        assert_eq!(Level::parse("lazy"), Some(Level::Lazy));
        assert_eq!(Level::parse("4"), Some(Level::Fixed(4)));
        assert_eq!((Level::parse("0"), Level::parse("fast")), (None, None));
    }
}
