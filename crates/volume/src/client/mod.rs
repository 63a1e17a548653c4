//! The bottom of a client's stack (GlusterFS's `protocol/client`): one brick behind a connection that comes back.
//!
//! ```text
//!            ┌────────────── wait 0, 100 ms … 3 s ◄───────────────┐
//!            ▼                                                    │
//!   glusterd:24007 ── DUMP, PORTBYBRICK ──► brick port ── DUMP, SETVOLUME ── open fds again ── Up ── closed: Down
//! ```
//!
//! Fds handed out here are numbers of this layer; each keeps what it needs to be opened again (gfid, flags) and its
//! number on the connection of the moment.

mod backoff;
mod brick;
mod connect;
mod fds;
mod link;
mod locks;
mod options;

#[cfg(test)]
mod tests;

pub use brick::BrickClient;
pub use connect::ConnectError;
pub(crate) use fds::fds_of;
pub use options::{GLUSTERD_PORT, Identity, Options, OptionsError};

/// How far the connection is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// The first attempt is under way.
    Connecting,
    Up,
    /// Not connected, or the brick behind the connection does not serve; attempts go on.
    Down(ConnectError),
}
