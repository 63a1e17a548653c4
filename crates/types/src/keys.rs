//! Dict keys and xattr names with a meaning of their own. Sources: `libglusterfs/src/glusterfs/glusterfs.h` and the
//! translators named in `docs/compat.md`.

/// The gfid a new object must get; in LOOKUP, the gfid for an object that has none.
pub const GFID_REQ: &str = "gfid-req";
pub const INTERNAL_FOP: &str = "glusterfs-internal-fop";
pub const LIST_XATTR: &str = "list-xattr";
pub const LINK_COUNT: &str = "link-count";
pub const XATTROP_INDEX_COUNT: &str = "glusterfs.xattrop_index_count";
pub const CONTENT: &str = "glusterfs.content";
pub const OPEN_FD_COUNT: &str = "glusterfs.open-fd-count";
pub const OPEN_ACTIVE_FD_COUNT: &str = "glusterfs.open-active-fd-count";
pub const WRITE_IS_APPEND: &str = "glusterfs.write-is-append";
pub const INODELK_COUNT: &str = "glusterfs.inodelk-count";
pub const INODELK_DOM_COUNT: &str = "glusterfs.inodelk-dom-count";
pub const INODELK_DOM_PREFIX: &str = "glusterfs.inodelk-dom-prefix";
pub const MULTI_DOM_LK_CNT_REQ: &str = "glusterfs.multi-dom-lk-cnt-req";
pub const ENTRYLK_COUNT: &str = "glusterfs.entrylk-count";
pub const POSIXLK_COUNT: &str = "glusterfs.posixlk-count";
pub const PARENT_ENTRYLK: &str = "glusterfs.parent-entrylk";
pub const XATTROP_ENTRY_CREATE: &str = "glusterfs.xattrop-entry-create";
pub const XATTROP_ENTRY_DELETE: &str = "glusterfs.xattrop-entry-delete";
pub const XATTROP_PURGE_INDEX: &str = "glusterfs.xattrop-purge-index";
pub const XATTROP_INDEX_GFID: &str = "glusterfs.xattrop_index_gfid";
pub const XATTROP_DIRTY_GFID: &str = "glusterfs.xattrop_dirty_gfid";
pub const XATTROP_ENTRY_CHANGES_GFID: &str = "glusterfs.xattrop_entry_changes_gfid";
pub const INDEX_TYPE_REQUEST: &str = "glusterfs.index-ia-type-get-req";
pub const INDEX_TYPE_RESPONSE: &str = "glusterfs.index-ia-type-get-rsp";
pub const PREOP_PARENT_KEY: &str = "glusterfs.preop.parent.key";
pub const PREOP_CHECK_FAILED: &str = "glusterfs.preop.check.failed";
pub const GFIDLESS_LOOKUP: &str = "gfidless-lookup";
pub const UNLINKED_LOOKUP: &str = "unlinked-lookup";
pub const GET_GFID_TYPE: &str = "get-gfid-type";
pub const SET_CTIME_MDATA: &str = "set-ctime-mdata";
pub const PATHINFO: &str = "trusted.glusterfs.pathinfo";
pub const NODE_UUID: &str = "trusted.glusterfs.node-uuid";
pub const BATCH_FSYNC: &str = "batch-fsync";
pub const LAST_FSYNC: &str = "last-fsync";
pub const GET_LINK_COUNT: &str = "get-link-count";
pub const REQUEST_LINK_COUNT: &str = "gf_request_link_count";
pub const RESPONSE_LINK_COUNT: &str = "gf_response_link_count";
pub const GET_FILE_BLOCK_COUNT: &str = "gf_get_file_block_count";
pub const GET_SIZE: &str = "get-size";
pub const FORCE_REPLACE: &str = "force-replace";
pub const FIPS_RCHECKSUM: &str = "fips-mode-rchecksum";

/// In SETVOLUME by our own clients: 1 when they know what a callback that means nothing (`GF_CBK_NULL`) is for.
pub const PULSE: &str = "mortar.pulse";
/// Our own brick's SETVOLUME reply: 1 when it takes the keys below. They are sent to no brick that has not said so.
pub const COMPOUNDS: &str = "mortar.compounds";
/// On (F)XATTROP: first take a write lock on all contents, without waiting; EAGAIN and nothing done when it is not free.
/// On CREATE: after the file was made, take the lock and add to its counters. The value is `mortar_logic`'s `DataLock`.
pub const LOCK_DATA: &str = "mortar.lock-data";
/// On (F)XATTROP: give the lock of [`LOCK_DATA`] back after the counters have moved (or could not).
pub const UNLOCK_DATA: &str = "mortar.unlock-data";
/// In replies to both, errors too: 1 when the lock is held now, else 0. Absent when nothing was tried.
pub const LOCKED: &str = "mortar.locked";

/// On LK, within a client only: the owner has the lock already, on some bricks; ask all, and give nothing back when one
/// refuses.
pub const LOCK_AGAIN: &str = "mortar.lock-again";

/// An xattr that asking for makes a mount take up the newest volfile; answered when it is in use.
pub const REFRESH: &str = "trusted.mortar.refresh";

