//! Listing a directory with the kernel's own positions.

use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, RawDir, RawDirEntry, SeekFrom};

use crate::{Result, errno};

/// Bytes asked from the kernel at a time: some hundred names, and a stack frame that no thread minds.
const BUFFER_BYTES: usize = 16 * 1024;

/// One name as the kernel lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub name: Vec<u8>,
    pub ino: u64,
    /// `DT_*`, 0 when the file system does not tell.
    pub kind: u32,
    /// Where the listing goes on after this entry.
    pub next: u64,
}

/// One name as the kernel lists it, in the kernel's buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Borrowed<'a> {
    pub name: &'a [u8],
    pub ino: u64,
    /// As [`Entry::kind`].
    pub kind: u32,
    /// As [`Entry::next`].
    pub next: u64,
}

/// Lists from position `from` (0, or an entry's `next`) until `take` returns false or nothing is left. Returns whether the
/// end was reached. Moves the descriptor's own position, so one listing at a time. `.` and `..` are not left out.
pub fn list(dir: BorrowedFd<'_>, from: u64, mut take: impl FnMut(Entry) -> bool) -> Result<bool> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); BUFFER_BYTES];
    let mut raw = start(dir, from, &mut buffer)?;
    while let Some(entry) = raw.next() {
        let entry = entry.map_err(errno)?;
        let entry = borrowed(&entry);
        let name = entry.name.to_vec();
        if !take(Entry { name, ino: entry.ino, kind: entry.kind, next: entry.next }) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// As [`list`], but just what the kernel gives at once, all of it: a descriptor that goes on where it stood lets the file
/// system go on too, instead of looking the position up again. Returns whether there was nothing.
pub fn portion(dir: BorrowedFd<'_>, from: u64, mut take: impl FnMut(Borrowed<'_>)) -> Result<bool> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); BUFFER_BYTES];
    let mut raw = start(dir, from, &mut buffer)?;
    let mut nothing = true;
    while let Some(entry) = raw.next() {
        take(borrowed(&entry.map_err(errno)?));
        nothing = false;
        if raw.is_buffer_empty() {
            break;
        }
    }
    Ok(nothing)
}

fn start<'a>(dir: BorrowedFd<'a>, from: u64, buffer: &'a mut [MaybeUninit<u8>]) -> Result<RawDir<'a, BorrowedFd<'a>>> {
    rustix::fs::seek(dir, SeekFrom::Start(from)).map_err(errno)?;
    Ok(RawDir::new(dir, buffer))
}

fn borrowed<'a>(entry: &'a RawDirEntry<'_>) -> Borrowed<'a> {
    Borrowed {
        name: entry.file_name().to_bytes(),
        ino: entry.ino(),
        kind: kind_of(entry.file_type()),
        next: entry.next_entry_cookie(),
    }
}

/// All names but `.` and `..`, for directories known to be small enough.
pub fn names(dir: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    list(dir, 0, |entry| {
        if !matches!(&entry.name[..], b"." | b"..") {
            names.push(entry.name);
        }
        true
    })?;
    Ok(names)
}

const fn kind_of(kind: FileType) -> u32 {
    match kind {
        FileType::RegularFile => 8,
        FileType::Directory => 4,
        FileType::Symlink => 10,
        FileType::Fifo => 1,
        FileType::Socket => 12,
        FileType::CharacterDevice => 2,
        FileType::BlockDevice => 6,
        FileType::Unknown => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_listing_goes_on_where_it_stopped() {
        let path = std::env::temp_dir().join(format!("mortar-sys-dirents-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("/tmp is writable");
        for number in 0..50 {
            std::fs::write(path.join(format!("f{number}")), b"").expect("/tmp is writable");
        }
        let dir = std::fs::File::open(&path).expect("it was made");
        let (mut seen, mut at) = (Vec::new(), 0);
        loop {
            let mut room = 7;
            let done = list(dir.as_fd(), at, |entry| {
                if room == 0 {
                    return false;
                }
                room -= 1;
                at = entry.next;
                seen.push(entry.name);
                true
            });
            if done.expect("it lists") {
                break;
            }
        }
        assert_eq!(seen.len(), 52);
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 52);
        let _ = std::fs::remove_dir_all(path);
    }
    #[test]
    fn portions_together_are_the_whole_directory() {
        let path = std::env::temp_dir().join(format!("mortar-sys-portions-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("/tmp is writable");
        for number in 0..2000 {
            std::fs::write(path.join(format!("a-file-{number}")), b"").expect("/tmp is writable");
        }
        let dir = std::fs::File::open(&path).expect("it was made");
        let (mut seen, mut at, mut portions) = (Vec::new(), 0, 0);
        while !portion(dir.as_fd(), at, |entry| {
            at = entry.next;
            seen.push(entry.name.to_vec());
        })
        .expect("it lists")
        {
            portions += 1;
        }
        assert!(portions > 1);
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 2002);
        let _ = std::fs::remove_dir_all(path);
    }
}
