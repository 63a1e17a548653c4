//! What a connection has to send: small pieces gathered in one buffer, payloads as they are, written with one call.

use std::collections::VecDeque;
use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use mortar_wire::{header, record};

use crate::socket::WriteHalf;

/// Pieces up to this size are copied into the gathering buffer: cheaper than an entry in a vectored write.
const COPY_BYTES_MAX: usize = 8 << 10;

/// Entries of one vectored write (Linux takes 1024; beyond a few dozen nothing is gained).
const SLICES_MAX: usize = 64;

/// The gathering buffer's size when idle; after a larger burst it is given back.
const BUFFER_BYTES: usize = 32 << 10;

/// A record cannot be sent because it has 1 GiB or more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the message is too long for a record")]
pub(crate) struct TooLong;

/// Whether everything has been given to the socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flush {
    Done,
    Blocked,
}

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Sent before `tail`.
    chunks: VecDeque<Bytes>,
    tail: BytesMut,
    /// Of all chunks.
    chunk_bytes: usize,
}

impl Outbox {
    pub(crate) fn bytes(&self) -> usize {
        self.chunk_bytes + self.tail.len()
    }

    /// Appends one record: `start` writes the RPC header, `head` and `payload` follow. Nothing is appended on error.
    pub(crate) fn push<E: From<TooLong>>(
        &mut self,
        start: impl FnOnce(&mut BytesMut) -> Result<(), E>,
        head: BytesMut,
        payload: Option<Bytes>,
    ) -> Result<(), E> {
        let payload = payload.unwrap_or_default();
        let at = self.tail.len();
        self.tail.put_u32(0);
        let closed = start(&mut self.tail).and_then(|()| {
            if header::close_record(&mut self.tail, at, head.len() + payload.len()) {
                Ok(())
            } else {
                Err(TooLong.into())
            }
        });
        if closed.is_err() {
            self.tail.truncate(at);
            return closed;
        }
        self.append(head.freeze());
        self.append(payload);
        Ok(())
    }

    fn append(&mut self, piece: Bytes) {
        if piece.len() <= COPY_BYTES_MAX {
            self.tail.extend_from_slice(&piece);
            return;
        }
        if !self.tail.is_empty() {
            self.push_chunk_of_tail();
        }
        self.chunk_bytes += piece.len();
        self.chunks.push_back(piece);
    }

    fn push_chunk_of_tail(&mut self) {
        let chunk = self.tail.split().freeze();
        self.chunk_bytes += chunk.len();
        self.chunks.push_back(chunk);
    }

    /// Writes until all is gone or the socket takes no more.
    pub(crate) fn flush(&mut self, socket: &WriteHalf) -> io::Result<Flush> {
        while self.bytes() > 0 {
            match self.write_some(socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Flush::Blocked),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Flush::Done)
    }

    fn write_some(&self, socket: &WriteHalf) -> io::Result<usize> {
        if self.chunks.is_empty() {
            return socket.try_write(&self.tail);
        }
        let mut slices = Vec::with_capacity(SLICES_MAX.min(self.chunks.len() + 1));
        slices.extend(self.chunks.iter().take(SLICES_MAX).map(|chunk| io::IoSlice::new(chunk)));
        if slices.len() < SLICES_MAX && !self.tail.is_empty() {
            slices.push(io::IoSlice::new(&self.tail));
        }
        socket.try_write_vectored(&slices)
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(chunk) = self.chunks.front_mut() {
            if written < chunk.len() {
                self.chunk_bytes -= written;
                chunk.advance(written);
                return;
            }
            written -= chunk.len();
            self.chunk_bytes -= chunk.len();
            self.chunks.pop_front();
        }
        if written < self.tail.len() {
            self.tail.advance(written);
        } else if self.tail.capacity() > BUFFER_BYTES {
            self.tail = BytesMut::new();
        } else {
            self.tail.clear();
        }
    }

    /// Forgets what could not be sent: the connection is gone.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Read this much at a time when no large record is under way.
const READ_BYTES: usize = 64 << 10;

/// Makes room for the next read: as much as the record under way still needs, grown only as its bytes arrive, so that
/// a length field alone reserves nothing.
pub(crate) fn reserve_for_read(buffer: &mut BytesMut, decoder: &record::Decoder) {
    let missing = decoder.missing(buffer);
    if missing > buffer.capacity() - buffer.len() {
        buffer.reserve(missing.min(buffer.len().max(4 * READ_BYTES)));
    } else if buffer.capacity() - buffer.len() < READ_BYTES / 8 {
        buffer.reserve(READ_BYTES);
    }
}
