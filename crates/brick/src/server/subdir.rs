//! Mounts of a directory of the volume: for the client, that directory is the root.

use std::sync::Arc;

use bytes::Bytes;
use mortar_types::fop::Lookup;
use mortar_types::{Context, Errno, Fops, Gfid, Iatt, Pid, Reply, Request};

use super::translate::{for_each_iatt, gfids_mut};

/// The client's root: [`Gfid::ROOT`], or the gfid of the directory that it mounts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Root(pub(super) Gfid);

impl Root {
    /// Finds the directory at `path` (`/a/b`) below the volume's root.
    pub(super) async fn find(stack: &Arc<dyn Fops>, path: &str) -> Result<Self, Errno> {
        let ctx = Context::internal(Pid(0));
        let mut at = Gfid::ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let name = Bytes::from(name.to_owned());
            let lookup = Lookup { gfid: Gfid::NULL, parent: at, flags: 0, name, xdata: None };
            let found = stack.fop(&ctx, lookup).await.map_err(|failure| failure.errno)?;
            if !found.stat.is_dir() {
                return Err(Errno::ENOTDIR);
            }
            at = found.stat.gfid;
        }
        Ok(Self(at))
    }

    pub(super) fn is_whole(&self) -> bool {
        self.0.is_root()
    }

    /// The client's root gfid becomes the directory's.
    pub(super) fn enter(&self, request: &mut Request) {
        for gfid in gfids_mut(request).into_iter().flatten().filter(|gfid| gfid.is_root()) {
            *gfid = self.0;
        }
    }

    /// The directory's attributes become the root's. `listed` is the directory that a listing is of.
    pub(super) fn leave(&self, listed: Option<Gfid>, reply: &mut Reply) {
        for_each_iatt(reply, |iatt| self.hide(iatt));
        if listed != Some(self.0) {
            return;
        }
        // Nothing lies above the root that the client sees.
        match reply {
            Reply::ReaddirReply(reply) => {
                for entry in reply.entries.iter_mut().filter(|entry| is_dot(&entry.name)) {
                    entry.ino = Gfid::ROOT.ino();
                }
            }
            Reply::ReaddirpReply(reply) => {
                for entry in reply.entries.iter_mut().filter(|entry| is_dot(&entry.entry.name)) {
                    entry.entry.ino = Gfid::ROOT.ino();
                    if entry.stat.gfid != Gfid::ROOT {
                        entry.stat = Iatt::default();
                    }
                }
            }
            _ => {}
        }
    }

    /// A gfid as the client knows it.
    pub(super) fn outward(&self, gfid: Gfid) -> Gfid {
        if gfid == self.0 { Gfid::ROOT } else { gfid }
    }

    pub(super) fn hide(&self, iatt: &mut Iatt) {
        if iatt.gfid == self.0 && !iatt.gfid.is_null() {
            iatt.gfid = Gfid::ROOT;
            iatt.ino = Gfid::ROOT.ino();
        }
    }
}

fn is_dot(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

#[cfg(test)]
mod tests {
    use mortar_types::fop::{Stat, StatReply};

    use super::*;

    const DIRECTORY: Gfid = Gfid([9; 16]);

    #[test]
    fn the_root_gfid_stands_for_the_directory_both_ways() {
        let root = Root(DIRECTORY);
        let mut request = Stat { gfid: Gfid::ROOT, xdata: None }.into();
        root.enter(&mut request);
        assert_eq!(request, Stat { gfid: DIRECTORY, xdata: None }.into());
        let stat = Iatt { gfid: DIRECTORY, ino: DIRECTORY.ino(), ..Iatt::default() };
        let mut reply = StatReply { stat, xdata: None }.into();
        root.leave(None, &mut reply);
        let Reply::StatReply(reply) = reply else { panic!("another shape") };
        assert_eq!((reply.stat.gfid, reply.stat.ino), (Gfid::ROOT, 1));
    }
}
