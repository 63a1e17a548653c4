//! Signs of life from connections whose calls keep the server busy.
//!
//! Calls are performed where they came in. One that waits for a slow disk keeps its connection's task from answering pings,
//! and several keep all threads of the runtime. A thread of its own sees that and calls back with the procedure that means
//! nothing (`GF_CBK_NULL`): to the client any byte is a sign of life. Only to connections that asked for it, because GlusterFS's client logs a warning for each.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use mortar_types::ClientId;
use mortar_wire::header::Procedure;
use mortar_wire::programs;
use parking_lot::Mutex;

use super::connection::Connection;

/// A fraction of the second of silence that clients bear (`volume::client`).
const PERIOD: Duration = Duration::from_millis(200);
/// A call that has not ended after so long may never: others shall not vouch for the server because of it.
const BUSY_MAX: Duration = Duration::from_secs(10);

const NOTHING: Procedure =
    Procedure::new(programs::CALLBACK.number, programs::CALLBACK.version, programs::callback::NULL);

pub(super) type Connections = Mutex<HashMap<ClientId, Weak<Connection>>>;

/// Watches over `connections` until they are dropped.
pub(super) fn start(connections: &Arc<Connections>) {
    let connections = Arc::downgrade(connections);
    let watch = move || {
        while let Some(connections) = connections.upgrade() {
            look(&connections, Instant::now());
            drop(connections);
            std::thread::sleep(PERIOD);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("pulse".to_owned()).spawn(watch) {
        tracing::warn!(%error, "clients will take this process for dead when its disk is slow");
    }
}

fn look(connections: &Connections, now: Instant) {
    let all: Vec<Arc<Connection>> = connections.lock().values().filter_map(Weak::upgrade).collect();
    if all.iter().filter_map(|connection| connection.busy_for(now)).any(is_busy) {
        for connection in all.iter().filter(|connection| connection.wants_pulse()) {
            connection.callback(NOTHING, BytesMut::new());
        }
    }
}

/// Whether a task that has worked for so long at a stretch is one that waits for the disk.
fn is_busy(stretch: Duration) -> bool {
    (PERIOD..BUSY_MAX).contains(&stretch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_the_quick_nor_the_hanging_vouch_for_the_server() {
        assert!(!is_busy(Duration::from_millis(20)));
        assert!(is_busy(Duration::from_millis(900)) && is_busy(Duration::from_secs(9)));
        assert!(!is_busy(Duration::from_secs(11)));
    }
}
