//! The move of one file.
//!
//! ```text
//!  lock      dht.file.migrate on the file, dht.entry.sync on its name, writers stopped
//!  look      attributes, xattrs, and the contents of small files                   crash: nothing has happened
//!  make      at the target: link file (mode 01000, link xattr = source)            crash: a link file, as valid as any
//!  mark      at the source: link xattr = target, mode + S + T ("phase 1")          crash: clients write to both, read the
//!  copy      contents to the target, fsync                                         source; the target is still a link file:
//!  check     the source again: differences are brought over, or the move is undone copied anew, or undone
//!  flip      at the target: owner, mode, times: it is the file now. fsync          crash: both are files, the target is
//!                                                                                  complete: finished from here on
//!  leave     at the source: mode 01000 ("phase 2"): a link file                    crash: a stale link file, which lookups
//!  clean     link xattr off the target, name off the source                        and the next run clean up
//! ```
//! Each step may have been done on some bricks of a replica set only, and the next mover may read any of them: what it finds
//! done it does once more on all, before it goes on.
//!
//! So the source is the file until the target has everything on disk, and the target's mode alone says which of the two it
//! is. GlusterFS's mover has the same marks, which its clients and ours know; what differs: writers are stopped while a block
//! is copied, the target is synced after its flip too (a power cut that takes the flip back must find the source), and the
//! source is not cut to nothing before its name goes, so nobody with an old fd reads zeros.

use std::collections::BTreeMap;

use bytes::Bytes;
use mortar_api::rebalance::SkipReason;
use mortar_logic::distribute::linkto::{self, Phase};
use mortar_types::fop::{Create, Fsync, Release, Removexattr, Setattr, Setxattr, Truncate, setattr_valid};
use mortar_types::{Dict, Errno, Fd, FileType, FopKind, Iatt, SubvolId, SubvolMap, Value, keys};

use super::copy::Copies;
use super::look::{Look, XATTR_MODE, is_acl};
use super::{Error, File, Moved, Mover, Subvolume};

/// Guards the removal of a link file: refused when it has become a file.
pub(super) const ONLY_IF_LINK: &str = "unlink-only-if-dht-linkto-file";

const MARKS: u32 = 0o3000;

/// A file that is written all the time is given up after so many copies.
const PASSES_MAX: u32 = 4;

/// Up to so many bytes are compared with the writers stopped, which is how a busy file moves after all.
const MEND_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What is to move where.
#[derive(Clone, Copy)]
pub struct Migration<'a> {
    pub subvolumes: &'a SubvolMap<Subvolume>,
    pub file: &'a File,
    pub source: SubvolId,
    /// The hashed subvolume of the name, where the file goes.
    pub target: SubvolId,
}

/// Moves the file. Must run to its end: a dropped future leaves what a crash leaves.
pub async fn migrate_file(migration: Migration<'_>) -> Result<Moved, Error> {
    let mover = Mover::new();
    let (file, source, target) =
        (migration.file, &migration.subvolumes[migration.source], &migration.subvolumes[migration.target]);
    match mover.lock(file, source, target).await {
        Ok(()) => {}
        Err(failure) => return skip_or_fail(lock_error(source, failure.errno)),
    }
    let result = under_locks(&mover, migration).await;
    mover.unlock(file, source, target).await;
    result.or_else(skip_or_fail)
}

async fn under_locks(mover: &Mover, migration: Migration<'_>) -> Result<Moved, Error> {
    let (file, source) = (migration.file, &migration.subvolumes[migration.source]);
    if let Some(writers) = &source.writers {
        mover.stop_writers(file.gfid, writers).await.map_err(|failure| lock_error(source, failure.errno))?;
    }
    let mut running = Move { mover, migration, fd: Fd::ANONYMOUS, made: false, stopped: source.writers.is_some() };
    let result = running.run().await;
    running.let_write().await;
    if !running.fd.is_anonymous() {
        let request = Release { gfid: file.gfid, fd: running.fd, xdata: None };
        let _ = mover.must(running.target(), request).await;
    }
    result
}

fn lock_error(at: &Subvolume, errno: Errno) -> Error {
    Error::Fop { subvolume: at.name().to_owned(), kind: FopKind::Inodelk, errno }
}

