//! Heartbeats: who answers, and who must learn that the pool has changed without it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::Peers;
use super::channel::{CallError, Line};
use crate::raft::View;

pub(crate) const HEARTBEAT: &str = "internal/heartbeat";

/// Two in a row may be late before the member counts as gone.
const INTERVAL: Duration = Duration::from_millis(500);
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1000);
/// Between attempts to reach a member that is away.
const RETRY: Duration = Duration::from_millis(300);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Heartbeat {
    pub from: Uuid,
    pub pool_id: Uuid,
    pub applied: u64,
}

/// What the asked member says of the asker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Standing {
    Member,
    /// It was detached while it was away.
    Removed,
    /// The pool was recovered without it; it may join again under the new id.
    Outdated,
    /// The two belong to different pools.
    Stranger,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeartbeatAnswer {
    pub pool_id: Uuid,
    pub applied: u64,
    pub standing: Standing,
}

/// Keeps a heartbeat to every other member of the configuration, until dropped. `on_standing` hears of answers that are
/// not "member".
pub(crate) async fn maintain(
    peers: Arc<Peers>,
    mut view: watch::Receiver<Arc<View>>,
    on_standing: Arc<dyn Fn(Uuid, HeartbeatAnswer) + Send + Sync>,
) {
    let mut tasks: HashMap<Uuid, Task> = HashMap::new();
    loop {
        let members: HashMap<Uuid, String> = {
            let view = view.borrow_and_update();
            let others = view.state.members.values().filter(|member| member.uuid != peers.local());
            others
                .map(|member| (member.uuid, format!("{}:{}", bracketed(&member.hostname), member.peer_port)))
                .collect()
        };
        tasks.retain(|uuid, _| members.contains_key(uuid));
        for (uuid, address) in members {
            peers.set_address(uuid, address);
            tasks.entry(uuid).or_insert_with(|| {
                let beating = beat(Arc::clone(&peers), uuid, view.clone(), Arc::clone(&on_standing));
                Task(tokio::spawn(beating))
            });
        }
        if view.changed().await.is_err() {
            return;
        }
    }
}

/// Ends with its handle.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// `host:port` wants IPv6 addresses in brackets.
fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

async fn beat(
    peers: Arc<Peers>,
    target: Uuid,
    view: watch::Receiver<Arc<View>>,
    on_standing: Arc<dyn Fn(Uuid, HeartbeatAnswer) + Send + Sync>,
) {
    let channel = peers.channel(target);
    loop {
        if let Ok(mut line) = channel.connect().await {
            while ask(&peers, target, &mut line, &view, &on_standing).await.is_ok() {
                tokio::select! {
                    () = tokio::time::sleep(INTERVAL) => {}
                    // A killed process's sockets close at once; nobody needs to wait for the next beat to see it.
                    () = line.ended() => break,
                }
            }
        }
        peers.lost(target);
        tokio::time::sleep(RETRY).await;
    }
}

async fn ask(
    peers: &Peers,
    target: Uuid,
    line: &mut Line,
    view: &watch::Receiver<Arc<View>>,
    on_standing: &Arc<dyn Fn(Uuid, HeartbeatAnswer) + Send + Sync>,
) -> Result<(), CallError> {
    let applied = view.borrow().applied_index;
    let request = Heartbeat { from: peers.local(), pool_id: peers.pool_id(), applied };
    let answer: HeartbeatAnswer = tokio::time::timeout(ANSWER_TIMEOUT, line.post(request.pool_id, HEARTBEAT, &request))
        .await
        .map_err(|_| CallError::Broken("no answer to a heartbeat".to_owned()))??;
    if answer.standing == Standing::Member && answer.pool_id == peers.pool_id() {
        peers.heard_from(target, answer.applied);
    } else {
        peers.lost(target);
        on_standing(target, answer);
    }
    Ok(())
}
