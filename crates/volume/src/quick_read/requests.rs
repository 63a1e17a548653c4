//! Facts about requests that the layer needs for all fops alike: which fds they carry, and what they change.

use mortar_types::fop::LockCmd;
use mortar_types::{Fd, Gfid, Request};

/// Linux open flags.
const O_ACCMODE: u32 = 0o3;
pub(super) const O_TRUNC: u32 = 0o1000;
pub(super) const O_DIRECT: u32 = 0o40_000;

/// Whether a file opened so can be served from kept contents.
pub(super) const fn may_wait(open_flags: u32) -> bool {
    open_flags & (O_ACCMODE | O_TRUNC | O_DIRECT) == 0
}

/// The fds of open files in a request, to be replaced by the child's.
pub(super) fn fds_of(request: &mut Request) -> [Option<&mut Fd>; 2] {
    use Request as R;
    let fd = match request {
        R::Read(r) => &mut r.fd,
        R::Write(r) => &mut r.fd,
        R::Flush(r) => &mut r.fd,
        R::Fsync(r) => &mut r.fd,
        R::Ftruncate(r) => &mut r.fd,
        R::Fstat(r) => &mut r.fd,
        R::Lk(r) => &mut r.fd,
        R::Finodelk(r) => &mut r.fd,
        R::Fentrylk(r) => &mut r.fd,
        R::Fxattrop(r) => &mut r.fd,
        R::Fgetxattr(r) => &mut r.fd,
        R::Fsetxattr(r) => &mut r.fd,
        R::Fremovexattr(r) => &mut r.fd,
        R::Rchecksum(r) => &mut r.fd,
        R::Fsetattr(r) => &mut r.fd,
        R::Release(r) => &mut r.fd,
        R::Fallocate(r) => &mut r.fd,
        R::Discard(r) => &mut r.fd,
        R::Zerofill(r) => &mut r.fd,
        R::Seek(r) => &mut r.fd,
        R::CopyFileRange(r) => return [Some(&mut r.fd_in), Some(&mut r.fd_out)],
        // Of directories, or none.
        _ => return [None, None],
    };
    [Some(fd), None]
}

/// The inode whose contents or attributes a request changes, when the request names it. Taking a POSIX lock counts: what
/// its holder before wrote must be seen.
pub(super) const fn changed_by(request: &Request) -> Option<Gfid> {
    use Request as R;
    Some(match request {
        R::Write(r) => r.gfid,
        R::Truncate(r) => r.gfid,
        R::Ftruncate(r) => r.gfid,
        R::Setattr(r) => r.gfid,
        R::Fsetattr(r) => r.gfid,
        R::Fallocate(r) => r.gfid,
        R::Discard(r) => r.gfid,
        R::Zerofill(r) => r.gfid,
        R::CopyFileRange(r) => r.gfid_out,
        R::Setxattr(r) => r.gfid,
        R::Fsetxattr(r) => r.gfid,
        R::Removexattr(r) => r.gfid,
        R::Fremovexattr(r) => r.gfid,
        R::Xattrop(r) => r.gfid,
        R::Fxattrop(r) => r.gfid,
        R::Link(r) => r.gfid,
        R::Open(r) if r.flags & O_TRUNC != 0 => r.gfid,
        R::Lk(r) if !matches!(r.cmd, LockCmd::Get) => r.gfid,
        _ => return None,
    })
}

/// Whether it may take the last name of an inode that it does not name by gfid.
pub(super) const fn removes_a_file(request: &Request) -> bool {
    match request {
        Request::Unlink(_) | Request::Rename(_) | Request::Put(_) => true,
        // Of a whole tree.
        Request::Rmdir(r) => r.flags & 1 != 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mortar_types::fop::{CopyFileRange, Open, Read, Rmdir, Write};

    use super::*;

    const GFID: Gfid = Gfid::ROOT;

    #[test]
    fn a_write_changes_and_a_read_does_not() {
        let (fd, xdata) = (Fd(1), None);
        let write = Write { gfid: GFID, fd, offset: 0, flags: 0, data: Bytes::new(), xdata: None };
        assert_eq!(changed_by(&write.into()), Some(GFID));
        assert_eq!(changed_by(&Read { gfid: GFID, fd, offset: 0, size: 1, flags: 0, xdata }.into()), None);
        let open = |flags| Request::from(Open { gfid: GFID, flags, xdata: None });
        assert_eq!((changed_by(&open(0)), changed_by(&open(O_TRUNC | 1))), (None, Some(GFID)));
    }

    #[test]
    fn a_copy_has_two_fds_and_changes_the_second() {
        let other = Gfid([7; 16]);
        let (fd_in, fd_out) = (Fd(1), Fd(2));
        let mut request: Request = CopyFileRange {
            gfid_in: GFID,
            gfid_out: other,
            fd_in,
            fd_out,
            offset_in: 0,
            offset_out: 0,
            size: 1,
            flags: 0,
            xdata: None,
        }
        .into();
        assert_eq!(changed_by(&request), Some(other));
        let [first, second] = fds_of(&mut request).map(Option::<&mut Fd>::copied);
        assert_eq!((first, second), (Some(fd_in), Some(fd_out)));
    }

    #[test]
    fn only_removals_that_can_hit_a_file_count() {
        let rmdir = |flags| Request::from(Rmdir { parent: GFID, flags, name: Bytes::new(), xdata: None });
        assert_eq!((removes_a_file(&rmdir(0)), removes_a_file(&rmdir(1))), (false, true));
    }

    #[test]
    fn only_plain_opens_for_reading_wait() {
        assert!(may_wait(0) && may_wait(0o100_000));
        assert!(!may_wait(1) && !may_wait(2) && !may_wait(O_TRUNC) && !may_wait(O_DIRECT));
    }
}
