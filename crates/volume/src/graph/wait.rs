//! Waiting for a graph to come up, and knowing when that is in vain.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::select_all;

use super::Graph;
use crate::client::{BrickClient, ConnectError, State};

/// A mount does not wait longer than this for bricks whose host says that they do not run.
const NOT_RUNNING_GRACE: Duration = Duration::from_secs(1);

/// Why the top of a graph is not up.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WaitError {
    /// No brick can be reached, and waiting does not help; one of the reasons.
    #[error("{0}")]
    Hopeless(ConnectError),
    #[error("the bricks did not come up within {waited:?}: {}", last_error.as_ref().map_or_else(|| "no answer yet".to_owned(), ToString::to_string))]
    Timeout { waited: Duration, last_error: Option<ConnectError> },
}

impl Graph {
    /// Waits until the top serves and no brick is still making its first attempt, at most `timeout`.
    pub async fn wait_up(&self, timeout: Duration) -> Result<(), WaitError> {
        let start = Instant::now();
        let mut states: Vec<_> = self.bricks().iter().map(|brick| brick.state()).collect();
        loop {
            let now: Vec<State> = states.iter_mut().map(|state| state.borrow_and_update().clone()).collect();
            let connecting = now.contains(&State::Connecting);
            if self.top.is_up() && (!connecting || start.elapsed() >= NOT_RUNNING_GRACE) {
                return Ok(());
            }
            let waited = start.elapsed();
            if let Some(error) = hopeless(&now, waited) {
                return Err(WaitError::Hopeless(error));
            }
            if waited >= timeout {
                let last_error = now.iter().find_map(error_of);
                return Err(WaitError::Timeout { waited, last_error });
            }
            // Looked at again after a short time also without a change: the grace may have passed.
            let next = (timeout - waited).min(Duration::from_millis(100));
            let changes = states.iter_mut().map(|state| Box::pin(state.changed()));
            let _ = tokio::time::timeout(next, select_all(changes)).await;
        }
    }
}

/// Waits until every one of `bricks` is up, at most `timeout`; whether they all came.
pub(super) async fn all_up(bricks: &[Arc<BrickClient>], timeout: Duration) -> bool {
    let each = bricks.iter().map(|brick| {
        let mut state = brick.state();
        async move { state.wait_for(|state| *state == State::Up).await.is_ok() }
    });
    tokio::time::timeout(timeout, futures::future::join_all(each)).await.is_ok_and(|up| !up.contains(&false))
}

fn error_of(state: &State) -> Option<ConnectError> {
    match state {
        State::Down(error) => Some(error.clone()),
        State::Connecting | State::Up => None,
    }
}

/// The error of one brick when all have one that time does not cure.
fn hopeless(states: &[State], waited: Duration) -> Option<ConnectError> {
    let lasting = |error: &ConnectError| match error {
        ConnectError::AuthFailed { .. } | ConnectError::OtherVolume { .. } | ConnectError::WrongProgram { .. } => true,
        ConnectError::NotRunning { .. } => waited >= NOT_RUNNING_GRACE,
        _ => false,
    };
    let errors: Vec<ConnectError> = states.iter().filter_map(error_of).collect();
    // One refusal is enough: the others of the volume would refuse as well (GlusterFS's clients exit on the first).
    if let Some(refused) = errors.iter().find(|error| matches!(error, ConnectError::AuthFailed { .. })) {
        return Some(refused.clone());
    }
    let all = errors.len() == states.len() && errors.iter().all(lasting);
    if all { errors.into_iter().next() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_refusal_is_hopeless_a_brick_that_is_away_is_not() {
        let refused =
            ConnectError::AuthFailed { host: "h".into(), brick: "/b".into(), text: "Authentication failed".into() };
        let away = ConnectError::Timeout { endpoint: "h:1".into() };
        let stopped = ConnectError::NotRunning { host: "h".into(), brick: "/b".into() };
        let down = |error: &ConnectError| State::Down(error.clone());
        assert_eq!(hopeless(&[State::Connecting, down(&refused)], Duration::ZERO), Some(refused));
        assert_eq!(hopeless(&[down(&away), down(&stopped)], Duration::from_secs(9)), None);
        assert_eq!(hopeless(&[down(&stopped)], Duration::ZERO), None);
        assert_eq!(hopeless(&[down(&stopped)], NOT_RUNNING_GRACE), Some(stopped));
    }
}
