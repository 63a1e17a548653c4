//! Locks and leases as fields of fops and callbacks.

use mortar_types::fop::{ActiveLock, Flock, LeaseInfo};

use crate::field::{Field, fields, put_list, take_list};
use crate::xdr::{DecodeError, Reader, Writer};

/// Bytes of a `gf_proto_flock` without an owner.
pub(crate) const BLANK_FLOCK_BYTES: usize = 32;

/// Bytes of a `gf_proto_lease`.
pub(crate) const LEASE_BYTES: usize = 28;

fields! {
    Flock { kind, whence, start, len, pid, owner }
    LeaseInfo { cmd, kind, id, flags }
    ActiveLock { flock, client_uid, flags }
}

/// `gfs3_locklist`.
impl Field for Vec<ActiveLock> {
    fn put(&self, out: &mut Writer) {
        put_list(self, out);
    }

    fn take(from: &mut Reader) -> Result<Self, DecodeError> {
        take_list(from)
    }
}
