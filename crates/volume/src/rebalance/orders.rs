//! What the admin wants of a running job.

use std::time::Duration;

use mortar_api::rebalance::Control;
use tokio::sync::watch;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    Go,
    Wait,
    End,
}

/// The order of the moment, and waiting for another one. Whoever was told to end ends.
#[derive(Debug)]
pub(super) struct Orders(watch::Sender<Order>);

impl Default for Orders {
    fn default() -> Self {
        Self(watch::Sender::new(Order::Go))
    }
}

impl Orders {
    pub(super) fn give(&self, control: Control) {
        let order = match control {
            Control::Pause => Order::Wait,
            Control::Resume => Order::Go,
            Control::Stop => Order::End,
        };
        self.0.send_if_modified(|now| {
            let changes = *now != Order::End && *now != order;
            if changes {
                *now = order;
            }
            changes
        });
    }

    pub(super) fn is_paused(&self) -> bool {
        *self.0.borrow() == Order::Wait
    }

    pub(super) fn is_ended(&self) -> bool {
        *self.0.borrow() == Order::End
    }

    /// Returns when work may go on (`true`) or is to end.
    pub(super) async fn go(&self) -> bool {
        // The sender is ours: it does not go away meanwhile.
        self.0.subscribe().wait_for(|order| *order != Order::Wait).await.is_ok_and(|order| *order == Order::Go)
    }

    /// Returns when work is to end.
    pub(super) async fn ended(&self) {
        let _ = self.0.subscribe().wait_for(|order| *order == Order::End).await;
    }

    /// Sleeps; `false` at once when work is to end.
    pub(super) async fn sleep(&self, time: Duration) -> bool {
        tokio::time::timeout(time, self.ended()).await.is_err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn paused_work_waits_and_ended_work_does_not_come_back() {
        let orders = Orders::default();
        assert!(orders.go().await);
        orders.give(Control::Pause);
        assert!(tokio::time::timeout(Duration::from_millis(10), orders.go()).await.is_err());
        assert!(orders.sleep(Duration::ZERO).await);
        orders.give(Control::Resume);
        assert!(orders.go().await);
        orders.give(Control::Stop);
        orders.give(Control::Resume);
        assert!(!orders.go().await && orders.is_ended());
        assert!(!orders.sleep(Duration::from_secs(600)).await);
    }
}
