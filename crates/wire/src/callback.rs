//! Calls that a brick or the pool daemon makes to its clients (program 52743234); nobody answers them.
//!
//! Sources: `xlators/protocol/server/src/server.c: server_process_event_upcall`,
//! `xlators/protocol/client/src/client-callback.c`, `rpc/xdr/src/glusterfs3-xdr.x`.

use bytes::Bytes;

use mortar_types::fop::{EntrylkType, Flock};
use mortar_types::{Dict, Gfid, Iatt, Upcall};

use crate::dict_v3::DictV3;
use crate::field::{Field, fields};
use crate::iatt::{put_old, take_old};
use crate::programs::callback as procedure;
use crate::xdr::{DecodeError, Reader, Writer};

/// `GF_UPCALL_CACHE_INVALIDATION`, the only event type that travels in a cache invalidation.
const EVENT_CACHE_INVALIDATION: u32 = 1;

/// Seconds for which an invalidated attribute might be kept; the default of `features.cache-invalidation-timeout`.
const EXPIRE_SECONDS: u32 = 60;

/// A call from the server side.
#[derive(Clone, PartialEq, Debug)]
pub enum Callback {
    /// The volfile may have changed: get it again.
    FetchSpec,
    InodeFlush,
    /// Not looked at by clients.
    EventNotify(Bytes),
    GetSnaps,
    CacheInvalidation(Box<CacheInvalidation>),
    /// The brick behind the connection serves, or serves no more.
    ChildUp,
    ChildDown,
    RecallLease(RecallLease),
    /// The libgfapi client with this process id writes its state down.
    Statedump {
        pid: u32,
    },
    InodelkContention(InodelkContention),
    EntrylkContention(EntrylkContention),
}

/// Somebody else changed an inode (`gfs3_cbk_cache_invalidation_req`). Attributes in their old form.
#[derive(Clone, PartialEq, Debug)]
pub struct CacheInvalidation {
    pub gfid: Gfid,
    pub event_type: u32,
    /// `UP_*` bits (`libglusterfs/src/glusterfs/upcall-utils.h`).
    pub flags: u32,
    /// Seconds.
    pub expire_time_attr: u32,
    pub stat: Iatt,
    pub parent: Iatt,
    pub old_parent: Iatt,
    pub xdata: DictV3,
}

/// A lease must be given back (`gfs3_recall_lease_req`).
#[derive(Clone, PartialEq, Debug)]
pub struct RecallLease {
    pub gfid: Gfid,
    pub kind: u32,
    pub id: [u8; 16],
    pub xdata: DictV3,
}

/// Somebody waits for an inodelk (`gfs4_inodelk_contention_req`).
#[derive(Clone, PartialEq, Debug)]
pub struct InodelkContention {
    pub gfid: Gfid,
    pub flock: Flock,
    pub pid: u32,
    pub domain: Bytes,
    pub xdata: DictV3,
}

/// Somebody waits for an entrylk (`gfs4_entrylk_contention_req`). An empty name is the whole directory.
#[derive(Clone, PartialEq, Debug)]
pub struct EntrylkContention {
    pub gfid: Gfid,
    pub kind: EntrylkType,
    pub pid: u32,
    pub name: Bytes,
    pub domain: Bytes,
    pub xdata: DictV3,
}

fields! {
    RecallLease { gfid, kind, id, xdata }
    InodelkContention { gfid, flock, pid, domain, xdata }
    EntrylkContention { gfid, kind, pid, name, domain, xdata }
}

/// The gfid travels as text.
impl Field for CacheInvalidation {
    fn put(&self, out: &mut Writer) {
        out.opaque(self.gfid.to_string().as_bytes());
        for value in [self.event_type, self.flags, self.expire_time_attr] {
            out.u32(value);
        }
        for iatt in [&self.stat, &self.parent, &self.old_parent] {
            put_old(iatt, out);
        }
        self.xdata.put(out);
    }

    fn take(from: &mut Reader) -> Result<Self, DecodeError> {
        let gfid = from.opaque_with(|text| {
            let text = std::str::from_utf8(text).map_err(|_| DecodeError::Text("gfid"))?;
            text.parse().map_err(|_| DecodeError::Text("gfid"))
        })?;
        Ok(Self {
            gfid,
            event_type: from.u32()?,
            flags: from.u32()?,
            expire_time_attr: from.u32()?,
            stat: take_old(from)?,
            parent: take_old(from)?,
            old_parent: take_old(from)?,
            xdata: Field::take(from)?,
        })
    }
}

