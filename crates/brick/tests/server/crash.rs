//! A brick that is killed in the middle of changes, again and again.
//!
//! After each restart: every file whose fsync was acknowledged is there with its content, every name that was removed or
//! renamed and acknowledged is gone, whatever has a name answers a lookup with a gfid, and its handle is in place.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mortar_types::fop::{Fsync, Lookup, Opendir, Read, Readdirp, Release, Rename, Unlink, Write};
use mortar_types::{Errno, Fd, Gfid};
use parking_lot::Mutex;

use crate::brick::{Directory, Process};
use crate::client::{Client, create, lookup, name_of, with_gfid};

const KILLS: usize = 20;
const ROOT: Gfid = Gfid::ROOT;

/// What is known of a name.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Known {
    /// Acknowledged and fsynced: must be there with this content.
    Stored(String),
    /// Acknowledged: must not be there.
    Gone,
    /// A change was under way: either way is right.
    Open,
}

type Ledger = Arc<Mutex<BTreeMap<String, Known>>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_changes_survive_kill_9() {
    let Some(directory) = Directory::new("crash") else { return };
    let ledger = Ledger::default();
    for round in 0..KILLS {
        let process = Process::start(&directory);
        let client = Client::mount(process.address, &directory).await;
        check(&client, &directory, &ledger).await;
        let mut writers = Vec::new();
        for writer in 0..3 {
            let client = Client::mount(process.address, &directory).await;
            writers.push(tokio::spawn(write(client, format!("r{round}w{writer}"), Arc::clone(&ledger))));
        }
        // Different moments in different rounds; the writers are never done by then.
        tokio::time::sleep(Duration::from_millis(15 + (round as u64 * 37) % 180)).await;
        process.kill();
        for writer in writers {
            writer.await.unwrap();
        }
    }
    let process = Process::start(&directory);
    let client = Client::mount(process.address, &directory).await;
    check(&client, &directory, &ledger).await;
    let ledger = ledger.lock();
    let count = |wanted: fn(&Known) -> bool| ledger.values().filter(|known| wanted(known)).count();
    let (stored, gone) = (count(|known| matches!(known, Known::Stored(_))), count(|known| *known == Known::Gone));
    println!("{stored} files stored, {gone} names gone, {} open", ledger.len() - stored - gone);
    assert!(stored > KILLS && gone > KILLS, "the writers did not get far enough to prove anything");
}

/// Creates, writes, syncs, renames and removes until the brick dies.
async fn write(client: Client, prefix: String, ledger: Ledger) {
    for number in 0.. {
        let name = format!("{prefix}-{number}");
        if change(&client, &name, number, &ledger).await.is_none() {
            return;
        }
    }
}

/// One file's life; `None` when the brick has died.
async fn change(client: &Client, name: &str, number: u64, ledger: &Ledger) -> Option<()> {
    let note = |name: &str, known| {
        ledger.lock().insert(name.to_owned(), known);
    };
    note(name, Known::Open);
    let file = client.try_fop(create(ROOT, name)).await.ok()?.unwrap();
    let (gfid, fd) = (file.stat.gfid, file.fd);
    let content = format!("content of {name}");
    let data = name_of(&content);
    client.try_fop(Write { gfid, fd, offset: 0, flags: 0, data, xdata: None }).await.ok()?.unwrap();
    client.try_fop(Fsync { gfid, fd, datasync: 0, xdata: None }).await.ok()?.unwrap();
    note(name, Known::Stored(content.clone()));
    client.try_fop(Release { gfid, fd, xdata: None }).await.ok()?.unwrap();
    match number % 3 {
        0 => {
            let renamed = format!("{name}-renamed");
            note(name, Known::Open);
            note(&renamed, Known::Open);
            let (old_name, new_name) = (name_of(name), name_of(&renamed));
            let rename = Rename { old_parent: ROOT, new_parent: ROOT, old_name, new_name, xdata: None };
            client.try_fop(rename).await.ok()?.unwrap();
            note(name, Known::Gone);
            note(&renamed, Known::Stored(content));
        }
        1 => {
            note(name, Known::Open);
            let unlink = Unlink { parent: ROOT, name: name_of(name), flags: 0, xdata: None };
            client.try_fop(unlink).await.ok()?.unwrap();
            note(name, Known::Gone);
        }
        _ => {}
    }
    Some(())
}

async fn check(client: &Client, directory: &Directory, ledger: &Ledger) {
    let known = ledger.lock().clone();
    for (name, known) in &known {
        let found = client.lookup(ROOT, name).await;
        match (known, found) {
            (Known::Gone, found) => assert_eq!(found.err(), Some(Errno::ENOENT), "{name} was removed"),
            (Known::Open, Err(errno)) => assert_eq!(errno, Errno::ENOENT, "{name}"),
            (Known::Open, Ok(reply)) => assert!(!reply.stat.gfid.is_null(), "{name} has no gfid"),
            (Known::Stored(content), Ok(reply)) => {
                let gfid = reply.stat.gfid;
                let read = Read { gfid, fd: Fd::ANONYMOUS, offset: 0, size: 4096, flags: 0, xdata: None };
                assert_eq!(client.fop(read).await.unwrap().data, name_of(content), "{name}");
            }
            (Known::Stored(_), Err(errno)) => panic!("{name} is lost: {errno}"),
        }
    }
    check_listing(client, directory.path()).await;
}

/// The gfid of a name. One that was made just before the kill may have none yet: a lookup that brings one repairs it,
/// once the file is no longer so fresh that its creation might still be under way.
async fn repaired(client: &Client, name: &str) -> Gfid {
    for _ in 0..100 {
        match client.fop(Lookup { xdata: with_gfid(), ..lookup(ROOT, name) }).await {
            Ok(reply) => return reply.stat.gfid,
            Err(Errno::ENOENT | Errno::ENODATA) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(errno) => panic!("{name}: {errno}"),
        }
    }
    panic!("{name} was not repaired");
}

/// Every listed name can be looked up, and its handle is a link to the same inode.
async fn check_listing(client: &Client, brick: &Path) {
    let fd = client.fop(Opendir { gfid: ROOT, xdata: None }).await.unwrap().fd;
    let mut offset = 0;
    loop {
        let page = client.fop(Readdirp { gfid: ROOT, fd, offset, size: 65_536, xdata: None }).await.unwrap();
        for listed in &page.entries {
            offset = listed.entry.offset;
            let name = std::str::from_utf8(&listed.entry.name).unwrap();
            if matches!(name, "." | "..") {
                continue;
            }
            let gfid = repaired(client, name).await.to_string();
            let handle = brick.join(".glusterfs").join(&gfid[..2]).join(&gfid[2..4]).join(&gfid);
            let inode = |path: &Path| std::fs::symlink_metadata(path).map(|found| found.ino());
            assert_eq!(inode(&handle).ok(), inode(&brick.join(name)).ok(), "{name}: the handle of {gfid}");
        }
        if page.eof || page.entries.is_empty() {
            break;
        }
    }
    client.fop(mortar_types::fop::Releasedir { gfid: ROOT, fd, xdata: None }).await.unwrap();
}
