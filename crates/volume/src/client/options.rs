//! What a brick connection is told, and how it introduces itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mortar_logic::values::is_on;
use mortar_wire::volfile::VolfileVolume;
use uuid::Uuid;

/// Where glusterd listens.
pub const GLUSTERD_PORT: u16 = 24007;

/// The default of `network.ping-timeout`, for which ours stands.
const GLUSTERFS_PING_TIMEOUT_SECS: u32 = 42;
/// A brick that owes an answer and is silent for so long is left, unless the volume says otherwise.
const SILENCE: Duration = Duration::from_secs(1);
/// An attempt on a host that is away ends after so long: the kernel repeats its own after 1, 3 and 7 s, and a host that
/// returns in between would wait for that.
const CONNECT: Duration = Duration::from_millis(600);

/// Who this process is to the bricks. One per process; every graph of it counts on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Made anew for each process.
    pub process: Uuid,
    pub pid: u32,
    pub hostname: String,
    /// Which of the process's graphs, from 0.
    pub graph: u64,
}

impl Identity {
    /// The next graph of this process.
    pub fn of_process(hostname: impl Into<String>) -> Self {
        static PROCESS: std::sync::OnceLock<Uuid> = std::sync::OnceLock::new();
        static GRAPHS: AtomicU64 = AtomicU64::new(0);
        Self {
            process: *PROCESS.get_or_init(Uuid::new_v4),
            pid: std::process::id(),
            hostname: hostname.into(),
            graph: GRAPHS.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// `process-uuid` of SETVOLUME, in the form of `client-handshake.c`: bricks know a connection by it, so it never
    /// repeats.
    pub(super) fn text(&self, client: &str, attempt: u64) -> String {
        let Self { process, pid, hostname, graph } = self;
        format!("CTX_ID:{process}-GRAPH_ID:{graph}-PID:{pid}-HOST:{hostname}-PC_NAME:{client}-RECON_NO:-{attempt}")
    }
}

/// Options of one brick connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// The layer's name, such as `imap0-client-0`.
    pub name: String,
    /// The brick's host (`remote-host`); a name may have several addresses.
    pub host: String,
    /// The brick's path (`remote-subvolume`).
    pub subvolume: String,
    /// The brick's port (`remote-port`); `None`: asked from the host's glusterd.
    pub port: Option<u16>,
    pub glusterd_port: u16,
    /// From trusted volfiles.
    pub username: Option<String>,
    pub password: Option<String>,
    /// A brick from which nothing comes for so long is given up; zero: never.
    pub ping_timeout: Duration,
    /// The way to one address of the host may take so long.
    pub connect_timeout: Duration,
    /// Each question on the way from there may take so long.
    pub step_timeout: Duration,
    pub frame_timeout: Duration,
    /// What bricks show as the client's kind (`fuse`, `glustershd`, …).
    pub process_name: String,
    /// What the volfile was asked by, such as `/imap0`.
    pub volfile_key: String,
    /// The directory that is this client's root, when it is not the volume's.
    pub subdir: Option<String>,
    pub identity: Identity,
}

/// Why a volfile section cannot be a brick connection.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OptionsError {
    #[error("volume {volume}: option {key} is missing")]
    Missing { volume: String, key: &'static str },
    #[error("volume {volume}: option {key} has the value {value:?}, expected a number")]
    BadNumber { volume: String, key: &'static str, value: String },
    #[error("volume {volume}: TLS between client and bricks is not served; set client.ssl and server.ssl off")]
    Tls { volume: String },
}

impl Options {
    pub fn new(name: impl Into<String>, host: impl Into<String>, subvolume: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            host: host.into(),
            subvolume: subvolume.into(),
            port: None,
            glusterd_port: GLUSTERD_PORT,
            username: None,
            password: None,
            ping_timeout: SILENCE,
            connect_timeout: CONNECT,
            step_timeout: Duration::from_secs(10),
            frame_timeout: Duration::from_secs(1800),
            process_name: "mortar".to_owned(),
            volfile_key: String::new(),
            subdir: None,
            identity: Identity::of_process("localhost"),
        }
    }

    /// Reads a section of type `protocol/client`. Options that only the bricks look at are left alone.
    pub fn from_volfile(section: &VolfileVolume, identity: &Identity) -> Result<Self, OptionsError> {
        let required =
            |key| section.option(key).ok_or_else(|| OptionsError::Missing { volume: section.name.clone(), key });
        if section.option("transport.socket.ssl-enabled").is_some_and(is_on) {
            return Err(OptionsError::Tls { volume: section.name.clone() });
        }
        let mut options = Self::new(section.name.clone(), required("remote-host")?, required("remote-subvolume")?);
        options.identity = identity.clone();
        options.port = number(section, "remote-port")?;
        options.username = section.option("username").map(str::to_owned);
        options.password = section.option("password").map(str::to_owned);
        match number::<u32>(section, "ping-timeout")? {
            // Generated volfiles always have it: nobody's choice.
            None | Some(GLUSTERFS_PING_TIMEOUT_SECS) => {}
            Some(seconds) => options.ping_timeout = Duration::from_secs(seconds.into()),
        }
        if let Some(seconds) = number::<u32>(section, "frame-timeout")? {
            options.frame_timeout = Duration::from_secs(seconds.into());
        }
        Ok(options)
    }
}

fn number<N: std::str::FromStr>(section: &VolfileVolume, key: &'static str) -> Result<Option<N>, OptionsError> {
    let Some(value) = section.option(key) else { return Ok(None) };
    value.parse().map(Some).map_err(|_| OptionsError::BadNumber {
        volume: section.name.clone(),
        key,
        value: value.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_section_is_read() {
        let text = include_str!("../../../wire/tests/fixtures/volfiles/replica2.trusted-client.vol");
        let volfile = mortar_wire::volfile::Volfile::parse(text).unwrap();
        let options = Options::from_volfile(&volfile.volumes[0], &Identity::of_process("h")).unwrap();
        assert_eq!((&options.name[..], &options.host[..]), ("imap0-client-0", "gfs1"));
        assert_eq!((&options.subvolume[..], options.ping_timeout.as_secs()), ("/srv/gfs/brick", 1));
        assert!(options.username.is_some() && options.port.is_none());
    }

    #[test]
    fn what_is_missing_or_not_served_is_said() {
        let identity = Identity::of_process("h");
        let section = VolfileVolume::new("c", "protocol/client").with_option("remote-host", "h");
        let error = Options::from_volfile(&section, &identity).unwrap_err();
        assert_eq!(error.to_string(), "volume c: option remote-subvolume is missing");
        let section = section.with_option("remote-subvolume", "/b").with_option("transport.socket.ssl-enabled", "on");
        assert!(matches!(Options::from_volfile(&section, &identity), Err(OptionsError::Tls { .. })));
    }

    #[test]
    fn the_identity_has_glusterfs_form_and_graphs_differ() {
        let (one, two) = (Identity::of_process("host"), Identity::of_process("host"));
        assert_eq!(one.process, two.process);
        assert_ne!(one.graph, two.graph);
        let text = one.text("imap0-client-0", 3);
        assert!(text.starts_with("CTX_ID:") && text.ends_with("-HOST:host-PC_NAME:imap0-client-0-RECON_NO:-3"));
    }
}
