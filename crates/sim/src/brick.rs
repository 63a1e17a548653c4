//! A brick: the simulated disk under the real lock layer, and the sessions of its clients.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mortar_brick::locks::Locks;
use mortar_logic::locks::Config;
use mortar_types::{ClientId, Context, Fops, Outcome, Reply, Request, Upcall, UpcallSink};
use parking_lot::Mutex;

use crate::disk::Disk;

/// What clients of GlusterFS 10 say.
const OP_VERSION: u32 = 100_000;

pub struct Brick {
    pub id: usize,
    pub disk: Arc<Disk>,
    process: Mutex<Option<Process>>,
    next_client: AtomicU64,
}

struct Process {
    locks: Arc<Locks>,
    /// What to do for each client when the process dies.
    sessions: BTreeMap<ClientId, Arc<dyn Fn() + Send + Sync>>,
}

impl Brick {
    pub fn new(id: usize, disk: Arc<Disk>) -> Arc<Self> {
        let brick = Self { id, disk, process: Mutex::new(None), next_client: AtomicU64::new(1) };
        brick.start();
        Arc::new(brick)
    }

    pub fn is_running(&self) -> bool {
        self.process.lock().is_some()
    }

    pub fn start(&self) {
        let mut process = self.process.lock();
        if process.is_none() {
            let inner = Arc::clone(&self.disk) as Arc<dyn Fops>;
            let locks = Locks::new(inner, format!("sim:/{}", self.id), &Config::default());
            *process = Some(Process { locks, sessions: BTreeMap::new() });
        }
    }

    /// The process ends at once; `power_cut`: its host too.
    pub fn kill(&self, power_cut: bool) {
        let Some(process) = self.process.lock().take() else { return };
        self.disk.stop(power_cut);
        for client in process.sessions.keys() {
            process.locks.disconnect(*client);
        }
        for closed in process.sessions.values() {
            closed();
        }
    }

    /// A client's session; `None` when nobody listens. `closed` is called when the brick ends it.
    pub fn connect(&self, sink: Arc<dyn UpcallSink>, closed: impl Fn() + Send + Sync + 'static) -> Option<ClientId> {
        let mut process = self.process.lock();
        let process = process.as_mut()?;
        let client = ClientId(self.next_client.fetch_add(1, Ordering::Relaxed));
        process.locks.connect(client, OP_VERSION, sink);
        process.sessions.insert(client, Arc::new(closed));
        Some(client)
    }

    /// The brick notices that a client has gone.
    pub fn disconnect(&self, client: ClientId) {
        let locks = {
            let mut process = self.process.lock();
            let Some(process) = process.as_mut() else { return };
            if process.sessions.remove(&client).is_none() {
                return;
            }
            Arc::clone(&process.locks)
        };
        locks.disconnect(client);
        self.disk.close_all_of(client);
    }

    /// Begins a request of a session; `None` when there is no such session.
    pub fn accept(
        &self,
        client: ClientId,
        mut ctx: Context,
        request: Request,
    ) -> Option<impl Future<Output = Outcome<Reply>> + Send + 'static> {
        let process = self.process.lock();
        let process = process.as_ref()?;
        if !process.sessions.contains_key(&client) {
            return None;
        }
        ctx.client = client;
        let locks = Arc::clone(&process.locks);
        Some(async move { locks.call(&ctx, request).await })
    }

    pub fn has_session(&self, client: ClientId) -> bool {
        self.process.lock().as_ref().is_some_and(|process| process.sessions.contains_key(&client))
    }
}

/// Carries a brick's upcalls to a link.
pub struct ToLink<F: Fn(Upcall) + Send + Sync>(pub F);

impl<F: Fn(Upcall) + Send + Sync> UpcallSink for ToLink<F> {
    fn upcall(&self, upcall: Upcall) {
        (self.0)(upcall);
    }
}
