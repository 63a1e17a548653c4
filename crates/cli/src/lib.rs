//! The command line: one grammar, two faces.
//!
//! `mortar …` shows tables and says what to do next; `gluster …` answers in GlusterFS's words, XML and exit codes, so that
//! scripts go on working. Both ask the daemon over its API and nothing else. Parsing, asking and wording are apart:
//! [`grammar`] and [`command`] make a [`Command`], [`execute`] asks, [`face`] words the result without I/O.
#![forbid(unsafe_code)]

pub mod client;
pub mod command;
pub mod create;
pub mod documents;
pub mod execute;
pub mod face;
pub mod globals;
pub mod grammar;
pub mod growth;
pub mod plan;
pub mod prompt;
pub mod run;

pub use command::Command;
pub use face::Output;
pub use globals::Globals;

/// The version of GlusterFS whose words and formats the `gluster` face speaks.
pub const GLUSTER_VERSION: &str = "10.3";
