//! The HOWTO's first half, typed as it stands there.

use mortar_testkit::{needs, tree};

use crate::cluster;

#[test]
fn the_howto_sets_up_a_replicated_mail_spool() {
    let mut wanted = needs::LAB.to_vec();
    wanted.push(needs::Need::Program("/usr/sbin/cyrmaster", "cyrus-imapd, for the user cyrus"));
    if !needs::met("the_howto_sets_up_a_replicated_mail_spool", &wanted) {
        return;
    }
    let lab = cluster::lab(2).unwrap();
    let gfs1 = lab.host("gfs1");
    assert_eq!(gfs1.ok("gluster peer probe gfs2").unwrap(), "peer probe: success\n");
    let status = gfs1.ok("gluster peer status").unwrap();
    assert!(status.contains("Hostname: gfs2") && status.contains("State: Peer in Cluster (Connected)"), "{status}");
    let status = lab.host("gfs2").ok("gluster peer status").unwrap();
    assert!(status.contains("Hostname: gfs1") && status.contains("State: Peer in Cluster (Connected)"), "{status}");

    let create = "echo y | gluster volume create imap0 replica 2 gfs1:/srv/gfs/brick gfs2:/srv/gfs/brick";
    let text = gfs1.ok(create).unwrap();
    assert!(text.ends_with("volume create: imap0: success: please start the volume to access data\n"), "{text}");
    assert_eq!(gfs1.ok("gluster volume start imap0").unwrap(), "volume start: imap0: success\n");
    let info = lab.host("gfs2").ok("gluster volume info imap0").unwrap();
    assert!(info.contains("Number of Bricks: 1 x 2 = 2\n") && info.contains("Status: Started\n"), "{info}");

    cluster::mount_spool(&lab).unwrap();
    let kolab = lab.host("kolab");
    kolab.ok("chown cyrus:mail /var/spool/imap/").unwrap();
    kolab.ok("chmod 750 /var/spool/imap/").unwrap();
    assert_eq!(kolab.ok("stat -c '%a %U:%G' /var/spool/imap").unwrap(), "750 cyrus:mail\n");
    let df = kolab.ok("df -P /var/spool/imap | tail -1").unwrap();
    assert!(df.starts_with("gfs:/imap0 "), "{df}");
    let mounts = kolab.ok("grep ' /var/spool/imap ' /proc/mounts").unwrap();
    assert!(mounts.starts_with("gfs:/imap0 /var/spool/imap fuse.glusterfs "), "{mounts}");

    kolab.ok("mkdir /var/spool/imap/user && echo hello > /var/spool/imap/user/1.").unwrap();
    for host in ["gfs1", "gfs2"] {
        let brick = cluster::brick_path(&lab, host);
        assert_eq!(std::fs::read_to_string(brick.join("user/1.")).unwrap(), "hello\n", "{host}");
        let names: Vec<String> = tree::xattrs(&brick.join("user/1.")).unwrap().into_keys().collect();
        assert!(names.iter().any(|name| name == "trusted.gfid"), "{names:?}");
        assert!(names.iter().any(|name| name == "trusted.glusterfs.mdata"), "{names:?}");
        assert!(names.iter().any(|name| name.starts_with("trusted.gfid2path.")), "{names:?}");
    }
    assert_eq!(cluster::brick_differences(&lab).unwrap(), Vec::<String>::new());
    assert_eq!(kolab.ok("mount -o remount /var/spool/imap/ && cat /var/spool/imap/user/1.").unwrap(), "hello\n");
    kolab.ok("umount /var/spool/imap").unwrap();
    assert!(kolab.ok("grep ' /var/spool/imap ' /proc/mounts").is_err(), "still mounted");
}
