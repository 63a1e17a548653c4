//! Attributes: `gfx_iattx` (every v4 fop) and the older `gf_iatt` (only in cache invalidations).

use mortar_types::iatt::iatt_flags;
use mortar_types::{Gfid, Iatt, Mdata, Statvfs, Timespec};

use crate::field::{Field, fields};
use crate::xdr::{DecodeError, Reader, Writer};

/// Bytes of a `gfx_iattx` (`rpc/xdr/src/glusterfs4-xdr.x`).
pub const IATT_BYTES: usize = 148;

/// Bytes of a `gf_iatt` (`rpc/xdr/src/glusterfs3-xdr.x`).
pub const OLD_IATT_BYTES: usize = 100;

/// Bytes of a `gf_statfs`.
pub const STATFS_BYTES: usize = 88;

/// Cuts fixed-size fields off an array whose length is the sum of theirs.
struct Cut<'a>(&'a [u8]);

impl Cut<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let (front, rest) = self.0.split_first_chunk().expect("the fields of an iatt add up to its size");
        self.0 = rest;
        *front
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    fn i64(&mut self) -> i64 {
        i64::from_be_bytes(self.array())
    }
}

/// Fills an array from the front; one copy to the output for all fields together.
struct Fill<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Fill<N> {
    const fn new() -> Self {
        Self { bytes: [0; N], at: 0 }
    }

    fn put(&mut self, field: &[u8]) {
        self.bytes[self.at..self.at + field.len()].copy_from_slice(field);
        self.at += field.len();
    }

    fn u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.put(&value.to_be_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.put(&value.to_be_bytes());
    }

    fn finish(&self, out: &mut Writer) {
        debug_assert_eq!(self.at, N, "the fields of an iatt add up to its size");
        out.raw(&self.bytes);
    }
}

impl Field for Iatt {
    fn put(&self, out: &mut Writer) {
        let mut fill = Fill::<IATT_BYTES>::new();
        fill.put(self.gfid.as_bytes());
        for value in
            [self.flags, self.ino, self.dev, self.rdev, self.size, self.blocks, self.attributes, self.attributes_mask]
        {
            fill.u64(value);
        }
        let times = [self.atime, self.mtime, self.ctime, self.btime];
        for time in times {
            fill.i64(time.sec);
        }
        for time in times {
            fill.u32(time.nsec);
        }
        for value in [self.nlink, self.uid, self.gid, self.blksize, self.mode] {
            fill.u32(value);
        }
        fill.finish(out);
    }

    fn take(from: &mut Reader) -> Result<Self, DecodeError> {
        let bytes: [u8; IATT_BYTES] = from.array()?;
        let mut cut = Cut(&bytes);
        let mut iatt = Self {
            gfid: Gfid(cut.array()),
            flags: cut.u64(),
            ino: cut.u64(),
            dev: cut.u64(),
            rdev: cut.u64(),
            size: cut.u64(),
            blocks: cut.u64(),
            attributes: cut.u64(),
            attributes_mask: cut.u64(),
            ..Self::default()
        };
        for time in [&mut iatt.atime, &mut iatt.mtime, &mut iatt.ctime, &mut iatt.btime] {
            time.sec = cut.i64();
        }
        for time in [&mut iatt.atime, &mut iatt.mtime, &mut iatt.ctime, &mut iatt.btime] {
            time.nsec = cut.u32();
        }
        for value in [&mut iatt.nlink, &mut iatt.uid, &mut iatt.gid, &mut iatt.blksize, &mut iatt.mode] {
            *value = cut.u32();
        }
        Ok(iatt)
    }
}

/// Encodes an iatt as the older `gf_iatt`: seconds are cut to 32 bits, the birth time and attribute bits are lost.
pub(crate) fn put_old(iatt: &Iatt, out: &mut Writer) {
    let mut fill = Fill::<OLD_IATT_BYTES>::new();
    fill.put(iatt.gfid.as_bytes());
    fill.u64(iatt.ino);
    fill.u64(iatt.dev);
    for value in [iatt.mode, iatt.nlink, iatt.uid, iatt.gid] {
        fill.u32(value);
    }
    fill.u64(iatt.rdev);
    fill.u64(iatt.size);
    fill.u32(iatt.blksize);
    fill.u64(iatt.blocks);
    for time in [iatt.atime, iatt.mtime, iatt.ctime] {
        fill.u32(time.sec as u32);
        fill.u32(time.nsec);
    }
    fill.finish(out);
}

