//! Directories that become bricks, on this node: checked, made, marked with the volume's id, and undone.
//!
//! Rules and words are those of `glusterd-utils.c: glusterd_validate_and_create_brickpath`.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use mortar_api::{Error, ErrorKind};
use rustix::fs::{XattrFlags, lgetxattr, lremovexattr, lsetxattr};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const VOLUME_ID: &str = "trusted.glusterfs.volume-id";
const GFID: &str = "trusted.gfid";
const TEST: &str = "trusted.glusterfs.test";

/// A directory to be a brick.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub host: String,
    pub path: String,
}

/// What was there before, for undoing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Before {
    /// The directory itself was made.
    pub made: bool,
    /// `.glusterfs` was made in it.
    pub made_store: bool,
    /// The volume-id that was replaced.
    pub volume_id: Option<Uuid>,
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

fn reason(error: &io::Error) -> &'static str {
    mortar_types::Errno::from_io(error).text()
}

/// Whether the directory may become a brick. Makes nothing that stays.
///
/// # Errors
/// The reason, in GlusterFS's words.
pub(crate) fn check(place: &Place, force: bool, data_dir: &Path) -> Result<(), Error> {
    let path = Path::new(&place.path);
    if path.starts_with(data_dir) || data_dir.starts_with(path) {
        return Err(refused(format!(
            "Brick isn't allowed to be created inside glusterd's working directory {}.",
            data_dir.display()
        )));
    }
    let made = make_directory(place)?;
    let outcome = inspect(place, path, force);
    if made {
        // Best effort: it was not there before, and an empty directory harms nobody.
        let _ = std::fs::remove_dir(path);
    }
    outcome
}

fn inspect(place: &Place, path: &Path, force: bool) -> Result<(), Error> {
    let metadata = std::fs::symlink_metadata(path)
        .map_err(|error| refused(format!("lstat failed on {}. Reason : {}", place.path, reason(&error))))?;
    if !metadata.is_dir() {
        return Err(refused(format!("The provided path {} which is already present, is not a directory", place.path)));
    }
    supports_xattrs(place, path)?;
    if force {
        return Ok(());
    }
    let device = |path: &Path| std::fs::symlink_metadata(path).map(|metadata| metadata.dev());
    if path.parent().and_then(|parent| device(parent).ok()).is_some_and(|parent| parent != metadata.dev()) {
        return Err(refused(format!(
            "The brick {}:{} is a mount point. Please create a sub-directory under the mount point and use that as the \
             brick directory. Or use 'force' at the end of the command if you want to override this behavior.",
            place.host, place.path
        )));
    }
    if device(Path::new("/")).is_ok_and(|root| root == metadata.dev()) {
        return Err(refused(format!(
            "The brick {}:{} is being created in the root partition. It is recommended that you don't use the system's \
             root partition for storage backend. Or use 'force' at the end of the command if you want to override this \
             behavior.",
            place.host, place.path
        )));
    }
    is_free(path)
}

/// Neither the directory nor one above it belongs to a volume.
fn is_free(path: &Path) -> Result<(), Error> {
    for (depth, dir) in path.ancestors().enumerate() {
        if has_xattr(dir, VOLUME_ID) || has_xattr(dir, GFID) {
            let which = if depth == 0 { String::new() } else { "parent directory ".to_owned() };
            return Err(refused(format!("{which}{} is already part of a volume", dir.display())));
        }
    }
    Ok(())
}

fn has_xattr(path: &Path, name: &str) -> bool {
    lgetxattr(path, name, &mut [0_u8; 64]).is_ok()
}

fn supports_xattrs(place: &Place, path: &Path) -> Result<(), Error> {
    lsetxattr(path, TEST, b"working", XattrFlags::empty()).map_err(|error| {
        let error = io::Error::from(error);
        refused(format!(
            "Glusterfs is not supported on brick: {}:{}.\nSetting extended attributes failed, reason: {}.",
            place.host,
            place.path,
            reason(&error)
        ))
    })?;
    // Only a trace of the test.
    let _ = lremovexattr(path, TEST);
    Ok(())
}

/// Answers whether it made the directory. Its parent must be there.
fn make_directory(place: &Place) -> Result<bool, Error> {
    match std::fs::DirBuilder::new().mode(0o755).create(&place.path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(refused(format!(
            "Failed to create brick directory for brick {}:{}. Reason : {} ",
            place.host,
            place.path,
            reason(&error)
        ))),
    }
}

/// Makes the directory a brick of the volume.
///
/// # Errors
/// The reason, in GlusterFS's words; what was made is undone.
pub(crate) fn make(place: &Place, volume_id: Uuid) -> Result<Before, Error> {
    let path = Path::new(&place.path);
    let mut before = Before { made: make_directory(place)?, volume_id: volume_id_of(path), ..Before::default() };
    let marked = mark(path, volume_id, &mut before);
    if let Err(error) = marked {
        undo(place, volume_id, &before);
        return Err(refused(format!(
            "Failed to set extended attribute {VOLUME_ID} on {}. Reason : {}",
            place.path,
            reason(&error)
        )));
    }
    Ok(before)
}

