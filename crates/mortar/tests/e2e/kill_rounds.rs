//! Ten rounds of `kill -9` on one process after another while a client writes: each comes back, heal ends, nothing is lost.
//!
//! Bricks and heald are started again by their `mortard`; `mortard` itself by us, as an init system would.

use std::time::Duration;

use anyhow::{Result, ensure};
use mortar_testkit::lab::{Host, Lab};
use mortar_testkit::{needs, wait};

use crate::cluster;
use crate::ledger::Ledger;
use crate::stress::Chance;

const ROUNDS: usize = 10;
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that can be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Brick,
    Heald,
    Daemon,
}

impl Victim {
    const ALL: [Self; 3] = [Self::Brick, Self::Heald, Self::Daemon];

    /// Whether a command line is this process's. The role is a word of it (ARCHITECTURE.md); `mortard` may have been
    /// called by a name that says the role.
    fn is(self, words: &str) -> bool {
        let mut words = words.split_whitespace();
        let (program, role) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        match self {
            Self::Brick => role == "brick",
            Self::Heald => role == "heald",
            Self::Daemon => role == "daemon" || program.ends_with("glusterd") || program.ends_with("mortard"),
        }
    }

    fn pids(self, host: &Host) -> Vec<u32> {
        host.processes().into_iter().filter(|(_, words)| self.is(words)).map(|(pid, _)| pid).collect()
    }

    /// Kills it, and sees it come back under another pid.
    fn dies_and_returns(self, host: &Host) -> Result<()> {
        let before = self.pids(host);
        ensure!(before.len() == 1, "{}: {self:?} is {before:?} of {:?}", host.name(), host.processes());
        host.ok(&format!("kill -9 {}", before[0]))?;
        if self == Self::Daemon {
            let gone = wait::until(Duration::from_secs(5), || self.pids(host).is_empty());
            ensure!(gone, "{}: mortard does not die", host.name());
            cluster::start_daemon(host)?;
        }
        let back = wait::until(Duration::from_secs(20), || {
            let now = self.pids(host);
            now.len() == 1 && now != before
        });
        ensure!(back, "{}: {self:?} does not return:\n{}", host.name(), cluster::logs(host));
        Ok(())
    }
}

/// Waits until both bricks serve the mount, as the processes say: the next round may kill the other one, and a client that
/// has not found its way back to the first by then has lost both.
fn all_serve(lab: &Lab, what: &str) -> Result<()> {
    let served = wait::until(Duration::from_secs(30), || {
        ["gfs1", "gfs2"].iter().all(|name| {
            let text = lab.host(name).ok("gluster volume status imap0").unwrap_or_default();
            let bricks: Vec<&str> = text.lines().filter(|line| line.starts_with("Brick ")).collect();
            let online =
                bricks.len() == 2 && bricks.iter().all(|line| line.split_whitespace().nth_back(1) == Some("Y"));
            let clients = lab.host(name).ok("gluster volume status imap0 client-list").unwrap_or_default();
            online && clients.lines().any(|line| line.split_whitespace().eq(["fuse", "2"]))
        })
    });
    ensure!(served, "{what}: not all bricks are online:\n{}", lab.host("gfs1").ok("gluster volume status imap0")?);
    Ok(())
}

fn kill_rounds(seed: u64) -> Result<()> {
    let lab = cluster::imap0()?;
    cluster::mount_spool(&lab)?;
    cluster::both_bricks_written(&lab)?;
    let ledger = Ledger::start(&lab, 1_000_000)?;
    ledger.grows(50, PATIENCE)?;
    let mut chance = Chance::new(seed);
    for round in 1..=ROUNDS {
        let victim = Victim::ALL[chance.below(3)];
        let host = lab.host(["gfs1", "gfs2"][chance.below(2)]);
        let what = format!("round {round} (seed {seed}): {victim:?} on {}", host.name());
        println!("{what}");
        victim.dies_and_returns(host).map_err(|error| error.context(what.clone()))?;
        ledger.grows(50, PATIENCE).map_err(|error| error.context(what.clone()))?;
        // Two copies must be whole again before the next death, else it may take the only good one.
        all_serve(&lab, &what)?;
        ledger.held(|| cluster::healed(&lab, PATIENCE)).map_err(|error| error.context(what))?;
    }
    let promises = ledger.stopped(PATIENCE)?;
    cluster::healed(&lab, PATIENCE)?;
    promises.kept()?;
    cluster::bricks_are_identical(&lab)
}

#[test]
fn processes_die_one_after_another_and_nothing_is_lost() {
    if needs::met("processes_die_one_after_another_and_nothing_is_lost", &needs::LAB) {
        cluster::must(kill_rounds(3));
    }
}
