//! Compounds of a brick in memory: what `crates/brick/src/locks/compound.rs` does over a real store.

use mortar_logic::compound::DataLock;
use mortar_types::fop::{Flock, LockType, XattropOp};
use mortar_types::{ClientId, Errno, Failure, Gfid, Reply, Request, Value, keys};

use super::State;
use super::connection::Step;
use super::locks::{Asked, Claim, Notices, Space};

pub(super) enum Compound {
    Lock(DataLock),
    Unlock(DataLock),
}

impl Compound {
    pub(super) fn take(request: &mut Request) -> Option<Self> {
        let xdata = request.xdata_mut().as_mut()?;
        let parse = |value: Value| DataLock::parse(&value).expect("a layer's own encoding");
        let unlock = xdata.remove(keys::UNLOCK_DATA).map(parse);
        xdata.remove(keys::LOCK_DATA).map(parse).map(Self::Lock).or_else(|| unlock.map(Self::Unlock))
    }
}

impl State {
    pub(super) fn compound(
        &mut self,
        brick: &str,
        client: ClientId,
        request: Request,
        compound: Compound,
    ) -> (Step, Notices) {
        match (request, compound) {
            (Request::Create(create), Compound::Lock(lock)) => {
                let asked = create.xdata.as_ref().and_then(|xdata| xdata.get_gfid(keys::GFID_REQ));
                let mut notices = Vec::new();
                let mut outcome = self.simple(brick, create.into());
                if let Ok(reply) = &mut outcome {
                    let Reply::CreateReply(made) = reply else { unreachable!("CREATE has its own reply") };
                    let gfid = made.stat.gfid;
                    if asked == Some(gfid) {
                        let (locked, told) = self.lock_data(client, gfid, &lock);
                        notices = told;
                        if locked && self.xattrop(gfid, XattropOp::AddArray, Some(lock.additions), None).is_ok() {
                            tell(reply, true);
                        }
                    }
                }
                (Step::Done(outcome.map_err(Into::into)), notices)
            }
            (request, Compound::Lock(lock)) => {
                let gfid = gfid_of(&request);
                let (locked, notices) = self.lock_data(client, gfid, &lock);
                if !locked {
                    return (Step::Done(Err(refusal(Errno::EAGAIN))), notices);
                }
                let outcome = self.simple(brick, request);
                let outcome = outcome.map(|mut reply| {
                    tell(&mut reply, true);
                    reply
                });
                let outcome = outcome.map_err(|errno| {
                    self.unlock_data(client, gfid, &lock);
                    refusal(errno)
                });
                (Step::Done(outcome), notices)
            }
            (request, Compound::Unlock(lock)) => {
                let gfid = gfid_of(&request);
                let outcome = self.simple(brick, request).map_err(refusal).map(|mut reply| {
                    tell(&mut reply, false);
                    reply
                });
                (Step::Done(outcome), self.unlock_data(client, gfid, &lock))
            }
        }
    }

    fn lock_data(&mut self, client: ClientId, gfid: Gfid, lock: &DataLock) -> (bool, Notices) {
        let space = Space::Inode(gfid, lock.domain.clone());
        let (asked, notices) = self.locks.ask(&space, &(client, lock.owner.clone()), everything(lock), false);
        (matches!(asked, Asked::Granted), notices)
    }

    fn unlock_data(&mut self, client: ClientId, gfid: Gfid, lock: &DataLock) -> Notices {
        let space = Space::Inode(gfid, lock.domain.clone());
        self.locks.unlock(&space, &(client, lock.owner.clone()), &everything(lock)).1
    }
}

fn everything(lock: &DataLock) -> Claim {
    let owner = lock.owner.clone();
    let flock = Flock { kind: LockType::Write, whence: 0, start: 0, len: 0, pid: 0, owner };
    Claim::Range { start: 0, end: u64::MAX, write: true, flock }
}

fn gfid_of(request: &Request) -> Gfid {
    match request {
        Request::Xattrop(request) => request.gfid,
        Request::Fxattrop(request) => request.gfid,
        _ => unreachable!("no other fop carries the keys"),
    }
}

fn tell(reply: &mut Reply, locked: bool) {
    reply.xdata_mut().get_or_insert_default().set(keys::LOCKED, Value::Int(locked.into()));
}

fn refusal(errno: Errno) -> Failure {
    let xdata = mortar_types::Dict::new().with(keys::LOCKED, Value::Int(0));
    Failure { errno, xdata: Some(xdata) }
}
