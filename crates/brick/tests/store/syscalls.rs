//! How many system calls a fop takes in the steady state, counted by strace: what makes small files fast must not creep up.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use mortar_types::keys::LIST_XATTR;
use mortar_types::{Dict, Gfid, Value};

use crate::support::Brick;

/// Files in the directory that is listed.
const LISTED: usize = 100;

const CHILD: &str = "MORTAR_SYSCALLS_CHILD";

/// A call that nothing else makes marks where a fop begins.
fn mark(name: &str) {
    let _ = rustix::fs::access(format!("/mortar-mark/{name}"), rustix::fs::Access::EXISTS);
}

/// The traced process: does each fop once to warm up, then once between marks.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let Some(brick) = Brick::new() else { return };
    let dir = brick.mkdir(Gfid::ROOT, "d").expect("it is new");
    for round in ["warm", "counted"] {
        mark(&format!("create-{round}"));
        let (gfid, reply) = brick.create_open(dir, round).expect("it is new");
        mark(&format!("write-{round}"));
        brick.write(gfid, reply.fd, 0, b"some data").expect("it writes");
        mark(&format!("lookup-{round}"));
        brick.lookup(dir, round).expect("it is there");
        mark(&format!("lookup-list-{round}"));
        let xdata = Some(Dict::new().with(LIST_XATTR, Value::Int(1)).with("trusted.afr.vol-client-0", Value::Uint(12)));
        brick.lookup_with(dir, round, xdata).expect("it is there");
        mark(&format!("stat-{round}"));
        brick.stat(gfid).expect("it is there");
        mark(&format!("read-{round}"));
        brick.read(gfid, reply.fd, 0, 4096).expect("it reads");
        mark(&format!("release-{round}"));
        brick.release(gfid, reply.fd);
        mark(&format!("unlink-{round}"));
        brick.unlink(dir, round).expect("it is there");
        mark(&format!("mkdir-{round}"));
        brick.mkdir(dir, &format!("{round}-dir")).expect("it is new");
        mark("end");
    }
    // Old enough to be told from a change to come.
    for number in 0..LISTED {
        brick.create(dir, &format!("listed-{number}"), b"x").expect("it is new");
    }
    std::thread::sleep(Duration::from_millis(3100));
    for round in ["cold", "warm"] {
        mark(&format!("list-{round}"));
        brick.list(dir, 1 << 20).expect("it lists");
        mark(&format!("lookup-old-{round}"));
        brick.lookup(dir, "listed-0").expect("it is there");
        mark("end");
    }
}

#[test]
fn fops_take_no_more_system_calls_than_promised() {
    let trace = std::env::temp_dir().join(format!("mortar-strace-{}", std::process::id()));
    let this = std::env::current_exe().expect("a test knows its binary");
    let child = Command::new("strace")
        .args(["-f", "-qq", "-o"])
        .arg(&trace)
        .arg(this)
        .args(["--exact", "syscalls::child", "--test-threads=1"])
        .env(CHILD, "1")
        .output();
    if !child.is_ok_and(|output| output.status.success()) {
        mortar_testkit::needs::skip("no strace here");
        return;
    }
    let text = std::fs::read_to_string(&trace).expect("strace wrote it");
    let _ = std::fs::remove_file(&trace);
    let counts = count(&text);
    if counts.is_empty() {
        mortar_testkit::needs::skip("no brick could be made");
        return;
    }
    for (fop, most) in [
        // stat parent; unnamed file, gfid, note, times; handle, its folder, handle, name; stat; parent's times, stat.
        ("create", 12),
        ("write", 4),
        ("lookup", 3),
        ("lookup-list", 5),
        ("stat", 1),
        ("read", 2),
        ("release", 1),
        ("unlink", 8),
        ("mkdir", 12),
    ] {
        let found = counts.get(&format!("{fop}-counted")).map_or(0, Vec::len);
        assert!(
            (1..=most).contains(&found),
            "{fop} takes {found} system calls: {:#?}",
            counts[&format!("{fop}-counted")]
        );
    }
    // The names take few calls together; beside them an entry takes a stat, and while it is not known yet its gfid. The
    // times are remembered since the creation, as is that there is a handle.
    let listing = |round: &str| counts.get(&format!("list-{round}")).map_or(0, Vec::len);
    let (cold, warm) = (listing("cold"), listing("warm"));
    assert!((2 * LISTED..=2 * LISTED + 20).contains(&cold), "{cold}: {:#?}", counts["list-cold"]);
    assert!((LISTED..=LISTED + 20).contains(&warm), "{warm}: {:#?}", counts["list-warm"]);
    // Its own attributes and its parent's.
    assert_eq!(counts["lookup-old-warm"].len(), 2, "{:#?}", counts["lookup-old-warm"]);
}

/// The calls between marks, without those of the runtime that a test drives the store with, and of debug builds.
fn count(trace: &str) -> BTreeMap<String, Vec<String>> {
    const RUNTIME: [&str; 11] = [
        "fcntl",
        "futex",
        "getrandom",
        "epoll_",
        "mmap",
        "munmap",
        "madvise",
        "brk",
        "sched_",
        "mprotect",
        "clock_gettime",
    ];
    let mut counts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current = None;
    for line in trace.lines() {
        let call = line.split_once(' ').map_or(line, |(_, call)| call.trim_start());
        if let Some((_, rest)) = call.split_once("/mortar-mark/") {
            current = rest.split_once('"').map(|(name, _)| name.to_owned()).filter(|name| name != "end");
            continue;
        }
        if let Some(mark) = &current
            && !RUNTIME.iter().any(|name| call.starts_with(name))
            && !call.starts_with("<...")
        {
            counts.entry(mark.clone()).or_default().push(call.to_owned());
        }
    }
    counts
}
