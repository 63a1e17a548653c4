//! Growing and shrinking in GlusterFS's words: the same bytes, streams and exit codes as GlusterFS 10.3.

#[allow(dead_code, reason = "each test binary uses its part")]
mod golden_records;

use golden_records::{Check, golden};
use mortar_api::brick::Removal;
use mortar_api::rebalance::{Mode, NodeStatus, Progress, Started, State, Status};
use mortar_api::volume::{BrickRef, Changed, Task, VolumeStatus};
use mortar_cli::execute::Answer;
use mortar_cli::face::gluster;
use mortar_cli::run::{Face, word};
use mortar_cli::{Command, prompt};

const REBALANCE: Check = Check("volume-rebalance.txt");
const REMOVE: Check = Check("volume-remove-brick.txt");
const REMOVE_LATER: Check = Check("volume-remove-brick2.txt");
const REPLACE: Check = Check("volume-replace-brick.txt");

fn node(host: &str, id: &str, mode: Mode, counters: [u64; 3], seconds: u64) -> NodeStatus {
    let [files, bytes, lookups] = counters;
    let state = State::Completed;
    let progress = Progress { state, files, bytes, lookups, elapsed_ms: seconds * 1000, ..Progress::new(mode) };
    NodeStatus { host: host.into(), node: id.parse().unwrap(), connected: true, progress }
}

fn three(task: &str, mode: Mode, counters: [[u64; 3]; 3], seconds: u64) -> Answer {
    let nodes = [
        ("node2", "536e9420-261e-4f95-b373-c4819f5b7f30"),
        ("node3", "05d21d59-3034-4bb3-ae40-d841523c8c89"),
        ("localhost", "3d628fe3-585c-44f4-a127-0937fd0ed1d1"),
    ];
    let nodes = nodes.iter().zip(counters).map(|((host, id), counters)| node(host, id, mode, counters, seconds));
    Answer::Rebalance(Status { task: task.parse().unwrap(), mode, nodes: nodes.collect() })
}

fn changed() -> Answer {
    Answer::Changed(Changed { name: "dist".into(), id: uuid::Uuid::nil(), warnings: vec![] })
}

const LAYOUT_TASK: &str = "c56a1af1-54d7-431e-9cf7-34d5e8877d42";
const FORCE_TASK: &str = "d19d7c9a-851c-4f73-813b-0b5675ff65f2";
const MOVED: [[u64; 3]; 3] = [[10, 68, 28], [0, 0, 16], [12, 84, 33]];

#[test]
fn fix_layout() {
    let started = Answer::Started(Started { task: LAYOUT_TASK.parse().unwrap(), warnings: vec![] });
    REBALANCE.answered("gluster volume rebalance dist fix-layout start", started);
    let status = three(LAYOUT_TASK, Mode::FixLayout, [[0; 3]; 3], 0);
    REBALANCE.answered("gluster volume rebalance dist status", status.clone());
    REBALANCE.answered("gluster --xml volume rebalance dist status", status);
}

#[test]
fn rebalance() {
    let started = Answer::Started(Started { task: FORCE_TASK.parse().unwrap(), warnings: vec![] });
    REBALANCE.answered("gluster volume rebalance dist start force", started);
    let status = three(FORCE_TASK, Mode::Force, MOVED, 1);
    REBALANCE.answered_at("gluster volume rebalance dist status", 2, status.clone());
    REBALANCE.answered_at("gluster --xml volume rebalance dist status", 1, status.clone());
    REBALANCE.answered("gluster volume rebalance dist stop", status);
    let again = "f217788a-7107-4321-9626-5d86d93709b6";
    let started = Answer::Started(Started { task: again.parse().unwrap(), warnings: vec![] });
    REBALANCE.answered("gluster --xml volume rebalance dist start", started);
    let status = three(again, Mode::Rebalance, [[0, 0, 18], [0, 0, 22], [0, 0, 21]], 0);
    REBALANCE.answered("gluster --xml volume rebalance dist stop", status);
}

#[test]
fn rebalance_refused() {
    REBALANCE.refused("gluster volume rebalance dist status", "Rebalance not started for volume dist.");
    REBALANCE.refused("gluster volume rebalance dist start", "Rebalance on dist is already started");
    let why = "Volume rep2 is not a distribute volume or contains only 1 brick.\nNot performing rebalance";
    REBALANCE.refused("gluster volume rebalance rep2 start", why);
}

#[test]
fn add_brick() {
    REBALANCE.answered("gluster volume add-brick dist node3:/bricks/dist force", changed());
    let why = "Unable to get volinfo for volume name nosuch";
    REBALANCE.refused("gluster volume add-brick nosuch node3:/bricks/q force", why);
    REMOVE.answered("gluster volume add-brick rep2 replica 3 node3:/bricks/rep2 force", changed());
}

