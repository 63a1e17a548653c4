//! Stands in for `mortar brick` and `mortar heald`: answers its control socket, serves nothing.
//!
//! This test program itself is the process: a script, given to the daemon as its executable, starts it with the words in
//! the environment, and then one of the "tests" is the process's life.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use mortar_api::rebalance::{Control, Mode, Progress, State};
use mortar_rpc::control::{Handler, HealProgress, Reply, Request, StatusReply, serve};
use tokio::sync::Notify;

struct Process {
    port: Option<u16>,
    volfile: Option<PathBuf>,
    ended: Notify,
    mode: Option<String>,
    paused: AtomicBool,
    finish: Option<PathBuf>,
}

impl Process {
    /// A rebalance has moved everything once its test says so, by the file [`finish`].
    fn progress(&self) -> Progress {
        let state = match (&self.finish, self.paused.load(Ordering::Relaxed)) {
            (Some(finish), _) if finish.exists() => State::Completed,
            (_, true) => State::Paused,
            (_, false) => State::InProgress,
        };
        let mode = self.mode.as_deref().and_then(|mode| mode.parse().ok()).unwrap_or(Mode::Rebalance);
        Progress { state, files: 3, bytes: 12, lookups: 7, ..Progress::new(mode) }
    }

    /// The value of an option in the volfile, as far as a brick's status needs it.
    fn option(&self, key: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.volfile.as_ref()?).ok()?;
        let start = format!("option {key} ");
        text.lines().find_map(|line| line.trim().strip_prefix(&start).map(str::to_owned))
    }
}

#[async_trait]
impl Handler for Process {
    async fn request(&self, request: Request) -> Reply {
        match request {
            Request::Status { .. } => Reply::Status(StatusReply {
                pid: std::process::id(),
                port: self.port,
                brick_path: self.option("directory").map(PathBuf::from),
                volume_id: self.option("volume-id").and_then(|id| id.parse().ok()),
                ..StatusReply::default()
            }),
            Request::Terminate => {
                self.ended.notify_one();
                Reply::Ok
            }
            Request::Progress { .. } => Reply::Progress(HealProgress { running: true, ..HealProgress::default() }),
            Request::Crawls { .. } => Reply::Crawls { subvolumes: Vec::new() },
            Request::RebalanceStatus => Reply::Rebalance(Box::new(self.progress())),
            Request::RebalanceControl { control: Control::Stop } => {
                self.ended.notify_one();
                Reply::Ok
            }
            Request::RebalanceControl { control } => {
                self.paused.store(control == Control::Pause, Ordering::Relaxed);
                Reply::Ok
            }
            Request::Reload | Request::Heal { .. } => Reply::Ok,
        }
    }
}

/// The file that ends a node's part of a job.
pub fn finish(control: &Path, task: &str) -> PathBuf {
    control.with_file_name(format!("{task}.finish"))
}

const WORDS: &str = "MORTAR_FAKE_PROCESS";

/// Writes the script into a directory.
pub fn executable(dir: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let script = dir.join("fake");
    let program = std::env::current_exe().expect("this test");
    let text = format!("#!/bin/sh\n{WORDS}=\"$*\" exec {} --exact fake::process --nocapture\n", program.display());
    std::fs::write(&script, text).expect("writes the script");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("makes it a program");
    script
}

#[test]
fn process() {
    let Ok(words) = std::env::var(WORDS) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let words: Vec<&str> = words.split(' ').collect();
    runtime.block_on(live(&words));
}

async fn live(words: &[&str]) {
    let value = |option: &str| {
        let at = words.iter().position(|word| *word == option)?;
        words.get(at + 1).copied()
    };
    let control = Path::new(value("--control").expect("--control"));
    let process = Arc::new(Process {
        port: value("--port").and_then(|port| port.parse().ok()),
        volfile: value("--volfile").map(PathBuf::from),
        ended: Notify::new(),
        mode: value("--mode").map(str::to_owned),
        paused: AtomicBool::new(false),
        finish: value("--task").map(|task| finish(control, task)),
    });
    let server = serve(control, Arc::clone(&process) as Arc<dyn Handler>).expect("the control socket");
    process.ended.notified().await;
    // The reply to Terminate is still on its way.
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(server);
}
