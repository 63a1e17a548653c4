//! Heal on access: what a client's replicate layer finds unequal is healed in the background, a few inodes at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use mortar_types::{Fops, Gfid};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::graph;
use crate::heal::entry::{self, Scope};
use crate::heal::set::{ReplicaSet, Session};
use crate::heal::{Error, inode, volfile};
use crate::replicate::HealHook;

/// Inodes healed at once (`cluster.background-self-heal-count`).
const PARALLEL_MAX: usize = 8;
/// Suspects that wait; more are dropped, since the index knows them anyway (`cluster.heal-wait-queue-length`).
const QUEUE_MAX: usize = 128;
/// One suspect is looked at no more often than this: what could not be healed now rarely can a moment later.
const PAUSE: Duration = Duration::from_secs(5);
/// Suspects remembered for [`PAUSE`].
const RECENT_MAX: usize = 4096;

/// What is suspected.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Suspect {
    Inode(Gfid),
    Name(Gfid, Bytes),
}

/// The healer of a client. Its task ends when it is dropped; a heal under way is finished.
pub struct Healer {
    queue: mpsc::Sender<Suspect>,
    recent: Mutex<HashMap<Suspect, Instant>>,
}

impl Healer {
    /// Must be called within a tokio runtime. `set`: the children of the layer that it is given to.
    pub fn spawn(set: ReplicaSet) -> Arc<Self> {
        let (queue, suspects) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(work(Arc::new(set), suspects));
        Arc::new(Self { queue, recent: Mutex::default() })
    }

    fn is_new(&self, suspect: &Suspect) -> bool {
        let now = Instant::now();
        let mut recent = self.recent.lock();
        if recent.get(suspect).is_some_and(|last| now.duration_since(*last) < PAUSE) {
            return false;
        }
        if recent.len() >= RECENT_MAX {
            recent.retain(|_, last| now.duration_since(*last) < PAUSE);
        }
        if recent.len() >= RECENT_MAX {
            return false;
        }
        recent.insert(suspect.clone(), now);
        true
    }
}

/// Gives every replica layer of a running graph a healer over the same bricks.
pub fn attach(sets: &[graph::ReplicaSet]) -> Result<(), volfile::Error> {
    for set in sets {
        let children: Vec<Arc<dyn Fops>> = set.bricks.iter().map(|brick| Arc::clone(brick) as Arc<dyn Fops>).collect();
        set.layer.set_heal_hook(Healer::spawn(volfile::replica_set(&set.section, children.into())?));
    }
    Ok(())
}

impl HealHook for Healer {
    fn suspect(&self, gfid: Gfid, parent: Gfid, name: &Bytes) {
        let by_name = (!parent.is_null() && !name.is_empty()).then(|| Suspect::Name(parent, name.clone()));
        let by_gfid = (!gfid.is_null()).then_some(Suspect::Inode(gfid));
        for suspect in by_name.into_iter().chain(by_gfid) {
            if self.is_new(&suspect) {
                // A full queue: the heal daemon will find it by the index.
                let _ = self.queue.try_send(suspect);
            }
        }
    }
}

async fn work(set: Arc<ReplicaSet>, mut suspects: mpsc::Receiver<Suspect>) {
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            suspect = suspects.recv(), if running.len() < PARALLEL_MAX => match suspect {
                Some(suspect) => running.push(heal(Arc::clone(&set), suspect)),
                None => break,
            },
            Some(()) = running.next() => {}
        }
    }
    while running.next().await.is_some() {}
}

async fn heal(set: Arc<ReplicaSet>, suspect: Suspect) {
    if !set.are_all_up() {
        return;
    }
    let result = match &suspect {
        Suspect::Inode(gfid) => inode::heal(&set, *gfid, Scope::Changed).await.map(|_| ()),
        Suspect::Name(parent, name) => heal_name(&set, *parent, name).await,
    };
    if let Err(error) = result {
        tracing::debug!(volume = %set.name, ?suspect, %error, "not healed on access");
    }
}

/// The name, and what it brought.
async fn heal_name(set: &ReplicaSet, parent: Gfid, name: &Bytes) -> Result<(), Error> {
    let healed = entry::heal_name(&Session::new(set), parent, name).await?;
    for gfid in healed.follow {
        inode::heal(set, gfid, Scope::Changed).await?;
    }
    healed.left.map_or(Ok(()), Err)
}
