//! News from the volume for the kernel's caches: what other clients changed is forgotten here at once.
//!
//! A thread of its own tells the kernel, because the kernel may make the teller wait for a request of the same inode that
//! is under way. The volume's side never waits: orders go through a bounded queue, and when that overflows everything
//! that the kernel knows is invalidated instead.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use mortar_types::{Gfid, Upcall, UpcallSink};

use crate::bridge::Bridge;
use crate::changes::{Change, Changes};
use crate::kernel::device::Device;

/// `UP_*` of GlusterFS's `upcall-utils.h`.
mod up {
    pub(super) const NLINK: u32 = 0x1;
    pub(super) const SIZE: u32 = 0x8;
    pub(super) const TIMES: u32 = 0x10;
    pub(super) const RENAME: u32 = 0x80;
    pub(super) const FORGET: u32 = 0x100;
    pub(super) const EXPLICIT_LOOKUP: u32 = 0x1000;
}

/// Orders that wait; a burst of more is cheaper answered by forgetting everything.
const ORDERS_MAX: usize = 4096;

/// What to forget of an inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Order {
    gfid: Gfid,
    data: bool,
    entry: bool,
}

/// The volume's end of the queue.
#[derive(Debug)]
pub struct Invalidator {
    orders: SyncSender<Order>,
    overflow: Arc<AtomicBool>,
    /// Entries fetched ahead are not the kernel's yet, and must not bring back what it is about to forget.
    changes: Arc<Changes>,
}

impl Invalidator {
    /// Starts the thread. It ends when the sink is dropped or the mount is gone.
    pub fn start(device: Arc<Device>, bridge: Arc<Bridge>) -> io::Result<Arc<Self>> {
        let (orders, queue) = sync_channel(ORDERS_MAX);
        let overflow = Arc::new(AtomicBool::new(false));
        let changes = Arc::clone(bridge.changes());
        let teller = Teller { device, bridge, overflow: Arc::clone(&overflow) };
        std::thread::Builder::new().name("invalidate".into()).spawn(move || teller.run(&queue))?;
        Ok(Arc::new(Self { orders, overflow, changes }))
    }

    fn send(&self, order: Order) {
        if let Err(TrySendError::Full(_)) = self.orders.try_send(order) {
            self.overflow.store(true, Ordering::Release);
        }
    }
}

impl UpcallSink for Invalidator {
    fn upcall(&self, upcall: Upcall) {
        match upcall {
            Upcall::CacheInvalidation { gfid, flags, parent, old_parent, .. } => {
                let data = flags & (up::SIZE | up::TIMES) != 0;
                let known = |gfid: Gfid| (!gfid.is_null()).then_some(gfid);
                let inodes = [known(gfid), known(parent.gfid), known(old_parent.gfid)];
                self.changes.note(Change { inodes, ..Change::default() });
                let entry = flags & (up::NLINK | up::RENAME | up::FORGET | up::EXPLICIT_LOOKUP) != 0;
                self.send(Order { gfid, data, entry });
                for gfid in [parent.gfid, old_parent.gfid].into_iter().filter(|gfid| !gfid.is_null()) {
                    self.send(Order { gfid, data: true, entry: false });
                }
            }
            Upcall::Down => tracing::warn!("the volume is not available"),
            Upcall::Up => tracing::info!("the volume is available"),
            // Locks and leases are matters between layers below.
            Upcall::InodelkContention { .. } | Upcall::EntrylkContention { .. } | Upcall::RecallLease { .. } => {}
        }
    }
}

struct Teller {
    device: Arc<Device>,
    bridge: Arc<Bridge>,
    overflow: Arc<AtomicBool>,
}

impl Teller {
    fn run(&self, queue: &Receiver<Order>) {
        while let Ok(order) = queue.recv() {
            self.forget(order);
            if self.overflow.swap(false, Ordering::AcqRel) {
                while queue.try_recv().is_ok() {}
                for gfid in self.bridge.nodes().gfids() {
                    self.forget(Order { gfid, data: true, entry: true });
                }
            }
        }
    }

    fn forget(&self, order: Order) {
        let Some((node, place)) = self.bridge.nodes().find(order.gfid) else { return };
        // A negative offset spares the data.
        let offset = if order.data { 0 } else { -1 };
        // The kernel answers ENOENT for what it has already dropped.
        let _ = self.device.invalidate_inode(node.0, offset, 0);
        if let Some(place) = place.filter(|_| order.entry) {
            let _ = self.device.invalidate_entry(place.parent.0, &place.name);
        }
    }
}
