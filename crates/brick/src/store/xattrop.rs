//! XATTROP and FXATTROP: read, combine, write, as one step per inode. Replication keeps its change log by it.
//!
//! It leaves the inode's times alone, whatever the caller's clock says: counters are no change that a user made, and a
//! client's late post-op must not undo a utimensat(2).
//!
//! Source: GlusterFS `posix-inode-fd-ops.c: do_xattrop`, `index.c: index_xattrop`.

use std::sync::Arc;

use mortar_sys::xattr::{self, SetMode};
use mortar_sys::{Loc, Result};
use mortar_types::fop::{DictReply, Fxattrop, Xattrop, XattropOp};
use mortar_types::{Dict, Errno, Outcome, Value};

use super::answers::Subject;
use super::brick::Brick;
use super::creation::has_xattr_namespace;
use super::inode::Inode;
use super::xattr_fops::is_brick_key;

impl Brick {
    pub(crate) fn xattrop(&self, request: &Xattrop) -> Outcome<DictReply> {
        let node = self.node(request.gfid)?;
        self.combine(&node.inode, node.loc(self), request.op, request.dict.as_ref(), request.xdata.as_ref())
    }

    pub(crate) fn fxattrop(&self, request: &Fxattrop) -> Outcome<DictReply> {
        self.opened(request.gfid, request.fd)?.with(self, |inode, loc| {
            self.combine(inode, loc, request.op, request.dict.as_ref(), request.xdata.as_ref())
        })
    }

    fn combine(
        &self,
        inode: &Arc<Inode>,
        loc: Loc<'_>,
        op: XattropOp,
        dict: Option<&Dict>,
        xdata: Option<&Dict>,
    ) -> Outcome<DictReply> {
        let dict = dict.ok_or(Errno::EINVAL)?;
        let _serial = inode.serialise();
        // The index holds the inode before anything says that it needs healing, and until nothing does.
        self.index.before(inode, dict, xdata)?;
        let mut reply = Dict::new();
        for (key, value) in dict.iter() {
            let delta = value.as_bytes().ok_or(Errno::EINVAL)?;
            if !has_xattr_namespace(key) {
                return Err(Errno::EOPNOTSUPP.into());
            }
            if is_brick_key(key) {
                return Err(Errno::EPERM.into());
            }
            let answer = combine_one(loc, key.as_bytes(), op, delta)?;
            reply.set(key.to_owned(), Value::ptr(answer));
        }
        self.index.after(inode, &reply, xdata)?;
        let stat = loc.stat()?;
        let xdata = self.answer(&Subject { inode, loc, stat: &stat }, xdata)?;
        Ok(DictReply { len: 0, dict: Some(reply), xdata: Some(xdata) })
    }
}

/// Applies one key and returns the value to answer: the new one, for GET_AND_SET the old one.
fn combine_one(loc: Loc<'_>, key: &[u8], op: XattropOp, delta: &[u8]) -> Result<Vec<u8>> {
    // The request's length fixes the value's; with defaults the request is twice as long.
    let len = match op {
        XattropOp::AddArrayWithDefault | XattropOp::AddArray64WithDefault => delta.len() / 2,
        _ => delta.len(),
    };
    let mut old = xattr::get(loc, key)?;
    let exists = old.is_some();
    let mut stored = old.take().unwrap_or_default();
    if op == XattropOp::GetAndSet {
        xattr::set(loc, key, delta, SetMode::Any)?;
        return Ok(stored);
    }
    stored.resize(len, 0);
    // Nothing to add: only a question, and a missing value stays missing.
    if delta.iter().all(|byte| *byte == 0) {
        return Ok(stored);
    }
    let new = match op {
        XattropOp::AddArray => add32(&stored, delta, None),
        XattropOp::AddArray64 => add64(&stored, delta, None),
        XattropOp::AddArrayWithDefault => add32(&stored, &delta[..len], Some(&delta[len..])),
        XattropOp::AddArray64WithDefault => add64(&stored, &delta[..len], Some(&delta[len..])),
        XattropOp::Or => stored.iter().zip(delta).map(|(one, two)| one | two).collect(),
        XattropOp::And => stored.iter().zip(delta).map(|(one, two)| one & two).collect(),
        XattropOp::GetAndSet => delta.to_vec(),
    };
    if !exists || new != stored {
        xattr::set(loc, key, &new, SetMode::Any)?;
    }
    Ok(new)
}

macro_rules! add_array {
    ($(#[$meta:meta])* $name:ident, $number:ty, $bytes:literal) => {
        $(#[$meta])*
        fn $name(stored: &[u8], delta: &[u8], defaults: Option<&[u8]>) -> Vec<u8> {
            let mut sum = stored.to_vec();
            let number = |bytes: &[u8], at: usize| {
                let element = bytes.get(at * $bytes..(at + 1) * $bytes).and_then(|bytes| bytes.try_into().ok());
                element.map_or(0, <$number>::from_be_bytes)
            };
            for (at, slot) in sum.chunks_exact_mut($bytes).enumerate() {
                let old = number(stored, at);
                let default = if old == 0 { defaults.map_or(0, |defaults| number(defaults, at)) } else { 0 };
                let new = old.wrapping_add(number(delta, at)).wrapping_add(default);
                slot.copy_from_slice(&new.to_be_bytes());
            }
            sum
        }
    };
}

add_array!(
    /// Big-endian 32-bit elements, wrapping: -1 is sent as 0xffffffff.
    add32, u32, 4
);
add_array!(
    /// As [`add32`], of 64 bits.
    add64, u64, 8
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_wrap_and_do_not_carry_into_each_other() {
        let stored = [0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff];
        let delta = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1];
        assert_eq!(add32(&stored, &delta, None), [0; 8]);
        assert_eq!(add64(&[0; 8], &delta, None), delta);
    }

    #[test]
    fn a_default_counts_only_where_nothing_is_stored() {
        let stored = [0, 0, 0, 0, 0, 0, 0, 5];
        let delta = [0, 0, 0, 1, 0, 0, 0, 1];
        let defaults = [0, 0, 0, 9, 0, 0, 0, 9];
        assert_eq!(add32(&stored, &delta, Some(&defaults)), [0, 0, 0, 10, 0, 0, 0, 6]);
    }
}
