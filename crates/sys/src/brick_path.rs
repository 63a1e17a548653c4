//! Which directories may become bricks, in the words that GlusterFS uses.
//!
//! Plain functions for the pool daemon; nothing here knows volumes beyond their ids. What `force` overrides and what it does not
//! follows GlusterFS: `xlators/mgmt/glusterd/src/glusterd-utils.c`, glusterd_validate_and_create_brickpath,
//! glusterd_check_and_set_brick_xattr, glusterd_is_path_in_use, glusterd_new_brick_validate.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use mortar_types::keys::{XATTR_GFID, XATTR_VOLUME_ID};
use mortar_types::{Errno, Gfid};

use crate::xattr::{self, SetMode};
use crate::{Loc, at};

/// Set and removed again to learn whether the file system can be a brick's.
const XATTR_TEST: &[u8] = b"trusted.glusterfs.test";

/// `_POSIX_PATH_MAX`, which a brick's volfile name (`VOL.HOST.PATH.vol`) may not exceed.
const VOLFILE_NAME_BYTES_MAX: usize = 256;
/// Two dots, `.vol` and the NUL.
const VOLFILE_NAME_BYTES_FIXED: usize = 7;

/// Why a directory may not become a brick. The text is what the CLI prints.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("Please provide a valid brick path: {} is not absolute", .path.display())]
    NotAbsolute { path: PathBuf },
    #[error("brick path {host}:{} is too long", .path.display())]
    TooLong { host: String, path: PathBuf },
    #[error(
        "Brick: {host}:{} not available. Brick may be containing or be contained by an existing brick.",
        .path.display()
    )]
    Overlaps { host: String, path: PathBuf },
    #[error("The brick {host}:{} is within the working directory {} of the daemon. Use another directory.",
        .path.display(), .workdir.display())]
    InWorkdir { host: String, path: PathBuf, workdir: PathBuf },
    #[error("Failed to create brick directory for brick {host}:{}. Reason : {} ", .path.display(), .source.text())]
    Create { host: String, path: PathBuf, source: Errno },
    #[error("The provided path {} which is already present, is not a directory", .path.display())]
    NotADirectory { path: PathBuf },
    #[error(
        "The brick {host}:{} is a mount point. Please create a sub-directory under the mount point and use that as the \
         brick directory. Or use 'force' at the end of the command if you want to override this behavior.",
        .path.display()
    )]
    MountPoint { host: String, path: PathBuf },
    #[error(
        "The brick {host}:{} is being created in the root partition. It is recommended that you don't use the system's \
         root partition for storage backend. Or use 'force' at the end of the command if you want to override this \
         behavior.",
        .path.display()
    )]
    RootPartition { host: String, path: PathBuf },
    #[error("{} is already part of a volume", .path.display())]
    PartOfVolume { path: PathBuf, volume_id: Option<Gfid> },
    #[error("parent directory {} is already part of a volume", .parent.display())]
    ParentOfVolume { path: PathBuf, parent: PathBuf, volume_id: Option<Gfid> },
    #[error("Glusterfs is not supported on brick: {host}:{}.\nSetting extended attributes failed, reason: {}.",
        .path.display(), .source.text())]
    NoXattrs { host: String, path: PathBuf, source: Errno },
    #[error("Failed to look at {}: {}", .path.display(), .source.text())]
    Unreadable { path: PathBuf, source: Errno },
}

/// What is asked of a brick's directory.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// The node's name as the user wrote it; only for messages.
    pub host: &'a str,
    pub path: &'a Path,
    /// `force` at the end of the command.
    pub force: bool,
    /// The daemon's own directory, in which no brick may be.
    pub workdir: Option<&'a Path>,
}

/// A brick's path must be absolute, and short enough for the file that GlusterFS names after it.
pub fn check_path(volume: &str, host: &str, path: &Path) -> Result<(), Refusal> {
    if !path.is_absolute() {
        return Err(Refusal::NotAbsolute { path: path.to_owned() });
    }
    let bytes = volume.len() + host.len() + path.as_os_str().len() + VOLFILE_NAME_BYTES_FIXED;
    if bytes > VOLFILE_NAME_BYTES_MAX {
        return Err(Refusal::TooLong { host: host.to_owned(), path: path.to_owned() });
    }
    Ok(())
}

/// Refuses a path that equals, contains or lies in a brick of this node. Not overridable.
pub fn check_overlap<'a>(host: &str, path: &Path, bricks: impl IntoIterator<Item = &'a Path>) -> Result<(), Refusal> {
    let path = real_path(path);
    let overlaps = bricks.into_iter().map(real_path).any(|brick| path.starts_with(&brick) || brick.starts_with(&path));
    if overlaps { Err(Refusal::Overlaps { host: host.to_owned(), path }) } else { Ok(()) }
}

