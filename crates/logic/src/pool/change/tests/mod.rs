//! Refusals in GlusterFS's words, what accepted changes make of a volume.

mod properties;

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{AddBricks, Removal, ReplaceBrick, Report, Reset, StartRemoval, StartTask, Steer};
use crate::pool::{
    Applied, Command, Layout, Member, NewBrick, NewVolume, NodePart, Refusal, State, TaskMode, TaskState, Volume,
    VolumeState, apply, check,
};

const REPLICA_2: Layout = Layout::Replicate { replica: 2, arbiter: 0 };
const TASK: Uuid = Uuid::from_u128(77);

fn pool() -> State {
    let mut state = State::default();
    for number in 1..=4 {
        let uuid = Uuid::from_u128(number);
        let member =
            Member { uuid, hostname: format!("node{number}"), other_names: Vec::new(), peer_port: 24008, port: 24007 };
        apply(&mut state, Command::AddMember { member }).expect("adds");
    }
    state
}

fn brick(text: &str) -> NewBrick {
    let (host, path) = text.split_once(':').expect("HOST:/path");
    let number = host.strip_prefix("node").and_then(|number| number.parse().ok());
    NewBrick { host: host.to_owned(), node: number.map(Uuid::from_u128), path: path.to_owned() }
}

fn bricks(texts: &[&str]) -> Vec<NewBrick> {
    texts.iter().map(|text| brick(text)).collect()
}

fn created(layout: Layout, texts: &[&str]) -> State {
    let mut state = pool();
    let new = NewVolume::for_test(layout, bricks(texts));
    apply(&mut state, Command::CreateVolume(new)).expect("creates");
    state
}

fn started(layout: Layout, texts: &[&str]) -> State {
    let mut state = created(layout, texts);
    apply(&mut state, Command::StartVolume { name: "v".to_owned(), force: false }).expect("starts");
    state
}

fn distributed() -> State {
    started(Layout::Distribute, &["node1:/b/v", "node2:/b/v", "node3:/b/v"])
}

/// Two sets of two.
fn two_by_two() -> State {
    started(REPLICA_2, &["node1:/b/v", "node2:/b/v", "node3:/b/v", "node4:/b/v"])
}

fn arbitrated() -> State {
    started(Layout::Replicate { replica: 3, arbiter: 1 }, &["node1:/b/v", "node2:/b/v", "node3:/b/v"])
}

fn adding(state: &State, replica: Option<u32>, arbiter: u32, texts: &[&str]) -> Command {
    let first_id = state.volumes.get("v").map_or(0, |volume| volume.next_brick);
    let volume = "v".to_owned();
    Command::AddBricks(AddBricks { volume, bricks: bricks(texts), replica, arbiter, force: false, first_id })
}

fn removal(replica: Option<u32>, force: bool, texts: &[&str]) -> Command {
    Command::RemoveBricks(Removal { volume: "v".to_owned(), bricks: bricks(texts), replica, force })
}

fn leaving(replica: Option<u32>, texts: &[&str]) -> Command {
    Command::StartRemoval(StartRemoval { volume: "v".to_owned(), bricks: bricks(texts), replica, task: TASK })
}

fn staying(texts: &[&str]) -> Command {
    Command::StopRemoval { volume: "v".to_owned(), bricks: bricks(texts) }
}

fn rebalance(mode: TaskMode) -> Command {
    Command::StartTask(StartTask { volume: "v".to_owned(), task: TASK, mode, path: None, dry_run: false })
}

fn steer(what: Steer) -> Command {
    Command::SteerTask { volume: "v".to_owned(), what }
}

fn reported(number: u128, state: TaskState, failures: u64) -> Command {
    let part = NodePart { state, failures, files: 10, ..NodePart::default() };
    Command::ReportTask(Report { volume: "v".to_owned(), task: TASK, node: Uuid::from_u128(number), part })
}

fn replacing(from: &str, to: &str) -> Command {
    Command::ReplaceBrick(ReplaceBrick { volume: "v".to_owned(), from: brick(from), to: brick(to), force: false })
}

fn reset(text: &str) -> Reset {
    Reset { volume: "v".to_owned(), brick: brick(text) }
}

fn does(state: &mut State, command: Command) -> Applied {
    apply(state, command).expect("is accepted")
}

fn refused(state: &State, command: &Command) -> String {
    check(state, command).expect_err("is refused").to_string()
}

fn ids(state: &State) -> Vec<&str> {
    state.volumes["v"].bricks.iter().map(|brick| brick.brick_id.as_str()).collect()
}

