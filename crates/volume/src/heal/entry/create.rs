//! Bringing a name to a stale child: by linking or moving the inode if the child has it, by making it otherwise.

use bytes::Bytes;
use mortar_logic::heal::Children;
use mortar_logic::replicate::changelog::Slot;
use mortar_types::fop::{Link, Lookup, Mkdir, Mknod, Readlink, Rename, Symlink};
use mortar_types::{Dict, Errno, FileType, FopKind, Gfid, Iatt, SubvolId, Value, keys};

use crate::heal::entry::delete::{internal, is_parked, parked_name, unpark};
use crate::heal::set::Session;
use crate::heal::{Error, path};

/// What became of a name's creation.
#[derive(Default)]
pub(super) struct Created {
    /// The inode, if something was done: its content and attributes may need healing next.
    pub(super) gfid: Option<Gfid>,
    pub(super) failures: Vec<(SubvolId, Error)>,
}

/// Makes `dir/name` on `sinks` as it is on `from`, and gives the inode its gfid on `nameless` children. `witnesses` are
/// told first that the new inode is empty there.
pub(super) async fn create(
    session: &Session<'_>,
    dir: Gfid,
    name: &Bytes,
    from: SubvolId,
    sinks: Children,
    nameless: Children,
    witnesses: Children,
) -> Result<Created, Error> {
    let mut created = Created::default();
    if sinks.is_empty() && nameless.is_empty() {
        return Ok(created);
    }
    let request = Lookup { gfid: Gfid::NULL, parent: dir, flags: 0, name: name.clone(), xdata: None };
    let stat = session.must(from, request).await?.stat;
    let maker = Maker { session, dir, name, from, stat, witnesses };
    for child in nameless.iter() {
        created.note(child, maker.assign(child).await, stat.gfid);
    }
    for sink in sinks.iter() {
        created.note(sink, maker.make(sink).await, stat.gfid);
    }
    Ok(created)
}

impl Created {
    fn note(&mut self, child: SubvolId, result: Result<(), Error>, gfid: Gfid) {
        match result {
            Ok(()) => self.gfid = Some(gfid),
            Err(error) => self.failures.push((child, error)),
        }
    }
}

/// One name and what it is on the good copy.
struct Maker<'a> {
    session: &'a Session<'a>,
    dir: Gfid,
    name: &'a Bytes,
    from: SubvolId,
    stat: Iatt,
    witnesses: Children,
}

impl Maker<'_> {
    async fn make(&self, sink: SubvolId) -> Result<(), Error> {
        let gfid = self.stat.gfid;
        let Some(kind) = self.stat.file_type() else { return Err(Error::fop(self.from, FopKind::Lookup, Errno::EIO)) };
        match self.session.exists(sink, gfid).await? {
            Some(theirs) if theirs.file_type() != Some(kind) => {
                Err(Error::SplitBrain(crate::heal::error::SplitBrain::Type))
            }
            Some(theirs) => {
                // First: when the name is there, no mark tells any more that this was left to do.
                self.session.raise_ctime(sink, &theirs, self.stat.ctime).await?;
                if kind == FileType::Directory { self.move_here(sink).await } else { self.link(sink).await }
            }
            None => {
                // Before the inode exists: from here on a crash leaves an inode that the index knows to be empty.
                let slots: &[Slot] = match kind {
                    FileType::Regular => &[Slot::Metadata, Slot::Data],
                    FileType::Directory => &[Slot::Metadata, Slot::Entry, Slot::Data],
                    _ => &[Slot::Metadata],
                };
                self.session.accuse(gfid, self.witnesses, Children::only(sink), slots).await?;
                self.make_new(sink, kind).await
            }
        }
    }

    /// The child has the inode under another name, or parked.
    async fn link(&self, sink: SubvolId) -> Result<(), Error> {
        let gfid = self.stat.gfid;
        let request = Link { gfid, new_parent: self.dir, new_name: self.name.clone(), xdata: Some(internal()) };
        self.session.must(sink, request).await?;
        unpark(self.session, gfid, sink).await
    }

    /// The child has the directory elsewhere: parked, or where it was before it was moved.
    async fn move_here(&self, sink: SubvolId) -> Result<(), Error> {
        let gfid = self.stat.gfid;
        let (old_parent, old_name) = if is_parked(self.session, sink, gfid).await? {
            (self.session.set.parking_gfid(), parked_name(gfid))
        } else {
            match path::place(self.session, sink, gfid).await? {
                Some(place) => place,
                None => return Err(Error::WaitsForMove(sink)),
            }
        };
        let request =
            Rename { old_parent, new_parent: self.dir, old_name, new_name: self.name.clone(), xdata: Some(internal()) };
        match self.session.call(sink, request).await {
            Ok(_) => Ok(()),
            // Into its own subtree: the directories between move first.
            Err(failure) if failure.errno == Errno::EINVAL => Err(Error::WaitsForMove(sink)),
            Err(failure) => Err(Error::fop(sink, FopKind::Rename, failure.errno)),
        }
    }

    async fn make_new(&self, sink: SubvolId, kind: FileType) -> Result<(), Error> {
        let (parent, name, mode) = (self.dir, self.name.clone(), self.stat.mode);
        let xdata = Some(self.with_gfid());
        match kind {
            FileType::Directory => {
                let mode = mode & 0o7777;
                self.session.must(sink, Mkdir { parent, mode, umask: 0, name, xdata }).await?;
            }
            FileType::Symlink => {
                let request = Readlink { gfid: self.stat.gfid, size: 4096, xdata: None };
                let target = self.session.must(self.from, request).await?.target;
                self.session.must(sink, Symlink { parent, name, umask: 0, target, xdata }).await?;
            }
            _ => {
                let dev = encode_dev(self.stat.rdev);
                self.session.must(sink, Mknod { parent, dev, mode, umask: 0, name, xdata }).await?;
            }
        }
        Ok(())
    }

    /// A lookup that carries a gfid gives it to an inode that has none (`posix_gfid_heal`).
    async fn assign(&self, child: SubvolId) -> Result<(), Error> {
        let xdata = Some(Dict::new().with(keys::GFID_REQ, Value::Gfid(self.stat.gfid)));
        let request = Lookup { gfid: Gfid::NULL, parent: self.dir, flags: 0, name: self.name.clone(), xdata };
        let stat = self.session.must(child, request).await?.stat;
        if stat.gfid == self.stat.gfid { Ok(()) } else { Err(Error::fop(child, FopKind::Lookup, Errno::EIO)) }
    }

    fn with_gfid(&self) -> Dict {
        internal().with(keys::GFID_REQ, Value::Gfid(self.stat.gfid))
    }
}

/// From an iatt's `major << 32 | minor` to what MKNOD carries (Linux's new_encode_dev).
const fn encode_dev(rdev: u64) -> u64 {
    let (major, minor) = (rdev >> 32, rdev & 0xffff_ffff);
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_encoded_as_the_kernel_does() {
        assert_eq!(encode_dev((7 << 32) | 3), 0x703);
        assert_eq!(encode_dev((8 << 32) | 0x112), 0x10_0812);
    }
}
