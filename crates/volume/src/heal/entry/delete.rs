//! Taking a name off a stale child.
//!
//! An inode that still lives on a good copy is not thrown away with the last of its names: it was moved, and the heal of
//! its new directory will want it, content and all. It waits in the parking directory
//! (`.glusterfs-anonymous-inode-VOLUME-ID`, as GlusterFS does from 9 on).

use bytes::Bytes;
use mortar_logic::heal::Children;
use mortar_types::fop::{Lookup, Mkdir, Rename, Rmdir, Unlink};
use mortar_types::{Dict, Errno, FileType, FopKind, Gfid, Iatt, SubvolId, Value, keys};

use crate::heal::Error;
use crate::heal::set::Session;

/// Throw away the whole tree (`GF_RMDIR` flag: the brick moves it to its landfill).
const RMDIR_WHOLE_TREE: i32 = 1;

/// What the name stands for on the stale child.
#[derive(Clone, Copy)]
pub(super) struct Victim {
    pub(super) gfid: Gfid,
    pub(super) kind: FileType,
}

/// `sources`: children whose copy of the directory is right.
pub(super) async fn delete(
    session: &Session<'_>,
    dir: Gfid,
    name: &Bytes,
    victim: Victim,
    sink: SubvolId,
    sources: Children,
) -> Result<(), Error> {
    let model = if victim.gfid.is_null() { None } else { lives_on(session, victim.gfid, sources).await? };
    let Some(model) = model else { return remove(session, dir, name, victim.kind, sink).await };
    let Some(theirs) = session.exists(sink, victim.gfid).await? else {
        return remove(session, dir, name, victim.kind, sink).await;
    };
    if victim.kind == FileType::Directory || theirs.nlink <= 1 {
        return park(session, dir, name, victim.gfid, sink).await;
    }
    // The removal changed the inode on the good copy too, and no mark tells of that. First: when the name is gone,
    // nothing says that this was left to do.
    session.raise_ctime(sink, &theirs, model.ctime).await?;
    remove(session, dir, name, victim.kind, sink).await
}

async fn remove(session: &Session<'_>, dir: Gfid, name: &Bytes, kind: FileType, sink: SubvolId) -> Result<(), Error> {
    let gone = if kind == FileType::Directory {
        let request = Rmdir { parent: dir, flags: RMDIR_WHOLE_TREE, name: name.clone(), xdata: Some(internal()) };
        session.must(sink, request).await.map(|_| ())
    } else {
        unlink(session, dir, name, sink).await
    };
    ignore_missing(gone)
}

/// The inode on a good copy.
async fn lives_on(session: &Session<'_>, gfid: Gfid, sources: Children) -> Result<Option<Iatt>, Error> {
    for source in sources.iter() {
        if let Some(stat) = session.exists(source, gfid).await? {
            return Ok(Some(stat));
        }
    }
    Ok(None)
}

/// Moves the last name to the parking directory. Never onto another link of the same inode: rename(2) would then do
/// nothing and the name would stay, which is why only last names come here and the target is looked at first.
async fn park(session: &Session<'_>, dir: Gfid, name: &Bytes, gfid: Gfid, sink: SubvolId) -> Result<(), Error> {
    ensure_parking(session, sink).await?;
    if is_parked(session, sink, gfid).await? {
        // A directory cannot be at two places; a file here twice has another link: this one can go.
        return ignore_missing(unlink(session, dir, name, sink).await);
    }
    let request = Rename {
        old_parent: dir,
        new_parent: session.set.parking_gfid(),
        old_name: name.clone(),
        new_name: parked_name(gfid),
        xdata: Some(internal()),
    };
    ignore_missing(session.must(sink, request).await.map(|_| ()))?;
    // Another healer may have linked the inode into its new directory since its links were counted, and have found
    // nothing parked then. One of the two comes last, and both look after they acted.
    unpark_linked(session, gfid, sink).await
}

/// Takes a file out of the parking directory that has a proper name besides.
pub(crate) async fn unpark_linked(session: &Session<'_>, gfid: Gfid, child: SubvolId) -> Result<(), Error> {
    match session.exists(child, gfid).await? {
        Some(stat) if !stat.is_dir() && stat.nlink > 1 => unpark(session, gfid, child).await,
        _ => Ok(()),
    }
}

pub(super) fn parked_name(gfid: Gfid) -> Bytes {
    gfid.to_string().into()
}

/// Whether the inode waits in the child's parking directory.
pub(crate) async fn is_parked(session: &Session<'_>, child: SubvolId, gfid: Gfid) -> Result<bool, Error> {
    let (parent, name) = (session.set.parking_gfid(), parked_name(gfid));
    let request = Lookup { gfid: Gfid::NULL, parent, flags: 0, name, xdata: None };
    match session.call(child, request).await {
        Ok(reply) => Ok(reply.stat.gfid == gfid),
        Err(failure) if matches!(failure.errno, Errno::ENOENT | Errno::ESTALE) => Ok(false),
        Err(failure) => Err(Error::fop(child, FopKind::Lookup, failure.errno)),
    }
}

/// Takes an inode that has a proper name again out of the parking directory.
pub(super) async fn unpark(session: &Session<'_>, gfid: Gfid, child: SubvolId) -> Result<(), Error> {
    if !is_parked(session, child, gfid).await? {
        return Ok(());
    }
    ignore_missing(unlink(session, session.set.parking_gfid(), &parked_name(gfid), child).await)
}

/// Removes a parked inode for good, with everything below it.
pub(crate) async fn throw_away_parked(session: &Session<'_>, child: SubvolId, gfid: Gfid) -> Result<(), Error> {
    let Some(stat) = session.exists(child, gfid).await? else { return Ok(()) };
    let (parent, name) = (session.set.parking_gfid(), parked_name(gfid));
    if stat.is_dir() {
        let request = Rmdir { parent, flags: RMDIR_WHOLE_TREE, name, xdata: Some(internal()) };
        return ignore_missing(session.must(child, request).await.map(|_| ()));
    }
    ignore_missing(unlink(session, parent, &name, child).await)
}

async fn ensure_parking(session: &Session<'_>, child: SubvolId) -> Result<(), Error> {
    if session.exists(child, session.set.parking_gfid()).await?.is_some() {
        return Ok(());
    }
    let xdata = internal().with(keys::GFID_REQ, Value::Gfid(session.set.parking_gfid()));
    let request =
        Mkdir { parent: Gfid::ROOT, mode: 0o755, umask: 0, name: session.set.parking_name(), xdata: Some(xdata) };
    match session.call(child, request).await {
        Ok(_) => Ok(()),
        Err(failure) if failure.errno == Errno::EEXIST => Ok(()),
        Err(failure) => Err(Error::fop(child, FopKind::Mkdir, failure.errno)),
    }
}

async fn unlink(session: &Session<'_>, parent: Gfid, name: &Bytes, child: SubvolId) -> Result<(), Error> {
    let request = Unlink { parent, name: name.clone(), flags: 0, xdata: Some(internal()) };
    session.must(child, request).await.map(|_| ())
}

/// Somebody was faster: the name is gone, which is what was wanted.
fn ignore_missing(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::Fop { errno: Errno::ENOENT, .. }) => Ok(()),
        other => other,
    }
}

/// Marks a change as nobody's request: no free-space reserve, no quota, no change log record.
pub(super) fn internal() -> Dict {
    Dict::new().with(keys::INTERNAL_FOP, Value::str("yes"))
}
