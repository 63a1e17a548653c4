//! The calling side of a connection.

mod calls;
mod connection;
mod driver;

pub use calls::CallError;
pub use connection::{Connection, Options};
pub use driver::{CloseReason, Events};
