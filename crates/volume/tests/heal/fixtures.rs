//! Bricks that GlusterFS 10.3 left pending, healed by us: both must hold what its client saw.
//!
//! `fixtures/*-brickN.tar.gz` are unpacked with the script of the fixtures of crate `brick`: child N of the volume. `*.manifest.tsv` is what the
//! client saw, `*.heal-info.txt` what GlusterFS's heal info said.

use std::path::{Path, PathBuf};
use std::process::Command;

use mortar_logic::heal::Children;
use mortar_testkit::needs::{self, Need};
use mortar_types::Gfid;
use mortar_volume::heal::info::info;
use mortar_volume::heal::sweep::{Progress, index_sweep};
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

#[tokio::test]
async fn pending_bricks_heal_to_what_the_client_saw() {
    let dir = tempfile::tempdir().unwrap();
    let Some(cluster) = serve(dir.path(), "b-replica2-pending", "rb", 2) else { return };
    let told = info(&cluster.set()).await;
    assert_eq!(told[0].entries.len(), 11, "heal info of the real one");
    heal(&cluster).await;
    assert_healed(&cluster);
    check_manifest(&cluster.bricks[1].root, "b-replica2-pending");
    check_manifest(&cluster.bricks[0].root, "b-replica2-pending");
}

#[tokio::test]
async fn split_brains_are_told_as_the_real_one_tells_them() {
    let dir = tempfile::tempdir().unwrap();
    let Some(cluster) = serve(dir.path(), "c-replica2-splitbrain", "rc", 2) else { return };
    let set = cluster.set();
    let split = |told: &[mortar_volume::heal::info::BrickPending], brick: usize| {
        let split = told[brick].entries.iter().filter(|entry| entry.verdict.is_split_brain());
        let mut paths: Vec<_> = split.filter_map(|entry| entry.path.clone()).collect();
        paths.sort();
        paths
    };
    let told = info(&set).await;
    assert_eq!([told[0].entries.len(), told[1].entries.len()], [6, 6]);
    for brick in 0..2 {
        assert_eq!(split(&told, brick), ["/data-sb", "/dir", "/meta-sb"]);
    }
    let summary = index_sweep(&set, Children::all(2), &Progress::default()).await.unwrap();
    let kinds: Vec<_> = summary.left.iter().map(|(_, error)| error).collect();
    assert!(kinds.contains(&&Error::SplitBrain(SplitBrain::Data)), "{kinds:?}");
    assert!(kinds.contains(&&Error::SplitBrain(SplitBrain::Metadata)), "{kinds:?}");
    for name in ["dir/only0", "dir/only1"] {
        assert!(cluster.bricks.iter().all(|brick| brick.root.join(name).exists()), "{name}");
    }
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
