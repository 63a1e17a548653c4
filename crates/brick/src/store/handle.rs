//! Handles: where an inode is found by its gfid, `.glusterfs/xx/yy/GFID`.
//!
//! For everything but directories the handle is a hard link; for a directory it is a symbolic link with the text
//! `../../PX/PY/PARENT-GFID/NAME`. Only the forms are here; see [`super::resolve`] for following them.
//! Source: GlusterFS `posix/posix-handle.c`, seen on the bricks in `tests/fixtures`.

use mortar_types::{EntryName, Gfid};

/// The hidden directory in a brick's root.
pub(crate) const HIDDEN_DIR: &[u8] = b".glusterfs";

/// `.glusterfs/xx/yy/GFID`, relative to the brick's root. Kept on the stack: every fop makes one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HandlePath([u8; Self::LEN]);

impl HandlePath {
    const LEN: usize = 11 + 3 + 3 + 36;

    pub(crate) fn new(gfid: Gfid) -> Self {
        let mut path = [0; Self::LEN];
        let text = gfid_text(gfid);
        path[..11].copy_from_slice(b".glusterfs/");
        path[11..13].copy_from_slice(&text[..2]);
        path[13] = b'/';
        path[14..16].copy_from_slice(&text[2..4]);
        path[16] = b'/';
        path[17..].copy_from_slice(&text);
        Self(path)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// `.glusterfs/xx`.
    pub(crate) fn first_level(&self) -> &[u8] {
        &self.0[..13]
    }

    /// `.glusterfs/xx/yy`.
    pub(crate) fn second_level(&self) -> &[u8] {
        &self.0[..16]
    }
}

/// The 36 characters of a gfid.
pub(crate) fn gfid_text(gfid: Gfid) -> [u8; 36] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (index, byte) in gfid.0.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = DIGITS[usize::from(byte >> 4)];
        text[at + 1] = DIGITS[usize::from(byte & 15)];
        at += 2;
    }
    text
}

/// A gfid from a file's name.
pub(crate) fn parse_gfid(text: &[u8]) -> Option<Gfid> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A name in `.glusterfs`, such as `unlink/GFID`.
pub(crate) fn hidden_path(folder: &str, name: &[u8]) -> Vec<u8> {
    [HIDDEN_DIR, b"/", folder.as_bytes(), b"/", name].concat()
}

/// Where the handle of a file goes that lost its last name while it is open.
pub(crate) fn unlinked_path(gfid: Gfid) -> Vec<u8> {
    hidden_path("unlink", &gfid_text(gfid))
}

/// What a directory's handle says: its name and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DirHandle {
    pub(crate) parent: Gfid,
    pub(crate) name: EntryName,
}

/// The text of the root's handle.
pub(crate) const ROOT_HANDLE_TEXT: &[u8] = b"../../..";

impl DirHandle {
    /// The symbolic link's text.
    pub(crate) fn to_text(&self) -> Vec<u8> {
        let parent = gfid_text(self.parent);
        [b"../../", &parent[..2], b"/", &parent[2..4], b"/", &parent, b"/", self.name.as_bytes()].concat()
    }

    /// `None` for anything not of the exact shape: a client's own symbolic link, or damage.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let rest = text.strip_prefix(b"../../")?;
        let (levels, rest) = rest.split_at_checked(6)?;
        let (parent_text, rest) = rest.split_at_checked(36)?;
        let name = rest.strip_prefix(b"/")?;
        let parent = parse_gfid(parent_text)?;
        let exact = levels == [&parent_text[..2], b"/", &parent_text[2..4], b"/"].concat();
        let name = EntryName::new(name.to_vec()).ok()?;
        exact.then_some(Self { parent, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_below_the_first_two_bytes() {
        let gfid: Gfid = "ab12cdef-0000-4000-8000-0123456789ab".parse().expect("it is one");
        let path = HandlePath::new(gfid);
        assert_eq!(path.as_bytes(), b".glusterfs/ab/12/ab12cdef-0000-4000-8000-0123456789ab");
        assert_eq!(path.first_level(), b".glusterfs/ab");
        assert_eq!(path.second_level(), b".glusterfs/ab/12");
        assert_eq!(&gfid_text(gfid)[..], gfid.to_string().as_bytes());
    }

    #[test]
    fn a_directory_handle_round_trips() {
        let handle = DirHandle { parent: Gfid::ROOT, name: EntryName::new("d 1").expect("a name") };
        let text = handle.to_text();
        assert_eq!(text, b"../../00/00/00000000-0000-0000-0000-000000000001/d 1");
        assert_eq!(DirHandle::parse(&text), Some(handle));
    }

    #[test]
    fn other_texts_are_no_handles() {
        for text in [
            &b"../../.."[..],
            b"../../00/01/00000000-0000-0000-0000-000000000001/x",
            b"../../00/00/00000000-0000-0000-0000-000000000001/",
            b"../../00/00/00000000-0000-0000-0000-000000000001/..",
            b"../../00/00/00000000-0000-0000-0000-000000000001/a/b",
            b"../00/00/00000000-0000-0000-0000-000000000001/a",
            b"f1",
            b"",
        ] {
            assert_eq!(DirHandle::parse(text), None, "{}", String::from_utf8_lossy(text));
        }
    }
}
