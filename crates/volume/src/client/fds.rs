//! Open files: this layer's numbers and what they are on the connection of the moment.

use std::collections::HashMap;

use mortar_types::fop::Fd;
use mortar_types::{FopKind, Gfid, Request};

/// Linux open flags that create or truncate: not repeated when a file is opened again.
const CREATING_FLAGS: u32 = 0o100 | 0o200 | 0o1000;

/// Counts connections of one client; fd numbers of the wire belong to one of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(super) struct Generation(pub(super) u64);

/// How to open a file again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct OpenFile {
    pub(super) gfid: Gfid,
    /// `None` for a directory.
    pub(super) flags: Option<u32>,
}

impl OpenFile {
    pub(super) const fn file(gfid: Gfid, flags: u32) -> Self {
        Self { gfid, flags: Some(flags & !CREATING_FLAGS) }
    }

    pub(super) const fn directory(gfid: Gfid) -> Self {
        Self { gfid, flags: None }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Slot {
    pub(super) file: OpenFile,
    generation: Generation,
    /// Its number on the connection `generation`; `None` when it could not be opened again there.
    wire: Option<Fd>,
    /// A lock that was held through it went to somebody else while there was no connection: nothing may be done through
    /// it as if the lock were held still.
    lost_lock: bool,
}

impl Slot {
    pub(super) fn on_wire(&self, generation: Generation) -> Option<Fd> {
        if self.generation == generation { self.wire } else { None }
    }
}

/// The connection on which something was opened is gone, and the file with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stale;

#[derive(Debug, Default)]
pub(super) struct Fds {
    slots: HashMap<Fd, Slot>,
    last: i64,
    /// The connection on which files are opened now.
    generation: Generation,
}

impl Fds {
    /// Registers what was opened as `wire` on connection `generation`.
    pub(super) fn insert(&mut self, file: OpenFile, generation: Generation, wire: Fd) -> Result<Fd, Stale> {
        if generation < self.generation {
            return Err(Stale);
        }
        self.last += 1;
        let fd = Fd(self.last);
        self.slots.insert(fd, Slot { file, generation, wire: Some(wire), lost_lock: false });
        Ok(fd)
    }

    pub(super) fn remove(&mut self, fd: Fd) -> Option<Slot> {
        self.slots.remove(&fd)
    }

    /// What `fd` is on connection `generation`, when it is open there.
    pub(super) fn on_wire(&self, fd: Fd, generation: Generation) -> Option<Fd> {
        self.slots.get(&fd)?.on_wire(generation)
    }

    /// Whether files are opened on connection `generation` now: there is no later one.
    pub(super) fn is_on(&self, generation: Generation) -> bool {
        self.generation == generation
    }

    /// A lock that was held through `fd` is lost, or no more is held.
    pub(super) fn set_lost_lock(&mut self, fd: Fd, lost: bool) {
        if let Some(slot) = self.slots.get_mut(&fd) {
            slot.lost_lock = lost;
        }
    }

    pub(super) fn has_lost_lock(&self, fd: Fd) -> bool {
        self.slots.get(&fd).is_some_and(|slot| slot.lost_lock)
    }

    /// A new connection begins: everything that must be opened again on it.
    pub(super) fn begin(&mut self, generation: Generation) -> Vec<(Fd, OpenFile)> {
        self.generation = generation;
        self.slots.iter().map(|(fd, slot)| (*fd, slot.file)).collect()
    }

    /// Records that a file has been opened again; `false` when it was closed meanwhile.
    pub(super) fn reopened(&mut self, fd: Fd, generation: Generation, wire: Option<Fd>) -> bool {
        match self.slots.get_mut(&fd) {
            Some(slot) => {
                slot.generation = generation;
                slot.wire = wire;
                slot.lost_lock = false;
                true
            }
            None => false,
        }
    }
}

/// The fds in a request, to be replaced by the next layer's.
pub(crate) fn fds_of(request: &mut Request) -> [Option<&mut Fd>; 2] {
    use Request as R;
    let fd = match request {
        R::Read(r) => &mut r.fd,
        R::Write(r) => &mut r.fd,
        R::Flush(r) => &mut r.fd,
        R::Fsync(r) => &mut r.fd,
        R::Fsyncdir(r) => &mut r.fd,
        R::Ftruncate(r) => &mut r.fd,
        R::Fstat(r) => &mut r.fd,
        R::Lk(r) => &mut r.fd,
        R::Readdir(r) => &mut r.fd,
        R::Finodelk(r) => &mut r.fd,
        R::Fentrylk(r) => &mut r.fd,
        R::Fxattrop(r) => &mut r.fd,
        R::Fgetxattr(r) => &mut r.fd,
        R::Fsetxattr(r) => &mut r.fd,
        R::Rchecksum(r) => &mut r.fd,
        R::Fsetattr(r) => &mut r.fd,
        R::Readdirp(r) => &mut r.fd,
        R::Release(r) => &mut r.fd,
        R::Releasedir(r) => &mut r.fd,
        R::Fremovexattr(r) => &mut r.fd,
        R::Fallocate(r) => &mut r.fd,
        R::Discard(r) => &mut r.fd,
        R::Zerofill(r) => &mut r.fd,
        R::Seek(r) => &mut r.fd,
        R::CopyFileRange(r) => return [Some(&mut r.fd_in), Some(&mut r.fd_out)],
        _ => return [None, None],
    };
    [Some(fd), None]
}

/// Whether a file that is not open on the brick may be reached by its gfid instead (`client-common.c`: exactly these
/// fall back to the anonymous fd, the others fail with EBADFD).
pub(super) const fn may_be_anonymous(kind: FopKind) -> bool {
    use FopKind as K;
    matches!(kind, K::Read | K::Write | K::Fsync | K::Finodelk | K::Fxattrop | K::CopyFileRange)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Generation = Generation(1);
    const TWO: Generation = Generation(2);

    #[test]
    fn a_number_stays_while_its_wire_number_changes() {
        let mut fds = Fds::default();
        fds.begin(ONE);
        let fd = fds.insert(OpenFile::file(Gfid::ROOT, 0o1102), ONE, Fd(0)).unwrap();
        assert_eq!(fds.on_wire(fd, ONE), Some(Fd(0)));
        assert_eq!(fds.on_wire(fd, TWO), None);
        assert_eq!(fds.begin(TWO), [(fd, OpenFile { gfid: Gfid::ROOT, flags: Some(2) })]);
        assert!(fds.reopened(fd, TWO, Some(Fd(7))));
        assert_eq!(fds.on_wire(fd, TWO), Some(Fd(7)));
        let closed = fds.remove(fd).unwrap();
        assert_eq!((closed.on_wire(TWO), closed.on_wire(ONE)), (Some(Fd(7)), None));
        assert_eq!(fds.remove(fd), None);
    }

    #[test]
    fn what_was_opened_on_an_older_connection_is_refused_once_the_next_begins() {
        let mut fds = Fds::default();
        fds.begin(ONE);
        fds.begin(TWO);
        assert_eq!(fds.insert(OpenFile::directory(Gfid::ROOT), ONE, Fd(0)), Err(Stale));
    }

    #[test]
    fn closing_while_it_is_opened_again_is_noticed() {
        let mut fds = Fds::default();
        fds.begin(ONE);
        let fd = fds.insert(OpenFile::directory(Gfid::ROOT), ONE, Fd(0)).unwrap();
        fds.begin(TWO);
        assert!(fds.remove(fd).is_some());
        assert!(!fds.reopened(fd, TWO, Some(Fd(0))));
    }
}
