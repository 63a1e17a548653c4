//! `/dev/fuse`: one file per mount, from which requests are read and to which replies and notifications are written.
//!
//! Reads do not block (the caller waits for readiness); writes never block in the kernel. A reply may be refused with
//! ENOENT: the request was aborted or its caller killed, which is nobody's fault.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use bytes::Bytes;
use mortar_types::Errno;
use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags};

use crate::kernel::abi;
use crate::kernel::reply::{self, Answer};

/// What reading the device brought.
#[derive(Debug)]
pub enum Received {
    Message(Bytes),
    /// Nothing to read now.
    Empty,
    /// The mount is gone.
    Unmounted,
}

/// The opened device.
#[derive(Debug)]
pub struct Device {
    file: OwnedFd,
}

impl Device {
    /// Opens `/dev/fuse` for a mount to come.
    pub fn open() -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::open("/dev/fuse", flags, Mode::empty())?;
        Ok(Self { file })
    }

    /// Reads one request into `buffer`, which must hold the longest message ([`ReadBuffer::BYTES`]).
    pub fn receive(&self, buffer: &mut ReadBuffer) -> io::Result<Received> {
        loop {
            return match rustix::io::read(&self.file, spare_capacity(buffer.emptied())) {
                Ok(0) => Ok(Received::Unmounted),
                Ok(_) => Ok(Received::Message(buffer.take())),
                // ENOENT: the request was withdrawn while it was being read.
                Err(rustix::io::Errno::INTR | rustix::io::Errno::NOENT) => continue,
                Err(rustix::io::Errno::AGAIN) => Ok(Received::Empty),
                Err(rustix::io::Errno::NODEV | rustix::io::Errno::CONNABORTED) => Ok(Received::Unmounted),
                Err(error) => Err(error.into()),
            };
        }
    }

    /// Sends the answer to the request `unique`. `false`: the kernel no longer wants it, so what it grants (a lookup, an
    /// open file) was not received.
    pub fn reply(&self, unique: u64, answer: &Answer) -> bool {
        let sent = match answer {
            Answer::None => return true,
            Answer::Error(errno) => self.send(-errno.0.abs(), unique, &[]),
            Answer::Body(body) => self.send(0, unique, &body.0),
            Answer::Data(data) => self.send(0, unique, data),
        };
        match sent {
            Ok(()) => true,
            Err(Errno::ENOENT | Errno::ENODEV) => false,
            Err(errno) => {
                tracing::warn!(unique, %errno, "the kernel refused a reply");
                // A request without any answer hangs its caller for good; an error it can take.
                let _ = self.send(-Errno::EIO.0, unique, &[]);
                false
            }
        }
    }

    /// Tells the kernel to forget what it caches of a node: attributes always, data from `offset` (negative: none) for
    /// `length` bytes (0: to the end). May wait for requests of the same node, so never call it from the thread that
    /// answers them.
    pub fn invalidate_inode(&self, node: u64, offset: i64, length: i64) -> Result<(), Errno> {
        let mut body = reply::Body::with_capacity(24);
        body.u64(node).u64(offset.cast_unsigned()).u64(length.cast_unsigned());
        self.send(abi::notify::INVAL_INODE, 0, &body.0)
    }

    /// Tells the kernel to forget a name. The same warning as for [`Self::invalidate_inode`].
    pub fn invalidate_entry(&self, parent: u64, name: &[u8]) -> Result<(), Errno> {
        let mut body = reply::Body::with_capacity(16 + name.len() + 1);
        body.u64(parent).u32(u32::try_from(name.len()).unwrap_or(u32::MAX)).u32(0);
        body.0.extend_from_slice(name);
        body.0.push(0);
        self.send(abi::notify::INVAL_ENTRY, 0, &body.0)
    }

    fn send(&self, error: i32, unique: u64, body: &[u8]) -> Result<(), Errno> {
        let header = reply::header(body.len(), error, unique);
        let parts = [IoSlice::new(&header), IoSlice::new(body)];
        let parts = if body.is_empty() { &parts[..1] } else { &parts[..] };
        match rustix::io::writev(&self.file, parts) {
            Ok(_) => Ok(()),
            Err(errno) => Err(Errno(errno.raw_os_error())),
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for Device {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// The buffer that messages are read into. Short messages are copied out of it; a long write leaves in it, so that its
/// payload is never copied.
#[derive(Debug)]
pub struct ReadBuffer {
    bytes: Vec<u8>,
    capacity: usize,
}

impl ReadBuffer {
    /// From this size on a message takes the buffer with it: below it, copying costs less than a new buffer.
    const COPY_BYTES_MAX: usize = 32 * 1024;

    /// For messages with at most `payload_bytes_max` of payload.
    pub fn new(payload_bytes_max: usize) -> Self {
        // The kernel demands room for header and write structure beside the payload, and 8 KiB at the least.
        let capacity = payload_bytes_max + 4096 + abi::IN_HEADER_BYTES + abi::WRITE_IN_BYTES;
        Self { bytes: Vec::with_capacity(capacity), capacity }
    }

    fn emptied(&mut self) -> &mut Vec<u8> {
        self.bytes.clear();
        self.bytes.reserve_exact(self.capacity);
        &mut self.bytes
    }

    fn take(&mut self) -> Bytes {
        if self.bytes.len() < Self::COPY_BYTES_MAX {
            return Bytes::copy_from_slice(&self.bytes);
        }
        Bytes::from(std::mem::take(&mut self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_leaves_with_its_buffer_and_a_short_one_does_not() {
        let mut buffer = ReadBuffer::new(1 << 20);
        buffer.emptied().extend_from_slice(&[7; 100]);
        let place = buffer.bytes.as_ptr();
        assert_ne!(buffer.take().as_ptr(), place);
        buffer.emptied().extend_from_slice(&[7; 100_000]);
        assert_eq!(buffer.bytes.as_ptr(), place);
        assert_eq!(buffer.take().as_ptr(), place);
        assert!(buffer.emptied().capacity() >= 1 << 20);
    }
}
