//! What is on a brick, as plain text that two bricks can be compared by.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Path to what is there. The brick's own directory and the healers' parking are left out.
pub(crate) fn snapshot(root: &Path) -> BTreeMap<String, String> {
    let mut tree = BTreeMap::new();
    walk(root, root, &mut tree);
    tree
}

fn walk(root: &Path, dir: &Path, tree: &mut BTreeMap<String, String>) {
    tree.insert(relative(root, dir), describe(dir));
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if dir == root && name.starts_with(".glusterfs") {
            continue;
        }
        if path.symlink_metadata().unwrap().is_dir() {
            walk(root, &path, tree);
        } else {
            tree.insert(relative(root, &path), describe(&path));
        }
    }
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap().to_string_lossy().into_owned()
}

fn describe(path: &Path) -> String {
    let meta = path.symlink_metadata().unwrap();
    let content = if meta.is_file() {
        format!("{:?}", hash(&std::fs::read(path).unwrap()))
    } else if meta.is_symlink() {
        std::fs::read_link(path).unwrap().display().to_string()
    } else {
        String::new()
    };
    let nlink = if meta.is_dir() { 0 } else { meta.nlink() };
    let size = if meta.is_dir() { 0 } else { meta.size() };
    format!(
        "mode {:o} owner {}:{} nlink {nlink} size {size} rdev {} content {content} xattrs {}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.rdev(),
        xattrs(path)
    )
}

fn hash(bytes: &[u8]) -> (usize, u64) {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    (bytes.len(), hasher.finish())
}

/// All xattrs; changelogs of zeros are the same as none.
fn xattrs(path: &Path) -> String {
    let mut names = vec![0; 64 << 10];
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let mut all = BTreeMap::new();
    for name in names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = String::from_utf8_lossy(name).into_owned();
        let value = xattr(path, &name).unwrap();
        if name == "security.selinux" || name.starts_with("trusted.afr.") && value.iter().all(|byte| *byte == 0) {
            continue;
        }
        all.insert(name, value.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    }
    format!("{all:?}")
}

pub(crate) fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 64 << 10];
    let len = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(len);
    Some(value)
}

/// As [`snapshot`], without any changelog: what a client could see, and identities.
pub(crate) fn visible(root: &Path) -> BTreeMap<String, String> {
    let strip = |text: String| {
        let (head, xattrs) = text.split_once("xattrs {").unwrap();
        let kept: Vec<_> =
            xattrs.trim_end_matches('}').split(", ").filter(|xattr| !xattr.contains("trusted.afr.")).collect();
        format!("{head}{}", kept.join(" "))
    };
    snapshot(root).into_iter().map(|(path, text)| (path, strip(text))).collect()
}

/// Panics with the differences.
#[track_caller]
pub(crate) fn assert_same(one: &Path, other: &Path) {
    let (one, other) = (snapshot(one), snapshot(other));
    let mut differences = Vec::new();
    for path in one.keys().chain(other.keys()).collect::<std::collections::BTreeSet<_>>() {
        let missing = "missing".to_owned();
        let (a, b) = (one.get(path).unwrap_or(&missing), other.get(path).unwrap_or(&missing));
        if a != b {
            differences.push(format!("{path:?}\n  {a}\n  {b}"));
        }
    }
    assert!(differences.is_empty(), "the bricks differ:\n{}", differences.join("\n"));
}

/// Entries of the brick's indexes, base files left out.
pub(crate) fn index(root: &Path) -> Vec<String> {
    let mut entries = Vec::new();
    for kind in ["xattrop", "dirty", "entry-changes"] {
        let Ok(dir) = std::fs::read_dir(root.join(".glusterfs/indices").join(kind)) else { continue };
        for entry in dir {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            if !name.starts_with(&format!("{kind}-")) {
                entries.push(format!("{kind}/{name}"));
            }
        }
    }
    entries.sort();
    entries
}
