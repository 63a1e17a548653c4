//! The contents: copied hole by hole, compared where attributes cannot prove that the copy is complete.

use bytes::Bytes;
use mortar_types::fop::{Read, Seek, SeekWhat, Truncate, Write};
use mortar_types::{Dict, Errno, Fd, Gfid, Value};

use super::{Error, Mover, Subvolume};

/// Read, written and locked at once: GlusterFS's block (`DHT_REBALANCE_BLKSIZE`). Writers wait at most for one.
const BLOCK_BYTES: u32 = 1024 * 1024;

/// A brick refuses the write when a client has written here meanwhile (it says so by an xattr): the client's is newer.
const AVOID_OVERWRITE: &str = "glusterfs.avoid.overwrite";

/// The two copies of a file.
pub(super) struct Copies<'a> {
    pub(super) mover: &'a Mover,
    pub(super) gfid: Gfid,
    pub(super) source: &'a Subvolume,
    pub(super) target: &'a Subvolume,
    /// The target, when it is open.
    pub(super) fd: Fd,
}

impl Copies<'_> {
    /// A whole small file.
    pub(super) async fn put(&self, content: &Bytes) -> Result<(), Error> {
        if content.is_empty() { Ok(()) } else { self.write(0, content.clone()).await }
    }

    /// The first `size` bytes, holes left out; writers are held back block by block, unless they are (`stopped`).
    pub(super) async fn copy(&self, size: u64, has_holes: bool, stopped: bool) -> Result<(), Error> {
        self.resize(size).await?;
        let mut at = 0;
        while at < size {
            let (start, end) = if has_holes { self.next_data(at, size).await? } else { (at, size) };
            at = start;
            while at < end {
                at = self.copy_block(at, end, stopped).await?;
            }
            at = end;
        }
        Ok(())
    }

    /// Compares everything and copies what differs; whether anything did. Writers must be stopped, or are not known.
    pub(super) async fn mend(&self, size: u64) -> Result<bool, Error> {
        let mut differed = false;
        let mut at = 0;
        while at < size {
            let (ours, theirs) = tokio::try_join!(self.read(self.source, at, size), self.read(self.target, at, size))?;
            let len = ours.len() as u64;
            if ours != theirs {
                differed = true;
                if ours.is_empty() {
                    break;
                }
                self.write(at, ours).await?;
            }
            if len == 0 {
                break;
            }
            at += len;
        }
        Ok(differed)
    }

    pub(super) async fn resize(&self, size: u64) -> Result<(), Error> {
        self.mover.must(self.target, Truncate { gfid: self.gfid, offset: size, xdata: None }).await.map(drop)
    }

    /// The next stretch of data from `at` on, below `size`.
    async fn next_data(&self, at: u64, size: u64) -> Result<(u64, u64), Error> {
        let start = match self.seek(at, SeekWhat::Data).await {
            Ok(start) => start,
            // Nothing but a hole from here.
            Err(error) if error.errno() == Some(Errno::ENXIO) => return Ok((size, size)),
            // A brick whose file system cannot tell.
            Err(error) if matches!(error.errno(), Some(Errno::EINVAL | Errno::EOPNOTSUPP)) => return Ok((at, size)),
            Err(error) => return Err(error),
        };
        let end = match self.seek(start, SeekWhat::Hole).await {
            Ok(end) => end,
            Err(error) if error.errno() == Some(Errno::ENXIO) => size,
            Err(error) => return Err(error),
        };
        Ok((start.min(size), end.clamp(start, size)))
    }

    async fn seek(&self, offset: u64, what: SeekWhat) -> Result<u64, Error> {
        let request = Seek { gfid: self.gfid, fd: Fd::ANONYMOUS, offset, what, xdata: None };
        Ok(self.mover.must(self.source, request).await?.offset)
    }

    /// Where the next block begins.
    async fn copy_block(&self, at: u64, end: u64, stopped: bool) -> Result<u64, Error> {
        let writers = self.source.writers.as_ref().filter(|_| !stopped);
        if let Some(writers) = writers {
            self.mover.stop_writers(self.gfid, writers).await.map_err(|failure| self.source_failed(failure.errno))?;
        }
        let copied = self.copy_block_now(at, end).await;
        if let Some(writers) = writers {
            self.mover.let_write(self.gfid, writers).await;
        }
        copied
    }

    async fn copy_block_now(&self, at: u64, end: u64) -> Result<u64, Error> {
        let data = self.read(self.source, at, end).await?;
        if data.is_empty() {
            // Cut meanwhile: whoever did it cuts the target too.
            return Ok(end);
        }
        let next = at + data.len() as u64;
        self.write(at, data).await?;
        Ok(next)
    }

    async fn read(&self, from: &Subvolume, at: u64, end: u64) -> Result<Bytes, Error> {
        let size = u32::try_from(end - at).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
        let request = Read { gfid: self.gfid, fd: Fd::ANONYMOUS, offset: at, size, flags: 0, xdata: None };
        Ok(self.mover.must(from, request).await?.data)
    }

    async fn write(&self, at: u64, data: Bytes) -> Result<(), Error> {
        let len = data.len();
        // Where writers are stopped around each block, what was read is newer than what clients have repeated here.
        let xdata = self.source.writers.is_none().then(|| Dict::new().with(AVOID_OVERWRITE, Value::Uint(1)));
        let request = Write { gfid: self.gfid, fd: self.fd, offset: at, flags: 0, data, xdata };
        let written = self.mover.must(self.target, request).await?.written;
        // A short write is a full disk whose error comes with the next one.
        if written as usize == len { Ok(()) } else { Err(self.target_failed(Errno::ENOSPC)) }
    }

    fn source_failed(&self, errno: Errno) -> Error {
        let kind = mortar_types::FopKind::Inodelk;
        Error::Fop { subvolume: self.source.name().to_owned(), kind, errno }
    }

    fn target_failed(&self, errno: Errno) -> Error {
        let kind = mortar_types::FopKind::Write;
        Error::Fop { subvolume: self.target.name().to_owned(), kind, errno }
    }
}