/// The path without symbolic links, as far as it exists.
fn real_path(path: &Path) -> PathBuf {
    let mut missing = Vec::new();
    let mut at = path;
    loop {
        if let Ok(mut real) = at.canonicalize() {
            real.extend(missing.iter().rev());
            return real;
        }
        match (at.parent(), at.file_name()) {
            (Some(parent), Some(name)) => {
                missing.push(name);
                at = parent;
            }
            _ => return path.to_owned(),
        }
    }
}

/// A directory that passed [`prepare`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prepared {
    /// It was made for this: removed again if the command fails later.
    pub created: bool,
}

/// Makes the directory when it is missing (its parent must exist) and checks it. What was made is removed when a check
/// fails. Changes nothing of a directory that was there.
pub fn prepare(candidate: &Candidate<'_>) -> Result<Prepared, Refusal> {
    let Candidate { host, path, .. } = *candidate;
    if let Some(workdir) = candidate.workdir
        && real_path(path).starts_with(real_path(workdir))
    {
        return Err(Refusal::InWorkdir { host: host.to_owned(), path: path.to_owned(), workdir: workdir.to_owned() });
    }
    let created = match std::fs::DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => {
            let source = Errno::from_io(&error);
            return Err(Refusal::Create { host: host.to_owned(), path: path.to_owned(), source });
        }
    };
    let checked = check_directory(candidate);
    if checked.is_err() && created {
        // Empty, because it was made just now; if somebody filled it meanwhile, it stays.
        let _ = std::fs::remove_dir(path);
    }
    checked.map(|()| Prepared { created })
}

fn check_directory(candidate: &Candidate<'_>) -> Result<(), Refusal> {
    let Candidate { host, path, force, .. } = *candidate;
    let unreadable =
        |path: &Path, error: &io::Error| Refusal::Unreadable { path: path.to_owned(), source: Errno::from_io(error) };
    let brick = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if !brick.is_dir() {
        return Err(Refusal::NotADirectory { path: path.to_owned() });
    }
    if !force {
        let parent = path.parent().unwrap_or(path);
        let parent_device = std::fs::metadata(parent).map_err(|error| unreadable(parent, &error))?.dev();
        let root_device = std::fs::metadata("/").map_err(|error| unreadable(Path::new("/"), &error))?.dev();
        if brick.dev() != parent_device {
            return Err(Refusal::MountPoint { host: host.to_owned(), path: path.to_owned() });
        }
        if parent_device == root_device {
            return Err(Refusal::RootPartition { host: host.to_owned(), path: path.to_owned() });
        }
    }
    let dir = std::fs::File::open(path).map_err(|error| unreadable(path, &error))?;
    check_xattrs(dir.as_fd()).map_err(|source| Refusal::NoXattrs {
        host: host.to_owned(),
        path: path.to_owned(),
        source,
    })?;
    if force { Ok(()) } else { check_unused(path) }
}

fn check_xattrs(dir: BorrowedFd<'_>) -> crate::Result<()> {
    xattr::set(Loc::Fd(dir), XATTR_TEST, b"working", SetMode::Any)?;
    xattr::remove(Loc::Fd(dir), XATTR_TEST)
}

/// Neither the directory nor any above it may carry what marks a brick or something in one.
pub fn check_unused(path: &Path) -> Result<(), Refusal> {
    let real = real_path(path);
    for ancestor in real.ancestors() {
        let Ok(dir) = std::fs::File::open(ancestor) else { continue };
        let loc = Loc::Fd(dir.as_fd());
        let read = |name: &str| xattr::get(loc, name.as_bytes()).ok().flatten();
        let volume_id = read(XATTR_VOLUME_ID);
        if volume_id.is_none() && read(XATTR_GFID).is_none() {
            continue;
        }
        let volume_id = volume_id.and_then(|id| Gfid::from_slice(&id));
        let path = path.to_owned();
        return Err(if ancestor == real {
            Refusal::PartOfVolume { path, volume_id }
        } else {
            Refusal::ParentOfVolume { path, parent: ancestor.to_owned(), volume_id }
        });
    }
    Ok(())
}

