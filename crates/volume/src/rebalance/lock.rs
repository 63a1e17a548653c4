//! The locks of a move.
//!
//! GlusterFS's two (`dht-rebalance.c` dht_migrate_file): `dht.file.migrate` on the file, which renames and other movers
//! take, and `dht.entry.sync` on the name at its hashed subvolume, under which lookups make and remove link files. Both
//! without waiting: whoever has them is about to change what the move was decided from.
//!
//! And one that GlusterFS's mover lacks: the writers' own lock, around each read of the source and the write of what was
//! read. Without, a block read before a client's write can reach the target after it.

use bytes::Bytes;
use mortar_types::fop::{Entrylk, EntrylkCmd, EntrylkType, Flock, Inodelk, LockCmd, LockType};
use mortar_types::{Errno, Fops, Gfid, LkOwner, Outcome};

use super::{File, Mover, Subvolume, WriterLock};

const MIGRATE_DOMAIN: Bytes = Bytes::from_static(b"dht.file.migrate");
const ENTRY_DOMAIN: Bytes = Bytes::from_static(b"dht.entry.sync");

fn inodelk(gfid: Gfid, domain: Bytes, cmd: LockCmd, kind: LockType) -> Inodelk {
    let flock = Flock { kind, whence: 0, start: 0, len: 0, pid: 0, owner: LkOwner::default() };
    Inodelk { gfid, cmd, kind, flock, domain, xdata: None }
}

fn entrylk(file: &File, cmd: EntrylkCmd) -> Entrylk {
    let name = Some(file.name.clone());
    Entrylk { gfid: file.parent, cmd, kind: EntrylkType::Write, name, domain: ENTRY_DOMAIN, xdata: None }
}

impl Mover {
    /// Both or none; `EAGAIN` when somebody else has one.
    pub(super) async fn lock(&self, file: &File, source: &Subvolume, hashed: &Subvolume) -> Outcome<()> {
        let on_file = inodelk(file.gfid, MIGRATE_DOMAIN, LockCmd::Set, LockType::Write);
        let (on_file, on_name) = tokio::join!(
            source.fops.fop(&self.ctx, on_file),
            hashed.fops.fop(&self.ctx, entrylk(file, EntrylkCmd::LockNonBlocking))
        );
        match (on_file, on_name) {
            (Ok(_), Ok(_)) => Ok(()),
            (Err(failure), Ok(_)) => {
                self.unlock_name(file, hashed).await;
                Err(failure)
            }
            (Ok(_), Err(failure)) => {
                self.unlock_file(file, source).await;
                Err(failure)
            }
            (Err(failure), Err(_)) => Err(failure),
        }
    }

    pub(super) async fn unlock(&self, file: &File, source: &Subvolume, hashed: &Subvolume) {
        tokio::join!(self.unlock_file(file, source), self.unlock_name(file, hashed));
    }

    /// A subvolume that went away has dropped the lock already.
    async fn unlock_file(&self, file: &File, source: &Subvolume) {
        let request = inodelk(file.gfid, MIGRATE_DOMAIN, LockCmd::Set, LockType::Unlock);
        let _ = source.fops.fop(&self.ctx, request).await;
    }

    async fn unlock_name(&self, file: &File, hashed: &Subvolume) {
        let _ = hashed.fops.fop(&self.ctx, entrylk(file, EntrylkCmd::Unlock)).await;
    }

    /// Keeps writers out of the file until [`Self::let_write`]; waits for those who are writing.
    pub(super) async fn stop_writers(&self, gfid: Gfid, writers: &WriterLock) -> Outcome<()> {
        let lock = |cmd| inodelk(gfid, writers.domain.clone(), cmd, LockType::Write);
        let up: Vec<_> = writers.bricks.iter().filter(|brick| brick.is_up()).collect();
        let attempts = up.iter().map(|brick| brick.fop(&self.ctx, lock(LockCmd::Set)));
        let answers = futures::future::join_all(attempts).await;
        let granted = answers.iter().filter(|answer| answer.is_ok()).count();
        let in_use =
            answers.iter().flat_map(|answer| answer.as_ref().err()).any(|failure| failure.errno == Errno::EAGAIN);
        if !in_use {
            return if granted > 0 { Ok(()) } else { Err(first_failure(answers)) };
        }
        self.let_write(gfid, writers).await;
        // One brick after the other, in the order of every client, so that nobody waits in a circle.
        let mut granted = 0;
        let mut last = Errno::ENOTCONN.into();
        for brick in up {
            match brick.fop(&self.ctx, lock(LockCmd::SetWait)).await {
                Ok(_) => granted += 1,
                Err(failure) => last = failure,
            }
        }
        if granted > 0 { Ok(()) } else { Err(last) }
    }

    /// Harmless where the lock is not held.
    pub(super) async fn let_write(&self, gfid: Gfid, writers: &WriterLock) {
        let unlock = |brick: &std::sync::Arc<dyn Fops>| {
            let brick = std::sync::Arc::clone(brick);
            let request = inodelk(gfid, writers.domain.clone(), LockCmd::Set, LockType::Unlock);
            async move { brick.fop(&self.ctx, request).await }
        };
        futures::future::join_all(writers.bricks.iter().map(unlock)).await;
    }
}

fn first_failure<T>(answers: Vec<Outcome<T>>) -> mortar_types::Failure {
    answers.into_iter().find_map(Result::err).unwrap_or_else(|| Errno::ENOTCONN.into())
}
