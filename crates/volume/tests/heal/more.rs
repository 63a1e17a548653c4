//! Three replicas, lost marks, and what waits in the parking directory.

use mortar_logic::heal::Children;
use mortar_types::fop::Link;
use mortar_types::{Context, Pid, SubvolId};
use mortar_volume::heal::sweep::{Progress, empty_parking, full_sweep, index_sweep};

use crate::bricks::Cluster;
use crate::files::Files;
use crate::scenarios::{assert_healed, heal};
use crate::tree::{assert_same, index};

#[tokio::test]
async fn two_of_three_replicas_missed_different_things() {
    if !crate::can_run() {
        return;
    }
    let cluster = Cluster::new(3);
    let files = Files(&cluster.client.top);
    files.create("a", b"a").await.unwrap();
    files.create("b", b"b").await.unwrap();
    files.mkdir("d").await.unwrap();
    cluster.client.replicate.quiesce().await;
    cluster.down(1);
    files.append("a", b" without one").await.unwrap();
    files.create("d/one", b"1").await.unwrap();
    cluster.client.replicate.quiesce().await;
    cluster.up(1);
    cluster.down(2);
    files.append("b", b" without two").await.unwrap();
    files.create("d/two", b"2").await.unwrap();
    files.chmod("a", 0o100_600).await.unwrap();
    cluster.client.replicate.quiesce().await;
    cluster.up(2);
    heal(&cluster).await;
    assert_healed(&cluster);
    assert_eq!(std::fs::read(cluster.bricks[1].root.join("a")).unwrap(), b"a without one");
    assert_eq!(std::fs::read(cluster.bricks[2].root.join("b")).unwrap(), b"b without two");
}

#[tokio::test]
async fn nothing_heals_while_a_brick_is_away() {
    if !crate::can_run() {
        return;
    }
    let cluster = Cluster::new(3);
    let files = Files(&cluster.client.top);
    cluster.down(1);
    files.create("a", b"a").await.unwrap();
    cluster.client.replicate.quiesce().await;
    cluster.up(1);
    cluster.healer[2].cut();
    let result = index_sweep(&cluster.set(), Children::all(3), &Progress::default()).await;
    assert!(matches!(result, Err(mortar_volume::heal::Error::NotAllUp)));
    assert!(!cluster.bricks[1].root.join("a").exists());
    cluster.healer[2].mend();
    heal(&cluster).await;
    assert_healed(&cluster);
}

#[tokio::test]
async fn a_full_heal_finds_what_no_index_names() {
    if !crate::can_run() {
        return;
    }
    let cluster = Cluster::new(2);
    let files = Files(&cluster.client.top);
    files.mkdir("d").await.unwrap();
    files.create("d/f", b"content").await.unwrap();
    files.create("g", b"g").await.unwrap();
    cluster.client.replicate.quiesce().await;
    cluster.down(1);
    files.create("d/new", b"new").await.unwrap();
    files.mkdir("d/sub").await.unwrap();
    files.create("d/sub/deep", b"deep").await.unwrap();
    cluster.client.replicate.quiesce().await;
    cluster.up(1);
    // A crash of brick 0 that lost its index.
    for entry in index(&cluster.bricks[0].root) {
        let path = cluster.bricks[0].root.join(".glusterfs/indices").join(entry);
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.unwrap();
    }
    let summary = index_sweep(&cluster.set(), Children::all(2), &Progress::default()).await.unwrap();
    assert_eq!(summary.healed, 0);
    let progress = Progress::default();
    let summary = full_sweep(&cluster.set(), &progress).await.unwrap();
    assert!(summary.left.is_empty(), "{:?}", summary.left);
    heal(&cluster).await;
    assert_same(&cluster.bricks[0].root, &cluster.bricks[1].root);
    assert!(progress.snapshot().healed_entries > 0 && !progress.snapshot().running);
}

