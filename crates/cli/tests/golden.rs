//! The `gluster` face against outputs of GlusterFS 10.3: for each golden record, the answer that GlusterFS's daemon gave is
//! built by hand, and wording it must give the same bytes, streams and exit code.

#[allow(dead_code, reason = "each test binary uses its part")]
mod golden_records;

use golden_records::{Check, words};
use mortar_api::Freshness;
use mortar_api::heal::{
    BrickCrawls, BrickPending, Crawl, Entry, EntryState, SettleFailure, SettleFailureKind, Settled,
};
use mortar_api::peer::{Members, Peer, PeerState, Probed};
use mortar_api::volume::{
    Brick, BrickClient, BrickDetail, BrickRef, Changed, Layout, OptionValue, Process, ProcessKind, State, Volume,
    VolumeStatus,
};
use mortar_cli::Command;
use mortar_cli::client::CallError;
use mortar_cli::execute::Answer;
use mortar_cli::face::gluster;
use mortar_cli::run::{Face, word};

fn golden(file: &str, line: &str) -> mortar_cli::Output {
    golden_records::golden(file, line, 0)
}

fn command(line: &str) -> Command {
    golden_records::command(line)
}

fn check(file: &'static str, line: &str, answer: Answer) {
    Check(file).answered_at(line, 0, answer);
}

fn check_refused(file: &'static str, line: &str, message: &str) {
    Check(file).refused_at(line, 0, message);
}

fn check_misuse(file: &'static str, line: &str) {
    Check(file).misused(line);
}

const GFS1: &str = "7bd0abc2-2bdd-4f02-998b-24d8103b78eb";
const GFS2: &str = "61d5a6af-dd41-4fd3-92f3-81fcc2579028";

fn uuid(text: &str) -> uuid::Uuid {
    text.parse().unwrap()
}

fn at(host: &str, path: &str) -> BrickRef {
    BrickRef { host: host.into(), path: path.into() }
}

fn peer(hostname: &str, id: &str) -> Peer {
    Peer {
        uuid: uuid(id),
        hostname: hostname.into(),
        other_names: vec![],
        connected: true,
        state: PeerState::InCluster,
        voter: true,
    }
}

fn members(local: &str, peers: Vec<Peer>) -> Answer {
    let freshness = Freshness { quorum: true, applied_index: 1 };
    Answer::Members(Members { local: uuid(local), peers, freshness })
}

fn changed(name: &str, id: &str) -> Answer {
    Answer::Changed(Changed { name: name.into(), id: uuid(id), warnings: vec![] })
}

fn imap0() -> Volume {
    let brick = |host: &str, id: &str, k: usize| Brick {
        at: at(host, "/srv/gfs/brick"),
        host_uuid: uuid(id),
        arbiter: false,
        brick_id: format!("imap0-client-{k}"),
        decommissioned: false,
        reset: false,
    };
    let options = [
        ("cluster.granular-entry-heal", "on"),
        ("storage.fips-mode-rchecksum", "on"),
        ("transport.address-family", "inet"),
        ("nfs.disable", "on"),
        ("performance.client-io-threads", "off"),
    ];
    Volume {
        name: "imap0".into(),
        id: uuid("b7857191-63b2-4d58-baa1-ab87bf78b7dc"),
        state: State::Started,
        layout: Layout::Replicate { replica: 2, arbiter: 0 },
        bricks: vec![brick("gfs1", GFS1, 0), brick("gfs2", GFS2, 1)],
        options: options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        snapshot_count: 0,
    }
}

fn process(host: &str, id: &str, port: u16, pid: u32) -> Process {
    let kind = if port == 0 { ProcessKind::SelfHealDaemon } else { ProcessKind::Brick };
    Process {
        kind,
        host: host.into(),
        path: if port == 0 { String::new() } else { "/srv/gfs/brick".into() },
        peer_id: uuid(id),
        port: (port > 0).then_some(port),
        online: true,
        pid: Some(pid),
        detail: None,
        clients: vec![],
    }
}

fn imap0_status() -> VolumeStatus {
    VolumeStatus {
        name: "imap0".into(),
        processes: vec![
            process("gfs1", GFS1, 50789, 4217),
            process("gfs2", GFS2, 50226, 4244),
            process("localhost", GFS1, 0, 4234),
            process("gfs2", GFS2, 0, 4262),
        ],
        tasks: vec![],
    }
}

