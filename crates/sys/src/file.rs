//! Data of an open file.

use std::os::fd::BorrowedFd;

use mortar_types::{Errno, Statvfs};
use rustix::fs::{FallocateFlags, SeekFrom};

use crate::{Result, errno};

pub use rustix::fs::FallocateFlags as AllocFlags;

/// Reads up to `size` bytes at `offset` by one call: fewer at the end of the file, and before a place that cannot be read.
pub fn read_once(file: BorrowedFd<'_>, offset: u64, size: usize) -> Result<Vec<u8>> {
    let mut data = Vec::with_capacity(size);
    loop {
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut data), offset) {
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(errno(error)),
        }
    }
    data.truncate(size);
    Ok(data)
}

/// Reads up to `size` bytes at `offset`; fewer only at the end of the file.
pub fn read_at(file: BorrowedFd<'_>, offset: u64, size: usize) -> Result<Vec<u8>> {
    let mut data = Vec::with_capacity(size);
    while data.len() < size {
        let at = offset + data.len() as u64;
        // Reads into the spare capacity, which need not be zeroed first.
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut data), at) {
            Ok(0) => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(errno(error)),
        }
    }
    // An allocator may hand out more than was asked for.
    data.truncate(size);
    Ok(data)
}

/// Writes at `offset`. Returns the bytes written: fewer than given only when an error followed a part.
pub fn write_at(file: BorrowedFd<'_>, offset: u64, data: &[u8]) -> Result<usize> {
    let mut done = 0;
    while done < data.len() {
        match rustix::io::pwrite(file, &data[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) if done == 0 => return Err(errno(error)),
            Err(_) => break,
        }
    }
    Ok(done)
}

pub fn truncate(file: BorrowedFd<'_>, size: u64) -> Result<()> {
    rustix::fs::ftruncate(file, size).map_err(errno)
}

pub fn fsync(file: BorrowedFd<'_>) -> Result<()> {
    rustix::fs::fsync(file).map_err(errno)
}

pub fn fdatasync(file: BorrowedFd<'_>) -> Result<()> {
    rustix::fs::fdatasync(file).map_err(errno)
}

pub fn fallocate(file: BorrowedFd<'_>, flags: FallocateFlags, offset: u64, size: u64) -> Result<()> {
    rustix::fs::fallocate(file, flags, offset, size).map_err(errno)
}

/// The next data or hole at or after `offset`; ENXIO past the end.
pub fn seek_data(file: BorrowedFd<'_>, offset: u64) -> Result<u64> {
    rustix::fs::seek(file, SeekFrom::Data(offset)).map_err(errno)
}

/// See [`seek_data`].
pub fn seek_hole(file: BorrowedFd<'_>, offset: u64) -> Result<u64> {
    rustix::fs::seek(file, SeekFrom::Hole(offset)).map_err(errno)
}

/// Copies inside the kernel; 0 at the end of the source.
pub fn copy_range(
    from: BorrowedFd<'_>,
    mut from_offset: u64,
    to: BorrowedFd<'_>,
    mut to_offset: u64,
    size: usize,
) -> Result<usize> {
    rustix::fs::copy_file_range(from, Some(&mut from_offset), to, Some(&mut to_offset), size).map_err(errno)
}

/// The file system's figures.
pub fn statvfs(file: BorrowedFd<'_>) -> Result<Statvfs> {
    let figures = rustix::fs::fstatvfs(file).map_err(errno)?;
    Ok(Statvfs {
        bsize: figures.f_bsize,
        frsize: figures.f_frsize,
        blocks: figures.f_blocks,
        bfree: figures.f_bfree,
        bavail: figures.f_bavail,
        files: figures.f_files,
        ffree: figures.f_ffree,
        favail: figures.f_favail,
        fsid: figures.f_fsid,
        flag: figures.f_flag.bits(),
        namemax: figures.f_namemax,
    })
}

/// The limit of open files of this process, raised to what it may have.
pub fn raise_open_files_limit() -> Result<u64> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).map_err(errno)?;
    }
    limit.current.ok_or(Errno::EOVERFLOW).or(Ok(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_was_written_is_read_and_the_end_cuts_short() {
        let path = std::env::temp_dir().join(format!("mortar-sys-file-{}", std::process::id()));
        let file = std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&path);
        let file = file.expect("/tmp is writable");
        assert_eq!(write_at(file.as_fd(), 3, b"abcdef"), Ok(6));
        assert_eq!(read_at(file.as_fd(), 5, 100), Ok(b"cdef".to_vec()));
        assert_eq!(read_at(file.as_fd(), 100, 10), Ok(Vec::new()));
        assert_eq!(read_at(file.as_fd(), 0, 4), Ok(b"\0\0\0a".to_vec()));
        truncate(file.as_fd(), 4).expect("a regular file");
        assert_eq!(seek_hole(file.as_fd(), 0), Ok(4));
        assert_eq!(seek_data(file.as_fd(), 9), Err(Errno::ENXIO));
        let _ = std::fs::remove_file(path);
    }
}
