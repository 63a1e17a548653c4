//! The dict: named values that ride along with every fop (GlusterFS `dict_t`).

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use crate::{Gfid, Iatt, Mdata};

/// A dict key. Known keys (see [`crate::keys`]) cost no allocation.
pub type Key = Cow<'static, str>;

/// A typed value. The variants are the union arms of `gfx_value` (`rpc/xdr/src/glusterfs4-xdr.x`).
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Untyped legacy bytes (`GF_DATA_TYPE_STR_OLD`).
    Old(Bytes),
    Int(i64),
    Uint(u64),
    Double(f64),
    /// Text **without** the trailing NUL that it has on the wire.
    Str(Bytes),
    /// Raw bytes: what xattr values use.
    Ptr(Bytes),
    Gfid(Gfid),
    Iatt(Box<Iatt>),
    Mdata(Mdata),
}

impl Value {
    pub fn str(text: impl Into<String>) -> Self {
        Self::Str(Bytes::from(text.into()))
    }

    pub fn ptr(bytes: impl Into<Bytes>) -> Self {
        Self::Ptr(bytes.into())
    }

    /// The bytes of any byte-like value (old, text or raw), `None` otherwise.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Old(bytes) | Self::Str(bytes) | Self::Ptr(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// A number, also from decimal text as old dicts carry it. Real getters are as tolerant (`dict.c: data_to_int64`).
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Uint(number) => i64::try_from(*number).ok(),
            Self::Double(number) => Some(*number as i64),
            Self::Old(bytes) | Self::Str(bytes) => text_of(bytes)?.trim().parse().ok(),
            _ => None,
        }
    }

    /// As [`Self::as_i64`], for numbers up to `u64::MAX`.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Uint(number) => Some(*number),
            Self::Int(number) => u64::try_from(*number).ok(),
            Self::Old(bytes) | Self::Str(bytes) => text_of(bytes)?.trim().parse().ok(),
            _ => None,
        }
    }

    /// Text without trailing NULs, when it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        self.as_bytes().and_then(|bytes| text_of(bytes))
    }

    /// A gfid, typed or as 16 raw bytes.
    pub fn as_gfid(&self) -> Option<Gfid> {
        match self {
            Self::Gfid(gfid) => Some(*gfid),
            other => other.as_bytes().and_then(|bytes| Gfid::from_slice(bytes)),
        }
    }

    pub fn as_iatt(&self) -> Option<&Iatt> {
        match self {
            Self::Iatt(iatt) => Some(iatt),
            _ => None,
        }
    }
}

fn text_of(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.get(..end).and_then(|text| std::str::from_utf8(text).ok())
}

/// Pairs in the order they were added; a key occurs once. Small, so looked up by walking.
///
/// A missing dict (NULL on the wire) and an empty one both are legal in every fop; requests and replies hold
/// `Option<Dict>` where the difference must survive re-encoding.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Dict {
    pairs: Vec<(Key, Value)>,
}

impl Dict {
    pub const fn new() -> Self {
        Self { pairs: Vec::new() }
    }

