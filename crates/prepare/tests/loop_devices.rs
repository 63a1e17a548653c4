//! Real disks made of files: probe, plan and apply on loop devices.
//!
//! LVM is tested up to the logical volume, which needs device-mapper; where the kernel has none, the test says so and
//! checks that the failure names it and that a repeat continues at that step.

use std::fs;
use std::path::Path;
use std::process::Command;

use mortar_prepare::facts::Tool;
use mortar_prepare::request::{FileSystem, Spare};
use mortar_prepare::{Facts, Refusal, Request, Step, apply, plan, probe};
use mortar_testkit::loop_disk::LoopDisk;
use mortar_testkit::needs::{Need, met};

const NEEDS: [Need; 6] = [
    Need::Root,
    Need::Program("losetup", "util-linux"),
    Need::Program("wipefs", "util-linux"),
    Need::Program("parted", "parted"),
    Need::Program("mkfs.ext4", "e2fsprogs"),
    Need::Program("mkfs.xfs", "xfsprogs"),
];

/// A disk with an fstab of its own.
struct Disk {
    disk: LoopDisk,
    /// The volume group to remove at the end.
    group: Option<String>,
}

impl Disk {
    fn new() -> Self {
        let disk = LoopDisk::new(1 << 30).unwrap();
        fs::write(disk.fstab(), "# of a test\n").unwrap();
        Self { disk, group: None }
    }

    fn request(&self, file_system: FileSystem) -> Request {
        Request {
            device: self.disk.device().to_owned(),
            lvm: None,
            file_system,
            mount: self.disk.mount_point(),
            brick: "brick".into(),
            force: false,
            fstab: self.disk.fstab(),
        }
    }

    fn facts(&self, request: &Request) -> Facts {
        probe::probe(request).unwrap()
    }

    fn steps(&self, request: &Request) -> Result<Vec<Step>, Refusal> {
        let uuid = uuid::Uuid::new_v4().to_string();
        plan(request, &self.facts(request), &uuid).map(|plan| plan.steps)
    }

    fn apply(&self, steps: &[Step]) -> Result<(), apply::Error> {
        apply::apply(steps, &mut |_| {})
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(group) = &self.group {
            let mut remove = Command::new("vgremove");
            let _ = remove.args(["--force", group]).env("LVM_SUPPRESS_FD_WARNINGS", "1").output();
        }
    }
}

fn prepares_and_repeats(file_system: FileSystem) {
    let disk = Disk::new();
    let request = disk.request(file_system);
    disk.apply(&disk.steps(&request).unwrap()).unwrap();

    assert!(request.brick_path().is_dir());
    fs::write(request.brick_path().join("mail"), "kept").unwrap();
    let table = fs::read_to_string(disk.disk.fstab()).unwrap();
    let facts = disk.facts(&request);
    let uuid = facts.disk.partitions[0].signatures[0].uuid.clone().unwrap();
    let name = file_system.name();
    assert!(
        table.contains(&format!("UUID={uuid} {} {name} noatime,nofail 0 ", disk.disk.mount_point().display())),
        "{table}"
    );
    assert_eq!(facts.disk.partitions[0].mounts, [disk.disk.mount_point()]);

    assert_eq!(disk.steps(&request).unwrap(), [], "the repeat finds nothing to do");

    // As after a boot without the fstab line: only that and the mount are done again, and the data is there.
    assert!(Command::new("umount").arg(disk.disk.mount_point()).status().unwrap().success());
    fs::write(disk.disk.fstab(), "").unwrap();
    let steps = disk.steps(&request).unwrap();
    assert!(
        !steps.iter().any(|step| matches!(step, Step::MakeFileSystem { .. } | Step::Partition { .. })),
        "{steps:?}"
    );
    disk.apply(&steps).unwrap();
    assert_eq!(fs::read_to_string(request.brick_path().join("mail")).unwrap(), "kept");

    // As at boot: the line alone mounts it.
    assert!(Command::new("umount").arg(disk.disk.mount_point()).status().unwrap().success());
    let by_line =
        Command::new("mount").arg("--fstab").arg(disk.disk.fstab()).arg(disk.disk.mount_point()).output().unwrap();
    assert!(by_line.status.success(), "{by_line:?}");
    assert_eq!(disk.steps(&request).unwrap(), []);
}

