//! `mortar heald`: one process per node that heals the volumes of its bricks (GlusterFS's glustershd).
//!
//! Each replica set has a worker of its own. It sweeps the indexes of the bricks on **this** node (so that of two nodes
//! each does its part): at start, when a brick comes up, every `cluster.heal-timeout`, when it is told to, and soon again
//! while something is left that may heal by itself. A sweep needs all bricks of the set up.
//!
//! SIGTERM and the control socket's `terminate` end it at once: its locks go with its connections, and every step of a
//! heal can be repeated.

mod history;
mod worker;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mortar_rpc::Endpoint;
use mortar_rpc::control::{Handler, HealProgress, Reply, Request, StatusReply};
use mortar_wire::volfile::Volfile;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::client::Identity;
use crate::getspec::{self, VolfileServer};
use crate::heal::daemon::worker::Worker;
use crate::heal::volfile::{Section, sections};
use crate::role::{self, Process};

/// The node's daemon may still be starting: how long until it is asked again for a volfile.
const GETSPEC_RETRY: Duration = Duration::from_secs(3);

/// The command line of `mortar heald`.
#[derive(Clone, Debug)]
pub struct Options {
    pub role: role::Options,
    pub volumes: Vec<String>,
    /// This node: its bricks' indexes are ours.
    pub node_uuid: Uuid,
}

/// Runs until SIGTERM, SIGINT or the control socket ends it. What is wrong with one volume is logged and does not keep the
/// others from healing.
pub async fn run(options: Options) -> Result<(), role::Error> {
    let mut process = Process::begin(options.role.clone())?;
    let server = process.server.clone();
    let daemon = Arc::new(Daemon { server, options, volumes: Mutex::default(), stop: Notify::new() });
    process.answer(Arc::new(Control(Arc::clone(&daemon))))?;
    for volume in daemon.options.volumes.clone() {
        daemon.watch(volume);
    }
    tokio::select! {
        () = process.signalled() => {}
        () = daemon.stop.notified() => {}
    }
    tracing::info!("heald ends");
    drop(process);
    daemon.forget_all();
    Ok(())
}

struct Daemon {
    options: Options,
    server: Endpoint,
    volumes: Mutex<HashMap<String, Volume>>,
    stop: Notify,
}

/// A volume under care. Replaced as a whole when its volfile changes.
struct Volume {
    /// The task that follows the volfile and starts the workers.
    follow: AbortHandle,
    volfile: String,
    workers: Vec<(Arc<Worker>, AbortHandle)>,
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.follow.abort();
        for (_, task) in &self.workers {
            task.abort();
        }
    }
}

impl Daemon {
    /// Gets the volume's volfile, again and again until it is there, follows its changes and keeps its replica sets under
    /// care.
    fn watch(self: &Arc<Self>, name: String) {
        let (daemon, volume) = (Arc::clone(self), name.clone());
        // Held until the volume is entered: the task may have its volfile before this thread goes on, and a volfile of a
        // volume that is not entered would be dropped, with nothing healed until the next change.
        let mut volumes = self.volumes.lock();
        let task = tokio::spawn(async move {
            let options = getspec::Options::new(vec![daemon.server.clone()], format!("shd/{volume}"));
            loop {
                match VolfileServer::connect(options.clone()).await {
                    Ok(server) => daemon.follow(&volume, server.volfile()).await,
                    Err(error) => tracing::warn!(volume, %error, "cannot heal the volume yet"),
                }
                tokio::time::sleep(GETSPEC_RETRY).await;
            }
        });
        let follow = task.abort_handle();
        match volumes.get_mut(&name) {
            Some(volume) => {
                volume.follow.abort();
                volume.follow = follow;
            }
            None => {
                volumes.insert(name, Volume { follow, volfile: String::new(), workers: Vec::new() });
            }
        }
    }

    /// Ends when the volfile server's task has ended, which happens only when this process ends.
    async fn follow(&self, name: &str, mut volfile: watch::Receiver<Arc<str>>) {
        loop {
            let text = Arc::clone(&volfile.borrow_and_update());
            if let Err(reason) = self.load(name, &text) {
                tracing::error!(volume = name, reason, "the volfile cannot be used; what was healed before still is");
            }
            if volfile.changed().await.is_err() {
                return;
            }
        }
    }

