//! How the daemon is started.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use crate::paths::Paths;

/// GlusterFS's port, which clients ask for volfiles.
pub const PORT: u16 = 24007;
/// The members' port.
pub const PEER_PORT: u16 = 24008;

#[derive(Debug, Clone)]
pub struct Options {
    pub data_dir: PathBuf,
    pub run_dir: PathBuf,
    pub log_dir: PathBuf,
    /// Where both ports and the bricks listen. On one address only, others of this machine are other nodes'.
    pub listen: IpAddr,
    pub port: u16,
    pub peer_port: u16,
    /// How the other members shall know this node; by default the host name, or the address when it listens on one only.
    pub node_name: Option<String>,
    /// What bricks and heald are started from; by default this executable.
    pub executable: Option<PathBuf>,
    /// That executable has the role `rebalance`. Without it, what needs files moved is refused before anything changes.
    pub moves_files: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            data_dir: "/var/lib/mortar".into(),
            run_dir: "/run/mortar".into(),
            log_dir: "/var/log/mortar".into(),
            listen: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: PORT,
            peer_port: PEER_PORT,
            node_name: None,
            executable: None,
            moves_files: false,
        }
    }
}

impl Options {
    pub(crate) fn paths(&self) -> Paths {
        Paths { data: self.data_dir.clone(), run: self.run_dir.clone(), log: self.log_dir.clone() }
    }

    /// The name this node gives itself.
    pub(crate) fn own_name(&self) -> String {
        match &self.node_name {
            Some(name) => name.clone(),
            None if self.listen.is_unspecified() => rustix::system::uname().nodename().to_string_lossy().into_owned(),
            None => self.listen.to_string(),
        }
    }
}
