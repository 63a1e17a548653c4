//! The steps of a plan, and the commands that perform them.

use std::path::{Path, PathBuf};

use crate::facts::Tool;
use crate::request::FileSystem;
use crate::{LABEL, LOGICAL_VOLUME};

/// One step. What it makes is named in it, so that it can be shown before anything is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Unmount {
        at: PathBuf,
    },
    SwapOff {
        device: PathBuf,
    },
    /// Removes every signature, so that no tool takes the old content for live.
    Wipe {
        device: PathBuf,
    },
    /// A GPT with one partition over the whole disk.
    Partition {
        device: PathBuf,
        partition: PathBuf,
        lvm: bool,
    },
    PhysicalVolume {
        device: PathBuf,
    },
    VolumeGroup {
        group: String,
        device: PathBuf,
    },
    /// A logical volume with `percent` of the group.
    LogicalVolume {
        group: String,
        percent: u8,
    },
    MakeFileSystem {
        file_system: FileSystem,
        device: PathBuf,
        uuid: String,
    },
    MakeFolder {
        path: PathBuf,
    },
    /// Adds `line` to the table of file systems; `replaces`: in the place of this one.
    Fstab {
        table: PathBuf,
        line: String,
        replaces: Option<String>,
    },
    /// Takes out a line that mounts what is destroyed: the next boot would wait for it in vain.
    FstabWithout {
        table: PathBuf,
        line: String,
    },
    /// systemd keeps units made from the table it read, and may unmount at once what an old one contradicts.
    ReloadSystemd,
    Mount {
        file_system: FileSystem,
        device: PathBuf,
        at: PathBuf,
    },
}

/// The partition that [`Step::Partition`] makes: a `p` parts the number from a name that ends in a digit.
pub fn first_partition(device: &Path) -> PathBuf {
    let name = device.to_string_lossy();
    let parting = if name.ends_with(|last: char| last.is_ascii_digit()) { "p" } else { "" };
    PathBuf::from(format!("{name}{parting}1"))
}

/// Access times are not kept: GlusterFS's utime layer stores what is asked for in an xattr, and a brick would
/// otherwise write on every read.
pub const MOUNT_OPTIONS: &str = "noatime";

/// The line that mounts the brick's file system at boot. `nofail`: a host whose brick disk is broken boots all the same,
/// and the other replica serves. ext4 is checked after the root; XFS's checker does nothing at boot.
pub fn fstab_line(file_system: FileSystem, uuid: &str, at: &Path) -> String {
    let pass = match file_system {
        FileSystem::Ext4 => 2,
        FileSystem::Xfs => 0,
    };
    format!("UUID={uuid} {} {} {MOUNT_OPTIONS},nofail 0 {pass}", at.display(), file_system.name())
}

/// Options of mkfs, and why.
///
/// Inodes have 512 bytes, for a brick keeps GlusterFS's xattrs (gfid, changelogs, times, layout) in each: in 256 bytes
/// they would not fit and every file would cost one more block. ext4 cannot add inodes later and mail is small files, so it
/// gets one per 8 KiB; root's reserve is 1 % instead of 5 %. After an error ext4 turns read-only instead of going on: the
/// brick's health check then takes the brick out of service, and the replica serves. XFS stops by itself, and makes inodes
/// as they are needed.
fn make_file_system(file_system: FileSystem, uuid: &str) -> Vec<String> {
    let words = match file_system {
        FileSystem::Ext4 => format!("-q -F -L {LABEL} -U {uuid} -I 512 -i 8192 -m 1 -e remount-ro"),
        FileSystem::Xfs => format!("-q -f -L {LABEL} -m uuid={uuid} -i size=512"),
    };
    words.split(' ').map(str::to_owned).collect()
}

/// What performs a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Performed {
    By(Tool, Vec<String>),
    /// This program itself; the words say so in shell, for people.
    Here(String),
}

impl Step {
    /// The command that does it.
    pub fn performed(&self) -> Performed {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        match self {
            Self::Unmount { at } => Performed::By(Tool::Umount, vec![path(at)]),
            Self::SwapOff { device } => Performed::By(Tool::Swapoff, vec![path(device)]),
            Self::Wipe { device } => Performed::By(Tool::Wipefs, vec!["--all".to_owned(), path(device)]),
            Self::Partition { device, lvm, .. } => {
                let mut all = words(&["--script", "--align", "optimal", &path(device), "mklabel", "gpt"]);
                all.extend(words(&["mkpart", LABEL, "1MiB", "100%"]));
                if *lvm {
                    all.extend(words(&["set", "1", "lvm", "on"]));
                }
                Performed::By(Tool::Parted, all)
            }
            Self::PhysicalVolume { device } => Performed::By(Tool::Pvcreate, words(&["--yes", &path(device)])),
            Self::VolumeGroup { group, device } => Performed::By(Tool::Vgcreate, words(&[group, &path(device)])),
            Self::LogicalVolume { group, percent } => Performed::By(
                Tool::Lvcreate,
                words(&["--yes", "--wipesignatures", "y", "-l", &format!("{percent}%VG"), "-n", LOGICAL_VOLUME, group]),
            ),
            Self::MakeFileSystem { file_system, device, uuid } => {
                let tool = match file_system {
                    FileSystem::Ext4 => Tool::MkfsExt4,
                    FileSystem::Xfs => Tool::MkfsXfs,
                };
                let mut all = make_file_system(*file_system, uuid);
                all.push(path(device));
                Performed::By(tool, all)
            }
            Self::MakeFolder { path } => Performed::Here(format!("mkdir -p {}", path.display())),
            Self::Fstab { table, line, replaces: None } => {
                Performed::Here(format!("echo \"{line}\" >> {}", table.display()))
            }
            Self::Fstab { table, line, replaces: Some(old) } => {
                Performed::Here(format!("in {}, replace \"{old}\" by \"{line}\"", table.display()))
            }
            Self::FstabWithout { table, line } => {
                Performed::Here(format!("in {}, take out \"{line}\"", table.display()))
            }
            Self::ReloadSystemd => Performed::By(Tool::Systemctl, words(&["daemon-reload"])),
            Self::Mount { file_system, device, at } => Performed::By(
                Tool::Mount,
                words(&["-t", file_system.name(), "-o", MOUNT_OPTIONS, &path(device), &path(at)]),
            ),
        }
    }

    /// The program that the step needs, if it is not done here.
    pub fn tool(&self) -> Option<Tool> {
        match self.performed() {
            Performed::By(tool, _) => Some(tool),
            Performed::Here(_) => None,
        }
    }
}

impl std::fmt::Display for Step {
    /// As one would type it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.performed() {
            Performed::By(tool, words) => write!(f, "{} {}", tool.program(), words.join(" ")),
            Performed::Here(text) => f.write_str(&text),
        }
    }
}