fn hosts(state: &State) -> Vec<String> {
    state.volumes["v"].bricks.iter().map(|brick| format!("{}:{}", brick.host, brick.path)).collect()
}

fn task(state: &State) -> &crate::pool::Task {
    state.volumes["v"].task.as_ref().expect("has a task")
}

#[test]
fn a_set_is_added_under_new_numbers() {
    let mut state = two_by_two();
    let command = adding(&state, None, 0, &["node1:/b/w", "node2:/b/w"]);
    does(&mut state, command);
    assert_eq!(ids(&state).last(), Some(&"v-client-5"));
    assert_eq!((state.volumes["v"].layout, state.volumes["v"].subvolumes()), (REPLICA_2, 3));
}

#[test]
fn what_is_added_must_fill_sets() {
    let state = two_by_two();
    let text = |replica, texts: &[&str]| refused(&state, &adding(&state, replica, 0, texts));
    assert_eq!(text(None, &["node1:/b/w"]), "Incorrect number of bricks supplied 1 with count 2");
    let wrong = "Incorrect number of bricks (1) supplied for replica count (3).";
    assert_eq!(text(Some(3), &["node3:/b/w"]), wrong);
    assert_eq!(text(Some(1), &["node3:/b/w"]), "Incorrect replica count (1) supplied. Volume already has (2)");
    assert!(text(None, &["node1:/b/w", "node1:/b/x"]).starts_with("Multiple bricks of a replicate volume"));
    assert_eq!(
        text(None, &["node1:/b/v", "node2:/b/w"]),
        "Brick: node1:/b/v not available. Brick may be containing or be contained by an existing brick."
    );
    assert_eq!(text(None, &["node9:/b/v", "node2:/b/w"]), "Host node9 is not in 'Peer in Cluster' state");
    let elsewhere = Command::AddBricks(AddBricks {
        volume: "nosuch".to_owned(),
        bricks: Vec::new(),
        replica: None,
        arbiter: 0,
        force: true,
        first_id: 0,
    });
    assert_eq!(refused(&state, &elsewhere), "Unable to get volinfo for volume name nosuch");
}

#[test]
fn a_raised_replica_count_puts_new_bricks_behind_the_old_of_each_set() {
    let mut state = two_by_two();
    let command = adding(&state, Some(3), 1, &["node3:/b/a", "node1:/b/a"]);
    does(&mut state, command);
    let placed =
        ["node1:/b/v", "node2:/b/v", "node3:/b/a", "node3:/b/v", "node4:/b/v", "node1:/b/a"].map(str::to_owned);
    assert_eq!(hosts(&state), placed);
    assert_eq!(ids(&state), [0, 1, 4, 2, 3, 5].map(|number| format!("v-client-{number}")));
    let volume = &state.volumes["v"];
    assert_eq!(volume.layout, Layout::Replicate { replica: 3, arbiter: 1 });
    let arbiters: Vec<bool> = volume.bricks.iter().map(|brick| brick.arbiter).collect();
    assert_eq!(arbiters, [false, false, true, false, false, true]);
    let text = refused(&state, &adding(&state, Some(4), 0, &["node4:/b/c", "node2:/b/c"]));
    assert_eq!(text, "Increasing replica count for arbiter volumes is not supported.");
}

#[test]
fn a_distributed_volume_becomes_replicated() {
    let mut state = started(Layout::Distribute, &["node1:/b/v"]);
    let command = adding(&state, Some(2), 0, &["node2:/b/v"]);
    does(&mut state, command);
    assert_eq!(state.volumes["v"].layout, REPLICA_2);
    assert_eq!(state.volumes["v"].option("performance.client-io-threads"), Some("off"));
}

#[test]
fn replicas_of_other_kinds_are_refused() {
    let state = started(Layout::Disperse { data: 2, redundancy: 1 }, &["node1:/b/v", "node2:/b/v", "node3:/b/v"]);
    let text = refused(&state, &adding(&state, Some(4), 0, &["node4:/b/v"]));
    assert_eq!(text, "Volume v cannot be converted from dispersed to replicated-dispersed");
    let three = started(Layout::Replicate { replica: 3, arbiter: 0 }, &["node1:/b/v", "node2:/b/v", "node3:/b/v"]);
    let more = ["node1:/b/w", "node2:/b/w", "node3:/b/w"];
    assert_eq!(
        refused(&three, &adding(&three, Some(3), 1, &more)),
        "Cannot convert replica 3 volume to arbiter volume."
    );
    let mut stopped = two_by_two();
    does(&mut stopped, Command::StopVolume { name: "v".to_owned(), force: false });
    let text = refused(&stopped, &adding(&stopped, Some(3), 0, &["node3:/b/a", "node1:/b/a"]));
    assert_eq!(text, " Volume must not be in stopped state when replica-count needs to  be increased.");
}

