//! Dicts of the v4 fops (`gfx_dict`): typed values, as XDR.
//!
//! `None` is GlusterFS's NULL dict (count −1); an empty dict is another thing and both travel.

use bytes::Bytes;

use mortar_types::dict::Key;
use mortar_types::{Dict, Iatt, Mdata, Value, keys};

use crate::field::Field;
use crate::xdr::{DecodeError, Reader, Writer};

/// `GF_DATA_TYPE_*` (`rpc/xdr/src/glusterfs-fops.x`).
mod tag {
    pub(super) const STR_OLD: i32 = 1;
    pub(super) const INT: i32 = 2;
    pub(super) const UINT: i32 = 3;
    pub(super) const DOUBLE: i32 = 4;
    pub(super) const STR: i32 = 5;
    pub(super) const PTR: i32 = 6;
    pub(super) const GFUUID: i32 = 7;
    pub(super) const IATT: i32 = 8;
    pub(super) const MDATA: i32 = 9;
}

/// Size word, count and number of pairs: all zero in an empty dict.
pub(crate) const EMPTY_DICT_BYTES: usize = 12;

/// An empty key with an empty value: lengths and type.
const PAIR_BYTES_MIN: usize = 12;

impl Field for Option<Dict> {
    fn put(&self, out: &mut Writer) {
        let Some(dict) = self else {
            out.u32(0);
            out.i32(-1);
            out.u32(0);
            return;
        };
        let count = u32::try_from(dict.len()).expect("a dict in a record below 1 GiB");
        let start = out.len();
        out.u32(0);
        out.u32(count);
        out.u32(count);
        for (key, value) in dict.iter() {
            out.opaque_parts(key.as_bytes(), b"\0");
            put_value(value, out);
        }
        // The size of the pairs must be exact: peers find the payload of READ and WRITE by it.
        let size = out.len() - start - EMPTY_DICT_BYTES;
        out.patch_u32(start, u32::try_from(size).expect("a dict in a record below 1 GiB"));
    }

    fn take(from: &mut Reader) -> Result<Self, DecodeError> {
        let _size = from.u32()?;
        let count = from.i32()?;
        let pairs_count = from.u32()? as usize;
        if pairs_count > from.remaining() / PAIR_BYTES_MIN {
            return Err(DecodeError::Length);
        }
        let mut pairs = Vec::with_capacity(pairs_count);
        for _ in 0..pairs_count {
            let key = from.opaque_with(|key| key_from(key.strip_suffix(b"\0").unwrap_or(key)))?;
            pairs.push((key, take_value(from)?));
        }
        Ok((count >= 0).then(|| Dict::from_pairs(pairs)))
    }
}

/// A key from its bytes without NUL; known ones without a copy. A NUL inside is refused: a C peer would read another
/// key than we do.
pub(crate) fn key_from(bytes: &[u8]) -> Result<Key, DecodeError> {
    if let Some(known) = keys::known(bytes) {
        return Ok(Key::Borrowed(known));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::Text("dict key"))?;
    if text.contains('\0') {
        return Err(DecodeError::Text("dict key"));
    }
    Ok(Key::Owned(text.to_owned()))
}

fn put_value(value: &Value, out: &mut Writer) {
    match value {
        Value::Old(bytes) => {
            out.i32(tag::STR_OLD);
            out.opaque(bytes);
        }
        Value::Int(number) => {
            out.i32(tag::INT);
            out.i64(*number);
        }
        Value::Uint(number) => {
            out.i32(tag::UINT);
            out.u64(*number);
        }
        Value::Double(number) => {
            out.i32(tag::DOUBLE);
            out.f64(*number);
        }
        Value::Str(text) => {
            out.i32(tag::STR);
            out.opaque_parts(text, b"\0");
        }
        Value::Ptr(bytes) => {
            out.i32(tag::PTR);
            out.opaque(bytes);
        }
        Value::Gfid(gfid) => {
            out.i32(tag::GFUUID);
            out.gfid(gfid);
        }
        Value::Iatt(iatt) => {
            out.i32(tag::IATT);
            iatt.put(out);
        }
        Value::Mdata(mdata) => {
            out.i32(tag::MDATA);
            mdata.put(out);
        }
    }
}

