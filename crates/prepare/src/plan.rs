//! The decision: from the request and the facts to steps, or a refusal. No I/O.

use std::path::{Path, PathBuf};

use crate::LOGICAL_VOLUME;
use crate::facts::{Facts, Node, Place, Tool};
use crate::fstab;
use crate::recognise::{Found, Made, Stage, recognise};
use crate::refusal::Refusal;
use crate::request::Request;
use crate::step::{Step, first_partition, fstab_line};
use crate::words::holding;

/// XFS wants 300 MiB and LVM some room beside it.
pub const SIZE_BYTES_MIN: u64 = 512 << 20;

/// Mount points without which the machine does not go on.
const SYSTEM: [&str; 7] = ["/", "/boot", "/boot/efi", "/usr", "/var", "/etc", "/home"];

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// In order. None: all is prepared already.
    pub steps: Vec<Step>,
    /// What is on the device and would be lost, one text per thing.
    pub destroys: Vec<String>,
    /// Programs that the steps need and the machine has not.
    pub missing: Vec<Tool>,
    /// The folder to name in `volume create`.
    pub brick: PathBuf,
}

/// Plans. `uuid`: the file system's, if one is made; it is chosen before, so that the plan shows the fstab line.
pub fn plan(request: &Request, facts: &Facts, uuid: &str) -> Result<Plan, Refusal> {
    request.check()?;
    let disk = &facts.disk;
    if disk.read_only {
        return Err(Refusal::ReadOnly(disk.node.path.clone()));
    }
    let mut steps = Vec::new();
    let mut destroys = Vec::new();
    let mut table = facts.fstab.clone();
    let stage = match recognise(request, facts) {
        Found::Ours(stage) => stage,
        Found::Inactive => {
            return Err(Refusal::VolumeInactive(format!("{}/{LOGICAL_VOLUME}", request.volume_group())));
        }
        Found::Foreign => {
            destroys = holdings(facts);
            clear(request, facts, &mut steps)?;
            table = drop_stale_lines(request, facts, &mut steps);
            wipe(facts, &mut steps);
            if disk.used_as_it_is { Stage::Partition(disk.node.path.clone()) } else { Stage::Disk }
        }
    };
    if !matches!(stage, Stage::Made(_)) {
        check_unused(facts, &stage, &steps)?;
        if disk.node.size_bytes < SIZE_BYTES_MIN {
            let device = disk.node.path.clone();
            return Err(Refusal::TooSmall { device, bytes: disk.node.size_bytes, min_bytes: SIZE_BYTES_MIN });
        }
    }
    let made = build(request, facts, stage, uuid, &mut steps)?;
    attach(request, facts, &table, &made, &mut steps)?;
    let mut missing: Vec<Tool> =
        steps.iter().filter_map(Step::tool).filter(|tool| !facts.tools.contains(tool)).collect();
    missing.sort_unstable();
    missing.dedup();
    Ok(Plan { steps, destroys, missing, brick: request.brick_path() })
}

/// The steps that free the device of foreign content, or why it is not touched.
fn clear(request: &Request, facts: &Facts, steps: &mut Vec<Step>) -> Result<(), Refusal> {
    for node in nodes(facts) {
        check_not_system(node)?;
        if let Some(holder) = node.holders.first() {
            check_not_system(holder)?;
            return Err(Refusal::Held { device: node.path.clone(), by: holder.path.clone() });
        }
        // The latest mount first: an earlier one may lie below it.
        for at in node.mounts.iter().rev() {
            if !request.force {
                return Err(Refusal::Mounted { device: node.path.clone(), at: at.clone() });
            }
            steps.push(Step::Unmount { at: at.clone() });
        }
        if node.swap {
            if !request.force {
                return Err(Refusal::Swap(node.path.clone()));
            }
            steps.push(Step::SwapOff { device: node.path.clone() });
        }
    }
    if !request.force {
        return Err(Refusal::Signed { device: facts.disk.node.path.clone(), holds: holdings(facts) });
    }
    Ok(())
}

