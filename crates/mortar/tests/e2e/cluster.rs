//! The HOWTO's cluster, set up by the commands that it tells an admin to type, and what is asked of it afterwards.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mortar_testkit::lab::{Host, Lab, Options};
use mortar_testkit::needs::Need;
use mortar_testkit::{tree, wait};

/// The mail spool's mount point on `kolab`.
pub(crate) const SPOOL: &str = "/var/spool/imap";

/// How long an idle real GlusterFS client may keep its changelog marks (`cluster.post-op-delay-secs` 1, then some).
const MARKS_LIMIT: Duration = Duration::from_secs(15);

/// Where GlusterFS's heal keeps what it cannot place yet: a directory in the root, the volume's id in its name.
pub(crate) const PARKING_PLACE: &str = ".glusterfs-anonymous-inode-";

/// Whose programs a host runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum System {
    /// The binary under test.
    Mortar,
    /// The machine's own GlusterFS (Debian's).
    Glusterfs,
}

/// Who serves and who mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Systems {
    pub(crate) servers: System,
    pub(crate) client: System,
}

impl Systems {
    pub(crate) const OURS: Self = Self { servers: System::Mortar, client: System::Mortar };
    pub(crate) const THEIR_CLIENT: Self = Self { servers: System::Mortar, client: System::Glusterfs };
    pub(crate) const THEIR_SERVERS: Self = Self { servers: System::Glusterfs, client: System::Mortar };
    /// The oracle: a test that fails here is wrong.
    pub(crate) const GLUSTERFS: Self = Self { servers: System::Glusterfs, client: System::Glusterfs };

    fn of(self, host: &str) -> System {
        if is_server(host) { self.servers } else { self.client }
    }
}

/// `wanted`, and Debian's GlusterFS.
pub(crate) fn with_glusterfs(wanted: &[Need]) -> Vec<Need> {
    let own = [
        Need::Program("/usr/sbin/glusterd", "glusterfs-server"),
        Need::Program("/usr/sbin/glusterfs", "glusterfs-client"),
    ];
    wanted.iter().chain(&own).copied().collect()
}

/// Fails the test with the whole story of an error.
pub(crate) fn must(result: Result<()>) {
    if let Err(error) = result {
        panic!("{error:#}");
    }
}

pub(crate) fn binary() -> PathBuf {
    std::env::var_os("MORTAR_E2E_BINARY").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_mortar")), PathBuf::from)
}

fn is_server(host: &str) -> bool {
    host.starts_with("gfs")
}

/// A lab of `servers` servers and the client `kolab`, every daemon started.
pub(crate) fn lab(servers: usize) -> Result<Lab> {
    lab_of(Options::howto(servers, Some(binary())), |_| System::Mortar)
}

/// The lab that `options` describe, every daemon started; `system_of` says what each host runs.
pub(crate) fn lab_of(options: Options, system_of: impl Fn(&str) -> System) -> Result<Lab> {
    let lab = Lab::start(&options.without_binary_on(|host| system_of(host) == System::Glusterfs))?;
    for host in lab.hosts().filter(|host| is_server(host.name())) {
        start_daemon(host)?;
    }
    Ok(lab)
}

/// `service glusterd start`, which is this command.
pub(crate) fn start_daemon(host: &Host) -> Result<()> {
    host.ok("glusterd")?;
    let up = wait::until(Duration::from_secs(20), || host.ok("gluster peer status").is_ok());
    ensure!(up, "{}: glusterd does not answer\n{}", host.name(), logs(host));
    Ok(())
}

/// The lab with volume `imap0` created and started on `gfs1` and `gfs2`.
pub(crate) fn imap0() -> Result<Lab> {
    imap0_of(Systems::OURS)
}

/// The lab with volume `imap0` created and started on `gfs1` and `gfs2`, on which `systems` run.
pub(crate) fn imap0_of(systems: Systems) -> Result<Lab> {
    let lab = lab_of(Options::howto(2, Some(binary())), |host| systems.of(host))?;
    create_imap0(&lab, systems.servers)?;
    Ok(lab)
}

