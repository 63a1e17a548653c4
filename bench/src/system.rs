//! The systems under comparison, each set up by the same commands.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mortar_testkit::lab::{Lab, Options};
use mortar_testkit::wait;

use crate::work::Rates;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub(crate) enum System {
    /// A folder on the same kind of disk, for scale
    Local,
    /// Debian's GlusterFS
    Glusterfs,
    Mortar,
}

impl System {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Glusterfs => "glusterfs",
            Self::Mortar => "mortar",
        }
    }

    /// Sets the system up, does the work, takes it down.
    pub(crate) fn measure(self, mortar: &Path, own: &Path, files: usize) -> Result<Rates> {
        let binary = (self == Self::Mortar).then(|| mortar.to_owned());
        let lab = Lab::start(&Options::howto(2, binary))?;
        let folder = match self {
            Self::Local => "/srv/gfs/local",
            Self::Glusterfs | Self::Mortar => {
                cluster(&lab)?;
                "/var/spool/imap"
            }
        };
        let kolab = lab.host("kolab");
        let text = kolab.ok(&format!("mkdir -p {folder} && {} work {folder} {files}", own.display()))?;
        let rates = serde_json::from_str(&text).with_context(|| text.clone())?;
        kolab.run("umount -l /var/spool/imap")?;
        Ok(rates)
    }
}

fn cluster(lab: &Lab) -> Result<()> {
    for name in ["gfs1", "gfs2"] {
        let host = lab.host(name);
        host.ok("glusterd")?;
        let up = wait::until(Duration::from_secs(20), || host.ok("gluster peer status").is_ok());
        ensure!(up, "{name}: glusterd does not answer");
    }
    let gfs1 = lab.host("gfs1");
    let gfs2 = lab.host("gfs2");
    gfs1.ok("gluster peer probe gfs2")?;
    let joined = wait::until(Duration::from_secs(20), || {
        [gfs1, gfs2]
            .iter()
            .all(|host| host.ok("gluster peer status").is_ok_and(|text| text.contains("Peer in Cluster (Connected)")))
    });
    ensure!(joined, "the peers do not find each other");
    // Real glusterd answers before its handshakes are through, and a create that fails leaves its mark on the bricks.
    std::thread::sleep(Duration::from_secs(2));
    gfs1.ok("gluster --mode=script volume create imap0 replica 2 gfs1:/srv/gfs/brick gfs2:/srv/gfs/brick")?;
    gfs1.ok("gluster volume start imap0")?;
    let kolab = lab.host("kolab");
    let mounted =
        wait::until(Duration::from_secs(20), || kolab.ok("mount -t glusterfs gfs1:/imap0 /var/spool/imap").is_ok());
    ensure!(mounted, "the volume cannot be mounted");
    // Both bricks must be connected before anything is measured.
    std::thread::sleep(Duration::from_secs(4));
    Ok(())
}
