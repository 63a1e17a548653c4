//! Bricks that GlusterFS 10.3 left pending, healed by us: both must hold what its client saw.
//!
//! `fixtures/*-brickN.tar.gz` are unpacked with the script of the fixtures of crate `brick`: child N of the volume. `*.manifest.tsv` is what the
//! client saw, `*.heal-info.txt` what GlusterFS's heal info said.

use std::path::{Path, PathBuf};
use std::process::Command;

use mortar_logic::heal::{Children, Resolve};
use mortar_testkit::needs::{self, Need};
use mortar_types::{Gfid, SubvolId};
use mortar_volume::heal::info::info;
use mortar_volume::heal::resolve::{Target, settle};
use mortar_volume::heal::sweep::{Progress, index_sweep};
use mortar_volume::heal::verify::verify;
use mortar_volume::heal::{Error, SplitBrain};

use crate::bricks::{Brick, Cluster};
use crate::scenarios::{assert_healed, heal};
use crate::tree::xattr;

const NEEDS: [Need; 3] =
    [Need::Program("getfattr", "attr"), Need::Program("tar", "tar"), Need::Program("sha256sum", "coreutils")];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/heal/fixtures")
}

/// Unpacks the fixture's bricks into `dir` and serves them.
fn serve(dir: &Path, fixture: &str, volume: &str, count: usize) -> Option<Cluster> {
    if !crate::can_run() || !needs::met(fixture, &NEEDS) {
        return None;
    }
    let data = fixtures();
    let mut bricks = Vec::new();
    let mut volume_id = Gfid::NULL;
    for at in 0..count {
        let root = dir.join(format!("brick{at}"));
        let status = Command::new("sh")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../brick/tests/fixtures/extract.sh"))
            .arg(data.join(format!("{fixture}-brick{at}.tar.gz")))
            .arg(&root)
            .status()
            .unwrap();
        assert!(status.success());
        volume_id = Gfid::from_slice(&xattr(&root, "trusted.glusterfs.volume-id").unwrap()).unwrap();
        bricks.push(Brick::open(&root, at, volume_id));
    }
    Some(Cluster::over(volume, volume_id, bricks))
}

/// Checks a brick's tree against the manifest: type, mode, owner, size, modification time, content.
fn check_manifest(root: &Path, fixture: &str) {
    use std::os::unix::fs::MetadataExt;
    let text = std::fs::read_to_string(fixtures().join(format!("{fixture}.manifest.tsv"))).unwrap();
    let mut seen = 0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [kind, mode, uid, gid, nlink, size, mtime, content, _xattrs, path] = fields[..] else { panic!("{line}") };
        let file = root.join(path);
        let meta = file.symlink_metadata().unwrap_or_else(|error| panic!("{path}: {error}"));
        let found = format!("{:o} {} {}", meta.mode() & 0o7777, meta.uid(), meta.gid());
        assert_eq!(found, format!("{mode} {uid} {gid}"), "{path}");
        if kind != "d" {
            assert_eq!(meta.nlink() - 1, nlink.parse::<u64>().unwrap(), "{path}");
            assert_eq!(kept_mtime(&file), mtime.parse::<i128>().unwrap(), "{path}");
        }
        match kind {
            "f" => {
                assert_eq!(meta.len().to_string(), size, "{path}");
                assert_eq!(sha256(&file), content, "{path}");
            }
            "l" => assert_eq!(std::fs::read_link(&file).unwrap().to_string_lossy(), content, "{path}"),
            _ => {}
        }
        seen += 1;
    }
    assert!(seen > 5);
}

/// Nanoseconds, from the times that GlusterFS keeps beside the inode.
fn kept_mtime(path: &Path) -> i128 {
    let mdata = xattr(path, "trusted.glusterfs.mdata").unwrap();
    let number = |at: usize| i128::from(i64::from_be_bytes(mdata[at..at + 8].try_into().unwrap()));
    number(25) * 1_000_000_000 + number(33)
}

fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .trim_start_matches('\\')
        .to_owned()
}

/// One brick's part of a `heal info`: the entries as they were printed, with whether split-brain was said; `None`: the brick
/// was not connected.
type Section = Option<Vec<(String, bool)>>;

/// What GlusterFS printed; the sections of `heal info`, then those of `info split-brain` if they were recorded too.
fn real_info(fixture: &str) -> Vec<Section> {
    let text = std::fs::read_to_string(fixtures().join(format!("{fixture}.heal-info.txt"))).unwrap();
    let section = |text: &str| {
        let entries = text.lines().filter(|line| line.starts_with('/') || line.starts_with("<gfid:"));
        let entry = |line: &str| {
            let name = line.trim_end().trim_end_matches(" - Is in split-brain");
            (name.to_owned(), line.contains("split-brain"))
        };
        text.contains("Status: Connected").then(|| entries.map(entry).collect())
    };
    text.split("Brick ").skip(1).map(section).collect()
}

/// The gfid of an entry as `heal info` prints it for `brick`: a path leads to that brick's inode, if it has one there.
fn gfid_of(cluster: &Cluster, brick: usize, name: &str) -> Gfid {
    if let Some(gfid) = name.strip_prefix("<gfid:").and_then(|name| name.strip_suffix('>')) {
        return gfid.parse().unwrap();
    }
    let on_brick = |brick: &Brick| xattr(&brick.root.join(name.trim_start_matches('/')), "trusted.gfid");
    let own_first = std::iter::once(&cluster.bricks[brick]).chain(&cluster.bricks);
    Gfid::from_slice(&own_first.into_iter().find_map(on_brick).unwrap()).unwrap()
}

