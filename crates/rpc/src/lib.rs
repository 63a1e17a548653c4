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

/// What every GlusterFS listener answers, and a server here by itself.
pub mod dump {
    use mortar_wire::header::Procedure;
    use mortar_wire::programs::{DUMP as GF_DUMP, dump};

    pub const PROGRAM: u32 = GF_DUMP.number;
    pub const VERSION: u32 = GF_DUMP.version;
    /// Lists the programs served here.
    pub const DUMP: Procedure = Procedure::new(PROGRAM, VERSION, dump::DUMP);
    /// Answered on the reading task itself: clients take a late answer for a dead server.
    pub const PING: Procedure = Procedure::new(PROGRAM, VERSION, dump::PING);
}
