//! How many files move at once: slots, whose number the throttle changes while they are in use.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::orders::Orders;

#[derive(Debug)]
pub(super) struct Slots {
    count: Mutex<Count>,
    changed: Notify,
}

#[derive(Debug)]
struct Count {
    taken: u32,
    allowed: u32,
    /// Taken since the last time that somebody asked.
    used: bool,
}

/// A file on its way.
pub(super) struct Slot(Arc<Slots>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.count.lock().taken -= 1;
        self.0.changed.notify_waiters();
    }
}

impl Slots {
    pub(super) fn new(allowed: u32) -> Arc<Self> {
        Arc::new(Self { count: Mutex::new(Count { taken: 0, allowed, used: false }), changed: Notify::new() })
    }

    /// Those taken beyond the new number are not given back before their files have moved.
    pub(super) fn allow(&self, allowed: u32) {
        self.count.lock().allowed = allowed;
        self.changed.notify_waiters();
    }

    /// Whether anything has moved since the last call.
    pub(super) fn were_used(&self) -> bool {
        let mut count = self.count.lock();
        let used = count.used || count.taken > 0;
        count.used = false;
        used
    }

    /// Waits for a slot, and while work is paused; `None` when it is to end.
    pub(super) async fn take(self: &Arc<Self>, orders: &Orders) -> Option<Slot> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if !orders.go().await {
                return None;
            }
            if self.try_take() {
                return Some(Slot(Arc::clone(self)));
            }
            tokio::select! {
                () = changed => {}
                () = orders.ended() => return None,
            }
        }
    }

    fn try_take(&self) -> bool {
        let mut count = self.count.lock();
        let free = count.taken < count.allowed;
        if free {
            count.taken += 1;
            count.used = true;
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn no_more_are_taken_than_allowed_and_one_given_back_is_taken_by_who_waits() {
        let (slots, orders) = (Slots::new(1), Orders::default());
        assert!(!slots.were_used());
        let first = slots.take(&orders).await;
        assert!(tokio::time::timeout(Duration::from_millis(10), slots.take(&orders)).await.is_err());
        let (second, ()) = tokio::join!(slots.take(&orders), async {
            tokio::task::yield_now().await;
            drop(first);
        });
        assert!(second.is_some() && slots.were_used());
        slots.allow(2);
        assert!(slots.take(&orders).await.is_some());
    }

    #[tokio::test]
    async fn who_waits_is_let_go_at_the_end() {
        let (slots, orders) = (Slots::new(0), Orders::default());
        let (none, ()) = tokio::join!(slots.take(&orders), async {
            tokio::task::yield_now().await;
            orders.give(mortar_api::rebalance::Control::Stop);
        });
        assert!(none.is_none());
    }
}
