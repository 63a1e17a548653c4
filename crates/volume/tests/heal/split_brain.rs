//! Copies that each miss something of the other: recognised, told with a reason, and left alone.

use mortar_logic::heal::{Children, Resolve};
use mortar_types::{Errno, SubvolId};
use mortar_volume::heal::info::{Pending, info};
use mortar_volume::heal::resolve::{Failure, Target, settle, settle_all};
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
    assert_eq!(pending.why, Some(Error::SplitBrain(SplitBrain::Data)));

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
    assert!(dir.why.as_ref().is_some_and(|why| why.to_string().contains("two")), "{:?}", dir.why);
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

async fn data_split_brain(one: &'static [u8], other: &'static [u8]) -> Cluster {
    diverge(
        async |f| f.create("sb", b"common").await,
        async |f| f.write_at("sb", 0, one).await,
        async |f| f.write_at("sb", 0, other).await,
    )
    .await
}

fn content(cluster: &Cluster, name: &str) -> [Vec<u8>; 2] {
    [0, 1].map(|brick: usize| std::fs::read(cluster.bricks[brick].root.join(name)).unwrap())
}

async fn settle_path(cluster: &Cluster, path: &'static str, rule: Resolve) -> std::result::Result<(), Failure> {
    settle(&cluster.set(), &Target::Path(path.into()), rule).await.and_then(|settled| settled.outcome)
}

#[tokio::test]
async fn each_command_keeps_the_copy_that_it_names() {
    if !crate::can_run() {
        return;
    }
    for (rule, kept) in [
        (Resolve::Size, &b"OTHER AND LONGER"[..]),
        (Resolve::Mtime, b"OTHER AND LONGER"),
        (Resolve::Child(SubvolId(0)), b"ONEmon"),
        (Resolve::Child(SubvolId(1)), b"OTHER AND LONGER"),
    ] {
        let cluster = data_split_brain(b"ONE", b"OTHER AND LONGER").await;
        assert_eq!(settle_path(&cluster, "/sb", rule).await, Ok(()), "{rule:?}");
        assert_eq!(content(&cluster, "sb"), [kept, kept], "{rule:?}");
        assert_eq!(settle_path(&cluster, "/sb", rule).await, Err(Failure::NotInSplitBrain));
        heal(&cluster).await;
        assert_healed(&cluster);
    }
}

/// A client that was refused has it open in its memory of the inode; nobody tells it that somebody chose.
#[tokio::test]
async fn a_client_that_was_refused_reads_what_was_settled() {
    if !crate::can_run() {
        return;
    }
    let cluster = data_split_brain(b"ONE", b"OTHER AND LONGER").await;
    let client = cluster.another_client();
    let files = Files(&client.top);
    assert_eq!(files.read("sb").await.unwrap_err(), Errno::EIO);
    assert_eq!(settle_path(&cluster, "/sb", Resolve::Child(SubvolId(0))).await, Ok(()));
    assert_eq!(files.read("sb").await.unwrap(), &b"ONEmon"[..]);
}

#[tokio::test]
async fn a_command_that_cannot_choose_says_why_and_changes_nothing() {
    if !crate::can_run() {
        return;
    }
    let cluster = data_split_brain(b"ONE", b"TWO").await;
    assert_eq!(settle_path(&cluster, "/sb", Resolve::Size).await, Err(Failure::NoBiggerFile));
    assert_eq!(settle_path(&cluster, "/nosuch", Resolve::Size).await, Err(Failure::Lookup(Errno::ENOENT)));
    assert_eq!(settle_path(&cluster, "/", Resolve::Size).await, Err(Failure::NotForDirectories));
    assert_eq!(settle_path(&cluster, "/", Resolve::Mtime).await, Err(Failure::NotInSplitBrain));
    assert_eq!(content(&cluster, "sb"), [b"ONEmon", b"TWOmon"]);
    cluster.healer[1].cut();
    assert_eq!(settle_path(&cluster, "/sb", Resolve::Mtime).await, Err(Failure::Heal(Error::NotAllUp)));
}

