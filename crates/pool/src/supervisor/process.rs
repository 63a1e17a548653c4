//! One supervised process: found or started, watched, started again, stopped.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mortar_rpc::control::{Client, Request, StatusReply};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use uuid::Uuid;

use crate::paths::replace_file;
use crate::portmap::{Portmap, Registration};

/// How a process is started and where it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spec {
    /// For people.
    pub name: String,
    pub executable: PathBuf,
    pub arguments: Vec<String>,
    pub volfile: Option<PathBuf>,
    pub control: PathBuf,
    pub pid_file: PathBuf,
    pub log: PathBuf,
    /// The path and the volume's id, for bricks.
    pub brick: Option<(String, Uuid)>,
    /// It is asked to finish what is under way before it is told to end.
    pub finishes: bool,
}

/// A process that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Running {
    pub pid: u32,
    pub port: Option<u16>,
}

/// A new process must open its control socket within this time.
const START_TIMEOUT: Duration = Duration::from_secs(15);
const START_POLL: Duration = Duration::from_millis(20);
const CONTROL_TIMEOUT: Duration = Duration::from_secs(3);
/// Between Terminate, SIGTERM and SIGKILL.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// Pauses before a process is started again; the longest one stays.
const BACKOFF: std::ops::Range<Duration> = Duration::from_millis(100)..Duration::from_secs(10);
/// How much of a log's end is searched for the reason of a failed start.
const LAST_WORDS_BYTES: usize = 4096;
/// A process that ran so long has not failed at its start.
const STEADY: Duration = Duration::from_secs(10);

/// Asks once.
async fn ask(control: &Path, request: &Request) -> Option<mortar_rpc::control::Reply> {
    let asked = async {
        let client = Client::connect(control).await.ok()?;
        client.request(request).await.ok()
    };
    tokio::time::timeout(CONTROL_TIMEOUT, asked).await.ok().flatten()
}

/// Whether somebody listens on a control socket.
pub(super) async fn answers(control: &Path) -> bool {
    tokio::net::UnixStream::connect(control).await.is_ok()
}

/// Tells a process that its configuration has changed.
pub(super) async fn reload(control: PathBuf) {
    if ask(&control, &Request::Reload).await.is_none() {
        tracing::info!(control = %control.display(), "reload not answered; the process reads its volfile when it starts");
    }
}

/// Also when nobody is left who could tell.
async fn told_to_stop(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// The task that keeps one process running.
pub(super) struct Keeper {
    spec: Spec,
    portmap: Arc<Portmap>,
    report: watch::Sender<Report>,
    stopped: watch::Receiver<bool>,
}

/// How a process is, as its keeper sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Report {
    /// Being started, or between two lives.
    #[default]
    Unknown,
    Running(Running),
    /// It ended at its start, with what it said.
    Failed(String),
}

impl Report {
    pub(super) fn running(&self) -> Option<&Running> {
        match self {
            Self::Running(running) => Some(running),
            Self::Unknown | Self::Failed(_) => None,
        }
    }
}

impl Keeper {
    pub(super) const fn new(
        spec: Spec,
        portmap: Arc<Portmap>,
        report: watch::Sender<Report>,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        Self { spec, portmap, report, stopped }
    }

