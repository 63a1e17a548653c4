//! What the machine is like, as far as a plan depends on it.

use std::collections::BTreeSet;
use std::path::PathBuf;

/// A trace that a program left on a device, by which others know what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// libblkid's word: `gpt`, `dos`, `PMBR`, `ext4`, `xfs`, `LVM2_member`, `linux_raid_member`, `crypto_LUKS`, …
    pub kind: String,
    pub label: Option<String>,
    pub uuid: Option<String>,
}

/// A block device and who uses it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its canonical path below /dev.
    pub path: PathBuf,
    pub size_bytes: u64,
    pub signatures: Vec<Signature>,
    /// The partition's name in a GPT.
    pub partition_label: Option<String>,
    /// Where it is mounted.
    pub mounts: Vec<PathBuf>,
    /// It is swapped to.
    pub swap: bool,
    /// Devices built upon it (device-mapper, md).
    pub holders: Vec<Self>,
    /// The kernel refuses to open it for its sole use, although nothing above says why.
    pub claimed: bool,
}

/// The device that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    pub node: Node,
    /// It is itself a partition or a logical volume: no table is made on it.
    pub used_as_it_is: bool,
    pub read_only: bool,
    pub partitions: Vec<Node>,
}

/// What LVM knows of the device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lvm {
    /// Every volume group of the machine.
    pub groups: Vec<String>,
    /// The physical volumes on the disk or its partitions: canonical device, group (`None`: in no group).
    pub physical: Vec<(PathBuf, Option<String>)>,
    /// Logical volumes of the group that the request would use.
    pub logical: Vec<String>,
    /// The device of the group's brick volume, when it is active.
    pub logical_node: Option<Node>,
}

/// What is at the mount point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    #[default]
    Missing,
    EmptyFolder,
    /// A folder with something in it, which a mount would hide.
    FullFolder,
    NotFolder,
}

/// A program that a plan may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    Parted,
    Wipefs,
    Pvcreate,
    Vgcreate,
    Lvcreate,
    MkfsExt4,
    MkfsXfs,
    Mount,
    Umount,
    Swapoff,
    Systemctl,
}

impl Tool {
    pub const ALL: [Self; 11] = [
        Self::Parted,
        Self::Wipefs,
        Self::Pvcreate,
        Self::Vgcreate,
        Self::Lvcreate,
        Self::MkfsExt4,
        Self::MkfsXfs,
        Self::Mount,
        Self::Umount,
        Self::Swapoff,
        Self::Systemctl,
    ];

    pub const fn program(self) -> &'static str {
        match self {
            Self::Parted => "parted",
            Self::Wipefs => "wipefs",
            Self::Pvcreate => "pvcreate",
            Self::Vgcreate => "vgcreate",
            Self::Lvcreate => "lvcreate",
            Self::MkfsExt4 => "mkfs.ext4",
            Self::MkfsXfs => "mkfs.xfs",
            Self::Mount => "mount",
            Self::Umount => "umount",
            Self::Swapoff => "swapoff",
            Self::Systemctl => "systemctl",
        }
    }

    /// The package that brings it, of the same name on Debian and on Fedora.
    pub const fn package(self) -> &'static str {
        match self {
            Self::Parted => "parted",
            Self::Wipefs | Self::Mount | Self::Umount | Self::Swapoff => "util-linux",
            Self::Pvcreate | Self::Vgcreate | Self::Lvcreate => "lvm2",
            Self::MkfsExt4 => "e2fsprogs",
            Self::MkfsXfs => "xfsprogs",
            Self::Systemctl => "systemd",
        }
    }
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub disk: Disk,
    pub lvm: Lvm,
    /// What is at the mount point, below anything mounted there.
    pub place: Place,
    /// The device mounted at the mount point, if one is.
    pub mounted_there: Option<PathBuf>,
    /// The brick's folder exists.
    pub brick_exists: bool,
    /// The text of the table of file systems.
    pub fstab: String,
    /// systemd runs, which mounts from its own reading of that table.
    pub systemd: bool,
    pub tools: BTreeSet<Tool>,
}
