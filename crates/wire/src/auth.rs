//! Credentials: the caller of a fop in the RPC call header.
//!
//! GlusterFS packs pid, uid, gid, groups and lock owner into at most 400 bytes; the shares of groups and owner are those
//! of the `GF_AUTH_GLUSTERFS_MAX_*` macros (`rpc/rpc-lib/src/xdr-common.h`), which subtract the owner's *bytes* from a
//! number of 4-byte words. The same arithmetic is kept here, so that both ends agree on what fits.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use mortar_types::{ClientId, Context, LkOwner, Pid, TimeFlags, Timespec};

use crate::header::OpaqueAuth;
use crate::xdr::{DecodeError, Reader};

pub const AUTH_NONE: u32 = 0;
pub const AUTH_UNIX: u32 = 1;
pub const AUTH_GLUSTERFS: u32 = 5;
pub const AUTH_GLUSTERFS_V2: u32 = 390_039;
pub const AUTH_GLUSTERFS_V3: u32 = 390_040;

const V1_GROUPS: usize = 16;

/// The credential to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Callbacks from a server.
    None,
    /// Management connections, and client connections until the brick's DUMP has shown the v4 program.
    V2,
    /// SETVOLUME and every fop: carries the client's clock.
    V3,
}

impl Kind {
    /// Words that groups and lock owner share.
    const fn budget(self) -> usize {
        match self {
            Self::None => 0,
            Self::V2 => 95,
            Self::V3 => 91,
        }
    }

    const fn flavor(self) -> u32 {
        match self {
            Self::None => AUTH_NONE,
            Self::V2 => AUTH_GLUSTERFS_V2,
            Self::V3 => AUTH_GLUSTERFS_V3,
        }
    }
}

/// The lock owner does not fit in a credential; the caller gets E2BIG and nothing is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a lock owner of {0} bytes does not fit in a credential")]
pub struct OwnerTooLong(pub usize);

/// Appends flavour and credential. Groups beyond the limit are dropped silently, as GlusterFS does; an empty lock owner
/// becomes the pid (`rpc-clnt.c: xdr_serialize_glusterfs_auth`).
pub fn encode(kind: Kind, context: &Context, out: &mut BytesMut) -> Result<(), OwnerTooLong> {
    if kind == Kind::None {
        out.put_u64(0);
        return Ok(());
    }
    let pid_owner = context.pid.0.to_le_bytes();
    let owner = if context.lk_owner.is_empty() { &pid_owner[..] } else { &context.lk_owner.0[..] };
    let groups_max = kind.budget().checked_sub(owner.len()).ok_or(OwnerTooLong(owner.len()))?;
    let groups = &context.groups[..context.groups.len().min(groups_max)];

    out.put_u32(kind.flavor());
    let length_at = out.len();
    out.put_u32(0);
    out.put_i32(context.pid.0);
    out.put_u32(context.uid);
    out.put_u32(context.gid);
    if kind == Kind::V3 {
        let time = context.time.unwrap_or_default();
        out.put_u32(context.time_flags.0);
        out.put_u32(time.nsec);
        out.put_i64(time.sec);
    }
    out.put_u32(word(groups.len()));
    for group in groups {
        out.put_u32(*group);
    }
    out.put_u32(word(owner.len()));
    out.put_slice(owner);
    out.put_bytes(0, owner.len().next_multiple_of(4) - owner.len());
    let body_bytes = word(out.len() - length_at - 4);
    out[length_at..length_at + 4].copy_from_slice(&body_bytes.to_be_bytes());
    Ok(())
}

fn word(length: usize) -> u32 {
    u32::try_from(length).expect("a credential is at most 400 bytes long")
}

