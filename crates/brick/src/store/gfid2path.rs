//! `trusted.gfid2path.HASH`: the names of an inode that is no directory, one xattr per hard link.
//!
//! The value is `PARENT-GFID/NAME` without a NUL; HASH is its 64-bit xxHash with seed 0, as 16 hex digits.
//! Source: GlusterFS `posix/posix-gfid-path.c`, the bricks in `tests/fixtures`.

use mortar_sys::xattr::{self, SetMode};
use mortar_sys::{Loc, Result};
use mortar_types::keys::XATTR_GFID2PATH_PREFIX;
use mortar_types::{EntryName, Errno, Gfid};
use xxhash_rust::xxh64::xxh64;

use super::handle::{gfid_text, parse_gfid};

/// The xattr's name and value for one link.
pub(crate) fn pair(parent: Gfid, name: &EntryName) -> (String, Vec<u8>) {
    let value = [&gfid_text(parent)[..], b"/", name.as_bytes()].concat();
    (format!("{XATTR_GFID2PATH_PREFIX}{:016x}", xxh64(&value, 0)), value)
}

/// One name from a value.
pub(crate) fn parse(value: &[u8]) -> Option<(Gfid, EntryName)> {
    let (parent, name) = value.split_at_checked(36)?;
    let name = EntryName::new(name.strip_prefix(b"/")?.to_vec()).ok()?;
    Some((parse_gfid(parent)?, name))
}

/// Notes a link. One that is noted already is as good.
pub(crate) fn add(loc: Loc<'_>, parent: Gfid, name: &EntryName) -> Result<()> {
    let (key, value) = pair(parent, name);
    match xattr::set(loc, key.as_bytes(), &value, SetMode::Create) {
        Err(Errno::EEXIST) => Ok(()),
        result => result,
    }
}

/// Drops a link's note. Bricks first written before 3.13 have none.
pub(crate) fn remove(loc: Loc<'_>, parent: Gfid, name: &EntryName) -> Result<()> {
    match xattr::remove(loc, pair(parent, name).0.as_bytes()) {
        Err(Errno::ENODATA) => Ok(()),
        result => result,
    }
}

/// All noted links.
pub(crate) fn list(loc: Loc<'_>) -> Result<Vec<(Gfid, EntryName)>> {
    let mut links = Vec::new();
    for key in xattr::list(loc)?.iter().filter(|key| key.starts_with(XATTR_GFID2PATH_PREFIX.as_bytes())) {
        if let Some(link) = xattr::get(loc, key)?.as_deref().and_then(parse) {
            links.push(link);
        }
    }
    Ok(links)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_one_glusterfs_computes() {
        // d1/blk of fixture a-replica2-clean.
        let parent = "336f1a02-b0c7-4309-808a-141b167d8e23".parse().expect("a gfid");
        let (key, value) = pair(parent, &EntryName::new("blk").expect("a name"));
        assert_eq!(key, "trusted.gfid2path.b8ee1397cb510e6d");
        assert_eq!(value, b"336f1a02-b0c7-4309-808a-141b167d8e23/blk");
        assert_eq!(parse(&value), Some((parent, EntryName::new("blk").expect("a name"))));
        assert_eq!(parse(b"336f1a02-b0c7-4309-808a-141b167d8e23"), None);
    }
}
