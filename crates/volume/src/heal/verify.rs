//! Comparing the copies of a replica set beyond what the index says: every name on every brick, and of every inode its
//! gfid, type, mode, owner, links, size, times, xattrs and content, by checksum.
//!
//! Reads only, and takes no locks: what looks different is looked at again a moment later, so that changes on their way
//! are not reported. What is found is for a person (or a full heal): leftovers of old heals, damage behind a brick's back.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use mortar_logic::heal::name::Seen;
use mortar_logic::heal::{Children, blocks};
use mortar_logic::replicate::changelog::Slot;
use mortar_types::fop::Rchecksum;
use mortar_types::{Errno, Fd, FileType, Gfid, SubvolId};
use parking_lot::Mutex;

use crate::heal::entry::seen;
use crate::heal::look::{Look, Looks};
use crate::heal::set::{ReplicaSet, Session};
use crate::heal::{Error, listing};

/// Differences told at most: a person reads them.
pub const DIFFERENCES_MAX: usize = 10_000;
/// Names compared at once: the round trips of one hide behind those of the others, and a client's calls still get through.
const PARALLEL_MAX: usize = 16;
/// How often something is looked at before it counts as different.
const LOOKS_MAX: usize = 3;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// In what a copy differs from the first one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// The name is not there.
    Missing,
    Type,
    Gfid,
    Mode,
    Owner,
    /// Hard links.
    Links,
    Size,
    ModificationTime,
    /// The names of the xattrs that differ.
    Xattrs(Vec<String>),
    /// From this offset on.
    Content(u64),
    /// It could not be looked at.
    Unreadable(Errno),
}

/// One name whose copies differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    pub path: Bytes,
    /// Of the first copy.
    pub gfid: Gfid,
    pub kind: Kind,
    /// The copies that differ from the first one.
    pub on: Children,
    /// The changelogs know of it: it heals (or is told as split-brain) without anybody's help.
    pub pending: bool,
}

/// What a comparison came to.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Report {
    pub names: u64,
    /// Content compared, per copy.
    pub bytes: u64,
    pub differences: Vec<Difference>,
    /// There are more than [`DIFFERENCES_MAX`].
    pub more: bool,
}

/// Compares the whole tree.
///
/// # Errors
/// When a brick is down or goes down: of a copy that cannot be seen nothing can be said.
pub async fn verify(set: &ReplicaSet) -> Result<Report, Error> {
    let session = Session::new(set);
    let walk = Walk { session: &session, report: Mutex::default(), linked: Mutex::default() };
    let mut dirs = VecDeque::from([(Gfid::ROOT, Bytes::new())]);
    walk.inode(Gfid::ROOT, &Bytes::from_static(b"/")).await?;
    while let Some((dir, path)) = dirs.pop_front() {
        let mut names = BTreeSet::new();
        for child in set.all().iter() {
            names.extend(listing::names(&session, child, dir).await?);
        }
        let compared = names.into_iter().filter(|name| !set.is_private(dir, name)).map(|name| {
            let path = Bytes::from([&path[..], b"/", &name[..]].concat());
            let walk = &walk;
            async move { Ok::<_, Error>(walk.name(dir, &name, &path).await?.map(|sub| (sub, path))) }
        });
        let mut compared = futures::stream::iter(compared).buffered(PARALLEL_MAX);
        while let Some(sub) = compared.try_next().await? {
            dirs.extend(sub);
        }
        if walk.report.lock().more {
            break;
        }
    }
    Ok(walk.report.into_inner())
}

struct Walk<'a> {
    session: &'a Session<'a>,
    report: Mutex<Report>,
    /// Inodes with several names that were compared already.
    linked: Mutex<HashSet<Gfid>>,
}

