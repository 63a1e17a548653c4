//! Supplementary groups of callers. FUSE does not carry them, so they are read from `/proc/PID/status`, kept for a short
//! while, and not read at all for root, whom no brick asks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A caller: the process and the identity that it acts under.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Caller {
    pid: u32,
    uid: u32,
    gid: u32,
}

#[derive(Clone, Debug)]
struct Known {
    groups: Arc<[u32]>,
    until: Instant,
}

/// Groups by caller, believed for a fixed time (option `gid-timeout`).
#[derive(Debug)]
pub struct GroupCache {
    validity: Duration,
    known: Mutex<HashMap<Caller, Known>>,
    none: Arc<[u32]>,
}

impl GroupCache {
    /// Over this many callers the aged ones, or else all, are dropped.
    const CALLERS_MAX: usize = 1024;
    /// What an AUTH_GLUSTERFS credential has room for beside an 8-byte lock owner (`rpc-clnt.c`, 400 bytes of
    /// opaque_auth): more would make every request fail.
    const GROUPS_MAX: usize = 93;

    pub fn new(validity: Duration) -> Self {
        Self { validity, known: Mutex::default(), none: Arc::new([]) }
    }

    /// The supplementary groups of a process; none for root, for callers without a visible pid and for processes that
    /// ended meanwhile.
    pub fn groups(&self, pid: u32, uid: u32, gid: u32) -> Arc<[u32]> {
        if uid == 0 || pid == 0 {
            return Arc::clone(&self.none);
        }
        let (caller, now) = (Caller { pid, uid, gid }, Instant::now());
        if let Some(known) = self.known.lock().get(&caller)
            && known.until > now
        {
            return Arc::clone(&known.groups);
        }
        let groups: Arc<[u32]> = match std::fs::read_to_string(format!("/proc/{pid}/status")) {
            Ok(status) => parse(&status).into_iter().take(Self::GROUPS_MAX).collect(),
            Err(_) => Arc::clone(&self.none),
        };
        self.keep(caller, &groups, now);
        groups
    }

    fn keep(&self, caller: Caller, groups: &Arc<[u32]>, now: Instant) {
        let mut known = self.known.lock();
        if known.len() >= Self::CALLERS_MAX {
            known.retain(|_, entry| entry.until > now);
            if known.len() >= Self::CALLERS_MAX {
                known.clear();
            }
        }
        known.insert(caller, Known { groups: Arc::clone(groups), until: now + self.validity });
    }
}

/// The numbers of the line `Groups:`.
fn parse(status: &str) -> Vec<u32> {
    status
        .lines()
        .find_map(|line| line.strip_prefix("Groups:"))
        .map(|groups| groups.split_ascii_whitespace().filter_map(|group| group.parse().ok()).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_read_from_the_status_page() {
        let status = "Name:\tcat\nUid:\t0\t0\t0\t0\nGroups:\t4 24 27 \nNStgid:\t1\n";
        assert_eq!(parse(status), [4, 24, 27]);
        assert_eq!(parse("Name:\tcat\nGroups:\t \n"), [0_u32; 0]);
    }

    #[test]
    fn nothing_is_read_for_root_or_a_process_unseen() {
        let cache = GroupCache::new(Duration::from_secs(60));
        assert!(cache.groups(std::process::id(), 0, 0).is_empty());
        assert!(cache.groups(0, 1000, 1000).is_empty());
        assert!(cache.known.lock().is_empty());
    }

    #[test]
    fn the_number_of_callers_is_bounded() {
        let cache = GroupCache::new(Duration::from_secs(60));
        for gid in 0..3000 {
            cache.groups(std::process::id(), 1, gid);
        }
        assert!(cache.known.lock().len() <= GroupCache::CALLERS_MAX);
    }
}