pub const XATTR_GFID: &str = "trusted.gfid";
pub const XATTR_VOLUME_ID: &str = "trusted.glusterfs.volume-id";
pub const XATTR_MDATA: &str = "trusted.glusterfs.mdata";
pub const XATTR_GFID2PATH_PREFIX: &str = "trusted.gfid2path.";
pub const XATTR_AFR_PREFIX: &str = "trusted.afr.";
pub const XATTR_AFR_DIRTY: &str = "trusted.afr.dirty";
pub const XATTR_DHT: &str = "trusted.glusterfs.dht";
pub const XATTR_DHT_MDS: &str = "trusted.glusterfs.dht.mds";
pub const XATTR_DHT_LINKTO: &str = "trusted.glusterfs.dht.linkto";
pub const XATTR_ACL_ACCESS: &str = "system.posix_acl_access";
pub const XATTR_ACL_DEFAULT: &str = "system.posix_acl_default";

/// Keys that ride along with ordinary fops: found without allocating by [`known`].
const KNOWN: &[&str] = &[
    GFID_REQ,
    INTERNAL_FOP,
    LIST_XATTR,
    LINK_COUNT,
    XATTROP_INDEX_COUNT,
    CONTENT,
    OPEN_FD_COUNT,
    OPEN_ACTIVE_FD_COUNT,
    WRITE_IS_APPEND,
    INODELK_COUNT,
    INODELK_DOM_COUNT,
    MULTI_DOM_LK_CNT_REQ,
    ENTRYLK_COUNT,
    POSIXLK_COUNT,
    PARENT_ENTRYLK,
    XATTROP_ENTRY_CREATE,
    XATTROP_ENTRY_DELETE,
    XATTROP_PURGE_INDEX,
    XATTROP_INDEX_GFID,
    XATTROP_DIRTY_GFID,
    XATTROP_ENTRY_CHANGES_GFID,
    PREOP_PARENT_KEY,
    PREOP_CHECK_FAILED,
    GFIDLESS_LOOKUP,
    UNLINKED_LOOKUP,
    GET_GFID_TYPE,
    SET_CTIME_MDATA,
    PATHINFO,
    NODE_UUID,
    BATCH_FSYNC,
    LAST_FSYNC,
    GET_LINK_COUNT,
    REQUEST_LINK_COUNT,
    RESPONSE_LINK_COUNT,
    GET_FILE_BLOCK_COUNT,
    GET_SIZE,
    FORCE_REPLACE,
    FIPS_RCHECKSUM,
    COMPOUNDS,
    PULSE,
    LOCK_DATA,
    UNLOCK_DATA,
    LOCKED,
    XATTR_GFID,
    XATTR_VOLUME_ID,
    XATTR_MDATA,
    XATTR_AFR_DIRTY,
    XATTR_DHT,
    XATTR_DHT_MDS,
    XATTR_DHT_LINKTO,
    XATTR_ACL_ACCESS,
    XATTR_ACL_DEFAULT,
    "changelog.rename-op",
    "dht-get-iatt-in-xattr",
    "dht-get-mode-in-xattr",
    "fd-reopen-status",
    "glusterfs.posix.acl",
    "glusterfs.posix.default_acl",
    "readdir-filter-directories",
    "security.capability",
    "security.ima",
    "security.selinux",
    "trusted.ec.config",
    "trusted.ec.dirty",
    "trusted.ec.size",
    "trusted.ec.version",
    "trusted.glusterfs.dht.commithash",
    "virt-gf-poststat",
    "virt-gf-prestat",
];

/// Slots of the lookup table: a power of two, well above the number of keys, so that probes are short.
const SLOTS: usize = 256;

const fn slot_of(key: &[u8]) -> usize {
    let len = key.len();
    let mut hash = len * 31;
    // The middle and the end tell keys of equal length apart; the beginning is mostly "glusterfs." or "trusted.".
    if len > 2 {
        hash += key[len - 1] as usize * 7 + key[len / 2] as usize * 13 + key[len - 3] as usize * 3;
    }
    hash % SLOTS
}

const fn table() -> [&'static str; SLOTS] {
    let mut slots = [""; SLOTS];
    let mut at = 0;
    while at < KNOWN.len() {
        let mut slot = slot_of(KNOWN[at].as_bytes());
        while !slots[slot].is_empty() {
            slot = (slot + 1) % SLOTS;
        }
        slots[slot] = KNOWN[at];
        at += 1;
    }
    slots
}

static TABLE: [&str; SLOTS] = table();

/// The static text of a key that Mortar knows: decoders use it in place of a copy.
pub fn known(key: &[u8]) -> Option<&'static str> {
    let mut slot = slot_of(key);
    loop {
        let candidate = TABLE[slot];
        if candidate.is_empty() {
            return None;
        }
        if candidate.as_bytes() == key {
            return Some(candidate);
        }
        slot = (slot + 1) % SLOTS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_keys_are_found_and_others_are_not() {
        for key in KNOWN {
            assert_eq!(known(key.as_bytes()), Some(*key));
        }
        for other in ["", "x", "user.x", "gfid-reR", "trusted.afr.v-client-0"] {
            assert_eq!(known(other.as_bytes()), None);
        }
    }
}
