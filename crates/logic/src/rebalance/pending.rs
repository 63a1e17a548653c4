//! The directories that a job has still to do: depth first, so that what waits is never more than the subdirectories along
//! a path.

use super::checkpoint::Directory;

/// So often is a directory visited when something in it was only busy; what is left after the last visit stays.
pub const VISITS_MAX: u32 = 5;

/// A directory that somebody works on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Visit {
    pub directory: Directory,
    /// 1 for the first.
    pub number: u32,
}

impl Visit {
    /// Nothing is put off any more: what fails now has failed.
    pub const fn is_last(&self) -> bool {
        self.number >= VISITS_MAX
    }
}

/// How a visit has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    Done,
    /// Something was busy: once more, when all others are done.
    Again,
    /// Something was away, which says nothing about the directory: once more, as if this visit had not been.
    Interrupted,
}

/// The directories to do. [`Self::take`] one, [`Self::expand`] it, [`Self::end`] it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pending {
    /// The next one is the last.
    waiting: Vec<Visit>,
    at_work: Vec<Visit>,
    /// Visited, and to be visited once more at the end.
    later: Vec<Visit>,
    done: u64,
}

impl Pending {
    /// `done`: directories that an earlier run has finished.
    pub fn new(directories: Vec<Directory>, done: u64) -> Self {
        let waiting = directories.into_iter().map(|directory| Visit { directory, number: 1 }).collect();
        Self { waiting, at_work: Vec::new(), later: Vec::new(), done }
    }

    /// The next directory; `None` while all that is left is being worked on.
    pub fn take(&mut self) -> Option<Visit> {
        if self.waiting.is_empty() && self.at_work.is_empty() {
            self.waiting = std::mem::take(&mut self.later);
        }
        let visit = self.waiting.pop()?;
        self.at_work.push(visit.clone());
        Some(visit)
    }

    /// Adds the subdirectories of a directory at work, once: a later visit, also after a crash, does not add them again.
    pub fn expand(&mut self, visit: &Visit, children: Vec<Directory>) {
        if let Some(at_work) = self.find(visit)
            && !at_work.directory.expanded
        {
            at_work.directory.expanded = true;
            self.waiting.extend(children.into_iter().map(|directory| Visit { directory, number: 1 }));
        }
    }

    pub fn end(&mut self, visit: &Visit, ended: Ended) {
        let Some(at) = self.at_work.iter().position(|at_work| is_same(at_work, visit)) else { return };
        let mut visit = self.at_work.swap_remove(at);
        match ended {
            Ended::Again if !visit.is_last() => {
                visit.number += 1;
                self.later.push(visit);
            }
            Ended::Done | Ended::Again => self.done += 1,
            Ended::Interrupted => self.waiting.push(visit),
        }
    }

    /// Nothing is left and nobody works.
    pub const fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.at_work.is_empty() && self.later.is_empty()
    }

    pub const fn done(&self) -> u64 {
        self.done
    }

    /// Done and to be done, as far as is known.
    pub const fn known(&self) -> u64 {
        self.done + (self.waiting.len() + self.at_work.len() + self.later.len()) as u64
    }

    /// What another process would have to do if this one ended now; [`Self::new`] goes on in the same order.
    pub fn left(&self) -> Vec<Directory> {
        let visits = self.later.iter().chain(&self.waiting).chain(&self.at_work);
        visits.map(|visit| visit.directory.clone()).collect()
    }

    fn find(&mut self, visit: &Visit) -> Option<&mut Visit> {
        self.at_work.iter_mut().find(|at_work| is_same(at_work, visit))
    }
}

fn is_same(left: &Visit, right: &Visit) -> bool {
    left.directory.gfid() == right.directory.gfid()
}

#[cfg(test)]
mod tests {
    use mortar_types::Gfid;

    use super::*;

    fn directory(at: u8) -> Directory {
        Directory::new(Gfid([at; 16]), format!("/{at}"))
    }

    fn paths(directories: &[Directory]) -> Vec<&str> {
        directories.iter().map(|directory| directory.path.as_str()).collect()
    }

    #[test]
    fn it_goes_down_before_it_goes_on() {
        let mut pending = Pending::new(vec![directory(1), directory(2)], 0);
        let two = pending.take().unwrap();
        pending.expand(&two, vec![directory(3), directory(4)]);
        let four = pending.take().unwrap();
        assert_eq!((two.directory.path.as_str(), four.directory.path.as_str()), ("/2", "/4"));
        assert_eq!(paths(&pending.left()), ["/1", "/3", "/2", "/4"]);
        assert_eq!((pending.done(), pending.known()), (0, 4));
        for visit in [two, four] {
            pending.end(&visit, Ended::Done);
        }
        assert_eq!((pending.done(), pending.known(), pending.is_done()), (2, 4, false));
    }

    #[test]
    fn what_was_busy_comes_again_at_the_end_and_not_for_ever() {
        let mut pending = Pending::new(vec![directory(1), directory(2)], 0);
        let visit = pending.take().unwrap();
        pending.end(&visit, Ended::Again);
        let other = pending.take().unwrap();
        assert_eq!(pending.take(), None, "only when all others are done");
        pending.end(&other, Ended::Done);
        for number in 2..=VISITS_MAX {
            let visit = pending.take().unwrap();
            assert_eq!((visit.number, visit.is_last()), (number, number == VISITS_MAX));
            pending.end(&visit, Ended::Again);
        }
        assert!(pending.is_done());
        assert_eq!(pending.done(), 2);
    }

    #[test]
    fn what_was_interrupted_is_as_it_was() {
        let mut pending = Pending::new(vec![directory(1)], 7);
        for _ in 0..2 * VISITS_MAX {
            let visit = pending.take().unwrap();
            assert!(!visit.is_last());
            pending.end(&visit, Ended::Interrupted);
        }
        assert_eq!((pending.done(), pending.known()), (7, 8));
    }

    #[test]
    fn subdirectories_are_added_once_also_after_a_crash() {
        let mut pending = Pending::new(vec![directory(1)], 0);
        let visit = pending.take().unwrap();
        pending.expand(&visit, vec![directory(2)]);
        let mut after = Pending::new(pending.left(), pending.done());
        let visit = after.take().unwrap();
        assert_eq!(visit.directory.path, "/1");
        after.expand(&visit, vec![directory(2)]);
        assert_eq!(paths(&after.left()), ["/2", "/1"]);
    }
}
