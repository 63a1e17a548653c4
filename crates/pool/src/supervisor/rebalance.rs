//! The processes that do this node's parts of rebalances.

use std::collections::BTreeMap;

use mortar_logic::pool::{State, Task};

use super::{Key, Spec, Supervisor};
use crate::jobs::{api_mode, own_part};

impl Supervisor {
    /// One for each job that this node has something to do in.
    pub(super) fn wanted_rebalances(&self, state: &State, wanted: &mut BTreeMap<Key, (Spec, String)>) {
        for volume in state.volumes.values() {
            if let Some(task) = own_part(volume, self.settings.node) {
                let key = Key::Rebalance { volume: volume.name.clone() };
                // It fetches its volfile itself and is told when it changes.
                wanted.insert(key, (self.rebalance_spec(&volume.name, task), String::new()));
            }
        }
    }

    fn rebalance_spec(&self, volume: &str, task: &Task) -> Spec {
        let paths = &self.settings.paths;
        let mut arguments = vec!["rebalance".to_owned()];
        for (option, value) in [
            ("--server", self.own_server().to_string()),
            ("--volume", volume.to_owned()),
            ("--mode", api_mode(task.mode).as_str().to_owned()),
            ("--task", task.id.to_string()),
            ("--node-uuid", self.settings.node.to_string()),
            ("--checkpoint", paths.rebalance_checkpoint(volume).display().to_string()),
            ("--control", paths.rebalance_control(volume).display().to_string()),
            ("--pid-file", paths.rebalance_pid_file(volume).display().to_string()),
            ("--log-file", paths.rebalance_log(volume).display().to_string()),
        ] {
            arguments.extend([option.to_owned(), value]);
        }
        if let Some(path) = &task.path {
            arguments.extend(["--path".to_owned(), path.clone()]);
        }
        if task.dry_run {
            arguments.push("--dry-run".to_owned());
        }
        Spec {
            name: format!("rebalance of {volume}"),
            executable: self.settings.executable.clone(),
            arguments,
            volfile: None,
            control: paths.rebalance_control(volume),
            pid_file: paths.rebalance_pid_file(volume),
            log: paths.rebalance_log(volume),
            brick: None,
            finishes: true,
        }
    }

    /// Whether the wanted process for the volume's job runs.
    pub(crate) fn rebalances(&self, volume: &str) -> bool {
        self.running(&Key::Rebalance { volume: volume.to_owned() }).is_some()
    }
}
