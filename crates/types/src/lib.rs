//! Mortar's vocabulary: what every other crate means by gfid, iatt, dict, fop.
//!
//! Nothing here does I/O or knows an encoding. The wire forms are in `mortar-wire`, the disk forms in `mortar-brick`.
#![forbid(unsafe_code)]

pub mod context;
pub mod dict;
pub mod errno;
pub mod fop;
pub mod fops;
pub mod gfid;
pub mod iatt;
pub mod keys;
pub mod name;
pub mod subvol;

pub use context::{ClientId, Context, LkOwner, Pid, TimeFlags};
pub use dict::{Dict, Value};
pub use errno::Errno;
pub use fop::{Fd, FopKind, Reply, Request};
pub use fops::{Failure, Fop, Fops, Outcome, Upcall, UpcallSink};
pub use gfid::Gfid;
pub use iatt::{FileType, Iatt, Mdata, Statvfs, Timespec};
pub use name::{EntryName, InvalidName};
pub use subvol::{SubvolId, SubvolMap};
