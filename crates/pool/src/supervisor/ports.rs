//! Ports of bricks: free ones from GlusterFS's range, the same for a brick over restarts where that is possible.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;

use parking_lot::Mutex;

use crate::paths::replace_file;

/// GlusterFS 10's `base-port` and `max-port`.
const RANGE: std::ops::RangeInclusive<u16> = 49152..=60999;

/// The remembered ports.
#[derive(Debug)]
pub(crate) struct Ports {
    file: PathBuf,
    listen: IpAddr,
    /// By `VOLUME:PATH`.
    known: Mutex<BTreeMap<String, u16>>,
}

impl Ports {
    /// A damaged or missing file only means that ports are drawn anew.
    pub(crate) fn load(file: PathBuf, listen: IpAddr) -> Self {
        let known = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self { file, listen, known: Mutex::new(known.unwrap_or_default()) }
    }

    /// The brick's port; drawn when it has none yet.
    pub(crate) fn port_of(&self, volume: &str, path: &str) -> u16 {
        let key = format!("{volume}:{path}");
        let (port, snapshot) = {
            let mut known = self.known.lock();
            if let Some(port) = known.get(&key) {
                return *port;
            }
            let port = draw(|port| known.values().all(|taken| *taken != port) && is_free(self.listen, port));
            known.insert(key, port);
            (port, known.clone())
        };
        self.save(&snapshot);
        port
    }

    fn save(&self, known: &BTreeMap<String, u16>) {
        let written =
            serde_json::to_vec(known).map_err(std::io::Error::other).and_then(|text| replace_file(&self.file, &text));
        if let Err(error) = written {
            tracing::warn!(%error, "the bricks' ports could not be remembered");
        }
    }
}

fn is_free(listen: IpAddr, port: u16) -> bool {
    TcpListener::bind(SocketAddr::new(listen, port)).is_ok()
}

/// A random port that fits, or the last one tried: the brick itself says so when it cannot listen.
fn draw(fits: impl Fn(u16) -> bool) -> u16 {
    const ATTEMPTS: u32 = 1000;
    let mut port = *RANGE.start();
    for _ in 0..ATTEMPTS {
        port = rand::random_range(RANGE);
        if fits(port) {
            break;
        }
    }
    port
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::{Ports, RANGE};

    #[test]
    fn a_brick_keeps_its_port() {
        let dir = tempfile::tempdir().expect("a directory");
        let load = || Ports::load(dir.path().join("ports.json"), IpAddr::V4(Ipv4Addr::LOCALHOST));
        let port = load().port_of("v", "/b");
        assert!(RANGE.contains(&port));
        assert_eq!(load().port_of("v", "/b"), port);
        assert_ne!(load().port_of("v", "/c"), port);
    }
}
