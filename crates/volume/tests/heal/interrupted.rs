//! A heal may lose its bricks after any fop; the next one finishes what it began.

use mortar_logic::heal::Children;
use mortar_volume::heal::sweep::{Progress, empty_parking, index_sweep};
use proptest::prelude::*;

use crate::bricks::Cluster;
use crate::files::{Files, Result};
use crate::scenarios::{assert_healed, heal};
use crate::tree::visible;

async fn before(f: &Files<'_>) -> Result<()> {
    for name in ["data", "meta", "gone", "moved", "linked"] {
        f.create(name, name.as_bytes()).await?;
    }
    f.mkdir("from").await?;
    f.mkdir("to").await?;
    f.mkdir("from/sub").await?;
    f.create("from/sub/file", b"file").await
}

async fn during(f: &Files<'_>) -> Result<()> {
    f.append("data", &[3; 5000]).await?;
    f.chmod("meta", 0o100_600).await?;
    f.setxattr("meta", "user.k", b"v").await?;
    f.unlink("gone").await?;
    f.rename("moved", "to/moved").await?;
    f.link("linked", "to/link").await?;
    f.rename("from/sub", "to/sub").await?;
    f.create("to/sub/new", b"new").await?;
    f.mkdir("newdir").await?;
    f.create("newdir/in", b"in").await?;
    f.symlink("newdir/sym", "in").await?;
    f.create("gone", b"another inode").await
}

fn check(fops: i64, brick: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let cluster = Cluster::new(2);
        let files = Files(&cluster.client.top);
        before(&files).await.unwrap();
        cluster.client.replicate.quiesce().await;
        cluster.down(1);
        during(&files).await.unwrap();
        cluster.client.replicate.quiesce().await;
        let truth = visible(&cluster.bricks[0].root);
        cluster.up(1);

        cluster.healer[brick].cut_after(fops);
        let set = cluster.set();
        // Fails or not, depending on how much it needed.
        let _ = index_sweep(&set, Children::all(2), &Progress::default()).await;
        cluster.healer[brick].mend();
        heal(&cluster).await;
        // As the daemon does after a sweep that left nothing: a healer that dies between linking an inode into its
        // directory and unparking it leaves its second name to this.
        empty_parking(&set).await.unwrap();
        assert_healed(&cluster);
        assert_eq!(visible(&cluster.bricks[0].root), truth, "the source changed");
    });
}

proptest! {
    // Other cases at every run; a failing one is printed, and its seed kept below proptest-regressions.
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn an_interrupted_heal_is_finished_by_the_next(fops in 0i64..500, brick in 0usize..2) {
        if crate::can_run() {
            check(fops, brick);
        }
    }
}
