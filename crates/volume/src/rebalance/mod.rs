//! Rebalance: directories get layouts over all subvolumes, files move to where their names lie.
//!
//! [`process`] is the role `mortar rebalance`, one per node and volume while a job runs; [`crawl`] walks the tree, each
//! directory by a [`visit`]; [`migrate`] moves one file so that nothing of it is lost whatever dies when, and so that
//! clients of GlusterFS and ours follow. Which files, and how many at once, is decided by
//! `mortar_logic::distribute::moves` and `mortar_logic::rebalance`.

mod copy;
pub mod crawl;
mod listing;
mod lock;
mod look;
pub mod migrate;
mod orders;
mod owners;
mod probe;
pub mod process;
mod saved;
mod slots;
mod special;
mod tally;
mod visit;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use mortar_api::rebalance::SkipReason;
use mortar_types::fop::Unlink;
use mortar_types::{Context, Dict, Errno, Fop, FopKind, Fops, Gfid, LkOwner, Outcome, Pid, SubvolId, SubvolMap};

use crate::distribute::Distribute;
use crate::graph::Graph;

/// A subvolume of distribute, as the mover uses it.
#[derive(Clone)]
pub struct Subvolume {
    /// Serves every fop; its name is what link files say (`imap0-replicate-0`).
    pub fops: Arc<dyn Fops>,
    /// How writers are held back while a part of a file is copied. `None` where writers take no locks: plain bricks.
    pub writers: Option<WriterLock>,
}

/// The lock that every writer of a replica set takes on what it writes (AFR's data lock): who holds it reads what no
/// client is changing.
#[derive(Clone)]
pub struct WriterLock {
    /// The replicate layer's name.
    pub domain: Bytes,
    pub bricks: Vec<Arc<dyn Fops>>,
}

/// A volume, as a job works on it.
#[derive(Clone)]
pub struct Volume {
    pub layer: Arc<Distribute>,
    /// In the order of the layer's.
    pub subvolumes: SubvolMap<Subvolume>,
}

impl Volume {
    /// `None`: the graph distributes nothing.
    pub fn of(graph: &Graph) -> Option<Self> {
        let layer = Arc::clone(graph.distribute()?);
        let subvolumes = layer.subvolumes().into_iter().map(|fops| {
            let set = graph.replica_sets().iter().find(|set| set.section.name == fops.name());
            let writers = set.map(|set| WriterLock {
                domain: Bytes::copy_from_slice(set.section.name.as_bytes()),
                bricks: set.bricks.iter().map(|brick| Arc::clone(brick) as Arc<dyn Fops>).collect(),
            });
            Subvolume { fops, writers }
        });
        let subvolumes = subvolumes.collect::<Vec<_>>().into();
        Some(Self { layer, subvolumes })
    }

    /// Asks the layer as clients do.
    async fn ask<F: Fop>(&self, request: F) -> Outcome<F::Reply> {
        let top: &dyn Fops = &*self.layer;
        top.fop(&Mover::new().ctx, request).await
    }

    /// One that does not serve.
    fn away(&self) -> Option<&Subvolume> {
        self.subvolumes.iter().map(|(_, subvolume)| subvolume).find(|subvolume| !subvolume.fops.is_up())
    }

    fn by_name(&self, name: &str) -> Option<SubvolId> {
        self.subvolumes.iter().find(|(_, subvolume)| subvolume.name() == name).map(|(id, _)| id)
    }
}

impl Subvolume {
    pub fn plain(fops: Arc<dyn Fops>) -> Self {
        Self { fops, writers: None }
    }

    pub fn name(&self) -> &str {
        self.fops.name()
    }
}

/// A name of a file, met where it should not be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct File {
    pub parent: Gfid,
    pub name: Bytes,
    pub gfid: Gfid,
}

/// What became of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moved {
    /// It is at the target now; its size in bytes.
    Moved(u64),
    /// A link file: there is nothing to move.
    Link,
    /// It stays, and nothing of the attempt does.
    Skipped(SkipReason),
}

/// Why a file could not be moved. The file is where it was, or a later run goes on where this one ended.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    #[error("{subvolume}: {fop}: {errno}", fop = kind.label())]
    Fop { subvolume: String, kind: FopKind, errno: Errno },
    #[error("{subvolume} has another file of this name")]
    OtherFile { subvolume: String },
    #[error("{subvolume} has the file too, and neither copy is marked as being moved")]
    TwoFiles { subvolume: String },
    #[error("the file says that it is moving to {0}, which is no subvolume")]
    UnknownTarget(String),
}

impl Error {
    /// The errno of a failed fop.
    pub const fn errno(&self) -> Option<Errno> {
        match self {
            Self::Fop { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// Who one move is to the bricks. Each has a lock owner of its own, so that two moves of one process exclude each other
/// as those of two processes do. No time travels along: what the mover does changes no times.
#[derive(Clone, Debug)]
pub(crate) struct Mover {
    pub(crate) ctx: Context,
}

static OWNERS: AtomicU64 = AtomicU64::new(1);

impl Mover {
    pub(crate) fn new() -> Self {
        let owner = OWNERS.fetch_add(1, Ordering::Relaxed);
        Self { ctx: Context::internal(Pid::REBALANCE).with_owner(LkOwner::from_u64(owner)) }
    }

    pub(crate) async fn must<F: Fop>(&self, at: &Subvolume, request: F) -> Result<F::Reply, Error> {
        let failed = |errno| Error::Fop { subvolume: at.name().to_owned(), kind: F::KIND, errno };
        at.fops.fop(&self.ctx, request).await.map_err(|failure| failed(failure.errno))
    }

    /// As [`Self::must`]; `None` when what it is about is not there.
    pub(crate) async fn find<F: Fop>(&self, at: &Subvolume, request: F) -> Result<Option<F::Reply>, Error> {
        match self.must(at, request).await {
            Ok(reply) => Ok(Some(reply)),
            Err(error) if error.errno().is_some_and(is_absent) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

pub(crate) const fn is_absent(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::ESTALE)
}

/// Takes the file's name away at a subvolume; also fine when it is gone already.
pub(crate) async fn unlink(mover: &Mover, file: &File, at: &Subvolume, xdata: Dict) -> Result<(), Error> {
    let request = Unlink { parent: file.parent, name: file.name.clone(), flags: 0, xdata: Some(xdata) };
    mover.find(at, request).await.map(drop)
}
