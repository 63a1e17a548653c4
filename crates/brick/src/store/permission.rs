//! Whether a caller may: mode bits and POSIX ACLs, as the kernel would judge.
//!
//! The brick's process is root, so the kernel does not judge for us. GlusterFS does this in its access-control translator
//! (`xlators/system/posix-acl`). FUSE clients have been checked by their own kernel, libgfapi's (Samba, qemu, NFS) have not.
//! Root and internal callers may everything.

use mortar_sys::{Loc, Result, xattr};
use mortar_types::fop::{Access, AckReply};
use mortar_types::keys::XATTR_ACL_ACCESS;
use mortar_types::{Context, Errno, Outcome};
use rustix::fs::Stat;

use super::brick::Brick;
use super::open_flags::{O_ACCMODE, O_RDWR, O_TRUNC, O_WRONLY};
use super::resolve::{is_dir, is_symlink};

const READ: u32 = 4;
const WRITE: u32 = 2;
const EXECUTE: u32 = 1;
const STICKY: u32 = 0o1000;

/// Permission bits wanted of one object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Want(u32);

impl Want {
    /// Making and removing names in a directory.
    pub(crate) const CHANGE_ENTRIES: Self = Self(WRITE | EXECUTE);
    /// Looking up a name in a directory.
    pub(crate) const SEARCH: Self = Self(EXECUTE);
    pub(crate) const READ: Self = Self(READ);
    pub(crate) const WRITE: Self = Self(WRITE);

    pub(crate) const fn of_open(flags: u32) -> Self {
        let bits = match flags & O_ACCMODE {
            O_WRONLY => WRITE,
            O_RDWR => READ | WRITE,
            _ => READ,
        };
        Self(if flags & O_TRUNC != 0 { bits | WRITE } else { bits })
    }
}

/// Whether the caller is above permissions.
pub(crate) fn is_privileged(ctx: &Context) -> bool {
    ctx.uid == 0 || ctx.pid.is_internal()
}

