//! Looking again when another client was faster.

use std::time::Duration;

/// Each time somebody has got on, so only a storm on the same names comes so far; then the operation fails.
const ATTEMPTS_MAX: u32 = 64;
/// From this attempt on it waits first, longer each time, so that not everybody comes at once again.
const PATIENT_FROM: u32 = 4;
const PATIENCE: Duration = Duration::from_millis(1);

/// The attempts of an operation that others may overtake.
#[derive(Default)]
pub(super) struct Attempts(u32);

impl Attempts {
    /// The number of the attempt that begins now, from 0; `None` when it is time to give up.
    pub(super) async fn next(&mut self) -> Option<u32> {
        let attempt = self.0;
        if attempt == ATTEMPTS_MAX {
            return None;
        }
        self.0 += 1;
        if attempt >= PATIENT_FROM {
            tokio::time::sleep(PATIENCE * attempt).await;
        }
        Some(attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_attempts_are_at_once_and_there_is_an_end() {
        let (mut attempts, begun) = (Attempts::default(), tokio::time::Instant::now());
        for number in 0..PATIENT_FROM {
            assert_eq!(attempts.next().await, Some(number));
        }
        assert!(begun.elapsed().is_zero());
        let mut more = 0;
        while attempts.next().await.is_some() {
            more += 1;
        }
        assert_eq!(more, ATTEMPTS_MAX - PATIENT_FROM);
        assert!(begun.elapsed() > Duration::from_secs(1) && begun.elapsed() < Duration::from_secs(5));
    }
}
