//! How far the device is prepared already.

use std::path::PathBuf;

use crate::facts::{Facts, Node};
use crate::request::Request;
use crate::{LABEL, LOGICAL_VOLUME};

/// Where the work begins. Each stage has all that the ones before it make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// An empty disk.
    Disk,
    /// An empty partition at this path.
    Partition(PathBuf),
    /// A physical volume in no group.
    Physical(PathBuf),
    /// A volume group without the brick's volume.
    Group,
    /// The device that gets the file system.
    Bare(PathBuf),
    /// The file system.
    Made(Made),
}

/// A file system that was prepared as the request asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    pub device: PathBuf,
    pub uuid: String,
    /// Where it is mounted.
    pub mounts: Vec<PathBuf>,
}

/// What the device holds, seen with the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing that is known, or work of this program towards the same end.
    Ours(Stage),
    /// The brick's logical volume, switched off.
    Inactive,
    /// Something else: it would be destroyed.
    Foreign,
}

/// Judges the device.
pub fn recognise(request: &Request, facts: &Facts) -> Found {
    let disk = &facts.disk;
    if disk.used_as_it_is {
        return content(request, facts, &disk.node);
    }
    if disk.node.signatures.is_empty() && disk.partitions.is_empty() {
        return Found::Ours(Stage::Disk);
    }
    let only_table = disk.node.signatures.iter().all(|found| matches!(found.kind.as_str(), "gpt" | "PMBR"));
    match disk.partitions.as_slice() {
        [only] if only_table && only.partition_label.as_deref() == Some(LABEL) => content(request, facts, only),
        _ => Found::Foreign,
    }
}

/// Judges what is on the partition.
fn content(request: &Request, facts: &Facts, partition: &Node) -> Found {
    if partition.signatures.is_empty() && partition.holders.is_empty() {
        return Found::Ours(Stage::Partition(partition.path.clone()));
    }
    if request.lvm.is_none() {
        return file_system(request, partition);
    }
    let physical = facts.lvm.physical.iter().find(|(path, _)| *path == partition.path);
    match (kinds(partition).as_slice(), physical) {
        (["LVM2_member"], Some((_, None))) => Found::Ours(Stage::Physical(partition.path.clone())),
        (["LVM2_member"], Some((_, Some(group)))) if *group == request.volume_group() => logical(request, facts),
        _ => Found::Foreign,
    }
}

fn logical(request: &Request, facts: &Facts) -> Found {
    match (facts.lvm.logical.as_slice(), &facts.lvm.logical_node) {
        ([], _) => Found::Ours(Stage::Group),
        (volumes, _) if !volumes.iter().any(|name| name == LOGICAL_VOLUME) => Found::Foreign,
        (_, None) => Found::Inactive,
        (_, Some(node)) if node.signatures.is_empty() => Found::Ours(Stage::Bare(node.path.clone())),
        (_, Some(node)) => file_system(request, node),
    }
}

fn file_system(request: &Request, node: &Node) -> Found {
    match node.signatures.as_slice() {
        [only] if only.kind == request.file_system.name() && only.label.as_deref() == Some(LABEL) => match &only.uuid {
            Some(uuid) => Found::Ours(Stage::Made(Made {
                device: node.path.clone(),
                uuid: uuid.clone(),
                mounts: node.mounts.clone(),
            })),
            None => Found::Foreign,
        },
        _ => Found::Foreign,
    }
}

fn kinds(node: &Node) -> Vec<&str> {
    node.signatures.iter().map(|found| found.kind.as_str()).collect()
}