/// Makes the directory a brick of the volume: sets the volume-id and makes an empty `.glusterfs`. With `force` an id left by an
/// earlier volume is replaced, without it that is refused. Repeating it for the same volume is harmless.
pub fn claim(candidate: &Candidate<'_>, volume_id: Gfid) -> Result<(), Refusal> {
    let path = candidate.path;
    let refuse = |source| Refusal::NoXattrs { host: candidate.host.to_owned(), path: path.to_owned(), source };
    let dir = std::fs::File::open(path)
        .map_err(|error| Refusal::Unreadable { path: path.to_owned(), source: Errno::from_io(&error) })?;
    let loc = Loc::Fd(dir.as_fd());
    let mode = if candidate.force { SetMode::Any } else { SetMode::Create };
    match xattr::set(loc, XATTR_VOLUME_ID.as_bytes(), &volume_id.0, mode) {
        Ok(()) => {}
        Err(Errno::EEXIST) => {
            let found = xattr::get_array::<16>(loc, XATTR_VOLUME_ID.as_bytes()).map_err(refuse)?.map(Gfid);
            if found != Some(volume_id) {
                return Err(Refusal::PartOfVolume { path: path.to_owned(), volume_id: found });
            }
        }
        Err(source) => return Err(refuse(source)),
    }
    match at::mkdir(dir.as_fd(), b".glusterfs", 0o600) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(source) => Err(Refusal::Create { host: candidate.host.to_owned(), path: path.join(".glusterfs"), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("mortar-brick-path-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(&path).expect("the temporary directory is writable");
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn candidate(path: &Path, force: bool) -> Candidate<'_> {
        Candidate { host: "gfs1", path, force, workdir: None }
    }

    fn skip(refusal: &Refusal) -> bool {
        let missing = matches!(refusal, Refusal::NoXattrs { .. });
        if missing {
            mortar_testkit::needs::skip(&refusal.to_string());
        }
        missing
    }

    #[test]
    fn a_missing_directory_is_made_and_a_used_one_refused() {
        let scratch = Scratch::new("used");
        let path = scratch.0.join("brick");
        match prepare(&candidate(&path, true)) {
            Err(refusal) if skip(&refusal) => return,
            prepared => assert_eq!(prepared, Ok(Prepared { created: true })),
        }
        assert_eq!(check_unused(&path), Ok(()));
        claim(&candidate(&path, false), Gfid::TRASH).expect("it is new");
        claim(&candidate(&path, false), Gfid::TRASH).expect("once more for the same volume");
        assert!(path.join(".glusterfs").is_dir());
        let taken = Refusal::PartOfVolume { path: path.clone(), volume_id: Some(Gfid::TRASH) };
        assert_eq!(claim(&candidate(&path, false), Gfid::ROOT), Err(taken.clone()));
        assert_eq!(check_unused(&path), Err(taken));
        assert!(matches!(check_unused(&path.join("a/b")), Err(Refusal::ParentOfVolume { .. })));
        claim(&candidate(&path, true), Gfid::ROOT).expect("force replaces what an earlier volume left");
        assert!(!prepare(&candidate(&path, true)).expect("force ignores it").created);
    }

    #[test]
    fn what_was_made_is_removed_when_a_check_fails() {
        let scratch = Scratch::new("undo");
        let same_device = |path: &Path| path.metadata().map(|meta| meta.dev()).ok();
        if same_device(&scratch.0) != same_device(Path::new("/")) {
            println!("skipped: the temporary directory is on a file system of its own");
            return;
        }
        let path = scratch.0.join("brick");
        let refusal = prepare(&candidate(&path, false)).expect_err("it is on the root partition");
        assert_eq!(
            refusal.to_string(),
            format!(
                "The brick gfs1:{} is being created in the root partition. It is recommended that you don't use the \
                 system's root partition for storage backend. Or use 'force' at the end of the command if you want to \
                 override this behavior.",
                path.display()
            )
        );
        assert!(!path.exists());
    }

    #[test]
    fn mount_points_files_and_orphans_are_refused() {
        assert!(matches!(prepare(&candidate(Path::new("/proc"), false)), Err(Refusal::MountPoint { .. })));
        let scratch = Scratch::new("file");
        let path = scratch.0.join("f");
        std::fs::write(&path, b"").expect("it is writable");
        assert!(matches!(prepare(&candidate(&path, true)), Err(Refusal::NotADirectory { .. })));
        let orphan = scratch.0.join("none/brick");
        let refusal = prepare(&candidate(&orphan, true)).expect_err("its parent is missing");
        assert!(refusal.to_string().ends_with("Reason : No such file or directory "), "{refusal}");
        let inside = Candidate { workdir: Some(&scratch.0), ..candidate(&orphan, true) };
        assert!(matches!(prepare(&inside), Err(Refusal::InWorkdir { .. })));
    }

    #[test]
    fn bricks_may_not_contain_each_other() {
        let bricks = [Path::new("/bricks/one")];
        let check = |path: &str| check_overlap("node1", Path::new(path), bricks);
        assert_eq!(
            check("/bricks/one/sub").expect_err("it lies in one").to_string(),
            "Brick: node1:/bricks/one/sub not available. Brick may be containing or be contained by an existing brick."
        );
        assert!(check("/bricks").is_err() && check("/bricks/one").is_err());
        assert_eq!(check("/bricks/one-more"), Ok(()));
    }

    #[test]
    fn paths_are_absolute_and_short() {
        assert!(matches!(check_path("v", "h", Path::new("brick")), Err(Refusal::NotAbsolute { .. })));
        let long = format!("/{}", "x".repeat(250));
        assert_eq!(
            check_path("v", "h", Path::new(&long)).expect_err("it is long").to_string(),
            format!("brick path h:{long} is too long")
        );
        assert_eq!(check_path("v", "h", Path::new("/srv/brick")), Ok(()));
    }
}
