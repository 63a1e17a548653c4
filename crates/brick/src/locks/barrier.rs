//! The removal barrier's asynchronous half (the rule is in `mortar_logic::locks`).
//!
//! The barrier needs the victim's gfid, which costs a lookup. Where no *other* client has ever asked for an inodelk (one
//! mount and its heal daemon), nobody can be in the way, and the [`Gate`] lets removals through without one. A client's
//! first inodelk waits for the removals that were let through so.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use mortar_types::fop::Lookup;
use mortar_types::{ClientId, Context, Errno, Gfid, Outcome, Pid, Reply, Request};
use parking_lot::RwLock;
use tokio::sync::Notify;

use super::Locks;

#[derive(Default)]
pub(super) struct Gate {
    /// Clients that have asked for inodelks as ordinary callers; `true` once no removal runs that did not know of them.
    askers: RwLock<HashMap<ClientId, bool>>,
    /// Removals that run without the barrier.
    running: AtomicUsize,
    /// Told when `running` falls to zero.
    idle: Notify,
}

impl Gate {
    /// Registers a client before an inodelk of it.
    pub(super) async fn enter(&self, client: ClientId) {
        if self.askers.read().get(&client) == Some(&true) {
            return;
        }
        self.askers.write().entry(client).or_insert(false);
        loop {
            let idle = self.idle.notified();
            if self.running.load(Ordering::SeqCst) == 0 {
                break;
            }
            idle.await;
        }
        self.askers.write().insert(client, true);
    }

    pub(super) fn leave(&self, client: ClientId) {
        self.askers.write().remove(&client);
    }

    /// Lets a removal of the client pass when nobody else can hold an inodelk; until the pass is dropped others wait.
    fn pass(&self, client: ClientId) -> Option<Pass<'_>> {
        self.running.fetch_add(1, Ordering::SeqCst);
        let pass = Pass(self);
        let alone = self.askers.read().keys().all(|asker| *asker == client);
        alone.then_some(pass)
    }
}

struct Pass<'a>(&'a Gate);

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.0.running.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

/// Ends a removal in the table, also when its caller has gone.
struct Removal<'a> {
    locks: &'a Locks,
    gfid: Gfid,
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        let gfid = self.gfid;
        self.locks.run(self.locks.shard(gfid), None, |table, now| table.handle_removal_end(gfid, now));
    }
}

impl Locks {
    /// Passes a fop on; one that removes an inode waits for other clients' inodelks on it first.
    pub(super) async fn pass_removal(&self, ctx: &Context, request: Request) -> Outcome<Reply> {
        let Some((parent, name)) = victim_name(&request) else {
            return self.inner.call(ctx, request).await;
        };
        if let Some(_pass) = self.gate.pass(ctx.client) {
            return self.inner.call(ctx, request).await;
        }
        let Some(gfid) = self.victim(parent, name).await else {
            return self.inner.call(ctx, request).await;
        };
        let client = ctx.client;
        self.ask(gfid, |table, ticket, now| table.handle_removal_begin(gfid, client, ticket, now)).await?;
        let _removal = Removal { locks: self, gfid };
        self.inner.call(ctx, request).await
    }

    /// The inode under a name; `None` when there is none, or when it cannot be found out (then the fop will fail too).
    async fn victim(&self, parent: Gfid, name: Bytes) -> Option<Gfid> {
        let lookup = Lookup { gfid: Gfid::NULL, parent, flags: 0, name, xdata: None };
        let reply: Result<_, Errno> =
            self.inner.fop(&Context::internal(Pid(0)), lookup).await.map_err(|failure| failure.errno);
        Some(reply.ok()?.stat.gfid).filter(|gfid| !gfid.is_null())
    }
}

fn victim_name(request: &Request) -> Option<(Gfid, Bytes)> {
    match request {
        Request::Unlink(r) => Some((r.parent, r.name.clone())),
        Request::Rmdir(r) => Some((r.parent, r.name.clone())),
        Request::Rename(r) => Some((r.new_parent, r.new_name.clone())),
        _ => None,
    }
}