    /// The reason is for the log: nobody else can act on it.
    fn load(&self, name: &str, text: &str) -> Result<(), String> {
        if self.volumes.lock().get(name).is_some_and(|volume| volume.volfile == text) {
            return Ok(());
        }
        let volfile = Volfile::parse(text).map_err(|error| error.to_string())?;
        let identity = Identity::of_process(host_name());
        let port = getspec::port_of(&self.server);
        let sections = sections(&volfile, &identity, port).map_err(|error| error.to_string())?;
        let mut volumes = self.volumes.lock();
        let volume = volumes.get_mut(name).ok_or("the volume is not under care")?;
        for (_, task) in volume.workers.drain(..) {
            task.abort();
        }
        text.clone_into(&mut volume.volfile);
        volume.workers =
            sections.into_iter().filter(|section| section.enabled).map(|section| self.start(section)).collect();
        tracing::info!(volume = name, sets = volume.workers.len(), "healing");
        Ok(())
    }

    fn start(&self, section: Section) -> (Arc<Worker>, AbortHandle) {
        let worker = Worker::new(section, self.options.node_uuid);
        let task = tokio::spawn(Arc::clone(&worker).run());
        (worker, task.abort_handle())
    }

    fn forget_all(&self) {
        self.volumes.lock().clear();
    }

    fn workers(&self, volume: &str) -> Option<Vec<Arc<Worker>>> {
        let volumes = self.volumes.lock();
        let volume = volumes.get(volume)?;
        Some(volume.workers.iter().map(|(worker, _)| Arc::clone(worker)).collect())
    }

    fn heal(&self, name: &str, full: bool) -> Reply {
        let Some(workers) = self.workers(name) else { return unknown(name) };
        if workers.is_empty() {
            return Reply::Error { message: format!("self-heal-daemon is off for volume {name}") };
        }
        if workers.iter().any(|worker| !worker.are_all_up()) {
            let message = format!("not all bricks of volume {name} are up; heal needs all of a replica set");
            return Reply::Error { message };
        }
        for worker in workers {
            worker.request(full);
        }
        Reply::Ok
    }

    fn progress(&self, name: &str) -> Reply {
        let Some(workers) = self.workers(name) else { return unknown(name) };
        let mut total = HealProgress::default();
        for snapshot in workers.iter().map(|worker| worker.progress()) {
            total.running |= snapshot.running;
            total.healed_entries += snapshot.healed_entries;
            total.failed_entries += snapshot.failed_entries;
            total.pending_entries += snapshot.pending_entries;
            total.bytes_copied += snapshot.bytes_copied;
            total.elapsed_ms = total.elapsed_ms.max(snapshot.elapsed_ms);
        }
        Reply::Progress(total)
    }

    fn crawls(&self, name: &str) -> Reply {
        let Some(workers) = self.workers(name) else { return unknown(name) };
        Reply::Crawls { subvolumes: workers.iter().flat_map(|worker| worker.crawls()).collect() }
    }
}

fn unknown(volume: &str) -> Reply {
    Reply::Error { message: format!("volume {volume} is not under the care of this heal daemon") }
}

/// The control socket's side of the daemon.
struct Control(Arc<Daemon>);

#[async_trait]
impl Handler for Control {
    async fn request(&self, request: Request) -> Reply {
        match request {
            Request::Status { .. } => Reply::Status(StatusReply { pid: std::process::id(), ..StatusReply::default() }),
            Request::Terminate => {
                self.0.stop.notify_one();
                Reply::Ok
            }
            Request::Reload => {
                for volume in self.0.options.volumes.clone() {
                    self.0.watch(volume);
                }
                Reply::Ok
            }
            Request::Heal { volume, full } => self.0.heal(&volume, full),
            Request::Progress { volume } => self.0.progress(&volume),
            Request::Crawls { volume } => self.0.crawls(&volume),
            Request::RebalanceStatus | Request::RebalanceControl { .. } => {
                Reply::Error { message: "this is a heal daemon, not a rebalance".to_owned() }
            }
        }
    }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "localhost".to_owned(), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A volfile that came before its volume was entered was once taken as done, and the node never healed.
    #[tokio::test]
    async fn a_volfile_of_a_volume_that_is_not_entered_is_not_taken_as_done() {
        let role = role::Options {
            server: "127.0.0.1:1".to_owned(),
            control: "/nowhere".into(),
            pid_file: None,
            log_file: None,
        };
        let server = getspec::endpoint(&role.server).unwrap();
        let options = Options { role, volumes: Vec::new(), node_uuid: Uuid::nil() };
        let daemon = Arc::new(Daemon { server, options, volumes: Mutex::default(), stop: Notify::new() });
        let volfile = include_str!("../../../../wire/tests/fixtures/volfiles/replica2.shd.vol");
        assert_eq!(daemon.load("imap0", volfile), Err("the volume is not under care".to_owned()));
        daemon.watch("imap0".to_owned());
        assert_eq!(daemon.load("imap0", volfile), Ok(()));
        assert_eq!(daemon.workers("imap0").map(|workers| workers.len()), Some(1));
    }
}
