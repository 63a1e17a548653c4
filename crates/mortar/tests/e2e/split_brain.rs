//! The classical split-brain recipe: a write while one brick is away, another while the other one is, then both are back.
//!
//! Two replicas without a quorum split, and every way out leads out; three replicas, or two and an arbiter, never split. The
//! words are compared with those of GlusterFS, on which the same recipe runs in the ignored tests.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mortar_testkit::lab::{Host, Lab, Options};
use mortar_testkit::{needs, wait};

use crate::cluster::{self, SPOOL, System, Systems};

const PATIENCE: Duration = Duration::from_secs(60);

/// One volume of some replicas, with a client that can be cut off from each.
struct Recipe {
    lab: Lab,
    systems: Systems,
    servers: Vec<String>,
}

impl Recipe {
    fn new(systems: Systems, servers: usize, kind: &str) -> Result<Self> {
        let options = Options::howto(servers, Some(cluster::binary()));
        let is_server = |host: &str| host.starts_with("gfs");
        let of = |host: &str| if is_server(host) { systems.servers } else { systems.client };
        let lab = cluster::lab_of(options, of)?;
        let servers: Vec<String> = (1..=servers).map(|number| format!("gfs{number}")).collect();
        let gfs1 = lab.host("gfs1");
        for host in &servers[1..] {
            gfs1.ok(&format!("gluster peer probe {host}"))?;
        }
        std::thread::sleep(Duration::from_secs(3));
        let bricks: Vec<String> = servers.iter().map(|host| format!("{host}:/srv/gfs/brick")).collect();
        gfs1.ok(&format!("gluster --mode=script volume create imap0 {kind} {}", bricks.join(" ")))?;
        // A split-brain is not to be healed, nor a write held back, before it is there.
        for option in ["cluster.self-heal-daemon off", "network.ping-timeout 5"] {
            gfs1.ok(&format!("gluster volume set imap0 {option}"))?;
        }
        gfs1.ok("gluster volume start imap0")?;
        let recipe = Self { lab, systems, servers };
        recipe.mount()?;
        Ok(recipe)
    }

    fn gfs1(&self) -> &Host {
        self.lab.host("gfs1")
    }

    fn kolab(&self) -> &Host {
        self.lab.host("kolab")
    }

    /// Mounts, and waits until the client has all bricks that are up.
    fn mount(&self) -> Result<()> {
        let kolab = self.kolab();
        let mounted = wait::until(PATIENCE, || {
            self.servers.iter().any(|host| kolab.ok(&format!("mount -t glusterfs {host}:/imap0 {SPOOL}")).is_ok())
        });
        ensure!(mounted, "cannot mount\n{}", cluster::logs(kolab));
        std::thread::sleep(Duration::from_secs(4));
        Ok(())
    }

    /// Takes one brick away.
    fn down(&self, host: &str) -> Result<()> {
        let host = self.lab.host(host);
        match self.systems.servers {
            // Its daemon would start the brick again.
            System::Mortar => host.kill_all(),
            System::Glusterfs => {
                host.kill("glusterfsd");
            }
        }
        Ok(())
    }

    fn up(&self, host: &str) -> Result<()> {
        let at = self.lab.host(host);
        match self.systems.servers {
            System::Mortar => cluster::start_daemon(at)?,
            System::Glusterfs => {
                at.ok("gluster volume start imap0 force")?;
            }
        }
        let online = wait::until(PATIENCE, || {
            at.ok("gluster volume status imap0").is_ok_and(|text| {
                let mut lines = text.lines().filter(|line| line.starts_with("Brick") && line.contains(host));
                lines.next().is_some_and(|line| line.contains(" Y "))
            })
        });
        ensure!(online, "{host}'s brick does not come up\n{}", cluster::logs(at));
        Ok(())
    }