/// The caller. Unknown flavours count as AUTH_NONE (`rpcsvc-auth.c: rpcsvc_auth_get_handler`): root without identity.
pub fn decode(credential: &OpaqueAuth) -> Result<Context, DecodeError> {
    let mut reader = Reader::new(credential.body.clone());
    match credential.flavor {
        AUTH_UNIX => decode_unix(&mut reader),
        AUTH_GLUSTERFS => decode_v1(&mut reader),
        AUTH_GLUSTERFS_V2 => decode_with_budget(&mut reader, Kind::V2),
        AUTH_GLUSTERFS_V3 => decode_with_budget(&mut reader, Kind::V3),
        _ => Ok(Context::default()),
    }
}

fn decode_with_budget(reader: &mut Reader, kind: Kind) -> Result<Context, DecodeError> {
    let pid = Pid(reader.i32()?);
    let uid = reader.u32()?;
    let gid = reader.u32()?;
    let (time, time_flags) = if kind == Kind::V3 {
        let flags = TimeFlags(reader.u32()?);
        let nsec = reader.u32()?;
        let sec = reader.i64()?;
        ((sec != 0).then_some(Timespec { sec, nsec }), flags)
    } else {
        (None, TimeFlags::default())
    };
    let mut groups = decode_groups(reader)?;
    let owner = reader.opaque()?;
    // The real server cuts the groups first and then refuses an owner that does not fit beside them.
    let groups_max = kind.budget().checked_sub(owner.len()).ok_or(DecodeError::Length)?;
    groups.truncate(groups_max);
    Ok(Context {
        client: ClientId::default(),
        pid,
        uid,
        gid,
        groups: shared(&groups),
        lk_owner: LkOwner::from_slice(&owner),
        time,
        time_flags,
    })
}

fn decode_v1(reader: &mut Reader) -> Result<Context, DecodeError> {
    let owner = reader.u64()?;
    let pid = Pid(reader.i32()?);
    let uid = reader.u32()?;
    let gid = reader.u32()?;
    let count = reader.u32()? as usize;
    if count > V1_GROUPS {
        return Err(DecodeError::Length);
    }
    let mut groups = (0..V1_GROUPS).map(|_| reader.u32()).collect::<Result<Vec<_>, _>>()?;
    groups.truncate(count);
    Ok(Context { pid, uid, gid, groups: shared(&groups), lk_owner: LkOwner::from_u64(owner), ..Context::default() })
}

fn decode_unix(reader: &mut Reader) -> Result<Context, DecodeError> {
    reader.u32()?;
    reader.opaque()?;
    let uid = reader.u32()?;
    let gid = reader.u32()?;
    let groups = decode_groups(reader)?;
    Ok(Context { uid, gid, groups: shared(&groups), ..Context::default() })
}

fn decode_groups(reader: &mut Reader) -> Result<Vec<u32>, DecodeError> {
    let count = reader.u32()? as usize;
    if count > reader.remaining() / 4 {
        return Err(DecodeError::Length);
    }
    (0..count).map(|_| reader.u32()).collect()
}

/// Without an allocation for the common empty list.
fn shared(groups: &[u32]) -> Arc<[u32]> {
    if groups.is_empty() { Arc::default() } else { Arc::from(groups) }
}

