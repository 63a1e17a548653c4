//! Who has looked at which inode, and when: bounded, forgetting the inode that was longest unused.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use mortar_types::{ClientId, Gfid};

/// Clients remembered per inode; of more, the longest silent one is forgotten. A volume has few mounts.
const CLIENTS_PER_INODE_MAX: usize = 256;

struct Viewers {
    /// Client and time of the last access.
    clients: Vec<(ClientId, Duration)>,
    /// Looked at since the inode was last considered for being forgotten ("second chance").
    used: bool,
}

pub(super) struct Memory {
    inodes: HashMap<Gfid, Viewers>,
    /// Every key of `inodes` once, next candidate first.
    order: VecDeque<Gfid>,
    inodes_max: usize,
}

impl Memory {
    pub(super) fn new(inodes_max: usize) -> Self {
        Self { inodes: HashMap::new(), order: VecDeque::new(), inodes_max: inodes_max.max(1) }
    }

    /// Notes an access. Answers the inode that had to be forgotten for it, with its viewers.
    pub(super) fn note(&mut self, gfid: Gfid, client: ClientId, now: Duration) -> Option<(Gfid, Vec<ClientId>)> {
        if let Some(viewers) = self.inodes.get_mut(&gfid) {
            viewers.note(client, now);
            return None;
        }
        let forgotten = if self.inodes.len() >= self.inodes_max { self.forget_one() } else { None };
        self.inodes.insert(gfid, Viewers { clients: vec![(client, now)], used: false });
        self.order.push_back(gfid);
        forgotten
    }

    /// The clients other than `but` that have looked at the inode within `timeout`.
    pub(super) fn others(&mut self, gfid: Gfid, but: ClientId, now: Duration, timeout: Duration) -> Vec<ClientId> {
        let Some(viewers) = self.inodes.get_mut(&gfid) else { return Vec::new() };
        viewers.clients.retain(|(_, seen)| now.saturating_sub(*seen) < timeout);
        viewers.clients.iter().map(|(client, _)| *client).filter(|client| *client != but).collect()
    }

    fn forget_one(&mut self) -> Option<(Gfid, Vec<ClientId>)> {
        loop {
            let gfid = self.order.pop_front()?;
            let viewers = self.inodes.get_mut(&gfid)?;
            if std::mem::take(&mut viewers.used) {
                self.order.push_back(gfid);
                continue;
            }
            let viewers = self.inodes.remove(&gfid)?;
            return Some((gfid, viewers.clients.into_iter().map(|(client, _)| client).collect()));
        }
    }
}

impl Viewers {
    fn note(&mut self, client: ClientId, now: Duration) {
        self.used = true;
        if let Some((_, seen)) = self.clients.iter_mut().find(|(known, _)| *known == client) {
            *seen = now;
            return;
        }
        if self.clients.len() >= CLIENTS_PER_INODE_MAX {
            let oldest = self.clients.iter().enumerate().min_by_key(|(_, (_, seen))| *seen).map(|(at, _)| at);
            if let Some(at) = oldest {
                self.clients.swap_remove(at);
            }
        }
        self.clients.push((client, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    fn gfid(number: u8) -> Gfid {
        Gfid([number; 16])
    }

    #[test]
    fn others_are_those_who_looked_lately() {
        let mut memory = Memory::new(10);
        memory.note(gfid(1), ClientId(1), Duration::ZERO);
        memory.note(gfid(1), ClientId(2), Duration::from_secs(30));
        let others = |memory: &mut Memory, now| memory.others(gfid(1), ClientId(3), Duration::from_secs(now), TIMEOUT);
        assert_eq!(others(&mut memory, 59), [ClientId(1), ClientId(2)]);
        assert_eq!(others(&mut memory, 60), [ClientId(2)]);
        assert_eq!(memory.others(gfid(1), ClientId(2), Duration::from_secs(60), TIMEOUT), []);
    }

    #[test]
    fn the_longest_unused_inode_is_forgotten_and_its_viewers_named() {
        let mut memory = Memory::new(2);
        memory.note(gfid(1), ClientId(1), Duration::ZERO);
        memory.note(gfid(2), ClientId(2), Duration::ZERO);
        memory.note(gfid(1), ClientId(1), Duration::ZERO);
        assert_eq!(memory.note(gfid(3), ClientId(3), Duration::ZERO), Some((gfid(2), vec![ClientId(2)])));
        assert_eq!(memory.inodes.len(), memory.order.len());
    }
}
