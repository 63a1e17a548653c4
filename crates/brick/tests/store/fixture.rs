//! Bricks written by GlusterFS 10.3: served as they are, and equal to what the store writes itself.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use mortar_brick::store::StoreOptions;
use mortar_types::fop::{Mknod, Readlink};
use mortar_types::{Gfid, Iatt};
use sha2::{Digest, Sha256};

use crate::support::{Brick, Scratch, bytes, gfid_req, options, xattrs_on_disk};

/// The volume of fixture a.
const VOLUME: &str = "596aab93-59ad-47db-b68d-b767d5971349";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn real_brick(number: u32) -> Option<Brick> {
    let scratch = Scratch::new();
    let archive = fixture(&format!("a-replica2-clean-brick{number}.tar.gz"));
    let done = std::process::Command::new(fixture("extract.sh")).arg(&archive).arg(&scratch.0).status();
    if !done.is_ok_and(|status| status.success()) {
        mortar_testkit::needs::skip("cannot unpack a brick here (needs root, tar and getfattr)");
        return None;
    }
    let with_volume = |root: &Path| StoreOptions { volume_id: VOLUME.parse().expect("a gfid"), ..options(root) };
    Some(Brick::over(scratch, with_volume))
}

/// One line of the manifest.
struct Expected {
    kind: char,
    mode: u32,
    owner: (u32, u32),
    nlink: u32,
    size: u64,
    mtime_ns: i128,
    content: String,
    xattrs: Vec<(String, Vec<u8>)>,
    path: String,
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex")).collect()
}

fn manifest() -> Vec<Expected> {
    let text = std::fs::read_to_string(fixture("a-replica2-clean.manifest.tsv")).expect("it is in the tree");
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [kind, mode, uid, gid, nlink, size, mtime, content, xattrs, path] = fields[..] else {
            panic!("ten columns: {line}")
        };
        let pairs = xattrs.split(',').filter(|pair| *pair != "-").map(|pair| {
            let (name, value) = pair.split_once('=').expect("name=value");
            (name.to_owned(), unhex(value))
        });
        Expected {
            kind: kind.chars().next().expect("a letter"),
            mode: u32::from_str_radix(mode, 8).expect("octal"),
            owner: (uid.parse().expect("a number"), gid.parse().expect("a number")),
            nlink: nlink.parse().expect("a number"),
            size: size.parse().expect("a number"),
            mtime_ns: mtime.parse().expect("a number"),
            content: content.to_owned(),
            xattrs: pairs.collect(),
            path: path.to_owned(),
        }
    };
    text.lines().filter(|line| !line.starts_with('#')).map(parse).collect()
}

/// Walks to a path by lookups.
fn walk(brick: &Brick, path: &str) -> Iatt {
    let mut at = brick.lookup_gfid(Gfid::ROOT).expect("there is a root");
    for name in path.split('/').filter(|name| *name != ".") {
        at = brick.lookup(at.gfid, name).unwrap_or_else(|errno| panic!("{path}: {errno}"));
    }
    at
}

#[test]
fn every_entry_of_a_real_brick_is_served_as_glusterfs_did() {
    for number in [0, 1] {
        let Some(brick) = real_brick(number) else { return };
        for expected in manifest() {
            let found = walk(&brick, &expected.path);
            check_attributes(&expected, &found);
            check_content(&brick, &expected, &found);
            for (name, value) in &expected.xattrs {
                assert_eq!(brick.getxattr(found.gfid, name).as_ref(), Ok(value), "{}: {name}", expected.path);
            }
            assert_eq!(brick.stat(found.gfid), Ok(found), "{}: the same by its gfid", expected.path);
        }
    }
}

fn check_attributes(expected: &Expected, found: &Iatt) {
    let path = &expected.path;
    let kind = match found.mode & 0o170_000 {
        0o100_000 => 'f',
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o060_000 => 'b',
        0o020_000 => 'c',
        0o010_000 => 'p',
        _ => 's',
    };
    assert_eq!(kind, expected.kind, "{path}");
    assert_eq!(found.mode & 0o7777, expected.mode, "{path}");
    assert_eq!((found.uid, found.gid), expected.owner, "{path}");
    assert_eq!(i128::from(found.mtime.sec) * 1_000_000_000 + i128::from(found.mtime.nsec), expected.mtime_ns, "{path}");
    if kind != 'd' {
        assert_eq!((found.nlink, found.size), (expected.nlink, expected.size), "{path}");
    }
    if matches!(kind, 'b' | 'c') {
        assert_eq!(format!("{}:{}", found.rdev >> 32, found.rdev & 0xffff_ffff), expected.content, "{path}");
    }
}

fn check_content(brick: &Brick, expected: &Expected, found: &Iatt) {
    match expected.kind {
        'f' => {
            let data = brick.read_all(found.gfid).expect("it reads");
            let digest = Sha256::digest(&data).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            assert_eq!(digest, expected.content, "{}", expected.path);
        }
        'l' => {
            let reply = brick.call(Readlink { gfid: found.gfid, size: 4096, xdata: None }).expect("a link");
            assert_eq!(reply.target, bytes(&expected.content));
        }
        _ => {}
    }
}

