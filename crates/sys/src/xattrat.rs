//! `getxattrat(2)` and its siblings: extended attributes of an entry below an open directory, since Linux 6.13.
//!
//! rustix does not wrap them yet. A final symbolic link is not followed. The numbers are those of every architecture but
//! alpha (`include/uapi/asm-generic/unistd.h`, `arch/x86/entry/syscalls/syscall_64.tbl`); elsewhere [`exists`] says no.

use std::ffi::{CStr, c_int, c_long, c_uint};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::LazyLock;

use mortar_types::Errno;

use crate::Result;

const SETXATTRAT: c_long = 463;
const GETXATTRAT: c_long = 464;
const LISTXATTRAT: c_long = 465;
const REMOVEXATTRAT: c_long = 466;

const AT_FLAGS: c_uint = libc::AT_SYMLINK_NOFOLLOW.cast_unsigned();

/// `struct xattr_args` (`include/uapi/linux/xattr.h`): passed to the calls that move a value.
#[repr(C, align(8))]
struct Args {
    /// The value's address.
    value: u64,
    size: u32,
    /// `XATTR_CREATE`, `XATTR_REPLACE`; 0 for reading.
    flags: u32,
}

const ARGS_BYTES: usize = size_of::<Args>();
const _: () = assert!(ARGS_BYTES == 16);

/// Whether the kernel has these calls and lets us make them.
pub(crate) fn exists() -> bool {
    static EXISTS: LazyLock<bool> = LazyLock::new(probe);
    *EXISTS
}

/// A call that a kernel with `getxattrat` refuses for its arguments' size (EINVAL) before it looks at anything else; one
/// without it says ENOSYS, a sandbox EPERM.
fn probe() -> bool {
    if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")) {
        return false;
    }
    let args = Args { value: 0, size: 0, flags: 0 };
    // SAFETY: both strings are NUL-terminated constants and `args` outlives the call; the claimed size of 0 makes the
    // kernel read nothing of it and write nothing anywhere.
    // JUSTIFICATION: neither std nor rustix has this call.
    let result = unsafe {
        libc::syscall(
            GETXATTRAT,
            libc::AT_FDCWD,
            c".".as_ptr(),
            AT_FLAGS,
            c"trusted.gfid".as_ptr(),
            &raw const args,
            0_usize,
        )
    };
    matches!(outcome(result), Err(Errno::EINVAL))
}

/// Reads a value into `buffer`; ERANGE when it is too small. An empty buffer asks for the length.
pub(crate) fn get(dir: BorrowedFd<'_>, entry: &[u8], name: &[u8], buffer: &mut [u8]) -> Result<usize> {
    let (entry, name) = (Text::new(entry)?, Text::new(name)?);
    let size = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
    let args = Args { value: buffer.as_mut_ptr() as u64, size, flags: 0 };
    // SAFETY: `entry` and `name` are NUL-terminated and, like `args`, live through the call; `ARGS_BYTES` is the size of
    // `args`; the kernel writes at most `size` bytes to `value`, which is a buffer of no less that we hold exclusively.
    // JUSTIFICATION: neither std nor rustix has this call.
    let result = unsafe {
        libc::syscall(
            GETXATTRAT,
            fd(dir),
            entry.as_c_str().as_ptr(),
            AT_FLAGS,
            name.as_c_str().as_ptr(),
            &raw const args,
            ARGS_BYTES,
        )
    };
    outcome(result)
}

/// `flags`: `XATTR_CREATE`, `XATTR_REPLACE` or 0. E2BIG for a value beyond what the kernel can be told of.
pub(crate) fn set(dir: BorrowedFd<'_>, entry: &[u8], name: &[u8], value: &[u8], flags: u32) -> Result<()> {
    let (entry, name) = (Text::new(entry)?, Text::new(name)?);
    let size = u32::try_from(value.len()).map_err(|_| Errno::E2BIG)?;
    let args = Args { value: value.as_ptr() as u64, size, flags };
    // SAFETY: `entry` and `name` are NUL-terminated and, like `args`, live through the call; `ARGS_BYTES` is the size of
    // `args`; the kernel only reads, exactly `size` bytes of `value`, which is that long.
    // JUSTIFICATION: neither std nor rustix has this call.
    let result = unsafe {
        libc::syscall(
            SETXATTRAT,
            fd(dir),
            entry.as_c_str().as_ptr(),
            AT_FLAGS,
            name.as_c_str().as_ptr(),
            &raw const args,
            ARGS_BYTES,
        )
    };
    outcome(result).map(drop)
}