/// The marks for the new bricks are written under the number that they are expected to get.
#[test]
fn bricks_marked_under_another_number_are_not_added() {
    let mut state = two_by_two();
    let late = adding(&state, Some(3), 0, &["node3:/b/a", "node1:/b/a"]);
    let first = adding(&state, None, 0, &["node1:/b/w", "node2:/b/w"]);
    does(&mut state, first);
    let text = refused(&state, &late);
    assert!(text.starts_with("Incorrect number") || text.contains("changed at the same time"), "{text}");
}

#[test]
fn a_number_is_never_used_again() {
    let mut state = distributed();
    does(&mut state, removal(None, true, &["node3:/b/v"]));
    let command = adding(&state, None, 0, &["node3:/b/w"]);
    does(&mut state, command);
    assert_eq!(ids(&state), ["v-client-0", "v-client-1", "v-client-3"]);
}

#[test]
fn what_may_be_removed() {
    let state = two_by_two();
    let text = |replica, texts: &[&str]| refused(&state, &leaving(replica, texts));
    assert_eq!(text(None, &["node1:/b/v"]), "Remove brick incorrect brick count of 1 for replica 2");
    assert_eq!(text(None, &["node1:/b/v", "node3:/b/v"]), "Bricks not from same subvol for replica");
    assert_eq!(text(None, &["node1:/b/nosuch", "node2:/b/v"]), "Incorrect brick node1:/b/nosuch for volume v");
    assert_eq!(text(None, &["node1:/b/v", "node1:/b/v"]), "Brick node1:/b/v is named twice");
    let all = ["node1:/b/v", "node2:/b/v", "node3:/b/v", "node4:/b/v"];
    assert_eq!(text(None, &all), "Deleting all the bricks of the volume is not allowed");
    assert_eq!(
        text(Some(1), &["node2:/b/v", "node4:/b/v"]),
        "Migration of data is not needed when reducing replica count. Use the 'force' option"
    );
    assert_eq!(text(Some(1), &["node1:/b/v", "node2:/b/v"]), "Remove exactly 1 brick(s) from each subvolume.");
    assert_eq!(
        text(Some(1), &["node1:/b/v"]),
        "need 2(xN) bricks for reducing replica count of the volume from 2 to 1"
    );
    assert_eq!(
        text(Some(3), &["node1:/b/v"]),
        "given replica count (3) option is more than volume v's replica count (2)"
    );
    assert_eq!(text(Some(2), &["node1:/b/v"]), "number of bricks provided (1) is not valid. need at least 2 (or 2xN)");
    let one = started(REPLICA_2, &["node1:/b/v", "node2:/b/v"]);
    assert_eq!(
        refused(&one, &leaving(None, &["node1:/b/v"])),
        "Removing bricks from replicate configuration is not allowed without reducing replica count explicitly."
    );
    let text = refused(&distributed(), &leaving(Some(1), &["node1:/b/v"]));
    assert_eq!(text, "replica count (1) option given for non replicate volume v");
    let stopped = created(Layout::Distribute, &["node1:/b/v", "node2:/b/v"]);
    assert_eq!(
        refused(&stopped, &leaving(None, &["node1:/b/v"])),
        "Volume v needs to be started before remove-brick (you can use 'force' or 'commit' to override this behavior)"
    );
}

