//! What a fop changes and looks at (flags as `xlators/features/upcall/src/upcall.c` sends them).

use mortar_types::fop::setattr_valid;
use mortar_types::{Dict, Gfid, Iatt, Reply, Request, Value};

use super::flags::{MODE, NLINK, OWN, PARENT_TIMES, PERM, RENAME, SIZE, TIMES, XATTR, XATTR_REMOVED};

/// A change of one inode.
pub(super) struct Effect {
    pub(super) gfid: Gfid,
    pub(super) flags: u32,
    /// The new attributes, empty when unknown: then the viewer drops what it has.
    pub(super) stat: Iatt,
    /// Extended attributes that were set, or, with any value, removed.
    pub(super) xattrs: Option<Dict>,
}

impl Effect {
    pub(super) fn new(gfid: Gfid, flags: u32) -> Self {
        Self { gfid, flags, stat: Iatt::default(), xattrs: None }
    }
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
            R::Setxattr(r) => effects.xattrs(r.gfid, XATTR, r.dict.clone()),
            R::Fsetxattr(r) => effects.xattrs(r.gfid, XATTR, r.dict.clone()),
            R::Removexattr(r) => effects.xattrs(r.gfid, XATTR_REMOVED, removed(&r.name, r.xdata.as_ref())),
            R::Fremovexattr(r) => effects.xattrs(r.gfid, XATTR_REMOVED, removed(&r.name, r.xdata.as_ref())),
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
                self.changes.push(Effect { stat: reply.stat, ..Effect::new(reply.stat.gfid, flags) });
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
        self.changes.push(Effect::new(gfid, flags));
    }

    fn xattrs(&mut self, gfid: Gfid, flags: u32, xattrs: Option<Dict>) {
        self.changes.push(Effect { xattrs, ..Effect::new(gfid, flags | TIMES) });
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

/// The names that a removal names: its own, or with an empty one all of xdata.
fn removed(name: &[u8], xdata: Option<&Dict>) -> Option<Dict> {
    if name.is_empty() {
        return xdata.cloned();
    }
    Some(Dict::new().with(String::from_utf8_lossy(name).into_owned(), Value::str("")))
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mortar_types::Fd;
    use mortar_types::fop::{AckReply, ChangeReply, Removexattr, Unlink, Write, WriteReply};

    use super::*;

    const FILE: Gfid = Gfid([7; 16]);
    const DIRECTORY: Gfid = Gfid([8; 16]);

    fn stat(gfid: Gfid) -> Iatt {
        Iatt { gfid, size: 5, ..Iatt::default() }
    }

    fn summary(effects: &Effects) -> Vec<(Gfid, u32, u64)> {
        effects.changes.iter().map(|change| (change.gfid, change.flags, change.stat.size)).collect()
    }

    #[test]
    fn a_write_changes_size_and_times_and_its_caller_has_seen_them() {
        let data = Bytes::from_static(b"hello");
        let request = Write { gfid: FILE, fd: Fd(1), offset: 0, flags: 0, data, xdata: None }.into();
        let reply = WriteReply { written: 5, pre: stat(FILE), post: stat(FILE), xdata: None }.into();
        let effects = Effects::of(&request, None).completed(&reply);
        assert_eq!(summary(&effects), [(FILE, SIZE | TIMES, 5)]);
        assert_eq!(effects.seen, [FILE]);
    }

    #[test]
    fn an_unlink_changes_the_parent_and_the_victim() {
        let name = Bytes::from_static(b"a");
        let request = Unlink { parent: DIRECTORY, name, flags: 0, xdata: None }.into();
        let reply = ChangeReply { pre: stat(DIRECTORY), post: stat(DIRECTORY), xdata: None }.into();
        let effects = Effects::of(&request, Some(FILE)).completed(&reply);
        assert_eq!(summary(&effects), [(DIRECTORY, PARENT_TIMES | TIMES, 5), (FILE, NLINK | TIMES, 0)]);
    }

    #[test]
    fn removed_xattrs_are_named() {
        let request = Removexattr { gfid: FILE, name: Bytes::from_static(b"user.a"), xdata: None }.into();
        let effects = Effects::of(&request, None).completed(&AckReply { xdata: None }.into());
        assert!(effects.changes[0].xattrs.as_ref().is_some_and(|xattrs| xattrs.contains("user.a")));
    }
}
