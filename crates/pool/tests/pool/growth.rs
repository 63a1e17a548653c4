//! Bricks come and go, and the jobs that move files because of that.

use std::path::Path;
use std::time::Duration;

use mortar_api::brick::{Add, RemoveCommit, RemoveStart, RemoveStatus, RemoveStop, Replace, ResetStart};
use mortar_api::rebalance::{Control, GetStatus, Mode, Start as Rebalance, State as JobState, Status as Job, Steer};
use mortar_api::volume::{BrickRef, Create, Info, Layout, Start, Status, Stop, Volume, VolumeStatus};
use uuid::Uuid;

use crate::cluster::{Node, wait_for};
use crate::fake;

const PATIENCE: Duration = Duration::from_secs(20);

fn distribute(bricks: Vec<BrickRef>) -> Create {
    Create { name: "dist".to_owned(), layout: Layout::Distribute, bricks, force: true }
}

fn add(bricks: Vec<BrickRef>) -> Add {
    Add { volume: "dist".to_owned(), bricks, replica: None, arbiter: 0, force: true }
}

fn rebalance() -> Rebalance {
    Rebalance { volume: "dist".to_owned(), mode: Mode::Rebalance, path: None, dry_run: false }
}

fn steer(control: Control) -> Steer {
    Steer { volume: "dist".to_owned(), control }
}

async fn volume(node: &Node) -> Volume {
    node.must(&Info { name: Some("dist".to_owned()) }).await.volumes.remove(0)
}

async fn job(node: &Node) -> Job {
    node.must(&GetStatus { volume: "dist".to_owned() }).await
}

async fn status(node: &Node) -> VolumeStatus {
    let request = Status { name: Some("dist".to_owned()), brick: None, detail: false, clients: false };
    node.must(&request).await.remove(0)
}

/// The part of the job that runs on this node is done.
fn finish(node: &Node, task: Uuid) {
    let file = fake::finish(&node.dir.path().join("run/x.ctl"), &task.to_string());
    std::fs::write(file, "").expect("writes");
}

fn states(job: &Job) -> Vec<(&str, JobState)> {
    job.nodes.iter().map(|node| (node.host.as_str(), node.progress.state)).collect()
}

