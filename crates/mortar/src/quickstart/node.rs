//! One node of the quickstart: the ordinary daemon, with an address and folders of its own.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use mortar_api::peer::List;
use mortar_cli::client::Client;

use super::checks;

/// GlusterFS's port and the pool's own.
const PORTS: [u16; 2] = [24007, 24008];
/// How long a process may take to end by itself.
const STOP_LIMIT: Duration = Duration::from_secs(5);

pub(super) struct Node {
    pub(super) address: IpAddr,
    dir: PathBuf,
}

impl Node {
    pub(super) fn new(dir: &Path, number: u8) -> Self {
        Self { address: Ipv4Addr::new(127, 77, 0, number).into(), dir: dir.join(format!("node{number}")) }
    }

    pub(super) fn brick(&self) -> PathBuf {
        self.dir.join("brick")
    }

    pub(super) fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.run_dir().join(mortar_api::SOCKET_NAME)
    }

    pub(super) fn client(&self) -> Client {
        Client::new(&self.socket(), Duration::from_secs(60))
    }

    fn arguments(&self) -> Vec<String> {
        let dir = |name: &str| self.dir.join(name).display().to_string();
        let mut arguments = vec!["daemon".to_owned(), format!("--listen={}", self.address)];
        for name in ["data", "run", "log"] {
            arguments.push(format!("--{name}-dir={}", dir(name)));
        }
        arguments
    }

    /// The line that starts the node by hand.
    pub(super) fn command_line(&self, mortar: &str) -> String {
        format!("{mortar} {}", self.arguments().join(" "))
    }

    /// Starts the daemon, unless it answers already.
    pub(super) async fn start(&self) -> Result<()> {
        if self.client().call(&List {}).await.is_ok() {
            return Ok(());
        }
        for port in PORTS {
            checks::port_free(self.address, port)?;
        }
        std::fs::create_dir_all(self.dir.join("log"))?;
        let output = Command::new(std::env::current_exe()?)
            .args(self.arguments())
            .stdin(Stdio::null())
            .output()
            .context("start the daemon")?;
        if !output.status.success() {
            bail!("the daemon of {} did not start: {}", self.address, String::from_utf8_lossy(&output.stderr).trim());
        }
        for _ in 0..100 {
            if self.client().call(&List {}).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("the daemon of {} does not answer; look at the logs in {}", self.address, self.dir.join("log").display())
    }

    /// Ends the daemon first (it would start the others again), then its bricks and healer.
    pub(super) fn stop(&self) {
        let daemon = self.run_dir().join("mortard.pid");
        end(&read_pid(&daemon).into_iter().collect::<Vec<_>>());
        let mut others: Vec<Pid> = pid_files(&self.run_dir()).iter().filter_map(|file| read_pid(file)).collect();
        for volume in std::fs::read_dir(self.run_dir().join("vols")).into_iter().flatten().flatten() {
            others.extend(pid_files(&volume.path()).iter().filter_map(|file| read_pid(file)));
        }
        end(&others);
    }
}

fn pid_files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "pid")).collect()
}

/// The process of a pid file, if it still is one of ours: numbers are used again.
fn read_pid(file: &Path) -> Option<Pid> {
    let number: i32 = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
    let own = std::env::current_exe().ok()?;
    let runs = std::fs::read_link(format!("/proc/{number}/exe")).ok()?;
    // A binary that was built anew since shows as "(deleted)".
    let same = runs.display().to_string().trim_end_matches(" (deleted)") == own.display().to_string();
    if same { Pid::from_raw(number) } else { None }
}

fn end(pids: &[Pid]) {
    for pid in pids {
        let _ = kill_process(*pid, Signal::TERM);
    }
    let limit = Instant::now() + STOP_LIMIT;
    while pids.iter().any(|pid| runs(*pid)) && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(20));
    }
    for pid in pids.iter().filter(|pid| runs(**pid)) {
        let _ = kill_process(*pid, Signal::KILL);
    }
}

/// Whether the process still does something: one that only waits to be collected by init has no program.
fn runs(pid: Pid) -> bool {
    std::fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero())).is_ok()
}