fn detail(inodes_free: u64) -> Option<BrickDetail> {
    Some(BrickDetail {
        file_system: "ext4".into(),
        device: "/dev/vda".into(),
        mount_options: "rw,relatime,discard,resv_strict,resuid=65534,resgid=65534".into(),
        inode_size: 0,
        bytes_free: 254_084_857_856,
        bytes_total: 270_553_174_016,
        block_size: 4096,
        inodes_total: 16_777_216,
        inodes_free,
    })
}

fn rep3_pending() -> Vec<BrickPending> {
    let entries: Vec<Entry> = [
        ("/", "00000000-0000-0000-0000-000000000001"),
        ("/new", "7ffc545b-c88b-4223-90e7-880385e2dc48"),
        ("/dir", "19e8599f-6524-4790-a981-279a9bee2bf6"),
        ("/f2", "1d574ec7-9d4e-4ead-b745-e28277026edc"),
        ("/dir/made", "b588355a-9430-4940-9dcb-347b88f7fecf"),
        ("/f1", "9d926342-26bf-410e-aa3a-ed32f47a9f1c"),
    ]
    .iter()
    .map(|(path, gfid)| Entry {
        gfid: (*gfid).into(),
        path: Some((*path).into()),
        state: EntryState::Pending,
        why: None,
    })
    .collect();
    let brick = |host: &str, path: &str, id: &str, connected: bool| BrickPending {
        brick: at(host, path),
        host_uuid: uuid(id),
        connected,
        replica_set: 0,
        entries: if connected { entries.clone() } else { vec![] },
    };
    vec![
        brick("node1", "/bricks/rep3", "3d628fe3-585c-44f4-a127-0937fd0ed1d1", true),
        brick("node2", "/bricks/rep3", "536e9420-261e-4f95-b373-c4819f5b7f30", true),
        brick("node3", "/bricks/rep3c", "05d21d59-3034-4bb3-ae40-d841523c8c89", false),
    ]
}

#[test]
fn peers() {
    let two = || {
        vec![
            peer("node2", "536e9420-261e-4f95-b373-c4819f5b7f30"),
            peer("node3", "05d21d59-3034-4bb3-ae40-d841523c8c89"),
        ]
    };
    let local = "3d628fe3-585c-44f4-a127-0937fd0ed1d1";
    check("peer.txt", "gluster peer probe node2", Answer::Probed(Probed::Added));
    check("peer.txt", "gluster peer probe localhost", Answer::Probed(Probed::Localhost));
    check("peer.txt", "gluster peer probe node1", Answer::Probed(Probed::Localhost));
    check("peer.txt", "gluster --xml peer probe node3", Answer::Probed(Probed::Added));
    check("peer.txt", "gluster peer status", members(local, two()));
    check("peer.txt", "gluster --xml peer status", members(local, two()));
    check("peer.txt", "gluster pool list", members(local, two()));
    check("peer.txt", "gluster --xml pool list", members(local, two()));
    check("empty-cluster.txt", "gluster peer status", members(local, vec![]));
    check("empty-cluster.txt", "gluster --xml peer status", members(local, vec![]));
    check("empty-cluster.txt", "gluster pool list", members(local, vec![]));
    check("empty-cluster.txt", "gluster --xml pool list", members(local, vec![]));
    let unreachable = "Probe returned with Transport endpoint is not connected";
    check_refused("peer.txt", "gluster peer probe nosuchhost", unreachable);
    check_refused("peer.txt", "gluster --xml peer probe nosuchhost", unreachable);
    check_refused("peer.txt", "gluster --mode=script peer detach node3", "node3 is not part of cluster");
    check_refused("peer.txt", "gluster --mode=script --xml peer detach node3", "node3 is not part of cluster");
    check("abbreviations.txt", "gluster pe st", members(GFS1, vec![peer("gfs2", GFS2)]));
    check("abbreviations.txt", "gluster po l", members(GFS1, vec![peer("gfs2", GFS2)]));
}