impl Walk<'_> {
    /// Compares what a name is; the directory to go down into.
    async fn name(&self, dir: Gfid, name: &Bytes, path: &Bytes) -> Result<Option<Gfid>, Error> {
        self.report.lock().names += 1;
        let mut found = None;
        for look in 0..LOOKS_MAX {
            if look > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            let seen = seen(self.session, dir, name).await;
            let first = seen.iter().find_map(|(_, seen)| match *seen {
                Seen::Present { gfid, kind } => Some((gfid, kind)),
                _ => None,
            });
            // Removed meanwhile.
            let Some((gfid, kind)) = first else { return Ok(None) };
            let differs = |child: &SubvolId| match seen[*child] {
                Seen::Present { gfid: theirs, kind: their_kind } => (theirs, their_kind) != (gfid, kind),
                Seen::Absent | Seen::Unknown(_) => true,
            };
            let on: Children = self.session.set.all().iter().filter(differs).collect();
            let Some(one) = on.first() else {
                let is_new = kind == FileType::Directory || self.linked.lock().insert(gfid);
                if is_new {
                    self.inode(gfid, path).await?;
                }
                return Ok((kind == FileType::Directory).then_some(gfid));
            };
            let difference = match seen[one] {
                Seen::Absent => Kind::Missing,
                Seen::Unknown(Errno::ENOTCONN) => return Err(Error::NotAllUp),
                Seen::Unknown(errno) => Kind::Unreadable(errno),
                Seen::Present { kind: their_kind, .. } if their_kind != kind => Kind::Type,
                Seen::Present { .. } => Kind::Gfid,
            };
            found = Some((gfid, difference, on));
        }
        if let Some((gfid, kind, on)) = found {
            let pending = is_pending(&self.session.look(dir).await, &[Slot::Entry, Slot::Data]);
            self.tell(Difference { path: path.clone(), gfid, kind, on, pending });
        }
        Ok(None)
    }

    /// Compares an inode's attributes and content.
    async fn inode(&self, gfid: Gfid, path: &Bytes) -> Result<(), Error> {
        let mut differences = Vec::new();
        for look in 0..LOOKS_MAX {
            if look > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            let looks = self.session.look(gfid).await;
            match looks.complete() {
                // It has gone, or its name is about to.
                Err(Error::MissingOn(_)) => return Ok(()),
                outcome => outcome?,
            }
            differences = self.compare(gfid, &looks).await?;
            if differences.is_empty() {
                return Ok(());
            }
        }
        let pending = is_pending(&self.session.look(gfid).await, &[Slot::Data, Slot::Metadata, Slot::Entry]);
        for (kind, on) in differences {
            self.tell(Difference { path: path.clone(), gfid, kind, on, pending });
        }
        Ok(())
    }

    async fn compare(&self, gfid: Gfid, looks: &Looks) -> Result<Vec<(Kind, Children)>, Error> {
        let set = self.session.set;
        let Some(first) = set.all().first().and_then(|child| looks.get(child)) else { return Ok(Vec::new()) };
        let differing = |among: Children, same: &dyn Fn(&Look) -> bool| {
            among.filter(|child| looks.get(child).is_some_and(|look| !same(look)))
        };
        let all = set.all();
        let is_file = first.stat.file_type() == Some(FileType::Regular);
        let is_dir = first.stat.file_type() == Some(FileType::Directory);
        let with_content = all.filter(|child| !set.is_arbiter(child));
        let model = first.attributes();
        let mut found = vec![
            (Kind::Mode, differing(all, &|look| look.stat.mode == first.stat.mode)),
            (Kind::Owner, differing(all, &|look| (look.stat.uid, look.stat.gid) == (first.stat.uid, first.stat.gid))),
        ];
        if !is_dir {
            found.push((Kind::Links, differing(all, &|look| look.stat.nlink == first.stat.nlink)));
            found.push((Kind::Size, differing(with_content, &|look| look.stat.size == first.stat.size)));
            found.push((Kind::ModificationTime, differing(with_content, &|look| look.stat.mtime == first.stat.mtime)));
        }
        let xattrs = differing(all, &|look| look.attributes().xattrs == model.xattrs);
        if let Some(other) = xattrs.first().and_then(|child| looks.get(child)) {
            let theirs = other.attributes();
            let mut names: Vec<String> = model
                .xattrs
                .iter()
                .filter(|pair| !theirs.xattrs.contains(pair))
                .chain(theirs.xattrs.iter().filter(|pair| !model.xattrs.contains(pair)))
                .map(|(name, _)| name.clone())
                .collect();
            names.sort();
            names.dedup();
            found.push((Kind::Xattrs(names), xattrs));
        }
        found.retain(|(_, on)| !on.is_empty());
        let same_size = !found.iter().any(|(kind, _)| *kind == Kind::Size);
        if is_file && same_size && with_content.len() > 1 {
            found.extend(self.compare_content(gfid, first.stat.size, with_content).await?);
        }
        Ok(found)
    }

    /// The first block that differs.
    async fn compare_content(
        &self,
        gfid: Gfid,
        size: u64,
        children: Children,
    ) -> Result<Option<(Kind, Children)>, Error> {
        for (offset, len) in blocks::blocks(size) {
            let block = u32::try_from(len).unwrap_or(u32::MAX);
            let request = |_| Rchecksum { gfid, fd: Fd::ANONYMOUS, offset, len: block, flags: 0, xdata: None };
            let answers = self.session.each(children, request).await;
            let mut sums = Vec::new();
            for (child, answer) in answers.iter() {
                match answer {
                    Some(Ok(reply)) => sums.push((child, (reply.flags, reply.weak, reply.strong.clone()))),
                    Some(Err(failure)) if failure.errno == Errno::ENOTCONN => return Err(Error::NotAllUp),
                    Some(Err(failure)) => return Ok(Some((Kind::Unreadable(failure.errno), Children::only(child)))),
                    None => {}
                }
            }
            let Some((_, model)) = sums.first() else { return Ok(None) };
            let on: Children = sums.iter().filter(|(_, sum)| sum != model).map(|(child, _)| *child).collect();
            if !on.is_empty() {
                return Ok(Some((Kind::Content(offset), on)));
            }
            self.report.lock().bytes += len;
        }
        Ok(None)
    }

    fn tell(&self, difference: Difference) {
        let mut report = self.report.lock();
        if report.differences.len() < DIFFERENCES_MAX {
            report.differences.push(difference);
        } else {
            report.more = true;
        }
    }
}

fn is_pending(looks: &Looks, slots: &[Slot]) -> bool {
    slots.iter().any(|slot| !looks.matrix(*slot).is_clean())
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("is missing"),
            Self::Type => f.write_str("is of another type"),
            Self::Gfid => f.write_str("is another inode (gfid)"),
            Self::Mode => f.write_str("has another mode"),
            Self::Owner => f.write_str("has another owner"),
            Self::Links => f.write_str("has another number of hard links"),
            Self::Size => f.write_str("has another size"),
            Self::ModificationTime => f.write_str("has another modification time"),
            Self::Xattrs(names) => write!(f, "has other xattrs ({})", names.join(", ")),
            Self::Content(offset) => write!(f, "has other content from byte {offset} on"),
            Self::Unreadable(errno) => write!(f, "cannot be read ({errno})"),
        }
    }
}