/// Probes `gfs2`, creates and starts `imap0`.
pub(crate) fn create_imap0(lab: &Lab, servers: System) -> Result<()> {
    let gfs1 = lab.host("gfs1");
    gfs1.ok("gluster peer probe gfs2")?;
    if servers == System::Glusterfs {
        // Real glusterd answers before its handshakes are through, and a create that fails leaves its mark on the bricks.
        peer_is(lab, "gfs1", "Peer in Cluster (Connected)")?;
        peer_is(lab, "gfs2", "Peer in Cluster (Connected)")?;
        std::thread::sleep(Duration::from_secs(2));
    }
    gfs1.ok("echo y | gluster volume create imap0 replica 2 gfs1:/srv/gfs/brick gfs2:/srv/gfs/brick")?;
    gfs1.ok("gluster volume start imap0").map(drop)
}

/// Waits until `peer status` on `host` says `words` of its peer.
pub(crate) fn peer_is(lab: &Lab, host: &str, words: &str) -> Result<()> {
    let mut last = String::new();
    let said = wait::until(Duration::from_secs(20), || {
        last = lab.host(host).ok("gluster peer status").unwrap_or_default();
        // "Connected" is no part of "Disconnected": the state stands in brackets.
        last.contains(&format!("({words})")) || words.contains('(') && last.contains(words)
    });
    ensure!(said, "peer status on {host} does not say {words:?}:\n{last}");
    Ok(())
}

/// Mounts the spool on `kolab` by the HOWTO's fstab line.
pub(crate) fn mount_spool(lab: &Lab) -> Result<()> {
    let kolab = lab.host("kolab");
    kolab.ok("echo 'gfs:/imap0 /var/spool/imap/ glusterfs defaults,_netdev 0 0' >> /etc/fstab")?;
    kolab.ok("mount -a -t glusterfs").map(drop).map_err(|error| error.context(logs(kolab)))
}

/// Mounts `imap0` by the `mount` command at `place`, which is made.
pub(crate) fn mount_at(lab: &Lab, host: &str, place: &str) -> Result<()> {
    mount_with(lab, host, place, "defaults")
}

/// The same with mount options.
pub(crate) fn mount_with(lab: &Lab, host: &str, place: &str, options: &str) -> Result<()> {
    let host = lab.host(host);
    host.ok(&format!("mkdir -p {place} && mount -t glusterfs -o {options} gfs1:/imap0 {place}"))
        .map(drop)
        .map_err(|error| error.context(logs(host)))
}

/// Waits until the mount on `kolab` writes to both bricks: a mount is there as soon as one brick is.
pub(crate) fn both_bricks_written(lab: &Lab) -> Result<()> {
    let kolab = lab.host("kolab");
    let mut number = 0;
    let both = wait::until(Duration::from_secs(30), || {
        number += 1;
        let name = format!(".probe-{number}");
        let written = kolab.ok(&format!("echo x > {SPOOL}/{name}")).is_ok()
            && ["gfs1", "gfs2"].iter().all(|host| brick_path(lab, host).join(&name).exists());
        kolab.ok(&format!("rm {SPOOL}/{name}")).is_ok() && written
    });
    ensure!(both, "the mount does not write to both bricks\n{}", logs(kolab));
    healed(lab, Duration::from_secs(60))
}

/// The last lines of every log of a host, for a failing test's message.
pub(crate) fn logs(host: &Host) -> String {
    host.run("tail -n 20 /var/log/mortar/*.log /var/log/glusterfs/*.log /var/log/glusterfs/bricks/*.log 2>/dev/null")
        .map(|output| format!("-- {}\n{}", host.name(), String::from_utf8_lossy(&output.stdout)))
        .unwrap_or_default()
}

/// Waits until nothing is left to heal, as `volume heal imap0 info` on `gfs1` says.
pub(crate) fn healed(lab: &Lab, limit: Duration) -> Result<()> {
    let gfs1 = lab.host("gfs1");
    let mut last = String::new();
    let done = wait::until(limit, || {
        last = gfs1.ok("gluster volume heal imap0 info").unwrap_or_else(|error| error.to_string());
        last.matches("Number of entries: 0").count() == 2
    });
    ensure!(done, "not healed in {limit:?}:\n{last}\n{}\n{}", logs(gfs1), logs(lab.host("gfs2")));
    Ok(())
}