#[test]
fn volume_life_cycle() {
    let id = "87bda2a5-e25d-471d-90b0-91944177f4aa";
    check("volume-create.txt", "gluster --mode=script volume create one node1:/bricks/one force", changed("one", id));
    check(
        "volume-create.txt",
        "gluster --mode=script --xml volume create rep3 replica 3 node1:/bricks/rep3 node2:/bricks/rep3 node3:/bricks/rep3 force",
        changed("rep3", id),
    );
    check_refused(
        "volume-create.txt",
        "gluster --mode=script volume create one node1:/bricks/one2 force",
        "Volume one already exists",
    );
    check_refused(
        "volume-create.txt",
        "gluster --mode=script --xml volume create one node1:/bricks/one3 force",
        "Volume one already exists",
    );
    check("volume-start-stop.txt", "gluster volume start one", changed("one", id));
    let rep2 = "63d1da4b-4e2f-4394-8d77-ef946ffc00f6";
    check("volume-start-stop.txt", "gluster --mode=script --xml volume start rep2", changed("rep2", rep2));
    let one = "9bbf67e6-b5e9-4a32-97dc-6d78baebfcb2";
    check("volume-start-stop.txt", "gluster --mode=script --xml volume start one", changed("one", one));
    check_refused("volume-start-stop.txt", "gluster volume start nosuch", "Volume nosuch does not exist");
    check_refused(
        "volume-start-stop.txt",
        "gluster --mode=script volume stop one",
        "Volume one is not in the started state",
    );
    check_refused(
        "volume-start-stop.txt",
        "gluster --mode=script --xml volume stop one",
        "Volume one is not in the started state",
    );
    check_refused(
        "volume-start-stop.txt",
        "gluster --mode=script volume delete rep2",
        "Volume rep2 has been started.Volume needs to be stopped before deletion.",
    );
    check_refused("volume-start-stop.txt", "gluster --mode=script volume status one", "Volume one is not started");
    check_refused(
        "volume-start-stop.txt",
        "gluster --mode=script --xml volume status one",
        "Volume one is not started",
    );
}

#[test]
fn volume_info_and_list() {
    check("volume-info.txt", "gluster volume info", Answer::Volumes(vec![imap0()]));
    check("volume-info-all.txt", "gluster volume info all", Answer::Volumes(vec![imap0()]));
    check("volume-info.xml", "gluster --xml volume info", Answer::Volumes(vec![imap0()]));
    check("volume-list.txt", "gluster volume list", Answer::Names(vec!["imap0".into()]));
    check("volume-list.xml", "gluster --xml volume list", Answer::Names(vec!["imap0".into()]));
    check("empty-cluster.txt", "gluster volume info", Answer::Volumes(vec![]));
    check("empty-cluster.txt", "gluster --xml volume info", Answer::Volumes(vec![]));
    check("empty-cluster.txt", "gluster volume list", Answer::Names(vec![]));
    check("empty-cluster.txt", "gluster --xml volume list", Answer::Names(vec![]));
    check_refused("errors-usage.txt", "gluster volume info nosuch", "Volume nosuch does not exist");
    check_refused("errors-usage.txt", "gluster volume info nosuch --xml", "Volume nosuch does not exist");
}

#[test]
fn volume_status() {
    check("volume-status.txt", "gluster volume status", Answer::Status(vec![imap0_status()]));
    check("volume-status.xml", "gluster --xml volume status", Answer::Status(vec![imap0_status()]));
    check("volume-status-tasks.txt", "gluster volume status imap0 tasks", Answer::Status(vec![imap0_status()]));
    check("volume-status-tasks.xml", "gluster --xml volume status imap0 tasks", Answer::Status(vec![imap0_status()]));
    check("empty-cluster.txt", "gluster volume status", Answer::Status(vec![]));
    check("empty-cluster.txt", "gluster --xml volume status", Answer::Status(vec![]));
    check_refused("errors-usage.txt", "gluster volume status imap0 badarg", "No brick badarg in volume imap0");
    check_refused("errors-usage.txt", "gluster volume status nosuch --xml", "Volume nosuch does not exist");

    let mut text = imap0_status();
    text.processes.truncate(2);
    for process in &mut text.processes {
        process.detail = detail(16_325_836);
    }
    check("volume-status-detail.txt", "gluster volume status imap0 detail", Answer::Status(vec![text.clone()]));
    for process in &mut text.processes {
        process.detail = detail(16_325_835);
    }
    check("volume-status-detail.xml", "gluster --xml volume status imap0 detail", Answer::Status(vec![text]));
}

