//! Random file operations, each checked against a model in memory: what a file system must answer, and nothing else.
//!
//! [`run`] works in one directory for a while and then compares all of it. A failure names the seed, with which the same
//! operations come again.

mod model;
mod steps;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use self::steps::Stress;

/// Works in `root` (made new) until `span` has passed, compares everything, and leaves it there; how many operations.
/// For `stale` at most, a file's attributes may be older than the last change.
pub(crate) fn run(root: &Path, seed: u64, span: Duration, stale: Duration) -> Result<usize> {
    let story = || format!("random operations in {} with seed {seed}", root.display());
    std::fs::create_dir(root).with_context(story)?;
    let mut stress = Stress::new(root, seed, stale);
    let end = Instant::now() + span;
    let mut count = 0;
    while Instant::now() < end {
        stress.step().with_context(|| format!("{}, operation {count}", story()))?;
        count += 1;
    }
    stress.compare_all().with_context(|| format!("{}, after {count} operations", story()))?;
    Ok(count)
}

/// A small generator of numbers (SplitMix64): the same seed gives the same operations on every machine.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    /// One of several, if there is one.
    pub(crate) fn pick<T: Clone>(&mut self, among: &[T]) -> Option<T> {
        (!among.is_empty()).then(|| among[self.below(among.len())].clone())
    }

    /// Between 1 and `most` bytes, no two alike runs.
    pub(crate) fn bytes(&mut self, most: usize) -> Vec<u8> {
        let len = 1 + self.below(most);
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend(self.next().to_be_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}
