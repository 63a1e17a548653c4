//! The bricks' indexes: which inodes and which names are pending (`index/index.c`). They are directories behind gfids that
//! a brick makes up at each start and tells as virtual xattrs of the root.

use bytes::Bytes;
use mortar_types::fop::{Getxattr, Lookup, Unlink};
use mortar_types::{Errno, FopKind, Gfid, SubvolId, keys};

use crate::heal::set::Session;
use crate::heal::{Error, listing};

/// One of a brick's indexes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Index {
    /// Inodes with accusations.
    Xattrop,
    /// Inodes with an operation of unknown outcome.
    Dirty,
    /// Directories with changed names.
    EntryChanges,
}

impl Index {
    pub const ALL: [Self; 3] = [Self::Xattrop, Self::Dirty, Self::EntryChanges];

    const fn key(self) -> &'static str {
        match self {
            Self::Xattrop => keys::XATTROP_INDEX_GFID,
            Self::Dirty => keys::XATTROP_DIRTY_GFID,
            Self::EntryChanges => keys::XATTROP_ENTRY_CHANGES_GFID,
        }
    }
}

/// The gfid behind which the child's index can be read; `None` for a brick that keeps none.
async fn directory(session: &Session<'_>, child: SubvolId, index: Index) -> Result<Option<Gfid>, Error> {
    let name = Some(Bytes::from_static(index.key().as_bytes()));
    match session.call(child, Getxattr { gfid: Gfid::ROOT, name, xdata: None }).await {
        Ok(reply) => Ok(reply.dict.as_ref().and_then(|dict| dict.get_gfid(index.key()))),
        Err(failure) if matches!(failure.errno, Errno::ENODATA | Errno::EOPNOTSUPP | Errno::ENOENT) => Ok(None),
        Err(failure) => Err(Error::fop(child, FopKind::Getxattr, failure.errno)),
    }
}

/// The inodes that the index names. Its base files (`xattrop-UUID`) are no gfids.
pub async fn entries(session: &Session<'_>, child: SubvolId, index: Index) -> Result<Vec<Gfid>, Error> {
    let Some(directory) = directory(session, child, index).await? else { return Ok(Vec::new()) };
    let names = listing::names(session, child, directory).await?;
    Ok(names.iter().filter_map(|name| std::str::from_utf8(name).ok()?.parse().ok()).collect())
}

/// The inodes that any of the child's indexes names, each once.
pub async fn all_entries(session: &Session<'_>, child: SubvolId) -> Result<Vec<Gfid>, Error> {
    let mut gfids = Vec::new();
    for index in Index::ALL {
        gfids.extend(entries(session, child, index).await?);
    }
    gfids.sort_unstable();
    gfids.dedup();
    Ok(gfids)
}

/// Removes an inode that exists nowhere any more from the child's indexes.
pub async fn forget(session: &Session<'_>, child: SubvolId, gfid: Gfid) -> Result<(), Error> {
    for index in [Index::Xattrop, Index::Dirty] {
        let Some(parent) = directory(session, child, index).await? else { continue };
        remove(session, child, parent, gfid.to_string().into()).await?;
    }
    let Some(parent) = directory(session, child, Index::EntryChanges).await? else { return Ok(()) };
    let name = Bytes::from(gfid.to_string());
    let request = mortar_types::fop::Rmdir { parent, flags: 0, name, xdata: None };
    match session.call(child, request).await {
        Ok(_) => Ok(()),
        Err(failure) if matches!(failure.errno, Errno::ENOENT | Errno::ESTALE) => Ok(()),
        Err(failure) => Err(Error::fop(child, FopKind::Rmdir, failure.errno)),
    }
}

/// The names that changed in a directory while some child was away.
pub(crate) async fn changed_names(session: &Session<'_>, child: SubvolId, dir: Gfid) -> Result<Vec<Bytes>, Error> {
    match names_directory(session, child, dir).await? {
        Some(directory) => listing::names(session, child, directory).await,
        None => Ok(Vec::new()),
    }
}

/// Removes a healed name from the indexes. Best effort: the mark on the directory decides, not the index.
pub(crate) async fn forget_name(session: &Session<'_>, dir: Gfid, name: &Bytes) {
    for child in session.set.all().iter() {
        if let Ok(Some(parent)) = names_directory(session, child, dir).await {
            let _removed = remove(session, child, parent, name.clone()).await;
        }
    }
}

async fn names_directory(session: &Session<'_>, child: SubvolId, dir: Gfid) -> Result<Option<Gfid>, Error> {
    let Some(parent) = directory(session, child, Index::EntryChanges).await? else { return Ok(None) };
    let name = Bytes::from(dir.to_string());
    match session.call(child, Lookup { gfid: Gfid::NULL, parent, flags: 0, name, xdata: None }).await {
        Ok(reply) => Ok(Some(reply.stat.gfid)),
        Err(failure) if matches!(failure.errno, Errno::ENOENT | Errno::ESTALE) => Ok(None),
        Err(failure) => Err(Error::fop(child, FopKind::Lookup, failure.errno)),
    }
}

async fn remove(session: &Session<'_>, child: SubvolId, parent: Gfid, name: Bytes) -> Result<(), Error> {
    match session.call(child, Unlink { parent, name, flags: 0, xdata: None }).await {
        Ok(_) => Ok(()),
        Err(failure) if matches!(failure.errno, Errno::ENOENT | Errno::ESTALE) => Ok(()),
        Err(failure) => Err(Error::fop(child, FopKind::Unlink, failure.errno)),
    }
}
