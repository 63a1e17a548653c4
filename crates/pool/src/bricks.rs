//! Directories that become bricks, on this node: checked, made, marked with the volume's id, and undone.
//!
//! What may become a brick is decided in `mortar_sys::brick_path`.

use std::io;
use std::path::{Path, PathBuf};

use mortar_api::{Error, ErrorKind};
use mortar_sys::brick_path::{self, Candidate};
use mortar_types::Gfid;
use rustix::fs::{XattrFlags, lgetxattr, lremovexattr, lsetxattr};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const VOLUME_ID: &str = "trusted.glusterfs.volume-id";

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

fn candidate<'a>(place: &'a Place, force: bool, data_dir: &'a Path) -> Candidate<'a> {
    Candidate { host: &place.host, path: Path::new(&place.path), force, workdir: Some(data_dir) }
}

fn in_words(refusal: &brick_path::Refusal) -> Error {
    Error::new(ErrorKind::Invalid, refusal.to_string())
}

/// Whether the directory may become a brick. Makes nothing that stays.
///
/// # Errors
/// The reason, in GlusterFS's words.
pub(crate) fn check(place: &Place, force: bool, data_dir: &Path) -> Result<(), Error> {
    let prepared = brick_path::prepare(&candidate(place, force, data_dir)).map_err(|refusal| in_words(&refusal))?;
    if prepared.created {
        // Best effort: it was not there before, and an empty directory harms nobody.
        let _ = std::fs::remove_dir(&place.path);
    }
    Ok(())
}

/// Makes the directory a brick of the volume.
///
/// # Errors
/// The reason, in GlusterFS's words; what was made is undone.
pub(crate) fn make(place: &Place, volume_id: Uuid, force: bool, data_dir: &Path) -> Result<Before, Error> {
    let path = Path::new(&place.path);
    let candidate = candidate(place, force, data_dir);
    let prepared = brick_path::prepare(&candidate).map_err(|refusal| in_words(&refusal))?;
    let before = Before { made: prepared.created, made_store: !store(path).exists(), volume_id: volume_id_of(path) };
    let claimed = brick_path::claim(&candidate, Gfid(volume_id.into_bytes())).map_err(|refusal| in_words(&refusal));
    // The mark must be there when the volume is: a volume whose brick lost it could not be started.
    let synced = claimed.and_then(|()| {
        let synced = std::fs::File::open(path).and_then(|directory| directory.sync_all());
        synced.map_err(|error| refused(format!("Failed to write {}. Reason : {}", place.path, reason(&error))))
    });
    if let Err(error) = synced {
        undo(place, volume_id, &before);
        return Err(error);
    }
    Ok(before)
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
    fn a_check_leaves_nothing_behind() {
        let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
        let brick = place(&dir.path().join("one"));
        assert!(check(&brick, true, Path::new(NOWHERE)).is_ok());
        assert!(!Path::new(&brick.path).exists());
        let text = check(&brick, true, dir.path()).expect_err("is in the working directory").message;
        assert!(text.contains("is within the working directory"), "{text}");
    }

    #[test]
    fn a_brick_is_made_and_unmade() {
        let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
        let brick = place(&dir.path().join("one"));
        let id = Uuid::new_v4();
        let before = make(&brick, id, true, Path::new(NOWHERE)).expect("makes");
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
        make(&brick, older, true, Path::new(NOWHERE)).expect("makes");
        std::fs::write(Path::new(&brick.path).join("file"), "data").expect("writes");
        let before = make(&brick, newer, true, Path::new(NOWHERE)).expect("makes");
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
        make(&brick, Uuid::new_v4(), true, Path::new(NOWHERE)).expect("makes");
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
