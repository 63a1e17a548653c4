//! A writer on the spool and the ledger of what it was promised: what stands there must be there, whatever happened.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use mortar_testkit::lab::Lab;
use mortar_testkit::wait;

use crate::cluster;
use crate::script::Script;

/// A running writer on `kolab`.
pub(crate) struct Ledger<'a> {
    lab: &'a Lab,
    writer: Script,
    path: PathBuf,
    stop: PathBuf,
}

impl<'a> Ledger<'a> {
    /// Starts to write `count` messages at most.
    pub(crate) fn start(lab: &'a Lab, count: usize) -> Result<Self> {
        let (path, stop) = (lab.dir().join("ledger"), lab.dir().join("ledger-stop"));
        let args = format!("{} {} {count} {}", cluster::SPOOL, path.display(), stop.display());
        let writer = Script::start(lab, "kolab", "ledger-writer", include_str!("ledger.py"), &args)?;
        Ok(Self { lab, writer, path, stop })
    }

    /// How many messages are promised.
    pub(crate) fn lines(&self) -> usize {
        fs::read_to_string(&self.path).unwrap_or_default().lines().count()
    }

    /// Waits until `more` further messages are promised.
    pub(crate) fn grows(&self, more: usize, limit: Duration) -> Result<()> {
        let start = self.lines();
        let grown = wait::until(limit, || self.lines() >= start + more);
        let (now, said) = (self.lines(), self.writer.output());
        ensure!(grown, "in {limit:?} the ledger went from {start} to {now} lines, wanted {more} more\n{said}");
        Ok(())
    }

    /// Does `work` while the writer is held.
    pub(crate) fn held<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.writer.hold(true)?;
        let result = work();
        self.writer.hold(false)?;
        result
    }

    /// Waits for the writer's end, without an error.
    pub(crate) fn written(self, limit: Duration) -> Result<Promises<'a>> {
        self.writer.finish(limit)?;
        Ok(Promises { lab: self.lab, path: self.path })
    }

    /// Tells the writer to stop, and waits until it did, without an error.
    pub(crate) fn stopped(self, limit: Duration) -> Result<Promises<'a>> {
        fs::write(&self.stop, "")?;
        self.written(limit)
    }

    /// The writer is dead, with its host: what was promised until then.
    pub(crate) fn killed(self) -> Promises<'a> {
        Promises { lab: self.lab, path: self.path }
    }
}

/// What a writer was promised.
pub(crate) struct Promises<'a> {
    lab: &'a Lab,
    path: PathBuf,
}

impl Promises<'_> {
    /// That every message is there with the bytes that were written.
    pub(crate) fn kept(&self) -> Result<()> {
        self.lab.host("kolab").ok(&format!("sha256sum --quiet -c {}", self.path.display())).map(drop)
    }
}
