//! The plan, exactly: for each state of a machine, the steps or the refusal.

use std::path::{Path, PathBuf};

use mortar_prepare::facts::{Disk, Lvm, Node, Place, Signature, Tool};
use mortar_prepare::request::{FileSystem, Spare};
use mortar_prepare::{Facts, LABEL, Plan, Refusal, Request, plan, words};

const UUID: &str = "11111111-2222-4333-8444-555555555555";
const OLD: &str = "99999999-2222-4333-8444-555555555555";
const TEN_GIB: u64 = 10 << 30;

fn request() -> Request {
    Request {
        device: "/dev/vdb".into(),
        lvm: None,
        file_system: FileSystem::Ext4,
        mount: "/srv/gfs".into(),
        brick: "brick".into(),
        force: false,
        fstab: "/etc/fstab".into(),
    }
}

fn forced() -> Request {
    Request { force: true, ..request() }
}

fn with_lvm() -> Request {
    Request { lvm: Some(Spare::default()), ..request() }
}

fn node(path: &str, signatures: &[(&str, Option<&str>)]) -> Node {
    let signature = |(kind, label): &(&str, Option<&str>)| Signature {
        kind: (*kind).into(),
        label: label.map(str::to_owned),
        uuid: Some(OLD.into()),
    };
    Node {
        path: path.into(),
        size_bytes: TEN_GIB,
        signatures: signatures.iter().map(signature).collect(),
        ..Node::default()
    }
}

fn blank() -> Facts {
    Facts {
        disk: Disk { node: node("/dev/vdb", &[]), ..Disk::default() },
        fstab: "UUID=0 / ext4 defaults 0 1\n".into(),
        tools: Tool::ALL.into_iter().collect(),
        ..Facts::default()
    }
}

/// A disk with a table and one partition that bears our name.
fn named(signatures: &[(&str, Option<&str>)]) -> Facts {
    let mut facts = blank();
    facts.disk.node.signatures = node("", &[("gpt", None), ("PMBR", None), ("gpt", None)]).signatures;
    facts.disk.partitions = vec![Node { partition_label: Some(LABEL.into()), ..node("/dev/vdb1", signatures) }];
    facts
}

fn prepared() -> Facts {
    let mut facts = named(&[("ext4", Some(LABEL))]);
    facts.disk.partitions[0].mounts = vec!["/srv/gfs".into()];
    facts.mounted_there = Some("/dev/vdb1".into());
    facts.place = Place::FullFolder;
    facts.brick_exists = true;
    facts.fstab = format!("UUID={OLD} /srv/gfs ext4 noatime,nofail 0 2\n");
    facts
}

fn steps(request: &Request, facts: &Facts) -> Vec<String> {
    plan(request, facts, UUID).unwrap().steps.iter().map(ToString::to_string).collect()
}

fn refused(request: &Request, facts: &Facts) -> Refusal {
    plan(request, facts, UUID).unwrap_err()
}

