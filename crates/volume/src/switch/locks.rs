//! POSIX locks over a change of the graph: what is held is taken again by the same owner before anybody else can ask, and
//! who waits goes on waiting.

use std::sync::Arc;

use mortar_types::fop::{Lk, LockCmd};
use mortar_types::{Context, Errno, Fd, Fops, Outcome, Reply, Value, keys};

use super::Core;

impl Core {
    /// Any lock request that does not wait. To be called inside the gate.
    pub(super) async fn lock(self: &Arc<Self>, top: &Arc<dyn Fops>, ctx: &Context, mut lk: Lk) -> Outcome<Reply> {
        let (own, asked) = (lk.fd, lk.clone());
        if !own.is_anonymous() {
            lk.fd = self.binding(top, own).await?.fd;
        }
        let outcome = top.call(ctx, lk.into()).await;
        if outcome.is_ok() {
            self.note(&asked);
        }
        outcome
    }

    /// Waits where it began. When the graph has changed meanwhile, the lock is taken in the new one as well before the
    /// caller hears of it; bricks that both graphs share have granted it to the same owner already.
    pub(super) async fn wait_for_lock(self: &Arc<Self>, ctx: &Context, lk: Lk) -> Outcome<Reply> {
        loop {
            let (graph, binding) = {
                let _pass = self.gate.enter().await;
                let graph = self.graph.load_full();
                let binding = match lk.fd.is_anonymous() {
                    true => None,
                    false => Some(self.binding(&graph.top, lk.fd).await?),
                };
                (graph, binding)
            };
            // The binding is held meanwhile: closing the file would end the wait.
            let fd = binding.as_ref().map_or(Fd::ANONYMOUS, |binding| binding.fd);
            let outcome = graph.top.call(ctx, Lk { fd, ..lk.clone() }.into()).await;
            let _pass = self.gate.enter().await;
            let now = self.graph.load_full();
            if Arc::ptr_eq(&now, &graph) {
                if outcome.is_ok() {
                    self.note(&lk);
                }
                return outcome;
            }
            match outcome {
                Ok(_) => match self.lock(&now.top, ctx, again(lk.clone())).await {
                    Ok(reply) => return Ok(reply),
                    Err(failure) => {
                        tracing::debug!(gfid = %lk.gfid, errno = %failure.errno, "waiting again for a granted lock");
                    }
                },
                Err(failure) if is_lost(failure.errno) => {}
                Err(failure) => return Err(failure),
            }
        }
    }

    fn note(&self, lk: &Lk) {
        if matches!(lk.cmd, LockCmd::Set | LockCmd::SetWait) {
            let flock = mortar_types::fop::Flock { kind: lk.kind, ..lk.flock.clone() };
            self.locks.lock().set(lk.gfid, lk.fd, &flock);
        }
    }
}

/// The request as one that asks for what its owner has already.
pub(super) fn again(mut lk: Lk) -> Lk {
    lk.cmd = LockCmd::Set;
    lk.xdata = Some(lk.xdata.unwrap_or_default().with(keys::LOCK_AGAIN, Value::Int(1)));
    lk
}

/// The graph in which it waited is gone, not the lock refused.
const fn is_lost(errno: Errno) -> bool {
    matches!(errno, Errno::ENOTCONN | Errno::EBADF | Errno::EBADFD | Errno::ESTALE)
}