/// Takes the lines that mount what is destroyed out of the table of file systems; the table that remains.
fn drop_stale_lines(request: &Request, facts: &Facts, steps: &mut Vec<Step>) -> String {
    let mut sources = Vec::new();
    for node in nodes(facts) {
        sources.push(node.path.to_string_lossy().into_owned());
        for uuid in node.signatures.iter().filter_map(|found| found.uuid.as_ref()) {
            sources.extend([format!("UUID={uuid}"), format!("UUID=\"{uuid}\""), format!("/dev/disk/by-uuid/{uuid}")]);
        }
    }
    let stale: Vec<&str> = fstab::lines_of(&facts.fstab, &sources).iter().map(|line| line.text).collect();
    steps
        .extend(stale.iter().map(|line| Step::FstabWithout { table: request.fstab.clone(), line: (*line).to_owned() }));
    fstab::without(&facts.fstab, &stale)
}

/// Removes the signatures; the partitions' first: with the table gone, they would come back to light at the same place.
fn wipe(facts: &Facts, steps: &mut Vec<Step>) {
    let signed = nodes(facts).filter(|node| !node.signatures.is_empty());
    steps.extend(signed.map(|node| Step::Wipe { device: node.path.clone() }));
}

fn check_not_system(node: &Node) -> Result<(), Refusal> {
    match node.mounts.iter().find(|at| SYSTEM.iter().any(|system| at.as_path() == Path::new(system))) {
        Some(at) => Err(Refusal::System { device: node.path.clone(), at: at.clone() }),
        None => Ok(()),
    }
}

/// A device that looks empty may be in use all the same: raw data of a database, a guest's disk, a swap without signature.
fn check_unused(facts: &Facts, stage: &Stage, steps: &[Step]) -> Result<(), Refusal> {
    // An active volume of our own group holds the partition, and is what gets the file system.
    if matches!(stage, Stage::Bare(_) | Stage::Group) {
        return match &facts.lvm.logical_node {
            Some(volume) if volume.claimed => Err(Refusal::Busy(volume.path.clone())),
            _ => Ok(()),
        };
    }
    for node in nodes(facts) {
        let freed = steps.iter().any(|step| match step {
            Step::Unmount { at } => node.mounts.contains(at),
            Step::SwapOff { device } => *device == node.path,
            _ => false,
        });
        if freed {
            continue;
        }
        if let Some(holder) = node.holders.first() {
            return Err(Refusal::Held { device: node.path.clone(), by: holder.path.clone() });
        }
        if let Some(at) = node.mounts.first() {
            return Err(Refusal::Mounted { device: node.path.clone(), at: at.clone() });
        }
        if node.swap {
            return Err(Refusal::Swap(node.path.clone()));
        }
        if node.claimed {
            return Err(Refusal::Busy(node.path.clone()));
        }
    }
    Ok(())
}

/// The steps from `stage` to a file system.
fn build(request: &Request, facts: &Facts, stage: Stage, uuid: &str, steps: &mut Vec<Step>) -> Result<Made, Refusal> {
    let mut stage = stage;
    loop {
        stage = match stage {
            Stage::Disk => {
                let device = facts.disk.node.path.clone();
                let partition = first_partition(&device);
                steps.push(Step::Partition { device, partition: partition.clone(), lvm: request.lvm.is_some() });
                Stage::Partition(partition)
            }
            Stage::Partition(device) if request.lvm.is_none() => Stage::Bare(device),
            Stage::Partition(device) => {
                steps.push(Step::PhysicalVolume { device: device.clone() });
                Stage::Physical(device)
            }
            Stage::Physical(device) => {
                let group = request.volume_group();
                if facts.lvm.groups.contains(&group) {
                    return Err(Refusal::GroupTaken(group));
                }
                steps.push(Step::VolumeGroup { group, device });
                Stage::Group
            }
            Stage::Group => {
                let group = request.volume_group();
                let device = PathBuf::from(format!("/dev/{group}/{LOGICAL_VOLUME}"));
                let percent = request.lvm.unwrap_or_default().rest_percent();
                steps.push(Step::LogicalVolume { group, percent });
                Stage::Bare(device)
            }
            Stage::Bare(device) => {
                steps.push(Step::MakeFileSystem {
                    file_system: request.file_system,
                    device: device.clone(),
                    uuid: uuid.to_owned(),
                });
                return Ok(Made { device, uuid: uuid.to_owned(), mounts: Vec::new() });
            }
            Stage::Made(made) => return Ok(made),
        };
    }
}

