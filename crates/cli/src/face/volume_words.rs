//! Words and numbers that GlusterFS has for a volume's type and state.

use mortar_api::peer::PeerState;
use mortar_api::volume::{Layout, State, Volume};

/// `Distributed-Replicate` and the like (`cli/src/cli-rpc-ops.c: vol_type_str`).
pub fn type_text(volume: &Volume) -> &'static str {
    let many = groups(volume) > 1;
    match (volume.layout, many) {
        (Layout::Distribute, _) => "Distribute",
        (Layout::Replicate { .. }, false) => "Replicate",
        (Layout::Replicate { .. }, true) => "Distributed-Replicate",
        (Layout::Disperse { .. }, false) => "Disperse",
        (Layout::Disperse { .. }, true) => "Distributed-Disperse",
    }
}

/// The type's number in XML.
pub fn type_number(volume: &Volume) -> u32 {
    let many = groups(volume) > 1;
    match (volume.layout, many) {
        (Layout::Distribute, _) => 0,
        (Layout::Replicate { .. }, false) => 2,
        (Layout::Disperse { .. }, false) => 4,
        (Layout::Replicate { .. }, true) => 7,
        (Layout::Disperse { .. }, true) => 9,
    }
}

/// Subvolumes of the volume.
pub fn groups(volume: &Volume) -> usize {
    volume.bricks.len() / (volume.layout.group().max(1) as usize)
}

/// `1 x (2 + 1) = 3`.
pub fn brick_count(volume: &Volume) -> String {
    let total = volume.bricks.len();
    let groups = groups(volume);
    match volume.layout {
        Layout::Distribute => total.to_string(),
        Layout::Replicate { replica, arbiter: 0 } => format!("{groups} x {replica} = {total}"),
        Layout::Replicate { replica, arbiter } => {
            format!("{groups} x ({} + {arbiter}) = {total}", replica.saturating_sub(arbiter))
        }
        Layout::Disperse { data, redundancy } => format!("{groups} x ({data} + {redundancy}) = {total}"),
    }
}

pub const fn state_text(state: State) -> &'static str {
    match state {
        State::Created => "Created",
        State::Started => "Started",
        State::Stopped => "Stopped",
    }
}

pub const fn state_number(state: State) -> u32 {
    match state {
        State::Created => 0,
        State::Started => 1,
        State::Stopped => 2,
    }
}

/// The state's number and words in `peer status` (`glusterd-sm.c`).
pub const fn peer_state(state: PeerState) -> (u32, &'static str) {
    match state {
        PeerState::ProbeSent => (1, "Probe Sent to Peer"),
        PeerState::InCluster => (3, "Peer in Cluster"),
        PeerState::Detaching => (7, "Peer detach in progress"),
    }
}

/// `64.0MB`: GlusterFS's `gf_uint64_2human_readable`.
pub fn human_size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 5] =
        [("PB", 1 << 50), ("TB", 1 << 40), ("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)];
    for (unit, size) in UNITS {
        if bytes >= size {
            return format!("{:.1}{unit}", bytes as f64 / size as f64);
        }
    }
    format!("{bytes}Bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_glusterfs_prints_them() {
        assert_eq!(human_size(152), "152Bytes");
        assert_eq!(human_size(270_553_174_016), "252.0GB");
    }
}