    /// Until told to stop.
    pub(super) async fn keep(mut self) {
        let mut pause = BACKOFF.start;
        while !*self.stopped.borrow() {
            let begun = Instant::now();
            self.run_once().await;
            if *self.stopped.borrow() {
                return;
            }
            if begun.elapsed() > STEADY {
                pause = BACKOFF.start;
            }
            tracing::warn!(process = %self.spec.name, pause_ms = pause.as_millis(), "not running, starting it again");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = told_to_stop(&mut self.stopped) => return,
            }
            pause = (pause * 2).min(BACKOFF.end);
        }
    }

    /// From found or started to dead or stopped.
    async fn run_once(&mut self) {
        let (watched, status, mut child) = match self.adopt().await {
            Some((watched, status)) => (watched, status, None),
            None => match self.start().await {
                Some((watched, status, child)) => (watched, status, Some(child)),
                None => return,
            },
        };
        let running = Running { pid: status.pid, port: status.port };
        tracing::info!(process = %self.spec.name, pid = running.pid, port = running.port, adopted = child.is_none(), "running");
        self.publish(&running);
        tokio::select! {
            () = watched.ended() => tracing::warn!(process = %self.spec.name, pid = running.pid, "died"),
            () = told_to_stop(&mut self.stopped) => stop(&self.spec, &watched, running.pid).await,
        }
        self.withdraw(&running);
        if let Some(child) = &mut child {
            // Collect it; it has ended or is about to.
            let _ = tokio::time::timeout(STOP_PATIENCE, child.wait()).await;
        }
    }

    fn publish(&self, running: &Running) {
        if let (Some((path, _)), Some(port)) = (&self.spec.brick, running.port) {
            self.portmap.register(path, Registration { port, pid: running.pid, by: None });
        }
        self.report.send_replace(Report::Running(running.clone()));
    }

    fn withdraw(&self, running: &Running) {
        if let (Some((path, _)), Some(port)) = (&self.spec.brick, running.port) {
            self.portmap.forget(path, port);
        }
        self.report.send_replace(Report::Unknown);
    }

    /// A process of an earlier life of this daemon. One that is not what is wanted is told to end.
    async fn adopt(&self) -> Option<(Client, StatusReply)> {
        let (watched, status) = self.contact().await?;
        let fits = match &self.spec.brick {
            Some((path, volume)) => {
                status.brick_path.as_deref() == Some(Path::new(path)) && status.volume_id.is_none_or(|id| id == *volume)
            }
            // Which volumes a heald was started for is not in its status, but in what was noted when it was started.
            None => self.noted_words().is_some_and(|words| words == self.spec.arguments),
        };
        if fits {
            // Its volfile may have changed while nobody told it.
            reload(self.spec.control.clone()).await;
            return Some((watched, status));
        }
        stop(&self.spec, &watched, status.pid).await;
        None
    }

    fn words_file(&self) -> PathBuf {
        self.spec.control.with_extension("words")
    }

    /// The command line that a process of an earlier life of this daemon was started with.
    fn noted_words(&self) -> Option<Vec<String>> {
        serde_json::from_slice(&std::fs::read(self.words_file()).ok()?).ok()
    }

    /// A connection that is kept, and what the process says of itself.
    async fn contact(&self) -> Option<(Client, StatusReply)> {
        let contacted = async {
            let watched = Client::connect(&self.spec.control).await.ok()?;
            let status = watched.status(false, false).await.ok()?;
            Some((watched, status))
        };
        tokio::time::timeout(CONTROL_TIMEOUT, contacted).await.ok().flatten()
    }

    async fn start(&self) -> Option<(Client, StatusReply, Child)> {
        let mut child = match self.spawn() {
            Ok(child) => child,
            Err(error) => {
                tracing::error!(process = %self.spec.name, %error, "cannot be started");
                self.report.send_replace(Report::Failed(error.to_string()));
                return None;
            }
        };
        let deadline = Instant::now() + START_TIMEOUT;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = child.try_wait() {
                tracing::error!(process = %self.spec.name, %status, log = %self.spec.log.display(), "ended at its start");
                self.report.send_replace(Report::Failed(self.last_words()));
                return None;
            }
            if let Some((watched, status)) = self.contact().await {
                return Some((watched, status, child));
            }
            if *self.stopped.borrow() {
                break;
            }
            tokio::time::sleep(START_POLL).await;
        }
        tracing::error!(process = %self.spec.name, "did not come up in time");
        // A process that does not answer is of no use and holds the port.
        let _ = child.kill().await;
        None
    }

    /// Why a process that has just ended did: the last line of its log, where its complaint goes.
    fn last_words(&self) -> String {
        let log = std::fs::read(&self.spec.log).unwrap_or_default();
        let end = log.get(log.len().saturating_sub(LAST_WORDS_BYTES)..).unwrap_or_default();
        let text = String::from_utf8_lossy(end);
        let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it ended without a word");
        line.trim_start_matches("mortar brick: ").to_owned()
    }

    fn spawn(&self) -> std::io::Result<Child> {
        for file in [&self.spec.pid_file, &self.spec.log] {
            if let Some(dir) = file.parent() {
                std::fs::create_dir_all(dir)?;
            }
        }
        replace_file(&self.words_file(), &serde_json::to_vec(&self.spec.arguments)?)?;
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.spec.log)?;
        Command::new(&self.spec.executable)
            .args(&self.spec.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // It outlives this daemon and is not hit by a Ctrl-C meant for it.
            .process_group(0)
            .kill_on_drop(false)
            .spawn()
    }
}

/// Asks, then insists.
async fn stop(spec: &Spec, watched: &Client, pid: u32) {
    let ended = || tokio::time::timeout(STOP_PATIENCE, watched.ended());
    let finish = Request::RebalanceControl { control: mortar_api::rebalance::Control::Stop };
    if spec.finishes && ask(&spec.control, &finish).await.is_some() && ended().await.is_ok() {
        return;
    }
    if ask(&spec.control, &Request::Terminate).await.is_some() && ended().await.is_ok() {
        return;
    }
    for signal in [Signal::TERM, Signal::KILL] {
        let Some(target) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
        // Only a process that still holds its control connection is this one and not a stranger with its number.
        if tokio::time::timeout(Duration::ZERO, watched.ended()).await.is_ok() {
            return;
        }
        tracing::warn!(process = %spec.name, pid, ?signal, "does not end, sending it a signal");
        if kill_process(target, signal).is_err() || ended().await.is_ok() {
            return;
        }
    }
}
