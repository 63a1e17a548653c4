//! What a store is opened with, and how opening can fail.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mortar_types::{Errno, Gfid};

use super::health::HealthFailure;

/// Space kept free for heal and for the file system itself (`storage.reserve`).
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Reserve {
    /// Of the file system's blocks; 0 switches the check off.
    Percent(f64),
    Bytes(u64),
}

impl Reserve {
    /// GlusterFS's reading of the option's number: below 100 percent, else bytes (`posix-common.c: posix_set_reserve`).
    pub fn from_option(number: f64) -> Self {
        if number < 100.0 { Self::Percent(number.max(0.0)) } else { Self::Bytes(number as u64) }
    }
}

/// Called once, from the health checker's thread, when the brick's disk no longer answers as it should.
pub type OnHealthFailure = Arc<dyn Fn(&HealthFailure) + Send + Sync>;

/// How to open a brick. [`StoreOptions::new`] fills in GlusterFS's defaults.
#[derive(Clone)]
pub struct StoreOptions {
    /// The brick's directory, absolute.
    pub root: PathBuf,
    /// Must equal the directory's xattr `trusted.glusterfs.volume-id`.
    pub volume_id: Gfid,
    /// The layer's name in the volfile.
    pub name: String,
    /// Answer to `trusted.glusterfs.node-uuid`; `None`: not asked to answer.
    pub node_uuid: Option<Gfid>,
    /// Named in `trusted.glusterfs.pathinfo`.
    pub hostname: String,
    pub reserve: Reserve,
    /// `features.ctime`: keep times in `trusted.glusterfs.mdata`.
    pub ctime: bool,
    /// `storage.gfid2path`.
    pub gfid2path: bool,
    /// `storage.max-hardlinks`, the handle not counted; 0: no limit but the file system's.
    pub max_hardlinks: u32,
    /// `storage.health-check-interval`; zero: no check.
    pub health_check_interval: Duration,
    /// `storage.health-check-timeout`.
    pub health_check_timeout: Duration,
    pub on_health_failure: Option<OnHealthFailure>,
    /// How often the landfill is emptied; `None`: never (`storage.disable-landfill-purge`).
    pub landfill_purge_interval: Option<Duration>,
    /// Bricks of the volume on this file system: statfs shares the space among them.
    pub shared_brick_count: u64,
    /// Inodes remembered, each with at most one descriptor; less when the process may not open that many files.
    pub inode_cache_max: usize,
    /// Key prefixes whose non-zero xattrop marks the inode in `indices/xattrop`.
    pub pending_watchlist: Vec<String>,
    /// Keys whose non-zero xattrop marks the inode in `indices/dirty`.
    pub dirty_watchlist: Vec<String>,
}

impl StoreOptions {
    pub fn new(root: impl Into<PathBuf>, volume_id: Gfid) -> Self {
        Self {
            root: root.into(),
            volume_id,
            name: "store".to_owned(),
            node_uuid: None,
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            reserve: Reserve::Percent(1.0),
            ctime: true,
            gfid2path: true,
            max_hardlinks: 100,
            health_check_interval: Duration::from_secs(30),
            health_check_timeout: Duration::from_secs(20),
            on_health_failure: None,
            landfill_purge_interval: Some(Duration::from_secs(10)),
            shared_brick_count: 1,
            inode_cache_max: 65_536,
            pending_watchlist: vec!["trusted.afr.".to_owned(), "trusted.ec.dirty".to_owned()],
            dirty_watchlist: vec!["trusted.afr.dirty".to_owned()],
        }
    }
}

/// Why a directory cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path}: cannot open the brick directory: {source}; mount its file system or restore the directory", path = .path.display())]
    Root { path: PathBuf, source: Errno },
    #[error("{path}: the file system cannot store trusted.* extended attributes: {source}; use ext4, xfs or btrfs and run as root", path = .path.display())]
    Xattrs { path: PathBuf, source: Errno },
    #[error("{path}: no volume-id: this directory is not a brick (or its file system is not mounted)", path = .path.display())]
    NoVolumeId { path: PathBuf },
    #[error("{path}: the directory belongs to volume {found}, not {expected}; check the brick's path and mount", path = .path.display())]
    OtherVolume { path: PathBuf, expected: Gfid, found: Gfid },
    #[error("{path}: the directory's gfid is {found}, so it is not the root of a brick", path = .path.display())]
    NotARoot { path: PathBuf, found: Gfid },
    #[error("{path}: cannot prepare .glusterfs/{part}: {source}", path = .path.display())]
    Prepare { path: PathBuf, part: String, source: Errno },
}
