//! Comparing directory trees as an admin would: content, modes, owners, sizes, link targets, xattrs.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// What is said of one object, in comparable words.
pub type Facts = String;

/// Every object below `root` by its path from there, with its facts. `skip` names top-level entries to leave out
/// (`.glusterfs`); `xattr_filter` chooses which xattrs count.
pub fn walk(root: &Path, skip: &[&str], xattr_filter: &dyn Fn(&str) -> bool) -> Result<BTreeMap<PathBuf, Facts>> {
    let mut facts = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        let path = root.join(&below);
        let meta = fs::symlink_metadata(&path).with_context(|| path.display().to_string())?;
        facts.insert(below.clone(), facts_of(&path, &meta, xattr_filter)?);
        if !meta.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&path)? {
            let name = entry?.file_name();
            if below.as_os_str().is_empty() && skip.iter().any(|skipped| skipped.as_bytes() == name.as_bytes()) {
                continue;
            }
            open.push(below.join(name));
        }
    }
    Ok(facts)
}

fn facts_of(path: &Path, meta: &fs::Metadata, xattr_filter: &dyn Fn(&str) -> bool) -> Result<Facts> {
    let mut words = vec![format!("{:o} {}:{}", meta.mode(), meta.uid(), meta.gid())];
    if meta.is_file() {
        words.push(format!("{} bytes {}", meta.size(), sha256(path)?));
    } else if meta.is_symlink() {
        words.push(format!("-> {}", fs::read_link(path)?.display()));
    } else if !meta.is_dir() {
        words.push(format!("rdev {}", meta.rdev()));
    }
    words.extend(
        xattrs(path)?.into_iter().filter(|(name, _)| xattr_filter(name)).map(|(name, value)| {
            format!("{name}={}", value.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        }),
    );
    Ok(words.join(" "))
}

/// The SHA-256 of a file, in hex.
pub fn sha256(path: &Path) -> Result<String> {
    let mut file = fs::File::open(path).with_context(|| path.display().to_string())?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hash.update(&buffer[..read]);
    }
}

/// All xattrs of the object itself (links are not followed), in name order.
pub fn xattrs(path: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut names = vec![0; 1 << 16];
    let len = rustix::fs::llistxattr(path, &mut names[..])?;
    let mut found = BTreeMap::new();
    for name in names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = String::from_utf8_lossy(name).into_owned();
        let mut value = vec![0; 1 << 16];
        let len = rustix::fs::lgetxattr(path, name.as_str(), &mut value[..])?;
        value.truncate(len);
        found.insert(name, value);
    }
    Ok(found)
}

/// Lines that say how `left` and `right` differ; empty when they do not.
pub fn differences(left: &BTreeMap<PathBuf, Facts>, right: &BTreeMap<PathBuf, Facts>) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, facts) in left {
        match right.get(path) {
            None => lines.push(format!("only left:  {}", path.display())),
            Some(other) if other != facts => {
                lines.push(format!("{}:\n  left:  {facts}\n  right: {other}", path.display()));
            }
            Some(_) => {}
        }
    }
    lines.extend(
        right.keys().filter(|path| !left.contains_key(*path)).map(|path| format!("only right: {}", path.display())),
    );
    lines
}
