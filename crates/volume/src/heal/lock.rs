//! The locks of a heal, as AFR takes them (`afr/afr-self-heal-common.c` afr_selfheal_inodelk, afr_selfheal_entrylk and
//! their tie-breaker forms): all children without waiting; when somebody is in the way, give back what was got and wait
//! for one child after the other in child order, which is the order of every client.
//!
//! **Invariant**: a lock is held on every child or on none. What is taken is given back by [`Session::unlock`]; a heal is
//! never dropped in the middle, so no guard is needed (a lost connection frees its locks on the brick by itself).

use bytes::Bytes;
use mortar_logic::heal::Children;
use mortar_types::fop::{Entrylk, EntrylkCmd, EntrylkType, Flock, Inodelk, LockCmd, LockType};
use mortar_types::{Errno, FopKind, Gfid, LkOwner, Outcome, SubvolId, fop};

use crate::heal::Error;
use crate::heal::set::Session;

/// Where AFR's metadata lock begins; a brick keeps exactly this range in a domain of its own.
const METADATA_START: u64 = i64::MAX as u64 - 1;

/// What is to be locked, on every child alike.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lock {
    gfid: Gfid,
    domain: Bytes,
    part: Part,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Range { start: u64, len: u64 },
    Name(Option<Bytes>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    No,
    Yes,
}

impl Session<'_> {
    /// The right to heal the content of a file: one healer at a time, without standing in clients' way.
    pub fn heal_lock(&self, gfid: Gfid) -> Lock {
        Lock { gfid, domain: self.heal_domain(), part: Part::Range { start: 0, len: 0 } }
    }

    /// The right to heal the names of a directory.
    pub fn entry_heal_lock(&self, gfid: Gfid) -> Lock {
        Lock { gfid, domain: self.heal_domain(), part: Part::Name(None) }
    }

    /// A file's content, from `start` for `len` bytes (0: to the end), against clients.
    pub fn range_lock(&self, gfid: Gfid, start: u64, len: u64) -> Lock {
        Lock { gfid, domain: self.domain(), part: Part::Range { start, len } }
    }

    /// An inode's attributes, against clients.
    pub fn metadata_lock(&self, gfid: Gfid) -> Lock {
        self.range_lock(gfid, METADATA_START, 0)
    }

    /// One name of a directory (`None`: all of them), against clients.
    pub fn name_lock(&self, gfid: Gfid, name: Option<Bytes>) -> Lock {
        Lock { gfid, domain: self.domain(), part: Part::Name(name) }
    }

    fn domain(&self) -> Bytes {
        Bytes::copy_from_slice(self.set.name.as_bytes())
    }

    pub(crate) fn heal_domain(&self) -> Bytes {
        format!("{}:self-heal", self.set.name).into()
    }

    /// Takes the lock on every child, waiting for whoever holds it.
    pub async fn lock(&self, lock: &Lock) -> Result<(), Error> {
        match self.lock_at_once(lock).await? {
            Attempt::Got => Ok(()),
            Attempt::InUse { .. } => self.lock_in_order(lock).await,
        }
    }

    /// Takes the lock on every child unless somebody else is ahead: [`Error::Busy`] when not more than half of the
    /// children granted it at once, so that of two healers at most one goes on.
    pub async fn lock_unless_busy(&self, lock: &Lock) -> Result<(), Error> {
        match self.lock_at_once(lock).await? {
            Attempt::Got => Ok(()),
            Attempt::InUse { granted } if granted * 2 > self.set.children.len() => self.lock_in_order(lock).await,
            Attempt::InUse { .. } => Err(Error::Busy),
        }
    }

    /// Gives it back on every child. A child that went away has dropped it already.
    pub async fn unlock(&self, lock: &Lock) {
        self.unlock_on(self.set.all(), lock).await;
    }

    async fn lock_at_once(&self, lock: &Lock) -> Result<Attempt, Error> {
        let all = self.set.all();
        let attempts = all.iter().map(|child| async move { (child, self.lock_one(child, lock, Wait::No).await) });
        let mut granted = Children::NONE;
        let mut refusal = None;
        for (child, outcome) in futures::future::join_all(attempts).await {
            match outcome {
                Ok(()) => granted.insert(child),
                Err(errno) if errno == Errno::EAGAIN => {}
                Err(errno) => refusal = Some(lock.error(child, errno)),
            }
        }
        if granted == all {
            return Ok(Attempt::Got);
        }
        self.unlock_on(granted, lock).await;
        refusal.map_or(Ok(Attempt::InUse { granted: granted.len() }), Err)
    }

    async fn lock_in_order(&self, lock: &Lock) -> Result<(), Error> {
        let mut granted = Children::NONE;
        for child in self.set.all().iter() {
            match self.lock_one(child, lock, Wait::Yes).await {
                Ok(()) => granted.insert(child),
                Err(errno) => {
                    self.unlock_on(granted, lock).await;
                    return Err(lock.error(child, errno));
                }
            }
        }
        Ok(())
    }

    async fn lock_one(&self, child: SubvolId, lock: &Lock, wait: Wait) -> Result<(), Errno> {
        let answer: Outcome<fop::AckReply> = match &lock.part {
            Part::Range { .. } => {
                let cmd = if wait == Wait::Yes { LockCmd::SetWait } else { LockCmd::Set };
                self.call(child, lock.inodelk(cmd, LockType::Write)).await
            }
            Part::Name(_) => {
                let cmd = if wait == Wait::Yes { EntrylkCmd::Lock } else { EntrylkCmd::LockNonBlocking };
                self.call(child, lock.entrylk(cmd)).await
            }
        };
        answer.map(|_| ()).map_err(|failure| failure.errno)
    }

    async fn unlock_on(&self, children: Children, lock: &Lock) {
        match &lock.part {
            Part::Range { .. } => {
                self.failures(children, |_| lock.inodelk(LockCmd::Set, LockType::Unlock)).await;
            }
            Part::Name(_) => {
                self.failures(children, |_| lock.entrylk(EntrylkCmd::Unlock)).await;
            }
        }
    }
}

enum Attempt {
    Got,
    /// Somebody holds it on some child; nothing is held.
    InUse {
        granted: usize,
    },
}

impl Lock {
    fn error(&self, child: SubvolId, errno: Errno) -> Error {
        match errno {
            Errno::ENOTCONN => Error::NotAllUp,
            Errno::ENOENT | Errno::ESTALE => Error::MissingOn(Children::only(child)),
            _ => Error::fop(child, self.kind(), errno),
        }
    }

    const fn kind(&self) -> FopKind {
        match self.part {
            Part::Range { .. } => FopKind::Inodelk,
            Part::Name(_) => FopKind::Entrylk,
        }
    }

    fn inodelk(&self, cmd: LockCmd, kind: LockType) -> Inodelk {
        let (start, len) = match self.part {
            Part::Range { start, len } => (start, len),
            Part::Name(_) => (0, 0),
        };
        let flock = Flock { kind, whence: 0, start, len, pid: 0, owner: LkOwner::default() };
        Inodelk { gfid: self.gfid, cmd, kind, flock, domain: self.domain.clone(), xdata: None }
    }

    fn entrylk(&self, cmd: EntrylkCmd) -> Entrylk {
        let name = match &self.part {
            Part::Name(name) => name.clone(),
            Part::Range { .. } => None,
        };
        let (gfid, domain) = (self.gfid, self.domain.clone());
        Entrylk { gfid, cmd, kind: EntrylkType::Write, name, domain, xdata: None }
    }
}
