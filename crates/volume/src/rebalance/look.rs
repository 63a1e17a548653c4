//! What a copy of the file is now: one lookup with everything that a move must bring along.

use std::collections::BTreeMap;

use bytes::Bytes;
use mortar_logic::distribute::linkto::{self, Phase};
use mortar_types::fop::Lookup;
use mortar_types::{Dict, Gfid, Iatt, Value, keys};

use super::{Error, File, Mover, Subvolume};

/// Set on the source beside the link xattr: its mode before the marks of the move, big-endian. The marks are two bits of
/// the mode that the file may have had before; without this, who finishes or undoes the move of one that has died would
/// have to guess. GlusterFS's mover takes no notice of it.
pub(super) const XATTR_MODE: &str = "trusted.mortar.migrate-mode";

/// Files up to so many bytes are read by the lookup itself.
pub(super) const CONTENT_BYTES_MAX: u64 = 64 * 1024;

#[derive(Clone, PartialEq, Debug)]
pub(super) struct Look {
    pub(super) stat: Iatt,
    /// What moves along, ACLs included; nothing that belongs to the copy's own place.
    pub(super) xattrs: BTreeMap<String, Bytes>,
    /// All of it, when it is small and has no holes.
    pub(super) content: Option<Bytes>,
    /// POSIX locks are held.
    pub(super) is_locked: bool,
    /// The subvolume that the link xattr names.
    pub(super) points_to: Option<String>,
    /// Its times where the brick keeps them apart from the file system's.
    pub(super) mdata: Option<Value>,
    /// See [`XATTR_MODE`].
    saved_mode: Option<u32>,
}

impl Look {
    pub(super) const fn phase(&self) -> Phase {
        match linkto::phase(&self.stat) {
            Phase::Copying | Phase::Moved if self.points_to.is_none() => Phase::Resting,
            phase => phase,
        }
    }

    pub(super) const fn is_link(&self) -> bool {
        matches!(self.phase(), Phase::Moved)
    }

    /// Permissions as the application set them, without the marks of a move.
    pub(super) const fn mode(&self) -> u32 {
        match (self.phase(), self.saved_mode) {
            (Phase::Resting, _) => self.stat.mode & 0o7777,
            // Clients may have changed it since; they do not see the marks and cannot set them meanwhile.
            (_, Some(saved)) => (self.stat.mode & 0o4777) | (saved & 0o3000),
            (_, None) => self.stat.mode & 0o4777,
        }
    }

    /// Whether nobody has written in between, as far as attributes can tell.
    pub(super) fn has_same_content_as(&self, other: &Self) -> bool {
        let seen = |stat: &Iatt| (stat.size, stat.mtime);
        seen(&self.stat) == seen(&other.stat)
    }

    pub(super) fn has_holes(&self) -> bool {
        self.stat.blocks.saturating_mul(512) < self.stat.size
    }
}

impl Mover {
    /// The file by its name; `None` when the name is not there or leads elsewhere.
    pub(super) async fn look(&self, file: &File, at: &Subvolume, content: bool) -> Result<Option<Look>, Error> {
        let look = self.look_at_name(file, at, content).await?;
        Ok(look.filter(|look| look.stat.gfid == file.gfid))
    }

    /// Whatever has the name.
    pub(super) async fn look_at_name(&self, file: &File, at: &Subvolume, content: bool) -> Result<Option<Look>, Error> {
        let mut xdata = Dict::new()
            .with(keys::LIST_XATTR, Value::Uint(1))
            .with(keys::POSIXLK_COUNT, Value::Uint(0))
            .with(keys::XATTR_DHT_LINKTO, Value::Uint(256));
        if content {
            xdata.set(keys::CONTENT, Value::Uint(CONTENT_BYTES_MAX));
        }
        let (parent, name) = (file.parent, file.name.clone());
        let request = Lookup { gfid: Gfid::NULL, parent, flags: 0, name, xdata: Some(xdata) };
        let reply = self.find(at, request).await?;
        Ok(reply.map(|reply| interpret(reply.stat, reply.xdata.as_ref())))
    }
}

fn interpret(stat: Iatt, xdata: Option<&Dict>) -> Look {
    let mut look = Look {
        stat,
        xattrs: BTreeMap::new(),
        content: None,
        is_locked: false,
        points_to: None,
        mdata: None,
        saved_mode: None,
    };
    let Some(xdata) = xdata else { return look };
    look.is_locked = xdata.get_i64(keys::POSIXLK_COUNT).is_some_and(|count| count > 0);
    look.points_to = linkto::named(xdata).map(str::to_owned);
    look.content = xdata.get_bytes(keys::CONTENT).filter(|content| content.len() as u64 == stat.size).cloned();
    look.mdata = xdata.get(keys::XATTR_MDATA).cloned();
    look.saved_mode = xdata.get_bytes(XATTR_MODE).and_then(|value| value[..].try_into().ok()).map(u32::from_be_bytes);
    for (key, value) in xdata.iter().filter(|(key, _)| moves_along(key)) {
        if let Some(bytes) = value.as_bytes() {
            look.xattrs.insert(key.to_owned(), bytes.clone());
        }
    }
    look
}

/// Stored xattrs, but not those that say something about this copy only.
fn moves_along(key: &str) -> bool {
    const NAMESPACES: [&str; 4] = ["user.", "trusted.", "security.", "system.posix_acl_"];
    let own = key == keys::XATTR_MDATA
        || key == keys::XATTR_GFID
        || key == XATTR_MODE
        || key.starts_with(keys::XATTR_DHT)
        || key.starts_with(keys::XATTR_AFR_PREFIX)
        || key.starts_with("trusted.ec.")
        || key.starts_with("trusted.pgfid.")
        || key.starts_with("trusted.glusterfs.protect.")
        || key.starts_with(keys::XATTR_GFID2PATH_PREFIX);
    !own && NAMESPACES.iter().any(|namespace| key.starts_with(namespace))
}

pub(super) fn is_acl(key: &str) -> bool {
    key.starts_with("system.posix_acl_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(mode: u32) -> Iatt {
        Iatt { mode: 0o100_000 | mode, ..Iatt::default() }
    }

    #[test]
    fn marks_without_the_link_xattr_are_the_files_own() {
        assert_eq!(interpret(file(0o3644), Some(&Dict::new())).mode(), 0o3644);
        let moving = Dict::new().with(keys::XATTR_DHT_LINKTO, linkto::value("t"));
        let look = interpret(file(0o3644), Some(&moving));
        assert_eq!((look.phase(), look.mode(), look.points_to.as_deref()), (Phase::Copying, 0o644, Some("t")));
    }

    #[test]
    fn the_mode_before_the_marks_is_remembered() {
        let moving = Dict::new()
            .with(keys::XATTR_DHT_LINKTO, linkto::value("t"))
            .with(XATTR_MODE, Value::ptr(0o2755_u32.to_be_bytes().to_vec()));
        assert_eq!(interpret(file(0o3700), Some(&moving)).mode(), 0o2700);
    }

    #[test]
    fn what_belongs_to_a_place_stays_there() {
        for key in ["trusted.afr.v-client-0", "trusted.glusterfs.dht.linkto", XATTR_MODE, "trusted.gfid2path.0", "x"] {
            assert!(!moves_along(key), "{key}");
        }
        for key in ["user.a", "security.capability", "system.posix_acl_access", "trusted.other"] {
            assert!(moves_along(key), "{key}");
        }
    }
}
