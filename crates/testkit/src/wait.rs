//! Waiting for a condition, never longer than said.

use std::time::{Duration, Instant};

/// Asks every 50 ms until `done` says yes; `false` when `limit` has passed.
pub fn until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