impl Callback {
    pub const fn procedure(&self) -> u32 {
        match self {
            Self::FetchSpec => procedure::FETCHSPEC,
            Self::InodeFlush => procedure::INO_FLUSH,
            Self::EventNotify(_) => procedure::EVENT_NOTIFY,
            Self::GetSnaps => procedure::GET_SNAPS,
            Self::CacheInvalidation(_) => procedure::CACHE_INVALIDATION,
            Self::ChildUp => procedure::CHILD_UP,
            Self::ChildDown => procedure::CHILD_DOWN,
            Self::RecallLease(_) => procedure::RECALL_LEASE,
            Self::Statedump { .. } => procedure::STATEDUMP,
            Self::InodelkContention(_) => procedure::INODELK_CONTENTION,
            Self::EntrylkContention(_) => procedure::ENTRYLK_CONTENTION,
        }
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut Writer) {
        match self {
            Self::FetchSpec | Self::InodeFlush | Self::GetSnaps | Self::ChildUp | Self::ChildDown => {}
            Self::EventNotify(body) => out.raw(body),
            Self::CacheInvalidation(body) => body.put(out),
            Self::RecallLease(body) => body.put(out),
            Self::Statedump { pid } => out.u32(*pid),
            Self::InodelkContention(body) => body.put(out),
            Self::EntrylkContention(body) => body.put(out),
        }
    }

    /// Decodes the body of a procedure. An unknown procedure is to be ignored by the caller.
    pub fn decode(procedure: u32, body: Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::new(body);
        let callback = match procedure {
            procedure::FETCHSPEC => Self::FetchSpec,
            procedure::INO_FLUSH => Self::InodeFlush,
            procedure::EVENT_NOTIFY => return Ok(Self::EventNotify(from.into_rest())),
            procedure::GET_SNAPS => Self::GetSnaps,
            procedure::CACHE_INVALIDATION => Self::CacheInvalidation(Box::new(Field::take(&mut from)?)),
            procedure::CHILD_UP => Self::ChildUp,
            procedure::CHILD_DOWN => Self::ChildDown,
            procedure::RECALL_LEASE => Self::RecallLease(Field::take(&mut from)?),
            procedure::STATEDUMP => Self::Statedump { pid: from.u32()? },
            procedure::INODELK_CONTENTION => Self::InodelkContention(Field::take(&mut from)?),
            procedure::ENTRYLK_CONTENTION => Self::EntrylkContention(Field::take(&mut from)?),
            other => return Err(DecodeError::Unknown { field: "callback procedure", value: other.into() }),
        };
        from.finish()?;
        Ok(callback)
    }

    /// What a client's layers are told; `None` for calls that concern the process (volfile, statedump).
    pub fn into_upcall(self) -> Option<Upcall> {
        Some(match self {
            Self::ChildUp => Upcall::Up,
            Self::ChildDown => Upcall::Down,
            Self::CacheInvalidation(body) => Upcall::CacheInvalidation {
                gfid: body.gfid,
                flags: body.flags,
                stat: body.stat,
                parent: body.parent,
                old_parent: body.old_parent,
                xdata: body.xdata.0,
            },
            Self::RecallLease(body) => Upcall::RecallLease { gfid: body.gfid, kind: body.kind, id: body.id },
            Self::InodelkContention(body) => {
                Upcall::InodelkContention { gfid: body.gfid, flock: body.flock, domain: body.domain }
            }
            Self::EntrylkContention(body) => Upcall::EntrylkContention {
                gfid: body.gfid,
                kind: body.kind,
                name: (!body.name.is_empty()).then_some(body.name),
                domain: body.domain,
            },
            Self::FetchSpec | Self::InodeFlush | Self::EventNotify(_) | Self::GetSnaps | Self::Statedump { .. } => {
                return None;
            }
        })
    }
}