/// The steps from a file system to a mounted one with the brick's folder.
fn attach(request: &Request, facts: &Facts, table: &str, made: &Made, steps: &mut Vec<Step>) -> Result<(), Refusal> {
    let at = &request.mount;
    if let Some(elsewhere) = made.mounts.iter().find(|mount| *mount != at) {
        return Err(Refusal::MountedElsewhere { device: made.device.clone(), at: elsewhere.clone() });
    }
    let mounted = made.mounts.contains(at);
    if !mounted {
        check_mount_point(request, facts, steps)?;
        if facts.place == Place::Missing {
            steps.push(Step::MakeFolder { path: at.clone() });
        }
    }
    steps.extend(fstab_step(request, table, made)?);
    let changed = steps.iter().any(|step| matches!(step, Step::Fstab { .. } | Step::FstabWithout { .. }));
    if changed && facts.systemd {
        steps.push(Step::ReloadSystemd);
    }
    if !mounted {
        steps.push(Step::Mount { file_system: request.file_system, device: made.device.clone(), at: at.clone() });
    }
    if !mounted || !facts.brick_exists {
        steps.push(Step::MakeFolder { path: request.brick_path() });
    }
    Ok(())
}

fn check_mount_point(request: &Request, facts: &Facts, steps: &[Step]) -> Result<(), Refusal> {
    let at = request.mount.clone();
    if let Some(of) = &facts.mounted_there {
        let freed = steps.iter().any(|step| matches!(step, Step::Unmount { at: freed } if *freed == at));
        return if freed { Ok(()) } else { Err(Refusal::MountPointTaken { at, of: of.clone() }) };
    }
    match facts.place {
        Place::FullFolder if !request.force => Err(Refusal::MountPointFull(at)),
        Place::NotFolder => Err(Refusal::MountPointNoFolder(at)),
        Place::FullFolder | Place::EmptyFolder | Place::Missing => Ok(()),
    }
}

fn fstab_step(request: &Request, table: &str, made: &Made) -> Result<Option<Step>, Refusal> {
    let line = fstab_line(request.file_system, &made.uuid, &request.mount);
    let fstab = || request.fstab.clone();
    let Some(found) = fstab::line_for(table, &request.mount) else {
        return Ok(Some(Step::Fstab { table: fstab(), line, replaces: None }));
    };
    if found.source == format!("UUID={}", made.uuid) || Path::new(found.source) == made.device {
        return Ok(None);
    }
    if request.force {
        return Ok(Some(Step::Fstab { table: fstab(), line, replaces: Some(found.text.to_owned()) }));
    }
    Err(Refusal::FstabTaken { at: request.mount.clone(), line: found.text.to_owned() })
}

/// The disk's partitions and the disk itself.
fn nodes(facts: &Facts) -> impl Iterator<Item = &Node> {
    facts.disk.partitions.iter().chain([&facts.disk.node])
}

/// What is on the device, in words.
fn holdings(facts: &Facts) -> Vec<String> {
    let mut texts = holding(&facts.disk.node, facts.disk.used_as_it_is, &facts.lvm);
    texts.extend(facts.disk.partitions.iter().flat_map(|node| holding(node, true, &facts.lvm)));
    texts
}
