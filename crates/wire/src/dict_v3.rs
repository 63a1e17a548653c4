//! The older, untyped dict (`libglusterfs/src/dict.c: dict_serialize`): packed, inside an opaque of handshake, CLI and
//! callback messages.
//!
//! Numbers travel as decimal text with a NUL. Decoded values are all [`Value::Old`], with their NUL.

use bytes::{BufMut, Bytes, BytesMut};

use mortar_types::{Dict, Value};

use crate::dict::key_from;
use crate::field::Field;
use crate::xdr::{DecodeError, Reader, Writer};

/// Key length, value length and the key's NUL.
const PAIR_BYTES_MIN: usize = 9;

/// The dict as an XDR opaque field. `None` is an opaque of length 0.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct DictV3(pub Option<Dict>);

impl From<Dict> for DictV3 {
    fn from(dict: Dict) -> Self {
        Self(Some(dict))
    }
}

impl DictV3 {
    /// The dict, or an empty one.
    pub fn into_dict(self) -> Dict {
        self.0.unwrap_or_default()
    }
}

impl Field for DictV3 {
    fn put(&self, out: &mut Writer) {
        out.opaque(&encode(self.0.as_ref()));
    }

    fn take(from: &mut Reader) -> Result<Self, DecodeError> {
        decode(from.opaque()?).map(Self)
    }
}

/// The packed bytes. Values that have no untyped form (iatts, which GlusterFS would send as raw memory) are left out.
pub fn encode(dict: Option<&Dict>) -> BytesMut {
    let mut out = BytesMut::new();
    let Some(dict) = dict else { return out };
    out.reserve(4 + dict.iter().map(|(key, _)| PAIR_BYTES_MIN + key.len() + 16).sum::<usize>());
    out.put_u32(0);
    let mut count = 0u32;
    for (key, value) in dict.iter() {
        if put_pair(key, value, &mut out) {
            count += 1;
        }
    }
    out[..4].copy_from_slice(&count.to_be_bytes());
    out
}

fn put_pair(key: &str, value: &Value, out: &mut BytesMut) -> bool {
    match value {
        Value::Int(number) => put_bytes(key, number.to_string().as_bytes(), b"\0", out),
        Value::Uint(number) => put_bytes(key, number.to_string().as_bytes(), b"\0", out),
        // As "%f" prints it.
        Value::Double(number) => put_bytes(key, format!("{number:.6}").as_bytes(), b"\0", out),
        Value::Str(text) => put_bytes(key, text, b"\0", out),
        Value::Old(bytes) | Value::Ptr(bytes) => put_bytes(key, bytes, b"", out),
        Value::Gfid(gfid) => put_bytes(key, gfid.as_bytes(), b"", out),
        Value::Iatt(_) | Value::Mdata(_) => return false,
    }
    true
}

fn put_bytes(key: &str, front: &[u8], back: &[u8], out: &mut BytesMut) {
    let length = |bytes: usize| u32::try_from(bytes).expect("a dict in a record below 1 GiB");
    out.put_u32(length(key.len()));
    out.put_u32(length(front.len() + back.len()));
    out.put_slice(key.as_bytes());
    out.put_u8(0);
    out.put_slice(front);
    out.put_slice(back);
}

/// From packed bytes; none at all is no dict.
pub fn decode(bytes: Bytes) -> Result<Option<Dict>, DecodeError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut from = Reader::new(bytes);
    let count = from.u32()? as usize;
    if count > from.remaining() / PAIR_BYTES_MIN {
        return Err(DecodeError::Length);
    }
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count {
        let key_len = from.u32()? as usize;
        let value_len = from.u32()? as usize;
        let key = key_from(&from.bytes(key_len)?)?;
        from.bytes(1)?;
        pairs.push((key, Value::Old(from.bytes(value_len)?)));
    }
    from.finish()?;
    Ok(Some(Dict::from_pairs(pairs)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_text_become_bytes_with_nul() {
        let dict = Dict::new().with("fops-version", Value::Int(1_298_437)).with("ERROR", Value::str("Success"));
        let back = decode(encode(Some(&dict)).freeze()).unwrap().unwrap();
        assert_eq!(back.get("fops-version"), Some(&Value::Old(Bytes::from_static(b"1298437\0"))));
        assert_eq!(back.get("ERROR"), Some(&Value::Old(Bytes::from_static(b"Success\0"))));
        assert_eq!(encode(Some(&back)), encode(Some(&dict)));
    }

    #[test]
    fn the_layout_is_packed() {
        let dict = Dict::new().with("ab", Value::ptr(vec![7, 8, 9]));
        assert_eq!(&encode(Some(&dict))[..], [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, b'a', b'b', 0, 7, 8, 9]);
    }

    #[test]
    fn no_dict_is_nothing_and_an_empty_one_is_a_zero_count() {
        assert_eq!((&encode(None)[..], decode(Bytes::new())), (&[][..], Ok(None)));
        let empty = encode(Some(&Dict::new()));
        assert_eq!(&empty[..], [0; 4]);
        assert_eq!(decode(empty.freeze()), Ok(Some(Dict::new())));
    }

    #[test]
    fn counts_and_lengths_beyond_the_bytes_are_errors() {
        assert_eq!(decode(Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0])), Err(DecodeError::Length));
        assert_eq!(
            decode(Bytes::from_static(&[0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0, b'a', 0])),
            Err(DecodeError::Truncated)
        );
    }
}
