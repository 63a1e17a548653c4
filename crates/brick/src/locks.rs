//! The locks layer: answers the lock fops from the table in [`mortar_logic::locks`], adds lock counts to the replies of
//! others, and holds removals back while other clients hold inodelks.
//!
//! A request that must wait is a future on a one-shot channel; no table is locked while it waits. Clients are known by
//! their connection's number: [`Locks::connect`] before their first fop, [`Locks::disconnect`] after their last.

mod barrier;
mod compound;
mod counts;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mortar_logic::locks::{
    Action, Caller, ClearCommand, Config, Contention, Entrylk, Holder, Inodelk, LockTable, OnConflict, Posixlk, Ticket,
};
use mortar_types::fop::{
    AckReply, DictReply, EntrylkCmd, EntrylkType, Flock, Flush, LkReply, LockCmd, LockType, Release,
};
use mortar_types::{
    ClientId, Context, Dict, Errno, Fd, Fops, Gfid, Outcome, Reply, Request, Upcall, UpcallSink, Value,
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;
use tokio::time::Instant;

use barrier::Gate;
use compound::Compound;
use counts::Wanted;

/// Inodes are spread over so many tables, so that clients rarely meet at one mutex.
const SHARDS: usize = 16;

type Answer = Result<(), Errno>;

/// One table and the requests that wait in it.
struct Shard {
    table: LockTable,
    waiting: HashMap<Ticket, oneshot::Sender<Answer>>,
}

/// The layer over `inner`, which is the store.
pub struct Locks {
    inner: Arc<dyn Fops>,
    /// `HOST:PATH`, for the answer to clear-locks.
    brick: String,
    shards: Vec<Mutex<Shard>>,
    sinks: RwLock<HashMap<ClientId, Arc<dyn UpcallSink>>>,
    gate: Gate,
    next_ticket: AtomicU64,
    started: Instant,
}

impl Locks {
    pub fn new(inner: Arc<dyn Fops>, brick: String, config: &Config) -> Arc<Self> {
        let shard = || Mutex::new(Shard { table: LockTable::new(config.clone()), waiting: HashMap::new() });
        Arc::new(Self {
            inner,
            brick,
            shards: (0..SHARDS).map(|_| shard()).collect(),
            sinks: RwLock::new(HashMap::new()),
            gate: Gate::default(),
            next_ticket: AtomicU64::new(1),
            started: Instant::now(),
        })
    }

    /// Takes changed options.
    pub fn reconfigure(&self, config: &Config) {
        for shard in &self.shards {
            shard.lock().table.set_config(config.clone());
        }
    }

    /// Admits a client. `op_version` as it said at SETVOLUME; its contention notices go to `sink`.
    pub fn connect(&self, client: ClientId, op_version: u32, sink: Arc<dyn UpcallSink>) {
        self.sinks.write().insert(client, sink);
        for shard in &self.shards {
            shard.lock().table.client_connected(client, op_version);
        }
    }

    /// Frees everything that a client holds.
    pub fn disconnect(&self, client: ClientId) {
        self.sinks.write().remove(&client);
        for shard in &self.shards {
            self.run(shard, None, |table, now| table.client_gone(client, now));
        }
        self.gate.leave(client);
    }

    /// Drops the POSIX locks that came by an fd which is closed without a RELEASE of the client.
    pub fn release(&self, gfid: Gfid, client: ClientId, fd: Fd) {
        self.run(self.shard(gfid), None, |table, now| table.handle_release(gfid, client, fd, now));
    }

    fn shard(&self, gfid: Gfid) -> &Mutex<Shard> {
        // Gfids are random, so their last byte spreads them; a client that picks its own only makes itself wait.
        &self.shards[usize::from(gfid.0[15]) % SHARDS]
    }

    /// Runs one event and carries out what follows from it. The answer to `own` is given back instead of sent.
    fn run(
        &self,
        shard: &Mutex<Shard>,
        own: Option<Ticket>,
        event: impl FnOnce(&mut LockTable, Duration) -> Vec<Action>,
    ) -> Option<Result<Answer, oneshot::Receiver<Answer>>> {
        let mut answer = None;
        let mut woken = Vec::new();
        let mut notices = Vec::new();
        let mut shard = shard.lock();
        for action in event(&mut shard.table, self.started.elapsed()) {
            let (ticket, result) = match action {
                Action::Grant(ticket) => (ticket, Ok(())),
                Action::Deny(ticket, errno) => (ticket, Err(errno)),
                Action::Notify { client, contention } => {
                    notices.push((client, contention));
                    continue;
                }
            };
            if own == Some(ticket) {
                answer = Some(Ok(result));
            } else if let Some(waiter) = shard.waiting.remove(&ticket) {
                woken.push((waiter, result));
            }
        }
        if let (Some(ticket), None) = (own, &answer) {
            let (sender, receiver) = oneshot::channel();
            shard.waiting.insert(ticket, sender);
            answer = Some(Err(receiver));
        }
        drop(shard);
        for (waiter, result) in woken {
            // A waiter that is gone has been or will be cancelled; its lock goes with its client.
            let _ = waiter.send(result);
        }
        for (client, contention) in notices {
            self.notify(client, contention);
        }
        answer
    }

    /// Makes a request and waits for its answer.
    async fn ask(
        &self,
        gfid: Gfid,
        request: impl FnOnce(&mut LockTable, Ticket, Duration) -> Vec<Action> + Send,
    ) -> Answer {
        let ticket = Ticket(self.next_ticket.fetch_add(1, Ordering::Relaxed));
        let answer = self.run(self.shard(gfid), Some(ticket), |table, now| request(table, ticket, now));
        let receiver = match answer {
            Some(Ok(answer)) => return answer,
            Some(Err(receiver)) => receiver,
            None => return Err(Errno::EIO),
        };
        let mut waiter = Waiter { locks: self, gfid, ticket, answered: false };
        let answer = receiver.await;
        waiter.answered = true;
        answer.unwrap_or(Err(Errno::EIO))
    }

    fn notify(&self, client: ClientId, contention: Contention) {
        let sink = self.sinks.read().get(&client).cloned();
        let Some(sink) = sink else { return };
        sink.upcall(match contention {
            Contention::Inodelk { gfid, flock, domain } => Upcall::InodelkContention { gfid, flock, domain },
            Contention::Entrylk { gfid, kind, name, domain, pid: _ } => {
                Upcall::EntrylkContention { gfid, kind, name, domain }
            }
        });
    }

    async fn inodelk(
        &self,
        ctx: &Context,
        gfid: Gfid,
        cmd: LockCmd,
        kind: LockType,
        flock: Flock,
        domain: Bytes,
    ) -> Outcome<Reply> {
        let on_conflict = match cmd {
            LockCmd::Set => OnConflict::Fail,
            LockCmd::SetWait => OnConflict::Wait,
            _ => return Err(Errno::EOPNOTSUPP.into()),
        };
        if !ctx.pid.is_internal() && kind != LockType::Unlock {
            self.gate.enter(ctx.client).await;
        }
        // The flock in a request carries no owner; kept locks are small, a slice of a receive buffer is not.
        let flock = Flock { kind, ..flock };
        let domain = Bytes::copy_from_slice(&domain);
        let request = Inodelk { gfid, caller: caller(ctx), domain, flock };
        self.ask(gfid, |table, ticket, now| table.handle_inodelk(request, on_conflict, ticket, now)).await?;
        Ok(acknowledge())
    }

    async fn entrylk(
        &self,
        ctx: &Context,
        gfid: Gfid,
        cmd: EntrylkCmd,
        kind: EntrylkType,
        name: Option<Bytes>,
        domain: Bytes,
    ) -> Outcome<Reply> {
        let name = name.map(|name| Bytes::copy_from_slice(&name));
        let request = Entrylk { gfid, caller: caller(ctx), domain: Bytes::copy_from_slice(&domain), name, kind };
        self.ask(gfid, |table, ticket, now| match cmd {
            EntrylkCmd::Lock => table.handle_entrylk(request, OnConflict::Wait, ticket, now),
            EntrylkCmd::LockNonBlocking => table.handle_entrylk(request, OnConflict::Fail, ticket, now),
            EntrylkCmd::Unlock => table.handle_entrylk_unlock(request, ticket, now),
        })
        .await?;
        Ok(acknowledge())
    }

    async fn lk(&self, ctx: &Context, gfid: Gfid, fd: Fd, cmd: LockCmd, flock: Flock) -> Outcome<Reply> {
        let on_conflict = match cmd {
            LockCmd::Get => return self.get_lk(ctx, gfid, fd, flock),
            LockCmd::Set => OnConflict::Fail,
            LockCmd::SetWait => OnConflict::Wait,
            // Reservations exist in GlusterFS's code, but no client makes them.
            LockCmd::ReserveSet | LockCmd::ReserveSetWait | LockCmd::ReserveUnset => {
                return Err(Errno::EOPNOTSUPP.into());
            }
        };
        let request = Posixlk { gfid, caller: caller(ctx), fd, flock: flock.clone() };
        self.ask(gfid, |table, ticket, now| table.handle_posixlk(request, on_conflict, ticket, now)).await?;
        Ok(LkReply { flock: Flock { owner: ctx.lk_owner.clone(), ..flock }, xdata: None }.into())
    }

    fn get_lk(&self, ctx: &Context, gfid: Gfid, fd: Fd, flock: Flock) -> Outcome<Reply> {
        let request = Posixlk { gfid, caller: caller(ctx), fd, flock: flock.clone() };
        let conflict = self.shard(gfid).lock().table.posix_conflict(request)?;
        let flock = conflict.unwrap_or_else(|| Flock { kind: LockType::Unlock, owner: ctx.lk_owner.clone(), ..flock });
        Ok(LkReply { flock, xdata: None }.into())
    }

    /// FLUSH drops the caller's POSIX locks whatever the store says.
    async fn flush(&self, ctx: &Context, request: Flush) -> Outcome<Reply> {
        let gfid = request.gfid;
        let caller = caller(ctx);
        self.run(self.shard(gfid), None, |table, now| table.handle_flush(gfid, &caller, now));
        self.inner.call(ctx, request.into()).await
    }

    async fn release_fop(&self, ctx: &Context, request: Release) -> Outcome<Reply> {
        self.release(request.gfid, ctx.client, request.fd);
        self.inner.call(ctx, request.into()).await
    }

    fn clear(&self, gfid: Gfid, name: &Bytes, command: &ClearCommand) -> Outcome<Reply> {
        let mut cleared = None;
        self.run(self.shard(gfid), None, |table, now| {
            let (count, actions) = table.handle_clear(gfid, command, now);
            cleared = Some(count);
            actions
        });
        let summary = cleared.unwrap_or_default().summary(&self.brick, command.lock_type);
        let key = String::from_utf8_lossy(name).into_owned();
        let dict = Dict::new().with(key, Value::str(summary));
        Ok(DictReply { len: 0, dict: Some(dict), xdata: None }.into())
    }

    /// A fop that is not about locks: removals may wait, replies may carry counts.
    async fn pass(&self, ctx: &Context, mut request: Request) -> Outcome<Reply> {
        let Some(wanted) = Wanted::take(&mut request) else {
            return self.pass_removal(ctx, request).await;
        };
        let mut reply = self.pass_removal(ctx, request).await?;
        wanted.answer(self, &mut reply);
        Ok(reply)
    }
}

#[async_trait]
impl Fops for Locks {
    async fn call(&self, ctx: &Context, mut request: Request) -> Outcome<Reply> {
        if let Some(compound) = Compound::take(&mut request)? {
            return self.compound(ctx, request, compound).await;
        }
        match request {
            Request::Inodelk(r) => self.inodelk(ctx, r.gfid, r.cmd, r.kind, r.flock, r.domain).await,
            Request::Finodelk(r) => self.inodelk(ctx, r.gfid, r.cmd, r.kind, r.flock, r.domain).await,
            Request::Entrylk(r) => self.entrylk(ctx, r.gfid, r.cmd, r.kind, r.name, r.domain).await,
            Request::Fentrylk(r) => self.entrylk(ctx, r.gfid, r.cmd, r.kind, r.name, r.domain).await,
            Request::Lk(r) => self.lk(ctx, r.gfid, r.fd, r.cmd, Flock { kind: r.kind, ..r.flock }).await,
            Request::Flush(r) => self.flush(ctx, r).await,
            Request::Release(r) => self.release_fop(ctx, r).await,
            Request::Getxattr(ref r) => match clear_command(ctx, r.name.as_ref()) {
                Some((name, command)) => self.clear(r.gfid, name, &command?),
                None => self.pass(ctx, request).await,
            },
            Request::Fgetxattr(ref r) => match clear_command(ctx, r.name.as_ref()) {
                Some((name, command)) => self.clear(r.gfid, name, &command?),
                None => self.pass(ctx, request).await,
            },
            request => self.pass(ctx, request).await,
        }
    }

    fn subscribe(&self, sink: Arc<dyn UpcallSink>) {
        self.inner.subscribe(sink);
    }

    fn is_up(&self) -> bool {
        self.inner.is_up()
    }

    fn name(&self) -> &str {
        self.inner.name()
    }
}

/// Takes the request back when nobody waits for it any more.
struct Waiter<'a> {
    locks: &'a Locks,
    gfid: Gfid,
    ticket: Ticket,
    answered: bool,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        let Self { locks, gfid, ticket, .. } = *self;
        let shard = locks.shard(gfid);
        shard.lock().waiting.remove(&ticket);
        locks.run(shard, None, |table, now| table.cancel(gfid, ticket, now));
    }
}

fn caller(ctx: &Context) -> Caller {
    Caller { holder: Holder { client: ctx.client, owner: ctx.lk_owner.clone() }, pid: ctx.pid }
}

fn acknowledge() -> Reply {
    AckReply { xdata: None }.into()
}

fn clear_command<'a>(ctx: &Context, name: Option<&'a Bytes>) -> Option<(&'a Bytes, Result<ClearCommand, Errno>)> {
    let name = name?;
    let command = ClearCommand::parse(name, ctx.client, ctx.pid)?;
    Some((name, command.map_err(|_| Errno::EINVAL)))
}

#[cfg(test)]
mod tests;