#[test]
fn volume_status_clients() {
    let client = |hostname: &str, bytes_read, bytes_written, name: &str| BrickClient {
        hostname: hostname.into(),
        bytes_read,
        bytes_written,
        op_version: 100_000,
        name: name.into(),
    };
    let mut status = imap0_status();
    status.processes[0].clients = vec![
        client("10.77.0.11:49149", 8424, 9376, "glustershd"),
        client("10.77.0.12:49149", 1444, 1444, "glustershd"),
        client("10.77.0.15:49147", 815_315_628, 167_409_132, "fuse"),
    ];
    status.processes[1].clients = vec![
        client("10.77.0.12:49146", 8184, 9032, "glustershd"),
        client("10.77.0.15:49148", 820_258_556, 843_620_736, "fuse"),
        client("10.77.0.11:49145", 1684, 1788, "glustershd"),
    ];
    check("volume-status-clients.txt", "gluster volume status imap0 clients", Answer::Status(vec![status]));
}

#[test]
fn options() {
    let ping = |value: &str, default| {
        Answer::Options(vec![OptionValue { key: "network.ping-timeout".into(), value: value.into(), default }])
    };
    let id = GFS1;
    check("volume-set.txt", "gluster --mode=script volume get one network.ping-timeout", ping("20", false));
    check("volume-set.txt", "gluster --mode=script --xml volume get one network.ping-timeout", ping("20", false));
    let quorum = OptionValue { key: "cluster.quorum-type".into(), value: "none".into(), default: true };
    let quorum = || Answer::Options(vec![quorum.clone()]);
    check("volume-get-one.txt", "gluster volume get imap0 cluster.quorum-type", quorum());
    check("volume-get-one.xml", "gluster --xml volume get imap0 cluster.quorum-type", quorum());
    check("volume-set.txt", "gluster --mode=script volume set one cluster.quorum-type auto", changed("one", id));
    check("volume-set.txt", "gluster --mode=script volume reset one network.ping-timeout", changed("one", id));
    check("volume-set.txt", "gluster --mode=script --xml volume reset one performance.quick-read", changed("one", id));
    check(
        "volume-set.txt",
        "gluster --mode=script --xml volume set one diagnostics.client-log-level DEBUG",
        changed("one", id),
    );
    let unknown = "option : no.such.option does not exist\nDid you mean nfs.drc-size or ...mem-factor?";
    check_refused("volume-set.txt", "gluster --mode=script volume set one no.such.option 1", unknown);
    let unknown = "option : no.such does not exist\nDid you mean nfs.acl or ...drc?";
    check_refused("volume-set.txt", "gluster --mode=script --xml volume set one no.such 1", unknown);
    check_refused("errors-usage.txt", "gluster volume get nosuch all", "Volume nosuch does not exist");
    check_refused("errors-usage.txt", "gluster volume get nosuch all --xml", "Volume nosuch does not exist");
}

#[test]
fn heal() {
    check("volume-heal.txt", "gluster volume heal rep3 full", Answer::Done);
    check("volume-heal.txt", "gluster volume heal rep3 info split-brain", Answer::Pending(rep3_pending()));
    check("volume-heal.txt", "gluster volume heal rep3 statistics heal-count", Answer::Pending(rep3_pending()));
    check_refused("errors-usage.txt", "gluster volume heal nosuch info", "Volume nosuch does not exist");
    check_refused("errors-usage.txt", "gluster volume heal nosuch info --xml", "Volume nosuch does not exist");
    let info =
        |line: &str| word(Face::Gluster, words(line).0.format, &command(line), &Ok(Answer::Pending(rep3_pending())));
    let text = std::fs::read_to_string(format!("{}/tests/golden/volume-heal.txt", env!("CARGO_MANIFEST_DIR"))).unwrap();
    // The same command line occurs several times in this file; the record with a brick down is the one to find.
    for line in [
        "gluster volume heal rep3 info",
        "gluster --xml volume heal rep3 info",
        "gluster volume heal rep3 info summary",
    ] {
        let output = info(line);
        let record = format!("$ {line}\n{}--- exit 0\n", output.stdout);
        assert!(text.contains(&record), "{line}:\n{}", output.stdout);
    }
}

fn settled(name: &str, directory: bool, failure: Option<(SettleFailureKind, &str)>) -> Settled {
    let failure = failure.map(|(kind, message)| SettleFailure { kind, message: message.into() });
    Settled { name: name.into(), directory, failure }
}

