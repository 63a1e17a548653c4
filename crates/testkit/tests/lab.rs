//! The lab itself: hosts reach each other by name, have disks and folders of their own, and leave nothing behind.

use mortar_testkit::lab::{Lab, Options};
use mortar_testkit::needs;

#[test]
fn hosts_are_apart_and_reach_each_other() {
    if !needs::met("hosts_are_apart_and_reach_each_other", &needs::LAB) {
        return;
    }
    let lab = Lab::start(&Options { disk_bytes: 64 << 20, ..Options::howto(2, None) }).unwrap();
    let gfs1 = lab.host("gfs1");
    assert_eq!(gfs1.ok("hostname").unwrap(), "gfs1\n");
    gfs1.ok("touch /srv/gfs/here; echo x > /run/here").unwrap();
    let gfs2 = lab.host("gfs2");
    assert!(gfs2.ok("test -e /srv/gfs/here").is_err() && gfs2.ok("test -e /run/here").is_err());
    assert_eq!(
        lab.host("kolab").ok("getent ahostsv4 gfs | awk '{print $1}' | sort -u").unwrap(),
        "10.77.0.11\n10.77.0.12\n"
    );
    let mut listener = gfs2.spawn("exec bash -c 'exec 3<>/dev/tcp/gfs1/1 || sleep 60'").unwrap();
    assert!(mortar_testkit::wait::until(std::time::Duration::from_secs(5), || !gfs2.processes().is_empty()));
    gfs2.kill_all();
    assert!(gfs2.processes().is_empty());
    listener.wait().unwrap();
    let dir = lab.dir().to_owned();
    drop(lab);
    assert!(!dir.exists());
}
