//! Several fops in one message, between our own ends only: the values of [`mortar_types::keys::LOCK_DATA`] and
//! [`mortar_types::keys::UNLOCK_DATA`].
//!
//! A brick says at SETVOLUME that it takes them ([`mortar_types::keys::COMPOUNDS`]); no other brick ever sees the keys.
//! The value is a list of fields, each a big-endian 16-bit length and as many bytes: the lock's domain, its owner, and on
//! CREATE pairs of an xattr's name and what is added to it.

use bytes::Bytes;
use mortar_types::{Dict, LkOwner, Value};

/// Domains are layers' names; no volfile has longer ones.
const DOMAIN_BYTES_MAX: usize = 1024;
/// Counters moved by one CREATE at most: one per replica and the dirty mark, generously.
const ADDITIONS_MAX: usize = 64;

/// A lock on all contents of a file, and what is to be counted under it.
#[derive(Clone, PartialEq, Debug)]
pub struct DataLock {
    pub domain: Bytes,
    pub owner: LkOwner,
    /// On CREATE: the dict of an XATTROP with ADD_ARRAY on the new inode. Empty elsewhere.
    pub additions: Dict,
}

impl DataLock {
    /// The lock alone, as (F)XATTROP carries it.
    pub fn new(domain: Bytes, owner: LkOwner) -> Self {
        Self { domain, owner, additions: Dict::new() }
    }

    /// `None` when something is too long to be a lock's.
    pub fn encode(&self) -> Option<Value> {
        let mut out = Vec::with_capacity(192);
        put(&mut out, &self.domain)?;
        put(&mut out, &self.owner.0)?;
        for (key, value) in self.additions.iter() {
            put(&mut out, key.as_bytes())?;
            put(&mut out, value.as_bytes()?)?;
        }
        Some(Value::ptr(out))
    }

    /// `None` for anything that [`Self::encode`] does not make.
    pub fn parse(value: &Value) -> Option<Self> {
        let mut rest = &value.as_bytes()?[..];
        let domain = take(&mut rest).filter(|domain| domain.len() <= DOMAIN_BYTES_MAX)?;
        let owner = take(&mut rest).filter(|owner| !owner.is_empty() && owner.len() <= LkOwner::BYTES_MAX)?;
        let mut pairs = Vec::new();
        while !rest.is_empty() {
            if pairs.len() == ADDITIONS_MAX {
                return None;
            }
            let key = std::str::from_utf8(take(&mut rest)?).ok()?.to_owned();
            pairs.push((key, Value::ptr(take(&mut rest)?.to_vec())));
        }
        let mut additions = Dict::new();
        for (key, value) in pairs {
            additions.set(key, value);
        }
        Some(Self { domain: Bytes::copy_from_slice(domain), owner: LkOwner::from_slice(owner), additions })
    }
}

fn put(out: &mut Vec<u8>, field: &[u8]) -> Option<()> {
    out.extend_from_slice(&u16::try_from(field.len()).ok()?.to_be_bytes());
    out.extend_from_slice(field);
    Some(())
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, after) = rest.split_first_chunk::<2>()?;
    let (field, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    *rest = after;
    Some(field)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_no_client_sends_is_refused() {
        assert_eq!(DataLock::parse(&Value::ptr(vec![])), None);
        assert_eq!(DataLock::parse(&Value::ptr(vec![0, 1, b'd', 0, 0])), None, "a lock needs an owner");
        assert_eq!(DataLock::parse(&Value::ptr(vec![0, 9, b'd'])), None);
        assert_eq!(DataLock::parse(&Value::ptr(vec![0, 1, b'd', 0, 1, 7, 0, 1, b'k'])), None, "a name without a value");
        assert_eq!(DataLock::parse(&Value::Int(1)), None);
    }

    proptest! {
        #[test]
        fn a_lock_survives_the_wire(domain: [u8; 5], owner: u64, keys in prop::collection::btree_set("[a-z.]{1,30}", 0..9)) {
            let mut lock = DataLock::new(Bytes::copy_from_slice(&domain), LkOwner::from_u64(owner));
            for key in keys {
                lock.additions.set(key, Value::ptr(vec![1; 12]));
            }
            prop_assert_eq!(DataLock::parse(&lock.encode().unwrap()), Some(lock));
        }

        #[test]
        fn any_bytes_parse_without_panic(bytes: Vec<u8>) {
            let _ = DataLock::parse(&Value::ptr(bytes));
        }
    }
}
