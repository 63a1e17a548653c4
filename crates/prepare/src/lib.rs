//! From a disk to a mounted brick folder: `mortar brick prepare`, the HOWTO's first six steps as one command.
//!
//! [`probe`] looks at the machine and gives [`facts`]; [`plan`] decides from them, without I/O, what is to be done and what
//! would be destroyed; [`apply`] does it with the system's own tools. What was prepared before is recognised (partition
//! and file system bear the label [`LABEL`]) and only completed, so that a repeat destroys nothing.
#![forbid(unsafe_code)]

pub mod apply;
pub mod facts;
pub mod fstab;
pub mod plan;
pub mod probe;
mod program;
pub mod recognise;
pub mod refusal;
pub mod request;
pub mod step;
pub mod words;

pub use facts::Facts;
pub use plan::{Plan, plan};
pub use refusal::Refusal;
pub use request::Request;
pub use step::Step;

/// The partition's and the file system's name: what was prepared earlier is known by it. XFS allows 12 bytes.
pub const LABEL: &str = "mortar-brick";

/// The logical volume's name, as the HOWTO has it.
pub const LOGICAL_VOLUME: &str = "lv_brick";
