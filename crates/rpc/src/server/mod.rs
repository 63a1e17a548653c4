//! Serves RPC programs on TCP and Unix sockets.
//!
//! ```text
//! Listener ── serve(Service) ──► Server           accept loop, shutdown
//!                 │ per connection
//!                 ▼
//!            Connection ◄── Session               callbacks, close │ programs, handle
//! ```
//!
//! A connection's task decodes calls and polls each handler once in place; one that is not ready waits in a set of the
//! connection, so replies come in any order. All replies that are ready in one wake-up leave in one write.

mod connection;
mod listener;
mod pulse;
mod session;

pub use connection::{Connection, Peer};
pub(crate) use listener::bind_unix_socket;
pub use listener::{Listener, Options, Server};
pub use mortar_wire::programs::Program;
pub use session::{IncomingCall, Response, Service, Session};
