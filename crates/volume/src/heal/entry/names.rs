//! Which names of a directory to look at, and what they are on every child.

use std::collections::BTreeSet;

use bytes::Bytes;
use mortar_logic::heal::name::Seen;
use mortar_types::fop::Lookup;
use mortar_types::{Dict, Errno, Gfid, SubvolMap, Value, keys};

use crate::heal::set::Session;
use crate::heal::{Error, index, listing};

/// Names to look at, each once.
pub(crate) struct Names;

impl Names {
    /// From the indexes of all children, or with `full` from all their directories. An index that names nothing although
    /// the directory is pending was not kept (a client without granular entry heal): then everything is looked at.
    pub(crate) async fn collect(session: &Session<'_>, dir: Gfid, full: bool) -> Result<Vec<Bytes>, Error> {
        let mut names = BTreeSet::new();
        if !full {
            for child in session.set.all().iter() {
                names.extend(index::changed_names(session, child, dir).await?);
            }
        }
        if names.is_empty() {
            for child in session.set.all().iter() {
                names.extend(listing::names(session, child, dir).await?);
            }
        }
        names.retain(|name| !session.set.is_private(dir, name));
        Ok(names.into_iter().collect())
    }
}

/// What the name is on every child.
pub(crate) async fn seen(session: &Session<'_>, dir: Gfid, name: &Bytes) -> SubvolMap<Seen> {
    // Without this a brick answers ENODATA for an inode that a crash left without gfid.
    let xdata = Dict::new().with(keys::GFIDLESS_LOOKUP, Value::Int(1));
    let request =
        |_| Lookup { gfid: Gfid::NULL, parent: dir, flags: 0, name: name.clone(), xdata: Some(xdata.clone()) };
    session.each(session.set.all(), request).await.map(|_, answer| match answer {
        Some(Ok(reply)) => match reply.stat.file_type() {
            Some(kind) => Seen::Present { gfid: reply.stat.gfid, kind },
            None => Seen::Unknown(Errno::EIO),
        },
        Some(Err(failure)) if failure.errno == Errno::ENOENT => Seen::Absent,
        Some(Err(failure)) => Seen::Unknown(failure.errno),
        None => Seen::Unknown(Errno::ENOTCONN),
    })
}
