//! A sparse file as a disk.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use tempfile::TempDir;

/// A loop device over a file in a folder of its own, with a place to mount it beside it; all gone when dropped.
/// Needs root and losetup.
#[derive(Debug)]
pub struct LoopDisk {
    folder: TempDir,
    device: PathBuf,
}

impl LoopDisk {
    /// A disk of `bytes`, of which only what is written takes space.
    ///
    /// # Errors
    /// When the file or the device cannot be made.
    pub fn new(bytes: u64) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let image = folder.path().join("disk");
        File::create(&image)?.set_len(bytes)?;
        let output = Command::new("losetup").args(["--find", "--show"]).arg(&image).output()?;
        ensure!(output.status.success(), "losetup: {}", String::from_utf8_lossy(&output.stderr));
        let device = PathBuf::from(String::from_utf8(output.stdout)?.trim());
        let disk = Self { folder, device };
        // The kernel may still show the partitions of the disk that had this loop device before.
        disk.forget_partitions();
        Ok(disk)
    }

    /// `/dev/loopN`.
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// Where the disk may be mounted; not made yet.
    pub fn mount_point(&self) -> PathBuf {
        self.folder.path().join("srv-gfs")
    }

    /// What may be used in the place of `/etc/fstab`; not made yet.
    pub fn fstab(&self) -> PathBuf {
        self.folder.path().join("fstab")
    }

    fn forget_partitions(&self) {
        quiet("partx", &[Path::new("--delete"), &self.device]);
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        quiet("umount", &[&self.mount_point()]);
        // Partitions that parted announced outlive the disk's file unless they are taken back.
        self.forget_partitions();
        quiet("losetup", &[Path::new("--detach"), &self.device]);
    }
}

/// What fails has nothing to undo.
fn quiet(program: &str, words: &[&Path]) {
    let _ = Command::new(program).args(words).output();
}
