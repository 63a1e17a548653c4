//! Comparing copies beyond the index: what no mark tells of is found, and what is equal is not.

use mortar_types::SubvolId;
use mortar_volume::heal::verify::{Kind, verify};

use crate::bricks::Cluster;
use crate::files::Files;
use crate::scenarios::{assert_healed, heal};

async fn cluster() -> Cluster {
    let cluster = Cluster::new(2);
    let files = Files(&cluster.client.top);
    for name in ["same", "content", "gone", "mode", "xattr", "links"] {
        files.create(name, &[b'x'; 3000]).await.unwrap();
    }
    files.mkdir("dir").await.unwrap();
    files.create("dir/in", b"in").await.unwrap();
    files.symlink("dir/sym", "in").await.unwrap();
    cluster.client.replicate.quiesce().await;
    cluster
}

#[tokio::test]
async fn equal_copies_are_equal() {
    if !crate::can_run() {
        return;
    }
    let report = verify(&cluster().await.set()).await.unwrap();
    assert_eq!(report.differences, []);
    assert_eq!((report.names, report.bytes), (9, 18_002));
}

#[tokio::test]
async fn damage_and_leftovers_behind_the_back_of_a_brick_are_found() {
    use std::os::unix::fs::{FileExt, PermissionsExt};
    if !crate::can_run() {
        return;
    }
    let cluster = cluster().await;
    let root = &cluster.bricks[1].root;
    std::fs::OpenOptions::new().write(true).open(root.join("content")).unwrap().write_at(b"y", 2999).unwrap();
    std::fs::remove_file(root.join("gone")).unwrap();
    std::fs::set_permissions(root.join("mode"), PermissionsExt::from_mode(0o600)).unwrap();
    rustix::fs::lsetxattr(root.join("xattr"), "user.more", b"1", rustix::fs::XattrFlags::empty()).unwrap();
    std::fs::hard_link(root.join("links"), root.join("dir/left")).unwrap();
    let report = verify(&cluster.set()).await.unwrap();
    let mut found: Vec<(String, Kind)> = report
        .differences
        .iter()
        .map(|difference| (String::from_utf8_lossy(&difference.path).into_owned(), difference.kind.clone()))
        .collect();
    found.sort();
    let expected = |path: &str, kind| (path.to_owned(), kind);
    assert_eq!(
        found,
        [
            expected("/content", Kind::Content(0)),
            expected("/dir/left", Kind::Missing),
            expected("/gone", Kind::Missing),
            expected("/links", Kind::Links),
            expected("/mode", Kind::Mode),
            expected("/xattr", Kind::Xattrs(vec!["user.more".to_owned()])),
        ]
    );
    let left = report.differences.iter().find(|difference| difference.path == "/dir/left").unwrap();
    assert!(left.on.contains(SubvolId(0)) && !left.pending, "{left:?}");
}

#[tokio::test]
async fn what_the_changelogs_know_is_told_as_pending() {
    if !crate::can_run() {
        return;
    }
    let cluster = cluster().await;
    cluster.down(1);
    Files(&cluster.client.top).write_at("same", 0, b"new").await.unwrap();
    cluster.client.replicate.quiesce().await;
    let report = verify(&cluster.set()).await.unwrap();
    assert!(!report.differences.is_empty());
    assert!(report.differences.iter().all(|difference| difference.path == "/same" && difference.pending));
}

/// GlusterFS 10.3 parks a removed name by renaming it; onto another link of the same inode that does nothing, and the name
/// stays (`afr-self-heal-entry.c` afr_selfheal_entry_delete).
#[tokio::test]
async fn several_hard_links_deleted_together_leave_nothing_to_find() {
    if !crate::can_run() {
        return;
    }
    let cluster = Cluster::new(2);
    let files = Files(&cluster.client.top);
    files.mkdir("dir").await.unwrap();
    files.create("kept", b"inode").await.unwrap();
    for name in ["second", "third", "dir/fourth"] {
        files.link("kept", name).await.unwrap();
    }
    cluster.down(1);
    for name in ["second", "third", "dir/fourth"] {
        files.unlink(name).await.unwrap();
    }
    cluster.up(1);
    cluster.client.replicate.quiesce().await;
    heal(&cluster).await;
    assert_healed(&cluster);
    for name in ["second", "third", "dir/fourth"] {
        assert!(!cluster.bricks[1].root.join(name).exists(), "{name} is back");
    }
    assert_eq!(verify(&cluster.set()).await.unwrap().differences, []);
}

/// What such a heal of GlusterFS's leaves behind on an adopted brick: the marks say that all is well.
#[tokio::test]
async fn a_second_link_that_an_old_heal_left_is_found_on_its_brick() {
    if !crate::can_run() {
        return;
    }
    let cluster = cluster().await;
    let root = &cluster.bricks[1].root;
    std::fs::hard_link(root.join("links"), root.join("second")).unwrap();
    heal(&cluster).await;
    let report = verify(&cluster.set()).await.unwrap();
    let found: Vec<_> = report.differences.iter().map(|found| (&found.path[..], &found.kind, found.pending)).collect();
    assert!(found.contains(&(&b"/second"[..], &Kind::Missing, false)), "{found:?}");
    assert!(found.contains(&(&b"/links"[..], &Kind::Links, false)), "{found:?}");
    assert_eq!(found.len(), 2, "{found:?}");
}