/// Decodes a `gf_iatt`. Validity bits are those of a brick's answer, none for a zeroed one.
pub(crate) fn take_old(from: &mut Reader) -> Result<Iatt, DecodeError> {
    let bytes: [u8; OLD_IATT_BYTES] = from.array()?;
    let mut cut = Cut(&bytes);
    let mut iatt = Iatt {
        gfid: Gfid(cut.array()),
        ino: cut.u64(),
        dev: cut.u64(),
        mode: cut.u32(),
        nlink: cut.u32(),
        uid: cut.u32(),
        gid: cut.u32(),
        rdev: cut.u64(),
        size: cut.u64(),
        blksize: cut.u32(),
        blocks: cut.u64(),
        ..Iatt::default()
    };
    for time in [&mut iatt.atime, &mut iatt.mtime, &mut iatt.ctime] {
        *time = Timespec::new(i64::from(cut.u32()), cut.u32());
    }
    iatt.flags = if iatt.is_empty() { 0 } else { iatt_flags::POSIX };
    Ok(iatt)
}

/// `gfx_mdata_iatt`.
impl Field for Mdata {
    fn put(&self, out: &mut Writer) {
        let times = [self.atime, self.mtime, self.ctime];
        for time in times {
            out.i64(time.sec);
        }
        for time in times {
            out.u32(time.nsec);
        }
    }

    fn take(from: &mut Reader) -> Result<Self, DecodeError> {
        let mut mdata = Self::default();
        for time in [&mut mdata.atime, &mut mdata.mtime, &mut mdata.ctime] {
            time.sec = from.i64()?;
        }
        for time in [&mut mdata.atime, &mut mdata.mtime, &mut mdata.ctime] {
            time.nsec = from.u32()?;
        }
        Ok(mdata)
    }
}

// `gf_statfs`.
fields! {
    Statvfs { bsize, frsize, blocks, bfree, bavail, files, ffree, favail, fsid, flag, namemax }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Iatt {
        Iatt {
            gfid: Gfid::ROOT,
            flags: iatt_flags::POSIX,
            ino: 1,
            dev: 2,
            rdev: 3 << 32 | 4,
            size: 5,
            blocks: 6,
            atime: Timespec::new(7, 8),
            mtime: Timespec::new(9, 10),
            ctime: Timespec::new(11, 12),
            nlink: 13,
            uid: 14,
            gid: 15,
            blksize: 16,
            mode: 0o100_644,
            ..Iatt::default()
        }
    }

    #[test]
    fn an_iatt_is_148_bytes_and_comes_back() {
        let iatt = Iatt { attributes: 17, attributes_mask: 18, btime: Timespec::new(-1, 20), ..sample() };
        let mut out = Writer::new();
        iatt.put(&mut out);
        assert_eq!(out.len(), IATT_BYTES);
        assert_eq!(Iatt::take(&mut Reader::new(out.into_inner().freeze())), Ok(iatt));
    }

    #[test]
    fn an_old_iatt_is_100_bytes_and_keeps_what_it_has_room_for() {
        let mut out = Writer::new();
        put_old(&sample(), &mut out);
        assert_eq!(out.len(), OLD_IATT_BYTES);
        assert_eq!(take_old(&mut Reader::new(out.into_inner().freeze())), Ok(sample()));
    }

    #[test]
    fn a_zeroed_old_iatt_stays_empty() {
        let mut out = Writer::new();
        put_old(&Iatt::default(), &mut out);
        assert_eq!(take_old(&mut Reader::new(out.into_inner().freeze())), Ok(Iatt::default()));
    }

    #[test]
    fn statfs_is_eleven_words() {
        let mut out = Writer::new();
        Statvfs::default().put(&mut out);
        assert_eq!(out.len(), STATFS_BYTES);
    }
}