pub(crate) fn remove(dir: BorrowedFd<'_>, entry: &[u8], name: &[u8]) -> Result<()> {
    let (entry, name) = (Text::new(entry)?, Text::new(name)?);
    // SAFETY: `entry` and `name` are NUL-terminated and live through the call, which writes no memory of ours.
    // JUSTIFICATION: neither std nor rustix has this call.
    let result =
        unsafe { libc::syscall(REMOVEXATTRAT, fd(dir), entry.as_c_str().as_ptr(), AT_FLAGS, name.as_c_str().as_ptr()) };
    outcome(result).map(drop)
}

/// Reads the names, each ended by NUL, into `buffer`; ERANGE when it is too small.
pub(crate) fn list(dir: BorrowedFd<'_>, entry: &[u8], buffer: &mut [u8]) -> Result<usize> {
    let entry = Text::new(entry)?;
    // SAFETY: `entry` is NUL-terminated and lives through the call; the kernel writes at most the given length to a
    // buffer of that length that we hold exclusively.
    // JUSTIFICATION: neither std nor rustix has this call.
    let result = unsafe {
        libc::syscall(LISTXATTRAT, fd(dir), entry.as_c_str().as_ptr(), AT_FLAGS, buffer.as_mut_ptr(), buffer.len())
    };
    outcome(result)
}

fn fd(dir: BorrowedFd<'_>) -> c_int {
    dir.as_raw_fd()
}

/// A system call's result as a length, or why it failed.
fn outcome(result: c_long) -> Result<usize> {
    usize::try_from(result).map_err(|_| {
        let errno = std::io::Error::last_os_error().raw_os_error();
        errno.map_or(Errno::EIO, Errno)
    })
}

/// A string for the kernel, on the stack: these calls come by the thousand.
struct Text {
    bytes: [u8; Self::BYTES_MAX],
    /// Without the NUL.
    len: usize,
}

impl Text {
    /// A 255-byte name, or a handle's path, with room to spare; as `ProcPath`.
    const BYTES_MAX: usize = 512;

    /// EINVAL for a NUL inside, ENAMETOOLONG for more than fits.
    fn new(text: &[u8]) -> Result<Self> {
        if text.contains(&0) {
            return Err(Errno::EINVAL);
        }
        let mut bytes = [0; Self::BYTES_MAX];
        // One byte stays for the NUL.
        let slot = bytes[..Self::BYTES_MAX - 1].get_mut(..text.len()).ok_or(Errno::ENAMETOOLONG)?;
        slot.copy_from_slice(text);
        Ok(Self { bytes, len: text.len() })
    }

    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_with_nul(&self.bytes[..=self.len]).expect("no NUL but the one at the end: `new` saw to it")
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_text_ends_with_its_only_nul() {
        assert_eq!(Text::new(b"abc").map(|text| text.as_c_str().to_owned()), Ok(c"abc".to_owned()));
        assert_eq!(Text::new(b"a\0c").map(drop), Err(Errno::EINVAL));
        assert!(Text::new(&[b'x'; 511]).is_ok());
        assert_eq!(Text::new(&[b'x'; 512]).map(drop), Err(Errno::ENAMETOOLONG));
    }

    #[test]
    fn errors_are_those_of_the_calls_by_path() {
        if !exists() {
            println!("skipped: this kernel has no getxattrat");
            return;
        }
        let dir = std::fs::File::open(std::env::temp_dir()).expect("/tmp is there");
        let dir = dir.as_fd();
        let missing = b"mortar-sys-no-such-entry";
        assert_eq!(get(dir, missing, b"trusted.x", &mut [0; 8]), Err(Errno::ENOENT));
        assert_eq!(list(dir, missing, &mut [0; 8]), Err(Errno::ENOENT));
        assert_eq!(set(dir, missing, b"trusted.x", b"", 0), Err(Errno::ENOENT));
        assert_eq!(remove(dir, missing, b"trusted.x"), Err(Errno::ENOENT));
    }
}