/// A credential as [`encode`] writes it, for tests and tools that build headers piecewise.
pub fn to_opaque(kind: Kind, context: &Context) -> Result<OpaqueAuth, OwnerTooLong> {
    let mut out = BytesMut::new();
    encode(kind, context, &mut out)?;
    let body = Bytes::from(out).slice(8..);
    Ok(OpaqueAuth { flavor: kind.flavor(), body })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn context(groups: usize, owner: usize) -> Context {
        Context {
            pid: Pid(-6),
            uid: 1000,
            gid: 100,
            groups: (0..groups as u32).collect(),
            lk_owner: LkOwner::from_slice(&vec![7; owner]),
            time: Some(Timespec::new(1_700_000_000, 5)),
            time_flags: TimeFlags::CTIME,
            ..Context::default()
        }
    }

    #[test]
    fn an_eight_byte_owner_leaves_room_for_83_groups_in_v3_and_87_in_v2() {
        for (kind, room) in [(Kind::V3, 83), (Kind::V2, 87)] {
            let credential = to_opaque(kind, &context(200, 8)).unwrap();
            assert!(credential.body.len() <= crate::header::AUTH_BYTES_MAX);
            assert_eq!(decode(&credential).unwrap().groups.len(), room);
        }
    }

    #[test]
    fn an_owner_beyond_the_budget_is_refused_on_both_sides() {
        assert_eq!(to_opaque(Kind::V3, &context(0, 92)), Err(OwnerTooLong(92)));
        let mut long = to_opaque(Kind::V2, &context(0, 92)).unwrap();
        assert!(decode(&long).is_ok());
        let mut v3 = BytesMut::from(&long.body[..12]);
        v3.put_bytes(0, 16);
        v3.put_slice(&long.body[12..]);
        long = OpaqueAuth { flavor: AUTH_GLUSTERFS_V3, body: v3.freeze() };
        assert_eq!(decode(&long), Err(DecodeError::Length));
    }

    #[test]
    fn an_empty_owner_is_sent_as_the_pid() {
        let credential = to_opaque(Kind::V2, &Context { pid: Pid(513), ..Context::default() }).unwrap();
        assert_eq!(decode(&credential).unwrap().lk_owner, LkOwner::from_slice(&[1, 2, 0, 0]));
    }

    #[test]
    fn the_bytes_of_a_real_v3_credential_are_made() {
        // pid, uid, gid, flags, nsec, sec, no groups, owner of 4 bytes.
        let mut context = context(0, 0);
        context.lk_owner = LkOwner::from_slice(&[1, 0, 0, 0]);
        let credential = to_opaque(Kind::V3, &context).unwrap();
        assert_eq!(credential.body.len(), 4 * 5 + 8 + 4 + 8);
        assert_eq!(credential.body[..4], (-6i32).to_be_bytes());
    }

    #[test]
    fn unknown_flavours_are_root_without_identity_and_v1_is_read() {
        let unknown = OpaqueAuth { flavor: 99, body: Bytes::from_static(b"whatever") };
        assert_eq!(decode(&unknown), Ok(Context::default()));
        let mut v1 = BytesMut::new();
        v1.put_u64(0x0102);
        for value in [9u32, 1, 2, 1] {
            v1.put_u32(value);
        }
        v1.put_u32(44);
        v1.put_bytes(0, 60);
        let context = decode(&OpaqueAuth { flavor: AUTH_GLUSTERFS, body: v1.freeze() }).unwrap();
        assert_eq!((context.pid, context.uid, context.gid, &context.groups[..]), (Pid(9), 1, 2, &[44][..]));
        assert_eq!(context.lk_owner, LkOwner::from_u64(0x0102));
    }

    proptest! {
        #[test]
        fn contexts_that_fit_round_trip(
            pid in any::<i32>(), uid in any::<u32>(), gid in any::<u32>(), flags in any::<u32>(),
            sec in 1i64.., nsec in 0u32..1_000_000_000,
            groups in prop::collection::vec(any::<u32>(), 0..40), owner in prop::collection::vec(any::<u8>(), 1..50),
        ) {
            let context = Context {
                pid: Pid(pid), uid, gid, groups: groups.into(), lk_owner: LkOwner::from_slice(&owner),
                time: Some(Timespec::new(sec, nsec)), time_flags: TimeFlags(flags), client: ClientId(0),
            };
            prop_assert_eq!(decode(&to_opaque(Kind::V3, &context).unwrap()), Ok(context.clone()));
            let plain = Context { time: None, time_flags: TimeFlags(0), ..context };
            prop_assert_eq!(decode(&to_opaque(Kind::V2, &plain).unwrap()), Ok(plain));
        }

        #[test]
        fn any_bytes_are_safe(flavor in 0usize..5, body in prop::collection::vec(any::<u8>(), 0..400)) {
            let flavor = [AUTH_NONE, AUTH_UNIX, AUTH_GLUSTERFS, AUTH_GLUSTERFS_V2, AUTH_GLUSTERFS_V3][flavor];
            let _ = decode(&OpaqueAuth { flavor, body: body.into() });
        }
    }
}
