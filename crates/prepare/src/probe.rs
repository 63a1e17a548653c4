//! Looks at the machine: sysfs, mountinfo, and the system's own tools for signatures and LVM. Changes nothing.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::LOGICAL_VOLUME;
use crate::facts::{Disk, Facts, Lvm, Node, Place, Signature, Tool};
use crate::program::{find, program};
use crate::request::Request;

/// Why the machine could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{} is not a block device", .0.display())]
    NoBlockDevice(PathBuf),
    #[error("{program}: {error}\nIs the package {package} installed?")]
    Start { program: &'static str, package: &'static str, error: io::Error },
    #[error("{program} failed: {message}")]
    Tool { program: &'static str, message: String },
}

/// How deep devices upon devices are followed (partition, RAID, crypt, LVM and a margin).
const HOLDERS_DEPTH_MAX: u32 = 8;

/// Everything a plan depends on.
pub fn probe(request: &Request) -> Result<Facts, Error> {
    let machine = Machine::read()?;
    let disk = machine.disk(&request.device)?;
    let tools = tools();
    let lvm = lvm(request, &disk, &tools, &machine)?;
    let mounted_there = machine.mounted_at(&request.mount);
    let place = place(&request.mount);
    let brick_exists = request.brick_path().is_dir();
    let fstab = match fs::read_to_string(&request.fstab) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Error::Read { path: request.fstab.clone(), error }),
    };
    // As sd_booted(3) asks.
    let systemd = Path::new("/run/systemd/system").is_dir();
    Ok(Facts { disk, lvm, place, mounted_there, brick_exists, fstab, systemd, tools })
}

/// A line of mountinfo.
struct Mounted {
    /// `major:minor`.
    device: String,
    at: PathBuf,
    source: String,
}

struct Machine {
    mounts: Vec<Mounted>,
    swaps: Vec<PathBuf>,
}

impl Machine {
    fn read() -> Result<Self, Error> {
        let mounts = read("/proc/self/mountinfo")?.lines().filter_map(mounted).collect();
        let swaps = read("/proc/swaps").unwrap_or_default();
        let swaps = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next());
        let swaps = swaps.filter_map(|path| fs::canonicalize(unescape(path)).ok()).collect();
        Ok(Self { mounts, swaps })
    }

    /// The device or other source on top at `target`.
    fn mounted_at(&self, target: &Path) -> Option<PathBuf> {
        let target = fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
        let found = self.mounts.iter().rev().find(|mount| mount.at == target)?;
        Some(PathBuf::from(&found.source))
    }

    fn disk(&self, device: &Path) -> Result<Disk, Error> {
        let path = fs::canonicalize(device).map_err(|error| Error::Read { path: device.to_owned(), error })?;
        let sysfs = sysfs(&path)?;
        let mut disk = Disk {
            node: self.node(&path, &sysfs, 0)?,
            used_as_it_is: sysfs.join("partition").exists() || sysfs.join("dm").exists(),
            read_only: number(&sysfs.join("ro"))? != 0,
            partitions: Vec::new(),
        };
        let mut names = names(&sysfs)?;
        names.retain(|name| sysfs.join(name).join("partition").exists());
        names.sort_by_key(|name| (name.len(), name.clone()));
        for name in names {
            disk.partitions.push(self.node(&Path::new("/dev").join(&name), &sysfs.join(&name), 0)?);
        }
        let explained =
            disk.partitions.iter().any(|part| !part.mounts.is_empty() || !part.holders.is_empty() || part.swap);
        if explained {
            disk.node.claimed = false;
        }
        Ok(disk)
    }

    fn node(&self, path: &Path, sysfs: &Path, depth: u32) -> Result<Node, Error> {
        let id = read(sysfs.join("dev"))?;
        let id = id.trim();
        let mounts: Vec<PathBuf> =
            self.mounts.iter().filter(|mount| mount.device == id).map(|mount| mount.at.clone()).collect();
        let mut holders = Vec::new();
        if depth < HOLDERS_DEPTH_MAX {
            for name in names(&sysfs.join("holders")).unwrap_or_default() {
                holders.push(self.node(
                    &Path::new("/dev").join(&name),
                    &Path::new("/sys/class/block").join(&name),
                    depth + 1,
                )?);
            }
        }
        let swap = self.swaps.iter().any(|swap| swap == path);
        let explained = swap || !mounts.is_empty() || !holders.is_empty();
        Ok(Node {
            path: path.to_owned(),
            size_bytes: number(&sysfs.join("size"))?.saturating_mul(512),
            signatures: signatures(path)?,
            partition_label: partition_label(path)?,
            mounts,
            swap,
            holders,
            claimed: !explained && claimed(path),
        })
    }
}

fn read(path: impl AsRef<Path>) -> Result<String, Error> {
    let path = path.as_ref();
    // Mount points of others may have names that are no UTF-8.
    let bytes = fs::read(path).map_err(|error| Error::Read { path: path.to_owned(), error })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn number(path: &Path) -> Result<u64, Error> {
    read(path)?.trim().parse().map_err(|error| Error::Read { path: path.to_owned(), error: io::Error::other(error) })
}

fn names(folder: &Path) -> Result<Vec<String>, Error> {
    let unreadable = |error| Error::Read { path: folder.to_owned(), error };
    fs::read_dir(folder)
        .map_err(unreadable)?
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()).map_err(unreadable))
        .collect()
}