fn mark(path: &Path, volume_id: Uuid, before: &mut Before) -> io::Result<()> {
    lsetxattr(path, VOLUME_ID, volume_id.as_bytes(), XattrFlags::empty())?;
    match std::fs::DirBuilder::new().mode(0o600).create(store(path)) {
        Ok(()) => before.made_store = true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    std::fs::File::open(path)?.sync_all()
}

fn store(path: &Path) -> PathBuf {
    path.join(".glusterfs")
}

/// The volume that a directory is a brick of.
pub(crate) fn volume_id_of(path: &Path) -> Option<Uuid> {
    let mut value = [0_u8; 16];
    let length = lgetxattr(path, VOLUME_ID, &mut value).ok()?;
    (length == value.len()).then(|| Uuid::from_bytes(value))
}

/// Takes back what [`make`] did, as far as nobody else has built on it.
pub(crate) fn undo(place: &Place, volume_id: Uuid, before: &Before) {
    let path = Path::new(&place.path);
    if volume_id_of(path) == Some(volume_id) {
        let restored = match before.volume_id {
            Some(previous) => lsetxattr(path, VOLUME_ID, previous.as_bytes(), XattrFlags::empty()),
            None => lremovexattr(path, VOLUME_ID),
        };
        if let Err(error) = restored {
            tracing::warn!(path = %path.display(), %error, "the brick's volume-id could not be taken back");
        }
    }
    if before.made_store {
        // Not removed when something is in it.
        let _ = std::fs::remove_dir(store(path));
    }
    if before.made {
        let _ = std::fs::remove_dir(path);
    }
}

/// Whether a brick can be started.
///
/// # Errors
/// The reason, in GlusterFS's words (`glusterd_op_stage_start_volume`).
pub(crate) fn check_before_start(place: &Place, volume: &str, volume_id: Uuid) -> Result<(), Error> {
    let path = Path::new(&place.path);
    if let Err(error) = std::fs::symlink_metadata(path) {
        return Err(refused(format!(
            "Failed to find brick directory {} for volume {volume}. Reason : {}",
            place.path,
            reason(&error)
        )));
    }
    match volume_id_of(path) {
        Some(found) if found == volume_id => Ok(()),
        Some(found) => Err(refused(format!(
            "Volume id mismatch for brick {}:{}. Expected volume id {volume_id}, volume id {found} found",
            place.host, place.path
        ))),
        None => Err(refused(format!(
            "Failed to get extended attribute {VOLUME_ID} for brick dir {}. Reason : No data available",
            place.path
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use uuid::Uuid;

    use super::{Place, check, check_before_start, make, undo, volume_id_of};

    const NOWHERE: &str = "/nonexistent-data";

    fn place(path: &Path) -> Place {
        Place { host: "node1".to_owned(), path: path.display().to_string() }
    }

    #[test]
    fn the_root_partition_needs_force() {
        let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
        let brick = place(&dir.path().join("one"));
        let text = check(&brick, false, Path::new(NOWHERE)).expect_err("is refused").message;
        let same_device = super::inspect(&place(Path::new("/var/tmp")), Path::new("/var/tmp"), false).is_err();
        if !same_device {
            eprintln!("skipped: /var/tmp is not on the root partition");
            return;
        }
        assert_eq!(
            text,
            format!(
                "The brick node1:{} is being created in the root partition. It is recommended that you don't use the \
                 system's root partition for storage backend. Or use 'force' at the end of the command if you want to \
                 override this behavior.",
                brick.path
            )
        );
        assert!(!Path::new(&brick.path).exists(), "a check leaves nothing behind");
        assert!(check(&brick, true, Path::new(NOWHERE)).is_ok());
    }

    #[test]
    fn a_brick_is_made_and_unmade() {
        let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
        let brick = place(&dir.path().join("one"));
        let id = Uuid::new_v4();
        let before = make(&brick, id).expect("makes");
        assert_eq!(volume_id_of(Path::new(&brick.path)), Some(id));
        assert!(check_before_start(&brick, "one", id).is_ok());
        undo(&brick, id, &before);
        assert!(!Path::new(&brick.path).exists());
    }

    #[test]
    fn undo_restores_an_older_volume_id_and_keeps_data() {
        let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
        let brick = place(&dir.path().join("one"));
        let (older, newer) = (Uuid::new_v4(), Uuid::new_v4());
        make(&brick, older).expect("makes");
        std::fs::write(Path::new(&brick.path).join("file"), "data").expect("writes");
        let before = make(&brick, newer).expect("makes");
        undo(&brick, newer, &before);
        assert_eq!(volume_id_of(Path::new(&brick.path)), Some(older));
        assert!(Path::new(&brick.path).join("file").exists());
    }

    #[test]
    fn what_is_wrong_with_a_brick_before_start() {
        let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
        let brick = place(&dir.path().join("one"));
        let id = Uuid::new_v4();
        let text = |brick: &Place| check_before_start(brick, "one", id).expect_err("is refused").message;
        assert_eq!(
            text(&brick),
            format!("Failed to find brick directory {} for volume one. Reason : No such file or directory", brick.path)
        );
        std::fs::create_dir(&brick.path).expect("makes");
        assert!(text(&brick).starts_with("Failed to get extended attribute trusted.glusterfs.volume-id"));
        make(&brick, Uuid::new_v4()).expect("makes");
        assert!(text(&brick).starts_with("Volume id mismatch for brick node1:"));
    }

    #[test]
    fn files_and_missing_parents_are_refused() {
        let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
        let file = dir.path().join("file");
        std::fs::write(&file, "").expect("writes");
        let text = check(&place(&file), true, Path::new(NOWHERE)).expect_err("is refused").message;
        assert!(text.ends_with("which is already present, is not a directory"), "{text}");
        let text = check(&place(&dir.path().join("a/b")), true, Path::new(NOWHERE)).expect_err("is refused").message;
        assert!(text.contains("Reason : No such file or directory"), "{text}");
    }
}