    /// Both writes of the recipe; whether the second was accepted. `first` and `second` are lines run in the mount.
    fn cook(&self, common: &str, first: &str, second: &str) -> Result<bool> {
        let kolab = self.kolab();
        let within = |line: &str| format!("cd {SPOOL} && {line}");
        kolab.ok(&within(common))?;
        kolab.ok(&format!("umount {SPOOL}"))?;
        self.down("gfs1")?;
        self.mount()?;
        kolab.ok(&within(first)).context("with gfs1 down")?;
        kolab.ok(&format!("umount {SPOOL}"))?;
        self.down("gfs2")?;
        self.up("gfs1")?;
        self.mount()?;
        let accepted = kolab.run(&within(second))?.status.success();
        kolab.ok(&format!("umount {SPOOL}"))?;
        self.up("gfs2")?;
        self.mount()?;
        Ok(accepted)
    }

    fn heal_line(&self, words: &str) -> Result<(String, Option<i32>)> {
        let output = self.gfs1().run(&format!("gluster --mode=script volume heal imap0 {words}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((without_gfids(&text), output.status.code()))
    }

    /// Runs a heal command that must print exactly `expected` and end with `code`.
    fn heal_says(&self, words: &str, expected: &str, code: i32) -> Result<()> {
        let (text, ended) = self.heal_line(words)?;
        ensure!(
            text == expected && ended == Some(code),
            "heal imap0 {words} ends with {ended:?} and says\n{text}instead of {code} and\n{expected}"
        );
        Ok(())
    }

    /// That exactly these files are told to be in split-brain, on both bricks. GlusterFS finds the paths of a brick's entries
    /// only as far as an earlier question has resolved them, and tells gfids of the others.
    fn tells_of(&self, paths: &[&str]) -> Result<()> {
        let entry = |line: &str| match self.systems.servers {
            System::Glusterfs if line.starts_with('/') || line.starts_with("<gfid:") => "an entry".to_owned(),
            _ => line.to_owned(),
        };
        // The order of an index is nobody's promise.
        let sorted = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(entry).collect();
            lines.sort_unstable();
            lines
        };
        let ((text, code), expected) = (self.heal_line("info split-brain")?, told(paths));
        ensure!(
            sorted(&text) == sorted(&expected) && code == Some(0),
            "heal info split-brain ends with {code:?} and says\n{text}instead of\n{expected}"
        );
        Ok(())
    }

    /// Waits until every brick is connected to the one who tells what is pending.
    fn all_connected(&self) -> Result<()> {
        let mut last = String::new();
        let all = wait::until(PATIENCE, || {
            last = self.heal_line("info").map(|(text, _)| text).unwrap_or_default();
            last.matches("Status: Connected").count() == self.servers.len()
        });
        ensure!(all, "not all bricks are connected:\n{last}");
        Ok(())
    }

    fn content(&self, host: &str, name: &str) -> String {
        let path = cluster::seen_from_outside(&self.lab, host, "/srv/gfs/brick").join(name);
        std::fs::read_to_string(path).unwrap_or_else(|error| error.to_string())
    }

    /// That both bricks hold `content` in `name`, and a client reads it.
    fn settled_to(&self, name: &str, content: &str) -> Result<()> {
        for host in ["gfs1", "gfs2"] {
            let found = self.content(host, name);
            ensure!(found == content, "{host}: {name} holds {found:?} instead of {content:?}");
        }
        let read = self.kolab().ok(&format!("cat {SPOOL}/{name}"))?;
        ensure!(read == content, "a client reads {read:?} of {name} instead of {content:?}");
        Ok(())
    }

    fn heals_to_nothing(&self) -> Result<()> {
        self.gfs1().ok("gluster --mode=script volume set imap0 cluster.self-heal-daemon on")?;
        let mut last = String::new();
        let healed = wait::until(Duration::from_secs(120), || {
            // Whoever is told too early, before its daemon is up, is told again.
            let _launched = self.gfs1().run("gluster volume heal imap0");
            last = self.heal_line("info").map(|(text, _)| text).unwrap_or_default();
            last.matches("Number of entries: 0").count() == self.servers.len()
        });
        ensure!(healed, "not healed:\n{last}\n{}", cluster::logs(self.gfs1()));
        Ok(())
    }
}

/// Gfids differ from run to run.
fn without_gfids(text: &str) -> String {
    let mut told = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("gfid:") {
        let (before, gfid) = rest.split_at(at);
        told.push_str(before);
        told.push_str("gfid:G");
        rest = gfid.get("gfid:".len() + 36..).unwrap_or_default();
    }
    told + rest
}

/// The files of the recipe, each for one way out.
const FILES: [&str; 6] = ["bigger", "latest", "source", "policy", "all-a", "all-b"];

fn write_all(text: &str) -> String {
    FILES.map(|name| format!("printf '{text}' > {name}")).join(" && ")
}

/// How `heal info split-brain` tells of `count` files.
fn told(paths: &[&str]) -> String {
    let listed: String = paths.iter().map(|path| format!("{path}\n")).collect();
    let of = |host: &str| {
        let count = paths.len();
        format!("Brick {host}:/srv/gfs/brick\n{listed}Status: Connected\nNumber of entries in split-brain: {count}\n\n")
    };
    of("gfs1") + &of("gfs2")
}

fn two_replicas_split_and_every_way_out_leads_out(systems: Systems) -> Result<()> {
    let recipe = Recipe::new(systems, 2, "replica 2")?;
    recipe.gfs1().ok("gluster volume set imap0 cluster.quorum-type none")?;
    // Equal in length beyond "bigger", so that only that one can be settled by size.
    let first = write_all("second brick") + " && printf longer >> bigger";
    let second = write_all("primal brick");
    let accepted = recipe.cook(&write_all("common text."), &first, &second)?;
    ensure!(accepted, "without a quorum the write to the brick that came back is accepted");
    recipe.all_connected()?;

    // Found.
    recipe.tells_of(&FILES.map(|name| format!("/{name}")).each_ref().map(String::as_str))?;
    let refused = recipe.kolab().run(&format!("cat {SPOOL}/latest"))?;
    let words = String::from_utf8_lossy(&refused.stderr);
    ensure!(words.contains("Input/output error"), "a reader of a split-brain is told {words:?}");
    if systems.servers == System::Mortar {
        explained(&recipe)?;
    }

    // Resolved by each command.
    recipe.heal_says("split-brain bigger-file /bigger", "Healed /bigger.\n", 0)?;
    recipe.heal_says(
        "split-brain bigger-file /latest",
        "Healing /latest failed: No bigger file.\nVolume heal failed.\n",
        1,
    )?;
    match systems.servers {
        System::Mortar => recipe.heal_says("split-brain latest-mtime /latest", "Healed /latest.\n", 0)?,
        // Its clients have levelled the times of the copies by then (`features.ctime`).
        System::Glusterfs => {
            let refused = "Healing /latest failed: No difference in mtime.\nVolume heal failed.\n";
            recipe.heal_says("split-brain latest-mtime /latest", refused, 1)?;
            recipe.heal_says("split-brain source-brick gfs1:/srv/gfs/brick /latest", "Healed /latest.\n", 0)?;
        }
    }
    recipe.heal_says("split-brain source-brick gfs2:/srv/gfs/brick /source", "Healed /source.\n", 0)?;
    recipe.heal_says(
        "split-brain source-brick gfs2:/srv/gfs/brick /source",
        "Healing /source failed: File not in split-brain.\nVolume heal failed.\n",
        1,
    )?;
    recipe.heal_says(
        "split-brain latest-mtime /nosuch",
        "Lookup failed on /nosuch:No such file or directory.\nVolume heal failed.\n",
        22,
    )?;
    recipe.settled_to("bigger", "second bricklonger")?;
    recipe.settled_to("latest", "primal brick")?;
    recipe.settled_to("source", "second brick")?;

    // One by the volume's policy, the rest by naming a brick.
    recipe.heal_says("split-brain source-brick gfs1:/srv/gfs/brick /all-b", "Healed /all-b.\n", 0)?;
    let (text, code) = recipe.heal_line("split-brain source-brick gfs1:/srv/gfs/brick")?;
    ensure!(code == Some(0) && text.contains("Healed gfid:G.\n"), "source-brick for all says\n{text}");
    ensure!(text.ends_with("Status: Connected\nNumber of healed entries: 2\n\n"), "source-brick for all says\n{text}");
    recipe.settled_to("policy", "primal brick")?;
    recipe.settled_to("all-a", "primal brick")?;
    recipe.heals_to_nothing()?;
    cluster::bricks_are_identical_but_parked(&recipe.lab)
}

/// The product's own words: what is wrong and what to type.
fn explained(recipe: &Recipe) -> Result<()> {
    let text = recipe.gfs1().ok("mortar volume heal imap0 info")?;
    let needed = [
        "every copy of the content misses a write that another copy has",
        "mortar volume heal imap0 split-brain latest-mtime /latest, or bigger-file /latest",
        "gfs1:/srv/gfs/brick, gfs2:/srv/gfs/brick",
    ];
    ensure!(needed.iter().all(|words| text.contains(words)), "mortar volume heal imap0 info says\n{text}");
    Ok(())
}

fn a_policy_settles(systems: Systems) -> Result<()> {
    let recipe = Recipe::new(systems, 2, "replica 2")?;
    let accepted = recipe.cook("printf common > f", "printf second > f", "printf 'primal, longer' > f")?;
    ensure!(accepted, "without a quorum the write to the brick that came back is accepted");
    recipe.all_connected()?;
    recipe.tells_of(&["/f"])?;
    recipe.gfs1().ok("gluster volume set imap0 cluster.favorite-child-policy size")?;
    recipe.heals_to_nothing()?;
    recipe.settled_to("f", "primal, longer")
}

/// With a majority asked for each write the recipe yields no split: the second write is accepted where somebody who saw the
/// first takes part, or refused; everything heals, and what was acknowledged is there.
fn a_majority_never_splits(systems: Systems, kind: &str, second_is_accepted: bool) -> Result<()> {
    let recipe = Recipe::new(systems, 3, kind)?;
    let accepted = recipe.cook("printf common > f", "printf second > f", "printf third > f")?;
    ensure!(accepted == second_is_accepted, "{kind}: the write beside the brick that missed one: accepted {accepted}");
    recipe.all_connected()?;
    let (text, _) = recipe.heal_line("info split-brain")?;
    ensure!(text.matches("Number of entries in split-brain: 0").count() == 3, "{kind}: split:\n{text}");
    recipe.heals_to_nothing()?;
    recipe.settled_to("f", if accepted { "third" } else { "second" })
}

macro_rules! recipes {
    ($($ours:ident, $theirs:ident: $run:expr;)*) => {$(
        #[test]
        fn $ours() {
            if needs::met(stringify!($ours), &needs::LAB) {
                let run: fn(Systems) -> Result<()> = $run;
                cluster::must(run(Systems::OURS));
            }
        }

        #[test]
        #[ignore = "GlusterFS itself, which proves the scenario: cargo test -p mortar --test e2e -- --ignored"]
        fn $theirs() {
            if needs::met(stringify!($theirs), &cluster::with_glusterfs(&needs::LAB)) {
                let run: fn(Systems) -> Result<()> = $run;
                cluster::must(run(Systems::GLUSTERFS));
            }
        }
    )*};
}

recipes! {
    two_replicas_split_and_are_settled, glusterfs_splits_and_is_settled: two_replicas_split_and_every_way_out_leads_out;
    a_favorite_child_policy_settles, glusterfs_policy_settles: a_policy_settles;
    three_replicas_never_split, glusterfs_of_three_never_splits: |systems| a_majority_never_splits(systems, "replica 3", true);
    an_arbiter_prevents_the_split, glusterfs_arbiter_prevents_the_split:
        |systems| a_majority_never_splits(systems, "replica 3 arbiter 1", false);
}
