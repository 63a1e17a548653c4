//! What a fop changes and looks at (flags as `xlators/features/upcall/src/upcall.c` sends them).

use mortar_types::fop::setattr_valid;
use mortar_types::{Gfid, Iatt, Reply, Request};

use super::flags::{MODE, NLINK, OWN, PARENT_TIMES, PERM, RENAME, SIZE, TIMES, XATTR, XATTR_REMOVED};

/// A change of one inode.
pub(super) struct Effect {
    pub(super) gfid: Gfid,
    pub(super) flags: u32,
    /// The new attributes, empty when unknown.
    pub(super) stat: Iatt,
}

/// All effects of one fop; attributes are known only from its reply.
#[derive(Default)]
pub(super) struct Effects {
    pub(super) changes: Vec<Effect>,
    pub(super) seen: Vec<Gfid>,
    /// The renamed or linked object is known from the reply.
    object_flags: u32,
}

impl Effects {
    pub(super) fn of(request: &Request, victim: Option<Gfid>) -> Self {
        use Request as R;
        let mut effects = Self::default();
        match request {
            R::Write(r) => effects.change(r.gfid, SIZE | TIMES),
            R::Truncate(r) => effects.change(r.gfid, SIZE | TIMES),
            R::Ftruncate(r) => effects.change(r.gfid, SIZE | TIMES),
            R::Fallocate(r) => effects.change(r.gfid, SIZE | TIMES),
            R::Discard(r) => effects.change(r.gfid, SIZE | TIMES),
            R::Zerofill(r) => effects.change(r.gfid, SIZE | TIMES),
            R::CopyFileRange(r) => effects.change(r.gfid_out, SIZE | TIMES),
            R::Setattr(r) => effects.change(r.gfid, attribute_flags(r.valid)),
            R::Fsetattr(r) => effects.change(r.gfid, attribute_flags(r.valid)),
            R::Setxattr(r) => effects.change(r.gfid, XATTR | TIMES),
            R::Fsetxattr(r) => effects.change(r.gfid, XATTR | TIMES),
            R::Removexattr(r) => effects.change(r.gfid, XATTR_REMOVED | TIMES),
            R::Fremovexattr(r) => effects.change(r.gfid, XATTR_REMOVED | TIMES),
            R::Mknod(r) => effects.change(r.parent, PARENT_TIMES | TIMES),
            R::Mkdir(r) => effects.change(r.parent, PARENT_TIMES | TIMES),
            R::Symlink(r) => effects.change(r.parent, PARENT_TIMES | TIMES),
            R::Create(r) => effects.change(r.parent, PARENT_TIMES | TIMES),
            R::Put(r) => effects.change(r.parent, PARENT_TIMES | TIMES),
            R::Unlink(r) => effects.removal(r.parent, victim),
            R::Rmdir(r) => effects.removal(r.parent, victim),
            R::Link(r) => {
                effects.change(r.new_parent, PARENT_TIMES | TIMES);
                effects.change(r.gfid, NLINK | TIMES);
            }
            R::Rename(r) => {
                effects.change(r.old_parent, PARENT_TIMES | TIMES);
                if r.new_parent != r.old_parent {
                    effects.change(r.new_parent, PARENT_TIMES | TIMES);
                }
                if let Some(victim) = victim {
                    effects.change(victim, NLINK | TIMES);
                }
                effects.object_flags = RENAME | TIMES;
            }
            other => effects.seen.extend(inode_of(other)),
        }
        effects
    }

    /// Fills in what the reply tells.
    pub(super) fn completed(mut self, reply: &Reply) -> Self {
        match reply {
            Reply::ChangeReply(reply) => self.fill(reply.post),
            Reply::WriteReply(reply) => self.fill(reply.post),
            Reply::CopyReply(reply) => self.fill(reply.post),
            Reply::LookupReply(reply) => self.seen.push(reply.stat.gfid),
            Reply::CreateReply(reply) => {
                self.fill(reply.postparent);
                self.seen.push(reply.stat.gfid);
            }
            Reply::EntryReply(reply) => {
                self.fill(reply.postparent);
                self.fill(reply.stat);
                self.seen.push(reply.stat.gfid);
            }
            Reply::RenameReply(reply) => {
                self.fill(reply.postoldparent);
                self.fill(reply.postnewparent);
                let flags = self.object_flags;
                self.changes.push(Effect { gfid: reply.stat.gfid, flags, stat: reply.stat });
            }
            Reply::ReaddirpReply(reply) => {
                let listed = reply.entries.iter().filter(|entry| !matches!(&entry.entry.name[..], b"." | b".."));
                self.seen.extend(listed.map(|entry| entry.stat.gfid).filter(|gfid| !gfid.is_null()));
            }
            _ => {}
        }
        // Who changes an inode has its attributes from the reply and may keep them.
        let changed: Vec<Gfid> = self.changes.iter().map(|change| change.gfid).collect();
        self.seen.extend(changed);
        self.seen.retain(|gfid| !gfid.is_null());
        self
    }

    fn change(&mut self, gfid: Gfid, flags: u32) {
        self.changes.push(Effect { gfid, flags, stat: Iatt::default() });
    }

    fn removal(&mut self, parent: Gfid, victim: Option<Gfid>) {
        self.change(parent, PARENT_TIMES | TIMES);
        if let Some(victim) = victim {
            self.change(victim, NLINK | TIMES);
        }
    }

    fn fill(&mut self, stat: Iatt) {
        for change in self.changes.iter_mut().filter(|change| change.gfid == stat.gfid) {
            change.stat = stat;
        }
    }
}

fn attribute_flags(valid: i32) -> u32 {
    let mut flags = TIMES;
    if valid & setattr_valid::MODE != 0 {
        flags |= MODE | PERM;
    }
    if valid & (setattr_valid::UID | setattr_valid::GID) != 0 {
        flags |= OWN;
    }
    if valid & setattr_valid::SIZE != 0 {
        flags |= SIZE;
    }
    flags
}

/// The inode that a fop without changes looks at.
fn inode_of(request: &Request) -> Option<Gfid> {
    use Request as R;
    Some(match request {
        R::Stat(r) => r.gfid,
        R::Fstat(r) => r.gfid,
        R::Readlink(r) => r.gfid,
        R::Open(r) => r.gfid,
        R::Opendir(r) => r.gfid,
        R::Read(r) => r.gfid,
        R::Readdir(r) => r.gfid,
        R::Readdirp(r) => r.gfid,
        R::Getxattr(r) => r.gfid,
        R::Fgetxattr(r) => r.gfid,
        R::Seek(r) => r.gfid,
        _ => return None,
    })
}
