//! Lets operations pass, and holds new ones back while those inside end.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

#[derive(Default)]
pub(super) struct Gate {
    inside: AtomicUsize,
    closed: AtomicBool,
    opened: Notify,
    /// The last one has left a closed gate.
    empty: Notify,
}

/// One operation inside.
pub(super) struct Pass<'a>(&'a Gate);

/// The gate is closed until this is dropped.
pub(super) struct Closed<'a>(&'a Gate);

impl Gate {
    pub(super) async fn enter(&self) -> Pass<'_> {
        loop {
            // Counted before looking, so that who closes after the look sees the count.
            self.inside.fetch_add(1, Ordering::SeqCst);
            let pass = Pass(self);
            if !self.closed.load(Ordering::SeqCst) {
                return pass;
            }
            drop(pass);
            let opened = self.opened.notified();
            tokio::pin!(opened);
            opened.as_mut().enable();
            if self.closed.load(Ordering::SeqCst) {
                opened.await;
            }
        }
    }

    pub(super) fn close(&self) -> Closed<'_> {
        self.closed.store(true, Ordering::SeqCst);
        Closed(self)
    }
}

impl Closed<'_> {
    /// Waits until nobody is inside, at most `limit`; whether that is so.
    pub(super) async fn drained(&self, limit: Duration) -> bool {
        let drained = async {
            loop {
                let empty = self.0.empty.notified();
                tokio::pin!(empty);
                empty.as_mut().enable();
                if self.0.inside.load(Ordering::SeqCst) == 0 {
                    return;
                }
                empty.await;
            }
        };
        tokio::time::timeout(limit, drained).await.is_ok()
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.0.inside.fetch_sub(1, Ordering::SeqCst) == 1 && self.0.closed.load(Ordering::SeqCst) {
            self.0.empty.notify_waiters();
        }
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.closed.store(false, Ordering::SeqCst);
        self.0.opened.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_comes_while_it_is_closed_waits_and_who_is_inside_is_waited_for() {
        let gate = Arc::new(Gate::default());
        let inside = gate.enter().await;
        let closed = gate.close();
        assert!(!closed.drained(Duration::from_secs(1)).await);
        let late = Arc::clone(&gate);
        let late = tokio::spawn(async move { drop(late.enter().await) });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!late.is_finished());
        drop(inside);
        assert!(closed.drained(Duration::from_secs(1)).await);
        drop(closed);
        late.await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nobody_is_inside_a_drained_gate() {
        let (gate, busy) = (Arc::new(Gate::default()), Arc::new(AtomicUsize::new(0)));
        let workers: Vec<_> = (0..8)
            .map(|_| {
                let (gate, busy) = (Arc::clone(&gate), Arc::clone(&busy));
                tokio::spawn(async move {
                    for _ in 0..2000 {
                        let _pass = gate.enter().await;
                        busy.fetch_add(1, Ordering::SeqCst);
                        tokio::task::yield_now().await;
                        busy.fetch_sub(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        for _ in 0..200 {
            let closed = gate.close();
            assert!(closed.drained(Duration::from_secs(60)).await);
            assert_eq!(busy.load(Ordering::SeqCst), 0);
            tokio::task::yield_now().await;
            assert_eq!(busy.load(Ordering::SeqCst), 0);
            drop(closed);
            tokio::task::yield_now().await;
        }
        for worker in workers {
            worker.await.unwrap();
        }
    }
}
