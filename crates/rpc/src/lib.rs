//! ONC RPC as GlusterFS speaks it, over TCP and Unix sockets: servers, clients, control sockets.
//!
//! Both ends keep one task per connection that decodes records; whoever has something to send writes it to the socket
//! at once, under a short lock, and leaves to that task only what the socket does not take. So a call costs one system
//! call to send and no hop between tasks.
#![forbid(unsafe_code)]

pub mod client;
pub mod control;
mod outbox;
pub mod server;
mod socket;

pub use mortar_wire::auth::Kind as AuthKind;
pub use mortar_wire::header::Procedure;
pub use socket::{Endpoint, Keepalive};

/// Program and procedures that every GlusterFS listener answers (`rpc/rpc-lib/src/protocol-common.h`, GF-DUMP).
pub mod dump {
    use mortar_wire::header::Procedure;

    pub const PROGRAM: u32 = 123_451_501;
    pub const VERSION: u32 = 1;
    /// Lists the programs served here.
    pub const DUMP: Procedure = Procedure::new(PROGRAM, VERSION, 1);
    /// Answered on the reading task itself: clients take a late answer for a dead server.
    pub const PING: Procedure = Procedure::new(PROGRAM, VERSION, 2);
}
