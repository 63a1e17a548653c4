//! Upcalls of the layers below become callbacks on the client's connection.

use std::sync::Arc;

use mortar_rpc::Procedure;
use mortar_rpc::server::Connection;
use mortar_types::{Upcall, UpcallSink};
use mortar_wire::callback::Callback;
use mortar_wire::programs::CALLBACK;
use mortar_wire::xdr::Writer;

use super::subdir::Root;

/// Where one client's upcalls go.
pub(super) struct ClientSink {
    pub(super) connection: Arc<Connection>,
    pub(super) root: Root,
}

impl UpcallSink for ClientSink {
    fn upcall(&self, mut upcall: Upcall) {
        if !self.root.is_whole() {
            self.hide_root(&mut upcall);
        }
        let callback = Callback::from(upcall);
        let mut out = Writer::new();
        callback.encode(&mut out);
        let procedure = Procedure::new(CALLBACK.number, CALLBACK.version, callback.procedure());
        self.connection.callback(procedure, out.into_inner());
    }
}

impl ClientSink {
    fn hide_root(&self, upcall: &mut Upcall) {
        match upcall {
            Upcall::Up | Upcall::Down => {}
            Upcall::InodelkContention { gfid, .. }
            | Upcall::EntrylkContention { gfid, .. }
            | Upcall::RecallLease { gfid, .. } => *gfid = self.root.outward(*gfid),
            Upcall::CacheInvalidation { gfid, stat, parent, old_parent, .. } => {
                *gfid = self.root.outward(*gfid);
                [stat, parent, old_parent].into_iter().for_each(|iatt| self.root.hide(iatt));
            }
        }
    }
}
