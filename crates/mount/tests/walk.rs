//! Files of a directory that are looked up one after the other, on a real mount: few lookups reach the volume, and nothing
//! that changed meanwhile is shown as it was. Needs root and /dev/fuse.

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use mortar_mount::bridge::Config;
use mortar_types::{FopKind, Iatt, Upcall};

use support::TestMount;

const FILES: usize = 300;

/// A mount with files that the kernel does not know yet, and will believe for so long.
fn mount_with_files(timeout: Duration) -> Option<TestMount> {
    let config = Config { attribute_timeout: timeout, entry_timeout: timeout, ..Config::default() };
    let mount = TestMount::with(config)?;
    for number in 0..FILES {
        mount.volume.make_file(&name(number), &[b'x'; 7]);
    }
    Some(mount)
}

/// For tests in which entries get too old.
const SHORT: Duration = Duration::from_secs(1);
/// Longer than a busy machine takes for any of these tests.
const LONG: Duration = Duration::from_secs(60);

fn name(number: usize) -> String {
    format!("file{number:03}")
}

fn file(mount: &TestMount, number: usize) -> PathBuf {
    mount.path(name(number))
}

/// Enough lookups that the listing is fetched, and time for it.
fn begin_walk(mount: &TestMount) {
    for number in 0..40 {
        fs::symlink_metadata(file(mount, number)).unwrap();
    }
    std::thread::sleep(Duration::from_millis(50));
    for number in 40..50 {
        fs::symlink_metadata(file(mount, number)).unwrap();
    }
    std::thread::sleep(Duration::from_millis(50));
    mount.volume.take_calls();
}

fn lookups(mount: &TestMount) -> usize {
    mount.volume.take_calls().into_iter().filter(|kind| *kind == FopKind::Lookup).count()
}

#[test]
fn a_walk_through_a_directory_costs_few_lookups() {
    let Some(mount) = mount_with_files(LONG) else { return };
    begin_walk(&mount);
    for number in 50..FILES {
        assert_eq!(fs::symlink_metadata(file(&mount, number)).unwrap().size(), 7);
    }
    let asked = lookups(&mount);
    assert!(asked < 10, "{asked} lookups");
}

/// The file is open, so that it can be changed without a lookup, and its name has to be looked up again.
#[test]
fn a_write_after_the_listing_was_fetched_is_shown() {
    let Some(mount) = mount_with_files(SHORT) else { return };
    let mut open = File::options().append(true).open(file(&mount, 100)).unwrap();
    std::thread::sleep(SHORT);
    begin_walk(&mount);
    open.write_all(b"and more").unwrap();
    assert_eq!(fs::symlink_metadata(file(&mount, 100)).unwrap().size(), 15);
}

/// Its removal is a change of the other name's file, which it does not name.
#[test]
fn a_name_removed_after_the_listing_was_fetched_counts_for_the_files_other_name() {
    let Some(mount) = mount_with_files(LONG) else { return };
    mount.volume.make_link(&name(101), "other");
    begin_walk(&mount);
    fs::remove_file(file(&mount, 101)).unwrap();
    assert!(fs::symlink_metadata(file(&mount, 101)).is_err());
    assert_eq!(fs::symlink_metadata(mount.path("other")).unwrap().nlink(), 1);
}

#[test]
fn what_others_changed_and_the_volume_told_is_looked_up() {
    let Some(mount) = mount_with_files(LONG) else { return };
    begin_walk(&mount);
    let gfid = mount.volume.child_of_root("file200");
    mount.volume.overwrite(gfid, b"theirs, longer");
    let (stat, parent, old_parent) = (Iatt::default(), Iatt::default(), Iatt::default());
    mount.volume.upcall(Upcall::CacheInvalidation { gfid, flags: 0x18, stat, parent, old_parent, xdata: None });
    assert_eq!(fs::symlink_metadata(file(&mount, 200)).unwrap().size(), 14);
}

#[test]
fn after_the_timeout_the_volume_is_asked_again() {
    let Some(mount) = mount_with_files(SHORT) else { return };
    begin_walk(&mount);
    let gfid = mount.volume.child_of_root("file250");
    mount.volume.overwrite(gfid, b"untold");
    std::thread::sleep(SHORT);
    assert_eq!(fs::symlink_metadata(file(&mount, 250)).unwrap().size(), 6);
}

#[test]
fn two_lookups_are_no_walk() {
    let Some(mount) = mount_with_files(LONG) else { return };
    for number in [10, 20] {
        fs::symlink_metadata(file(&mount, number)).unwrap();
    }
    std::thread::sleep(Duration::from_millis(50));
    assert!(!mount.volume.take_calls().contains(&FopKind::Readdirp));
}
