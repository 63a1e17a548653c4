//! What the admin asks for.

use std::path::{Component, Path, PathBuf};

/// A brick's file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    /// The name that mount(8), blkid(8) and fstab use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

/// The share of the volume group that is left for snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spare(u8);

/// A spare share that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no share: give a whole number of per cent from 0 to 90, such as 10%")]
pub struct BadSpare(pub String);

impl Spare {
    /// What a brick may take of the volume group, in per cent.
    pub const fn rest_percent(self) -> u8 {
        100 - self.0
    }

    pub const fn percent(self) -> u8 {
        self.0
    }
}

impl Default for Spare {
    /// The HOWTO's 10 %.
    fn default() -> Self {
        Self(10)
    }
}

impl std::str::FromStr for Spare {
    type Err = BadSpare;

    fn from_str(text: &str) -> Result<Self, BadSpare> {
        let number = text.strip_suffix('%').unwrap_or(text);
        match number.parse() {
            Ok(percent @ 0..=90) => Ok(Self(percent)),
            _ => Err(BadSpare(text.to_owned())),
        }
    }
}

/// A disk to prepare, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The block device: a whole disk, which gets a partition table, or a partition or logical volume, which is used as
    /// it is.
    pub device: PathBuf,
    /// The share to leave free, when the brick shall be a logical volume.
    pub lvm: Option<Spare>,
    pub file_system: FileSystem,
    /// Where the file system is mounted.
    pub mount: PathBuf,
    /// The brick's folder, relative to `mount`.
    pub brick: PathBuf,
    /// Destroy what is on the device, unmounting it first.
    pub force: bool,
    /// The table of file systems that gets the mount.
    pub fstab: PathBuf,
}

/// A request that makes no sense on any machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    #[error("--mount {}: give an absolute path below /, without \"..\" or blanks, such as /srv/gfs", .0.display())]
    Mount(PathBuf),
    #[error(
        "--brick {}: give a folder below the mount point, such as brick; the file system's root would not do, for it \
         holds lost+found", .0.display()
    )]
    Brick(PathBuf),
}

impl Request {
    /// The brick's absolute path, for `volume create`.
    pub fn brick_path(&self) -> PathBuf {
        self.mount.join(&self.brick)
    }

    /// The volume group's name: `vg_gfs` for /srv/gfs, as the HOWTO has it.
    pub fn volume_group(&self) -> String {
        let name = self.mount.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let fits = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | '+');
        format!("vg_{}", name.chars().map(|letter| if fits(letter) { letter } else { '_' }).collect::<String>())
    }

    /// Checks the paths. Blanks are refused because fstab and many scripts split at them.
    pub fn check(&self) -> Result<(), BadRequest> {
        let plain = |part: Component<'_>| match part {
            Component::Normal(name) => {
                name.to_str().is_some_and(|name| !name.chars().any(|letter| letter.is_whitespace() || letter == '#'))
            }
            _ => false,
        };
        let below_root = |path: &Path| path.components().skip(1).count() > 0 && path.components().skip(1).all(plain);
        if !self.mount.is_absolute() || !below_root(&self.mount) {
            return Err(BadRequest::Mount(self.mount.clone()));
        }
        if self.brick.components().count() == 0 || !self.brick.components().all(plain) {
            return Err(BadRequest::Brick(self.brick.clone()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(mount: &str, brick: &str) -> Request {
        Request {
            device: "/dev/vdb".into(),
            lvm: None,
            file_system: FileSystem::Ext4,
            mount: mount.into(),
            brick: brick.into(),
            force: false,
            fstab: "/etc/fstab".into(),
        }
    }

    #[test]
    fn a_spare_share_is_a_whole_number_of_per_cent() {
        assert_eq!("10%".parse::<Spare>().unwrap().rest_percent(), 90);
        assert_eq!("0".parse::<Spare>().unwrap().rest_percent(), 100);
        assert_eq!("95%".parse::<Spare>(), Err(BadSpare("95%".into())));
        assert_eq!("1GB".parse::<Spare>(), Err(BadSpare("1GB".into())));
    }

    #[test]
    fn the_brick_lies_strictly_below_the_mount_point() {
        assert_eq!(request("/srv/gfs", "brick").check(), Ok(()));
        assert_eq!(request("/srv/gfs", "a/b").brick_path(), Path::new("/srv/gfs/a/b"));
        for bad in ["", "/brick", "../brick", "a/../..", "."] {
            assert_eq!(request("/srv/gfs", bad).check(), Err(BadRequest::Brick(bad.into())), "{bad:?}");
        }
        for bad in ["/", "srv", "/srv/../etc", "/srv/my bricks"] {
            assert_eq!(request(bad, "brick").check(), Err(BadRequest::Mount(bad.into())), "{bad:?}");
        }
    }

    #[test]
    fn the_volume_group_is_named_after_the_mount_point() {
        assert_eq!(request("/srv/gfs", "brick").volume_group(), "vg_gfs");
        assert_eq!(request("/srv/disk-2", "brick").volume_group(), "vg_disk_2");
    }
}