/// Two nodes and a started volume with a brick on each.
async fn two(net: u8, port: u16) -> (Node, Node) {
    let first = Node::up(&format!("127.78.{net}.1"), port).await;
    let second = Node::up(&format!("127.78.{net}.2"), port).await;
    first.probe(&second).await;
    first.must(&distribute(vec![first.brick("b"), second.brick("b")])).await;
    first.must(&Start { name: "dist".to_owned(), force: false }).await;
    (first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_brick_is_added_and_the_files_spread() {
    let (first, second) = two(41, 34610).await;
    let text = first.refused(&GetStatus { volume: "dist".to_owned() }).await.message;
    assert_eq!(text, "Rebalance not started for volume dist.");
    first.must(&add(vec![second.brick("c")])).await;
    assert_eq!(volume(&second).await.bricks[2].brick_id, "dist-client-2");
    assert!(status(&first).await.processes.iter().all(|process| process.online));
    let taken = second.brick("c");
    assert_eq!(
        first.refused(&add(vec![taken.clone()])).await.message,
        format!(
            "Pre Validation failed on 127.78.41.2. Brick: {taken} not available. Brick may be containing or be contained by \
             an existing brick."
        )
    );

    let started = first.must(&rebalance()).await;
    assert_eq!(first.refused(&rebalance()).await.message, "Rebalance on dist is already started");
    let task = status(&second).await.tasks.remove(0);
    assert_eq!((task.kind.as_str(), task.id, task.status.as_str()), ("Rebalance", started.task, "in progress"));
    let stop = Stop { name: "dist".to_owned(), force: false };
    assert_eq!(first.refused(&stop).await.message, "rebalance session is in progress for the volume 'dist'");

    finish(&first, started.task);
    wait_for("the first part to end", PATIENCE, async || {
        states(&job(&first).await) == [("127.78.41.2", JobState::InProgress), ("localhost", JobState::Completed)]
    })
    .await;
    finish(&second, started.task);
    wait_for("the job to end", PATIENCE, async || status(&first).await.tasks[0].status == "completed").await;
    let ended = job(&first).await;
    assert_eq!(ended.nodes.iter().map(|node| node.progress.files).sum::<u64>(), 6);
    first.must(&stop).await;
    first.end().await;
    second.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_survives_its_process_and_the_daemon() {
    let (first, mut second) = two(42, 34620).await;
    let started = first.must(&rebalance()).await;
    let pid_of = |node: &Node| {
        let words = format!("--task {}", started.task);
        let control = node.dir.path().join("run").display().to_string();
        processes().into_iter().find(|(_, line)| line.contains(&words) && line.contains(&control)).map(|(pid, _)| pid)
    };
    wait_for("the process", PATIENCE, async || pid_of(&second).is_some()).await;
    let before = pid_of(&second).expect("runs");
    kill(before);
    wait_for("another process", PATIENCE, async || pid_of(&second).is_some_and(|pid| pid != before)).await;

    second.stop().await;
    let away = job(&first).await;
    assert_eq!((away.nodes[0].host.as_str(), away.nodes[0].connected), ("127.78.42.2", false));
    // Without a quorum nothing can be changed, but the part goes on and is told when it may be.
    finish(&first, started.task);
    finish(&second, started.task);
    second.start().await;
    wait_for("the job to end", PATIENCE, async || status(&first).await.tasks[0].status == "completed").await;
    first.end().await;
    second.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_paused_resumed_and_stopped() {
    let (first, second) = two(43, 34630).await;
    first.must(&rebalance()).await;
    first.must(&steer(Control::Pause)).await;
    let all = async |state: JobState| job(&first).await.nodes.iter().all(|node| node.progress.state == state);
    wait_for("all to pause", PATIENCE, async || all(JobState::Paused).await).await;
    assert!(status(&first).await.tasks[0].paused);
    second.must(&steer(Control::Resume)).await;
    wait_for("all to go on", PATIENCE, async || all(JobState::InProgress).await).await;
    let stopped = first.must(&steer(Control::Stop)).await;
    assert!(stopped.nodes.iter().all(|node| node.progress.state == JobState::Stopped));
    assert_eq!(status(&first).await.tasks[0].status, "stopped");
    let words = format!("--volume dist --mode {}", Mode::Rebalance);
    let roots = [first.dir.path().display().to_string(), second.dir.path().display().to_string()];
    wait_for("the processes to end", PATIENCE, async || {
        !processes().iter().any(|(_, line)| line.contains(&words) && roots.iter().any(|root| line.contains(root)))
    })
    .await;
    first.must(&rebalance()).await;
    first.end().await;
    second.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_brick_is_emptied_and_removed() {
    let (first, second) = two(44, 34640).await;
    let bricks = vec![second.brick("b")];
    let at = || "dist".to_owned();
    let commit = RemoveCommit { volume: at(), bricks: bricks.clone(), replica: None, force: false };
    let start = RemoveStart { volume: at(), bricks: bricks.clone(), replica: None };
    let ask = RemoveStatus { volume: at(), bricks: bricks.clone() };
    assert_eq!(first.refused(&ask).await.message, "remove-brick not started for volume dist.");
    let text = first.refused(&commit).await.message;
    assert_eq!(text, format!("Brick {} is not decommissioned. Use start or force option", bricks[0]));

    first.must(&start).await;
    first.must(&RemoveStop { volume: at(), bricks: bricks.clone() }).await;
    assert!(!volume(&first).await.bricks[1].decommissioned);
    let task = first.must(&start).await.task.expect("a task");
    let listed = status(&first).await.tasks.remove(0);
    assert_eq!((listed.kind.as_str(), listed.bricks), ("Remove brick", bricks.clone()));
    let spec = first.must(&mortar_api::volume::GetSpec { volfile_id: at() }).await;
    assert!(spec.contains("    option decommissioned-bricks dist-client-1\n"));
    assert_eq!(first.refused(&commit).await.message, "use 'force' option as migration is in progress");

    finish(&second, task);
    wait_for("the brick to be empty", PATIENCE, async || {
        states(&first.must(&ask).await) == [("127.78.44.2", JobState::Completed)]
            && status(&first).await.tasks[0].status == "completed"
    })
    .await;
    assert_eq!(first.must(&commit).await.task, Some(task));
    assert_eq!(volume(&second).await.bricks.len(), 1);
    assert_eq!(first.refused(&ask).await.message, "remove-brick not started for volume dist.");
    let running = status(&first).await;
    assert_eq!((running.processes.len(), running.tasks.len()), (1, 0));
    assert!(Path::new(&bricks[0].path).join(".glusterfs").is_dir(), "what is left there stays there");
    first.end().await;
    second.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bricks_are_removed_only_while_they_run() {
    let (first, second) = two(45, 34650).await;
    first.must(&ResetStart { volume: "dist".to_owned(), brick: second.brick("b") }).await;
    wait_for("the brick to be out of service", PATIENCE, async || !status(&first).await.processes[1].online).await;
    let start = RemoveStart { volume: "dist".to_owned(), bricks: vec![second.brick("b")], replica: None };
    assert_eq!(
        first.refused(&start).await.message,
        format!(
            "Pre Validation failed on 127.78.45.2. Found stopped brick {}. Use force option to remove the offline brick",
            second.brick("b")
        )
    );
    let replace = Replace { volume: "dist".to_owned(), from: first.brick("b"), to: first.brick("c"), force: true };
    assert!(first.refused(&replace).await.message.starts_with("replace-brick is not permitted on distribute only"));
    assert!(!Path::new(&first.brick("c").path).exists());
    first.end().await;
    second.end().await;
}

/// All processes with their command lines.
fn processes() -> Vec<(i32, String)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        Some((pid, String::from_utf8_lossy(&environment).into_owned()))
    })
    .collect()
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kills");
}
