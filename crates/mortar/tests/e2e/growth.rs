//! The HOWTO's second half: two more hosts join, the volume doubles, and mail goes on.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mortar_testkit::lab::Lab;
use mortar_testkit::{needs, wait};

use crate::cluster::{self, SPOOL};
use crate::ledger::Ledger;

const PATIENCE: Duration = Duration::from_secs(60);
/// For a whole rebalance, on a machine that does other things, too.
const REBALANCE_LIMIT: Duration = Duration::from_secs(240);

/// The HOWTO's brick on each host.
pub(crate) const BRICK: &str = "/srv/gfs/brick";

/// A tree of mailboxes: `count` files in each of `folders` folders.
fn fill(lab: &Lab, folders: usize, count: usize) -> Result<()> {
    lab.host("kolab")
        .ok(&format!(
            "for d in $(seq {folders}); do mkdir -p {SPOOL}/user/$d/cur; \
             for f in $(seq {count}); do seq $((d * 1000 + f)) | head -c 8192 > {SPOOL}/user/$d/cur/$f.mail:2,S; done; done"
        ))
        .map(drop)
}

/// Every file of the filled tree with its sum.
fn sums(lab: &Lab) -> Result<String> {
    lab.host("kolab").ok(&format!("cd {SPOOL}/user && find . -type f | sort | xargs -d '\\n' sha256sum"))
}

/// As a person does with `watch`: until every node has completed.
pub(crate) fn completed(lab: &Lab, what: &str) -> Result<String> {
    let gfs1 = lab.host("gfs1");
    let mut last = String::new();
    let done = wait::until(REBALANCE_LIMIT, || {
        std::thread::sleep(Duration::from_millis(500));
        last = gfs1.ok(&format!("gluster volume {what} status")).unwrap_or_else(|error| error.to_string());
        let rows: Vec<&str> =
            last.lines().filter(|line| line.contains("completed") || line.contains(" 0.00")).collect();
        !last.contains("in progress") && last.contains("completed") && rows.iter().all(|row| row.contains("completed"))
    });
    let logs = || lab.hosts().map(cluster::logs).collect::<String>();
    ensure!(done, "{what} is not completed:\n{last}\n{}", logs());
    Ok(last)
}

/// Steps 9 to 12 of the HOWTO's second half.
fn grow(lab: &Lab) -> Result<String> {
    let gfs1 = lab.host("gfs1");
    for host in ["gfs3", "gfs4"] {
        gfs1.ok(&format!("gluster peer probe {host}"))?;
    }
    gfs1.ok(&format!("gluster volume add-brick imap0 gfs3:{BRICK} gfs4:{BRICK}"))?;
    gfs1.ok("gluster volume rebalance imap0 start")?;
    let status = completed(lab, "rebalance imap0")?;
    lab.host("kolab").ok(&format!("mount -o remount {SPOOL}/"))?;
    Ok(status)
}

/// The volume's size as applications see it, KiB.
fn size_kib(lab: &Lab) -> Result<u64> {
    let df = lab.host("kolab").ok(&format!("df -Pk {SPOOL} | tail -1"))?;
    df.split_whitespace().nth(1).and_then(|size| size.parse().ok()).context("df has no size")
}

/// Two hosts with a filled spool, two that have not joined yet.
fn filled(folders: usize) -> Result<Lab> {
    let lab = cluster::lab(4)?;
    cluster::create_imap0(&lab, cluster::System::Mortar)?;
    cluster::mount_spool(&lab)?;
    cluster::both_bricks_written(&lab)?;
    fill(&lab, folders, 30)?;
    Ok(lab)
}

/// Data files on a host's brick: no link file, nothing of the brick's own.
fn data_files(lab: &Lab, host: &str) -> Result<Vec<String>> {
    let line = format!("cd {BRICK} && find . -path ./.glusterfs -prune -o -type f ! -perm 1000 -print");
    Ok(lab.host(host).ok(&line)?.lines().map(str::to_owned).collect())
}

fn two_hosts_become_four_and_two_again() -> Result<()> {
    let lab = filled(10)?;
    let (before, size) = (sums(&lab)?, size_kib(&lab)?);
    let ledger = Ledger::start(&lab, 100_000)?;
    ledger.grows(50, PATIENCE)?;
    println!("{}", grow(&lab)?);
    let grown = size_kib(&lab)?;
    ensure!(grown > size * 19 / 10 && grown < size * 21 / 10, "df says {grown} KiB after {size} KiB");
    ledger.grows(50, PATIENCE)?;
    ensure!(sums(&lab)? == before, "the tree has changed:\n{before}\n--\n{}", sums(&lab)?);
    ensure!(data_files(&lab, "gfs3")?.len() > 100, "gfs3 has only {:?}", data_files(&lab, "gfs3")?);

    let (gfs1, bricks) = (lab.host("gfs1"), format!("imap0 gfs3:{BRICK} gfs4:{BRICK}"));
    gfs1.ok(&format!("echo y | gluster volume remove-brick {bricks} start"))?;
    println!("{}", completed(&lab, &format!("remove-brick {bricks}"))?);
    let written = ledger.grows(50, PATIENCE).and_then(|()| ledger.stopped(PATIENCE));
    let promises = written.map_err(|error| error.context(cluster::logs(lab.host("kolab"))))?;
    gfs1.ok(&format!("echo y | gluster volume remove-brick {bricks} commit"))?;
    promises.kept()?;
    ensure!(sums(&lab)? == before, "the tree has changed:\n{before}\n--\n{}", sums(&lab)?);
    for host in ["gfs3", "gfs4"] {
        let left = data_files(&lab, host)?;
        ensure!(left.is_empty(), "{host} still has {left:?}");
    }
    let shrunk = size_kib(&lab)?;
    ensure!(shrunk < size * 11 / 10, "df says {shrunk} KiB after {grown} KiB");
    Ok(())
}

