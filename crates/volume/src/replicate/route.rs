//! Facts about requests that the layer needs for all fops alike: where their fd is.

use mortar_types::{Fd, Request};

/// The fd a request is about; of COPY_FILE_RANGE the one that is written.
pub(crate) const fn fd_of(request: &Request) -> Option<Fd> {
    Some(match request {
        Request::Read(r) => r.fd,
        Request::Write(r) => r.fd,
        Request::Flush(r) => r.fd,
        Request::Fsync(r) => r.fd,
        Request::Fsyncdir(r) => r.fd,
        Request::Ftruncate(r) => r.fd,
        Request::Fstat(r) => r.fd,
        Request::Lk(r) => r.fd,
        Request::Readdir(r) => r.fd,
        Request::Readdirp(r) => r.fd,
        Request::Finodelk(r) => r.fd,
        Request::Fentrylk(r) => r.fd,
        Request::Fxattrop(r) => r.fd,
        Request::Fgetxattr(r) => r.fd,
        Request::Fsetxattr(r) => r.fd,
        Request::Fremovexattr(r) => r.fd,
        Request::Rchecksum(r) => r.fd,
        Request::Fsetattr(r) => r.fd,
        Request::Release(r) => r.fd,
        Request::Releasedir(r) => r.fd,
        Request::Fallocate(r) => r.fd,
        Request::Discard(r) => r.fd,
        Request::Zerofill(r) => r.fd,
        Request::Seek(r) => r.fd,
        Request::CopyFileRange(r) => r.fd_out,
        _ => return None,
    })
}

/// Puts another layer's fd in its place.
pub(crate) const fn set_fd(request: &mut Request, fd: Fd) {
    let slot = match request {
        Request::Read(r) => &mut r.fd,
        Request::Write(r) => &mut r.fd,
        Request::Flush(r) => &mut r.fd,
        Request::Fsync(r) => &mut r.fd,
        Request::Fsyncdir(r) => &mut r.fd,
        Request::Ftruncate(r) => &mut r.fd,
        Request::Fstat(r) => &mut r.fd,
        Request::Lk(r) => &mut r.fd,
        Request::Readdir(r) => &mut r.fd,
        Request::Readdirp(r) => &mut r.fd,
        Request::Finodelk(r) => &mut r.fd,
        Request::Fentrylk(r) => &mut r.fd,
        Request::Fxattrop(r) => &mut r.fd,
        Request::Fgetxattr(r) => &mut r.fd,
        Request::Fsetxattr(r) => &mut r.fd,
        Request::Fremovexattr(r) => &mut r.fd,
        Request::Rchecksum(r) => &mut r.fd,
        Request::Fsetattr(r) => &mut r.fd,
        Request::Release(r) => &mut r.fd,
        Request::Releasedir(r) => &mut r.fd,
        Request::Fallocate(r) => &mut r.fd,
        Request::Discard(r) => &mut r.fd,
        Request::Zerofill(r) => &mut r.fd,
        Request::Seek(r) => &mut r.fd,
        Request::CopyFileRange(r) => &mut r.fd_out,
        _ => return,
    };
    *slot = fd;
}
