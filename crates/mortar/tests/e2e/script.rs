//! Python programs that run on a host while a test goes on, their output kept.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use mortar_testkit::lab::Lab;
use mortar_testkit::wait;
use rustix::process::{Pid, Signal, kill_process};

/// A running program; killed when dropped.
pub(crate) struct Script {
    name: String,
    child: Child,
    output: PathBuf,
}

impl Script {
    /// Starts `text` on `host`. `name` must be new in the lab: the program and its output are kept under it.
    pub(crate) fn start(lab: &Lab, host: &str, name: &str, text: &str, args: &str) -> Result<Self> {
        let program = lab.dir().join(format!("{name}.py"));
        let output = lab.dir().join(format!("{name}.out"));
        fs::write(&program, text)?;
        let line = format!("exec python3 {} {args} >{} 2>&1", program.display(), output.display());
        let child = lab.host(host).spawn(&line)?;
        Ok(Self { name: name.to_owned(), child, output })
    }

    /// Starts it and waits for its end.
    pub(crate) fn run(lab: &Lab, host: &str, name: &str, text: &str, args: &str, limit: Duration) -> Result<String> {
        Self::start(lab, host, name, text, args)?.finish(limit)
    }

    /// Waits for its end, which must be a success; what it printed.
    pub(crate) fn finish(mut self, limit: Duration) -> Result<String> {
        let mut status: Option<ExitStatus> = None;
        wait::until(limit, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        });
        let text = self.output();
        let Some(status) = status else { bail!("{} does not end in {limit:?}:\n{text}", self.name) };
        ensure!(status.success(), "{}: {status}\n{text}", self.name);
        Ok(text)
    }

    /// What it printed so far.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(&self.output).with_context(|| self.name.clone()).unwrap_or_default()
    }

    /// Holds it (SIGSTOP) or lets it go on.
    pub(crate) fn hold(&self, held: bool) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a pid")?;
        kill_process(pid, if held { Signal::STOP } else { Signal::CONT }).context("signal a script")
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