/// The processes that move files, on every host, killed as often as asked for while they work.
fn killed_movers_are_followed(kills: usize) -> Result<()> {
    let lab = filled(30)?;
    let before = sums(&lab)?;
    let gfs1 = lab.host("gfs1");
    for host in ["gfs3", "gfs4"] {
        gfs1.ok(&format!("gluster peer probe {host}"))?;
    }
    gfs1.ok(&format!("gluster volume add-brick imap0 gfs3:{BRICK} gfs4:{BRICK}"))?;
    gfs1.ok("gluster volume rebalance imap0 start")?;
    let mut killed = 0;
    for _ in 0..kills {
        std::thread::sleep(Duration::from_millis(1900));
        killed += ["gfs1", "gfs2"].iter().map(|host| lab.host(host).kill("rebalance --server")).sum::<usize>();
    }
    ensure!(killed > 0, "nothing was killed");
    println!("{killed} killed\n{}", completed(&lab, "rebalance imap0")?);
    ensure!(sums(&lab)? == before, "the tree has changed:\n{before}\n--\n{}", sums(&lab)?);
    Ok(())
}

/// A dry run changes nothing, a path limits the job to what is below it, and a paused job moves nothing until it goes on.
fn the_reins_are_obeyed() -> Result<()> {
    let lab = filled(20)?;
    let before = sums(&lab)?;
    let gfs1 = lab.host("gfs1");
    for host in ["gfs3", "gfs4"] {
        gfs1.ok(&format!("gluster peer probe {host}"))?;
    }
    gfs1.ok(&format!("gluster volume add-brick imap0 gfs3:{BRICK} gfs4:{BRICK}"))?;
    let start = |words: &str| gfs1.ok(&format!("mortar volume rebalance imap0 start {words}"));
    start("dry-run")?;
    println!("{}", completed(&lab, "rebalance imap0")?);
    let status = gfs1.ok("mortar volume rebalance imap0 status")?;
    ensure!(status.contains("A dry run: nothing is moved"), "{status}");
    ensure!(data_files(&lab, "gfs3")?.is_empty(), "a dry run has moved {:?}", data_files(&lab, "gfs3")?);

    start("path=/user/7")?;
    println!("{}", completed(&lab, "rebalance imap0")?);
    let moved = data_files(&lab, "gfs3")?;
    let is_below = |path: &String| path.starts_with("./user/7/");
    ensure!(!moved.is_empty() && moved.iter().all(is_below), "below /user/7 should have moved: {moved:?}");

    start("")?;
    gfs1.ok("mortar volume rebalance imap0 pause")?;
    let paused = wait::until(PATIENCE, || {
        let status = gfs1.ok("mortar volume rebalance imap0 status").unwrap_or_default();
        status.matches("paused").count() == 4
    });
    ensure!(paused, "not paused: {}", gfs1.ok("mortar volume rebalance imap0 status")?);
    std::thread::sleep(Duration::from_secs(1));
    let held = data_files(&lab, "gfs3")?.len();
    std::thread::sleep(Duration::from_secs(3));
    ensure!(data_files(&lab, "gfs3")?.len() == held, "a paused job has gone on");
    gfs1.ok("mortar volume rebalance imap0 resume")?;
    println!("{}", completed(&lab, "rebalance imap0")?);
    ensure!(data_files(&lab, "gfs3")?.len() > held, "nothing has moved after the pause");
    ensure!(sums(&lab)? == before, "the tree has changed:\n{before}\n--\n{}", sums(&lab)?);
    Ok(())
}

#[test]
fn a_rebalance_obeys_its_reins() {
    if needs::met("a_rebalance_obeys_its_reins", &needs::LAB) {
        cluster::must(the_reins_are_obeyed());
    }
}

#[test]
fn a_volume_doubles_and_shrinks_again_while_mail_is_written() {
    if needs::met("a_volume_doubles_and_shrinks_again_while_mail_is_written", &needs::LAB) {
        cluster::must(two_hosts_become_four_and_two_again());
    }
}

#[test]
fn a_rebalance_that_is_killed_goes_on() {
    if needs::met("a_rebalance_that_is_killed_goes_on", &needs::LAB) {
        cluster::must(killed_movers_are_followed(3));
    }
}
