//! Copies that each miss something of the other: recognised, told with a reason, and left alone.

use mortar_logic::heal::{Children, Resolve};
use mortar_volume::heal::info::{Pending, info};
use mortar_volume::heal::sweep::{Progress, index_sweep};
use mortar_volume::heal::{Error, ReplicaSet, SplitBrain};

use crate::bricks::Cluster;
use crate::files::{Files, Result};
use crate::scenarios::{assert_healed, heal};
use crate::tree::visible;

/// `one` is seen by brick 0 alone, `other` by brick 1 alone.
async fn diverge(
    before: impl AsyncFnOnce(&Files<'_>) -> Result<()>,
    one: impl AsyncFnOnce(&Files<'_>) -> Result<()>,
    other: impl AsyncFnOnce(&Files<'_>) -> Result<()>,
) -> Cluster {
    let cluster = Cluster::new(2);
    let files = Files(&cluster.client.top);
    before(&files).await.unwrap();
    cluster.client.replicate.quiesce().await;
    cluster.down(1);
    one(&files).await.unwrap();
    cluster.client.replicate.quiesce().await;
    // Another client, so that nothing is remembered of what brick 0 said.
    let second = cluster.another_client();
    second.connections[0].cut();
    other(&Files(&second.top)).await.unwrap();
    second.replicate.quiesce().await;
    cluster
}

async fn sweep(set: &ReplicaSet) -> Vec<Error> {
    let summary = index_sweep(set, Children::all(2), &Progress::default()).await.unwrap();
    summary.left.into_iter().map(|(_, error)| error).collect()
}

async fn told(set: &ReplicaSet) -> Vec<Pending> {
    let bricks = info(set).await;
    assert!(bricks.iter().all(|brick| brick.connected));
    bricks[0].entries.clone()
}

#[tokio::test]
async fn data_is_left_alone_until_somebody_chooses() {
    if !crate::can_run() {
        return;
    }
    let cluster = diverge(
        async |f| f.create("sb", b"common").await,
        async |f| f.write_at("sb", 0, b"ONE").await,
        async |f| f.write_at("sb", 0, b"OTHER AND LONGER").await,
    )
    .await;
    let mut set = cluster.set();
    let before = (visible(&cluster.bricks[0].root), visible(&cluster.bricks[1].root));
    assert_eq!(sweep(&set).await, [Error::SplitBrain(SplitBrain::Data)]);
    let after = (visible(&cluster.bricks[0].root), visible(&cluster.bricks[1].root));
    assert!(before == after, "a copy in split-brain was changed");

    let [pending] = &told(&set).await[..] else { panic!("one entry") };
    assert!(pending.verdict.is_split_brain());
    assert_eq!(pending.path.as_deref(), Some(&b"/sb"[..]));
    assert!(pending.why.as_ref().is_some_and(|why| why.contains("choose the copy to keep")), "{:?}", pending.why);

    set.policy = Resolve::Size;
    assert_eq!(sweep(&set).await, []);
    assert_healed(&cluster);
    assert_eq!(std::fs::read(cluster.bricks[0].root.join("sb")).unwrap(), b"OTHER AND LONGER");
}

#[tokio::test]
async fn metadata_is_left_alone() {
    if !crate::can_run() {
        return;
    }
    let cluster = diverge(
        async |f| f.create("sb", b"x").await,
        async |f| f.chmod("sb", 0o100_600).await,
        async |f| f.chmod("sb", 0o100_640).await,
    )
    .await;
    let set = cluster.set();
    assert_eq!(sweep(&set).await, [Error::SplitBrain(SplitBrain::Metadata)]);
    let pending = told(&set).await;
    assert!(pending.iter().any(|entry| entry.verdict.is_split_brain() && entry.why.is_some()), "{pending:?}");
}

#[tokio::test]
async fn names_that_exist_once_are_united_and_the_two_faced_ones_left_alone() {
    if !crate::can_run() {
        return;
    }
    let cluster = diverge(
        async |f| {
            f.mkdir("dir").await?;
            f.create("dir/keep", b"keep").await
        },
        async |f| {
            f.create("dir/only0", b"0").await?;
            f.create("dir/two", b"first").await?;
            f.mkdir("dir/kind").await
        },
        async |f| {
            f.create("dir/only1", b"1").await?;
            f.create("dir/two", b"second").await?;
            f.create("dir/kind", b"file").await
        },
    )
    .await;
    let set = cluster.set();
    let left = sweep(&set).await;
    let names = |error: &Error| match error {
        Error::SplitBrain(SplitBrain::Names(names)) => names.len(),
        _ => 0,
    };
    assert!(left.iter().any(|error| names(error) == 2), "{left:?}");
    for brick in &cluster.bricks {
        assert_eq!(std::fs::read(brick.root.join("dir/only0")).unwrap(), b"0");
        assert_eq!(std::fs::read(brick.root.join("dir/only1")).unwrap(), b"1");
    }
    assert_eq!(std::fs::read(cluster.bricks[0].root.join("dir/two")).unwrap(), b"first");
    assert_eq!(std::fs::read(cluster.bricks[1].root.join("dir/two")).unwrap(), b"second");
    let pending = told(&set).await;
    let dir = pending.iter().find(|entry| entry.path.as_deref() == Some(b"/dir")).unwrap();
    assert!(dir.verdict.is_split_brain());
    assert!(dir.why.as_ref().is_some_and(|why| why.contains("two")), "{:?}", dir.why);
}

#[tokio::test]
async fn deletions_on_one_side_and_additions_on_the_other_keep_everything() {
    if !crate::can_run() {
        return;
    }
    let cluster = diverge(
        async |f| {
            f.create("old", b"old").await?;
            f.create("other", b"other").await
        },
        async |f| f.unlink("old").await,
        async |f| f.create("new", b"new").await,
    )
    .await;
    heal(&cluster).await;
    assert_healed(&cluster);
    assert!(["old", "other", "new"].iter().all(|name| cluster.bricks[0].root.join(name).exists()));
}
