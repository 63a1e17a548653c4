//! What was missed while a brick was away, kind by kind, and everything at once.

use mortar_logic::heal::Children;
use mortar_volume::heal::sweep::{Progress, index_sweep};

use crate::bricks::Cluster;
use crate::files::Files;
use crate::tree::{assert_same, index, visible};

/// Sweeps until nothing is left (or for so long that something must be wrong).
pub(crate) async fn heal(cluster: &Cluster) {
    let set = cluster.set();
    let mut left = Vec::new();
    for _ in 0..20 {
        let summary = index_sweep(&set, Children::all(cluster.bricks.len()), &Progress::default()).await.unwrap();
        left = summary.left;
        if left.is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    panic!("not healed: {left:?}");
}

#[track_caller]
pub(crate) fn assert_healed(cluster: &Cluster) {
    for brick in &cluster.bricks[1..] {
        assert_same(&cluster.bricks[0].root, &brick.root);
    }
    for brick in &cluster.bricks {
        assert_eq!(index(&brick.root), Vec::<String>::new(), "the index of {}", brick.root.display());
    }
}

/// `before` with both bricks, `during` with brick 1 away, then heal: brick 1 is as brick 0 was.
async fn check(
    before: impl AsyncFnOnce(&Files<'_>) -> crate::files::Result<()>,
    during: impl AsyncFnOnce(&Files<'_>) -> crate::files::Result<()>,
) {
    if !crate::can_run() {
        return;
    }
    let cluster = Cluster::new(2);
    let files = Files(&cluster.client.top);
    before(&files).await.unwrap();
    cluster.client.replicate.quiesce().await;
    cluster.down(1);
    during(&files).await.unwrap();
    cluster.client.replicate.quiesce().await;
    let truth = visible(&cluster.bricks[0].root);
    assert_ne!(truth, visible(&cluster.bricks[1].root), "the scenario changes nothing");
    cluster.up(1);
    heal(&cluster).await;
    assert_healed(&cluster);
    assert_eq!(visible(&cluster.bricks[0].root), truth, "the source changed");
}

#[tokio::test]
async fn append() {
    check(async |f| f.create("h1", b"one\n").await, async |f| f.append("h1", b"two\n").await).await;
}

#[tokio::test]
async fn overwrite() {
    check(async |f| f.create("h2", b"one is long\n").await, async |f| f.overwrite("h2", b"two\n").await).await;
}

#[tokio::test]
async fn mode_owner_and_xattrs() {
    check(
        async |f| {
            f.create("h3", b"x").await?;
            f.setxattr("h3", "user.gone", b"1").await?;
            f.mkdir("hd2").await
        },
        async |f| {
            f.chmod("h3", 0o100_600).await?;
            f.chown("h3", 7, 8).await?;
            f.setxattr("h3", "user.k", b"v").await?;
            f.removexattr("h3", "user.gone").await?;
            f.chmod("hd2", 0o040_751).await?;
            f.setxattr("hd2", "user.dk", b"dv").await
        },
    )
    .await;
}

#[tokio::test]
async fn times() {
    check(async |f| f.create("t", b"x").await, async |f| f.set_mtime("t", 1_000_000).await).await;
}

#[tokio::test]
async fn setuid_survives() {
    check(
        async |f| f.create("s", b"x").await,
        async |f| {
            f.write_at("s", 0, b"yy").await?;
            f.chown("s", 5, 6).await?;
            f.chmod("s", 0o104_755).await
        },
    )
    .await;
}

#[tokio::test]
async fn create() {
    check(
        async |f| f.mkdir("hd1").await,
        async |f| {
            f.create("hd1/new", b"new\n").await?;
            f.create("hd1/empty", b"").await?;
            f.chown("hd1/new", 11, 12).await
        },
    )
    .await;
}

#[tokio::test]
async fn new_directories_with_content() {
    check(
        async |f| f.mkdir("hd1").await,
        async |f| {
            f.mkdir("hd1/newdir").await?;
            f.create("hd1/newdir/nn", b"nn\n").await?;
            f.mkdir("hd1/newdir/deep").await?;
            f.mkdir("hd1/newdir/deep/deeper").await?;
            f.create("hd1/newdir/deep/deeper/file", &[7; 300_000]).await?;
            f.chown("hd1/newdir/deep", 3, 4).await
        },
    )
    .await;
}

#[tokio::test]
async fn symlinks_fifos_and_devices() {
    check(
        async |f| f.mkdir("hd1").await,
        async |f| {
            f.symlink("hd1/newsym", "new").await?;
            f.symlink("hd1/owned", "elsewhere").await?;
            f.chown("hd1/owned", 9, 9).await?;
            f.fifo("hd1/fifo").await?;
            f.mknod("hd1/chr", 0o020_600, 0x103).await?;
            f.mknod("hd1/blk", 0o060_600, 0x10_0812).await
        },
    )
    .await;
}

#[tokio::test]
async fn hard_links() {
    check(
        async |f| {
            f.mkdir("hd1").await?;
            f.create("h6", b"six\n").await
        },
        async |f| {
            f.link("h6", "hd1/h6link").await?;
            f.create("fresh", b"fresh\n").await?;
            f.link("fresh", "hd1/fresh2").await?;
            f.link("fresh", "fresh3").await
        },
    )
    .await;
}

#[tokio::test]
async fn rename_across_directories() {
    check(
        async |f| {
            f.mkdir("hd1").await?;
            f.mkdir("hd2").await?;
            f.create("hd1/mv", b"mv\n").await
        },
        async |f| f.rename("hd1/mv", "hd2/mv2").await,
    )
    .await;
}

#[tokio::test]
async fn rename_within_a_directory() {
    check(
        async |f| {
            f.create("a", b"aaa").await?;
            f.create("b", b"bbb").await?;
            f.create("c", b"ccc").await
        },
        // A circle: no order of single renames on the stale brick would do.
        async |f| {
            f.rename("a", "t").await?;
            f.rename("b", "a").await?;
            f.rename("c", "b").await?;
            f.rename("t", "c").await
        },
    )
    .await;
}

#[tokio::test]
async fn rename_onto_an_existing_file() {
    check(
        async |f| {
            f.create("new", b"new").await?;
            f.create("old", b"old content").await
        },
        async |f| f.rename("new", "old").await,
    )
    .await;
}

#[tokio::test]
async fn moved_directories() {
    check(
        async |f| {
            f.mkdir("a").await?;
            f.mkdir("b").await?;
            f.mkdir("a/sub").await?;
            f.create("a/sub/file", b"content").await?;
            f.mkdir("a/sub/inner").await
        },
        async |f| {
            f.rename("a/sub", "b/moved").await?;
            f.create("b/moved/later", b"later").await?;
            f.rename("b/moved/inner", "top").await
        },
    )
    .await;
}

#[tokio::test]
async fn directories_that_swap_places() {
    check(
        async |f| {
            f.mkdir("a").await?;
            f.mkdir("a/b").await?;
            f.create("a/b/f", b"f").await
        },
        async |f| {
            f.rename("a/b", "b").await?;
            f.rename("a", "b/a").await
        },
    )
    .await;
}

#[tokio::test]
async fn unlink_and_rmdir() {
    check(
        async |f| {
            f.create("gone", b"x").await?;
            f.create("kept", b"k").await?;
            f.link("kept", "second").await?;
            f.mkdir("dir").await?;
            f.mkdir("dir/sub").await?;
            f.create("dir/sub/file", b"y").await
        },
        async |f| {
            f.unlink("gone").await?;
            f.unlink("kept").await?;
            f.unlink("dir/sub/file").await?;
            f.rmdir("dir/sub").await?;
            f.rmdir("dir").await
        },
    )
    .await;
}

#[tokio::test]
async fn another_kind_under_the_same_name() {
    check(
        async |f| {
            f.create("was-file", b"x").await?;
            f.mkdir("was-dir").await?;
            f.create("was-dir/inside", b"y").await
        },
        async |f| {
            f.unlink("was-file").await?;
            f.mkdir("was-file").await?;
            f.create("was-file/in", b"z").await?;
            f.unlink("was-dir/inside").await?;
            f.rmdir("was-dir").await?;
            f.symlink("was-dir", "target").await
        },
    )
    .await;
}

#[tokio::test]
async fn several_blocks_of_which_some_differ() {
    let block = 1 << 20;
    check(
        async |f| {
            f.create("big", b"").await?;
            f.write_at("big", 0, &vec![1; 3 * block + 17]).await
        },
        async |f| {
            f.write_at("big", block as u64 + 5, b"changed").await?;
            f.append("big", &vec![2; block]).await
        },
    )
    .await;
}

#[tokio::test]
async fn holes_stay_holes() {
    if !crate::can_run() {
        return;
    }
    let cluster = Cluster::new(2);
    let files = Files(&cluster.client.top);
    files.create("old", &[9; 200_000]).await.unwrap();
    cluster.client.replicate.quiesce().await;
    cluster.down(1);
    files.create("sparse", b"start").await.unwrap();
    files.write_at("sparse", 40 << 20, b"end").await.unwrap();
    files.truncate("old", 0).await.unwrap();
    files.truncate("old", 8 << 20).await.unwrap();
    cluster.client.replicate.quiesce().await;
    cluster.up(1);
    heal(&cluster).await;
    assert_healed(&cluster);
    for name in ["sparse", "old"] {
        use std::os::unix::fs::MetadataExt;
        let blocks = std::fs::metadata(cluster.bricks[1].root.join(name)).unwrap().blocks();
        assert!(blocks < 2048, "{name} takes {blocks} blocks");
    }
}

#[tokio::test]
async fn everything_of_the_fixture_at_once() {
    check(
        async |f| {
            for name in ["h1", "h2", "h3", "h4", "h5", "h6"] {
                f.create(name, format!("{name} old\n").as_bytes()).await?;
            }
            f.mkdir("hd1").await?;
            f.mkdir("hd2").await?;
            f.create("hd1/in", b"in\n").await?;
            f.create("hd1/mv", b"mv\n").await?;
            f.create("hd1/rm", b"rm\n").await
        },
        async |f| {
            f.append("h1", b"more\n").await?;
            f.overwrite("h2", b"overwritten").await?;
            f.chmod("h3", 0o100_600).await?;
            f.setxattr("h3", "user.k", b"v").await?;
            f.chown("h4", 7, 8).await?;
            f.append("h5", b"more").await?;
            f.chmod("h5", 0o100_640).await?;
            f.create("hd1/new", b"new\n").await?;
            f.mkdir("hd1/newdir").await?;
            f.create("hd1/newdir/nn", b"nn\n").await?;
            f.symlink("hd1/newsym", "new").await?;
            f.link("h6", "hd1/h6link").await?;
            f.rename("hd1/mv", "hd2/mv2").await?;
            f.unlink("hd1/rm").await?;
            f.fifo("hd1/fifo").await?;
            f.chmod("hd2", 0o040_751).await?;
            f.setxattr("hd2", "user.dk", b"dv").await
        },
    )
    .await;
}

#[tokio::test]
async fn many_names() {
    check(
        async |f| {
            f.mkdir("d").await?;
            for at in 0..60 {
                f.create(&format!("d/old{at}"), b"x").await?;
            }
            Ok(())
        },
        async |f| {
            for at in 0..60 {
                f.create(&format!("d/new{at}"), format!("{at}").as_bytes()).await?;
                f.unlink(&format!("d/old{at}")).await?;
            }
            Ok(())
        },
    )
    .await;
}
