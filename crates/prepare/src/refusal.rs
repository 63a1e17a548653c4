//! Why a device is not prepared, and what the admin can do.

use std::path::PathBuf;

use crate::request::BadRequest;

/// A refusal; nothing was touched. The text ends in what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Request(#[from] BadRequest),
    #[error("{} is read-only", .0.display())]
    ReadOnly(PathBuf),
    #[error("{} has {bytes} bytes, a brick needs at least {} MiB", device.display(), min_bytes >> 20)]
    TooSmall { device: PathBuf, bytes: u64, min_bytes: u64 },
    /// The running system lives on it; `--force` does not help.
    #[error("{} is mounted on {}: the running system needs it", device.display(), at.display())]
    System { device: PathBuf, at: PathBuf },
    #[error("{} is mounted on {}.\nUnmount it, or let --force do so and destroy what is on it", device.display(), at.display())]
    Mounted { device: PathBuf, at: PathBuf },
    /// It is the asked brick, prepared earlier, and serves somewhere else.
    #[error("{} is prepared already, and mounted on {}.\nUse that path, or unmount it first", device.display(), at.display())]
    MountedElsewhere { device: PathBuf, at: PathBuf },
    #[error("{} is swapped to.\nRun swapoff, or let --force do so and destroy what is on it", .0.display())]
    Swap(PathBuf),
    /// Device-mapper or md holds it; `--force` does not help, for the tools would fail half-way.
    #[error(
        "{} is in use by {}.\nRelease it first (vgchange -an GROUP, mdadm --stop DEVICE, cryptsetup close NAME)",
        device.display(), by.display()
    )]
    Held { device: PathBuf, by: PathBuf },
    #[error("{} is busy: some program has it for its sole use.\nStop that program first", .0.display())]
    Busy(PathBuf),
    #[error("{} is not empty: it holds {}.\nCheck that it is the right device; --force destroys what is on it", device.display(), holds.join(", "))]
    Signed { device: PathBuf, holds: Vec<String> },
    #[error("{} is a mount point already, of {}.\nChoose another --mount", at.display(), of.display())]
    MountPointTaken { at: PathBuf, of: PathBuf },
    #[error("{} is not empty; a mount would hide what is in it.\nMove it away, choose another --mount, or add --force", .0.display())]
    MountPointFull(PathBuf),
    #[error("{} is not a folder.\nChoose another --mount", .0.display())]
    MountPointNoFolder(PathBuf),
    #[error("fstab mounts something else on {}:\n  {line}\nRemove that line, or let --force replace it", at.display())]
    FstabTaken { at: PathBuf, line: String },
    #[error("there is a volume group {0} already.\nThe group is named after the mount point: choose another --mount")]
    GroupTaken(String),
    #[error("the logical volume {0} exists but is not active.\nRun: lvchange -ay {0}")]
    VolumeInactive(String),
}
