//! What every message is made of: a value that knows its place on the wire.

use bytes::Bytes;

use mortar_types::fop::{EntrylkCmd, EntrylkType, LockCmd, LockType, SeekWhat, XattropOp};
use mortar_types::{Fd, Gfid, LkOwner};

use crate::xdr::{DecodeError, Reader, Writer};

/// A value with one encoding. Messages are their fields in order, so a message is a field too.
pub(crate) trait Field: Sized {
    fn put(&self, out: &mut Writer);
    fn take(from: &mut Reader) -> Result<Self, DecodeError>;
}

/// Makes a struct a [`Field`]: the names in the order of the wire, which need not be the struct's.
macro_rules! fields {
    ($($name:ident { $($field:ident),* $(,)? })*) => {
        $(
            impl $crate::field::Field for $name {
                fn put(&self, out: &mut $crate::xdr::Writer) {
                    $($crate::field::Field::put(&self.$field, out);)*
                }

                fn take(from: &mut $crate::xdr::Reader) -> Result<Self, $crate::xdr::DecodeError> {
                    $(let $field = $crate::field::Field::take(from)?;)*
                    Ok(Self { $($field),* })
                }
            }
        )*
    };
}
pub(crate) use fields;

macro_rules! primitives {
    ($($type:ident)*) => {
        $(
            impl Field for $type {
                #[inline]
                fn put(&self, out: &mut Writer) {
                    out.$type(*self);
                }

                #[inline]
                fn take(from: &mut Reader) -> Result<Self, DecodeError> {
                    from.$type()
                }
            }
        )*
    };
}
primitives! { u32 i32 u64 i64 f64 }

macro_rules! enums {
    ($($type:ident: $raw:ident, $name:literal;)*) => {
        $(
            impl Field for $type {
                #[inline]
                fn put(&self, out: &mut Writer) {
                    out.$raw(self.raw());
                }

                #[inline]
                fn take(from: &mut Reader) -> Result<Self, DecodeError> {
                    let raw = from.$raw()?;
                    Self::from_raw(raw).ok_or(DecodeError::Unknown { field: $name, value: raw as u64 })
                }
            }
        )*
    };
}
enums! {
    LockType: u32, "lock type";
    LockCmd: u32, "lock command";
    EntrylkCmd: u32, "entrylk command";
    EntrylkType: u32, "entrylk type";
    XattropOp: u32, "xattrop operation";
    SeekWhat: i32, "seek target";
}

impl Field for Gfid {
    #[inline]
    fn put(&self, out: &mut Writer) {
        out.gfid(self);
    }

    #[inline]
    fn take(from: &mut Reader) -> Result<Self, DecodeError> {
        from.gfid()
    }
}

/// Fixed opaque.
impl Field for [u8; 16] {
    fn put(&self, out: &mut Writer) {
        out.raw(self);
    }

    fn take(from: &mut Reader) -> Result<Self, DecodeError> {
        from.array()
    }
}

/// CREATE's reply says unsigned, everything else signed; the bits are the same.
impl Field for Fd {
    #[inline]
    fn put(&self, out: &mut Writer) {
        out.i64(self.0);
    }

    #[inline]
    fn take(from: &mut Reader) -> Result<Self, DecodeError> {
        from.i64().map(Self)
    }
}

/// Variable opaque or string of any bytes (names).
impl Field for Bytes {
    #[inline]
    fn put(&self, out: &mut Writer) {
        out.opaque(self);
    }

    #[inline]
    fn take(from: &mut Reader) -> Result<Self, DecodeError> {
        from.opaque()
    }
}

/// Strings that are text by agreement: host names, brick paths, volfiles.
impl Field for String {
    fn put(&self, out: &mut Writer) {
        out.opaque(self.as_bytes());
    }

    fn take(from: &mut Reader) -> Result<Self, DecodeError> {
        from.opaque_with(|bytes| {
            std::str::from_utf8(bytes).map(Self::from).map_err(|_| DecodeError::Text("a string field"))
        })
    }
}

impl Field for LkOwner {
    fn put(&self, out: &mut Writer) {
        out.opaque(&self.0);
    }

    fn take(from: &mut Reader) -> Result<Self, DecodeError> {
        from.opaque_with(|bytes| {
            if bytes.len() > Self::BYTES_MAX { Err(DecodeError::Length) } else { Ok(Self::from_slice(bytes)) }
        })
    }
}

/// rpcgen's linked list (`T *next` as a struct's last member): 1 before each element, 0 at the end.
pub(crate) fn put_list<T: Field>(list: &[T], out: &mut Writer) {
    for element in list {
        out.u32(1);
        element.put(out);
    }
    out.u32(0);
}

/// Reads what [`put_list`] wrote. Every element takes bytes, so the record's length bounds the list.
pub(crate) fn take_list<T: Field>(from: &mut Reader) -> Result<Vec<T>, DecodeError> {
    let mut list = Vec::new();
    while from.u32()? != 0 {
        list.push(T::take(from)?);
    }
    Ok(list)
}
