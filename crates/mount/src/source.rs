//! The source of a mount: `SERVER[,SERVER…]:[/]VOLUME[/SUBDIR]`, or a volfile on this machine.

use std::path::{Path, PathBuf};

/// The port of the management daemon.
pub const PORT: u16 = 24007;

/// Longest server name that is not passed over (`mount.glusterfs: HOST_NAME_MAX`).
const SERVER_BYTES_MAX: usize = 63;

/// Where the volume is described.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// A volume, known by these servers, asked in this order.
    Volume { servers: Vec<String>, volfile_id: String, subdir: Option<String> },
    /// A volfile.
    File(PathBuf),
}

/// Why a source is none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    #[error("{0:?} names no server and volume; write it as SERVER:/VOLUME")]
    Malformed(String),
    #[error("{0:?} has no server name that can be used")]
    NoServer(String),
}

impl Source {
    /// Reads the first argument of a mount. A readable file is a volfile; otherwise the last colon ends the servers,
    /// whose addresses may have colons of their own.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let path = Path::new(text);
        if path.is_file() {
            return Ok(Self::File(path.to_path_buf()));
        }
        let malformed = || Error::Malformed(text.to_owned());
        let (servers, volume) = text.rsplit_once(':').ok_or_else(malformed)?;
        if servers.is_empty() || servers.bytes().any(|byte| !is_server_byte(byte)) {
            return Err(malformed());
        }
        let servers = server_list(servers.split(','));
        if servers.is_empty() {
            return Err(Error::NoServer(text.to_owned()));
        }
        let (volfile_id, subdir) = split_volume(volume).ok_or_else(malformed)?;
        Ok(Self::Volume { servers, volfile_id, subdir })
    }

    /// Adds servers to be asked when the first ones do not answer.
    pub fn add_servers<'a>(&mut self, more: impl IntoIterator<Item = &'a str>) {
        if let Self::Volume { servers, .. } = self {
            for server in server_list(more) {
                if !servers.contains(&server) {
                    servers.push(server);
                }
            }
        }
    }

    /// Snapshots cannot be written to.
    pub fn is_snapshot(&self) -> bool {
        matches!(self, Self::Volume { volfile_id, .. } if volfile_id.starts_with("/snaps/"))
    }

    /// The volume's name without transport or slash, for messages and logs; the file name of a volfile.
    pub fn volume(&self) -> &str {
        match self {
            Self::Volume { volfile_id, .. } => volfile_id.trim_start_matches('/'),
            Self::File(path) => path.file_name().and_then(|name| name.to_str()).unwrap_or("volfile"),
        }
    }
}

/// Servers of a colon-separated list in which addresses with colons stand in brackets (`backup-volfile-servers`).
/// `None`: a bracket is missing.
pub fn backup_servers(list: &str) -> Option<Vec<String>> {
    let (mut servers, mut rest) = (Vec::new(), list);
    while !rest.is_empty() {
        let server;
        if let Some(bracketed) = rest.strip_prefix('[') {
            (server, rest) = bracketed.split_once(']')?;
            if !server.contains(':') {
                return None;
            }
            rest = match rest.strip_prefix(':') {
                Some(rest) => rest,
                None if rest.is_empty() => rest,
                None => return None,
            };
        } else {
            (server, rest) = rest.split_once(':').unwrap_or((rest, ""));
            if server.contains(['[', ']']) {
                return None;
            }
        }
        servers.extend(server_list([server]));
    }
    Some(servers)
}

fn server_list<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let usable = |name: &&str| !name.is_empty() && name.len() <= SERVER_BYTES_MAX;
    let mut servers: Vec<String> = Vec::new();
    for name in names.into_iter().filter(usable) {
        if !servers.iter().any(|known| known == name) {
            servers.push(name.to_owned());
        }
    }
    servers
}

/// Volfile id and sub-directory. A leading slash stays with the id, as glusterfs sends it. `/snaps/SNAP/VOLUME` has
/// slashes of its own.
fn split_volume(volume: &str) -> Option<(String, Option<String>)> {
    let (slash, name) = match volume.strip_prefix('/') {
        Some(name) => ("/", name),
        None => ("", volume),
    };
    let name = name.split(' ').next().unwrap_or_default();
    let (first, rest) = name.split_once('/').unwrap_or((name, ""));
    if first.is_empty() {
        return None;
    }
    if first == "snaps" {
        return Some((format!("{slash}{name}"), None));
    }
    let subdir = rest.trim_matches('/');
    let subdir = (!subdir.is_empty()).then(|| format!("/{subdir}"));
    Some((format!("{slash}{first}"), subdir))
}

const fn is_server_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'%' | b',' | b'.' | b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(text: &str) -> (Vec<String>, String, Option<String>) {
        match Source::parse(text) {
            Ok(Source::Volume { servers, volfile_id, subdir }) => (servers, volfile_id, subdir),
            other => panic!("{text}: {other:?}"),
        }
    }

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn one_server_and_a_volume_with_or_without_slash() {
        assert_eq!(volume("gfs1:/imap0"), (owned(&["gfs1"]), "/imap0".into(), None));
        assert_eq!(volume("gfs1:imap0"), (owned(&["gfs1"]), "imap0".into(), None));
    }

    #[test]
    fn several_servers_without_repetition() {
        assert_eq!(volume("gfs1,gfs2,gfs1:/imap0").0, owned(&["gfs1", "gfs2"]));
    }

    #[test]
    fn an_address_with_colons_ends_at_the_last_one() {
        assert_eq!(volume("fe80::1%eth0:/imap0").0, owned(&["fe80::1%eth0"]));
    }

    #[test]
    fn a_subdirectory_follows_the_volume() {
        assert_eq!(volume("gfs1:/imap0/user/a/"), (owned(&["gfs1"]), "/imap0".into(), Some("/user/a".into())));
    }

    #[test]
    fn a_snapshot_keeps_its_path_and_is_read_only() {
        let source = Source::parse("gfs1:/snaps/s1/imap0").unwrap();
        assert!(source.is_snapshot());
        assert_eq!(volume("gfs1:/snaps/s1/imap0").1, "/snaps/s1/imap0");
    }

    #[test]
    fn what_names_no_server_or_volume_is_refused() {
        for text in ["imap0", ":/imap0", "gfs1:", "gfs1:/", "gfs 1:/imap0", ""] {
            assert!(Source::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_beyond_64_bytes_is_passed_over() {
        let long = "x".repeat(64);
        assert_eq!(volume(&format!("{long},gfs2:/imap0")).0, owned(&["gfs2"]));
        assert!(matches!(Source::parse(&format!("{long}:/imap0")), Err(Error::NoServer(_))));
    }

    #[test]
    fn backup_servers_are_separated_by_colons() {
        assert_eq!(backup_servers("gfs2:gfs3"), Some(owned(&["gfs2", "gfs3"])));
        assert_eq!(backup_servers("gfs2:[fe80::1]:gfs3"), Some(owned(&["gfs2", "fe80::1", "gfs3"])));
        assert_eq!(backup_servers("[fe80::1"), None);
        assert_eq!(backup_servers("[gfs2]"), None);
    }
}
