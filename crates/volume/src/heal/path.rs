//! From a gfid to a path, as one brick knows it.

use bytes::Bytes;
use mortar_types::fop::{Getxattr, Lookup};
use mortar_types::{Errno, FopKind, Gfid, SubvolId};

use crate::heal::Error;
use crate::heal::set::Session;

/// Virtual xattrs by which a brick tells an inode's path, best first (`posix/posix-inode-fd-ops.c`).
const PATH_KEYS: [&str; 3] = ["glusterfs.ancestry.path", "glusterfs.gfidtopath", "glusterfs.gfid2path"];

/// A path from the volume's root (`/a/b`), `None` if the child knows none. Of several links, the first.
pub async fn path(session: &Session<'_>, child: SubvolId, gfid: Gfid) -> Option<Bytes> {
    if gfid.is_root() {
        return Some(Bytes::from_static(b"/"));
    }
    for key in PATH_KEYS {
        let request = Getxattr { gfid, name: Some(Bytes::from_static(key.as_bytes())), xdata: None };
        let Ok(reply) = session.call(child, request).await else { continue };
        let value = reply.dict.as_ref().and_then(|dict| dict.get_bytes(key));
        if let Some(path) = value.and_then(first_path) {
            return Some(path);
        }
    }
    None
}

/// The first of colon-separated paths, without the NUL and the trailing slash that a brick may add.
fn first_path(value: &Bytes) -> Option<Bytes> {
    let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
    let end = text.windows(2).position(|pair| pair == b":/").unwrap_or(text.len());
    let mut text = &text[..end];
    while text.len() > 1 && text.ends_with(b"/") {
        text = &text[..text.len() - 1];
    }
    text.starts_with(b"/").then(|| value.slice_ref(text))
}

/// The parent and name by which the child has a directory now, verified by looking it up.
pub(crate) async fn place(session: &Session<'_>, child: SubvolId, gfid: Gfid) -> Result<Option<(Gfid, Bytes)>, Error> {
    let Some(path) = path(session, child, gfid).await else { return Ok(None) };
    let (mut parent, mut found) = (Gfid::ROOT, None);
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        if let Some((_, _, gfid)) = found.take() {
            parent = gfid;
        }
        let name = Bytes::copy_from_slice(name);
        let request = Lookup { gfid: Gfid::NULL, parent, flags: 0, name: name.clone(), xdata: None };
        match session.call(child, request).await {
            Ok(reply) => found = Some((parent, name, reply.stat.gfid)),
            Err(failure) if matches!(failure.errno, Errno::ENOENT | Errno::ESTALE) => return Ok(None),
            Err(failure) => return Err(Error::fop(child, FopKind::Lookup, failure.errno)),
        }
    }
    Ok(found.filter(|(_, _, here)| *here == gfid).map(|(parent, name, _)| (parent, name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_paths_the_first_is_taken() {
        let check = |value: &'static [u8]| first_path(&Bytes::from_static(value));
        assert_eq!(check(b"/a/b:/c\0").as_deref(), Some(&b"/a/b"[..]));
        assert_eq!(check(b"/a:b/").as_deref(), Some(&b"/a:b"[..]));
        assert_eq!(check(b"/").as_deref(), Some(&b"/"[..]));
        assert_eq!(check(b"").as_deref(), None);
        assert_eq!(check(b"a/b").as_deref(), None);
    }
}
