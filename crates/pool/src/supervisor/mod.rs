//! Keeps the node's processes as the configuration wants them: a brick per local brick of a started volume, one heald,
//! a rebalance for each volume that is being rebalanced.
//!
//! They outlive this daemon. At its start it finds them by their control sockets and takes them over; one that has died
//! is started again, with a growing pause when it keeps dying.

mod ports;
mod process;
mod rebalance;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mortar_logic::pool::{State, Volume, VolumeState};
use mortar_logic::values::is_on;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

pub(crate) use ports::Ports;
use process::Report;
pub(crate) use process::{Running, Spec};

use crate::getspec::shared_brick_count;
use crate::paths::{Paths, replace_file};
use crate::portmap::Portmap;
use crate::raft::View;
use crate::volgen::{self, Surroundings};

/// Which process.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    Brick {
        volume: String,
        path: String,
    },
    Heald,
    /// This node's part of the volume's job.
    Rebalance {
        volume: String,
    },
}

/// Where the processes find this daemon, and what they are started from.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub paths: Paths,
    pub node: Uuid,
    pub listen: IpAddr,
    pub port: u16,
    pub executable: PathBuf,
}

/// A process that is to run.
struct Entry {
    /// What it was started with; a change restarts it.
    spec: Spec,
    /// A change of this alone makes it read its configuration again.
    configuration: String,
    report: watch::Receiver<Report>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// A process that is not up although it should be.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Missing {
    pub name: String,
    /// What it said when it ended at its start; `None`: it has not come up yet.
    pub why: Option<String>,
}

/// The table of processes.
pub(crate) struct Supervisor {
    settings: Settings,
    ports: Ports,
    portmap: Arc<Portmap>,
    entries: Mutex<HashMap<Key, Entry>>,
}

impl Supervisor {
    pub(crate) fn new(settings: Settings, portmap: Arc<Portmap>) -> Arc<Self> {
        let ports = Ports::load(settings.paths.ports(), settings.listen);
        Arc::new(Self { settings, ports, portmap, entries: Mutex::new(HashMap::new()) })
    }

    /// Follows the configuration until dropped.
    pub(crate) async fn follow(self: Arc<Self>, mut view: watch::Receiver<Arc<View>>) {
        let mut known: BTreeSet<String> = BTreeSet::new();
        loop {
            let now = view.borrow_and_update().clone();
            self.reconcile(&now.state);
            let names: BTreeSet<String> = now.state.volumes.keys().cloned().collect();
            for gone in known.difference(&names) {
                self.forget_volfiles(gone);
            }
            known = names;
            if view.changed().await.is_err() {
                return;
            }
        }
    }

