//! Record marking (RFC 5531 section 11): cuts a byte stream into RPC messages.
//!
//! A record is one or more fragments, each behind a 4-byte header whose top bit marks the last. GlusterFS sends one
//! fragment per record and closes the connection of a peer that announces 1 GiB or more
//! (`rpc/rpc-transport/socket/src/socket.c: __socket_proto_state_machine`).

use bytes::{Bytes, BytesMut};

/// Bytes of a fragment header.
pub const HEADER_BYTES: usize = 4;

/// The largest record that any peer may send.
pub const RECORD_BYTES_MAX: usize = (1 << 30) - 1;

/// What a decoder accepts unless told otherwise: far above any read, write or listing in use (gfapi programs send
/// 1 MiB and a little more), far below what would hurt.
pub const RECORD_BYTES_DEFAULT: usize = 32 << 20;

/// A record needs no more fragments than this; a peer that sends thousands of empty ones is not talking RPC.
const FRAGMENTS_MAX: u32 = 4096;

const LAST_FRAGMENT: u32 = 1 << 31;

/// Why the stream cannot be followed further. The connection must be closed: nothing after it can be trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    #[error("a record of {bytes} bytes or more is announced, the limit is {limit}")]
    TooLong { bytes: usize, limit: usize },
    #[error("a record of more than {FRAGMENTS_MAX} fragments")]
    TooManyFragments,
}

/// The header of a record that is sent as one fragment. `None` when it would be too long to send.
pub fn header(record_bytes: usize) -> Option<[u8; HEADER_BYTES]> {
    if record_bytes > RECORD_BYTES_MAX {
        return None;
    }
    Some((u32::try_from(record_bytes).ok()? | LAST_FRAGMENT).to_be_bytes())
}

/// Cuts records from a receive buffer, without copying when a record is one fragment.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    /// Fragments of a record whose last one has not come yet.
    assembled: BytesMut,
    fragments: u32,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(RECORD_BYTES_DEFAULT)
    }
}

impl Decoder {
    /// `limit`: bytes of a whole record, at most [`RECORD_BYTES_MAX`].
    pub fn new(limit: usize) -> Self {
        Self { limit: limit.min(RECORD_BYTES_MAX), assembled: BytesMut::new(), fragments: 0 }
    }

    /// Takes the next whole record off the front of `buffer`; `None` when more bytes must be read first.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, RecordError> {
        while let Some(fragment) = self.front(buffer)? {
            if buffer.len() < HEADER_BYTES + fragment.bytes {
                return Ok(None);
            }
            let mut data = buffer.split_to(HEADER_BYTES + fragment.bytes);
            let data = data.split_off(HEADER_BYTES);
            if fragment.last && self.fragments == 0 {
                return Ok(Some(data.freeze()));
            }
            self.assembled.extend_from_slice(&data);
            self.fragments += 1;
            if fragment.last {
                self.fragments = 0;
                return Ok(Some(self.assembled.split().freeze()));
            }
        }
        Ok(None)
    }

    /// How many bytes are missing in `buffer` until the fragment at its front is whole; 0 when that is not known yet.
    /// A reader uses it to receive a large payload in few pieces.
    pub fn missing(&self, buffer: &BytesMut) -> usize {
        match self.front(buffer) {
            Ok(Some(fragment)) => (HEADER_BYTES + fragment.bytes).saturating_sub(buffer.len()),
            _ => 0,
        }
    }

    fn front(&self, buffer: &BytesMut) -> Result<Option<Fragment>, RecordError> {
        let Some(header) = buffer.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let word = u32::from_be_bytes(*header);
        let fragment = Fragment { bytes: (word & !LAST_FRAGMENT) as usize, last: word & LAST_FRAGMENT != 0 };
        let bytes = self.assembled.len() + fragment.bytes;
        if bytes > self.limit {
            return Err(RecordError::TooLong { bytes, limit: self.limit });
        }
        if self.fragments >= FRAGMENTS_MAX {
            return Err(RecordError::TooManyFragments);
        }
        Ok(Some(fragment))
    }
}

#[derive(Clone, Copy)]
struct Fragment {
    bytes: usize,
    last: bool,
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use proptest::prelude::*;

    use super::*;

    fn push(buffer: &mut BytesMut, data: &[u8], last: bool) {
        buffer.put_u32(data.len() as u32 | if last { LAST_FRAGMENT } else { 0 });
        buffer.put_slice(data);
    }

    #[test]
    fn a_record_is_cut_when_it_is_whole() {
        let mut buffer = BytesMut::new();
        push(&mut buffer, b"abcd", true);
        let rest = buffer.split_off(6);
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(&mut buffer), Ok(None));
        assert_eq!(decoder.missing(&buffer), 2);
        buffer.extend_from_slice(&rest);
        assert_eq!(decoder.decode(&mut buffer), Ok(Some(Bytes::from_static(b"abcd"))));
        assert_eq!(decoder.decode(&mut buffer), Ok(None));
    }

    #[test]
    fn fragments_are_joined() {
        let mut buffer = BytesMut::new();
        push(&mut buffer, b"ab", false);
        push(&mut buffer, b"", false);
        push(&mut buffer, b"cd", true);
        push(&mut buffer, b"next", true);
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(&mut buffer), Ok(Some(Bytes::from_static(b"abcd"))));
        assert_eq!(decoder.decode(&mut buffer), Ok(Some(Bytes::from_static(b"next"))));
    }

    #[test]
    fn the_limit_counts_all_fragments_and_is_seen_before_the_data() {
        let mut buffer = BytesMut::new();
        push(&mut buffer, b"abcdef", false);
        buffer.put_u32(LAST_FRAGMENT | 5);
        let mut decoder = Decoder::new(10);
        assert_eq!(decoder.decode(&mut buffer), Err(RecordError::TooLong { bytes: 11, limit: 10 }));
        assert_eq!(header(RECORD_BYTES_MAX + 1), None);
    }

    #[test]
    fn endless_empty_fragments_are_refused() {
        let mut buffer = BytesMut::new();
        for _ in 0..=FRAGMENTS_MAX {
            push(&mut buffer, b"", false);
        }
        assert_eq!(Decoder::default().decode(&mut buffer), Err(RecordError::TooManyFragments));
    }

    proptest! {
        #[test]
        fn records_come_back_however_the_stream_is_cut(
            records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
            cut in 1usize..17,
        ) {
            let mut stream = BytesMut::new();
            for record in &records {
                stream.put_slice(&header(record.len()).unwrap());
                stream.put_slice(record);
            }
            let (mut decoder, mut buffer, mut seen) = (Decoder::default(), BytesMut::new(), Vec::new());
            for piece in stream.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Some(record) = decoder.decode(&mut buffer).unwrap() {
                    seen.push(record.to_vec());
                }
            }
            prop_assert_eq!(seen, records);
        }

        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            let mut decoder = Decoder::new(100);
            while let Ok(Some(_)) = decoder.decode(&mut buffer) {}
        }
    }
}
