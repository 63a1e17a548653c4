//! Looking at one inode on every child: attributes, xattrs and changelogs in one call each; and changing the changelogs.

use bytes::Bytes;
use mortar_logic::heal::metadata::Attributes;
use mortar_logic::heal::{Children, Correction, Matrix, data};
use mortar_logic::replicate::changelog::{Changelog, Counters, Slot};
use mortar_types::fop::{Lookup, Setattr, Setxattr, Xattrop, XattropOp, setattr_valid};
use mortar_types::{Dict, Errno, Gfid, Iatt, Mdata, SubvolId, SubvolMap, Timespec, Value, keys};

use crate::heal::Error;
use crate::heal::set::Session;

/// What one child says about an inode.
#[derive(Clone, PartialEq, Debug)]
pub struct Look {
    pub stat: Iatt,
    pub counters: Counters,
    /// Everything the reply carried: the xattrs and the brick's own answers.
    pub xattrs: Dict,
}

impl Look {
    pub fn attributes(&self) -> Attributes {
        let bytes = self.xattrs.iter().filter_map(|(name, value)| value.as_bytes().map(|value| (name, value)));
        Attributes::new(&self.stat, bytes)
    }

    /// The times, if the brick keeps them beside the inode (`trusted.glusterfs.mdata`): then `stat` has them from there.
    pub fn mdata(&self) -> Option<Mdata> {
        let Iatt { atime, mtime, ctime, .. } = self.stat;
        self.xattrs.contains(keys::XATTR_MDATA).then_some(Mdata { atime, mtime, ctime })
    }
}

/// What every child says about an inode.
pub struct Looks(pub SubvolMap<Result<Look, Errno>>);

impl Looks {
    pub fn get(&self, child: SubvolId) -> Option<&Look> {
        self.0[child].as_ref().ok()
    }

    /// The children that say that the inode does not exist.
    pub fn missing(&self) -> Children {
        let is_missing = |answer: &Result<Look, Errno>| matches!(answer, Err(Errno::ENOENT | Errno::ESTALE));
        self.0.iter().filter(|(_, answer)| is_missing(answer)).map(|(child, _)| child).collect()
    }

    /// All answers, or why a heal cannot go on without the missing ones.
    pub fn complete(&self) -> Result<(), Error> {
        for (child, answer) in self.0.iter() {
            match answer {
                Ok(_) | Err(Errno::ENOENT | Errno::ESTALE) => {}
                Err(Errno::ENOTCONN) => return Err(Error::NotAllUp),
                Err(errno) => return Err(Error::fop(child, mortar_types::FopKind::Lookup, *errno)),
            }
        }
        let missing = self.missing();
        if missing.is_empty() { Ok(()) } else { Err(Error::MissingOn(missing)) }
    }

    pub fn matrix(&self, slot: Slot) -> Matrix {
        Matrix::new(slot, &self.0.map(|_, answer| answer.as_ref().ok().map(|look| look.counters.clone())))
    }

    pub fn copies(&self, arbiter: Option<SubvolId>) -> SubvolMap<Option<data::Copy>> {
        self.0.map(|child, answer| {
            answer.as_ref().ok().map(|look| data::Copy {
                size: look.stat.size,
                mtime: look.stat.mtime,
                ctime: look.stat.ctime,
                is_arbiter: arbiter == Some(child),
            })
        })
    }

    pub fn attributes(&self) -> SubvolMap<Option<Attributes>> {
        self.0.map(|_, answer| answer.as_ref().ok().map(Look::attributes))
    }

    /// Any child's answer.
    pub fn first(&self) -> Option<&Look> {
        self.0.iter().find_map(|(_, answer)| answer.as_ref().ok())
    }

    /// The child whose copy changed last.
    pub fn newest(&self, children: Children) -> Option<SubvolId> {
        let with_answer = children.filter(|child| self.get(child).is_some());
        with_answer.with_max(|child| self.get(child).map(|look| look.stat.ctime)).first()
    }
}

