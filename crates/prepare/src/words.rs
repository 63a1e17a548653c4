//! A plan in words.

use std::fmt::Write;
use std::path::Path;

use mortar_logic::values::size;

use crate::facts::{Lvm, Node, Tool};
use crate::plan::Plan;

/// What is on a device: a text per signature, or one for a `partition` without any.
pub fn holding(node: &Node, partition: bool, lvm: &Lvm) -> Vec<String> {
    let mounted = match node.mounts.first() {
        Some(at) => format!(", mounted on {}", at.display()),
        None => String::new(),
    };
    let mut texts: Vec<String> = Vec::new();
    for found in node.signatures.iter().filter(|found| found.kind != "PMBR") {
        let what = match found.kind.as_str() {
            "gpt" | "dos" => format!("{} partition table", found.kind),
            "LVM2_member" => physical_volume(node, lvm),
            kind => kind.to_owned(),
        };
        let label = found.label.as_ref().map(|label| format!(" \"{label}\"")).unwrap_or_default();
        let text = format!("{what}{label} on {} ({}{mounted})", node.path.display(), size(node.size_bytes));
        // A GPT has its signature at both ends of the disk.
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    if texts.is_empty() && (partition || !node.mounts.is_empty()) {
        let what = if partition { "partition" } else { "device" };
        texts.push(format!("{what} {} ({}{mounted})", node.path.display(), size(node.size_bytes)));
    }
    texts
}

/// A physical volume, and the group that would lose it.
fn physical_volume(node: &Node, lvm: &Lvm) -> String {
    let group = lvm.physical.iter().find(|(path, _)| *path == node.path).and_then(|(_, group)| group.as_ref());
    group.map_or_else(|| "LVM2_member".to_owned(), |group| format!("LVM2_member of the volume group {group}"))
}

/// The whole plan: what is lost, then the commands.
pub fn describe(plan: &Plan, device: &Path, size_bytes: u64) -> String {
    let mut text = String::new();
    let place = format!("{} ({})", device.display(), size(size_bytes));
    if plan.steps.is_empty() {
        return format!("{place} is prepared already. The brick's folder: {}\n", plan.brick.display());
    }
    if plan.destroys.is_empty() {
        let _ = writeln!(text, "{place}: nothing on it will be lost.");
    } else {
        let _ = writeln!(text, "{place}: ALL OF THIS WILL BE LOST:");
        for lost in &plan.destroys {
            let _ = writeln!(text, "  {lost}");
        }
    }
    text.push_str("Steps:\n");
    for (number, step) in (1..).zip(&plan.steps) {
        let _ = writeln!(text, "  {number}. {step}");
    }
    text
}

/// What to install, `None` if nothing is missing.
pub fn missing(tools: &[Tool]) -> Option<String> {
    if tools.is_empty() {
        return None;
    }
    let programs: Vec<&str> = tools.iter().map(|tool| tool.program()).collect();
    let mut packages: Vec<&str> = tools.iter().map(|tool| tool.package()).collect();
    packages.sort_unstable();
    packages.dedup();
    let packages = packages.join(" ");
    Some(format!(
        "not installed: {}.\nDebian and Ubuntu: apt install {packages}. Fedora and its kin: dnf install {packages}",
        programs.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_tools_are_named_with_their_packages_once() {
        let text = missing(&[Tool::Pvcreate, Tool::Lvcreate, Tool::MkfsXfs]).unwrap();
        assert!(text.starts_with("not installed: pvcreate, lvcreate, mkfs.xfs.\n"), "{text}");
        assert!(text.contains("apt install lvm2 xfsprogs."), "{text}");
        assert_eq!(missing(&[]), None);
    }
}
