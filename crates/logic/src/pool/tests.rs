//! Each refusal's words, and what accepted commands change. The texts are those of data/cli/*.txt.

use proptest::prelude::{Strategy, any, prop_oneof, proptest};
use uuid::Uuid;

use super::{Applied, Command, Layout, Member, NewBrick, NewVolume, Refusal, State, VolumeState, apply, check};

fn node(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn member(number: u128) -> Member {
    Member {
        uuid: node(number),
        hostname: format!("node{number}"),
        other_names: Vec::new(),
        peer_port: 24008,
        port: 24007,
    }
}

fn pool() -> State {
    let mut state = State::default();
    apply(&mut state, Command::Form { pool_id: node(99), member: member(1) }).expect("forms");
    for number in 2..=3 {
        apply(&mut state, Command::AddMember { member: member(number) }).expect("adds");
    }
    state
}

fn new(name: &str, layout: Layout, bricks: &[&str]) -> NewVolume {
    let bricks = bricks
        .iter()
        .map(|brick| {
            let (host, path) = brick.split_once(':').expect("HOST:/path");
            let number = host.strip_prefix("node").and_then(|number| number.parse().ok());
            NewBrick { host: host.to_owned(), node: number.map(node), path: path.to_owned() }
        })
        .collect();
    NewVolume {
        name: name.to_owned(),
        id: node(7),
        layout,
        bricks,
        force: false,
        username: node(8),
        password: node(9),
        created_ms: 5,
    }
}

const REPLICA_2: Layout = Layout::Replicate { replica: 2, arbiter: 0 };

fn create(state: &mut State, name: &str, layout: Layout, bricks: &[&str]) -> Result<Applied, Refusal> {
    apply(state, Command::CreateVolume(new(name, layout, bricks)))
}

fn with_one() -> State {
    let mut state = pool();
    create(&mut state, "one", Layout::Distribute, &["node1:/bricks/one"]).expect("creates");
    state
}

fn with_rep2() -> State {
    let mut state = pool();
    create(&mut state, "rep2", REPLICA_2, &["node1:/b/r", "node2:/b/r"]).expect("creates");
    state
}

fn refused(state: &State, command: Command) -> String {
    check(state, &command).expect_err("is refused").to_string()
}

fn create_refused(state: &State, layout: Layout, bricks: &[&str]) -> String {
    refused(state, Command::CreateVolume(new("two", layout, bricks)))
}

fn set(state: &State, volume: &str, key: &str, value: &str) -> Result<State, String> {
    let mut state = state.clone();
    let options = vec![(key.to_owned(), value.to_owned())];
    apply(&mut state, Command::SetOptions { volume: volume.to_owned(), options })
        .map(|_| state)
        .map_err(|refusal| refusal.to_string())
}

#[test]
fn a_name_is_used_once() {
    let command = Command::CreateVolume(new("one", Layout::Distribute, &["node1:/bricks/one2"]));
    assert_eq!(refused(&with_one(), command), "Volume one already exists");
}

#[test]
fn bricks_do_not_overlap() {
    let text = |path: &str| {
        format!("Brick: node1:{path} not available. Brick may be containing or be contained by an existing brick.")
    };
    for path in ["/bricks/one", "/bricks/one/sub", "/bricks", "/bricks//one/"] {
        assert_eq!(create_refused(&with_one(), Layout::Distribute, &[&format!("node1:{path}")]), text(path));
    }
    assert!(create(&mut with_one(), "two", Layout::Distribute, &["node1:/bricks/one2"]).is_ok());
    assert!(create(&mut with_one(), "two", Layout::Distribute, &["node2:/bricks/one"]).is_ok());
    assert_eq!(create_refused(&pool(), Layout::Distribute, &["node1:/b", "node1:/b"]), text("/b"));
}

#[test]
fn the_host_must_be_a_member() {
    let text = create_refused(&pool(), Layout::Distribute, &["otherhost:/x"]);
    assert_eq!(text, "Host otherhost is not in 'Peer in Cluster' state");
    let text = create_refused(&pool(), Layout::Distribute, &["node9:/x"]);
    assert_eq!(text, "Host node9 is not in 'Peer in Cluster' state");
}

#[test]
fn brick_count_must_be_a_multiple_of_the_group() {
    let bricks = ["node1:/x", "node2:/x", "node3:/x"];
    assert_eq!(create_refused(&pool(), REPLICA_2, &bricks), "Failed to create volume files");
    let impossible = Layout::Disperse { data: 1, redundancy: 1 };
    assert_eq!(create_refused(&pool(), impossible, &bricks[..2]), "Failed to create volume files");
    assert_eq!(create_refused(&pool(), Layout::Distribute, &[]), "Failed to create volume files");
}

#[test]
fn replicas_on_one_host_need_force() {
    assert_eq!(
        create_refused(&pool(), REPLICA_2, &["node1:/x", "node1:/y"]),
        "Multiple bricks of a replicate volume are present on the same server. This setup is not optimal. Bricks should be on \
         different nodes to have best fault tolerant configuration. Use 'force' at the end of the command if you want to \
         override this behavior. "
    );
    let forced = NewVolume { force: true, ..new("two", REPLICA_2, &["node1:/x", "node1:/y"]) };
    assert!(apply(&mut pool(), Command::CreateVolume(forced)).is_ok());
}

#[test]
fn bad_names() {
    let bad = |name: &str| refused(&pool(), Command::CreateVolume(new(name, Layout::Distribute, &["node1:/x"])));
    assert_eq!(bad("all"), "\"all\" cannot be the name of a volume.");
    assert!(bad("a/b").starts_with("Volume name a/b contains"));
    assert!(bad("../x").contains("cannot be"));
    assert!(bad(&"x".repeat(256)).ends_with("is too long"));
}

#[test]
fn a_new_replicated_volume() {
    let state = with_rep2();
    let volume = &state.volumes["rep2"];
    assert_eq!(volume.state, VolumeState::Created);
    assert_eq!(volume.bricks[1].brick_id, "rep2-client-1");
    let newest_first: Vec<_> = volume.options.iter().rev().map(|(key, value)| format!("{key}: {value}")).collect();
    assert_eq!(
        newest_first,
        [
            "cluster.granular-entry-heal: on",
            "storage.fips-mode-rchecksum: on",
            "transport.address-family: inet",
            "nfs.disable: on",
            "performance.client-io-threads: off",
        ]
    );
}

#[test]
fn the_last_brick_of_each_group_is_the_arbiter() {
    let mut state = pool();
    let layout = Layout::Replicate { replica: 3, arbiter: 1 };
    create(&mut state, "arb", layout, &["node1:/a", "node2:/a", "node3:/a"]).expect("creates");
    let arbiters: Vec<_> = state.volumes["arb"].bricks.iter().map(|brick| brick.arbiter).collect();
    assert_eq!(arbiters, [false, false, true]);
}

#[test]
fn start_stop_delete() {
    let mut state = with_one();
    let name = "one".to_owned();
    let start = |force| Command::StartVolume { name: name.clone(), force };
    let stop = |force| Command::StopVolume { name: name.clone(), force };
    let delete = || Command::DeleteVolume { name: name.clone() };
    assert_eq!(refused(&state, stop(false)), "Volume one is not in the started state");
    apply(&mut state, start(false)).expect("starts");
    assert_eq!(refused(&state, start(false)), "Volume one already started");
    assert!(check(&state, &start(true)).is_ok());
    assert_eq!(refused(&state, delete()), "Volume one has been started.Volume needs to be stopped before deletion.");
    apply(&mut state, stop(false)).expect("stops");
    assert!(check(&state, &stop(true)).is_ok());
    apply(&mut state, delete()).expect("deletes");
    for command in [start(false), stop(false), delete()] {
        assert_eq!(refused(&state, command), "Volume one does not exist");
    }
}

#[test]
fn detach() {
    let mut state = with_rep2();
    assert!(
        refused(&state, Command::RemoveMember { uuid: node(2) }).starts_with("Peer node2 hosts one or more bricks.")
    );
    apply(&mut state, Command::RemoveMember { uuid: node(3) }).expect("removes");
    assert!(state.removed.contains(&node(3)));
    let text = refused(&state, Command::RemoveMember { uuid: node(3) });
    assert!(text.ends_with("is not part of cluster"), "{text}");
    apply(&mut state, Command::AddMember { member: member(3) }).expect("adds again");
    assert!(!state.removed.contains(&node(3)));
}

#[test]
fn options_are_resolved_and_keep_their_place() {
    let state = set(&with_one(), "one", "performance.cache-size", "64MB").expect("sets");
    let state = set(&state, "one", "cluster.quorum-type", "auto").expect("sets");
    let state = set(&state, "one", "cache-size", "32MB").expect("sets");
    let state = set(&state, "one", "user.note", "hello world").expect("sets");
    let set_now: Vec<_> =
        state.volumes["one"].options.iter().skip(3).map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(set_now, ["performance.cache-size=32MB", "cluster.quorum-type=auto", "user.note=hello world"]);
}

#[test]
fn bad_options() {
    let state = with_one();
    let bad = |key: &str, value: &str| set(&state, "one", key, value).expect_err("is refused");
    assert_eq!(
        bad("no.such.option", "1"),
        "option : no.such.option does not exist\nDid you mean nfs.drc-size or ...mem-factor?"
    );
    assert_eq!(bad("no.such", "1"), "option : no.such does not exist\nDid you mean nfs.acl or ...drc?");
    assert_eq!(bad("network.ping-timeout", "abc"), "invalid time format \"abc\" in \"option ping-timeout\"");
    assert_eq!(bad("network.ping-timeout", "2000"), "'2000' in 'option ping-timeout 2000' is out of range [0 - 1013]");
    assert_eq!(
        bad("cluster.self-heal-readdir-size", "x"),
        "invalid number format \"x\" in option \"self-heal-readdir-size\""
    );
    assert_eq!(
        bad("cluster.quorum-type", "some"),
        "option quorum-type some: 'some' is not valid (possible options are none, auto, fixed.)"
    );
    assert_eq!(bad("features.read-only", "maybe"), "option read-only maybe: 'maybe' is not a valid boolean value");
    assert_eq!(bad("cluster.quorum-count", "1"), "Cannot set cluster.quorum-count for a non-replicate volume.");
    assert_eq!(
        bad("cluster.min-free-inodes", "101%"),
        "'101.000000' in 'option min-free-inodes 101%' is out of range [0 - 100]"
    );
    assert!(bad("features.quota", "on").contains("volume quota <VOLNAME> enable"));
    assert_eq!(bad("cluster.server-quorum-ratio", "60"), "Not a valid option for single volume");
    assert_eq!(bad("auth.allow", "a b"), "option allow a b: 'a b' is not a valid internet-address-list");
    for injected in ["x\n    option password y", "`reboot`", "\"", ""] {
        assert!(bad("cluster.extra-hash-regex", injected).contains("contains white space"));
    }
    assert_eq!(set(&state, "nosuch", "a.b", "1"), Err("Volume nosuch does not exist".to_owned()));
}

#[test]
fn good_values() {
    let state = with_rep2();
    for (key, value) in [
        ("network.ping-timeout", "20"),
        ("performance.quick-read", "off"),
        ("storage.reserve", "2%"),
        ("cluster.min-free-disk", "10GB"),
        ("auth.allow", "10.0.0.*,node1,192.168.0.0/16"),
        ("auth.allow", "/sub(10.0.0.1|10.0.0.2),/(*)"),
        ("cluster.quorum-count", "2"),
        ("diagnostics.client-log-level", "DEBUG"),
        ("cluster.favorite-child-policy", "mtime"),
    ] {
        assert!(set(&state, "rep2", key, value).is_ok(), "{key} {value}: {:?}", set(&state, "rep2", key, value));
    }
}

#[test]
fn nothing_is_set_when_one_of_several_is_bad() {
    let mut state = with_one();
    let before = state.clone();
    let options = vec![("cluster.quorum-type".to_owned(), "auto".to_owned()), ("no.such".to_owned(), "1".to_owned())];
    assert!(apply(&mut state, Command::SetOptions { volume: "one".to_owned(), options }).is_err());
    assert_eq!(state, before);
}

#[test]
fn pool_options() {
    let bad = |key: &str, value: &str| set(&pool(), "all", key, value).expect_err("is refused");
    assert_eq!(
        bad("cluster.op-version", "100000"),
        "Required op-version (100000) should not be equal or lower than current cluster op-version (100000)."
    );
    assert_eq!(
        bad("cluster.max-bricks-per-process", "10"),
        "Brick-multiplexing is not enabled. Please enable brick multiplexing before trying to set this option."
    );
    assert_eq!(bad("network.ping-timeout", "1"), "Not a valid option for all volumes");
    assert!(set(&pool(), "all", "cluster.server-quorum-ratio", "60").is_ok());
}

#[test]
fn reset_brings_the_defaults_back() {
    let state = set(&with_one(), "one", "nfs.disable", "off").expect("sets");
    let mut state = set(&state, "one", "cluster.quorum-type", "auto").expect("sets");
    let reset = |key: Option<&str>| Command::ResetOptions {
        volume: "one".to_owned(),
        key: key.map(str::to_owned),
        force: false,
    };
    assert_eq!(
        refused(&state, reset(Some("no.such"))),
        "Option no.such does not exist\nDid you mean nfs.acl or ...drc?"
    );
    apply(&mut state, reset(None)).expect("resets");
    assert_eq!(
        state.volumes["one"].options,
        [("nfs.disable", "on"), ("transport.address-family", "inet"), ("storage.fips-mode-rchecksum", "on")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
    );
}

#[test]
fn granular_entry_heal_is_not_set_by_volume_set_once_started() {
    let mut state = with_rep2();
    apply(&mut state, Command::StartVolume { name: "rep2".to_owned(), force: false }).expect("starts");
    let text = set(&state, "rep2", "cluster.granular-entry-heal", "off").expect_err("is refused");
    assert!(text.contains("granular-entry-heal {enable, disable}' instead"), "{text}");
    let command = Command::SetHealOption {
        volume: "rep2".to_owned(),
        key: "cluster.granular-entry-heal".to_owned(),
        value: "off".to_owned(),
    };
    apply(&mut state, command).expect("sets");
    assert_eq!(state.volumes["rep2"].option("cluster.granular-entry-heal"), Some("off"));
}

#[test]
fn recover_keeps_members_that_own_bricks() {
    let mut state = State::default();
    let kept = Box::new(with_rep2());
    apply(&mut state, Command::Recover { survivor: node(1), pool_id: node(98), state: kept }).expect("recovers");
    assert!(state.volumes.contains_key("rep2"));
    assert_eq!(state.members.keys().copied().collect::<Vec<_>>(), [node(1), node(2)]);
    assert_eq!(state.pool_id, node(98));
    assert!(state.previous_pools.contains(&node(99)));
}

/// With other hashes in force, a client that trusts a directory's layout would not find what is there.
#[test]
fn names_that_hash_anew_are_looked_for_everywhere() {
    let mut state = pool();
    create(&mut state, "dist", Layout::Distribute, &["node1:/d", "node2:/d"]).expect("creates");
    let fresh = set(&state, "dist", "cluster.extra-hash-regex", "^(x)y$").expect("sets");
    assert_eq!(fresh.volumes["dist"].option("cluster.lookup-optimize"), None, "nothing is there yet");
    apply(&mut state, Command::StartVolume { name: "dist".to_owned(), force: false }).expect("starts");
    let options = vec![("cluster.extra-hash-regex".to_owned(), "^(x)y$".to_owned())];
    let applied = apply(&mut state, Command::SetOptions { volume: "dist".to_owned(), options }).expect("sets");
    assert!(applied.warnings[0].contains("rebalance"));
    assert_eq!(state.volumes["dist"].option("cluster.lookup-optimize"), Some("off"));
    let reset =
        |key: &str| Command::ResetOptions { volume: "dist".to_owned(), key: Some(key.to_owned()), force: false };
    apply(&mut state, reset("cluster.lookup-optimize")).expect("resets");
    let applied = apply(&mut state, reset("cluster.extra-hash-regex")).expect("resets");
    assert_eq!(applied.warnings.len(), 1);
    assert_eq!(state.volumes["dist"].option("cluster.lookup-optimize"), Some("off"));
}

fn any_command() -> impl Strategy<Value = Command> {
    let name = prop_oneof!["a", "b", "all", "x/y"];
    let bricks = proptest::collection::vec((1..5_u128, "/[ab](/[cd])?"), 0..4);
    let created = (name.clone(), bricks, any::<bool>(), 1..4_u32).prop_map(|(name, bricks, force, replica)| {
        let layout = if replica == 1 { Layout::Distribute } else { Layout::Replicate { replica, arbiter: 0 } };
        let bricks = bricks
            .into_iter()
            .map(|(number, path)| NewBrick { host: format!("node{number}"), node: Some(node(number)), path })
            .collect();
        Command::CreateVolume(NewVolume { force, bricks, ..new(&name, layout, &[]) })
    });
    prop_oneof![
        created,
        (name.clone(), any::<bool>()).prop_map(|(name, force)| Command::StartVolume { name, force }),
        (name.clone(), any::<bool>()).prop_map(|(name, force)| Command::StopVolume { name, force }),
        name.prop_map(|name| Command::DeleteVolume { name }),
        (1..5_u128).prop_map(|number| Command::AddMember { member: member(number) }),
        (1..5_u128).prop_map(|number| Command::RemoveMember { uuid: node(number) }),
    ]
}

proptest! {
    #[test]
    fn every_brick_has_an_owner_and_a_place_of_its_own(commands in proptest::collection::vec(any_command(), 0..40)) {
        let mut state = pool();
        for command in commands {
            let before = state.clone();
            if apply(&mut state, command).is_err() {
                assert_eq!(state, before, "a refused command changes nothing");
            }
            let mut places = std::collections::BTreeSet::new();
            for brick in state.volumes.values().flat_map(|volume| &volume.bricks) {
                assert!(state.members.contains_key(&brick.node));
                assert!(places.insert((brick.node, brick.path.clone())));
            }
        }
        let stored = serde_json::to_string(&state).expect("serialises");
        assert_eq!(serde_json::from_str::<State>(&stored).expect("reads back"), state);
    }
}
