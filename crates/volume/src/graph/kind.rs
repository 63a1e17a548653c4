//! What a section's type becomes: types whose work the layers here do in another way, or that only cache, are passed
//! through; one that would show wrong data when left out is refused.

use mortar_logic::values::is_on;
use mortar_wire::volfile::VolfileVolume;

/// What a section's type becomes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Client,
    Replicate,
    Distribute,
    Utime,
    /// Also does the work of `performance/open-behind`.
    QuickRead,
    ReadOnly,
    /// Nothing of its own.
    PassThrough,
    NotServed(&'static str),
    Unknown,
}

impl Kind {
    pub(super) fn of(section: &VolfileVolume) -> Self {
        match section.kind.as_str() {
            "protocol/client" => Self::Client,
            "cluster/replicate" => Self::Replicate,
            "cluster/distribute" => Self::Distribute,
            "cluster/disperse" => Self::NotServed("erasure coding (disperse)"),
            "features/shard" => Self::NotServed("sharding"),
            "features/cdc" => Self::NotServed("compression (cdc)"),
            "features/cloudsync" => Self::NotServed("cloudsync"),
            "features/utime" => Self::Utime,
            "performance/quick-read" => Self::QuickRead,
            "features/read-only" if section.option("read-only").is_none_or(is_on) => Self::ReadOnly,
            "features/read-only"
            | "features/quiesce"
            | "features/snapview-client"
            | "debug/io-stats"
            | "debug/error-gen"
            | "debug/trace"
            | "debug/delay-gen"
            | "meta"
            | "meta-autoload"
            | "system/posix-acl"
            | "performance/write-behind"
            | "performance/read-ahead"
            | "performance/readdir-ahead"
            | "performance/io-cache"
            | "performance/open-behind"
            | "performance/nl-cache"
            | "performance/md-cache"
            | "performance/io-threads"
            | "performance/stat-prefetch" => Self::PassThrough,
            _ => Self::Unknown,
        }
    }
}
