//! Compounds with our own bricks: the data lock and the dirty mark come in one message, with CREATE even in the same one,
//! and go in one.
//!
//! A change of contents itself never rides along with its lock: where one brick grants the lock and another does not, it
//! would be done on some bricks without the lock on all.

use std::sync::Arc;

use mortar_logic::compound::DataLock;
use mortar_logic::replicate::changelog::{Changelog, Slot};
use mortar_logic::replicate::lookup::final_errno;
use mortar_logic::replicate::{Set, SetExt};
use mortar_types::{Dict, Errno, Gfid, Outcome, Reply, Request, SubvolMap, keys};

use super::Core;
use super::data::Marks;
use super::fds::OpenFd;
use super::inode::Inode;
use super::kept::Grant;
use super::locks::{LockCall, Locked, Target};

const O_ACCMODE: u32 = 3;

/// The data lock and mark that a CREATE asks for. Dropped before it is installed, it takes back what bricks gave.
pub(super) struct Bundle {
    core: Arc<Core>,
    inode: Arc<Inode>,
    call: LockCall,
    asked: SubvolMap<Option<u64>>,
    /// Where the file was made, and lock and mark with it.
    locked: Set,
    installed: bool,
}

impl Core {
    fn takes_compounds(&self, targets: &Set) -> bool {
        !targets.none() && targets.iter().all(|(id, asked)| !*asked || self.children.get(id).compounds())
    }

    fn lock_value(&self, call: &LockCall) -> DataLock {
        DataLock::new(self.domain.clone(), call.owner.clone())
    }

    /// Makes a CREATE for writing ask for the lock and the mark too.
    pub(super) fn bundle_create(self: &Arc<Self>, request: &mut Request, targets: &Set) -> Option<Bundle> {
        let Request::Create(create) = request else { return None };
        if create.flags & O_ACCMODE == 0 || !self.takes_compounds(targets) {
            return None;
        }
        let xdata = create.xdata.as_mut()?;
        let inode = self.inodes.get(xdata.get_gfid(keys::GFID_REQ)?);
        let call = LockCall { gfid: inode.gfid, target: Target::Data, owner: self.new_owner(), fd: None };
        let additions = self.options.keys.xattrop(&self.clean(), Changelog::in_slot(Slot::Data, 1));
        let value = DataLock { additions, ..self.lock_value(&call) }.encode()?;
        if !self.reserve_data(&inode) {
            return None;
        }
        xdata.set(keys::LOCK_DATA, value);
        let asked = targets.map(|id, asked| asked.then(|| self.children.epoch(id)));
        Some(Bundle { core: Arc::clone(self), inode, call, asked, locked: self.nobody(), installed: false })
    }

    /// Takes the lock and raises the mark on `targets` in one message each. `None`: by separate requests, because a brick
    /// takes no compounds or somebody else has the lock.
    pub(super) async fn lock_and_mark(&self, call: &LockCall, targets: &Set) -> Option<Locked> {
        if !self.takes_compounds(targets) {
            return None;
        }
        let xdata = Dict::new().with(keys::LOCK_DATA, self.lock_value(call).encode()?);
        let raise = self.options.keys.xattrop(&self.clean(), Changelog::in_slot(Slot::Data, 1));
        let fd = call.fd.as_ref();
        let mut replies = self.move_counters(call.gfid, fd, targets, &raise, Some(&xdata)).await;
        let marked = replies.map(|_, reply| matches!(reply, Some(Ok(_))));
        let granted = take_locked(&mut replies);
        let errnos: Vec<Errno> =
            replies.iter().filter_map(|(_, reply)| Some(reply.as_ref()?.as_ref().err()?.errno)).collect();
        let unheeded = marked.minus(&granted);
        if errnos.contains(&Errno::EAGAIN) || !unheeded.none() {
            self.unmark_and_unlock(call, &granted).await;
            // Another brick than the one that took compounds, met in the moment of its coming back.
            if !unheeded.none() {
                self.move_counters(call.gfid, fd, &unheeded, &self.lowering(), None).await;
            }
            return None;
        }
        let errno = (!errnos.is_empty()).then(|| final_errno(errnos.into_iter()));
        Some(Locked { granted, errno })
    }

    /// Takes back what [`Self::lock_and_mark`] did on `held`.
    async fn unmark_and_unlock(&self, call: &LockCall, held: &Set) {
        if held.none() {
            return;
        }
        let xdata = self.unlock_xdata(call, held);
        let mut replies = self.move_counters(call.gfid, call.fd.as_ref(), held, &self.lowering(), xdata.as_ref()).await;
        let unlocked = take_unlocked(&mut replies);
        self.unlock(call, &held.minus(&unlocked)).await;
    }

    /// The xdata with which moving counters on `targets` gives the lock back too.
    pub(super) fn unlock_xdata(&self, call: &LockCall, targets: &Set) -> Option<Dict> {
        if !self.takes_compounds(targets) {
            return None;
        }
        Some(Dict::new().with(keys::UNLOCK_DATA, self.lock_value(call).encode()?))
    }

    fn lowering(&self) -> Dict {
        self.options.keys.xattrop(&self.clean(), Changelog::in_slot(Slot::Data, 1).negated())
    }

    fn clean(&self) -> SubvolMap<Changelog> {
        SubvolMap::filled(self.children.len(), Changelog::CLEAN)
    }
}

impl Bundle {
    /// Notes where the CREATE's replies say that the lock is held.
    pub(super) fn note(&mut self, replies: &mut SubvolMap<Option<Outcome<Reply>>>) {
        self.locked = take_locked(replies);
    }

    /// The lock becomes the inode's kept one, if `made`, the file that the caller gets, has it wherever it is.
    pub(super) fn install(mut self, made: Gfid, on: &Set, fd: Option<Arc<OpenFd>>) {
        if made != self.inode.gfid || on.none() || !on.minus(&self.locked).none() {
            return;
        }
        self.installed = true;
        let call = LockCall { fd, ..self.call.clone() };
        let marks = Marks::raised(self.locked.clone());
        let grant = Grant::new(call, self.asked.clone(), self.locked.clone(), None, marks);
        self.core.settle_reserved(&self.inode, Some(grant));
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if self.installed {
            return;
        }
        if self.locked.none() {
            self.core.settle_reserved(&self.inode, None);
            return;
        }
        let (core, inode, call) = (Arc::clone(&self.core), Arc::clone(&self.inode), self.call.clone());
        let locked = self.locked.clone();
        self.core.runtime.spawn(async move {
            core.unmark_and_unlock(&call, &locked).await;
            core.settle_reserved(&inode, None);
        });
    }
}

/// Who says that the lock is held. The word is not for the layers above.
fn take_locked(replies: &mut SubvolMap<Option<Outcome<Reply>>>) -> Set {
    said(replies, 1)
}

/// Who says that the lock is not held any more.
pub(super) fn take_unlocked(replies: &mut SubvolMap<Option<Outcome<Reply>>>) -> Set {
    said(replies, 0)
}

fn said(replies: &mut SubvolMap<Option<Outcome<Reply>>>, expected: i64) -> Set {
    let mut set = Set::filled(replies.len(), false);
    for (id, reply) in replies.iter_mut() {
        let xdata = match reply {
            Some(Ok(reply)) => reply.xdata_mut(),
            Some(Err(failure)) => &mut failure.xdata,
            None => continue,
        };
        let said = xdata.as_mut().and_then(|xdata| xdata.remove(keys::LOCKED));
        set[id] = said.and_then(|value| value.as_i64()) == Some(expected);
    }
    set
}