fn take_value(from: &mut Reader) -> Result<Value, DecodeError> {
    Ok(match from.i32()? {
        tag::STR_OLD => Value::Old(from.opaque()?),
        tag::INT => Value::Int(from.i64()?),
        tag::UINT => Value::Uint(from.u64()?),
        tag::DOUBLE => Value::Double(from.f64()?),
        tag::STR => Value::Str(without_nul(from.opaque()?)),
        tag::PTR => Value::Ptr(from.opaque()?),
        tag::GFUUID => Value::Gfid(from.gfid()?),
        tag::IATT => Value::Iatt(Box::new(Iatt::take(from)?)),
        tag::MDATA => Value::Mdata(Mdata::take(from)?),
        other => return Err(DecodeError::Unknown { field: "dict value type", value: other as u64 }),
    })
}

/// Takes one trailing NUL off.
fn without_nul(mut text: Bytes) -> Bytes {
    if text.last() == Some(&0) {
        text.truncate(text.len() - 1);
    }
    text
}

/// Encodes a dict as the v4 fops carry it.
pub fn encode(dict: &Option<Dict>, out: &mut Writer) {
    dict.put(out);
}

/// Decodes a dict that fills `bytes`.
pub fn decode(bytes: Bytes) -> Result<Option<Dict>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let dict = Field::take(&mut reader)?;
    reader.finish()?;
    Ok(dict)
}

#[cfg(test)]
mod tests {
    use mortar_types::Gfid;

    use super::*;

    fn encoded(dict: &Option<Dict>) -> Bytes {
        let mut out = Writer::new();
        encode(dict, &mut out);
        out.into_inner().freeze()
    }

    #[test]
    fn missing_and_empty_dicts_differ_by_the_count() {
        assert_eq!(&encoded(&None)[..], [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        assert_eq!(&encoded(&Some(Dict::new()))[..], [0; 12]);
        assert_eq!(decode(encoded(&None)), Ok(None));
        assert_eq!(decode(encoded(&Some(Dict::new()))), Ok(Some(Dict::new())));
    }

    #[test]
    fn the_size_word_counts_the_pairs_only() {
        let dict = Some(Dict::new().with(keys::GFID_REQ, Value::Gfid(Gfid::ROOT)));
        let bytes = encoded(&dict);
        assert_eq!(bytes[..4], 36u32.to_be_bytes());
        assert_eq!(bytes.len(), 12 + 36);
        assert_eq!(decode(bytes), Ok(dict));
    }

    #[test]
    fn text_carries_a_nul_on_the_wire_only() {
        let dict = Some(Dict::new().with("a", Value::str("xyz")));
        let bytes = encoded(&dict);
        assert_eq!(bytes[12..], [0, 0, 0, 2, b'a', 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 4, b'x', b'y', b'z', 0]);
        assert_eq!(decode(bytes), Ok(dict));
    }

    #[test]
    fn a_known_key_is_not_copied() {
        let dict = decode(encoded(&Some(Dict::new().with(keys::CONTENT.to_owned(), Value::Int(1))))).unwrap().unwrap();
        assert_eq!(dict.keys().next().unwrap().as_ptr(), keys::known(keys::CONTENT.as_bytes()).unwrap().as_ptr());
    }

    #[test]
    fn a_key_with_a_nul_inside_is_an_error() {
        let mut out = Writer::new();
        out.raw(&[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]);
        out.opaque(b"a\0b\0");
        out.i32(tag::INT);
        out.i64(0);
        assert_eq!(decode(out.into_inner().freeze()), Err(DecodeError::Text("dict key")));
    }

    #[test]
    fn more_pairs_than_bytes_is_an_error() {
        let mut out = Writer::new();
        out.u32(0);
        out.i32(1);
        out.u32(u32::MAX);
        assert_eq!(decode(out.into_inner().freeze()), Err(DecodeError::Length));
    }

    #[test]
    fn an_unknown_value_type_is_an_error() {
        let mut out = Writer::new();
        out.raw(&[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]);
        out.opaque(b"a\0");
        out.i32(10);
        out.u64(0);
        assert_eq!(
            decode(out.into_inner().freeze()),
            Err(DecodeError::Unknown { field: "dict value type", value: 10 })
        );
    }
}
