//! Generated volfiles against those that GlusterFS 10.3 wrote for the same volumes.

use std::path::{Path, PathBuf};

use mortar_logic::pool::change::{AddBricks, ReplaceBrick, StartRemoval};
use mortar_logic::pool::{Command, Layout, Member, NewBrick, NewVolume, State, Volume, apply};
use mortar_pool::volgen::{self, Surroundings, Trust};
use uuid::Uuid;

fn golden(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(format!("{name}.vol"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A value of the golden file, such as the volume's id, which the real one drew at random.
fn value(text: &str, option: &str) -> Option<String> {
    text.lines().find_map(|line| line.trim().strip_prefix(&format!("option {option} ")).map(str::to_owned))
}

fn member(host: &str) -> Member {
    Member {
        uuid: Uuid::from_u128(host.bytes().fold(1, |sum, byte| sum * 257 + u128::from(byte))),
        hostname: host.to_owned(),
        other_names: Vec::new(),
        peer_port: 24008,
        port: 24007,
    }
}

/// The volume as it was created, with the ids taken from the golden file.
fn volume(name: &str, layout: Layout, bricks: &[&str], golden: &str) -> Volume {
    let login = golden.lines().find_map(|line| {
        let (user, password) = line.trim().strip_prefix("option auth.login.")?.split_once(".password ")?;
        Some((user.to_owned(), password.to_owned()))
    });
    let user = login.as_ref().map(|(user, _)| user.clone()).or_else(|| value(golden, "username"));
    let password = login.map(|(_, password)| password).or_else(|| value(golden, "password"));
    let id = value(golden, "volume-id");
    let uuid = |text: Option<String>| text.map_or_else(Uuid::nil, |text| Uuid::parse_str(&text).expect("a uuid"));
    let mut state = State::default();
    let mut new = NewVolume {
        name: name.to_owned(),
        id: uuid(id),
        layout,
        bricks: Vec::new(),
        force: true,
        username: uuid(user),
        password: uuid(password),
        created_ms: 0,
    };
    for brick in bricks {
        let (host, path) = brick.split_once(':').expect("HOST:PATH");
        let member = member(host);
        new.bricks.push(NewBrick { host: host.to_owned(), node: Some(member.uuid), path: path.to_owned() });
        apply(&mut state, Command::AddMember { member }).expect("adds");
    }
    apply(&mut state, Command::CreateVolume(new)).expect("creates");
    state.volumes.remove(name).expect("was created")
}

const REPLICA_2: Layout = Layout::Replicate { replica: 2, arbiter: 0 };
const IMAP0: &[&str] = &["gfs1:/srv/gfs/brick", "gfs2:/srv/gfs/brick"];
const ARB: &[&str] = &["node1:/bricks/arb", "node2:/bricks/arb", "node3:/bricks/arb"];
const DISP: &[&str] = &["node1:/bricks/disp", "node2:/bricks/disp", "node3:/bricks/disp"];
const DR: &[&str] = &["node1:/bricks/dr1", "node2:/bricks/dr1", "node2:/bricks/dr2", "node3:/bricks/dr2"];
const REP3: &[&str] = &["node1:/bricks/rep3", "node2:/bricks/rep3", "node3:/bricks/rep3"];

fn same(written: &str, golden: &str) {
    if written != golden {
        let differing: Vec<String> = written
            .lines()
            .zip(golden.lines())
            .filter(|(ours, theirs)| ours != theirs)
            .take(10)
            .map(|(ours, theirs)| format!("ours   {ours}\ntheirs {theirs}"))
            .collect();
        panic!("{} vs {} lines\n{}", written.lines().count(), golden.lines().count(), differing.join("\n"));
    }
}

fn client_is_golden(name: &str, volume_name: &str, layout: Layout, bricks: &[&str], trust: Trust) {
    let golden = golden(name);
    same(&volgen::client(&volume(volume_name, layout, bricks, &golden), trust), &golden);
}

fn brick_is_golden(name: &str, volume_name: &str, layout: Layout, bricks: &[&str], index: usize, shared: u32) {
    let golden = golden(name);
    let around = Surroundings { data_dir: Path::new("/var/lib/glusterd"), shared_brick_count: shared };
    same(&volgen::brick(&volume(volume_name, layout, bricks, &golden), index, around).expect("is there"), &golden);
}

fn shd_is_golden(name: &str, volume_name: &str, layout: Layout, bricks: &[&str]) {
    let golden = golden(name);
    same(&volgen::self_heal_daemon(&volume(volume_name, layout, bricks, &golden)).expect("heals"), &golden);
}

#[test]
fn replica_2() {
    client_is_golden("replica2.client", "imap0", REPLICA_2, IMAP0, Trust::Untrusted);
    client_is_golden("replica2.trusted-client", "imap0", REPLICA_2, IMAP0, Trust::Trusted);
    brick_is_golden("replica2.brick", "imap0", REPLICA_2, IMAP0, 0, 1);
    shd_is_golden("replica2.shd", "imap0", REPLICA_2, IMAP0);
}

#[test]
fn replica_3() {
    let layout = Layout::Replicate { replica: 3, arbiter: 0 };
    client_is_golden("replica3.client", "rep3", layout, REP3, Trust::Untrusted);
    shd_is_golden("replica3.shd", "rep3", layout, REP3);
}

#[test]
fn single_brick_and_distribute() {
    client_is_golden("single-brick.client", "one", Layout::Distribute, &["node1:/bricks/one"], Trust::Untrusted);
    brick_is_golden("single-brick.brick", "one", Layout::Distribute, &["node1:/bricks/one"], 0, 1);
    let bricks = &["node1:/bricks/dist", "node2:/bricks/dist"];
    client_is_golden("distribute.client", "dist", Layout::Distribute, bricks, Trust::Untrusted);
}

#[test]
fn arbiter() {
    let layout = Layout::Replicate { replica: 3, arbiter: 1 };
    client_is_golden("arbiter.client", "arb", layout, ARB, Trust::Untrusted);
    brick_is_golden("arbiter.arbiter-brick", "arb", layout, ARB, 2, 0);
    brick_is_golden("arbiter.data-brick", "arb", layout, ARB, 0, 1);
}

#[test]
fn disperse() {
    let layout = Layout::Disperse { data: 2, redundancy: 1 };
    client_is_golden("disperse.client", "disp", layout, DISP, Trust::Untrusted);
    brick_is_golden("disperse.brick", "disp", layout, DISP, 0, 1);
    shd_is_golden("disperse.shd", "disp", layout, DISP);
}

#[test]
fn distributed_replicate() {
    client_is_golden("distributed-replicate.client", "dr", REPLICA_2, DR, Trust::Untrusted);
    brick_is_golden("distributed-replicate.brick", "dr", REPLICA_2, DR, 0, 0);
    shd_is_golden("distributed-replicate.shd", "dr", REPLICA_2, DR);
    let golden = golden("distributed-replicate.rebalance");
    same(&volgen::rebalance(&volume("dr", REPLICA_2, DR, &golden)).expect("distributes"), &golden);
}

const DIST: &[&str] = &["node1:/bricks/dist", "node2:/bricks/dist"];

fn brick(text: &str) -> NewBrick {
    let (host, path) = text.split_once(':').expect("HOST:PATH");
    NewBrick { host: host.to_owned(), node: Some(member(host).uuid), path: path.to_owned() }
}

/// A pool of three with the volume in it.
fn pool_with(volume: Volume) -> State {
    let mut state = State::default();
    for host in ["node1", "node2", "node3"] {
        apply(&mut state, Command::AddMember { member: member(host) }).expect("adds");
    }
    state.volumes.insert(volume.name.clone(), volume);
    state
}

fn does(state: &mut State, command: Command) {
    apply(state, command).expect("is accepted");
}

fn add(state: &mut State, text: &str) {
    let volume = &state.volumes["dist"];
    let bricks = vec![brick(text)];
    let first_id = volume.next_brick;
    let request = AddBricks { volume: "dist".to_owned(), bricks, replica: None, arbiter: 0, force: true, first_id };
    does(state, Command::AddBricks(request));
}

/// The real one's story: a third brick came, and while it was being emptied its volfile was taken.
#[test]
fn distribute_grows_and_shrinks() {
    let rebalanced = golden("distribute.rebalance");
    let mut state = pool_with(volume("dist", Layout::Distribute, DIST, &rebalanced));
    does(&mut state, Command::StartVolume { name: "dist".to_owned(), force: false });
    add(&mut state, "node3:/bricks/dist");
    same(&volgen::rebalance(&state.volumes["dist"]).expect("distributes"), &rebalanced);

    // In its numbers the second brick on node3 took the place of a removed third one; ours never come twice.
    let leaving = golden("distribute.remove-brick-in-progress.client");
    let mut state = pool_with(volume("dist", Layout::Distribute, DIST, &leaving));
    does(&mut state, Command::StartVolume { name: "dist".to_owned(), force: false });
    add(&mut state, "node3:/bricks/distb");
    let request = StartRemoval {
        volume: "dist".to_owned(),
        bricks: vec![brick("node3:/bricks/distb")],
        replica: None,
        task: Uuid::from_u128(1),
    };
    does(&mut state, Command::StartRemoval(request));
    same(&volgen::client(&state.volumes["dist"], Trust::Untrusted), &leaving);
}

#[test]
fn sets_that_leave_are_named_by_their_subvolume() {
    let mut volume = volume("dr", REPLICA_2, DR, &golden("distributed-replicate.client"));
    for brick in &mut volume.bricks[2..] {
        brick.decommissioned = true;
    }
    let text = volgen::client(&volume, Trust::Untrusted);
    assert!(text.contains("    option decommissioned-bricks dr-replicate-1\n"), "{text}");
}

#[test]
fn a_replaced_brick_keeps_its_name() {
    let golden = golden("replica3.after-replace-brick.client");
    let layout = Layout::Replicate { replica: 3, arbiter: 0 };
    let mut state = pool_with(volume("rep3", layout, REP3, &golden));
    does(&mut state, Command::StartVolume { name: "rep3".to_owned(), force: false });
    let (from, to) = (brick("node3:/bricks/rep3"), brick("node3:/bricks/rep3c"));
    does(&mut state, Command::ReplaceBrick(ReplaceBrick { volume: "rep3".to_owned(), from, to, force: false }));
    same(&volgen::client(&state.volumes["rep3"], Trust::Untrusted), &golden);
}

#[test]
fn options_of_distribute_reach_all_who_place_files() {
    let mut volume = volume("dr", REPLICA_2, DR, &golden("distributed-replicate.client"));
    let regex = "^([0-9]+[.][^:,]+)[:,].*$";
    for (key, value) in [("cluster.extra-hash-regex", regex), ("cluster.min-free-disk", "5%")] {
        volume.options.push((key.to_owned(), value.to_owned()));
    }
    for text in [volgen::client(&volume, Trust::Untrusted), volgen::rebalance(&volume).expect("distributes")] {
        let read = mortar_wire::volfile::Volfile::parse(&text).expect("parses");
        let distribute = read.volume("dr-dht").expect("is there");
        let value =
            |key: &str| distribute.options.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str());
        assert_eq!(value("extra-hash-regex"), Some(regex));
        assert_eq!(value("min-free-disk"), Some("5%"));
    }
}

#[test]
fn set_options_go_to_their_translators() {
    let golden = golden("replica2.client");
    let mut volume = volume("imap0", REPLICA_2, IMAP0, &golden);
    for (key, value) in [
        ("network.ping-timeout", "20"),
        ("performance.quick-read", "off"),
        ("cluster.quorum-type", "auto"),
        ("features.shard", "on"),
        ("diagnostics.client-log-level", "DEBUG"),
        ("user.note", "hello"),
    ] {
        volume.options.push((key.to_owned(), value.to_owned()));
    }
    let text = volgen::client(&volume, Trust::Untrusted);
    assert_eq!(text.matches("    option ping-timeout 20\n").count(), 2);
    assert!(!text.contains("performance/quick-read"));
    assert!(text.contains("    option quorum-type auto\n"));
    assert!(text.contains("volume imap0-shard\n    type features/shard\n"));
    assert!(text.contains("    option log-level DEBUG\n"));
    assert!(!text.contains("hello"));
}
