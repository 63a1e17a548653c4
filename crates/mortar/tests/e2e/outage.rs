//! A node dies, mail goes on, it returns and repairs itself; the whole cluster loses power and comes back.

use std::time::Duration;

use anyhow::Result;
use mortar_testkit::lab::Lab;
use mortar_testkit::{needs, wait};

use crate::cluster;

/// A maildir-like writer: every name that it prints to the ledger was written, fsynced and renamed into place.
const WRITER: &str = r#"
import os, sys, hashlib
spool, ledger, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
for folder in ("tmp", "new"):
    os.makedirs(f"{spool}/{folder}", exist_ok=True)
log = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
for number in range(count):
    body = (f"Message {number}\n" * 300).encode()
    name = f"{os.getpid()}.{number}"
    fd = os.open(f"{spool}/tmp/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(fd, body)
    os.fsync(fd)
    os.close(fd)
    os.rename(f"{spool}/tmp/{name}", f"{spool}/new/{name}")
    directory = os.open(f"{spool}/new", os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    os.write(log, f"{hashlib.sha256(body).hexdigest()}  {spool}/new/{name}\n".encode())
"#;

fn writer(lab: &Lab, ledger: &str, count: usize) -> Result<std::process::Child> {
    let script = lab.dir().join("writer.py");
    std::fs::write(&script, WRITER)?;
    lab.host("kolab").spawn(&format!(
        "python3 {} {} {ledger} {count} 2>{ledger}.err; echo $? > {ledger}.exit",
        script.display(),
        cluster::SPOOL
    ))
}

fn ledger_lines(lab: &Lab, ledger: &str) -> usize {
    lab.host("kolab").ok(&format!("wc -l < {ledger}")).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn check_ledger(lab: &Lab, ledger: &str) {
    let kolab = lab.host("kolab");
    let output = kolab.run(&format!("sha256sum --quiet -c {ledger}")).unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_node_dies_mail_goes_on_and_the_node_repairs_itself() {
    if !needs::met("a_node_dies_mail_goes_on_and_the_node_repairs_itself", &needs::LAB) {
        return;
    }
    let lab = cluster::imap0().unwrap();
    cluster::mount_spool(&lab).unwrap();
    let ledger = lab.dir().join("ledger").display().to_string();
    let mut writing = writer(&lab, &ledger, 1500).unwrap();
    assert!(wait::until(Duration::from_secs(60), || ledger_lines(&lab, &ledger) > 200), "the writer does not get on");

    lab.host("gfs2").kill_all();
    let before = ledger_lines(&lab, &ledger);
    assert!(wait::until(Duration::from_secs(60), || ledger_lines(&lab, &ledger) > before + 200), "mail stopped");
    let gfs1 = lab.host("gfs1");
    let down = wait::until(Duration::from_secs(5), || {
        gfs1.ok("gluster peer status").is_ok_and(|text| text.contains("(Disconnected)"))
    });
    assert!(down, "{}", gfs1.ok("gluster peer status").unwrap());

    cluster::start_daemon(lab.host("gfs2")).unwrap();
    writing.wait().unwrap();
    assert_eq!(lab.host("kolab").ok(&format!("cat {ledger}.exit {ledger}.err")).unwrap(), "0\n");
    cluster::healed(&lab, Duration::from_secs(120)).unwrap();
    check_ledger(&lab, &ledger);
    assert_eq!(cluster::brick_differences(&lab).unwrap(), Vec::<String>::new());
}

#[test]
fn the_whole_cluster_loses_power_and_comes_back() {
    if !needs::met("the_whole_cluster_loses_power_and_comes_back", &needs::LAB) {
        return;
    }
    let lab = cluster::imap0().unwrap();
    cluster::mount_spool(&lab).unwrap();
    let ledger = lab.dir().join("ledger").display().to_string();
    let mut writing = writer(&lab, &ledger, 100_000).unwrap();
    assert!(wait::until(Duration::from_secs(60), || ledger_lines(&lab, &ledger) > 300), "the writer does not get on");
    for host in ["kolab", "gfs1", "gfs2"] {
        lab.host(host).kill_all();
    }
    writing.wait().unwrap();
    lab.host("kolab").run("umount -l /var/spool/imap").unwrap();
    for host in ["gfs1", "gfs2"] {
        cluster::start_daemon(lab.host(host)).unwrap();
    }
    let mounted = wait::until(Duration::from_secs(20), || lab.host("kolab").ok("mount -a -t glusterfs").is_ok());
    assert!(mounted, "the spool cannot be mounted again\n{}", cluster::logs(lab.host("gfs1")));
    check_ledger(&lab, &ledger);
    cluster::healed(&lab, Duration::from_secs(120)).unwrap();
    check_ledger(&lab, &ledger);
    assert_eq!(cluster::brick_differences(&lab).unwrap(), Vec::<String>::new());
}
