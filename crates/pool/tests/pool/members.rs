//! Pools: probe, status, loss, return, detach, recovery.

use std::time::Duration;

use mortar_api::ErrorKind;
use mortar_api::peer::{Detach, Probe, Probed, Recover};
use mortar_api::volume::{Info, Names, Set};

use crate::cluster::{Node, replica_2, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_form_a_pool() {
    let first = Node::up("127.78.1.1", 34110).await;
    let second = Node::up("127.78.1.2", 34110).await;
    first.probe(&second).await;
    for (node, other) in [(&first, &second), (&second, &first)] {
        wait_for("the other to be connected", Duration::from_secs(3), async || {
            node.members().await.peers.first().is_some_and(|peer| peer.connected && peer.voter)
        })
        .await;
        let members = node.members().await;
        assert_eq!(members.peers[0].hostname, other.address.to_string());
        assert!(members.freshness.quorum);
    }
    let probe = |host: &str| Probe { host: host.to_owned() };
    assert_eq!(first.must(&probe("127.78.1.2")).await, Probed::AlreadyMember);
    assert_eq!(second.must(&probe("127.78.1.1")).await, Probed::AlreadyMember);
    assert_eq!(first.must(&probe("127.78.1.1")).await, Probed::Localhost);
    first.end().await;
    second.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_that_fail() {
    let first = Node::up("127.78.2.1", 34120).await;
    let refused = |host: &str| Probe { host: host.to_owned() };
    for host in ["127.78.2.9", "no-such-host.invalid"] {
        let error = first.refused(&refused(host)).await;
        assert_eq!(error.message, "Probe returned with Transport endpoint is not connected");
        assert_eq!(error.kind, ErrorKind::Unreachable);
    }
    let [second, third] = [Node::up("127.78.2.2", 34120).await, Node::up("127.78.2.3", 34120).await];
    second.probe(&third).await;
    let error = first.refused(&refused("127.78.2.2")).await;
    assert_eq!(error.message, "127.78.2.2 is either already part of another cluster or having volumes configured");
    for node in [first, second, third] {
        node.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_of_two_without_one() {
    let first = Node::up("127.78.3.1", 34130).await;
    let mut second = Node::up("127.78.3.2", 34130).await;
    first.probe(&second).await;
    first.must(&replica_2("imap0", [first.brick("b"), second.brick("b")])).await;
    second.stop().await;
    wait_for("the loss to be seen", Duration::from_secs(2), async || !first.members().await.peers[0].connected).await;

    let set = Set { name: "imap0".to_owned(), options: vec![("network.ping-timeout".to_owned(), "20".to_owned())] };
    let error = first.refused(&set).await;
    assert_eq!(error.kind, ErrorKind::NoQuorum);
    assert!(error.message.contains("1 of 2 voting members answers"), "{error}");
    assert!(error.message.contains("add a third member") && error.message.contains("mortar pool recover"), "{error}");
    let info = first.must(&Info { name: None }).await;
    assert_eq!((info.volumes.len(), info.freshness.quorum), (1, false));

    second.start().await;
    wait_for("the return to be seen", Duration::from_secs(5), async || first.members().await.peers[0].connected).await;
    first.must(&set).await;
    wait_for("the other to have the change", Duration::from_secs(3), async || {
        let options = second.must(&Info { name: None }).await.volumes[0].options.clone();
        options.contains(&("network.ping-timeout".to_owned(), "20".to_owned()))
    })
    .await;
    first.end().await;
    second.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_away_catches_up() {
    let first = Node::up("127.78.4.1", 34140).await;
    let second = Node::up("127.78.4.2", 34140).await;
    let mut third = Node::up("127.78.4.3", 34140).await;
    first.probe(&second).await;
    first.probe(&third).await;
    third.stop().await;
    first.must(&replica_2("imap0", [first.brick("b"), second.brick("b")])).await;
    third.start().await;
    wait_for("the volume on the third", Duration::from_secs(6), async || third.must(&Names {}).await == ["imap0"])
        .await;
    // It may change the configuration as well, through the leader.
    let set = Set { name: "imap0".to_owned(), options: vec![("cluster.quorum-type".to_owned(), "auto".to_owned())] };
    third.must(&set).await;
    for node in [first, second, third] {
        node.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn detached_nodes_are_free_again() {
    let first = Node::up("127.78.5.1", 34150).await;
    let second = Node::up("127.78.5.2", 34150).await;
    first.probe(&second).await;
    let detach = |host: &str| Detach { host: host.to_owned(), force: false };
    assert_eq!(first.refused(&detach("127.78.5.1")).await.message, "127.78.5.1 is localhost");
    assert_eq!(first.refused(&detach("127.78.5.9")).await.message, "127.78.5.9 is not part of cluster");
    first.must(&detach("127.78.5.2")).await;
    assert!(first.members().await.peers.is_empty());
    wait_for("the second to be alone", Duration::from_secs(5), async || {
        let members = second.members().await;
        members.peers.is_empty() && members.freshness.quorum
    })
    .await;
    second.probe(&first).await;
    first.end().await;
    second.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_bricks_stay() {
    let first = Node::up("127.78.6.1", 34160).await;
    let mut second = Node::up("127.78.6.2", 34160).await;
    first.probe(&second).await;
    first.must(&replica_2("imap0", [first.brick("b"), second.brick("b")])).await;
    let detach = Detach { host: "127.78.6.2".to_owned(), force: true };
    let error = first.refused(&detach).await;
    assert!(error.message.starts_with("Peer 127.78.6.2 hosts one or more bricks. If the peer"), "{error}");
    second.stop().await;
    first.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_detached_while_away_learns_of_it() {
    let first = Node::up("127.78.7.1", 34170).await;
    let second = Node::up("127.78.7.2", 34170).await;
    let mut third = Node::up("127.78.7.3", 34170).await;
    first.probe(&second).await;
    first.probe(&third).await;
    third.stop().await;
    wait_for("the loss", Duration::from_secs(3), async || {
        first.members().await.peers.iter().filter(|peer| !peer.connected).count() == 1
    })
    .await;
    let detach = |force| Detach { host: "127.78.7.3".to_owned(), force };
    let error = first.refused(&detach(false)).await;
    assert_eq!(error.message, "One of the peers is probably down. Check with 'peer status'");
    first.must(&detach(true)).await;
    third.start().await;
    wait_for("the third to be alone", Duration::from_secs(8), async || {
        let members = third.members().await;
        members.peers.is_empty() && members.freshness.quorum
    })
    .await;
    for node in [first, second, third] {
        node.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_survivor_of_two_recovers_and_the_other_rejoins() {
    let mut first = Node::up("127.78.8.1", 34180).await;
    let mut second = Node::up("127.78.8.2", 34180).await;
    first.probe(&second).await;
    first.must(&replica_2("imap0", [first.brick("b"), second.brick("b")])).await;
    let recover = |confirmed| Recover { confirmed };
    assert_eq!(first.refused(&recover(true)).await.kind, ErrorKind::Conflict, "nothing is lost yet");
    second.stop().await;
    wait_for("the loss", Duration::from_secs(3), async || !first.members().await.freshness.quorum).await;
    assert_eq!(first.refused(&recover(false)).await.kind, ErrorKind::Invalid);
    first.must(&recover(true)).await;
    let set = Set { name: "imap0".to_owned(), options: vec![("cluster.quorum-type".to_owned(), "auto".to_owned())] };
    first.must(&set).await;
    // Both survive a restart in their new state.
    first.stop().await;
    first.start().await;
    wait_for("a leader", Duration::from_secs(4), async || first.members().await.freshness.quorum).await;
    second.start().await;
    wait_for("the other to be a member again", Duration::from_secs(10), async || {
        let members = first.members().await;
        members.peers[0].connected && members.peers[0].voter
    })
    .await;
    wait_for("the configuration on the other", Duration::from_secs(3), async || {
        let volumes = second.must(&Info { name: None }).await.volumes;
        volumes.iter().any(|volume| volume.options.contains(&("cluster.quorum-type".to_owned(), "auto".to_owned())))
    })
    .await;
    first.end().await;
    second.end().await;
}
