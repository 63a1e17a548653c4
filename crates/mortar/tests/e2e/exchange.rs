//! Replicas come and are exchanged while mail is written: the new brick ends as a copy of the others.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mortar_testkit::lab::{Host, Lab};
use mortar_testkit::needs::{self, Need};
use mortar_testkit::{tree, wait};

use crate::cluster::{self, SPOOL};
use crate::ledger::Ledger;

const PATIENCE: Duration = Duration::from_secs(60);
const HEAL_LIMIT: Duration = Duration::from_secs(180);

/// Asks the admin API of a host's daemon.
fn ask(host: &Host, path: &str, request: &str) -> Result<String> {
    let socket = "/run/mortar/mortard.sock";
    host.ok(&format!("curl -sS --fail-with-body --unix-socket {socket} -d '{request}' http://mortar/v1/{path}"))
        .with_context(|| cluster::logs(host))
}

fn brick(host: &str, path: &str) -> String {
    format!(r#"{{"host":"{host}","path":"{path}"}}"#)
}

/// Waits until `path` on `host` holds what gfs1's brick holds.
fn becomes_a_copy(lab: &Lab, host: &str, path: &str) -> Result<()> {
    let counts = |name: &str| !name.starts_with("trusted.afr.") && name != "trusted.glusterfs.mdata";
    let shown = |host: &str, path: &str| -> Result<_> {
        let mut tree = tree::walk(&cluster::seen_from_outside(lab, host, path), &[".glusterfs"], &counts)?;
        tree.retain(|path, _| !path.to_string_lossy().starts_with(cluster::PARKING_PLACE));
        Ok(tree)
    };
    let mut last = Vec::new();
    let same = wait::until(HEAL_LIMIT, || {
        let both = shown("gfs1", "/srv/gfs/brick").and_then(|one| Ok((one, shown(host, path)?)));
        last = match both {
            Ok((one, other)) => tree::differences(&one, &other),
            Err(error) => vec![error.to_string()],
        };
        last.is_empty()
    });
    last.truncate(20);
    ensure!(same, "{host}:{path} is no copy:\n{}\n{}", last.join("\n"), cluster::logs(lab.host(host)));
    Ok(())
}

fn replicas_come_and_are_exchanged() -> Result<()> {
    let lab = cluster::lab(3)?;
    cluster::create_imap0(&lab, cluster::System::Mortar)?;
    let gfs1 = lab.host("gfs1");
    gfs1.ok("gluster peer probe gfs3")?;
    cluster::mount_spool(&lab)?;
    cluster::both_bricks_written(&lab)?;
    lab.host("kolab").ok(&format!(
        "for d in a b c; do mkdir -p {SPOOL}/$d/deep; for i in $(seq 40); do echo $d$i > {SPOOL}/$d/deep/$i; done; done"
    ))?;
    let ledger = Ledger::start(&lab, 100_000)?;
    ledger.grows(100, PATIENCE)?;
    let third = brick("gfs3", "/srv/gfs/brick");
    let add = format!(r#"{{"volume":"imap0","bricks":[{third}],"replica":3,"arbiter":0,"force":true}}"#);
    ask(gfs1, "volume/add-brick", &add)?;
    ledger.grows(200, PATIENCE)?;
    let (from, to) = (brick("gfs2", "/srv/gfs/brick"), brick("gfs2", "/srv/gfs/second"));
    let replace = format!(r#"{{"volume":"imap0","from":{from},"to":{to},"force":true}}"#);
    ask(gfs1, "volume/replace-brick", &replace)?;
    ledger.grows(200, PATIENCE)?;
    let promises = ledger.stopped(PATIENCE)?;
    becomes_a_copy(&lab, "gfs3", "/srv/gfs/brick")?;
    becomes_a_copy(&lab, "gfs2", "/srv/gfs/second")?;
    promises.kept()?;

    // A brick's disk is exchanged for an empty one at the same place.
    let gfs3 = lab.host("gfs3");
    ask(gfs1, "volume/reset-brick/start", &format!(r#"{{"volume":"imap0","brick":{third}}}"#))?;
    gfs3.ok("rm -rf /srv/gfs/brick && mkdir /srv/gfs/brick")?;
    let commit = format!(r#"{{"volume":"imap0","from":{third},"to":{third},"force":true}}"#);
    ask(gfs1, "volume/reset-brick/commit", &commit)?;
    becomes_a_copy(&lab, "gfs3", "/srv/gfs/brick")
}

#[test]
fn replicas_come_and_are_exchanged_while_mail_is_written() {
    let wanted: Vec<Need> = needs::LAB.into_iter().chain([Need::Program("curl", "curl")]).collect();
    if needs::met("replicas_come_and_are_exchanged_while_mail_is_written", &wanted) {
        cluster::must(replicas_come_and_are_exchanged());
    }
}
