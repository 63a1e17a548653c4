//! XDR primitives (RFC 4506) over shared buffers: decoded opaque data are slices of the record, not copies.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use mortar_types::Gfid;

/// Why bytes are not the message they should be. Answered with GARBAGE_ARGS by a server; a client drops the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("the message ends in the middle of a field")]
    Truncated,
    #[error("a length field is larger than the message")]
    Length,
    #[error("{field}: {value} is not a known value")]
    Unknown { field: &'static str, value: u64 },
    #[error("{0} is not text")]
    Text(&'static str),
    #[error("{0} bytes follow the message's end")]
    Trailing(usize),
}

/// Reads a record from the front.
#[derive(Clone, Debug)]
pub struct Reader {
    rest: Bytes,
}

impl Reader {
    pub const fn new(record: Bytes) -> Self {
        Self { rest: record }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Everything not read yet (payload that follows the XDR part).
    pub fn into_rest(self) -> Bytes {
        self.rest
    }

    /// Fails unless everything has been read.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing(self.rest.len())) }
    }

    /// Exactly `len` bytes, without padding.
    pub fn bytes(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        if len > self.rest.len() {
            return Err(DecodeError::Truncated);
        }
        Ok(self.rest.split_to(len))
    }

    /// `N` raw bytes (fixed opaque whose length is a multiple of 4).
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let array = *self.rest.first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest.advance(N);
        Ok(array)
    }

    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_be_bytes)
    }

    pub fn f64(&mut self) -> Result<f64, DecodeError> {
        self.array().map(f64::from_be_bytes)
    }

    /// 16 raw bytes (fixed opaque).
    pub fn gfid(&mut self) -> Result<Gfid, DecodeError> {
        self.array().map(Gfid)
    }

    /// Variable opaque or string: length, bytes, padding to a multiple of 4 (the padding's value is not looked at).
    pub fn opaque(&mut self) -> Result<Bytes, DecodeError> {
        let len = self.u32()? as usize;
        if len > self.rest.len() {
            return Err(DecodeError::Length);
        }
        let data = self.rest.split_to(len);
        self.skip_padding(len)?;
        Ok(data)
    }

    /// As [`Self::opaque`], looked at in place: spares the slice's reference count where the bytes are not kept.
    pub fn opaque_with<T>(&mut self, look: impl FnOnce(&[u8]) -> Result<T, DecodeError>) -> Result<T, DecodeError> {
        let len = self.u32()? as usize;
        let found = look(self.rest.get(..len).ok_or(DecodeError::Length)?)?;
        self.rest.advance(len);
        self.skip_padding(len)?;
        Ok(found)
    }

    fn skip_padding(&mut self, len: usize) -> Result<(), DecodeError> {
        let pad = padding(len);
        if pad > self.rest.len() {
            return Err(DecodeError::Truncated);
        }
        self.rest.advance(pad);
        Ok(())
    }
}

/// Appends to a buffer.
#[derive(Debug, Default)]
pub struct Writer {
    out: BytesMut,
}

impl Writer {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn with_capacity(bytes: usize) -> Self {
        Self { out: BytesMut::with_capacity(bytes) }
    }

    pub fn len(&self) -> usize {
        self.out.len()
    }

    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    pub fn into_inner(self) -> BytesMut {
        self.out
    }

    pub fn u32(&mut self, value: u32) {
        self.out.put_u32(value);
    }

    pub fn i32(&mut self, value: i32) {
        self.out.put_i32(value);
    }

    pub fn u64(&mut self, value: u64) {
        self.out.put_u64(value);
    }

    pub fn i64(&mut self, value: i64) {
        self.out.put_i64(value);
    }

    pub fn f64(&mut self, value: f64) {
        self.out.put_f64(value);
    }

    pub fn gfid(&mut self, gfid: &Gfid) {
        self.out.put_slice(gfid.as_bytes());
    }

    /// Bytes as they are, without length or padding.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.put_slice(bytes);
    }

    /// `count` zero bytes: fields that an error reply leaves empty.
    pub fn zeros(&mut self, count: usize) {
        self.out.put_bytes(0, count);
    }

    /// Variable opaque or string.
    ///
    /// # Panics
    /// When `bytes` is longer than `u32::MAX`: no caller holds such a value.
    pub fn opaque(&mut self, bytes: &[u8]) {
        self.opaque_parts(bytes, &[]);
    }

    /// One opaque from two pieces: text and the NUL that GlusterFS counts in its length.
    pub fn opaque_parts(&mut self, front: &[u8], back: &[u8]) {
        let len = front.len() + back.len();
        self.out.put_u32(u32::try_from(len).expect("an opaque fits in a record, which is below 1 GiB"));
        self.out.put_slice(front);
        self.out.put_slice(back);
        self.out.put_bytes(0, padding(len));
    }

    /// Overwrites a u32 written before at byte `at` (sizes known only afterwards).
    ///
    /// # Panics
    /// When nothing was written there: a bug of the caller.
    pub fn patch_u32(&mut self, at: usize, value: u32) {
        self.out[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }
}

const fn padding(len: usize) -> usize {
    (4 - len % 4) % 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opaque_is_padded_to_four_and_read_back() {
        let mut writer = Writer::new();
        writer.opaque_parts(b"gfid-req", b"\0");
        writer.u32(7);
        let record = writer.into_inner().freeze();
        assert_eq!(record.len(), 4 + 12 + 4);
        let mut reader = Reader::new(record);
        assert_eq!(reader.opaque().unwrap(), &b"gfid-req\0"[..]);
        assert_eq!(reader.u32(), Ok(7));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn a_length_beyond_the_record_is_an_error_not_an_allocation() {
        let mut reader = Reader::new(Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 1]));
        assert_eq!(reader.opaque(), Err(DecodeError::Length));
        let mut reader = Reader::new(Bytes::from_static(&[0, 0, 0, 1, 9]));
        assert_eq!(reader.opaque(), Err(DecodeError::Truncated));
    }
}