/// What is nobody's fault is a reason to leave the file for a later run.
fn skip_or_fail(error: Error) -> Result<Moved, Error> {
    let reason = match error.errno() {
        Some(Errno::EAGAIN) => SkipReason::Busy,
        Some(Errno::EBUSY) => SkipReason::Changing,
        Some(Errno::ENOSPC | Errno::EDQUOT) => SkipReason::NoSpace,
        Some(Errno::ENOTCONN) => SkipReason::SubvolumeDown,
        Some(Errno::ENOENT | Errno::ESTALE) => SkipReason::Gone,
        _ => return Err(error),
    };
    Ok(Moved::Skipped(reason))
}

struct Move<'a> {
    mover: &'a Mover,
    migration: Migration<'a>,
    /// The target, when this move has made it.
    fd: Fd,
    made: bool,
    /// Writers are held back now.
    stopped: bool,
}

/// How far a move came before it failed.
enum Failed {
    /// The target is no file: undo.
    Before(Error),
    /// The target is or may be the file: to be finished by a later run.
    After(Error),
}

impl<'a> Move<'a> {
    fn file(&self) -> &'a File {
        self.migration.file
    }

    fn source(&self) -> &'a Subvolume {
        &self.migration.subvolumes[self.migration.source]
    }

    fn target(&self) -> &'a Subvolume {
        &self.migration.subvolumes[self.migration.target]
    }

    fn copies(&self) -> Copies<'a> {
        let (source, target) = (self.source(), self.target());
        Copies { mover: self.mover, gfid: self.file().gfid, source, target, fd: self.fd }
    }

    async fn run(&mut self) -> Result<Moved, Error> {
        let (mover, file) = (self.mover, self.file());
        let Some(look) = mover.look(file, self.source(), true).await? else {
            return Ok(Moved::Skipped(SkipReason::Gone));
        };
        if look.is_link() {
            self.clean(&look).await?;
            return Ok(Moved::Link);
        }
        if look.stat.file_type() != Some(FileType::Regular) {
            return super::special::migrate(mover, file, self.source(), self.target(), &look).await;
        }
        if let Some(reason) = stays(&look) {
            return Ok(Moved::Skipped(reason));
        }
        if look.phase() == Phase::Copying
            && let Some(moved) = self.take_up(&look).await?
        {
            return Ok(moved);
        }
        let made = match self.make(&look).await {
            Ok(()) => self.mark_and_copy(look.clone()).await,
            Err(error) => Err(Failed::Before(error)),
        };
        match made {
            Ok(moved) => Ok(moved),
            Err(Failed::After(error)) => Err(error),
            Err(Failed::Before(error)) => {
                self.undo().await;
                Err(error)
            }
        }
    }

    /// The move of somebody who has died: finished, when the target was the file already; otherwise what he made elsewhere
    /// goes, and the move begins anew.
    async fn take_up(&mut self, look: &Look) -> Result<Option<Moved>, Error> {
        let name = look.points_to.as_deref().unwrap_or_default();
        let there = self.migration.subvolumes.iter().find(|(_, subvolume)| subvolume.name() == name);
        let (there, _) = there.ok_or_else(|| Error::UnknownTarget(name.to_owned()))?;
        let subvolume = &self.migration.subvolumes[there];
        let copy = self.mover.look(self.file(), subvolume, false).await?;
        match copy {
            Some(copy) if !copy.is_link() => {
                self.migration.target = there;
                tracing::info!(gfid = %self.file().gfid, target = name, "finishing a move that was cut off");
                self.flip_to(&copy.stat).await?;
                self.finish(look, &copy.xattrs).await?;
                Ok(Some(Moved::Moved(copy.stat.size)))
            }
            Some(_) if there != self.migration.target => {
                self.unlink_link(subvolume).await?;
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// A link file where the name does not lie: goes when the file is where it points to. A move that was cut off before
    /// its last step leaves this, perhaps on one brick only: another one still has the marks of a file being copied, and a
    /// removal that is for link files would pass it by.
    async fn clean(&self, look: &Look) -> Result<(), Error> {
        let name = look.points_to.as_deref().unwrap_or_default();
        if name != self.target().name() {
            return Ok(());
        }
        if let Some(there) = self.mover.look(self.file(), self.target(), false).await?
            && !there.is_link()
        {
            self.flip_to(&there.stat).await?;
            self.set_mode(self.source(), linkto::MODE).await?;
            self.remove_xattr(self.target(), keys::XATTR_DHT_LINKTO).await?;
            self.unlink_link(self.source()).await?;
        }
        Ok(())
    }

    /// A link file at the target, empty and pointing to the source.
    async fn make(&mut self, look: &Look) -> Result<(), Error> {
        let file = self.file();
        let mut xdata = internal()
            .with(keys::GFID_REQ, Value::Gfid(file.gfid))
            .with(keys::XATTR_DHT_LINKTO, linkto::value(self.source().name()));
        if let Some(mdata) = &look.mdata {
            xdata.set(keys::XATTR_MDATA, mdata.clone());
        }
        let flags = (rustix::fs::OFlags::RDWR | rustix::fs::OFlags::EXCL).bits();
        let (parent, name) = (file.parent, file.name.clone());
        let request = Create { parent, flags, mode: linkto::MODE, umask: 0, name, xdata: Some(xdata) };
        match self.mover.must(self.target(), request).await {
            Ok(reply) => {
                self.fd = reply.fd;
                self.made = true;
                Ok(())
            }
            Err(error) if error.errno() == Some(Errno::EEXIST) => self.take_over(look).await,
            Err(error) => Err(error),
        }
    }

    /// The name is at the target already: a link file, as a rule.
    async fn take_over(&self, look: &Look) -> Result<(), Error> {
        let (mover, target) = (self.mover, self.target());
        let subvolume = || target.name().to_owned();
        let there = mover.look_at_name(self.file(), target, false).await?;
        let there = there.ok_or_else(|| lock_error(target, Errno::EAGAIN))?;
        if there.stat.gfid != self.file().gfid {
            return Err(Error::OtherFile { subvolume: subvolume() });
        }
        if !there.is_link() {
            return Err(Error::TwoFiles { subvolume: subvolume() });
        }
        if there.stat.size > 0 {
            mover.must(target, Truncate { gfid: self.file().gfid, offset: 0, xdata: None }).await?;
        }
        let mut dict = Dict::new();
        if there.points_to.as_deref() != Some(self.source().name()) {
            dict.set(keys::XATTR_DHT_LINKTO, linkto::value(self.source().name()));
        }
        if let Some(mdata) = &look.mdata {
            dict.set(keys::XATTR_MDATA, mdata.clone());
        }
        self.set_xattrs(target, dict).await
    }

    async fn mark_and_copy(&mut self, look: Look) -> Result<Moved, Failed> {
        let stopped = self.stopped;
        let copied = async {
            match look.content.as_ref().filter(|_| stopped && !look.has_holes()) {
                Some(content) => {
                    self.copies().put(content).await?;
                    self.sync().await.map(|()| true)
                }
                None => Ok(false),
            }
        };
        let (marked, copied) = tokio::join!(self.mark(&look), copied);
        marked.map_err(Failed::Before)?;
        let look = match copied {
            Ok(true) => self.dress(look).await,
            Ok(false) => self.copy_and_check().await,
            Err(error) => Err(error),
        };
        let look = look.map_err(Failed::Before)?;
        self.flip(&look).await?;
        self.finish(&look, &BTreeMap::new()).await.map_err(Failed::After)?;
        Ok(Moved::Moved(look.stat.size))
    }

    /// Phase 1: from here on clients repeat at the target what they change at the source.
    async fn mark(&self, look: &Look) -> Result<(), Error> {
        let mut mode = look.mode();
        let mut expected = look.stat.mode & 0o7777;
        loop {
            let dict = Dict::new()
                .with(keys::XATTR_DHT_LINKTO, linkto::value(self.target().name()))
                .with(XATTR_MODE, Value::ptr(Bytes::copy_from_slice(&mode.to_be_bytes())));
            self.set_xattrs(self.source(), dict).await?;
            let stat = Iatt { mode: mode | MARKS, ..Iatt::default() };
            let request = Setattr { gfid: self.file().gfid, stat, valid: setattr_valid::MODE, xdata: None };
            let was = self.mover.must(self.source(), request).await?.pre.mode & 0o7777;
            // It may be marked on some bricks already, by a mover that died before it reached the one that was looked at.
            if was == expected || was == mode | MARKS {
                return Ok(());
            }
            // A client has set another mode since it was looked at: that one is to be kept.
            (expected, mode) = (mode | MARKS, was);
        }
    }

    /// Copies with writers at work, until a copy is known to be complete; they are stopped then, where they can be.
    async fn copy_and_check(&mut self) -> Result<Look, Error> {
        let size_of = |look: &Look| look.stat.size;
        let mut before = self.look_again().await?;
        self.let_write().await;
        self.copies().copy(size_of(&before), before.has_holes(), false).await?;
        for pass in 1..=PASSES_MAX {
            self.stop_writers().await?;
            let mut now = self.look_again().await?;
            let quiet = now.has_same_content_as(&before);
            if quiet && self.stopped {
                return self.seal(now).await;
            }
            self.copies().resize(size_of(&now)).await?;
            let may_mend = !self.stopped || size_of(&now) <= MEND_BYTES_MAX || pass == 1;
            if may_mend && size_of(&now) > MEND_BYTES_MAX {
                self.let_write().await;
            }
            if may_mend {
                let differed = self.copies().mend(size_of(&now)).await?;
                if self.stopped || !differed {
                    let again = self.look_again().await?;
                    if again.has_same_content_as(&now) {
                        return self.seal(again).await;
                    }
                    now = again;
                }
            }
            self.let_write().await;
            before = now;
        }
        Err(lock_error(self.source(), Errno::EBUSY))
    }

    /// The content is complete: onto the disk with it, and the attributes to it.
    async fn seal(&self, look: Look) -> Result<Look, Error> {
        self.sync().await?;
        self.dress(look).await
    }

    async fn look_again(&self) -> Result<Look, Error> {
        let look = self.mover.look(self.file(), self.source(), false).await?;
        let look = look.ok_or_else(|| lock_error(self.source(), Errno::ENOENT))?;
        match stays(&look) {
            None if look.phase() == Phase::Copying => Ok(look),
            // Somebody has undone the marks, a lock or a link has come: not now.
            _ => Err(lock_error(self.source(), Errno::EAGAIN)),
        }
    }

    /// The target gets the xattrs; again when they change meanwhile. ACLs wait for the flip: they would change the mode by
    /// which clients know a link file. Returns the source as it was when the target was like it.
    async fn dress(&self, look: Look) -> Result<Look, Error> {
        let mut wanted = look;
        let mut set: BTreeMap<String, Bytes> = BTreeMap::new();
        for _ in 0..PASSES_MAX {
            for gone in set.keys().filter(|key| !wanted.xattrs.contains_key(*key)) {
                self.remove_xattr(self.target(), gone).await?;
            }
            set = wanted.xattrs.iter().filter(|(key, _)| !is_acl(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
            let mut dict = Dict::new();
            for (key, value) in &set {
                dict.set(key.clone(), Value::Ptr(value.clone()));
            }
            self.set_xattrs(self.target(), dict).await?;
            let now = self.look_again().await?;
            if now.xattrs == wanted.xattrs {
                return Ok(now);
            }
            wanted = now;
        }
        Err(lock_error(self.source(), Errno::EBUSY))
    }

    /// The target becomes the file.
    async fn flip(&self, look: &Look) -> Result<(), Failed> {
        let stat = Iatt { mode: look.mode(), ..look.stat };
        let Err(error) = self.flip_to(&stat).await else { return Ok(()) };
        // It may have been done all the same.
        match self.mover.look(self.file(), self.target(), false).await {
            Ok(Some(there)) if there.is_link() => Err(Failed::Before(error)),
            Ok(None) => Err(Failed::Before(error)),
            _ => Err(Failed::After(error)),
        }
    }

    /// All bricks of the target are the file, with these attributes. Who finds the flip done repeats it with what is there:
    /// a mover that died in it may have reached one brick and not another, and neither accuses the other.
    async fn flip_to(&self, stat: &Iatt) -> Result<(), Error> {
        let valid =
            setattr_valid::MODE | setattr_valid::UID | setattr_valid::GID | setattr_valid::ATIME | setattr_valid::MTIME;
        let request = Setattr { gfid: self.file().gfid, stat: *stat, valid, xdata: None };
        self.mover.must(self.target(), request).await.map(drop)
    }

    /// Everything after the flip; can be repeated. `there`: the xattrs that the target has.
    async fn finish(&mut self, look: &Look, there: &BTreeMap<String, Bytes>) -> Result<(), Error> {
        let mut acls = Dict::new();
        for (key, value) in look.xattrs.iter().filter(|(key, _)| is_acl(key) && !there.contains_key(*key)) {
            acls.set(key.clone(), Value::Ptr(value.clone()));
        }
        self.set_xattrs(self.target(), acls).await?;
        self.sync().await?;
        match self.set_mode(self.source(), linkto::MODE).await {
            // Removed by a client, who removes the target too.
            Err(error) if error.errno().is_some_and(super::is_absent) => return Ok(()),
            outcome => outcome?,
        }
        // In this order: while the source's name is there, a later run finds what is left to clean.
        self.remove_xattr(self.target(), keys::XATTR_DHT_LINKTO).await?;
        self.unlink_link(self.source()).await
    }

    /// Back to where it was. What fails here is left for a later run: clients keep both copies equal until then.
    async fn undo(&self) {
        let undone = async {
            let source = self.source();
            if let Some(now) = self.mover.look(self.file(), source, false).await?
                && now.points_to.is_some()
                && !now.is_link()
            {
                // A client's chmod has taken the marks off, or nobody had set them.
                if now.phase() == Phase::Copying {
                    self.set_mode(source, now.mode()).await?;
                }
                self.remove_xattr(source, keys::XATTR_DHT_LINKTO).await?;
                self.remove_xattr(source, XATTR_MODE).await?;
            }
            if self.made {
                self.unlink_link(self.target()).await?;
            } else if let Some(there) = self.mover.look(self.file(), self.target(), false).await?
                && there.is_link()
                && there.stat.size > 0
            {
                let request = Truncate { gfid: self.file().gfid, offset: 0, xdata: None };
                self.mover.must(self.target(), request).await?;
            }
            Ok::<(), Error>(())
        };
        if let Err(error) = undone.await {
            tracing::warn!(gfid = %self.file().gfid, %error, "a move is left half undone");
        }
    }

    async fn sync(&self) -> Result<(), Error> {
        let request = Fsync { gfid: self.file().gfid, fd: self.fd, datasync: 0, xdata: None };
        self.mover.must(self.target(), request).await.map(drop)
    }

    async fn stop_writers(&mut self) -> Result<(), Error> {
        if let Some(writers) = self.source().writers.as_ref().filter(|_| !self.stopped) {
            let stopped = self.mover.stop_writers(self.file().gfid, writers).await;
            stopped.map_err(|failure| lock_error(self.source(), failure.errno))?;
            self.stopped = true;
        }
        Ok(())
    }

    async fn let_write(&mut self) {
        if let Some(writers) = self.source().writers.as_ref().filter(|_| self.stopped) {
            self.mover.let_write(self.file().gfid, writers).await;
            self.stopped = false;
        }
    }

    async fn set_mode(&self, at: &Subvolume, mode: u32) -> Result<(), Error> {
        let stat = Iatt { mode, ..Iatt::default() };
        let request = Setattr { gfid: self.file().gfid, stat, valid: setattr_valid::MODE, xdata: None };
        self.mover.must(at, request).await.map(drop)
    }

    async fn set_xattrs(&self, at: &Subvolume, dict: Dict) -> Result<(), Error> {
        if dict.keys().next().is_none() {
            return Ok(());
        }
        let request = Setxattr { gfid: self.file().gfid, flags: 0, dict: Some(dict), xdata: Some(internal()) };
        self.mover.must(at, request).await.map(drop)
    }

    async fn remove_xattr(&self, at: &Subvolume, key: &str) -> Result<(), Error> {
        let name = Bytes::copy_from_slice(key.as_bytes());
        let request = Removexattr { gfid: self.file().gfid, name, xdata: Some(internal()) };
        match self.mover.must(at, request).await {
            Err(error) if error.errno() == Some(Errno::ENODATA) => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// Takes the name away where it is a link file's.
    async fn unlink_link(&self, at: &Subvolume) -> Result<(), Error> {
        super::unlink(self.mover, self.file(), at, internal().with(ONLY_IF_LINK, Value::Uint(1))).await
    }
}

/// Why a file stays, by the looks of it.
const fn stays(look: &Look) -> Option<SkipReason> {
    if look.is_locked {
        Some(SkipReason::Locked)
    } else if look.stat.nlink > 1 {
        Some(SkipReason::HardLinks)
    } else {
        None
    }
}

pub(super) fn internal() -> Dict {
    Dict::new().with(keys::INTERNAL_FOP, Value::str("yes"))
}