#[tokio::test]
async fn metadata_is_settled_by_gfid_too() {
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
    let gfid = told(&set).await[0].gfid;
    let settled = settle(&set, &Target::Gfid(gfid), Resolve::Child(SubvolId(1))).await.unwrap();
    assert_eq!(settled.outcome, Ok(()));
    heal(&cluster).await;
    assert_healed(&cluster);
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(cluster.bricks[0].root.join("sb")).unwrap());
    assert_eq!(mode & 0o777, 0o640);
}

/// `dir/two`: two inodes of one kind; `dir/kind`: a directory and a file.
async fn two_faced() -> Cluster {
    diverge(
        async |f| {
            f.mkdir("dir").await?;
            f.create("dir/keep", b"keep").await
        },
        async |f| {
            f.create("dir/two", b"first").await?;
            f.mkdir("dir/kind").await
        },
        async |f| {
            f.create("dir/two", b"second").await?;
            f.create("dir/kind", b"file").await
        },
    )
    .await
}

#[tokio::test]
async fn a_name_that_is_two_inodes_becomes_one() {
    if !crate::can_run() {
        return;
    }
    for (rule, kept) in [(Resolve::Size, &b"second"[..]), (Resolve::Child(SubvolId(0)), b"first")] {
        let cluster = two_faced().await;
        sweep(&cluster.set()).await;
        assert_eq!(settle_path(&cluster, "/dir/two", rule).await, Ok(()), "{rule:?}");
        assert_eq!(content(&cluster, "dir/two"), [kept, kept], "{rule:?}");
        // A directory is not thrown away for a file; the other way round it may be.
        let refused = settle_path(&cluster, "/dir/kind", Resolve::Child(SubvolId(1))).await;
        assert!(matches!(refused, Err(Failure::Heal(Error::SplitBrain(SplitBrain::Names(_))))), "{refused:?}");
        assert_eq!(settle_path(&cluster, "/dir/kind", Resolve::Child(SubvolId(0))).await, Ok(()));
        heal(&cluster).await;
        assert_healed(&cluster);
        assert!(cluster.bricks[1].root.join("dir/kind").is_dir());
    }
}

#[tokio::test]
async fn a_whole_brick_can_be_chosen() {
    if !crate::can_run() {
        return;
    }
    let cluster = diverge(
        async |f| {
            f.create("a", b"common").await?;
            f.create("b", b"common").await?;
            f.create("pending", b"common").await
        },
        async |f| {
            f.write_at("a", 0, b"A0").await?;
            f.write_at("b", 0, b"B0").await?;
            f.write_at("pending", 0, b"P0").await
        },
        async |f| {
            f.write_at("a", 0, b"A1").await?;
            f.write_at("b", 0, b"B1").await
        },
    )
    .await;
    let settled = settle_all(&cluster.set(), Some(SubvolId(0)), Resolve::Child(SubvolId(0))).await.unwrap();
    assert_eq!(settled.iter().filter(|one| one.outcome.is_ok()).count(), 2, "{settled:?}");
    assert_eq!(settled.iter().filter(|one| one.outcome == Err(Failure::NotInSplitBrain)).count(), 1);
    assert_eq!(content(&cluster, "a")[1], b"A0mmon");
    assert_eq!(content(&cluster, "b")[1], b"B0mmon");
    heal(&cluster).await;
    assert_healed(&cluster);
}

#[tokio::test]
async fn the_volumes_policy_settles_names_in_the_sweep() {
    if !crate::can_run() {
        return;
    }
    let cluster = two_faced().await;
    let mut set = cluster.set();
    set.policy = Resolve::Mtime;
    let left = sweep(&set).await;
    assert_eq!(content(&cluster, "dir/two"), [b"second", b"second"]);
    // The directory and the file are still both there: no policy chooses between kinds.
    assert!(left.iter().any(|error| matches!(error, Error::SplitBrain(SplitBrain::Names(names)) if names.len() == 1)));
}
