//! Program, version and procedure numbers (`rpc/rpc-lib/src/protocol-common.h`).

/// A program in one version, as DUMP lists it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Program {
    /// The name in DUMP's list. Peers go by the numbers.
    pub name: &'static str,
    pub number: u32,
    pub version: u32,
}

const fn program(name: &'static str, number: u32, version: u32) -> Program {
    Program { name, number, version }
}

/// Which programs a listener has, and ping: on every listener.
pub const DUMP: Program = program("GF-DUMP", 123_451_501, 1);
/// SETVOLUME on bricks, GETSPEC on the pool daemon.
pub const HANDSHAKE: Program = program("GlusterFS Handshake", 14_398_633, 2);
/// [`HANDSHAKE`] under the name that glusterd lists it by.
pub const GLUSTERD_HANDSHAKE: Program = program("Gluster Handshake", 14_398_633, 2);
/// Which port a brick has. Only on the pool daemon's listener: a client takes a peer that lists it for a glusterd.
pub const PORTMAP: Program = program("Gluster Portmap", 34_123_456, 1);
/// File operations; procedures are [`mortar_types::FopKind`] numbers.
pub const FOP: Program = program("GlusterFS 4.x v1", 1_298_437, 400);
/// Calls from a brick or the pool daemon to its clients; never answered.
pub const CALLBACK: Program = program("GlusterFS Callback", 52_743_234, 1);
/// What the `gluster` command speaks to glusterd.
pub const CLI: Program = program("GlusterD svc cli", 1_238_463, 2);
/// What glusterd speaks to its bricks and daemons.
pub const BRICK: Program = program("brick operations", 4_867_634, 2);

/// Procedures of [`DUMP`].
pub mod dump {
    pub const DUMP: u32 = 1;
    pub const PING: u32 = 2;
}

/// Procedures of [`HANDSHAKE`].
pub mod handshake {
    pub const SETVOLUME: u32 = 1;
    pub const GETSPEC: u32 = 2;
    pub const PING: u32 = 3;
    pub const SET_LK_VER: u32 = 4;
    pub const EVENT_NOTIFY: u32 = 5;
    pub const GET_VOLUME_INFO: u32 = 6;
    pub const GET_SNAPSHOT_INFO: u32 = 7;
}

/// Procedures of [`PORTMAP`].
pub mod portmap {
    pub const PORT_BY_BRICK: u32 = 1;
    pub const BRICK_BY_PORT: u32 = 2;
    pub const SIGN_UP: u32 = 3;
    pub const SIGN_IN: u32 = 4;
    pub const SIGN_OUT: u32 = 5;
}

/// Procedures of [`CALLBACK`].
pub mod callback {
    /// Means nothing (`GF_CBK_NULL`).
    pub const NULL: u32 = 0;
    pub const FETCHSPEC: u32 = 1;
    pub const INO_FLUSH: u32 = 2;
    pub const EVENT_NOTIFY: u32 = 3;
    pub const GET_SNAPS: u32 = 4;
    pub const CACHE_INVALIDATION: u32 = 5;
    pub const CHILD_UP: u32 = 6;
    pub const CHILD_DOWN: u32 = 7;
    pub const RECALL_LEASE: u32 = 8;
    pub const STATEDUMP: u32 = 9;
    pub const INODELK_CONTENTION: u32 = 10;
    pub const ENTRYLK_CONTENTION: u32 = 11;
}

/// Whether a procedure number of [`FOP`] exists (an unknown one is answered with PROC_UNAVAIL).
pub const fn is_fop(procedure: u32) -> bool {
    mortar_types::FopKind::from_number(procedure).is_some()
}
