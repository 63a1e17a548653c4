//! Changing over to the graph of another volfile.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use mortar_types::fop::{Lk, LockCmd};
use mortar_types::{Context, Fd, Fops, Outcome, Upcall};
use mortar_wire::volfile::Volfile;

use super::files::{Binding, File};
use super::{Core, Switch, listing, locks};
use crate::graph::{Graph, GraphError, Plan, ReplicaSet, is_same};

/// Files opened in the new graph at a time.
const OPENS_AT_A_TIME: usize = 64;

/// How long the steps of a change may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// New bricks may take so long to connect; then the graph is used without them.
    pub connect: Duration,
    /// Operations under way may take so long to end; otherwise all goes on as before, and the change is to be tried again.
    pub drain: Duration,
    /// Bricks may take so long to take kept locks back, and to open what is open; what is left is done when it is needed.
    pub migrate: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), drain: Duration::from_secs(2), migrate: Duration::from_secs(5) }
    }
}

/// What a new volfile came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// It is in use already.
    Unchanged,
    Changed,
}

/// Why the graph stays the old one.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// To be tried again.
    #[error("operations under way did not end within {0:?}")]
    Busy(Duration),
}

impl Switch {
    /// Changes over to the graph of `volfile`. Applications go on meanwhile and see no error.
    pub async fn take(&self, volfile: &Volfile) -> Result<Taken, TakeError> {
        let _one = self.taking.lock().await;
        let before = self.graph();
        if before.volfile() == volfile {
            return Ok(Taken::Unchanged);
        }
        let plan = before.plan(volfile)?;
        if !plan.wait_new_up(self.limits.connect).await {
            tracing::warn!("not all new bricks can be reached; the changed volume is used without them until they can");
        }
        let core = &self.core;
        let closed = core.gate.close();
        if !closed.drained(self.limits.drain).await {
            return Err(TakeError::Busy(self.limits.drain));
        }
        let after = core.change(&before, plan, self.limits.migrate).await?;
        if let Err(error) = after.heal_new_on_access(&before) {
            tracing::warn!(%error, "what this mount finds unequal waits for the healer");
        }
        core.graph.store(Arc::new(after));
        drop(closed);
        match (before.top.is_up(), self.is_up()) {
            (false, true) => core.tell(Upcall::Up),
            (true, false) => core.tell(Upcall::Down),
            _ => {}
        }
        Ok(Taken::Changed)
    }
}

impl Core {
    /// Nobody is inside. The old graph gives back what it keeps, the new one is put together, and gets what is open.
    async fn change(self: &Arc<Self>, before: &Graph, plan: Plan, limit: Duration) -> Result<Graph, GraphError> {
        join_all(plan.replaced(before).map(|set| quiesce(set, limit))).await;
        let after = plan.finish(Some(before))?;
        if !is_same(&before.top, &after.top) {
            self.listen_to(&after.top);
            let files = futures::stream::iter(self.files.all());
            let moved = files.for_each_concurrent(OPENS_AT_A_TIME, |(fd, file)| {
                let top = &after.top;
                async move {
                    if let Err(failure) = self.take_over(top, fd, &file).await {
                        tracing::warn!(gfid = %file.gfid, errno = %failure.errno, "not opened in the changed volume yet");
                    }
                }
            });
            if tokio::time::timeout(limit, moved).await.is_err() {
                tracing::warn!("bricks are slow to open files again; the rest is opened when it is used");
            }
        }
        tracing::debug!(serial = self.serial.load(Ordering::Relaxed), "another graph serves");
        Ok(after)
    }

    /// Opens at `top` what is open in an older graph, with its locks and the place of its listing; closes it there.
    pub(super) async fn take_over(
        self: &Arc<Self>,
        top: &Arc<dyn Fops>,
        fd: Fd,
        file: &Arc<File>,
    ) -> Outcome<Arc<Binding>> {
        let old = file.binding();
        if file.is_directory() && file.listing.lock().is_under_way() {
            listing::remember(&file.listing, old.top(), file.gfid, old.fd).await?;
        }
        let new = file.open_at(top).await?;
        let held = self.locks.lock().through(file.gfid, fd);
        for held in held {
            let ctx = Context::default().with_owner(held.flock.owner.clone());
            let (gfid, kind) = (held.gfid, held.flock.kind);
            let lk = Lk { gfid, fd: new.fd, cmd: LockCmd::Set, kind, flock: held.flock, xdata: None };
            if let Err(failure) = top.call(&ctx, locks::again(lk).into()).await {
                tracing::error!(%gfid, errno = %failure.errno, "a lock could not be taken in the changed volume");
            }
        }
        Ok(file.rebind(new))
    }
}

/// Gives back what a set keeps. A brick that does not answer keeps it until the connection ends, like that of a client
/// that is gone.
async fn quiesce(set: &ReplicaSet, limit: Duration) {
    if tokio::time::timeout(limit, set.layer.quiesce()).await.is_err() {
        tracing::warn!(set = %set.section.name, "a brick does not take kept locks back");
    }
}
