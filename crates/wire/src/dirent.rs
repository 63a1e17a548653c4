//! Directory entries: `gfx_dirlist` (READDIR) and `gfx_dirplist` (READDIRP).

use mortar_types::fop::{Dirent, DirentPlus};

use crate::field::{Field, put_list, take_list};
use crate::xdr::{DecodeError, Reader, Writer};

impl Field for Dirent {
    fn put(&self, out: &mut Writer) {
        out.u64(self.ino);
        out.u64(self.offset);
        out.u32(u32::try_from(self.name.len()).expect("a name is at most 255 bytes"));
        out.u32(self.kind);
        self.name.put(out);
    }

    fn take(from: &mut Reader) -> Result<Self, DecodeError> {
        let (ino, offset) = (from.u64()?, from.u64()?);
        // The name's length, which the name brings along itself.
        let _length = from.u32()?;
        Ok(Self { ino, offset, kind: from.u32()?, name: from.opaque()? })
    }
}

impl Field for DirentPlus {
    fn put(&self, out: &mut Writer) {
        self.entry.put(out);
        self.stat.put(out);
        self.xdata.put(out);
    }

    fn take(from: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { entry: Field::take(from)?, stat: Field::take(from)?, xdata: Field::take(from)? })
    }
}

impl Field for Vec<Dirent> {
    fn put(&self, out: &mut Writer) {
        put_list(self, out);
    }

    fn take(from: &mut Reader) -> Result<Self, DecodeError> {
        take_list(from)
    }
}

impl Field for Vec<DirentPlus> {
    fn put(&self, out: &mut Writer) {
        put_list(self, out);
    }

    fn take(from: &mut Reader) -> Result<Self, DecodeError> {
        take_list(from)
    }
}