#[test]
fn an_empty_disk_gets_everything() {
    let expected = [
        "parted --script --align optimal /dev/vdb mklabel gpt mkpart mortar-brick 1MiB 100%".to_owned(),
        format!("mkfs.ext4 -q -F -L mortar-brick -U {UUID} -I 512 -i 8192 -m 1 -e remount-ro /dev/vdb1"),
        "mkdir -p /srv/gfs".to_owned(),
        format!("echo \"UUID={UUID} /srv/gfs ext4 noatime,nofail 0 2\" >> /etc/fstab"),
        "mount -t ext4 -o noatime /dev/vdb1 /srv/gfs".to_owned(),
        "mkdir -p /srv/gfs/brick".to_owned(),
    ];
    let made = plan(&request(), &blank(), UUID).unwrap();
    assert_eq!(made.steps.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    assert_eq!((made.destroys, made.missing, made.brick), (vec![], vec![], PathBuf::from("/srv/gfs/brick")));
}

#[test]
fn lvm_leaves_the_spare_and_names_things_as_the_howto() {
    let expected = [
        "parted --script --align optimal /dev/vdb mklabel gpt mkpart mortar-brick 1MiB 100% set 1 lvm on".to_owned(),
        "pvcreate --yes /dev/vdb1".to_owned(),
        "vgcreate vg_gfs /dev/vdb1".to_owned(),
        "lvcreate --yes --wipesignatures y -l 90%VG -n lv_brick vg_gfs".to_owned(),
        format!("mkfs.xfs -q -f -L mortar-brick -m uuid={UUID} -i size=512 /dev/vg_gfs/lv_brick"),
        "mkdir -p /srv/gfs".to_owned(),
        format!("echo \"UUID={UUID} /srv/gfs xfs noatime,nofail 0 0\" >> /etc/fstab"),
        "mount -t xfs -o noatime /dev/vg_gfs/lv_brick /srv/gfs".to_owned(),
        "mkdir -p /srv/gfs/brick".to_owned(),
    ];
    assert_eq!(steps(&Request { file_system: FileSystem::Xfs, ..with_lvm() }, &blank()), expected);
}

#[test]
fn a_prepared_brick_is_left_alone_even_with_force() {
    for request in [request(), forced()] {
        let made = plan(&request, &prepared(), UUID).unwrap();
        assert_eq!((made.steps, made.destroys), (vec![], vec![]));
    }
}

#[test]
fn after_an_interruption_only_the_rest_is_done() {
    let after_partition = steps(&request(), &named(&[]));
    assert!(after_partition[0].starts_with("mkfs.ext4 "), "{after_partition:?}");
    assert_eq!(after_partition.len(), 5);

    let after_mkfs = steps(&request(), &named(&[("ext4", Some(LABEL))]));
    let expected = [
        "mkdir -p /srv/gfs".to_owned(),
        format!("echo \"UUID={OLD} /srv/gfs ext4 noatime,nofail 0 2\" >> /etc/fstab"),
        "mount -t ext4 -o noatime /dev/vdb1 /srv/gfs".to_owned(),
        "mkdir -p /srv/gfs/brick".to_owned(),
    ];
    assert_eq!(after_mkfs, expected);

    let mut after_mount = prepared();
    after_mount.brick_exists = false;
    assert_eq!(steps(&request(), &after_mount), ["mkdir -p /srv/gfs/brick"]);
}

#[test]
fn lvm_is_continued_from_where_it_stands() {
    let mut facts = named(&[("LVM2_member", None)]);
    facts.lvm = Lvm { physical: vec![("/dev/vdb1".into(), None)], ..Lvm::default() };
    assert_eq!(steps(&with_lvm(), &facts)[0], "vgcreate vg_gfs /dev/vdb1");

    facts.lvm.physical[0].1 = Some("vg_gfs".into());
    facts.lvm.groups = vec!["vg_gfs".into()];
    assert!(steps(&with_lvm(), &facts)[0].starts_with("lvcreate "));

    facts.lvm.logical = vec!["lv_brick".into()];
    assert_eq!(refused(&with_lvm(), &facts), Refusal::VolumeInactive("vg_gfs/lv_brick".into()));

    facts.lvm.logical_node = Some(node("/dev/dm-0", &[]));
    facts.disk.partitions[0].holders = vec![node("/dev/dm-0", &[])];
    let mut busy = facts.clone();
    busy.lvm.logical_node = Some(Node { claimed: true, ..node("/dev/dm-0", &[]) });
    assert_eq!(refused(&with_lvm(), &busy), Refusal::Busy("/dev/dm-0".into()));
    assert!(steps(&with_lvm(), &facts)[0].starts_with("mkfs.ext4 "));
    assert!(steps(&with_lvm(), &facts)[0].ends_with(" /dev/dm-0"));
}

#[test]
fn a_signed_disk_is_refused_and_with_force_wiped_partitions_first() {
    let mut facts = named(&[("xfs", Some("mail"))]);
    facts.disk.partitions[0].partition_label = None;
    let holds = vec![
        "gpt partition table on /dev/vdb (10.0 GiB)".to_owned(),
        "xfs \"mail\" on /dev/vdb1 (10.0 GiB)".to_owned(),
    ];
    assert_eq!(refused(&request(), &facts), Refusal::Signed { device: "/dev/vdb".into(), holds: holds.clone() });
    let made = plan(&forced(), &facts, UUID).unwrap();
    assert_eq!(made.destroys, holds);
    let texts: Vec<String> = made.steps.iter().take(3).map(ToString::to_string).collect();
    assert_eq!(texts[..2], ["wipefs --all /dev/vdb1", "wipefs --all /dev/vdb"]);
    assert!(texts[2].starts_with("parted "));
}

#[test]
fn lines_that_mount_what_is_destroyed_leave_the_fstab() {
    let mut facts = blank();
    facts.disk.node = node("/dev/vdb", &[("ext4", None)]);
    facts.fstab = format!("/dev/vdb /srv/gfs ext4 defaults 1 2\nUUID={OLD} /b ext4 defaults 1 2\n/dev/vdc /c xfs\n");
    let texts = steps(&forced(), &facts);
    let out = |line: String| format!("in /etc/fstab, take out \"{line}\"");
    let stale = ["/dev/vdb /srv/gfs ext4 defaults 1 2".to_owned(), format!("UUID={OLD} /b ext4 defaults 1 2")];
    assert_eq!(texts[..2], stale.map(out), "and nothing is said of /dev/vdc: {texts:?}");
    assert!(texts.iter().any(|step| step.starts_with("echo ")), "the mount point's own line is new: {texts:?}");
}

#[test]
fn systemd_reads_a_changed_fstab_before_the_mount() {
    let facts = Facts { systemd: true, ..blank() };
    let texts = steps(&request(), &facts);
    let reload = texts.iter().position(|step| step == "systemctl daemon-reload").unwrap();
    assert!(texts[reload - 1].contains("fstab") && texts[reload + 1].starts_with("mount "), "{texts:?}");
    let texts = steps(&request(), &Facts { systemd: true, brick_exists: false, ..prepared() });
    assert_eq!(texts, ["mkdir -p /srv/gfs/brick"], "an unchanged one is not read again");
}

#[test]
fn a_physical_volume_is_listed_with_the_group_that_would_lose_it() {
    let mut facts = blank();
    facts.disk.node = node("/dev/vdb", &[("LVM2_member", None)]);
    facts.lvm = Lvm { physical: vec![("/dev/vdb".into(), Some("data".into()))], ..Lvm::default() };
    let made = plan(&forced(), &facts, UUID).unwrap();
    assert_eq!(made.destroys, ["LVM2_member of the volume group data on /dev/vdb (10.0 GiB)"]);
}

#[test]
fn partitions_that_only_the_kernel_still_knows_are_named() {
    let mut facts = blank();
    facts.disk.partitions = vec![node("/dev/vdb1", &[])];
    let holds = vec!["partition /dev/vdb1 (10.0 GiB)".to_owned()];
    assert_eq!(refused(&request(), &facts), Refusal::Signed { device: "/dev/vdb".into(), holds });
}

#[test]
fn our_own_file_system_of_the_other_kind_is_foreign() {
    let facts = named(&[("ext4", Some(LABEL))]);
    let xfs = Request { file_system: FileSystem::Xfs, ..request() };
    assert!(matches!(refused(&xfs, &facts), Refusal::Signed { .. }));
}

#[test]
fn a_mounted_disk_is_refused_and_with_force_unmounted_first() {
    let mut facts = blank();
    facts.disk.node = Node { mounts: vec!["/data".into()], ..node("/dev/vdb", &[("ext4", None)]) };
    assert_eq!(refused(&request(), &facts), Refusal::Mounted { device: "/dev/vdb".into(), at: "/data".into() });
    assert_eq!(steps(&forced(), &facts)[..2], ["umount /data", "wipefs --all /dev/vdb"]);
    facts.disk.node.mounts.push("/data/below".into());
    assert_eq!(steps(&forced(), &facts)[..2], ["umount /data/below", "umount /data"]);
}

#[test]
fn the_system_disk_is_refused_even_with_force() {
    let mut facts = named(&[("ext4", None)]);
    facts.disk.partitions[0].mounts = vec!["/".into()];
    assert_eq!(refused(&forced(), &facts), Refusal::System { device: "/dev/vdb1".into(), at: "/".into() });

    let root = Node { mounts: vec!["/".into()], ..node("/dev/dm-0", &[]) };
    facts.disk.partitions[0] = Node { holders: vec![root], ..node("/dev/vdb1", &[("LVM2_member", None)]) };
    assert_eq!(refused(&forced(), &facts), Refusal::System { device: "/dev/dm-0".into(), at: "/".into() });
}

#[test]
fn held_and_busy_devices_are_refused_even_with_force() {
    let mut facts = named(&[("linux_raid_member", None)]);
    facts.disk.partitions[0].holders = vec![node("/dev/md0", &[])];
    assert_eq!(refused(&forced(), &facts), Refusal::Held { device: "/dev/vdb1".into(), by: "/dev/md0".into() });

    let mut facts = blank();
    facts.disk.node.claimed = true;
    assert_eq!(refused(&forced(), &facts), Refusal::Busy("/dev/vdb".into()));
}

#[test]
fn swap_is_refused_and_with_force_switched_off() {
    let mut facts = blank();
    facts.disk.node = Node { swap: true, ..node("/dev/vdb", &[("swap", None)]) };
    assert_eq!(refused(&request(), &facts), Refusal::Swap("/dev/vdb".into()));
    assert_eq!(steps(&forced(), &facts)[0], "swapoff /dev/vdb");
}

#[test]
fn the_mount_point_must_be_free_and_empty() {
    let mut facts = blank();
    facts.place = Place::FullFolder;
    assert_eq!(refused(&request(), &facts), Refusal::MountPointFull("/srv/gfs".into()));
    assert!(plan(&forced(), &facts, UUID).is_ok());
    facts.place = Place::NotFolder;
    assert_eq!(refused(&forced(), &facts), Refusal::MountPointNoFolder("/srv/gfs".into()));
    facts.mounted_there = Some("/dev/vdc1".into());
    let taken = Refusal::MountPointTaken { at: "/srv/gfs".into(), of: "/dev/vdc1".into() };
    assert_eq!(refused(&forced(), &facts), taken);
}

#[test]
fn a_brick_mounted_elsewhere_is_named_and_not_touched() {
    let mut facts = prepared();
    facts.disk.partitions[0].mounts = vec!["/mnt".into()];
    facts.mounted_there = None;
    let expected = Refusal::MountedElsewhere { device: "/dev/vdb1".into(), at: "/mnt".into() };
    assert_eq!(refused(&forced(), &facts), expected);
}

#[test]
fn another_fstab_line_is_refused_and_with_force_replaced() {
    let mut facts = blank();
    facts.fstab = "/dev/vdc1 /srv/gfs ext4 defaults 1 2\n".into();
    assert!(matches!(refused(&request(), &facts), Refusal::FstabTaken { .. }));
    let replaced = steps(&forced(), &facts);
    assert!(replaced.iter().any(|step| step.starts_with("in /etc/fstab, replace \"/dev/vdc1 ")), "{replaced:?}");
}

#[test]
fn read_only_and_small_devices_are_refused() {
    let mut facts = blank();
    facts.disk.read_only = true;
    assert_eq!(refused(&forced(), &facts), Refusal::ReadOnly("/dev/vdb".into()));
    let mut facts = blank();
    facts.disk.node.size_bytes = 100 << 20;
    assert!(matches!(refused(&forced(), &facts), Refusal::TooSmall { .. }));
}

#[test]
fn a_group_of_the_same_name_elsewhere_is_refused() {
    let mut facts = blank();
    facts.lvm.groups = vec!["vg_gfs".into()];
    assert_eq!(refused(&with_lvm(), &facts), Refusal::GroupTaken("vg_gfs".into()));
}

#[test]
fn missing_tools_are_part_of_the_plan_so_that_a_dry_run_shows_it() {
    let mut facts = blank();
    facts.tools.remove(&Tool::MkfsExt4);
    facts.tools.remove(&Tool::MkfsXfs);
    let Plan { missing, steps, .. } = plan(&request(), &facts, UUID).unwrap();
    assert_eq!((missing, steps.len()), (vec![Tool::MkfsExt4], 6));
}

#[test]
fn a_partition_is_used_as_it_is() {
    let mut facts = blank();
    facts.disk.used_as_it_is = true;
    facts.disk.node.path = "/dev/nvme0n1p3".into();
    let steps = steps(&request(), &facts);
    assert!(steps[0].starts_with("mkfs.ext4 ") && steps[0].ends_with(" /dev/nvme0n1p3"), "{steps:?}");
}

#[test]
fn the_words_show_losses_first() {
    let made = plan(&forced(), &named(&[("xfs", Some("mail"))]), UUID).unwrap();
    let text = words::describe(&made, Path::new("/dev/vdb"), TEN_GIB);
    let start = "/dev/vdb (10.0 GiB): ALL OF THIS WILL BE LOST:\n  gpt partition table on /dev/vdb (10.0 GiB)\n";
    assert!(text.starts_with(start), "{text}");
    let none = plan(&request(), &prepared(), UUID).unwrap();
    assert_eq!(
        words::describe(&none, Path::new("/dev/vdb"), TEN_GIB),
        "/dev/vdb (10.0 GiB) is prepared already. The brick's folder: /srv/gfs/brick\n"
    );
}
