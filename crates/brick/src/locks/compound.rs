//! Compounds of our own clients: a data lock that comes with the mark, and goes with it.
//!
//! The keys are taken out of the request before the layers below see it: the store would keep some as xattrs. What is
//! left if the process dies in between is what the separate requests would leave: locks die with the process; on CREATE
//! the mark comes after the file and before the reply, so a file without a mark is one that its client never heard of;
//! and no write can be sent before the mark's reply.

use mortar_logic::compound::DataLock;
use mortar_types::fop::{Create, CreateReply, Flock, Fxattrop, LockCmd, LockType, XattropOp};
use mortar_types::keys::{GFID_REQ, LOCK_DATA, LOCKED, UNLOCK_DATA};
use mortar_types::{Context, Dict, Errno, Failure, Gfid, Outcome, Reply, Request, Value};

use super::Locks;

/// What the keys of a request ask for.
pub(super) enum Compound {
    Lock(DataLock),
    Unlock(DataLock),
}

impl Compound {
    /// Takes the keys out of the request; EINVAL when they cannot be read. Only fops that know them are looked at.
    pub(super) fn take(request: &mut Request) -> Result<Option<Self>, Errno> {
        if !matches!(request, Request::Create(_) | Request::Xattrop(_) | Request::Fxattrop(_)) {
            return Ok(None);
        }
        let Some(xdata) = request.xdata_mut() else { return Ok(None) };
        let parse = |value: Value| DataLock::parse(&value).ok_or(Errno::EINVAL);
        let lock = xdata.remove(LOCK_DATA).map(parse).transpose()?;
        let unlock = xdata.remove(UNLOCK_DATA).map(parse).transpose()?;
        Ok(lock.map(Self::Lock).or_else(|| unlock.map(Self::Unlock)))
    }
}

impl Locks {
    pub(super) async fn compound(&self, ctx: &Context, request: Request, compound: Compound) -> Outcome<Reply> {
        match (request, compound) {
            (Request::Create(create), Compound::Lock(lock)) => self.create_locked(ctx, create, lock).await,
            (Request::Create(_), Compound::Unlock(_)) => Err(Errno::EINVAL.into()),
            (request, Compound::Lock(lock)) => self.lock_and_mark(ctx, request, &lock).await,
            (request, Compound::Unlock(lock)) => self.mark_and_unlock(ctx, request, &lock).await,
        }
    }

    /// CREATE, and on a file that it made the lock and the mark. Those failing is no failure of the CREATE: the reply says
    /// that they are not there.
    async fn create_locked(&self, ctx: &Context, create: Create, mut lock: DataLock) -> Outcome<Reply> {
        let asked = create.xdata.as_ref().and_then(|xdata| xdata.get_gfid(GFID_REQ));
        let mut reply = self.pass(ctx, create.into()).await?;
        let Reply::CreateReply(CreateReply { fd, stat, .. }) = &reply else { return Ok(reply) };
        let (gfid, fd) = (stat.gfid, *fd);
        // A file that was there has another gfid than the one asked for.
        if asked != Some(gfid) || self.set_data_lock(ctx, gfid, &lock, LockType::Write).await.is_err() {
            return Ok(reply);
        }
        let dict = Some(std::mem::take(&mut lock.additions));
        let mark = Fxattrop { gfid, fd, op: XattropOp::AddArray, dict, xdata: None };
        let marked = self.inner.call(ctx, mark.into()).await;
        if let Err(failure) = &marked {
            tracing::debug!(%gfid, errno = %failure.errno, "a new file is left unmarked");
            self.unlock_data(ctx, gfid, &lock).await;
            return Ok(reply);
        }
        tell(reply.xdata_mut(), true);
        Ok(reply)
    }

    async fn lock_and_mark(&self, ctx: &Context, request: Request, lock: &DataLock) -> Outcome<Reply> {
        let gfid = gfid_of(&request)?;
        if let Err(mut failure) = self.set_data_lock(ctx, gfid, lock, LockType::Write).await {
            tell(&mut failure.xdata, false);
            return Err(failure);
        }
        match self.pass(ctx, request).await {
            Ok(mut reply) => {
                tell(reply.xdata_mut(), true);
                Ok(reply)
            }
            Err(mut failure) => {
                self.unlock_data(ctx, gfid, lock).await;
                tell(&mut failure.xdata, false);
                Err(failure)
            }
        }
    }

    async fn mark_and_unlock(&self, ctx: &Context, request: Request, lock: &DataLock) -> Outcome<Reply> {
        let gfid = gfid_of(&request)?;
        let mut outcome = self.pass(ctx, request).await;
        self.unlock_data(ctx, gfid, lock).await;
        match &mut outcome {
            Ok(reply) => tell(reply.xdata_mut(), false),
            Err(failure) => tell(&mut failure.xdata, false),
        }
        outcome
    }

    /// Without waiting for other holders.
    async fn set_data_lock(&self, ctx: &Context, gfid: Gfid, lock: &DataLock, kind: LockType) -> Result<(), Failure> {
        // As a separate lock request comes: in nobody's name, by the layer's own owner.
        let ctx = Context { client: ctx.client, lk_owner: lock.owner.clone(), ..Context::default() };
        let flock = Flock { kind, whence: 0, start: 0, len: 0, pid: 0, owner: lock.owner.clone() };
        self.inodelk(&ctx, gfid, LockCmd::Set, kind, flock, lock.domain.clone()).await.map(drop)
    }

    /// A lock that is not there needs no giving back: it went with its client, or by clear-locks.
    async fn unlock_data(&self, ctx: &Context, gfid: Gfid, lock: &DataLock) {
        if let Err(failure) = self.set_data_lock(ctx, gfid, lock, LockType::Unlock).await {
            tracing::debug!(%gfid, errno = %failure.errno, "no lock to give back");
        }
    }
}

fn tell(xdata: &mut Option<Dict>, locked: bool) {
    xdata.get_or_insert_default().set(LOCKED, Value::Int(locked.into()));
}

fn gfid_of(request: &Request) -> Result<Gfid, Errno> {
    match request {
        Request::Xattrop(request) => Ok(request.gfid),
        Request::Fxattrop(request) => Ok(request.gfid),
        _ => Err(Errno::EINVAL),
    }
}