#[test]
fn a_removal_runs_and_is_committed() {
    let mut state = two_by_two();
    let (set, other) = (["node3:/b/v", "node4:/b/v"], ["node1:/b/v", "node2:/b/v"]);
    assert_eq!(
        refused(&state, &removal(None, false, &set)),
        "Brick node3:/b/v is not decommissioned. Use start or force option"
    );
    does(&mut state, leaving(None, &set));
    let gone: Vec<bool> = state.volumes["v"].bricks.iter().map(|brick| brick.decommissioned).collect();
    assert_eq!(gone, [false, false, true, true]);
    assert_eq!(task(&state).nodes.keys().map(Uuid::as_u128).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(
        refused(&state, &leaving(None, &set)),
        "An earlier remove-brick task exists for volume v. Either commit it or stop it before starting a new task."
    );
    assert_eq!(
        refused(&state, &rebalance(TaskMode::Rebalance)),
        "A remove-brick task on volume v is not yet committed. Either commit or stop the remove-brick task."
    );
    assert_eq!(refused(&state, &removal(None, false, &set)), "use 'force' option as migration is in progress");
    does(&mut state, reported(3, TaskState::Completed, 0));
    assert_eq!(task(&state).state, TaskState::InProgress);
    does(&mut state, reported(4, TaskState::Completed, 0));
    assert_eq!(task(&state).state, TaskState::Completed);
    assert!(refused(&state, &removal(None, false, &other)).contains("is not decommissioned"));
    does(&mut state, removal(None, false, &set));
    assert_eq!(hosts(&state), other);
    assert_eq!(state.volumes["v"].task, None);
}

#[test]
fn a_removal_that_left_something_is_committed_by_force_only() {
    let set = ["node3:/b/v", "node4:/b/v"];
    for (ended, failures, words) in [
        (TaskState::Failed, 0, "use 'force' option as migration has failed"),
        (
            TaskState::Completed,
            1,
            "use 'force' option as migration of some files might have been skipped or has failed",
        ),
    ] {
        let mut state = two_by_two();
        does(&mut state, leaving(None, &set));
        does(&mut state, reported(3, ended, failures));
        does(&mut state, reported(4, TaskState::Completed, 0));
        assert_eq!(refused(&state, &removal(None, false, &set)), words);
        does(&mut state, removal(None, true, &set));
        assert_eq!(state.volumes["v"].subvolumes(), 1);
    }
}

#[test]
fn a_part_of_what_leaves_is_not_committed() {
    let mut state = distributed();
    does(&mut state, leaving(None, &["node2:/b/v", "node3:/b/v"]));
    does(&mut state, reported(2, TaskState::Completed, 0));
    does(&mut state, reported(3, TaskState::Completed, 0));
    let text = refused(&state, &removal(None, false, &["node3:/b/v"]));
    assert_eq!(text, "The remove-brick task of volume v is for other bricks.");
}

#[test]
fn a_stopped_removal_leaves_the_bricks_in() {
    let mut state = distributed();
    let set = ["node3:/b/v"];
    assert_eq!(refused(&state, &staying(&set)), "remove-brick not started for volume v.");
    does(&mut state, leaving(None, &set));
    does(&mut state, staying(&set));
    assert!(!state.volumes["v"].is_removing());
    assert_eq!(task(&state).state, TaskState::Stopped);
    does(&mut state, reported(3, TaskState::Completed, 0));
    assert_eq!(
        task(&state).nodes[&Uuid::from_u128(3)],
        NodePart { state: TaskState::Stopped, files: 10, ..NodePart::default() }
    );
    does(&mut state, leaving(None, &set));
}

#[test]
fn a_lowered_replica_count() {
    let mut state = two_by_two();
    does(&mut state, removal(Some(1), true, &["node2:/b/v", "node3:/b/v"]));
    assert_eq!(state.volumes["v"].layout, Layout::Distribute);
    assert_eq!(state.volumes["v"].option("performance.client-io-threads"), Some("on"));
    assert_eq!(ids(&state), ["v-client-0", "v-client-3"]);
    let mut state = arbitrated();
    assert_eq!(
        refused(&state, &removal(Some(2), true, &["node1:/b/v"])),
        "Remove arbiter brick(s) only when converting from arbiter to replica 2 subvolume."
    );
    assert_eq!(
        refused(&state, &removal(Some(1), true, &["node1:/b/v", "node2:/b/v"])),
        "Removed bricks must contain arbiter when converting to plain distribute."
    );
    does(&mut state, removal(Some(2), true, &["node3:/b/v"]));
    assert_eq!(state.volumes["v"].layout, REPLICA_2);
}

#[test]
fn a_replaced_brick_keeps_its_number() {
    let mut state = two_by_two();
    does(&mut state, replacing("node2:/b/v", "node2:/b/new"));
    assert_eq!(ids(&state)[1], "v-client-1");
    assert_eq!(hosts(&state)[1], "node2:/b/new");
    let text = |from, to| refused(&state, &replacing(from, to));
    assert_eq!(text("node2:/b/v", "node2:/b/x"), "brick: node2:/b/v does not exist in volume: v");
    assert!(text("node2:/b/new", "node1:/b/x").starts_with("Multiple bricks of a replicate volume"));
    assert!(text("node2:/b/new", "node2:/b/new").contains("not available"));
    assert_eq!(
        refused(&distributed(), &replacing("node1:/b/v", "node1:/b/w")),
        "replace-brick is not permitted on distribute only volumes. Please use add-brick and remove-brick operations \
         instead."
    );
    let stopped = created(REPLICA_2, &["node1:/b/v", "node2:/b/v"]);
    assert_eq!(refused(&stopped, &replacing("node1:/b/v", "node1:/b/w")), "volume: v is not started");
}

#[test]
fn a_brick_is_reset() {
    let mut state = two_by_two();
    let back = |to: &str| Command::CommitReset { reset: reset("node2:/b/v"), to: brick(to) };
    assert!(refused(&state, &back("node2:/b/v")).starts_with("Source brick must be stopped."));
    does(&mut state, Command::StartReset(reset("node2:/b/v")));
    assert!(state.volumes["v"].bricks[1].reset);
    assert!(refused(&state, &back("node2:/b/w")).starts_with("When destination brick is new"));
    does(&mut state, back("node2:/b/v"));
    assert!(!state.volumes["v"].bricks[1].reset);
}

#[test]
fn when_a_rebalance_may_start() {
    let one = started(REPLICA_2, &["node1:/b/v", "node2:/b/v"]);
    assert_eq!(
        refused(&one, &rebalance(TaskMode::Rebalance)),
        "Volume v is not a distribute volume or contains only 1 brick.\nNot performing rebalance"
    );
    let stopped = created(Layout::Distribute, &["node1:/b/v", "node2:/b/v"]);
    assert_eq!(refused(&stopped, &rebalance(TaskMode::Rebalance)), "Volume v needs to be started to perform rebalance");
    let mut state = distributed();
    assert_eq!(refused(&state, &steer(Steer::Stop)), "Rebalance not started for volume v.");
    does(&mut state, rebalance(TaskMode::FixLayout));
    assert_eq!(refused(&state, &rebalance(TaskMode::Rebalance)), "Rebalance on v is already started");
    assert_eq!(
        refused(&state, &adding(&state, None, 0, &["node4:/b/v"])),
        "Volume name v rebalance is in progress. Please retry after completion"
    );
    assert_eq!(
        refused(&state, &leaving(None, &["node1:/b/v"])),
        "Rebalance is in progress. Please retry after completion"
    );
    let stop = Command::StopVolume { name: "v".to_owned(), force: false };
    assert_eq!(refused(&state, &stop), "rebalance session is in progress for the volume 'v'");
    let bad = Command::StartTask(StartTask {
        volume: "v".to_owned(),
        task: TASK,
        mode: TaskMode::Rebalance,
        path: Some("/a/../b".to_owned()),
        dry_run: false,
    });
    assert_eq!(refused(&distributed(), &bad), "path /a/../b is not absolute or contains . or ..");
}

#[test]
fn a_rebalance_is_paused_and_ends_with_its_last_part() {
    let mut state = distributed();
    does(&mut state, rebalance(TaskMode::Rebalance));
    does(&mut state, steer(Steer::Pause));
    assert!(task(&state).paused);
    assert!(!does(&mut state, steer(Steer::Pause)).changed);
    does(&mut state, steer(Steer::Resume));
    does(&mut state, reported(1, TaskState::Completed, 0));
    does(&mut state, reported(2, TaskState::Failed, 3));
    assert!(!does(&mut state, reported(2, TaskState::Failed, 3)).changed, "told twice");
    does(&mut state, reported(3, TaskState::Completed, 0));
    assert_eq!(task(&state).state, TaskState::Failed);
    assert!(!does(&mut state, steer(Steer::Stop)).changed, "it has ended");
    does(&mut state, rebalance(TaskMode::Rebalance));
    does(&mut state, steer(Steer::Stop));
    assert_eq!(task(&state).state, TaskState::Stopped);
}

#[test]
fn states_stored_before_there_were_tasks_are_read() {
    let state = two_by_two();
    let mut stored = serde_json::to_value(&state).expect("serialises");
    let volume = stored["volumes"]["v"].as_object_mut().expect("a volume");
    volume.remove("task");
    for brick in volume["bricks"].as_array_mut().expect("bricks") {
        let brick = brick.as_object_mut().expect("a brick");
        brick.remove("decommissioned");
        brick.remove("reset");
    }
    assert_eq!(serde_json::from_value::<State>(stored).expect("reads"), state);
}

#[test]
fn refusals_travel() {
    let refusal = Refusal::from(super::Refusal::NotAMultiple { bricks: 1, group: 2 });
    let stored = serde_json::to_string(&refusal).expect("serialises");
    assert_eq!(serde_json::from_str::<Refusal>(&stored).expect("reads back"), refusal);
}