#[tokio::test]
async fn an_inode_that_was_removed_after_it_was_parked_is_thrown_away() {
    if !crate::can_run() {
        return;
    }
    let cluster = Cluster::new(2);
    let files = Files(&cluster.client.top);
    for dir in ["a", "b"] {
        files.mkdir(dir).await.unwrap();
    }
    files.create("a/f", b"f").await.unwrap();
    files.mkdir("a/d").await.unwrap();
    files.create("a/d/inside", b"x").await.unwrap();
    cluster.client.replicate.quiesce().await;
    cluster.down(1);
    files.rename("a/f", "b/f").await.unwrap();
    files.rename("a/d", "b/d").await.unwrap();
    cluster.client.replicate.quiesce().await;
    cluster.up(1);

    // Only the old directory is healed: both inodes are parked. Then they are removed where they live.
    let set = cluster.set();
    let a = files.stat("a").await.unwrap().gfid;
    mortar_volume::heal::inode::heal(&set, a, mortar_volume::heal::entry::Scope::Changed).await.unwrap();
    let parking = cluster.bricks[1].root.join(String::from_utf8(set.parking_name().to_vec()).unwrap());
    assert_eq!(std::fs::read_dir(&parking).unwrap().count(), 2);
    cluster.down(1);
    files.unlink("b/f").await.unwrap();
    files.unlink("b/d/inside").await.unwrap();
    files.rmdir("b/d").await.unwrap();
    cluster.client.replicate.quiesce().await;
    cluster.up(1);
    heal(&cluster).await;
    empty_parking(&set).await.unwrap();
    assert_eq!(std::fs::read_dir(&parking).unwrap().count(), 0);
    assert_healed(&cluster);
}

/// As when one healer links the inode into its new directory while another parks the old name.
#[tokio::test]
async fn a_file_at_its_place_leaves_no_second_name_parked() {
    if !crate::can_run() {
        return;
    }
    let cluster = Cluster::new(2);
    let files = Files(&cluster.client.top);
    for dir in ["a", "b"] {
        files.mkdir(dir).await.unwrap();
    }
    files.create("a/f", b"f").await.unwrap();
    cluster.client.replicate.quiesce().await;
    cluster.down(1);
    files.rename("a/f", "b/f").await.unwrap();
    cluster.client.replicate.quiesce().await;
    cluster.up(1);
    let set = cluster.set();
    let (a, b) = (files.stat("a").await.unwrap().gfid, files.stat("b").await.unwrap().gfid);
    let gfid = files.stat("b/f").await.unwrap().gfid;
    mortar_volume::heal::inode::heal(&set, a, mortar_volume::heal::entry::Scope::Changed).await.unwrap();
    let link = Link { gfid, new_parent: b, new_name: "f".into(), xdata: None };
    set.children[SubvolId(1)].fop(&Context::internal(Pid::SELF_HEAL_DAEMON), link).await.unwrap();
    let parking = cluster.bricks[1].root.join(String::from_utf8(set.parking_name().to_vec()).unwrap());
    assert_eq!(std::fs::read_dir(&parking).unwrap().count(), 1);
    heal(&cluster).await;
    empty_parking(&set).await.unwrap();
    assert_eq!(std::fs::read_dir(&parking).unwrap().count(), 0);
    // The name and the handle.
    let links = std::os::unix::fs::MetadataExt::nlink(&std::fs::metadata(cluster.bricks[1].root.join("b/f")).unwrap());
    assert_eq!(links, 2);
}

#[tokio::test]
async fn a_client_heals_what_it_comes_across() {
    if !crate::can_run() {
        return;
    }
    let cluster = Cluster::new(2);
    let files = Files(&cluster.client.top);
    files.mkdir("d").await.unwrap();
    files.create("d/old", b"old").await.unwrap();
    cluster.client.replicate.quiesce().await;
    cluster.down(1);
    files.append("d/old", b" and more").await.unwrap();
    files.create("d/new", b"new").await.unwrap();
    cluster.client.replicate.quiesce().await;
    cluster.up(1);
    // Over the client's own connections, as in a mount.
    let set = cluster.set_over(&cluster.client.connections);
    cluster.client.replicate.set_heal_hook(mortar_volume::heal::hook::Healer::spawn(set));
    for _ in 0..100 {
        for path in ["d", "d/old", "d/new"] {
            files.stat(path).await.unwrap();
        }
        let healed = |name: &str, content: &[u8]| {
            std::fs::read(cluster.bricks[1].root.join(name)).is_ok_and(|found| found == content)
        };
        if healed("d/old", b"old and more") && healed("d/new", b"new") {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("not healed by access");
}