/// What a brick sends. Extra data are an empty dict, as GlusterFS's bricks have it.
impl From<Upcall> for Callback {
    fn from(upcall: Upcall) -> Self {
        let no_xdata = || DictV3(Some(Dict::new()));
        match upcall {
            Upcall::Up => Self::ChildUp,
            Upcall::Down => Self::ChildDown,
            Upcall::InodelkContention { gfid, flock, domain } => {
                let pid = flock.pid;
                Self::InodelkContention(InodelkContention { gfid, flock, pid, domain, xdata: no_xdata() })
            }
            Upcall::EntrylkContention { gfid, kind, name, domain } => Self::EntrylkContention(EntrylkContention {
                gfid,
                kind,
                pid: 0,
                name: name.unwrap_or_default(),
                domain,
                xdata: no_xdata(),
            }),
            Upcall::CacheInvalidation { gfid, flags, stat, parent, old_parent, xdata } => {
                Self::CacheInvalidation(Box::new(CacheInvalidation {
                    gfid,
                    event_type: EVENT_CACHE_INVALIDATION,
                    flags,
                    expire_time_attr: EXPIRE_SECONDS,
                    stat,
                    parent,
                    old_parent,
                    xdata: DictV3(xdata),
                }))
            }
            Upcall::RecallLease { gfid, kind, id } => {
                Self::RecallLease(RecallLease { gfid, kind, id, xdata: no_xdata() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mortar_types::fop::LockType;
    use mortar_types::{LkOwner, Timespec};

    use super::*;

    fn flock() -> Flock {
        Flock { kind: LockType::Write, whence: 0, start: 1, len: 2, pid: 3, owner: LkOwner::from_u64(4) }
    }

    fn round_trip(callback: &Callback) -> usize {
        let mut out = Writer::new();
        callback.encode(&mut out);
        let length = out.len();
        assert_eq!(&Callback::decode(callback.procedure(), out.into_inner().freeze()).unwrap(), callback);
        length
    }

    #[test]
    fn calls_without_a_body_are_empty() {
        for callback in [Callback::FetchSpec, Callback::ChildUp, Callback::ChildDown, Callback::GetSnaps] {
            assert_eq!(round_trip(&callback), 0);
        }
        assert_eq!(round_trip(&Callback::Statedump { pid: 7 }), 4);
    }

    #[test]
    fn contention_comes_back_as_the_upcall_it_was() {
        let gfid = Gfid::ROOT;
        let domain = Bytes::from_static(b"imap0-replicate-0");
        let callback = Callback::from(Upcall::InodelkContention { gfid, flock: flock(), domain: domain.clone() });
        round_trip(&callback);
        assert!(
            matches!(callback.into_upcall(), Some(Upcall::InodelkContention { flock: back, .. }) if back == flock())
        );

        let kind = EntrylkType::Write;
        let callback = Callback::from(Upcall::EntrylkContention { gfid, kind, name: None, domain });
        round_trip(&callback);
        assert!(matches!(callback.into_upcall(), Some(Upcall::EntrylkContention { name: None, .. })));
    }

    #[test]
    fn an_invalidation_names_the_gfid_as_text() {
        let stat =
            Iatt { gfid: Gfid::ROOT, flags: 0x17ff, mtime: Timespec::new(1, 2), mode: 0o40755, ..Iatt::default() };
        let callback = Callback::from(Upcall::CacheInvalidation {
            gfid: Gfid::ROOT,
            flags: 0x10,
            stat,
            parent: Iatt::default(),
            old_parent: Iatt::default(),
            xdata: None,
        });
        let mut out = Writer::new();
        callback.encode(&mut out);
        assert_eq!(out.into_inner()[4..40], b"00000000-0000-0000-0000-000000000001"[..]);
        round_trip(&callback);
    }

    #[test]
    fn a_recalled_lease_comes_back() {
        let upcall = Upcall::RecallLease { gfid: Gfid::ROOT, kind: 2, id: [9; 16] };
        let callback = Callback::from(upcall);
        round_trip(&callback);
        assert!(matches!(callback.into_upcall(), Some(Upcall::RecallLease { kind: 2, id: [9, ..], .. })));
    }

    #[test]
    fn an_unknown_procedure_is_an_error() {
        assert!(matches!(Callback::decode(12, Bytes::new()), Err(DecodeError::Unknown { value: 12, .. })));
    }
}