/// The device's folder in sysfs, by its number: names below /dev may be links.
fn sysfs(path: &Path) -> Result<PathBuf, Error> {
    let unreadable = |error: io::Error| Error::Read { path: path.to_owned(), error };
    let found = rustix::fs::stat(path).map_err(|error| unreadable(error.into()))?;
    if rustix::fs::FileType::from_raw_mode(found.st_mode) != rustix::fs::FileType::BlockDevice {
        return Err(Error::NoBlockDevice(path.to_owned()));
    }
    let (major, minor) = (rustix::fs::major(found.st_rdev), rustix::fs::minor(found.st_rdev));
    fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).map_err(unreadable)
}

/// Whether the kernel denies exclusive use (proc(5) of `O_EXCL` on block devices: mounted, swap, md, device-mapper, …).
fn claimed(path: &Path) -> bool {
    let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC, Mode::empty());
    matches!(opened, Err(rustix::io::Errno::BUSY))
}

fn mounted(line: &str) -> Option<Mounted> {
    let (front, back) = line.split_once(" - ")?;
    let mut fields = front.split(' ');
    let device = fields.nth(2)?.to_owned();
    let at = PathBuf::from(unescape(fields.nth(1)?));
    let source = unescape(back.split(' ').nth(1)?);
    Some(Mounted { device, at, source })
}

/// mountinfo writes blanks and backslashes as `\040`.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        match after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &after[3..];
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out + rest
}

fn place(path: &Path) -> Place {
    match fs::read_dir(path) {
        Ok(mut entries) => match entries.next() {
            Some(_) => Place::FullFolder,
            None => Place::EmptyFolder,
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Place::Missing,
        Err(_) => Place::NotFolder,
    }
}

/// What a program printed. `quiet`: the exit code that means "nothing found".
fn ask(name: &'static str, package: &'static str, words: &[&str], quiet: Option<i32>) -> Result<String, Error> {
    let started = program(name).args(words).output();
    let output = started.map_err(|error| Error::Start { program: name, package, error })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    if quiet.is_some() && output.status.code() == quiet {
        return Ok(String::new());
    }
    Err(Error::Tool { program: name, message: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

#[derive(serde::Deserialize)]
struct WipefsAnswer {
    signatures: Vec<WipefsSignature>,
}

#[derive(serde::Deserialize)]
struct WipefsSignature {
    #[serde(rename = "type")]
    kind: String,
    label: Option<String>,
    uuid: Option<String>,
}

fn signatures(path: &Path) -> Result<Vec<Signature>, Error> {
    let text = ask("wipefs", "util-linux", &["--no-act", "--json", &path.to_string_lossy()], None)?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let answer: WipefsAnswer = serde_json::from_str(&text)
        .map_err(|error| Error::Tool { program: "wipefs", message: format!("{error} in {text:?}") })?;
    let plain = |found: WipefsSignature| Signature { kind: found.kind, label: found.label, uuid: found.uuid };
    Ok(answer.signatures.into_iter().map(plain).collect())
}

/// The partition's name in its table. blkid exits with 2 when it finds nothing and 8 when it finds too much.
fn partition_label(path: &Path) -> Result<Option<String>, Error> {
    let path = path.to_string_lossy();
    let words = ["--probe", "--match-tag", "PART_ENTRY_NAME", "--output", "value", &path];
    match ask("blkid", "util-linux", &words, Some(2)) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
        Err(Error::Tool { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn tools() -> BTreeSet<Tool> {
    Tool::ALL.into_iter().filter(|tool| find(tool.program()).is_some()).collect()
}

fn lvm(request: &Request, disk: &Disk, tools: &BTreeSet<Tool>, machine: &Machine) -> Result<Lvm, Error> {
    let mut lvm = Lvm::default();
    let nodes = [&disk.node].into_iter().chain(&disk.partitions);
    let member = nodes.flat_map(|node| &node.signatures).any(|found| found.kind == "LVM2_member");
    if !(member || request.lvm.is_some()) || !tools.contains(&Tool::Pvcreate) {
        return Ok(lvm);
    }
    let listed = ask("pvs", "lvm2", &["--noheadings", "--separator", "|", "-o", "pv_name,vg_name"], None)?;
    for line in listed.lines() {
        let Some((path, group)) = line.trim().split_once('|') else { continue };
        let group = Some(group.to_owned()).filter(|group| !group.is_empty());
        if let Some(group) = &group
            && !lvm.groups.contains(group)
        {
            lvm.groups.push(group.clone());
        }
        let path = fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path));
        if path == disk.node.path || disk.partitions.iter().any(|part| part.path == path) {
            lvm.physical.push((path, group));
        }
    }
    let group = request.volume_group();
    if lvm.groups.contains(&group) {
        let volumes = ask("lvs", "lvm2", &["--noheadings", "-o", "lv_name", &group], None)?;
        lvm.logical = volumes.split_whitespace().map(str::to_owned).collect();
        if let Ok(path) = fs::canonicalize(format!("/dev/{group}/{LOGICAL_VOLUME}")) {
            let sysfs = sysfs(&path)?;
            lvm.logical_node = Some(machine.node(&path, &sysfs, 0)?);
        }
    }
    Ok(lvm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines_are_read_with_their_escapes() {
        let found = mounted(r"27 1 254:1 / /srv/my\040bricks rw,relatime shared:1 - ext4 /dev/vdb1 rw").unwrap();
        assert_eq!((found.device.as_str(), found.at.as_path()), ("254:1", Path::new("/srv/my bricks")));
        assert_eq!(found.source, "/dev/vdb1");
        assert_eq!(unescape(r"a\b"), r"a\b");
    }

    #[test]
    fn a_file_is_no_block_device() {
        assert!(matches!(sysfs(Path::new("/etc/passwd")), Err(Error::NoBlockDevice(_))));
    }
}
