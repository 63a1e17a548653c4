//! Control sockets: how the node's daemon asks the processes it supervises.
//!
//! One JSON object per line, a request and then its reply, on a Unix socket; the daemon keeps one connection open to
//! each process, and its end of file means that the process has died.

mod client;
mod line;
mod message;
mod server;

pub use client::{Client, Error};
pub use message::{Crawl, HealProgress, Reply, Request, StatusReply, SubvolumeCrawls};
pub use server::{Handler, Server, serve};

/// The longest line, either way. A status with clients has some hundred bytes per client.
pub const LINE_BYTES_MAX: usize = 4 << 20;
