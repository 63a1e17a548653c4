//! Connections to volumes' bricks for questions about heal, kept from one question to the next: such questions come in
//! series, and every new connection is a line in each brick's log.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mortar_api::{Error, ErrorKind};
use mortar_logic::pool::Volume;
use mortar_volume::client::State;
use mortar_volume::graph::{Graph, GraphOptions};
use mortar_wire::volfile::Volfile;
use parking_lot::Mutex;

use crate::node::Node;
use crate::volgen;

/// A brick that has not accepted the connection by then is told as not connected.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Connections that no question has used for so long are closed.
const KEPT_IDLE: Duration = Duration::from_secs(30);

/// The connections of one node's daemon, by volume.
#[derive(Default)]
pub(crate) struct Connections(Arc<Mutex<HashMap<String, Kept>>>);

struct Kept {
    volfile: String,
    graph: Arc<Graph>,
    used: Instant,
}

impl Connections {
    /// Connections to the volume's bricks, each up or given up on.
    ///
    /// # Errors
    /// When the volume does not heal, or its own volfile cannot be run.
    pub(crate) async fn graph(&self, node: &Node, volume: &Volume) -> Result<Arc<Graph>, Error> {
        let internal = |error: &dyn std::fmt::Display| Error::new(ErrorKind::Internal, error.to_string());
        let text = volgen::self_heal_daemon(volume)
            .ok_or_else(|| Error::new(ErrorKind::Invalid, format!("Volume {} does not heal", volume.name)))?;
        if let Some(kept) = self.kept(&volume.name, &text) {
            return Ok(kept);
        }
        let volfile: Volfile = Volfile::parse(&text).map_err(|error| internal(&error))?;
        let mut options = GraphOptions::new("glfsheal", format!("shd/{}", volume.name));
        options.glusterd_port = Some(node.options.port);
        let graph = Arc::new(Graph::build(&volfile, options).map_err(|error| internal(&error))?);
        settle_connections(&graph).await;
        if are_all_up(&graph) {
            self.keep(volume.name.clone(), text, Arc::clone(&graph));
        }
        Ok(graph)
    }

    /// A graph with a brick that is away is not used again: its next attempt may be later than the question.
    fn kept(&self, volume: &str, text: &str) -> Option<Arc<Graph>> {
        let mut by_volume = self.0.lock();
        let kept = by_volume.get_mut(volume)?;
        if kept.volfile != text || !are_all_up(&kept.graph) {
            by_volume.remove(volume);
            return None;
        }
        kept.used = Instant::now();
        Some(Arc::clone(&kept.graph))
    }

    fn keep(&self, volume: String, volfile: String, graph: Arc<Graph>) {
        let used = Instant::now();
        self.0.lock().insert(volume.clone(), Kept { volfile, graph, used });
        let kept = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(KEPT_IDLE).await;
                let Some(kept) = kept.upgrade() else { return };
                let mut by_volume = kept.lock();
                let is_idle = by_volume.get(&volume).is_none_or(|kept| kept.used.elapsed() >= KEPT_IDLE);
                if is_idle {
                    by_volume.remove(&volume);
                    return;
                }
            }
        });
    }
}

fn are_all_up(graph: &Graph) -> bool {
    graph.bricks().iter().all(|brick| matches!(*brick.state().borrow(), State::Up))
}

/// Waits until each brick has accepted or refused.
async fn settle_connections(graph: &Graph) {
    let waits = graph.bricks().iter().map(|brick| {
        let mut state = brick.state();
        async move {
            // A client that is gone is as good as one that refused.
            let _ = state.wait_for(|state| !matches!(state, State::Connecting)).await;
        }
    });
    // Who is late is told as not connected.
    let _ = tokio::time::timeout(CONNECT_TIMEOUT, futures::future::join_all(waits)).await;
}
