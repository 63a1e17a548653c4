//! Requests: one row per fop, the fields in the order of the wire.

use bytes::Bytes;

use mortar_types::fop::{
    Access, CopyFileRange, Create, Discard, Entrylk, Fallocate, Fentrylk, Fgetxattr, Finodelk, Flush, Fremovexattr,
    Fsetattr, Fsetxattr, Fstat, Fsync, Fsyncdir, Ftruncate, Fxattrop, GetActiveLk, Getxattr, Icreate, Inodelk, Ipc,
    Lease, Link, Lk, Lookup, Mkdir, Mknod, Namelink, Open, Opendir, Put, Rchecksum, Read, Readdir, Readdirp, Readlink,
    Release, Releasedir, Removexattr, Rename, Rmdir, Seek, SetActiveLk, Setattr, Setxattr, Stat, Statfs, Symlink,
    Truncate, Unlink, Write, Xattrop, Zerofill,
};
use mortar_types::{FopKind, Request};

use crate::field::{Field, fields};
use crate::xdr::{DecodeError, Reader, Writer};

fields! {
    Stat { gfid, xdata }
    Readlink { gfid, size, xdata }
    Mknod { parent, dev, mode, umask, name, xdata }
    Mkdir { parent, mode, umask, name, xdata }
    Unlink { parent, name, flags, xdata }
    Rmdir { parent, flags, name, xdata }
    Symlink { parent, name, umask, target, xdata }
    Rename { old_parent, new_parent, old_name, new_name, xdata }
    Link { gfid, new_parent, new_name, xdata }
    Truncate { gfid, offset, xdata }
    Open { gfid, flags, xdata }
    Read { gfid, fd, offset, size, flags, xdata }
    Statfs { gfid, xdata }
    Flush { gfid, fd, xdata }
    Fsync { gfid, fd, datasync, xdata }
    Setxattr { gfid, flags, dict, xdata }
    Removexattr { gfid, name, xdata }
    Opendir { gfid, xdata }
    Fsyncdir { gfid, fd, datasync, xdata }
    Access { gfid, mask, xdata }
    Create { parent, flags, mode, umask, name, xdata }
    Ftruncate { gfid, fd, offset, xdata }
    Fstat { gfid, fd, xdata }
    Lk { gfid, fd, cmd, kind, flock, xdata }
    Lookup { gfid, parent, flags, name, xdata }
    Readdir { gfid, fd, offset, size, xdata }
    Inodelk { gfid, cmd, kind, flock, domain, xdata }
    Finodelk { gfid, fd, cmd, kind, flock, domain, xdata }
    Xattrop { gfid, op, dict, xdata }
    Fxattrop { gfid, fd, op, dict, xdata }
    Fsetxattr { gfid, fd, flags, dict, xdata }
    Rchecksum { gfid, fd, offset, len, flags, xdata }
    Setattr { gfid, stat, valid, xdata }
    Fsetattr { gfid, fd, stat, valid, xdata }
    Readdirp { gfid, fd, offset, size, xdata }
    Release { gfid, fd, xdata }
    Releasedir { gfid, fd, xdata }
    Fremovexattr { gfid, fd, name, xdata }
    Fallocate { gfid, fd, flags, offset, size, xdata }
    Discard { gfid, fd, offset, size, xdata }
    Zerofill { gfid, fd, offset, size, xdata }
    Ipc { op, xdata }
    Seek { gfid, fd, offset, what, xdata }
    Lease { gfid, lease, xdata }
    GetActiveLk { gfid, xdata }
    SetActiveLk { gfid, locks, xdata }
    Icreate { gfid, mode, xdata }
    Namelink { parent, name, xdata }
    CopyFileRange { gfid_in, gfid_out, fd_in, fd_out, offset_in, offset_out, size, flags, xdata }
}

/// A name that may be missing: a word that says whether it counts (called `namelen`, but only 0 or 1), then the name.
fn optional_name(flag: u64, name: Bytes) -> Option<Bytes> {
    (flag != 0).then_some(name)
}

fn name_bytes(name: Option<&Bytes>) -> &[u8] {
    name.map_or(&[], |name| name)
}

impl Field for Getxattr {
    fn put(&self, out: &mut Writer) {
        self.gfid.put(out);
        out.u32(u32::from(self.name.is_some()));
        out.opaque(name_bytes(self.name.as_ref()));
        self.xdata.put(out);
    }

    fn take(from: &mut Reader) -> Result<Self, DecodeError> {
        let gfid = from.gfid()?;
        let name = optional_name(from.u32()?.into(), from.opaque()?);
        Ok(Self { gfid, name, xdata: Field::take(from)? })
    }
}

impl Field for Fgetxattr {
    fn put(&self, out: &mut Writer) {
        self.gfid.put(out);
        self.fd.put(out);
        out.u32(u32::from(self.name.is_some()));
        out.opaque(name_bytes(self.name.as_ref()));
        self.xdata.put(out);
    }

    fn take(from: &mut Reader) -> Result<Self, DecodeError> {
        let (gfid, fd) = (from.gfid()?, Field::take(from)?);
        let name = optional_name(from.u32()?.into(), from.opaque()?);
        Ok(Self { gfid, fd, name, xdata: Field::take(from)? })
    }
}

