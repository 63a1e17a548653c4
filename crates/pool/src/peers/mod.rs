//! The other members: where they are, whether they answer, and how to ask them.

mod channel;
mod heartbeat;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

pub(crate) use channel::{CallError, Channel, POOL_HEADER, claim_call};
pub(crate) use heartbeat::{HEARTBEAT, Heartbeat, HeartbeatAnswer, Standing, maintain};

use crate::tls::Tls;

/// A member that has answered within this time counts as connected; one whose connection broke does not, at once.
pub(crate) const SILENCE_MAX: Duration = Duration::from_millis(1800);

/// The table of members.
#[derive(Debug)]
pub(crate) struct Peers {
    local: Uuid,
    tls: Arc<Tls>,
    known: Mutex<HashMap<Uuid, Known>>,
    /// Bumped whenever a member comes or goes, for those who wait for that.
    changes: watch::Sender<u64>,
    pool_id: Mutex<Uuid>,
}

#[derive(Debug, Default, Clone)]
struct Known {
    /// `host:port` of its pool port.
    address: Option<String>,
    heard: Option<Instant>,
    /// The last log entry it has applied, as it said.
    applied: u64,
}

impl Peers {
    pub(crate) fn new(local: Uuid, pool_id: Uuid, tls: Arc<Tls>) -> Arc<Self> {
        Arc::new(Self {
            local,
            tls,
            known: Mutex::new(HashMap::new()),
            changes: watch::Sender::new(0),
            pool_id: Mutex::new(pool_id),
        })
    }

    pub(crate) const fn local(&self) -> Uuid {
        self.local
    }

    pub(crate) fn pool_id(&self) -> Uuid {
        *self.pool_id.lock()
    }

    /// The node is in another pool now; nothing that was known counts.
    pub(crate) fn enter_pool(&self, pool_id: Uuid) {
        *self.pool_id.lock() = pool_id;
        self.known.lock().clear();
        self.changes.send_modify(|count| *count += 1);
    }

    /// Where a member is, unless that is known already.
    pub(crate) fn learn_address(&self, peer: Uuid, address: &str) {
        self.known.lock().entry(peer).or_default().address.get_or_insert_with(|| address.to_owned());
    }

    /// Where a member is, by the configuration, which counts more than what was learned.
    pub(crate) fn set_address(&self, peer: Uuid, address: String) {
        self.known.lock().entry(peer).or_default().address = Some(address);
    }

    fn address(&self, peer: Uuid) -> Option<String> {
        self.known.lock().get(&peer).and_then(|known| known.address.clone())
    }

    /// A connection to a member, made when first used and again when it breaks.
    pub(crate) fn channel(self: &Arc<Self>, target: Uuid) -> Channel {
        Channel::new(Arc::clone(self), target)
    }

    pub(crate) fn is_connected(&self, peer: Uuid) -> bool {
        peer == self.local
            || self
                .known
                .lock()
                .get(&peer)
                .and_then(|known| known.heard)
                .is_some_and(|heard| heard.elapsed() < SILENCE_MAX)
    }

    /// The last log entry that a member said it has applied.
    pub(crate) fn applied_by(&self, peer: Uuid) -> u64 {
        self.known.lock().get(&peer).map_or(0, |known| known.applied)
    }

    fn heard_from(&self, peer: Uuid, applied: u64) {
        let mut table = self.known.lock();
        let known = table.entry(peer).or_default();
        let news = known.heard.is_none() || known.applied != applied;
        known.heard = Some(Instant::now());
        known.applied = applied;
        drop(table);
        if news {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    fn lost(&self, peer: Uuid) {
        let had = self.known.lock().get_mut(&peer).and_then(|known| {
            // It may come back with an empty log.
            known.applied = 0;
            known.heard.take()
        });
        if had.is_some() {
            tracing::info!(%peer, "member disconnected");
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Fires when a member comes, goes or has applied more.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
