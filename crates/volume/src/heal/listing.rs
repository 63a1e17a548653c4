//! Reading a directory of one child to its end.

use bytes::Bytes;
use mortar_types::fop::{Opendir, Readdir, Releasedir};
use mortar_types::{Errno, Fd, Gfid, SubvolId};

use crate::heal::Error;
use crate::heal::set::Session;

/// One page, in bytes, as GlusterFS's own crawlers ask for.
const PAGE_BYTES: u32 = 128 << 10;

/// All names without `.` and `..`; a directory that does not exist has none.
pub(crate) async fn names(session: &Session<'_>, child: SubvolId, dir: Gfid) -> Result<Vec<Bytes>, Error> {
    let fd = match session.call(child, Opendir { gfid: dir, xdata: None }).await {
        Ok(reply) => reply.fd,
        Err(failure) if matches!(failure.errno, Errno::ENOENT | Errno::ESTALE) => return Ok(Vec::new()),
        Err(failure) => return Err(Error::fop(child, mortar_types::FopKind::Opendir, failure.errno)),
    };
    let names = read_all(session, child, dir, fd).await;
    // The names are here; that the brick could not close is its own affair.
    let _closed = session.call(child, Releasedir { gfid: dir, fd, xdata: None }).await;
    names
}

async fn read_all(session: &Session<'_>, child: SubvolId, dir: Gfid, fd: Fd) -> Result<Vec<Bytes>, Error> {
    let (mut names, mut offset) = (Vec::new(), 0);
    loop {
        let request = Readdir { gfid: dir, fd, offset, size: PAGE_BYTES, xdata: None };
        let page = session.must(child, request).await?;
        let Some(last) = page.entries.last() else { return Ok(names) };
        if last.offset == offset {
            return Ok(names);
        }
        offset = last.offset;
        names.extend(page.entries.into_iter().map(|entry| entry.name).filter(|name| !is_dot(name)));
        if page.eof {
            return Ok(names);
        }
    }
}

fn is_dot(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}
