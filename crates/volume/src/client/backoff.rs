//! How long to wait before the next attempt to connect. Pure.

use std::time::Duration;

use super::connect::ConnectError;

/// None before the first attempt, then this, doubled up to the longest.
const FIRST: Duration = Duration::from_millis(100);
/// A host from which nothing comes: a few packets, which it gets the moment it is back.
const LONGEST_UNSEEN: Duration = Duration::from_millis(250);
/// A host that answers, or a brick that has just gone: an attempt is work for it.
const LONGEST_SEEN: Duration = Duration::from_millis(500);
/// An attempt will not fare better before somebody has done something about it (GlusterFS waits so long always).
const LONGEST_REFUSED: Duration = Duration::from_secs(3);

#[derive(Default, Debug)]
pub(super) struct Backoff {
    wait: Duration,
}

impl Backoff {
    /// The connection has lasted.
    pub(super) const fn succeeded(&mut self) {
        self.wait = Duration::ZERO;
    }

    /// The wait before the next attempt; `failed`: why the last one did, `None` when there was a connection.
    pub(super) fn next(&mut self, failed: Option<&ConnectError>) -> Duration {
        let longest = failed.map_or(LONGEST_SEEN, longest_after);
        let wait = self.wait.min(longest);
        self.wait = (wait * 2).clamp(FIRST, longest);
        wait
    }
}

const fn longest_after(error: &ConnectError) -> Duration {
    use ConnectError as E;
    match error {
        E::Timeout { .. } | E::Unreachable { .. } => LONGEST_UNSEEN,
        E::NotRunning { .. } | E::Broken { .. } | E::ChildDown => LONGEST_SEEN,
        E::AuthFailed { .. }
        | E::Refused { .. }
        | E::OtherVolume { .. }
        | E::WrongProgram { .. }
        | E::Protocol { .. } => LONGEST_REFUSED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(error: Option<&ConnectError>) -> Vec<u64> {
        let mut backoff = Backoff::default();
        (0..8).map(|_| u64::try_from(backoff.next(error).as_millis()).unwrap()).collect()
    }

    #[test]
    fn waits_double_up_to_what_the_failure_allows() {
        let unseen = ConnectError::Timeout { endpoint: "gfs2:24007".to_owned() };
        assert_eq!(waits(Some(&unseen)), [0, 100, 200, 250, 250, 250, 250, 250]);
        let refused =
            ConnectError::AuthFailed { host: "gfs2".to_owned(), brick: "/b".to_owned(), text: "no".to_owned() };
        assert_eq!(waits(Some(&refused)), [0, 100, 200, 400, 800, 1600, 3000, 3000]);
        assert_eq!(waits(None), [0, 100, 200, 400, 500, 500, 500, 500]);
    }

    #[test]
    fn who_was_refused_and_is_now_unseen_waits_the_shorter_time() {
        let refused = ConnectError::WrongProgram { endpoint: "gfs2:24007".to_owned() };
        let mut backoff = Backoff::default();
        for _ in 0..10 {
            backoff.next(Some(&refused));
        }
        assert_eq!(backoff.next(Some(&ConnectError::Timeout { endpoint: "gfs2:24007".to_owned() })), LONGEST_UNSEEN);
        backoff.succeeded();
        assert_eq!(backoff.next(None), Duration::ZERO);
    }
}
