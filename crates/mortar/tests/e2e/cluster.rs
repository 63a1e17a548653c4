//! The HOWTO's cluster, set up by the commands that it tells an admin to type.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use mortar_testkit::lab::{Host, Lab, Options};
use mortar_testkit::{tree, wait};

/// The mail spool's mount point on `kolab`.
pub const SPOOL: &str = "/var/spool/imap";

pub fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_mortar"))
}

/// A lab of `servers` servers and the client `kolab`, every daemon started.
pub fn lab(servers: usize) -> Result<Lab> {
    let lab = Lab::start(&Options::howto(servers, Some(binary())))?;
    for host in lab.hosts().filter(|host| host.name().starts_with("gfs")) {
        start_daemon(host)?;
    }
    Ok(lab)
}

/// `service glusterd start`, which is this command.
pub fn start_daemon(host: &Host) -> Result<()> {
    host.ok("glusterd")?;
    let up = wait::until(Duration::from_secs(10), || host.ok("gluster peer status").is_ok());
    ensure!(up, "{}: glusterd does not answer\n{}", host.name(), logs(host));
    Ok(())
}

/// The lab with volume `imap0` created and started on `gfs1` and `gfs2`.
pub fn imap0() -> Result<Lab> {
    let lab = lab(2)?;
    let gfs1 = lab.host("gfs1");
    gfs1.ok("gluster peer probe gfs2")?;
    gfs1.ok("echo y | gluster volume create imap0 replica 2 gfs1:/srv/gfs/brick gfs2:/srv/gfs/brick")?;
    gfs1.ok("gluster volume start imap0")?;
    Ok(lab)
}

/// Mounts the spool on `kolab` by the HOWTO's fstab line.
pub fn mount_spool(lab: &Lab) -> Result<()> {
    let kolab = lab.host("kolab");
    kolab.ok("echo 'gfs:/imap0 /var/spool/imap/ glusterfs defaults,_netdev 0 0' >> /etc/fstab")?;
    kolab.ok("mount -a -t glusterfs").map(drop).map_err(|error| error.context(logs(kolab)))
}

/// The last lines of every log of a host, for a failing test's message.
pub fn logs(host: &Host) -> String {
    host.run("tail -n 20 /var/log/mortar/*.log /var/log/glusterfs/*.log 2>/dev/null")
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default()
}

/// Waits until nothing is left to heal, as `volume heal imap0 info` on `gfs1` says.
pub fn healed(lab: &Lab, limit: Duration) -> Result<()> {
    let gfs1 = lab.host("gfs1");
    let mut last = String::new();
    let done = wait::until(limit, || {
        last = gfs1.ok("gluster volume heal imap0 info").unwrap_or_default();
        last.matches("Number of entries: 0").count() == 2
    });
    ensure!(done, "not healed in {limit:?}:\n{last}\n{}\n{}", logs(gfs1), logs(lab.host("gfs2")));
    Ok(())
}

/// How the two bricks differ, as lines; xattrs that may differ between equal replicas are left out.
pub fn brick_differences(lab: &Lab) -> Result<Vec<String>> {
    // Changelogs are zero or absent when healed; times live in mdata and are compared by the mount's own tests.
    let counts = |name: &str| !name.starts_with("trusted.afr.") && name != "trusted.glusterfs.mdata";
    let copy = |host: &str| -> Result<_> {
        let root = brick_path(lab, host);
        tree::walk(&root, &[".glusterfs"], &counts)
    };
    Ok(tree::differences(&copy("gfs1")?, &copy("gfs2")?))
}

/// The brick as seen from outside of the host's mount namespace.
pub fn brick_path(lab: &Lab, host: &str) -> PathBuf {
    let pid = lab.host(host).holder_pid();
    Path::new("/proc").join(pid.to_string()).join("root/srv/gfs/brick")
}
