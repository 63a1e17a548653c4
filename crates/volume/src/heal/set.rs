//! The replica set that a heal works on: its bricks, the names of its marks and locks, and calls to several at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::future::join_all;
use mortar_logic::heal::blocks::Algorithm;
use mortar_logic::heal::{Children, Resolve};
use mortar_logic::replicate::changelog::Keys;
use mortar_types::{Context, Fop, Fops, Gfid, LkOwner, Outcome, Pid, SubvolId, SubvolMap};

use crate::heal::Error;

/// A replica set. The children are the bricks themselves (or the connections to them), below any replicate layer.
pub struct ReplicaSet {
    /// The replicate layer's name in the volfile (`imap0-replicate-0`): its lock domain.
    pub name: String,
    pub children: SubvolMap<Arc<dyn Fops>>,
    /// Names of the changelog xattrs, in child order.
    pub keys: Keys,
    pub volume_id: [u8; 16],
    /// The child that keeps names and attributes but no content.
    pub arbiter: Option<SubvolId>,
    /// How many copies an acknowledged change is on, with a client quorum.
    pub quorum: Option<usize>,
    /// Names that changed are in the index (`cluster.granular-entry-heal`); otherwise directories are compared whole.
    pub granular: bool,
    pub algorithm: Algorithm,
    /// `cluster.favorite-child-policy`.
    pub policy: Resolve,
}

impl ReplicaSet {
    pub fn all(&self) -> Children {
        Children::all(self.children.len())
    }

    pub fn are_all_up(&self) -> bool {
        self.children.iter().all(|(_, child)| child.is_up())
    }

    pub fn is_arbiter(&self, child: SubvolId) -> bool {
        self.arbiter == Some(child)
    }

    /// The directory in the root where moved or removed inodes wait (`.glusterfs-anonymous-inode-VOLUME-ID`,
    /// `AFR_ANON_DIR_PREFIX`); hidden from clients by GlusterFS from 9 on and by Mortar.
    pub fn parking_name(&self) -> Bytes {
        format!(".glusterfs-anonymous-inode-{}", Gfid(self.volume_id)).into()
    }

    /// Its gfid on every brick: the volume's id with the first byte's lowest bit turned.
    pub fn parking_gfid(&self) -> Gfid {
        let mut bytes = self.volume_id;
        bytes[0] ^= 1;
        Gfid(bytes)
    }

    /// Whether a name in the root is the healers' own.
    pub fn is_private(&self, parent: Gfid, name: &[u8]) -> bool {
        parent.is_root() && name == &self.parking_name()[..]
    }

    /// The same bricks, with another rule for split-brain.
    pub fn with_policy(&self, policy: Resolve) -> Self {
        Self {
            name: self.name.clone(),
            children: self.children.map(|_, child| Arc::clone(child)),
            keys: self.keys.clone(),
            volume_id: self.volume_id,
            arbiter: self.arbiter,
            quorum: self.quorum,
            granular: self.granular,
            algorithm: self.algorithm,
            policy,
        }
    }
}

/// One heal at work: the set, and who it is to the bricks. Every session has a lock owner of its own, so that two heals
/// of one process exclude each other as those of two processes do.
pub struct Session<'a> {
    pub set: &'a ReplicaSet,
    pub ctx: Context,
}

static OWNERS: AtomicU64 = AtomicU64::new(1);

impl<'a> Session<'a> {
    pub fn new(set: &'a ReplicaSet) -> Self {
        Self::with_pid(set, Pid::SELF_HEAL_DAEMON)
    }

    pub fn with_pid(set: &'a ReplicaSet, pid: Pid) -> Self {
        // The brick tells owners apart by connection and bytes; a counter is enough within a process.
        let owner = OWNERS.fetch_add(1, Ordering::Relaxed);
        Self { set, ctx: Context::internal(pid).with_owner(LkOwner::from_u64(owner)) }
    }

    /// One call to one child.
    pub async fn call<F: Fop>(&self, child: SubvolId, request: F) -> Outcome<F::Reply> {
        self.set.children[child].fop(&self.ctx, request).await
    }

    /// As [`Self::call`], with the failure in this module's words.
    pub async fn must<F: Fop>(&self, child: SubvolId, request: F) -> Result<F::Reply, Error> {
        self.call(child, request).await.map_err(|failure| Error::fop(child, F::KIND, failure.errno))
    }

    /// The same kind of call to several children at once; `None` for those not asked.
    pub async fn each<F: Fop>(
        &self,
        children: Children,
        request: impl Fn(SubvolId) -> F,
    ) -> SubvolMap<Option<Outcome<F::Reply>>> {
        let calls = children.iter().map(|child| {
            let request = request(child);
            async move { (child, self.call(child, request).await) }
        });
        let mut answers = SubvolMap::from_fn(self.set.children.len(), |_| None);
        for (child, outcome) in join_all(calls).await {
            answers[child] = Some(outcome);
        }
        answers
    }

    /// As [`Self::each`]; the children that failed, each with the reason of its failure.
    pub async fn failures<F: Fop>(
        &self,
        children: Children,
        request: impl Fn(SubvolId) -> F,
    ) -> Vec<(SubvolId, Error)> {
        let answers = self.each(children, request).await;
        let failed = answers.iter().filter_map(|(child, answer)| match answer {
            Some(Err(failure)) => Some((child, Error::fop(child, F::KIND, failure.errno))),
            _ => None,
        });
        failed.collect()
    }
}
