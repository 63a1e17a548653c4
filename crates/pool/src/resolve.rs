//! Which member a host name means.
//!
//! Names are compared with those the members are known by, then by address: what is this node's own, what the names of
//! the others resolve to. The answer is a uuid, so that nothing depends on how a name is written.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use mortar_logic::pool::State;
use uuid::Uuid;

/// The addresses of a host; none when it does not resolve.
pub(crate) async fn addresses(host: &str) -> BTreeSet<IpAddr> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match tokio::net::lookup_host((host, 0)).await {
        Ok(found) => found.map(|address| address.ip().to_canonical()).collect(),
        Err(_) => BTreeSet::new(),
    }
}

/// Whether the machine has this address: only then can a socket be bound to it (as `gf_is_local_addr` tries).
pub(crate) fn is_of_this_machine(address: IpAddr) -> bool {
    !address.is_unspecified() && UdpSocket::bind(SocketAddr::new(address, 0)).is_ok()
}

/// Whether the address means this node. A daemon that listens on one address only shares the machine with others, so
/// only that address is its own.
pub(crate) fn is_own(address: IpAddr, listen: IpAddr) -> bool {
    if listen.is_unspecified() { is_of_this_machine(address) } else { address == listen.to_canonical() }
}

/// The member that a name means, `None` when it is nobody's.
pub(crate) async fn member(state: &State, local: Uuid, listen: IpAddr, host: &str) -> Option<Uuid> {
    if let Some(named) = state.members.values().find(|member| member.is_named(host)) {
        return Some(named.uuid);
    }
    let wanted = addresses(host).await;
    if wanted.is_empty() {
        return None;
    }
    if wanted.iter().any(|address| is_own(*address, listen)) {
        return Some(local);
    }
    for member in state.members.values().filter(|member| member.uuid != local) {
        for name in member.names() {
            if !addresses(name).await.is_disjoint(&wanted) {
                return Some(member.uuid);
            }
        }
    }
    None
}

/// The name of an address by the hosts file, or the address itself. (A reverse look-up in DNS could take seconds.)
pub(crate) fn name_of(address: IpAddr) -> String {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    named_in(&hosts, address).unwrap_or_else(|| address.to_string())
}

fn named_in(hosts: &str, address: IpAddr) -> Option<String> {
    hosts.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let listed: IpAddr = words.next()?.parse().ok()?;
        (listed == address).then(|| words.next().map(str::to_owned)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use mortar_logic::pool::{Member, State};
    use uuid::Uuid;

    use super::{is_own, member, named_in};

    fn state() -> State {
        let mut state = State::default();
        for (number, hostname) in [(1, "127.77.9.1"), (2, "127.77.9.2")] {
            let uuid = Uuid::from_u128(number);
            let hostname = hostname.to_owned();
            let other_names = if number == 2 { vec!["gfs2".to_owned()] } else { Vec::new() };
            state.members.insert(uuid, Member { uuid, hostname, other_names, peer_port: 1, port: 2 });
        }
        state
    }

    #[tokio::test]
    async fn names_and_addresses_find_their_member() {
        let listen = IpAddr::V4(Ipv4Addr::new(127, 77, 9, 1));
        let local = Uuid::from_u128(1);
        for (host, found) in [("127.77.9.1", 1), ("127.77.9.2", 2), ("GFS2", 2)] {
            assert_eq!(member(&state(), local, listen, host).await, Some(Uuid::from_u128(found)), "{host}");
        }
        assert_eq!(member(&state(), local, listen, "127.77.9.3").await, None);
    }

    #[test]
    fn a_node_on_one_address_owns_only_that() {
        let here = IpAddr::V4(Ipv4Addr::new(127, 77, 9, 1));
        assert!(is_own(here, here));
        assert!(!is_own(IpAddr::V4(Ipv4Addr::LOCALHOST), here));
        assert!(is_own(IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
    }

    #[test]
    fn the_hosts_file_gives_names() {
        let hosts = "127.0.0.1 localhost\n10.0.0.11 gfs1 # first\n";
        assert_eq!(named_in(hosts, IpAddr::V4(Ipv4Addr::new(10, 0, 0, 11))).as_deref(), Some("gfs1"));
        assert_eq!(named_in(hosts, IpAddr::V4(Ipv4Addr::new(10, 0, 0, 12))), None);
    }
}