#[test]
fn ext4_is_prepared_and_a_repeat_is_harmless() {
    if met("ext4_is_prepared_and_a_repeat_is_harmless", &NEEDS) {
        prepares_and_repeats(FileSystem::Ext4);
    }
}

#[test]
fn xfs_is_prepared_and_a_repeat_is_harmless() {
    if met("xfs_is_prepared_and_a_repeat_is_harmless", &NEEDS) {
        prepares_and_repeats(FileSystem::Xfs);
    }
}

#[test]
fn what_is_on_a_disk_is_destroyed_with_force_only() {
    if !met("what_is_on_a_disk_is_destroyed_with_force_only", &NEEDS) {
        return;
    }
    let disk = Disk::new();
    let made = Command::new("mkfs.xfs").args(["-q", "-L", "mail"]).arg(disk.disk.device()).status().unwrap();
    assert!(made.success());
    let mut request = disk.request(FileSystem::Ext4);
    let Err(Refusal::Signed { holds, .. }) = disk.steps(&request) else { panic!("a signed disk is refused") };
    assert!(holds[0].starts_with("xfs \"mail\" on /dev/loop"), "{holds:?}");

    let place = disk.disk.mount_point().with_file_name("elsewhere");
    fs::create_dir(&place).unwrap();
    assert!(Command::new("mount").arg(disk.disk.device()).arg(&place).status().unwrap().success());
    assert!(matches!(disk.steps(&request), Err(Refusal::Mounted { at, .. }) if at == place));

    request.force = true;
    let steps = disk.steps(&request).unwrap();
    assert_eq!(steps[0], Step::Unmount { at: place });
    disk.apply(&steps).unwrap();
    assert!(request.brick_path().is_dir());
    assert_eq!(disk.steps(&request).unwrap(), []);
}

#[test]
fn a_disk_in_exclusive_use_is_busy() {
    if !met("a_disk_in_exclusive_use_is_busy", &NEEDS) {
        return;
    }
    let disk = Disk::new();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::EXCL | rustix::fs::OFlags::CLOEXEC;
    let held = rustix::fs::open(disk.disk.device(), flags, rustix::fs::Mode::empty()).unwrap();
    let request = Request { force: true, ..disk.request(FileSystem::Ext4) };
    assert_eq!(disk.steps(&request), Err(Refusal::Busy(disk.disk.device().to_owned())));
    drop(held);
    assert!(disk.steps(&request).is_ok());
}

#[test]
fn lvm_is_made_as_far_as_the_kernel_allows() {
    let name = "lvm_is_made_as_far_as_the_kernel_allows";
    if !met(name, &NEEDS) || !met(name, &[Need::Program("lvcreate", "lvm2")]) {
        return;
    }
    let mut disk = Disk::new();
    let mut request = Request { lvm: Some(Spare::default()), ..disk.request(FileSystem::Ext4) };
    // The group is named after the mount point: one of its own for this test.
    let own = format!("gfs{}", std::process::id());
    request.mount = disk.disk.mount_point().with_file_name(own);
    disk.group = Some(request.volume_group());
    let result = disk.apply(&disk.steps(&request).unwrap());

    let facts = disk.facts(&request);
    assert_eq!(facts.lvm.groups.iter().filter(|group| **group == request.volume_group()).count(), 1);
    assert_eq!(facts.lvm.physical[0].1, Some(request.volume_group()));
    if apply::has_device_mapper() {
        result.unwrap();
        assert!(Path::new(&request.brick_path()).is_dir());
        assert!(Command::new("umount").arg(&request.mount).status().unwrap().success());
        return;
    }
    eprintln!("{name}: the kernel has no device-mapper; tested up to the volume group");
    let failed = result.unwrap_err();
    assert_eq!(failed.step.tool(), Some(Tool::Lvcreate));
    assert!(failed.message.contains("modprobe dm_mod"), "{failed}");
    let rest = disk.steps(&request).unwrap();
    assert!(matches!(rest[0], Step::LogicalVolume { percent: 90, .. }), "{rest:?}");
}