    /// Volfiles are made from the configuration; those of a volume that is gone only confuse.
    fn forget_volfiles(&self, volume: &str) {
        let dir = self.settings.paths.volume_dir(volume);
        if let Err(error) = std::fs::remove_dir_all(&dir)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::info!(dir = %dir.display(), %error, "the deleted volume's volfiles stay");
        }
    }

    /// Starts what is missing, stops what is not wanted, tells the rest when its configuration changed.
    pub(crate) fn reconcile(&self, state: &State) {
        let wanted = self.wanted(state);
        let mut entries = self.entries.lock();
        let unwanted: Vec<Key> = entries
            .iter()
            .filter(|(key, entry)| {
                wanted.get(*key).is_none_or(|(spec, _)| *spec != entry.spec) || entry.task.is_finished()
            })
            .map(|(key, _)| key.clone())
            .collect();
        let mut stopping = HashMap::new();
        for key in unwanted {
            if let Some(entry) = entries.remove(&key) {
                entry.stop.send_replace(true);
                stopping.insert(key, entry.task);
            }
        }
        for (key, (spec, configuration)) in wanted {
            match entries.get_mut(&key) {
                Some(entry) if entry.configuration != configuration => {
                    self.write_configuration(&spec, &configuration);
                    entry.configuration = configuration;
                    tokio::spawn(process::reload(spec.control.clone()));
                }
                Some(_) => {}
                None => {
                    self.write_configuration(&spec, &configuration);
                    let before = stopping.remove(&key);
                    entries.insert(key, self.start(spec, configuration, before));
                }
            }
        }
    }

    fn start(&self, spec: Spec, configuration: String, before: Option<JoinHandle<()>>) -> Entry {
        let (stop, stopped) = watch::channel(false);
        let (report, reported) = watch::channel(Report::Unknown);
        let keeper = process::Keeper::new(spec.clone(), Arc::clone(&self.portmap), report, stopped);
        let task = tokio::spawn(async move {
            // The predecessor's socket and port must be free first.
            if let Some(before) = before {
                let _ = before.await;
            }
            keeper.keep().await;
        });
        Entry { spec, configuration, report: reported, stop, task }
    }

    fn write_configuration(&self, spec: &Spec, text: &str) {
        let Some(file) = &spec.volfile else { return };
        let written = match file.parent() {
            Some(dir) => std::fs::create_dir_all(dir).and_then(|()| replace_file(file, text.as_bytes())),
            None => Ok(()),
        };
        if let Err(error) = written {
            tracing::error!(file = %file.display(), %error, "the volfile could not be written");
        }
    }

    fn wanted(&self, state: &State) -> BTreeMap<Key, (Spec, String)> {
        let mut wanted = BTreeMap::new();
        let started = || state.volumes.values().filter(|volume| volume.state == VolumeState::Started);
        for volume in started() {
            for (index, brick) in
                volume.bricks.iter().enumerate().filter(|(_, brick)| brick.node == self.settings.node && !brick.reset)
            {
                let around = Surroundings {
                    data_dir: &self.settings.paths.data,
                    shared_brick_count: shared_brick_count(volume, index),
                };
                let Some(text) = volgen::brick(volume, index, around) else { continue };
                let key = Key::Brick { volume: volume.name.clone(), path: brick.path.clone() };
                wanted.insert(key, (self.brick_spec(volume, &brick.host, &brick.path), text));
            }
        }
        self.wanted_rebalances(state, &mut wanted);
        let healed: Vec<&Volume> = started().filter(|volume| heals(volume)).collect();
        if !healed.is_empty() {
            let names: Vec<String> = healed.iter().map(|volume| volume.name.clone()).collect();
            // heald fetches its volfiles itself and is told when they change.
            wanted.insert(Key::Heald, (self.heald_spec(&names), String::new()));
        }
        wanted
    }

    fn brick_spec(&self, volume: &Volume, host: &str, path: &str) -> Spec {
        let Settings { paths, node, listen, executable, .. } = &self.settings;
        let volfile = paths.brick_volfile(&volume.name, host, path);
        let port = self.ports.port_of(&volume.name, path);
        let pid_file = paths.brick_pid_file(&volume.name, host, path);
        let (control, log) = (paths.brick_control(&volume.name, path), paths.brick_log(path));
        let arguments = [
            ("--volfile", volfile.display().to_string()),
            ("--listen", listen.to_string()),
            ("--port", port.to_string()),
            ("--control", control.display().to_string()),
            ("--pid-file", pid_file.display().to_string()),
            ("--log-file", log.display().to_string()),
            ("--node-uuid", node.to_string()),
        ];
        Spec {
            name: format!("brick {host}:{path}"),
            executable: executable.clone(),
            arguments: command("brick", &arguments, &[]),
            volfile: Some(volfile),
            control,
            pid_file,
            log,
            brick: Some((path.to_owned(), volume.id)),
            finishes: false,
        }
    }

    /// Where this node's volfile server is found from this node.
    fn own_server(&self) -> SocketAddr {
        let Settings { listen, port, .. } = &self.settings;
        let server = if listen.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { *listen };
        SocketAddr::new(server, *port)
    }

    fn heald_spec(&self, volumes: &[String]) -> Spec {
        let Settings { paths, node, executable, .. } = &self.settings;
        let arguments = [
            ("--server", self.own_server().to_string()),
            ("--node-uuid", node.to_string()),
            ("--control", paths.heald_control().display().to_string()),
            ("--pid-file", paths.heald_pid_file().display().to_string()),
            ("--log-file", paths.heald_log().display().to_string()),
        ];
        Spec {
            name: "heald".to_owned(),
            executable: executable.clone(),
            arguments: command("heald", &arguments, volumes),
            volfile: None,
            control: paths.heald_control(),
            pid_file: paths.heald_pid_file(),
            log: paths.heald_log(),
            brick: None,
            finishes: false,
        }
    }

    /// The process as it runs now; `None` when it is not wanted or not up.
    pub(crate) fn running(&self, key: &Key) -> Option<Running> {
        self.entries.lock().get(key).and_then(|entry| entry.report.borrow().running().cloned())
    }

    /// Waits until the bricks of a volume are up or have failed to start, at most so long; answers those that are not up.
    pub(crate) async fn settle(&self, volume: &str, limit: Duration) -> Vec<Missing> {
        let mut missing = Vec::new();
        let deadline = tokio::time::Instant::now() + limit;
        for (name, mut report) in self.bricks_of(volume) {
            let settled = tokio::time::timeout_at(deadline, report.wait_for(|report| *report != Report::Unknown)).await;
            match settled.as_ref().map(|settled| settled.as_deref()) {
                Ok(Ok(Report::Running(_))) => {}
                Ok(Ok(Report::Failed(why))) => missing.push(Missing { name, why: Some(why.clone()) }),
                _ => missing.push(Missing { name, why: None }),
            }
        }
        missing
    }

    fn bricks_of(&self, wanted: &str) -> Vec<(String, watch::Receiver<Report>)> {
        let entries = self.entries.lock();
        let of_volume = entries.iter().filter(|(key, _)| matches!(key, Key::Brick { volume, .. } if volume == wanted));
        of_volume.map(|(_, entry)| (entry.spec.name.clone(), entry.report.clone())).collect()
    }

    /// Waits until no process of a volume runs any more, at most so long.
    pub(crate) async fn settle_stopped(&self, volume: &str, paths: &[String], limit: Duration) {
        let deadline = tokio::time::Instant::now() + limit;
        for path in paths {
            let control = self.settings.paths.brick_control(volume, path);
            while process::answers(&control).await && tokio::time::Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Ends all processes and waits for that: the node is shut down with its processes (quickstart, tests).
    pub(crate) async fn stop_all(&self) {
        let entries: Vec<Entry> = self.entries.lock().drain().map(|(_, entry)| entry).collect();
        for entry in &entries {
            entry.stop.send_replace(true);
        }
        for entry in entries {
            // A keeper that panicked has nothing to wait for.
            let _ = entry.task.await;
        }
    }

    /// Lets go of all processes without ending them.
    pub(crate) fn abandon(&self) {
        for (_, entry) in self.entries.lock().drain() {
            entry.task.abort();
        }
    }
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn command(role: &str, options: &[(&str, String)], volumes: &[String]) -> Vec<String> {
    let mut arguments = vec![role.to_owned()];
    for (option, value) in options {
        arguments.extend([(*option).to_owned(), value.clone()]);
    }
    for volume in volumes {
        arguments.extend(["--volume".to_owned(), volume.clone()]);
    }
    arguments
}

/// Whether heald works on a volume.
pub(crate) fn heals(volume: &Volume) -> bool {
    volume.is_replicate() && volume.option("cluster.self-heal-daemon").is_none_or(is_on)
}