#[test]
fn listings_of_a_real_brick_show_what_the_manifest_has() {
    let Some(brick) = real_brick(0) else { return };
    let mut expected: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in manifest().into_iter().filter(|entry| entry.path != ".") {
        let (dir, name) = entry.path.rsplit_once('/').unwrap_or((".", &entry.path));
        expected.entry(dir.to_owned()).or_default().insert(name.to_owned());
    }
    for (dir, names) in expected {
        let found = brick.list(walk(&brick, &dir).gfid, 1000).expect("it lists");
        let shown: BTreeSet<_> = found
            .iter()
            .map(|(name, _)| name.clone())
            .filter(|name| !name.starts_with(".glusterfs-anonymous-inode-"))
            .collect();
        assert_eq!(shown, names, "{dir}");
        assert!(found.iter().all(|(_, stat)| !stat.gfid.is_null()), "{dir}");
    }
}

#[test]
fn serving_a_real_brick_changes_nothing_but_mortars_own() {
    let Some(brick) = real_brick(0) else { return };
    let before = snapshot(brick.root());
    for expected in manifest() {
        let stat = walk(&brick, &expected.path);
        if expected.kind == 'd' {
            brick.list(stat.gfid, 65_536).expect("it lists");
        }
    }
    let after = snapshot(brick.root());
    assert_eq!(before, after);
}

/// Every path with its inode's xattrs, but for what each start of a brick makes.
fn snapshot(root: &Path) -> BTreeMap<PathBuf, BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        if path.ends_with(".glusterfs/mortar") {
            continue;
        }
        found.insert(path.clone(), xattrs_on_disk(&path));
        if path.symlink_metadata().expect("it is there").is_dir() {
            waiting.extend(std::fs::read_dir(&path).expect("it lists").map(|entry| entry.expect("an entry").path()));
        }
    }
    found
}

/// Names and lengths of xattrs, with hashes left out; without those that clients set.
fn shape(path: &Path) -> BTreeSet<(String, usize)> {
    let by_clients = ["trusted.afr.", "trusted.glusterfs.dht", "trusted.mine", "user.", "security."];
    xattrs_on_disk(path)
        .into_iter()
        .filter(|(name, _)| !by_clients.iter().any(|prefix| name.starts_with(prefix)))
        .map(|(name, value)| match name.strip_prefix("trusted.gfid2path.") {
            Some(hash) => {
                assert_eq!(hash.len(), 16);
                let end = value.iter().rposition(|byte| *byte == b'/').expect("a slash");
                ("trusted.gfid2path.HASH".to_owned(), end)
            }
            None => (name, value.len()),
        })
        .collect()
}

#[test]
fn what_the_store_makes_has_the_xattrs_of_what_glusterfs_made() {
    let Some(real) = real_brick(0) else { return };
    let Some(own) = Brick::new() else { return };
    let dir = own.mkdir(Gfid::ROOT, "dir").expect("it is new");
    let file = own.create(dir, "file", b"data").expect("it is new");
    own.symlink(dir, "link", "../nowhere").expect("it is new");
    let fifo =
        Mknod { parent: dir, dev: 0, mode: 0o010_644, umask: 0, name: bytes("fifo"), xdata: gfid_req(Gfid::random()) };
    own.call(fifo).expect("it is new");
    own.link(file, Gfid::ROOT, "hard").expect("it is new");
    for (mine, theirs) in
        [("dir", "d1"), ("dir/file", "d1/sparse"), ("dir/link", "d1/symabs"), ("dir/fifo", "d1/fifo"), ("hard", "f1")]
    {
        assert_eq!(shape(&own.root().join(mine)), shape(&real.root().join(theirs)), "{mine} as {theirs}");
    }
    // The handles: a link to the very inode, or the directory's text.
    for root in [own.root(), real.root()] {
        for entry in snapshot(root) {
            check_handle(root, &entry.0, &entry.1);
        }
    }
}

fn check_handle(root: &Path, path: &Path, xattrs: &BTreeMap<String, Vec<u8>>) {
    use std::os::unix::fs::MetadataExt;
    let Some(gfid) = xattrs.get("trusted.gfid").and_then(|bytes| Gfid::from_slice(bytes)) else { return };
    let text = gfid.to_string();
    let handle = root.join(".glusterfs").join(&text[..2]).join(&text[2..4]).join(&text);
    let stat = path.symlink_metadata().expect("it is there");
    if gfid.is_root() {
        return;
    }
    if stat.is_dir() {
        let target = std::fs::read_link(&handle).expect("a link");
        let parent = xattrs_on_disk(path.parent().expect("it has one"))["trusted.gfid"].clone();
        let parent = Gfid::from_slice(&parent).expect("16 bytes").to_string();
        let name = path.file_name().expect("it has one");
        let folder = format!("../../{}/{}/{parent}/", &parent[..2], &parent[2..4]);
        assert_eq!(target.as_os_str().as_bytes(), [folder.as_bytes(), name.as_bytes()].concat());
    } else {
        assert_eq!(handle.symlink_metadata().expect("it has a handle").ino(), stat.ino());
    }
}
