//! Volumes and the processes that serve them.

use std::path::Path;
use std::time::Duration;

use mortar_api::heal::{Action, Heal, Progress};
use mortar_api::volume::{Delete, Get, Info, Names, ProcessKind, Reset, Set, Start, State, Status, Stop, VolumeStatus};

use crate::cluster::{Node, replica_2, wait_for};

fn start(name: &str) -> Start {
    Start { name: name.to_owned(), force: false }
}

fn stop(name: &str) -> Stop {
    Stop { name: name.to_owned(), force: false }
}

async fn status(node: &Node) -> VolumeStatus {
    let request = Status { name: Some("imap0".to_owned()), brick: None, detail: false, clients: false };
    node.must(&request).await.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_lives() {
    let first = Node::up("127.78.11.1", 34210).await;
    let second = Node::up("127.78.11.2", 34210).await;
    first.probe(&second).await;
    let created = second.must(&replica_2("imap0", [first.brick("b"), second.brick("b")])).await;
    let marked = first.must(&Info { name: Some("imap0".to_owned()) }).await.volumes.remove(0);
    assert_eq!((marked.id, marked.state), (created.id, State::Created));
    assert!(Path::new(&first.brick("b").path).join(".glusterfs").is_dir());
    let newest_first: Vec<&str> = marked.options.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(newest_first.first(), Some(&"cluster.granular-entry-heal"));
    assert_eq!(newest_first.last(), Some(&"performance.client-io-threads"));

    let started = first.must(&start("imap0")).await;
    assert_eq!(started.warnings, [] as [&str; 0]);
    let running = status(&first).await;
    assert!(running.processes.iter().all(|process| process.online), "{running:?}");
    let kinds: Vec<_> = running.processes.iter().map(|process| (process.kind, process.host.as_str())).collect();
    assert_eq!(
        kinds,
        [
            (ProcessKind::Brick, "127.78.11.1"),
            (ProcessKind::Brick, "127.78.11.2"),
            (ProcessKind::SelfHealDaemon, "localhost"),
            (ProcessKind::SelfHealDaemon, "127.78.11.2"),
        ]
    );
    assert_eq!(second.refused(&start("imap0")).await.message, "Volume imap0 already started");

    first.must(&Heal { volume: "imap0".to_owned(), action: Action::Full }).await;
    let progress = first.must(&Progress { volume: "imap0".to_owned() }).await;
    let mut shown: Vec<_> = progress.iter().map(|node| (node.host.as_str(), node.running)).collect();
    shown.sort_unstable();
    assert_eq!(shown, [("127.78.11.1", true), ("127.78.11.2", true)]);

    let delete = Delete { name: "imap0".to_owned() };
    let error = first.refused(&delete).await;
    assert_eq!(error.message, "Volume imap0 has been started.Volume needs to be stopped before deletion.");
    first.must(&stop("imap0")).await;
    let pid = running.processes[0].pid.expect("ran");
    wait_for("the brick to be gone", Duration::from_secs(2), async || !Path::new(&format!("/proc/{pid}")).exists())
        .await;
    first.must(&delete).await;
    assert!(second.must(&Names {}).await.is_empty());
    assert!(Path::new(&first.brick("b").path).join(".glusterfs").is_dir(), "the data stays");
    first.end().await;
    second.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_volume_that_one_node_refuses() {
    let first = Node::up("127.78.12.1", 34220).await;
    let second = Node::up("127.78.12.2", 34220).await;
    first.probe(&second).await;
    let mut away = second.brick("b");
    away.path = second.dir.path().join("missing/b").display().to_string();
    let error = first.refused(&replica_2("imap0", [first.brick("b"), away.clone()])).await;
    assert_eq!(
        error.message,
        format!(
            "Pre Validation failed on 127.78.12.2. Failed to create brick directory for brick 127.78.12.2:{}. Reason : No \
             such file or directory ",
            away.path
        )
    );
    assert!(!Path::new(&first.brick("b").path).exists());
    assert!(first.must(&Names {}).await.is_empty());
    first.end().await;
    second.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_brick_must_be_there_at_start() {
    let node = Node::up("127.78.13.1", 34230).await;
    node.must(&replica_2("imap0", [node.brick("a"), node.brick("b")])).await;
    std::fs::remove_dir_all(&node.brick("b").path).expect("removes");
    let error = node.refused(&start("imap0")).await;
    assert_eq!(
        error.message,
        format!(
            "Failed to find brick directory {} for volume imap0. Reason : No such file or directory",
            node.brick("b").path
        )
    );
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_brick_comes_back_on_its_port() {
    let node = Node::up("127.78.14.1", 34240).await;
    node.must(&replica_2("imap0", [node.brick("a"), node.brick("b")])).await;
    node.must(&start("imap0")).await;
    let before = status(&node).await.processes[0].clone();
    let pid = before.pid.and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.expect("ran"), rustix::process::Signal::KILL).expect("kills");
    wait_for("another process", Duration::from_secs(5), async || {
        let now = status(&node).await.processes[0].clone();
        now.online && now.pid != before.pid && now.port == before.port
    })
    .await;
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bricks_outlive_the_daemon_and_are_found_again() {
    let mut node = Node::up("127.78.15.1", 34250).await;
    node.must(&replica_2("imap0", [node.brick("a"), node.brick("b")])).await;
    node.must(&start("imap0")).await;
    let before = status(&node).await;
    node.stop().await;
    node.start().await;
    wait_for("all to be online", Duration::from_secs(6), async || {
        status(&node).await.processes.iter().all(|process| process.online)
    })
    .await;
    let after = status(&node).await;
    for (old, new) in before.processes.iter().zip(&after.processes) {
        assert_eq!((old.pid, old.port), (new.pid, new.port));
    }
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn options_are_set_told_and_reset() {
    let node = Node::up("127.78.16.1", 34260).await;
    node.must(&replica_2("imap0", [node.brick("a"), node.brick("b")])).await;
    let set =
        |key: &str, value: &str| Set { name: "imap0".to_owned(), options: vec![(key.to_owned(), value.to_owned())] };
    node.must(&set("quorum-type", "auto")).await;
    let get = |key: &str| Get { name: "imap0".to_owned(), key: key.to_owned() };
    let value = node.must(&get("cluster.quorum-type")).await.remove(0);
    assert_eq!((value.value.as_str(), value.default), ("auto", false));
    let error = node.refused(&set("no.such", "1")).await;
    assert_eq!(error.message, "option : no.such does not exist\nDid you mean nfs.acl or ...drc?");
    let error = node.refused(&get("no.such")).await;
    assert_eq!(error.message, "Option no.such does not exist\nDid you mean nfs.acl or ...drc?");
    let reset = Reset { name: "imap0".to_owned(), key: Some("cluster.quorum-type".to_owned()), force: false };
    node.must(&reset).await;
    let value = node.must(&get("cluster.quorum-type")).await.remove(0);
    assert_eq!((value.value.as_str(), value.default), ("none", true));
    node.end().await;
}

/// The whole table of a fresh replicated volume against data/volume-get-all.txt.
#[tokio::test(flavor = "multi_thread")]
async fn all_options_are_those_of_glusterfs() {
    let node = Node::up("127.78.17.1", 34270).await;
    node.must(&replica_2("imap0", [node.brick("a"), node.brick("b")])).await;
    let all = node.must(&Get { name: "imap0".to_owned(), key: "all".to_owned() }).await;
    let ours: Vec<String> = all
        .iter()
        .map(|option| {
            let value = if option.default { format!("{} (DEFAULT)", option.value) } else { option.value.clone() };
            format!("{:<40} {value:<39}", option.key)
        })
        .collect();
    let golden = include_str!("../fixtures/volume-get-all.txt");
    let theirs: Vec<&str> = golden.lines().skip(2).filter(|line| !line.is_empty()).collect();
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len());
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_stands_for_its_options() {
    let node = Node::up("127.78.18.1", 34280).await;
    node.must(&replica_2("imap0", [node.brick("a"), node.brick("b")])).await;
    let set = |name: &str| Set { name: "imap0".to_owned(), options: vec![("group".to_owned(), name.to_owned())] };
    let get = |key: &str| Get { name: "imap0".to_owned(), key: key.to_owned() };
    node.must(&set("mail")).await;
    let value = node.must(&get("cluster.extra-hash-regex")).await.remove(0).value;
    assert!(value.starts_with("^([0-9]+[.]"), "{value}");
    let groups = node.dir.path().join("data/groups");
    std::fs::create_dir_all(&groups).expect("makes");
    std::fs::write(groups.join("virt"), "network.ping-timeout=7\n").expect("writes");
    node.must(&set("virt")).await;
    assert_eq!(node.must(&get("network.ping-timeout")).await.remove(0).value, "7", "the admin's own counts");
    for name in ["nosuch", "../node", ""] {
        assert!(node.refused(&set(name)).await.message.starts_with("Unable to open file"), "{name}");
    }
    node.end().await;
}