#[test]
fn split_brain_commands() {
    let file = "volume-heal-splitbrain.txt";
    let one = |name: &str, kind, message: &str| Answer::Settled(vec![settled(name, false, Some((kind, message)))]);
    let choice = SettleFailureKind::NoChoice;
    let line = "gluster --mode=script volume heal rep2 split-brain";
    check(file, &format!("{line} bigger-file /sb.txt"), one("/sb.txt", choice, "No bigger file"));
    check(file, &format!("{line} latest-mtime /sb.txt"), one("/sb.txt", choice, "No difference in mtime"));
    let missing = one("/nosuch", SettleFailureKind::Lookup, "No such file or directory");
    check(file, &format!("{line} latest-mtime /nosuch"), missing);
    let not_split = "File not in split-brain";
    let directory = "gfid:559fe995-f7c6-438e-8be2-e99d21eb70d7";
    let entries = vec![
        settled("gfid:c4d9be7f-021a-4db1-b506-c8a7a511a4ea", false, None),
        settled(directory, true, Some((SettleFailureKind::NotInSplitBrain, not_split))),
    ];
    check(file, &format!("{line} source-brick node1:/bricks/rep2"), Answer::Settled(entries));
    let none = || Answer::Settled(Vec::new());
    check("volume-heal.txt", "gluster volume heal rep3 split-brain source-brick node1:/bricks/rep3", none());
    let not_split = one("/f1", SettleFailureKind::NotInSplitBrain, not_split);
    check("volume-heal.txt", "gluster volume heal rep3 split-brain latest-mtime /f1", not_split);
}

#[test]
fn crawl_statistics() {
    let crawl = |began, took, healed| Crawl {
        full: false,
        began,
        ended: Some(began + took),
        healed,
        split_brain: 0,
        failed: 0,
    };
    let of = |host: &str, crawls| BrickCrawls { brick: at(host, "/bricks/rep2"), crawls };
    // 2026-11-23 03:23:11 is 1795404191.
    let first = 1_795_404_191;
    let bricks = vec![
        of(
            "node1",
            vec![crawl(first, 0, 0), crawl(first + 600, 1, 0), crawl(first + 783, 0, 0), crawl(first + 784, 0, 0)],
        ),
        of("node2", vec![crawl(first + 783, 0, 3), crawl(first + 784, 0, 0), crawl(first + 785, 0, 0)]),
    ];
    let line = "gluster --mode=script volume heal rep2 statistics";
    check("volume-heal-splitbrain.txt", line, Answer::Crawls(bricks));
    let line = "gluster volume heal rep3 statistics heal-count replica node1:/bricks/rep3";
    check("volume-heal.txt", line, Answer::Pending(rep3_pending()));
}

#[test]
fn misuse_is_told_in_glusterfs_words() {
    for line in [
        "gluster badword",
        "gluster volume",
        "gluster volume badword",
        "gluster volume start",
        "gluster peer",
        "gluster peer probe",
        "gluster volume info imap0 extra",
        "gluster volume heal imap0 badop",
    ] {
        check_misuse("errors-usage.txt", line);
    }
    for line in ["gluster v i imap0", "gluster vo st imap0"] {
        check_misuse("abbreviations.txt", line);
    }
    for line in [
        "gluster --mode=script volume create bad/name node1:/bricks/x force",
        "gluster --mode=script volume create two node1:relative force",
        "gluster --mode=script volume create two disperse 2 node1:/bricks/x node2:/bricks/x force",
        "gluster --mode=script volume create",
    ] {
        check_misuse("volume-create.txt", line);
    }
    let unknown = mortar_cli::Globals::extract(vec!["--badopt".into(), "volume".into(), "info".into()]).unwrap_err();
    assert_eq!(
        gluster::unknown_option(&unknown.to_string()),
        golden("errors-usage.txt", "gluster --badopt volume info")
    );
}

#[test]
fn a_daemon_that_is_down_is_told_in_glusterfs_words() {
    let line = "gluster --mode=script --xml volume info    # glusterd not running";
    let down = Err(CallError::NotRunning("/run/mortar/mortard.sock".into()));
    let output = word(Face::Gluster, mortar_cli::globals::Format::Xml, &command("gluster volume info"), &down);
    assert_eq!(output, golden("glusterd-down.txt", line));
}