impl Brick {
    /// EACCES when the caller may not.
    pub(crate) fn permit(&self, ctx: &Context, loc: Loc<'_>, stat: &Stat, want: Want) -> Result<()> {
        if is_privileged(ctx) || is_symlink(stat) {
            return Ok(());
        }
        let acl = match xattr::get(loc, XATTR_ACL_ACCESS.as_bytes()) {
            Ok(acl) => acl,
            Err(Errno::EOPNOTSUPP) => None,
            Err(error) => return Err(error),
        };
        let granted = match acl.as_deref().and_then(Acl::parse) {
            Some(acl) => acl.grants(ctx, stat, want.0),
            None => mode_grants(ctx, stat, want.0),
        };
        if granted { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// EPERM unless the caller owns the object.
    pub(crate) fn permit_owner(&self, ctx: &Context, stat: &Stat) -> Result<()> {
        if is_privileged(ctx) || stat.st_uid == ctx.uid { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// Removing or replacing a name in a sticky directory is for the owner of either (`S_ISVTX`).
    pub(crate) fn permit_removal(&self, ctx: &Context, parent: &Stat, victim: &Stat) -> Result<()> {
        let bound = parent.st_mode & STICKY != 0 && !is_privileged(ctx);
        if bound && ctx.uid != parent.st_uid && ctx.uid != victim.st_uid { Err(Errno::EACCES) } else { Ok(()) }
    }

    pub(crate) fn access(&self, ctx: &Context, request: &Access) -> Outcome<AckReply> {
        let node = self.node(request.gfid)?;
        let loc = node.loc(self);
        let stat = loc.stat()?;
        let want = request.mask & 7;
        if ctx.uid == 0 && want & EXECUTE != 0 && !is_dir(&stat) && stat.st_mode & 0o111 == 0 {
            // The one thing that root may not: run what nobody may run.
            return Err(Errno::EACCES.into());
        }
        self.permit(ctx, loc, &stat, Want(want))?;
        Ok(AckReply { xdata: None })
    }
}

fn in_group(ctx: &Context, gid: u32) -> bool {
    ctx.gid == gid || ctx.groups.contains(&gid)
}

fn mode_grants(ctx: &Context, stat: &Stat, want: u32) -> bool {
    let shift = if ctx.uid == stat.st_uid {
        6
    } else if in_group(ctx, stat.st_gid) {
        3
    } else {
        0
    };
    (stat.st_mode >> shift) & want == want
}

/// `system.posix_acl_access`: u32 version 2, then entries of u16 tag, u16 permissions, u32 id, little-endian
/// (Linux `posix_acl_xattr.h`).
struct Acl<'a>(&'a [u8]);

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

impl<'a> Acl<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let entries = bytes.strip_prefix(&[2, 0, 0, 0])?;
        (entries.len() % 8 == 0).then_some(Self(entries))
    }

    fn entries(&self) -> impl Iterator<Item = (u16, u32, u32)> {
        self.0.chunks_exact(8).map(|entry| {
            let tag = u16::from_le_bytes([entry[0], entry[1]]);
            let bits = u32::from(u16::from_le_bytes([entry[2], entry[3]]));
            (tag, bits, u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]))
        })
    }

    /// The access check algorithm of acl(5).
    fn grants(&self, ctx: &Context, stat: &Stat, want: u32) -> bool {
        let mask = self.entries().find(|(tag, ..)| *tag == MASK).map_or(7, |(_, bits, _)| bits);
        let mut group_matched = false;
        let mut group_granted = false;
        let mut other = 0;
        for (tag, bits, id) in self.entries() {
            match tag {
                USER_OBJ if ctx.uid == stat.st_uid => return bits & want == want,
                USER if ctx.uid == id => return bits & mask & want == want,
                GROUP_OBJ if in_group(ctx, stat.st_gid) => {
                    group_matched = true;
                    group_granted |= bits & mask & want == want;
                }
                GROUP if in_group(ctx, id) => {
                    group_matched = true;
                    group_granted |= bits & mask & want == want;
                }
                OTHER => other = bits,
                _ => {}
            }
        }
        if group_matched { group_granted } else { other & want == want }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat_of(uid: u32, gid: u32) -> Stat {
        let dir = std::fs::File::open(".").expect("it is there");
        let mut stat = rustix::fs::fstat(&dir).expect("it is open");
        stat.st_uid = uid;
        stat.st_gid = gid;
        stat
    }

    fn caller(uid: u32, gid: u32, groups: &[u32]) -> Context {
        Context { uid, gid, groups: groups.into(), ..Context::default() }
    }

    #[test]
    fn the_first_matching_class_decides() {
        let mut stat = stat_of(10, 20);
        stat.st_mode = 0o040_057;
        assert!(!mode_grants(&caller(10, 20, &[]), &stat, READ), "the owner has no bits, though others have");
        assert!(mode_grants(&caller(11, 99, &[20]), &stat, READ | EXECUTE));
        assert!(!mode_grants(&caller(11, 20, &[]), &stat, WRITE));
        assert!(mode_grants(&caller(12, 99, &[]), &stat, 7));
    }

    #[test]
    fn an_acl_names_users_and_groups_within_its_mask() {
        let entry =
            |tag: u16, bits: u16, id: u32| [&tag.to_le_bytes()[..], &bits.to_le_bytes(), &id.to_le_bytes()].concat();
        let bytes = [
            vec![2, 0, 0, 0],
            entry(USER_OBJ, 7, u32::MAX),
            entry(USER, 7, 30),
            entry(GROUP_OBJ, 0, u32::MAX),
            entry(GROUP, 6, 40),
            entry(MASK, 5, u32::MAX),
            entry(OTHER, 0, u32::MAX),
        ]
        .concat();
        let acl = Acl::parse(&bytes).expect("well formed");
        let stat = stat_of(10, 20);
        assert!(acl.grants(&caller(10, 1, &[]), &stat, 7), "the mask is not for the owner");
        assert!(acl.grants(&caller(30, 1, &[]), &stat, READ | EXECUTE));
        assert!(!acl.grants(&caller(30, 1, &[]), &stat, WRITE));
        assert!(acl.grants(&caller(31, 20, &[40]), &stat, READ), "any matching group may grant");
        assert!(!acl.grants(&caller(31, 20, &[]), &stat, READ));
        assert!(Acl::parse(&bytes[..7]).is_none());
    }
}
