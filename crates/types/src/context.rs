//! Who asks: the credential that travels with every fop.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::Timespec;

/// The owner of a lock: opaque bytes chosen by the client; two requests belong together when they are equal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub struct LkOwner(pub SmallVec<[u8; 16]>);

impl LkOwner {
    /// The longest that `gf_lkowner_t` holds.
    pub const BYTES_MAX: usize = 1024;

    pub fn from_u64(owner: u64) -> Self {
        Self(SmallVec::from_slice(&owner.to_le_bytes()))
    }

    pub fn from_slice(bytes: &[u8]) -> Self {
        Self(SmallVec::from_slice(bytes))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Process ids below zero that mark internal callers (`libglusterfs/src/glusterfs/glusterfs.h`, `GF_CLIENT_PID_*`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Pid(pub i32);

impl Pid {
    pub const REBALANCE: Self = Self(-3);
    pub const SELF_HEAL_DAEMON: Self = Self(-6);
    pub const HEAL_INFO: Self = Self(-7);
    pub const SET_UTIME: Self = Self(-13);

    pub const fn is_internal(self) -> bool {
        self.0 < 0
    }
}

/// The connection a request came by, as a brick numbers them; locks and leases belong to it. 0 where there is none (in
/// a client's own layers, inside a brick).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub struct ClientId(pub u64);

/// Which times the client's clock in [`Context::time`] moves (`libglusterfs/src/glusterfs/stack.h`, `MDATA_*`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct TimeFlags(pub u32);

impl TimeFlags {
    pub const CTIME: Self = Self(1);
    pub const MTIME: Self = Self(2);
    pub const ATIME: Self = Self(4);
    pub const PARENT_CTIME: Self = Self(8);
    pub const PARENT_MTIME: Self = Self(0x10);
    pub const PARENT_ATIME: Self = Self(0x20);

    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The caller of a fop: what the AUTH_GLUSTERFS credential carries.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Context {
    pub client: ClientId,
    pub pid: Pid,
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Arc<[u32]>,
    pub lk_owner: LkOwner,
    /// The client's clock at the fop; `None` from clients that send none (auth v2).
    pub time: Option<Timespec>,
    pub time_flags: TimeFlags,
}

impl Context {
    /// Root, for work that no user asked for (heal, brick start, pool).
    pub fn internal(pid: Pid) -> Self {
        Self { pid, ..Self::default() }
    }

    #[must_use]
    pub fn with_owner(&self, lk_owner: LkOwner) -> Self {
        Self { lk_owner, ..self.clone() }
    }
}
