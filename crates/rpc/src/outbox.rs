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

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream as StdStream;

    use mortar_wire::record::Decoder;

    use super::*;
    use crate::socket::Stream;

    fn pair() -> (WriteHalf, StdStream) {
        let (ours, theirs) = StdStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let (read, write) = Stream::Unix(tokio::net::UnixStream::from_std(ours).unwrap()).into_split();
        // Dropping it would not close the socket; the other half lives on.
        drop(read);
        (write, theirs)
    }

    fn start(out: &mut BytesMut) -> Result<(), TooLong> {
        out.put_u32(0xabcd);
        Ok(())
    }

    fn push(outbox: &mut Outbox, head: usize, payload: usize) {
        let payload = Some(Bytes::from(vec![2; payload])).filter(|bytes| !bytes.is_empty());
        outbox.push(start, BytesMut::from(&vec![1; head][..]), payload).unwrap();
    }

    #[tokio::test]
    async fn small_records_leave_as_one_piece_of_bytes() {
        let (socket, mut peer) = pair();
        let mut outbox = Outbox::default();
        push(&mut outbox, 3, 2);
        push(&mut outbox, 0, 0);
        socket.poll_until_writable().await;
        assert_eq!(outbox.flush(&socket).unwrap(), Flush::Done);
        let mut bytes = [0; 64];
        let read = peer.read(&mut bytes).unwrap();
        assert_eq!(&bytes[..read], b"\x80\0\0\x09\0\0\xab\xcd\x01\x01\x01\x02\x02\x80\0\0\x04\0\0\xab\xcd");
    }

    #[tokio::test]
    async fn what_a_slow_peer_gets_is_whole_and_in_order() {
        let (socket, mut peer) = pair();
        let mut outbox = Outbox::default();
        let sizes = [(10, 0), (20, 300_000), (9000, 9000), (1, 1), (5, 1_000_000), (7, 0)];
        for (head, payload) in sizes {
            push(&mut outbox, head, payload);
        }
        let (mut received, mut piece, mut blocked) = (BytesMut::new(), vec![0; 4096], 0);
        socket.poll_until_writable().await;
        while outbox.flush(&socket).unwrap() == Flush::Blocked {
            blocked += 1;
            while let Ok(read) = peer.read(&mut piece) {
                received.extend_from_slice(&piece[..read]);
            }
            socket.poll_until_writable().await;
        }
        while let Ok(read) = peer.read(&mut piece) {
            received.extend_from_slice(&piece[..read]);
        }
        assert!(blocked > 1);
        let mut decoder = Decoder::default();
        for (head, payload) in sizes {
            let record = decoder.decode(&mut received).unwrap().unwrap();
            let expected = [&0xabcd_u32.to_be_bytes()[..], &vec![1; head], &vec![2; payload]].concat();
            assert!(record == expected, "a record of {head} and {payload} bytes");
        }
        assert_eq!((received.len(), outbox.bytes()), (0, 0));
    }

    #[test]
    fn a_record_that_is_refused_leaves_nothing_behind() {
        let mut outbox = Outbox::default();
        push(&mut outbox, 4, 0);
        let before = outbox.bytes();
        let refused = outbox.push(
            |out| {
                out.put_u32(1);
                Err(TooLong)
            },
            BytesMut::new(),
            None,
        );
        assert_eq!((refused, outbox.bytes()), (Err(TooLong), before));
    }

    #[test]
    fn a_length_field_alone_reserves_little() {
        let mut buffer = BytesMut::new();
        buffer.put_u32(1 << 31 | 30 << 20);
        reserve_for_read(&mut buffer, &Decoder::default());
        assert!(buffer.capacity() <= 8 * READ_BYTES);
    }

    impl WriteHalf {
        async fn poll_until_writable(&self) {
            std::future::poll_fn(|cx| self.poll_writable(cx)).await.unwrap();
        }
    }
}