    /// From pairs in order. A key that comes again replaces the value of its first appearance; the cost stays linear
    /// whatever a peer sends.
    pub fn from_pairs(pairs: Vec<(Key, Value)>) -> Self {
        /// Up to here comparing all with all is cheaper than hashing.
        const WALKED_MAX: usize = 32;
        let distinct = if pairs.len() <= WALKED_MAX {
            pairs.iter().enumerate().all(|(at, (key, _))| pairs[..at].iter().all(|(earlier, _)| earlier != key))
        } else {
            let mut seen = HashSet::with_capacity(pairs.len());
            pairs.iter().all(|(key, _)| seen.insert(key))
        };
        if distinct {
            return Self { pairs };
        }
        let mut places: HashMap<Key, usize> = HashMap::with_capacity(pairs.len());
        let mut kept: Vec<(Key, Value)> = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            match places.entry(key.clone()) {
                Entry::Occupied(place) => kept[*place.get()].1 = value,
                Entry::Vacant(place) => {
                    place.insert(kept.len());
                    kept.push((key, value));
                }
            }
        }
        Self { pairs: kept }
    }

    /// Replaces the value of a key that is there, appends otherwise.
    pub fn set(&mut self, key: impl Into<Key>, value: Value) {
        let key = key.into();
        match self.pairs.iter_mut().find(|(known, _)| *known == key) {
            Some((_, slot)) => *slot = value,
            None => self.pairs.push((key, value)),
        }
    }

    /// [`Self::set`] for building in one expression.
    #[must_use]
    pub fn with(mut self, key: impl Into<Key>, value: Value) -> Self {
        self.set(key, value);
        self
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.pairs.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    pub fn contains(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub fn get_i64(&self, key: &str) -> Option<i64> {
        self.get(key).and_then(Value::as_i64)
    }

    pub fn get_u64(&self, key: &str) -> Option<u64> {
        self.get(key).and_then(Value::as_u64)
    }

    pub fn get_str(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }

    pub fn get_bytes(&self, key: &str) -> Option<&Bytes> {
        self.get(key).and_then(Value::as_bytes)
    }

    pub fn get_gfid(&self, key: &str) -> Option<Gfid> {
        self.get(key).and_then(Value::as_gfid)
    }

    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let at = self.pairs.iter().position(|(known, _)| known == key)?;
        Some(self.pairs.remove(at).1)
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&str, &Value) -> bool) {
        self.pairs.retain(|(key, value)| keep(key, value));
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.pairs.iter().map(|(key, value)| (key.as_ref(), value))
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.pairs.iter().map(|(key, _)| key.as_ref())
    }

    pub const fn len(&self) -> usize {
        self.pairs.len()
    }

    pub const fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }
}

impl FromIterator<(Key, Value)> for Dict {
    fn from_iter<I: IntoIterator<Item = (Key, Value)>>(pairs: I) -> Self {
        let mut dict = Self::new();
        for (key, value) in pairs {
            dict.set(key, value);
        }
        dict
    }
}

impl Extend<(Key, Value)> for Dict {
    fn extend<I: IntoIterator<Item = (Key, Value)>>(&mut self, pairs: I) {
        for (key, value) in pairs {
            self.set(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_occurs_once_and_keeps_its_place() {
        let mut dict = Dict::new().with("a", Value::Int(1)).with("b", Value::Int(2));
        dict.set("a", Value::Int(3));
        assert_eq!(dict.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(dict.get_i64("a"), Some(3));
    }

    #[test]
    fn pairs_are_taken_as_they_are_and_a_repeated_key_keeps_its_first_place() {
        let pair = |key: &'static str, number| (Key::from(key), Value::Int(number));
        let dict = Dict::from_pairs(vec![pair("b", 1), pair("a", 2), pair("b", 3)]);
        assert_eq!(dict, Dict::new().with("b", Value::Int(3)).with("a", Value::Int(2)));
        let many: Vec<_> = (0..100).map(|at| (Key::from(format!("k{}", at % 50)), Value::Int(at))).collect();
        let dict = Dict::from_pairs(many);
        assert_eq!((dict.len(), dict.get_i64("k0"), dict.get_i64("k49")), (50, Some(50), Some(99)));
    }

    #[test]
    fn numbers_are_read_from_text_with_trailing_nul() {
        let value = Value::Old(Bytes::from_static(b"22\0"));
        assert_eq!((value.as_i64(), value.as_u64(), value.as_str()), (Some(22), Some(22), Some("22")));
        assert_eq!(Value::Uint(u64::MAX).as_i64(), None);
    }

    #[test]
    fn a_gfid_is_read_from_sixteen_raw_bytes() {
        assert_eq!(Value::ptr(Gfid::ROOT.0.to_vec()).as_gfid(), Some(Gfid::ROOT));
        assert_eq!(Value::ptr(vec![1, 2]).as_gfid(), None);
    }
}
