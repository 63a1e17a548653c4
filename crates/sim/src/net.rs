//! Virtual time and the network: one queue of deliveries, worked off in one order.
//!
//! Messages of one direction of one link arrive in the order in which they were sent; those of different links overtake
//! each other as the seed wants. A stalled direction keeps what is sent until it flows again or the connection ends.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::rng::Rng;

type Job = Box<dyn FnOnce() + Send>;

struct Event {
    due: u64,
    order: u64,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.order) == (other.due, other.order)
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}

struct Queue {
    heap: BinaryHeap<Reverse<Event>>,
    jobs: HashMap<u64, Job>,
    next: u64,
    rng: Rng,
    /// One message in a hundred of any link takes up to so many ms more.
    spike_ms: u64,
}

/// The network and the clock of one simulation.
#[derive(Clone)]
pub struct Net {
    queue: Arc<Mutex<Queue>>,
    wake: Arc<Notify>,
    began: Instant,
}

impl Net {
    /// Starts delivering; must be called within the simulation's runtime.
    pub fn start(rng: Rng) -> Self {
        let queue = Queue { heap: BinaryHeap::new(), jobs: HashMap::new(), next: 0, rng, spike_ms: 0 };
        let net = Self { queue: Arc::new(Mutex::new(queue)), wake: Arc::new(Notify::new()), began: Instant::now() };
        tokio::spawn(net.clone().run());
        net
    }

    /// Since the beginning, in ms of virtual time.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub fn set_spikes(&self, spike_ms: u64) {
        self.queue.lock().spike_ms = spike_ms;
    }

    fn at(&self, due: u64, job: Job) {
        let mut queue = self.queue.lock();
        let order = queue.next;
        queue.next += 1;
        queue.heap.push(Reverse(Event { due, order }));
        queue.jobs.insert(order, job);
        drop(queue);
        self.wake.notify_one();
    }

    fn latency(&self) -> u64 {
        let mut queue = self.queue.lock();
        let spike = queue.spike_ms;
        let base = queue.rng.between(1, 4);
        if spike > 0 && queue.rng.chance(1) { base + queue.rng.below(spike) } else { base }
    }

    async fn run(self) {
        loop {
            let due = self.queue.lock().heap.peek().map(|Reverse(event)| event.due);
            let now = self.now_ms();
            match due {
                None => self.wake.notified().await,
                Some(due) if due > now => {
                    let at = self.began + Duration::from_millis(due);
                    tokio::select! {
                        biased;
                        () = self.wake.notified() => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                Some(_) => {
                    let job = {
                        let mut queue = self.queue.lock();
                        let event = queue.heap.pop();
                        event.and_then(|Reverse(event)| queue.jobs.remove(&event.order))
                    };
                    if let Some(job) = job {
                        job();
                    }
                    // What the delivery set off runs before the next one.
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

/// One direction of a connection.
pub struct Pipe {
    net: Net,
    state: Mutex<PipeState>,
}

struct PipeState {
    last_due: u64,
    stalled: bool,
    kept: Vec<Job>,
}

impl Pipe {
    pub fn new(net: &Net) -> Self {
        Self { net: net.clone(), state: Mutex::new(PipeState { last_due: 0, stalled: false, kept: Vec::new() }) }
    }

    /// Delivers after some latency, after everything sent before.
    pub fn send(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.state.lock();
        if state.stalled {
            state.kept.push(Box::new(job));
            return;
        }
        let due = (self.net.now_ms() + self.net.latency()).max(state.last_due);
        state.last_due = due;
        self.net.at(due, Box::new(job));
    }

    pub fn is_stalled(&self) -> bool {
        self.state.lock().stalled
    }

    pub fn stall(&self) {
        self.state.lock().stalled = true;
    }

    /// Flows again: what was kept comes now.
    pub fn flow(&self) {
        let kept = {
            let mut state = self.state.lock();
            state.stalled = false;
            std::mem::take(&mut state.kept)
        };
        for job in kept {
            self.send(job);
        }
    }

    /// The connection has ended: what is kept never comes.
    pub fn discard(&self) {
        self.state.lock().kept.clear();
    }
}