#[test]
fn remove_brick() {
    let removal = |task: &str| Answer::Removal(Removal { task: Some(task.parse().unwrap()), warnings: vec![] });
    let line = "gluster --mode=script volume remove-brick dist node3:/bricks/dist start";
    REMOVE.answered(line, removal("99006e12-3979-482b-a563-d8c2bb1656dd"));
    REMOVE.answered("gluster volume remove-brick dist node3:/bricks/dist commit", removal(FORCE_TASK));
    let none = Answer::Removal(Removal { task: None, warnings: vec![] });
    REMOVE.answered("gluster --mode=script volume remove-brick rep2 replica 2 node3:/bricks/rep2 force", none);
    let line = "gluster --mode=script --xml volume remove-brick dist node3:/bricks/distb start";
    REMOVE_LATER.answered(line, removal("1b0d5d53-f234-4f63-9d20-7170d321dbfc"));
    let line = "gluster --mode=script --xml volume remove-brick dist node3:/bricks/distb commit";
    REMOVE_LATER.answered(line, removal("52ce5e3b-379d-43ac-ba29-7f090a228ee6"));
}

#[test]
fn remove_brick_status_shows_the_nodes_that_empty_bricks() {
    let task = "1b0d5d53-f234-4f63-9d20-7170d321dbfc";
    let Answer::Rebalance(mut status) = three(task, Mode::Decommission, [[0; 3], [22, 152, 22], [0; 3]], 0) else {
        unreachable!("as built")
    };
    status.nodes[0].progress.state = State::NotStarted;
    status.nodes[2].progress.state = State::NotStarted;
    let status = Answer::Rebalance(status);
    REMOVE_LATER.answered("gluster volume remove-brick dist node3:/bricks/distb status", status.clone());
    let line = "gluster --mode=script --xml volume remove-brick dist node3:/bricks/distb status";
    REMOVE_LATER.answered(line, status.clone());
    REMOVE_LATER.answered("gluster --mode=script volume remove-brick dist node3:/bricks/distb stop", status);
}

#[test]
fn remove_brick_refused() {
    let why = "remove-brick not started for volume dist.";
    REMOVE.refused("gluster --mode=script volume remove-brick dist node3:/bricks/dist status", why);
    REMOVE.refused("gluster --xml volume remove-brick dist node3:/bricks/dist status", why);
    REMOVE.refused("gluster --mode=script volume remove-brick dist node3:/bricks/dist stop", why);
    let why = "Incorrect brick node3:/bricks/dist for volume dist";
    REMOVE.refused("gluster --mode=script --xml volume remove-brick dist node3:/bricks/dist start", why);
    REMOVE.refused("gluster --mode=script --xml volume remove-brick dist node3:/bricks/dist commit", why);
}

#[test]
fn removal_is_asked_about() {
    for line in [
        "gluster volume remove-brick dist node3:/bricks/dist start",
        "gluster volume remove-brick dist node2:/bricks/dist force",
    ] {
        let mut out = Vec::new();
        let question = prompt::question(&REMOVE.command(line)).expect("a question");
        prompt::ask(question, &mut b"n\n".as_slice(), &mut out).unwrap();
        // GlusterFS leaves the line open; the record goes on with its exit code on the same line.
        assert_eq!(String::from_utf8(out).unwrap(), golden(REMOVE.0, &format!("{line}    # stdin: n"), 0).stdout);
    }
}

#[test]
fn replace_and_reset_brick() {
    let line = "gluster --mode=script volume replace-brick rep3 node3:/bricks/rep3 node3:/bricks/rep3new commit force";
    REPLACE.answered(line, changed());
    let line =
        "gluster --mode=script --xml volume replace-brick rep3 node3:/bricks/rep3new node3:/bricks/rep3c commit force";
    REPLACE.answered(line, changed());
    REPLACE.misused("gluster --mode=script volume replace-brick rep3 node3:/bricks/rep3 node3:/bricks/rep3new commit");
    REPLACE.answered("gluster --mode=script volume reset-brick rep3 node3:/bricks/rep3c start", changed());
    let line = "gluster --mode=script volume reset-brick rep3 node3:/bricks/rep3c node3:/bricks/rep3c commit force";
    REPLACE.answered(line, changed());
}

#[test]
fn status_names_the_bricks_that_leave() {
    let task = Task {
        kind: "Remove brick".into(),
        id: "1b0d5d53-f234-4f63-9d20-7170d321dbfc".parse().unwrap(),
        status: "completed".into(),
        status_number: 3,
        paused: false,
        bricks: vec![BrickRef { host: "node3".into(), path: "/bricks/distb".into() }],
    };
    let status = Answer::Status(vec![VolumeStatus { name: "dist".into(), processes: vec![], tasks: vec![task] }]);
    REMOVE_LATER.answered("gluster --mode=script --xml volume status dist tasks", status.clone());
    let command: Command = REMOVE_LATER.command("gluster volume status dist tasks");
    let text = word(Face::Gluster, mortar_cli::globals::Format::Text, &command, &Ok(status)).stdout;
    let whole = golden(REMOVE_LATER.0, "gluster volume status dist", 0).stdout;
    assert!(whole.ends_with(&text), "{text}");
}

#[test]
fn the_usage_is_glusterfs_pattern() {
    let words = ["volume", "add-brick", "v"].map(str::to_owned);
    let misuse = mortar_cli::command::parse(&words, false).expect_err("no brick");
    let text = gluster::misuse(&misuse).stderr;
    assert!(text.contains("volume add-brick <VOLNAME> [<replica> <COUNT> [arbiter <COUNT>]] <NEW-BRICK> ... [force]"));
}
