//! Order among this client's own operations on one inode.
//!
//! Under a shared kept lock the bricks no longer keep two operations of this client apart, and without order each
//! brick could apply them in another one. A gate lets operations on disjoint keys pass side by side and queues those that
//! overlap, first come first served.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// What an operation needs for itself.
pub(super) trait Claim: Send + 'static {
    fn overlaps(&self, other: &Self) -> bool;
}

/// Bytes of a file; the end is exclusive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Range {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Range {
    pub(super) const ALL: Self = Self { start: 0, end: u64::MAX };

    pub(super) const fn from(start: u64) -> Self {
        Self { start, end: u64::MAX }
    }

    pub(super) const fn of(start: u64, len: u64) -> Self {
        Self { start, end: start.saturating_add(len) }
    }
}

impl Claim for Range {
    fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// A name in a directory, or all of them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Name {
    All,
    One(Bytes),
}

impl Claim for Name {
    fn overlaps(&self, other: &Self) -> bool {
        *self == Self::All || *other == Self::All || self == other
    }
}

#[derive(Debug)]
pub(super) struct Gate<C: Claim> {
    queue: Mutex<Queue<C>>,
}

#[derive(Debug)]
struct Queue<C: Claim> {
    next_id: u64,
    /// Who is inside.
    inside: Vec<(u64, C)>,
    /// Who waits, oldest first. Bounded by the callers' requests in flight.
    waiting: VecDeque<(u64, C, oneshot::Sender<Pass<C>>)>,
}

/// Being inside; leaving is dropping it.
#[derive(Debug)]
pub(super) struct Pass<C: Claim> {
    gate: Arc<Gate<C>>,
    id: u64,
}

impl<C: Claim> Gate<C> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { queue: Mutex::new(Queue { next_id: 0, inside: Vec::new(), waiting: VecDeque::new() }) })
    }

    pub(super) async fn enter(self: &Arc<Self>, claim: C) -> Pass<C> {
        let waiting = {
            let mut queue = self.queue.lock();
            let id = queue.next_id;
            queue.next_id += 1;
            let blocked = queue.inside.iter().any(|(_, other)| other.overlaps(&claim))
                || queue.waiting.iter().any(|(_, other, _)| other.overlaps(&claim));
            if !blocked {
                queue.inside.push((id, claim));
                return Pass { gate: Arc::clone(self), id };
            }
            let (wake, waiting) = oneshot::channel();
            queue.waiting.push_back((id, claim, wake));
            waiting
        };
        waiting.await.expect("the gate wakes everybody that it queued")
    }

    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.queue.lock().inside.is_empty()
    }

    fn leave(self: &Arc<Self>, id: u64) {
        // Passes of callers that gave up waiting: dropping one leaves again, so it must happen after unlocking.
        let mut given_up = Vec::new();
        let mut queue = self.queue.lock();
        queue.inside.retain(|(inside, _)| *inside != id);
        let mut still_waiting: VecDeque<(u64, C, oneshot::Sender<Pass<C>>)> = VecDeque::new();
        while let Some((id, claim, wake)) = queue.waiting.pop_front() {
            let blocked = queue.inside.iter().any(|(_, other)| other.overlaps(&claim))
                || still_waiting.iter().any(|(_, other, _)| other.overlaps(&claim));
            if blocked {
                still_waiting.push_back((id, claim, wake));
            } else {
                queue.inside.push((id, claim));
                if let Err(pass) = wake.send(Pass { gate: Arc::clone(self), id }) {
                    given_up.push(pass);
                }
            }
        }
        queue.waiting = still_waiting;
        drop(queue);
        drop(given_up);
    }
}

impl<C: Claim> Drop for Pass<C> {
    fn drop(&mut self) {
        self.gate.leave(self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn disjoint_ranges_pass_and_overlapping_ones_queue_in_order() {
        let gate = Gate::new();
        let first = gate.enter(Range::of(0, 10)).await;
        let _other = gate.enter(Range::of(10, 10)).await;
        let mut second = Box::pin(gate.enter(Range::of(5, 10)));
        assert!(second.as_mut().now_or_never().is_none());
        let mut third = Box::pin(gate.enter(Range::of(0, 6)));
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        assert!(second.as_mut().now_or_never().is_none(), "its end lies in the other range");
        assert!(third.as_mut().now_or_never().is_none(), "must not overtake the second");
    }

    #[tokio::test]
    async fn a_waiter_that_gives_up_blocks_nobody() {
        let gate = Gate::new();
        let first = gate.enter(Name::All).await;
        let mut second = Box::pin(gate.enter(Name::One(Bytes::from_static(b"a"))));
        assert!(second.as_mut().now_or_never().is_none());
        drop(second);
        drop(first);
        assert!(gate.enter(Name::All).now_or_never().is_some());
        assert!(gate.is_idle());
    }
}