impl Field for Entrylk {
    fn put(&self, out: &mut Writer) {
        self.gfid.put(out);
        self.cmd.put(out);
        self.kind.put(out);
        out.u64(u64::from(self.name.is_some()));
        out.opaque(name_bytes(self.name.as_ref()));
        self.domain.put(out);
        self.xdata.put(out);
    }

    fn take(from: &mut Reader) -> Result<Self, DecodeError> {
        let (gfid, cmd, kind) = (from.gfid()?, Field::take(from)?, Field::take(from)?);
        let name = optional_name(from.u64()?, from.opaque()?);
        Ok(Self { gfid, cmd, kind, name, domain: from.opaque()?, xdata: Field::take(from)? })
    }
}

impl Field for Fentrylk {
    fn put(&self, out: &mut Writer) {
        self.gfid.put(out);
        self.fd.put(out);
        self.cmd.put(out);
        self.kind.put(out);
        out.u64(u64::from(self.name.is_some()));
        out.opaque(name_bytes(self.name.as_ref()));
        self.domain.put(out);
        self.xdata.put(out);
    }

    fn take(from: &mut Reader) -> Result<Self, DecodeError> {
        let (gfid, fd, cmd, kind) = (from.gfid()?, Field::take(from)?, Field::take(from)?, Field::take(from)?);
        let name = optional_name(from.u64()?, from.opaque()?);
        Ok(Self { gfid, fd, cmd, kind, name, domain: from.opaque()?, xdata: Field::take(from)? })
    }
}

/// # Panics
/// When the payload is beyond 4 GiB: no record holds it.
fn payload_size(data: &Bytes) -> u32 {
    u32::try_from(data.len()).expect("a payload fits in a record, which is below 1 GiB")
}

/// The rest of a record, which must be as long as the message said.
fn take_payload(from: &mut Reader, size: u32) -> Result<Bytes, DecodeError> {
    let remaining = from.remaining();
    match remaining.cmp(&(size as usize)) {
        std::cmp::Ordering::Less => Err(DecodeError::Truncated),
        std::cmp::Ordering::Greater => Err(DecodeError::Trailing(remaining - size as usize)),
        std::cmp::Ordering::Equal => from.bytes(remaining),
    }
}

/// The data are not part of `put`; `take` expects them at the record's end.
impl Field for Write {
    fn put(&self, out: &mut Writer) {
        self.gfid.put(out);
        self.fd.put(out);
        out.u64(self.offset);
        out.u32(payload_size(&self.data));
        out.u32(self.flags);
        self.xdata.put(out);
    }

    fn take(from: &mut Reader) -> Result<Self, DecodeError> {
        let (gfid, fd, offset) = (from.gfid()?, Field::take(from)?, from.u64()?);
        let (size, flags) = (from.u32()?, from.u32()?);
        let xdata = Field::take(from)?;
        Ok(Self { gfid, fd, offset, flags, data: take_payload(from, size)?, xdata })
    }
}

/// The data are not part of `put`; `take` expects them at the record's end.
impl Field for Put {
    fn put(&self, out: &mut Writer) {
        self.parent.put(out);
        self.name.put(out);
        for value in [self.mode, self.umask, self.flags] {
            out.u32(value);
        }
        out.u64(self.offset);
        out.u32(payload_size(&self.data));
        self.xattr.put(out);
        self.xdata.put(out);
    }

    fn take(from: &mut Reader) -> Result<Self, DecodeError> {
        let (parent, name) = (from.gfid()?, from.opaque()?);
        let (mode, umask, flags) = (from.u32()?, from.u32()?, from.u32()?);
        let (offset, size) = (from.u64()?, from.u32()?);
        let (xattr, xdata) = (Field::take(from)?, Field::take(from)?);
        Ok(Self { parent, name, mode, umask, flags, offset, xattr, data: take_payload(from, size)?, xdata })
    }
}

macro_rules! dispatch {
    ($($name:ident)*) => {
        fn put(request: &Request, out: &mut Writer) {
            match request { $(Request::$name(request) => request.put(out),)* }
        }

        fn take(kind: FopKind, from: &mut Reader) -> Result<Request, DecodeError> {
            match kind { $(FopKind::$name => $name::take(from).map(Request::$name),)* }
        }
    };
}
dispatch! {
    Stat Readlink Mknod Mkdir Unlink Rmdir Symlink Rename Link Truncate Open Read Write Statfs Flush Fsync Setxattr
    Getxattr Removexattr Opendir Fsyncdir Access Create Ftruncate Fstat Lk Lookup Readdir Inodelk Finodelk Entrylk
    Fentrylk Xattrop Fxattrop Fgetxattr Fsetxattr Rchecksum Setattr Fsetattr Readdirp Release Releasedir Fremovexattr
    Fallocate Discard Zerofill Ipc Seek Lease GetActiveLk SetActiveLk Icreate Namelink Put CopyFileRange
}

/// Appends the request's XDR part; returns the payload (WRITE, PUT) that must follow it in the same record.
pub fn encode_request(request: &Request, out: &mut Writer) -> Option<Bytes> {
    put(request, out);
    match request {
        Request::Write(write) => Some(write.data.clone()),
        Request::Put(put) => Some(put.data.clone()),
        _ => None,
    }
}

/// Decodes what follows the call header. WRITE's and PUT's data must be exactly as long as their size field says.
pub fn decode_request(kind: FopKind, body: Bytes) -> Result<Request, DecodeError> {
    let mut from = Reader::new(body);
    let request = take(kind, &mut from)?;
    from.finish()?;
    Ok(request)
}
