//! Open flags from a client, cut to those that may reach the brick's kernel.

use mortar_sys::at::OpenFlags;

/// Linux's numbers on x86-64 and arm64 alike for these; the wire carries them as they are.
pub(crate) const O_ACCMODE: u32 = 0o3;
pub(crate) const O_WRONLY: u32 = 0o1;
pub(crate) const O_RDWR: u32 = 0o2;
pub(crate) const O_TRUNC: u32 = 0o1000;
pub(crate) const O_APPEND: u32 = 0o2000;
/// Also set in O_SYNC.
pub(crate) const O_DSYNC: u32 = 0o10000;

/// O_DIRECT is dropped: buffers from the network are not aligned. O_SYNC too: the write fop syncs, where a failure can be
/// told from one of the write. O_CREAT and what concerns paths are the fop's own business.
pub(crate) fn of_client(flags: u32) -> OpenFlags {
    let mut kept = match flags & O_ACCMODE {
        O_WRONLY => OpenFlags::WRONLY,
        O_RDWR => OpenFlags::RDWR,
        // 3 is an old way to ask for neither; reading is the least.
        _ => OpenFlags::RDONLY,
    };
    if flags & O_TRUNC != 0 {
        kept |= OpenFlags::TRUNC;
    }
    if flags & O_APPEND != 0 {
        kept |= OpenFlags::APPEND;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_would_hurt_a_brick_reaches_the_kernel() {
        assert_eq!(of_client(0xffff_fffc), OpenFlags::TRUNC | OpenFlags::APPEND);
        assert_eq!(of_client(O_RDWR | O_DSYNC), OpenFlags::RDWR);
    }
}
