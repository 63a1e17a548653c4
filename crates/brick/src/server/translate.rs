//! The fields of requests and replies that the server must change on their way: fds, gfids, attributes.

use mortar_types::{Fd, Gfid, Iatt, Reply, Request};

/// The fds of a request with the gfid that belongs to each.
pub(super) fn fds_mut(request: &mut Request) -> [Option<(&mut Fd, &mut Gfid)>; 2] {
    macro_rules! one {
        ($($name:ident)*) => {
            match request {
                $(Request::$name(r) => [Some((&mut r.fd, &mut r.gfid)), None],)*
                Request::CopyFileRange(r) => {
                    [Some((&mut r.fd_in, &mut r.gfid_in)), Some((&mut r.fd_out, &mut r.gfid_out))]
                }
                _ => [None, None],
            }
        };
    }
    one! {
        Read Write Flush Fsync Fsyncdir Ftruncate Fstat Lk Readdir Finodelk Fentrylk Fxattrop Fgetxattr Fsetxattr
        Rchecksum Fsetattr Readdirp Release Releasedir Fremovexattr Fallocate Discard Zerofill Seek
    }
}

/// The gfids of a request: objects or parents.
pub(super) fn gfids_mut(request: &mut Request) -> [Option<&mut Gfid>; 2] {
    macro_rules! of {
        ($($inode:ident)*; $($entry:ident)*) => {
            match request {
                $(Request::$inode(r) => [Some(&mut r.gfid), None],)*
                $(Request::$entry(r) => [Some(&mut r.parent), None],)*
                Request::Lookup(r) => [Some(&mut r.gfid), Some(&mut r.parent)],
                Request::Rename(r) => [Some(&mut r.old_parent), Some(&mut r.new_parent)],
                Request::Link(r) => [Some(&mut r.gfid), Some(&mut r.new_parent)],
                Request::CopyFileRange(r) => [Some(&mut r.gfid_in), Some(&mut r.gfid_out)],
                Request::Ipc(_) => [None, None],
            }
        };
    }
    of! {
        Stat Readlink Truncate Open Read Write Statfs Flush Fsync Setxattr Getxattr Removexattr Opendir Fsyncdir Access
        Ftruncate Fstat Lk Readdir Inodelk Finodelk Entrylk Fentrylk Xattrop Fxattrop Fgetxattr Fsetxattr Rchecksum
        Setattr Fsetattr Readdirp Release Releasedir Fremovexattr Fallocate Discard Zerofill Seek Lease GetActiveLk
        SetActiveLk Icreate;
        Mknod Mkdir Unlink Rmdir Symlink Create Namelink Put
    }
}

/// Every attribute structure of a reply.
pub(super) fn for_each_iatt(reply: &mut Reply, mut change: impl FnMut(&mut Iatt)) {
    match reply {
        Reply::StatReply(r) => change(&mut r.stat),
        Reply::ChangeReply(r) => [&mut r.pre, &mut r.post].into_iter().for_each(change),
        Reply::WriteReply(r) => [&mut r.pre, &mut r.post].into_iter().for_each(change),
        Reply::EntryReply(r) => [&mut r.stat, &mut r.preparent, &mut r.postparent].into_iter().for_each(change),
        Reply::LookupReply(r) => [&mut r.stat, &mut r.postparent].into_iter().for_each(change),
        Reply::ReadlinkReply(r) => change(&mut r.stat),
        Reply::CreateReply(r) => [&mut r.stat, &mut r.preparent, &mut r.postparent].into_iter().for_each(change),
        Reply::ReadReply(r) => change(&mut r.stat),
        Reply::ReaddirpReply(r) => r.entries.iter_mut().for_each(|entry| change(&mut entry.stat)),
        Reply::RenameReply(r) => {
            let parents = [&mut r.preoldparent, &mut r.postoldparent, &mut r.prenewparent, &mut r.postnewparent];
            change(&mut r.stat);
            parents.into_iter().for_each(change);
        }
        Reply::CopyReply(r) => [&mut r.stat, &mut r.pre, &mut r.post].into_iter().for_each(change),
        Reply::AckReply(_)
        | Reply::OpenReply(_)
        | Reply::StatfsReply(_)
        | Reply::DictReply(_)
        | Reply::LkReply(_)
        | Reply::ReaddirReply(_)
        | Reply::RchecksumReply(_)
        | Reply::SeekReply(_)
        | Reply::LeaseReply(_)
        | Reply::ActiveLocksReply(_) => {}
    }
}
