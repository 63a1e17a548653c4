//! Mortar and Debian's unmodified GlusterFS as each other's client and server, and both as clients of one volume.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mortar_testkit::lab::{Lab, Options};
use mortar_testkit::needs::{self, Need};
use mortar_testkit::wait;
use rustix::fs::FlockOperation;

use crate::cluster::{self, System, Systems};
use crate::stress;

/// Where the tree to unpack comes from: what any Debian with this machine's tools has; links and directories among it.
const SOURCES: &str = "cd / && find usr/lib/python3* usr/share/perl usr/include -name __pycache__ -prune -o \
                       \\( -type f -size -256k -o -type l \\) -print 2>/dev/null | LC_ALL=C sort | head -n 2500";

fn needs() -> Vec<Need> {
    cluster::with_glusterfs(&needs::LAB)
}

/// How long the random operations go on; `MORTAR_STRESS_SECONDS` asks for more.
fn stress_span() -> Duration {
    let seconds = std::env::var("MORTAR_STRESS_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(15))
}

/// Unpacks a source tree on the mount, compares it, and removes it.
fn a_source_tree_comes_and_goes(lab: &Lab) -> Result<()> {
    let kolab = lab.host("kolab");
    let local = lab.dir().join("tree");
    fs::create_dir(&local)?;
    let (tar, copy) = (lab.dir().join("tree.tar"), local.display());
    kolab.ok(&format!("{SOURCES} > {copy}.list && tar -C / -cf {} -T {copy}.list", tar.display()))?;
    kolab.ok(&format!("tar -C {copy} -xf {}", tar.display()))?;
    let mount = cluster::SPOOL;
    kolab.ok(&format!("mkdir {mount}/tree && tar -C {mount}/tree -xf {}", tar.display()))?;
    kolab.ok(&format!("diff -r --no-dereference {copy} {mount}/tree"))?;
    // Modes, owners, times, link targets and link counts as well.
    kolab.ok(&format!("set -o pipefail; tar -C {mount}/tree -df {} | head -n 20", tar.display()))?;
    let count = kolab.ok(&format!("find {mount}/tree | wc -l"))?;
    ensure!(count.trim().parse::<usize>()? > 1000, "too small a tree: {count}");
    kolab.ok(&format!("rm -rf {mount}/tree"))?;
    kolab.ok(&format!("! test -e {mount}/tree")).map(drop)
}

/// How old the attributes may be that a client gives out: GlusterFS's own takes the link count of a file whose other name
/// was renamed over from its caches, for a second in the client and another in the kernel.
const fn stale(client: System) -> Duration {
    match client {
        System::Mortar => Duration::ZERO,
        System::Glusterfs => Duration::from_secs(3),
    }
}

/// Random operations in directories, each through the client that is said, at once.
fn random_operations(dirs: Vec<(PathBuf, System)>, span: Duration) -> Result<()> {
    let works = dirs.into_iter().zip(1..).map(|((dir, client), seed)| {
        let work = move || stress::run(&dir, seed, span, stale(client));
        Box::new(work) as Box<dyn FnOnce() -> Result<usize> + Send>
    });
    let counts = cluster::at_once(span + Duration::from_secs(60), works.collect())?;
    println!("random operations: {counts:?}");
    ensure!(counts.iter().all(|count| *count > 20), "hardly anything was done: {counts:?}");
    Ok(())
}

/// After everything was removed from the mount: the bricks are empty, their handles are gone, nobody blames anybody.
fn nothing_is_left(lab: &Lab) -> Result<()> {
    cluster::healed(lab, Duration::from_secs(60))?;
    cluster::bricks_are_identical(lab)?;
    for host in ["gfs1", "gfs2"] {
        let mut names: Vec<PathBuf> = cluster::brick_tree(lab, host)?.into_keys().collect();
        names.retain(|path| path != Path::new(""));
        ensure!(names.is_empty(), "{host}: left on the brick: {names:?}");
        let handles =
            "find /srv/gfs/brick/.glusterfs -regextype posix-egrep -regex '.*/[0-9a-f]{2}/[0-9a-f]{2}/[^/]+' -print";
        let mut last = String::new();
        let gone = wait::until(Duration::from_secs(15), || {
            last = lab.host(host).ok(handles).unwrap_or_default();
            // The root's handle, and the parking place's.
            last.lines().count() <= 2
        });
        ensure!(gone, "{host}: left handles:\n{last}");
    }
    Ok(())
}

fn one_client(systems: Systems) -> Result<()> {
    let lab = cluster::imap0_of(systems)?;
    cluster::mount_at(&lab, "kolab", cluster::SPOOL)?;
    cluster::both_bricks_written(&lab)?;
    a_source_tree_comes_and_goes(&lab)?;
    let mount = cluster::seen_from_outside(&lab, "kolab", cluster::SPOOL);
    random_operations(["one", "two"].map(|dir| (mount.join(dir), systems.client)).into(), stress_span())?;
    lab.host("kolab").ok(&format!("rm -rf {0}/one {0}/two && test -z \"$(ls -A {0})\"", cluster::SPOOL))?;
    nothing_is_left(&lab)
}

/// A directory that both clients work in, each with names of its own; both must see all of it in the end.
fn share_a_directory(mounts: &[PathBuf; 2]) -> Result<()> {
    const EACH: usize = 60;
    fs::create_dir(mounts[0].join("shared"))?;
    let works = mounts.iter().zip(["kolab", "webmail"]).map(|(mount, client)| {
        let dir = mount.join("shared");
        let work = move || -> Result<()> {
            let seen = wait::until(Duration::from_secs(10), || dir.is_dir());
            ensure!(seen, "{client} does not see the directory");
            for number in 0..EACH {
                fs::write(dir.join(format!("{client}-new-{number}")), format!("{client} {number}"))?;
                fs::rename(dir.join(format!("{client}-new-{number}")), dir.join(format!("{client}-{number}")))?;
                if number % 3 == 0 {
                    fs::remove_file(dir.join(format!("{client}-{number}")))?;
                }
            }
            Ok(())
        };
        Box::new(work) as Box<dyn FnOnce() -> Result<()> + Send>
    });
    cluster::at_once(Duration::from_secs(90), works.collect())?;
    let mut wanted = Vec::new();
    for client in ["kolab", "webmail"] {
        wanted.extend((0..EACH).filter(|number| number % 3 != 0).map(|number| format!("{client}-{number}")));
    }
    wanted.sort();
    for mount in mounts {
        let dir = mount.join("shared");
        let mut found = Vec::new();
        let complete = wait::until(Duration::from_secs(10), || {
            found = names_in(&dir).unwrap_or_default();
            found == wanted
        });
        ensure!(complete, "{}: lists {found:?}, wanted {wanted:?}", dir.display());
        for name in &wanted {
            let text = fs::read_to_string(dir.join(name)).with_context(|| name.clone())?;
            ensure!(text == name.replace('-', " "), "{name} holds {text:?}");
        }
    }
    Ok(())
}

fn names_in(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// A log that both clients append to, under a lock that each holds against the other.
fn share_a_log(mounts: &[PathBuf; 2]) -> Result<()> {
    const EACH: usize = 60;
    File::create_new(mounts[0].join("log"))?;
    let works = mounts.iter().zip(["kolab", "webmail"]).map(|(mount, client)| {
        let log = mount.join("log");
        let work = move || -> Result<()> {
            for number in 0..EACH {
                let mut file = OpenOptions::new().read(true).append(true).open(&log)?;
                rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
                // Two writes: a line of the other between them would show that the lock does not hold.
                file.write_all(format!("{client} {number} ").as_bytes())?;
                file.write_all(b"end\n")?;
                file.sync_all()?;
                rustix::fs::flock(&file, FlockOperation::Unlock)?;
            }
            Ok(())
        };
        Box::new(work) as Box<dyn FnOnce() -> Result<()> + Send>
    });
    cluster::at_once(Duration::from_secs(120), works.collect())?;
    for mount in mounts {
        // Attributes are cached for a second by GlusterFS's own client.
        let whole = wait::until(Duration::from_secs(10), || {
            fs::read_to_string(mount.join("log")).is_ok_and(|text| text.lines().count() == 2 * EACH)
        });
        let text = fs::read_to_string(mount.join("log"))?;
        ensure!(whole, "{}: {} lines:\n{text}", mount.display(), text.lines().count());
        for client in ["kolab", "webmail"] {
            let own: Vec<&str> = text.lines().filter(|line| line.starts_with(client)).collect();
            let wanted: Vec<String> = (0..EACH).map(|number| format!("{client} {number} end")).collect();
            ensure!(own == wanted, "{}: lines of {client}: {own:?}", mount.display());
        }
    }
    Ok(())
}

/// `kolab` and `webmail` on one volume at once.
fn two_clients(servers: System, kolab: System, webmail: System) -> Result<()> {
    let mut options = Options::howto(2, Some(cluster::binary()));
    options.hosts.push("webmail".to_owned());
    let lab = cluster::lab_of(options, |host| match host {
        "kolab" => kolab,
        "webmail" => webmail,
        _ => servers,
    })?;
    cluster::create_imap0(&lab, servers)?;
    for host in ["kolab", "webmail"] {
        cluster::mount_at(&lab, host, cluster::SPOOL)?;
    }
    cluster::both_bricks_written(&lab)?;
    let mounts = ["kolab", "webmail"].map(|host| cluster::seen_from_outside(&lab, host, cluster::SPOOL));
    let dirs = vec![(mounts[0].join("one"), kolab), (mounts[1].join("two"), webmail)];
    random_operations(dirs, stress_span() / 2)?;
    let shared = mounts.clone();
    cluster::within(Duration::from_secs(150), move || share_a_directory(&shared)).context("a shared directory")?;
    let shared = mounts.clone();
    cluster::within(Duration::from_secs(180), move || share_a_log(&shared)).context("a shared log")?;
    for host in ["webmail", "kolab"] {
        lab.host(host).ok(&format!("ls -lR {0} > /dev/null && tar -C {0} -c . > /dev/null", cluster::SPOOL))?;
    }
    cluster::healed(&lab, Duration::from_secs(60))?;
    cluster::bricks_are_identical(&lab)?;
    lab.host("kolab").ok(&format!("rm -rf {0}/one {0}/two {0}/shared {0}/log", cluster::SPOOL))?;
    nothing_is_left(&lab)
}

#[test]
fn debians_client_works_on_our_volume() {
    if needs::met("debians_client_works_on_our_volume", &needs()) {
        cluster::must(one_client(Systems::THEIR_CLIENT));
    }
}

#[test]
fn our_client_works_on_a_glusterfs_volume() {
    if needs::met("our_client_works_on_a_glusterfs_volume", &needs()) {
        cluster::must(one_client(Systems::THEIR_SERVERS));
    }
}

#[test]
fn our_client_works_on_our_volume() {
    if needs::met("our_client_works_on_our_volume", &needs::LAB) {
        cluster::must(one_client(Systems::OURS));
    }
}

#[test]
#[ignore = "GlusterFS itself, which proves the scenario: cargo test -p mortar --test e2e -- --ignored"]
fn glusterfs_works_on_glusterfs() {
    if needs::met("glusterfs_works_on_glusterfs", &needs()) {
        cluster::must(one_client(Systems::GLUSTERFS));
    }
}

#[test]
fn both_clients_work_on_our_volume_at_once() {
    if needs::met("both_clients_work_on_our_volume_at_once", &needs()) {
        cluster::must(two_clients(System::Mortar, System::Glusterfs, System::Mortar));
    }
}

#[test]
#[ignore = "GlusterFS itself, which proves the scenario: cargo test -p mortar --test e2e -- --ignored"]
fn two_glusterfs_clients_work_at_once() {
    if needs::met("two_glusterfs_clients_work_at_once", &needs()) {
        cluster::must(two_clients(System::Glusterfs, System::Glusterfs, System::Glusterfs));
    }
}
