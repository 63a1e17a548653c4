//! A process that the node's daemon starts, speaks to over a control socket, and ends: heald, rebalance.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use mortar_rpc::Endpoint;
use mortar_rpc::control::{Handler, Server, serve};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::getspec;

/// The part of the command line that all of them have.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where volfiles come from, `HOST:PORT`.
    pub server: String,
    pub control: PathBuf,
    pub pid_file: Option<PathBuf>,
    pub log_file: Option<PathBuf>,
}

/// Why the process cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open the log file: {0}")]
    Log(#[source] io::Error),
    #[error("cannot serve the control socket {}: {source}; does another process serve it?", path.display())]
    Control { path: PathBuf, source: io::Error },
    #[error("cannot write the pid file {}: {source}", path.display())]
    PidFile { path: PathBuf, source: io::Error },
    #[error("--server {0}: expected HOST:PORT")]
    Server(String),
    #[error("cannot wait for signals: {0}")]
    Signal(#[source] io::Error),
}

/// A process that has begun. Dropped, it stops answering and takes its pid file away.
pub(crate) struct Process {
    options: Options,
    pub(crate) server: Endpoint,
    terminate: Signal,
    interrupt: Signal,
    control: Option<Server>,
}

impl Process {
    /// Opens the log and writes the pid file.
    pub(crate) fn begin(options: Options) -> Result<Self, Error> {
        mortar_observe::init(options.log_file.as_deref(), mortar_observe::Level::Info).map_err(Error::Log)?;
        let server = getspec::endpoint(&options.server).ok_or_else(|| Error::Server(options.server.clone()))?;
        let terminate = signal(SignalKind::terminate()).map_err(Error::Signal)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(Error::Signal)?;
        if let Some(path) = &options.pid_file {
            let written = std::fs::write(path, format!("{}\n", std::process::id()));
            written.map_err(|source| Error::PidFile { path: path.clone(), source })?;
        }
        Ok(Self { options, server, terminate, interrupt, control: None })
    }

    /// Answers the control socket from now on.
    pub(crate) fn answer(&mut self, handler: Arc<dyn Handler>) -> Result<(), Error> {
        let path = &self.options.control;
        let control = serve(path, handler).map_err(|source| Error::Control { path: path.clone(), source })?;
        self.control = Some(control);
        Ok(())
    }

    /// Waits for SIGTERM or SIGINT.
    pub(crate) async fn signalled(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Before the pid file goes: who finds none may start a successor, which needs the socket.
        self.control = None;
        if let Some(path) = &self.options.pid_file {
            // Somebody may have removed it with its directory.
            let _ = std::fs::remove_file(path);
        }
    }
}