impl Session<'_> {
    /// Asks every child by gfid.
    pub async fn look(&self, gfid: Gfid) -> Looks {
        let mut xdata = Dict::new();
        self.set.keys.request(&mut xdata);
        xdata.set(keys::LIST_XATTR, Value::Int(1));
        xdata.set(keys::XATTR_MDATA, Value::Uint(64));
        let request = |_| nameless(gfid, Some(xdata.clone()));
        let answers = self.each(self.set.all(), request).await;
        Looks(answers.map(|_, answer| match answer {
            Some(Ok(reply)) => {
                let xattrs = reply.xdata.clone().unwrap_or_default();
                Ok(Look { stat: reply.stat, counters: self.set.keys.parse(Some(&xattrs)), xattrs })
            }
            Some(Err(failure)) => Err(failure.errno),
            None => Err(Errno::ENOTCONN),
        }))
    }

    /// Whether the inode exists on a child, with its attributes.
    pub async fn exists(&self, child: SubvolId, gfid: Gfid) -> Result<Option<Iatt>, Error> {
        match self.call(child, nameless(gfid, None)).await {
            Ok(reply) => Ok(Some(reply.stat)),
            Err(failure) if matches!(failure.errno, Errno::ENOENT | Errno::ESTALE) => Ok(None),
            Err(failure) => Err(Error::fop(child, mortar_types::FopKind::Lookup, failure.errno)),
        }
    }

    /// Adds the corrections of each slot to the changelogs, one xattrop per child. Stops at nothing: a child that fails
    /// keeps its marks, and the next heal sees them. The first failure is reported.
    pub async fn correct(
        &self,
        gfid: Gfid,
        slots: &[(Slot, SubvolMap<Option<Correction>>)],
        xdata: Option<&Dict>,
    ) -> Result<(), Error> {
        let is_touched = |child: SubvolId| slots.iter().any(|(_, corrections)| corrections[child].is_some());
        let children = self.set.all().filter(is_touched);
        let request = |child: SubvolId| {
            let mut pending = SubvolMap::filled(self.set.children.len(), Changelog::CLEAN);
            let mut dirty = Changelog::CLEAN;
            for (slot, corrections) in slots {
                let Some(correction) = &corrections[child] else { continue };
                for (against, delta) in correction.pending.iter() {
                    pending[against] = pending[against].plus(Changelog::in_slot(*slot, delta.cast_unsigned()));
                }
                dirty = dirty.plus(Changelog::in_slot(*slot, correction.dirty.cast_unsigned()));
            }
            let dict = Some(self.set.keys.xattrop(&pending, dirty));
            Xattrop { gfid, op: XattropOp::AddArray, dict, xdata: xdata.cloned() }
        };
        let failed = self.failures(children, request).await;
        failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Adds nothing to the changelogs: makes each brick's index look at them and drop the inode when all are zero.
    pub async fn touch_index(&self, gfid: Gfid, xdata: Option<&Dict>) {
        let zeros =
            self.set.keys.xattrop(&SubvolMap::filled(self.set.children.len(), Changelog::CLEAN), Changelog::CLEAN);
        let request = |_| Xattrop { gfid, op: XattropOp::AddArray, dict: Some(zeros.clone()), xdata: xdata.cloned() };
        self.failures(self.set.all(), request).await;
    }

    /// Accuses `accused` in the given slots on `witnesses`; all of them must take it before anything is changed.
    pub async fn accuse(
        &self,
        gfid: Gfid,
        witnesses: Children,
        accused: Children,
        slots: &[Slot],
    ) -> Result<(), Error> {
        let mark = slots.iter().fold(Changelog::CLEAN, |mark, slot| mark.plus(Changelog::in_slot(*slot, 1)));
        let pending =
            SubvolMap::from_fn(
                self.set.children.len(),
                |child| {
                    if accused.contains(child) { mark } else { Changelog::CLEAN }
                },
            );
        let dict = self.set.keys.xattrop(&pending, Changelog::CLEAN);
        let request = |_| Xattrop { gfid, op: XattropOp::AddArray, dict: Some(dict.clone()), xdata: None };
        let failed = self.failures(witnesses, request).await;
        failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Gives the children the model's times. Both forms: setattr, which takes access and modification time as given,
    /// and for a brick that keeps no times of the inode yet the ones to begin with (it takes the later of each).
    pub async fn copy_times(&self, gfid: Gfid, model: &Look, children: Children) -> Vec<(SubvolId, Error)> {
        let valid = setattr_valid::ATIME | setattr_valid::MTIME | setattr_valid::CTIME;
        let mut failed = self.failures(children, |_| Setattr { gfid, stat: model.stat, valid, xdata: None }).await;
        if let Some(times) = model.mdata() {
            let dict = Dict::new().with(keys::SET_CTIME_MDATA, Value::Mdata(times));
            let request = |_| Setxattr { gfid, flags: 0, dict: Some(dict.clone()), xdata: None };
            failed.extend(self.failures(children, request).await);
        }
        failed
    }

    /// Moves one child's change time of an inode forward to the good copy's: linking or moving an inode changes it, and no
    /// mark tells of that. Its other times are given as they are, since a brick takes the later of each.
    pub async fn raise_ctime(&self, child: SubvolId, theirs: &Iatt, ctime: Timespec) -> Result<(), Error> {
        if theirs.ctime >= ctime {
            return Ok(());
        }
        let times = Mdata { atime: theirs.atime, mtime: theirs.mtime, ctime };
        let dict = Dict::new().with(keys::SET_CTIME_MDATA, Value::Mdata(times));
        self.must(child, Setxattr { gfid: theirs.gfid, flags: 0, dict: Some(dict), xdata: None }).await.map(|_| ())
    }
}

pub fn nameless(gfid: Gfid, xdata: Option<Dict>) -> Lookup {
    Lookup { gfid, parent: Gfid::NULL, flags: 0, name: Bytes::new(), xdata }
}
