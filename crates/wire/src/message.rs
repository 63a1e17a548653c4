//! Messages other than fops: each has one body, which fills the rest of its record.

use bytes::Bytes;

use crate::field::Field;
use crate::xdr::{DecodeError, Reader, Writer};

mod sealed {
    pub trait Sealed {}
    impl<T: crate::field::Field> Sealed for T {}
}

/// A body after the RPC header, in [`crate::handshake`] and [`crate::portmap`].
pub trait Message: Sized + sealed::Sealed {
    /// Appends the body.
    fn encode(&self, out: &mut Writer);

    /// Decodes a body; anything after it is an error.
    fn decode(body: Bytes) -> Result<Self, DecodeError>;
}

impl<T: Field> Message for T {
    fn encode(&self, out: &mut Writer) {
        self.put(out);
    }

    fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::new(body);
        let message = T::take(&mut from)?;
        from.finish()?;
        Ok(message)
    }
}
