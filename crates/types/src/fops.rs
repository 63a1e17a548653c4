//! The one interface between layers: a fop goes in, its outcome comes back.

use std::sync::Arc;

use async_trait::async_trait;

use crate::fop::{EntrylkType, Flock};
use crate::{Context, Dict, Errno, FopKind, Gfid, Iatt, Reply, Request};

/// A fop that failed. Error replies carry xdata too (`link-count` on ENOENT, `glusterfs.preop.check.failed` on EIO).
#[derive(Clone, PartialEq, thiserror::Error)]
#[error("{errno}")]
pub struct Failure {
    pub errno: Errno,
    pub xdata: Option<Dict>,
}

impl std::fmt::Debug for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Failure({:?})", self.errno)
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self { errno, xdata: None }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Errno::from_io(&error).into()
    }
}

/// What became of a fop.
pub type Outcome<T> = Result<T, Failure>;

/// The reply has another shape than the request asks for: a layer's bug or a peer's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the reply's shape does not fit the request")]
pub struct UnexpectedReply;

impl From<UnexpectedReply> for Failure {
    fn from(_: UnexpectedReply) -> Self {
        Errno::EPROTO.into()
    }
}

/// A typed request: knows its kind and the shape of its reply.
pub trait Fop: Into<Request> + Send {
    const KIND: FopKind;
    type Reply: TryFrom<Reply, Error = UnexpectedReply> + Into<Reply> + Send;
}

/// What a brick tells a client unasked, and what a layer tells the one above.
// Rare beside fops, and moved once: the three iatts of an invalidation need no box.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug)]
pub enum Upcall {
    /// The subvolume serves; fds have been opened again.
    Up,
    /// The subvolume serves no more; calls under way have failed with ENOTCONN and its locks are lost.
    Down,
    /// Somebody else waits for an inodelk that this client holds (GF_CBK_INODELK_CONTENTION).
    InodelkContention { gfid: Gfid, flock: Flock, domain: bytes::Bytes },
    /// Somebody else waits for an entrylk that this client holds (GF_CBK_ENTRYLK_CONTENTION). `name` `None`: the
    /// lock on the whole directory.
    EntrylkContention { gfid: Gfid, kind: EntrylkType, name: Option<bytes::Bytes>, domain: bytes::Bytes },
    /// Somebody else changed the inode (GF_CBK_CACHE_INVALIDATION). `flags`: UP_* bits of `upcall-utils.h`.
    CacheInvalidation { gfid: Gfid, flags: u32, stat: Iatt, parent: Iatt, old_parent: Iatt, xdata: Option<Dict> },
    /// A lease must be given back (GF_CBK_RECALL_LEASE).
    RecallLease { gfid: Gfid, kind: u32, id: [u8; 16] },
}

/// Where a layer's upcalls go: the layer above. Called from the connection's reader: must not block or wait.
pub trait UpcallSink: Send + Sync {
    fn upcall(&self, upcall: Upcall);
}

/// A layer: takes any fop, answers it, and may call fops of its subvolumes on the way.
///
/// Dropping the returned future stops waiting; what was sent is not taken back. A layer that must finish what it began
/// (post-op, unlock) runs it in a task of its own.
#[async_trait]
pub trait Fops: Send + Sync + 'static {
    /// Performs the fop as `ctx`. Requests identify inodes by gfid; names are raw bytes that the brick checks.
    async fn call(&self, ctx: &Context, request: Request) -> Outcome<Reply>;

    /// Registers the layer above. A layer without events need not keep it; the latest registration counts.
    fn subscribe(&self, _sink: Arc<dyn UpcallSink>) {}

    /// Whether it can serve now; [`Upcall::Up`] and [`Upcall::Down`] tell of changes.
    fn is_up(&self) -> bool {
        true
    }

    /// Whether the brick behind it takes the keys of compounds now ([`crate::keys::COMPOUNDS`]).
    fn compounds(&self) -> bool {
        false
    }

    /// Its name in the volfile (`imap0-client-0`), for logs and lock domains.
    fn name(&self) -> &str {
        ""
    }
}

impl dyn Fops {
    /// [`Fops::call`] with types: the reply has the shape that belongs to the request.
    pub async fn fop<F: Fop>(&self, ctx: &Context, request: F) -> Outcome<F::Reply> {
        let reply = self.call(ctx, request.into()).await?;
        Ok(F::Reply::try_from(reply)?)
    }
}
