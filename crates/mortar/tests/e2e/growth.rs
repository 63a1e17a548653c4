//! The HOWTO's second half: two more hosts join, the volume doubles, and mail goes on.

use std::time::Duration;

use anyhow::{Result, ensure};
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

fn two_hosts_become_four() -> Result<()> {
    let lab = cluster::lab(4)?;
    cluster::create_imap0(&lab, cluster::System::Mortar)?;
    cluster::mount_spool(&lab)?;
    cluster::both_bricks_written(&lab)?;
    fill(&lab, 10, 30)?;
    let before = sums(&lab)?;
    let ledger = Ledger::start(&lab, 100_000)?;
    ledger.grows(50, PATIENCE)?;
    println!("{}", grow(&lab)?);
    let written = ledger.grows(50, PATIENCE).and_then(|()| ledger.stopped(PATIENCE));
    let promises = written.map_err(|error| error.context(cluster::logs(lab.host("kolab"))))?;
    promises.kept()?;
    let after = sums(&lab)?;
    ensure!(before == after, "the tree has changed:\n{before}\n--\n{after}");
    let moved = lab.host("gfs3").ok(&format!("find {BRICK}/user -type f -size +0 | wc -l"))?;
    ensure!(moved.trim().parse::<usize>().is_ok_and(|moved| moved > 100), "gfs3 has {moved} files");
    Ok(())
}

#[test]
fn a_volume_doubles_while_mail_is_written() {
    if needs::met("a_volume_doubles_while_mail_is_written", &needs::LAB) {
        cluster::must(two_hosts_become_four());
    }
}