/// That our heal info, brick by brick, names the inodes that GlusterFS's named, and calls the same ones split.
async fn assert_told_alike(cluster: &Cluster, fixture: &str) {
    let real = real_info(fixture);
    let told = info(&cluster.set()).await;
    for (of_brick, real) in told.iter().zip(real) {
        assert_eq!(of_brick.connected, real.is_some(), "brick {}", of_brick.child.0);
        let mut ours: Vec<(Gfid, bool)> =
            of_brick.entries.iter().map(|entry| (entry.gfid, entry.verdict.is_split_brain())).collect();
        let mut theirs: Vec<(Gfid, bool)> = real
            .unwrap_or_default()
            .iter()
            .map(|(name, split)| (gfid_of(cluster, of_brick.child.0, name), *split))
            .collect();
        ours.sort_unstable();
        theirs.sort_unstable();
        assert_eq!(ours, theirs, "{fixture}, brick {}", of_brick.child.0);
    }
}

#[tokio::test]
async fn pending_bricks_are_told_as_the_real_one_tells_them() {
    let dir = tempfile::tempdir().unwrap();
    let Some(cluster) = serve(dir.path(), "b-replica2-pending", "rb", 2) else { return };
    // As when it was recorded: the brick that missed everything is still away.
    cluster.healer[1].cut();
    assert_told_alike(&cluster, "b-replica2-pending").await;
    let told = info(&cluster.set()).await;
    assert!(told[0].entries.iter().all(|entry| entry.why == Some(Error::NotAllUp)), "each says what it waits for");
}

#[tokio::test]
async fn pending_bricks_heal_to_what_the_client_saw() {
    let dir = tempfile::tempdir().unwrap();
    let Some(cluster) = serve(dir.path(), "b-replica2-pending", "rb", 2) else { return };
    heal(&cluster).await;
    assert_healed(&cluster);
    check_manifest(&cluster.bricks[1].root, "b-replica2-pending");
    check_manifest(&cluster.bricks[0].root, "b-replica2-pending");
    assert_eq!(verify(&cluster.set()).await.unwrap().differences, []);
}

#[tokio::test]
async fn split_brains_are_told_as_the_real_one_tells_them() {
    let dir = tempfile::tempdir().unwrap();
    let Some(cluster) = serve(dir.path(), "c-replica2-splitbrain", "rc", 2) else { return };
    assert_told_alike(&cluster, "c-replica2-splitbrain").await;
    let told = info(&cluster.set()).await;
    let split = told.iter().flat_map(|of_brick| &of_brick.entries).filter(|entry| entry.verdict.is_split_brain());
    for entry in split {
        // The real one prints gfids for a brick's entries that only the other brick can place.
        assert!(entry.path.is_some() && matches!(entry.why, Some(Error::SplitBrain(_))), "{entry:?}");
    }
}

#[tokio::test]
async fn a_sweep_leaves_every_copy_of_a_split_brain() {
    let dir = tempfile::tempdir().unwrap();
    let Some(cluster) = serve(dir.path(), "c-replica2-splitbrain", "rc", 2) else { return };
    let summary = index_sweep(&cluster.set(), Children::all(2), &Progress::default()).await.unwrap();
    let kinds: Vec<_> = summary.left.iter().map(|(_, error)| error).collect();
    assert!(kinds.contains(&&Error::SplitBrain(SplitBrain::Data)), "{kinds:?}");
    assert!(kinds.contains(&&Error::SplitBrain(SplitBrain::Metadata)), "{kinds:?}");
    for name in ["dir/only0", "dir/only1"] {
        assert!(cluster.bricks.iter().all(|brick| brick.root.join(name).exists()), "{name}");
    }
}

#[tokio::test]
async fn adopted_split_brains_are_settled_by_naming_copies() {
    let dir = tempfile::tempdir().unwrap();
    let Some(cluster) = serve(dir.path(), "c-replica2-splitbrain", "rc", 2) else { return };
    let set = cluster.set();
    index_sweep(&set, Children::all(2), &Progress::default()).await.unwrap();
    for path in ["/data-sb", "/meta-sb", "/dir/gfid-sb"] {
        let keep = Resolve::Child(SubvolId(1));
        let settled = settle(&set, &Target::Path(path.into()), keep).await.unwrap();
        assert_eq!(settled.outcome, Ok(()), "{path}");
    }
    // A directory is not thrown away for a file: the one that has the directory is kept.
    let is_dir = |brick: &Brick| brick.root.join("dir/type-sb").is_dir();
    let keep = SubvolId(cluster.bricks.iter().position(is_dir).expect("one of the two is a directory"));
    let settled = settle(&set, &Target::Path("/dir/type-sb".into()), Resolve::Child(keep)).await.unwrap();
    assert_eq!(settled.outcome, Ok(()));
    heal(&cluster).await;
    assert_healed(&cluster);
    assert_eq!(verify(&set).await.unwrap().differences, []);
}

#[tokio::test]
async fn an_arbiter_s_pending_entries_are_told_as_the_real_one_tells_them() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut cluster) = serve(dir.path(), "f2-arbiter-pending", "ar", 3) else { return };
    cluster.arbiters = 1;
    cluster.healer[1].cut();
    assert_told_alike(&cluster, "f2-arbiter-pending").await;
}

#[tokio::test]
async fn a_data_brick_heals_with_an_arbiter_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut cluster) = serve(dir.path(), "f2-arbiter-pending", "ar", 3) else { return };
    cluster.arbiters = 1;
    heal(&cluster).await;
    crate::tree::assert_same(&cluster.bricks[0].root, &cluster.bricks[1].root);
    check_manifest(&cluster.bricks[1].root, "f2-arbiter-pending");
    let arbiter = cluster.bricks[2].root.join("d/big");
    assert_eq!(std::fs::metadata(arbiter).unwrap().len(), 0);
}