/// Everything below a host's brick, with the facts that equal replicas share.
pub(crate) fn brick_tree(lab: &Lab, host: &str) -> Result<BTreeMap<PathBuf, tree::Facts>> {
    // Changelogs have a check of their own; times live in mdata and are compared by the mount's own tests.
    let counts = |name: &str| !name.starts_with("trusted.afr.") && name != "trusted.glusterfs.mdata";
    let mut tree = tree::walk(&brick_path(lab, host), &[".glusterfs"], &counts)?;
    // Each node's heal makes the parking place for itself; what lies in it does count.
    tree.retain(|path, _| path.components().count() > 1 || !path.to_string_lossy().starts_with(PARKING_PLACE));
    Ok(tree)
}

/// How the two bricks differ, as lines; xattrs that may differ between equal replicas are left out.
pub(crate) fn brick_differences(lab: &Lab) -> Result<Vec<String>> {
    Ok(tree::differences(&brick_tree(lab, "gfs1")?, &brick_tree(lab, "gfs2")?))
}

/// That the two bricks hold the same, and blame nobody: every changelog is zero or absent.
pub(crate) fn bricks_are_identical(lab: &Lab) -> Result<()> {
    let differences = brick_differences(lab)?;
    ensure!(differences.is_empty(), "the bricks differ:\n{}", differences.join("\n"));
    let mut left = Vec::new();
    let clean = wait::until(MARKS_LIMIT, || {
        left = ["gfs1", "gfs2"].iter().flat_map(|host| changelogs_left(lab, host).unwrap_or_default()).collect();
        left.is_empty()
    });
    ensure!(clean, "changelogs are left:\n{}", left.join("\n"));
    Ok(())
}

/// The same for bricks that real GlusterFS healed: it may leave a second name of a healed file in its parking place.
pub(crate) fn bricks_are_identical_but_parked(lab: &Lab) -> Result<()> {
    let shown = |host: &str| -> Result<_> {
        let mut tree = brick_tree(lab, host)?;
        tree.retain(|path, _| !path.to_string_lossy().starts_with(PARKING_PLACE));
        for facts in tree.values_mut() {
            let words = facts.split(' ').filter(|word| !word.starts_with("trusted.gfid2path."));
            *facts = words.collect::<Vec<_>>().join(" ");
        }
        Ok(tree)
    };
    let differences = tree::differences(&shown("gfs1")?, &shown("gfs2")?);
    ensure!(differences.is_empty(), "the bricks differ:\n{}", differences.join("\n"));
    Ok(())
}

/// The changelog xattrs of a host's brick that are not zero, as lines.
fn changelogs_left(lab: &Lab, host: &str) -> Result<Vec<String>> {
    let root = brick_path(lab, host);
    let changelog = |name: &str| name.starts_with("trusted.afr.");
    let mut left = Vec::new();
    for path in tree::walk(&root, &[".glusterfs"], &changelog)?.into_keys() {
        for (name, value) in tree::xattrs(&root.join(&path))? {
            if changelog(&name) && value.iter().any(|byte| *byte != 0) {
                left.push(format!("{host}:{} {name}={value:02x?}", path.display()));
            }
        }
    }
    Ok(left)
}

/// Runs `work` in a thread of its own, for at most `limit`: work on a mount that hangs would hang the test with it.
pub(crate) fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(limit).with_context(|| format!("not done after {limit:?}"))?
}

/// Runs several at once, each at most for `limit`.
pub(crate) fn at_once<T: Send + 'static>(
    limit: Duration,
    works: Vec<Box<dyn FnOnce() -> Result<T> + Send>>,
) -> Result<Vec<T>> {
    let (sender, receiver) = mpsc::channel();
    let count = works.len();
    for work in works {
        let sender = sender.clone();
        std::thread::spawn(move || sender.send(work()));
    }
    (0..count).map(|_| receiver.recv_timeout(limit).with_context(|| format!("not done after {limit:?}"))?).collect()
}

/// The brick as seen from outside of the host's mount namespace.
pub(crate) fn brick_path(lab: &Lab, host: &str) -> PathBuf {
    seen_from_outside(lab, host, "/srv/gfs/brick")
}

/// A host's path as seen from outside of its mount namespace.
pub(crate) fn seen_from_outside(lab: &Lab, host: &str, path: &str) -> PathBuf {
    let pid = lab.host(host).holder_pid();
    Path::new("/proc").join(pid.to_string()).join("root").join(path.trim_start_matches('/'))
}
