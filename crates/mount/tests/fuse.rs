//! The adapter behind a real kernel, over a volume in memory.

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use mortar_mount::bridge::Config;
use mortar_types::{Errno, FopKind, Iatt, Upcall};
use rustix::fs::{FallocateFlags, FlockOperation, RenameFlags, XattrFlags};

use support::TestMount;

/// Whether it comes true within a second.
fn soon(mut condition: impl FnMut() -> bool) -> bool {
    (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        condition()
    })
}

#[test]
fn a_file_is_written_and_read_back() {
    let Some(mount) = TestMount::new() else { return };
    let path = mount.path("file");
    let data: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    fs::write(&path, &data).unwrap();
    assert_eq!(fs::read(&path).unwrap(), data);
    assert_eq!(fs::metadata(&path).unwrap().len(), data.len() as u64);
}

#[test]
fn names_are_made_moved_and_removed() {
    let Some(mount) = TestMount::new() else { return };
    fs::create_dir(mount.path("dir")).unwrap();
    fs::write(mount.path("dir/a"), "x").unwrap();
    fs::rename(mount.path("dir/a"), mount.path("b")).unwrap();
    fs::hard_link(mount.path("b"), mount.path("dir/c")).unwrap();
    assert_eq!(fs::metadata(mount.path("b")).unwrap().nlink(), 2);
    assert_eq!(fs::metadata(mount.path("b")).unwrap().ino(), fs::metadata(mount.path("dir/c")).unwrap().ino());
    symlink("dir/c", mount.path("link")).unwrap();
    assert_eq!(fs::read(mount.path("link")).unwrap(), b"x");
    assert_eq!(fs::remove_dir(mount.path("dir")).unwrap_err().raw_os_error(), Some(39));
    fs::remove_file(mount.path("dir/c")).unwrap();
    fs::remove_dir(mount.path("dir")).unwrap();
    assert!(!mount.path("dir").exists());
}

#[test]
fn a_long_name_is_refused_as_too_long() {
    let Some(mount) = TestMount::new() else { return };
    let error = File::create(mount.path("x".repeat(256))).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(36));
    File::create(mount.path("x".repeat(255))).unwrap();
}

#[test]
fn rename_without_replacement_refuses_an_existing_name_and_moves_files_and_directories() {
    let Some(mount) = TestMount::new() else { return };
    let dir = File::open(mount.root()).unwrap();
    let rename = |old: &str, new: &str, flags| rustix::fs::renameat_with(&dir, old, &dir, new, flags);
    fs::write(mount.path("file"), "1").unwrap();
    fs::write(mount.path("other"), "2").unwrap();
    fs::create_dir(mount.path("dir")).unwrap();
    fs::write(mount.path("dir/inside"), "3").unwrap();
    assert_eq!(rename("file", "other", RenameFlags::NOREPLACE), Err(rustix::io::Errno::EXIST));
    rename("file", "moved", RenameFlags::NOREPLACE).unwrap();
    assert!(!mount.path("file").exists());
    assert_eq!(fs::metadata(mount.path("moved")).unwrap().nlink(), 1);
    rename("dir", "moved-dir", RenameFlags::NOREPLACE).unwrap();
    assert_eq!(fs::read(mount.path("moved-dir/inside")).unwrap(), b"3");
    assert_eq!(rename("moved", "other", RenameFlags::EXCHANGE), Err(rustix::io::Errno::INVAL));
}

#[test]
fn an_open_file_works_after_its_last_name_is_gone() {
    let Some(mount) = TestMount::new() else { return };
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(mount.path("file")).unwrap();
    file.write_all(b"hello").unwrap();
    fs::remove_file(mount.path("file")).unwrap();
    file.write_all(b" world").unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
    file.set_len(8).unwrap();
    let metadata = file.metadata().unwrap();
    assert_eq!((metadata.len(), metadata.nlink(), metadata.mode() & 0o777), (8, 0, 0o600));
    rustix::fs::fsetxattr(&file, "user.k", b"v", XattrFlags::empty()).unwrap();
    let mut value = [0_u8; 8];
    assert_eq!(rustix::fs::fgetxattr(&file, "user.k", &mut value[..]).unwrap(), 1);
    let mut data = String::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_string(&mut data).unwrap();
    assert_eq!(data, "hello wo");
}

#[test]
fn attributes_are_set_one_by_one() {
    let Some(mount) = TestMount::new() else { return };
    let path = mount.path("file");
    fs::write(&path, "x").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4711)).unwrap();
    std::os::unix::fs::chown(&path, Some(1000), Some(100)).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 5);
    File::open(&path).unwrap().set_times(fs::FileTimes::new().set_modified(time)).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.modified().unwrap()), (1000, 100, time));
}

#[test]
fn a_directory_of_five_thousand_lists_each_name_once() {
    let Some(mount) = TestMount::new() else { return };
    fs::create_dir(mount.path("dir")).unwrap();
    for number in 0..5000 {
        File::create(mount.path(format!("dir/file-{number:05}"))).unwrap();
    }
    let mut names: Vec<_> = fs::read_dir(mount.path("dir"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected: Vec<_> = (0..5000).map(|number| format!("file-{number:05}")).collect();
    assert_eq!(names, expected);
}

#[test]
fn the_inode_number_of_a_listing_is_that_of_stat() {
    let Some(mount) = TestMount::new() else { return };
    fs::write(mount.path("file"), "x").unwrap();
    let entry = fs::read_dir(mount.root()).unwrap().next().unwrap().unwrap();
    let listed = std::os::unix::fs::DirEntryExt::ino(&entry);
    assert_eq!(listed, fs::metadata(mount.path("file")).unwrap().ino());
}

#[test]
fn appends_of_two_writers_do_not_overwrite_each_other() {
    let Some(mount) = TestMount::new() else { return };
    let path = mount.path("log");
    let writers: Vec<_> = [b'a', b'b']
        .into_iter()
        .map(|letter| {
            let path = path.clone();
            std::thread::spawn(move || {
                let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
                for _ in 0..200 {
                    file.write_all(&[letter; 10]).unwrap();
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let data = fs::read(&path).unwrap();
    assert_eq!(data.len(), 4000);
    assert!(data.chunks(10).all(|chunk| chunk.iter().all(|byte| *byte == chunk[0])));
}

#[test]
fn direct_io_reads_what_was_written() {
    let Some(mount) = TestMount::new() else { return };
    let options = |options: &mut OpenOptions| options.custom_flags(0o40000).clone();
    let file = options(OpenOptions::new().read(true).write(true).create(true).truncate(true))
        .open(mount.path("file"))
        .unwrap();
    file.write_all_at(&vec![7; 4096], 0).unwrap();
    let mut back = vec![0; 4096];
    file.read_exact_at(&mut back, 0).unwrap();
    assert_eq!(back, vec![7; 4096]);
}

#[test]
fn an_open_truncates() {
    let Some(mount) = TestMount::new() else { return };
    fs::write(mount.path("file"), "long content").unwrap();
    fs::write(mount.path("file"), "short").unwrap();
    assert_eq!(fs::read(mount.path("file")).unwrap(), b"short");
}

#[test]
fn space_is_reserved_punched_and_zeroed() {
    let Some(mount) = TestMount::new() else { return };
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(mount.path("file")).unwrap();
    file.write_all_at(b"0123456789", 0).unwrap();
    let allocate = |flags, offset, length| rustix::fs::fallocate(&file, flags, offset, length);
    allocate(FallocateFlags::KEEP_SIZE, 0, 100).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 10);
    allocate(FallocateFlags::empty(), 0, 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 20);
    allocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 2, 3).unwrap();
    allocate(FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, 8, 100).unwrap();
    assert_eq!(fs::read(mount.path("file")).unwrap(), b"01\0\0\x0056\x37\0\0\0\0\0\0\0\0\0\0\0\0".as_slice());
    assert_eq!(allocate(FallocateFlags::COLLAPSE_RANGE, 0, 4), Err(rustix::io::Errno::OPNOTSUPP));
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap(), 20);
}

#[test]
fn extended_attributes_are_the_applications_and_hidden_ones_are_not() {
    let Some(mount) = TestMount::new() else { return };
    let path = mount.path("file");
    fs::write(&path, "x").unwrap();
    let set = |name: &str, flags| rustix::fs::setxattr(&path, name, b"value", flags);
    set("user.a", XattrFlags::CREATE).unwrap();
    assert_eq!(set("user.a", XattrFlags::CREATE), Err(rustix::io::Errno::EXIST));
    assert_eq!(set("user.b", XattrFlags::REPLACE), Err(rustix::io::Errno::NODATA));
    assert_eq!(set("trusted.gfid", XattrFlags::empty()), Err(rustix::io::Errno::PERM));
    assert_eq!(set("system.posix_acl_access", XattrFlags::empty()), Err(rustix::io::Errno::OPNOTSUPP));
    let mut small = [0_u8; 2];
    assert_eq!(rustix::fs::getxattr(&path, "user.a", &mut small[..]), Err(rustix::io::Errno::RANGE));
    assert_eq!(rustix::fs::getxattr_query(&path, "user.a"), Ok(5));
    let mut list = [0_u8; 64];
    let length = rustix::fs::listxattr(&path, &mut list[..]).unwrap();
    assert_eq!(&list[..length], b"user.a\0");
    rustix::fs::removexattr(&path, "user.a").unwrap();
    assert_eq!(rustix::fs::getxattr(&path, "user.a", &mut list[..]), Err(rustix::io::Errno::NODATA));
}

#[test]
fn locks_exclude_and_end_with_the_last_close() {
    let Some(mount) = TestMount::new() else { return };
    fs::write(mount.path("file"), "x").unwrap();
    let open = || OpenOptions::new().read(true).write(true).open(mount.path("file")).unwrap();
    let (first, second) = (open(), open());
    rustix::fs::flock(&first, FlockOperation::NonBlockingLockExclusive).unwrap();
    let refused = rustix::fs::flock(&second, FlockOperation::NonBlockingLockShared);
    assert_eq!(refused, Err(rustix::io::Errno::AGAIN));
    drop(first);
    // Not at once: a process that another test starts at this moment has the file open until it executes.
    assert!(soon(|| rustix::fs::flock(&second, FlockOperation::NonBlockingLockShared).is_ok()));
}

#[test]
fn a_waiting_lock_is_granted_when_the_other_is_released() {
    let Some(mount) = TestMount::new() else { return };
    fs::write(mount.path("file"), "x").unwrap();
    let open = || OpenOptions::new().read(true).write(true).open(mount.path("file")).unwrap();
    let (first, second) = (open(), open());
    rustix::fs::flock(&first, FlockOperation::LockExclusive).unwrap();
    let waiter = std::thread::spawn(move || rustix::fs::flock(&second, FlockOperation::LockExclusive));
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(!waiter.is_finished());
    rustix::fs::flock(&first, FlockOperation::Unlock).unwrap();
    waiter.join().unwrap().unwrap();
}

#[test]
fn a_close_without_locks_and_a_read_cost_no_needless_fop() {
    let Some(mount) = TestMount::new() else { return };
    fs::write(mount.path("file"), "x").unwrap();
    mount.volume.take_calls();
    let mut file = File::open(mount.path("file")).unwrap();
    let mut data = String::new();
    file.read_to_string(&mut data).unwrap();
    drop(file);
    let calls = mount.volume.take_calls();
    assert!(!calls.contains(&FopKind::Flush), "{calls:?}");
    assert!(!calls.contains(&FopKind::Getxattr), "{calls:?}");
    let mut file = OpenOptions::new().write(true).open(mount.path("file")).unwrap();
    mount.volume.take_calls();
    file.write_all(b"y").unwrap();
    file.write_all(b"z").unwrap();
    // A release may come late; it is nobody's wait.
    let calls: Vec<_> = mount.volume.take_calls().into_iter().filter(|kind| *kind != FopKind::Release).collect();
    assert_eq!(calls, [FopKind::Write, FopKind::Write]);
}

#[test]
fn what_another_client_changed_is_seen_at_once_after_its_upcall() {
    let hour = Duration::from_secs(3600);
    let config = Config { attribute_timeout: hour, entry_timeout: hour, ..Config::default() };
    let Some(mount) = TestMount::with(config) else { return };
    let path = mount.path("file");
    fs::write(&path, "old").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(fs::metadata(&path).unwrap().len(), 3);
    let gfid = mount.volume.child_of_root("file");
    mount.volume.overwrite(gfid, b"newer");
    assert_eq!(fs::metadata(&path).unwrap().len(), 3);
    let (stat, parent, old_parent) = (Iatt::default(), Iatt::default(), Iatt::default());
    mount.volume.upcall(Upcall::CacheInvalidation { gfid, flags: 0x18, stat, parent, old_parent, xdata: None });
    assert!(soon(|| fs::read(&path).unwrap() == b"newer"));
}

#[test]
fn a_waiting_lock_can_be_interrupted_and_leaves_nothing_behind() {
    let Some(mount) = TestMount::new() else { return };
    fs::write(mount.path("file"), "x").unwrap();
    let open = || OpenOptions::new().read(true).write(true).open(mount.path("file")).unwrap();
    let holder = open();
    rustix::fs::flock(&holder, FlockOperation::LockExclusive).unwrap();
    let mut waiter = Command::new("flock").arg(mount.path("file")).arg("true").spawn().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(waiter.try_wait().unwrap(), None);
    // Without the interrupt the process would stay in the kernel until the lock is free.
    waiter.kill().unwrap();
    waiter.wait().unwrap();
    drop(holder);
    let next = open();
    assert!(soon(|| rustix::fs::flock(&next, FlockOperation::NonBlockingLockExclusive).is_ok()));
}

#[test]
fn a_shared_mapping_is_written_back() {
    let Some(mount) = TestMount::new() else { return };
    let path = mount.path("file");
    fs::write(&path, vec![b'.'; 8192]).unwrap();
    let script =
        "import mmap,sys; f=open(sys.argv[1],'r+b'); m=mmap.mmap(f.fileno(),0); m[4000:4200]=b'x'*200; m.flush()";
    let Ok(status) = Command::new("python3").arg("-c").arg(script).arg(&path).status() else {
        mortar_testkit::needs::skip("needs python3");
        return;
    };
    assert!(status.success());
    let data = fs::read(&path).unwrap();
    assert_eq!(data.iter().filter(|byte| **byte == b'x').count(), 200);
    assert_eq!(&data[4000..4200], &[b'x'; 200]);
}

#[test]
fn a_write_by_another_user_clears_set_user_id() {
    let Some(mount) = TestMount::new() else { return };
    let path = mount.path("tool");
    fs::write(&path, "x").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6777)).unwrap();
    fs::set_permissions(mount.root(), fs::Permissions::from_mode(0o777)).unwrap();
    let status = Command::new("sh").arg("-c").arg("echo y >> \"$0\"").arg(&path).uid(65_534).gid(65_534).status();
    assert!(status.unwrap().success());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o777);
}

#[test]
fn unmounting_ends_the_session_after_its_work() {
    let Some(mount) = TestMount::new() else { return };
    fs::write(mount.path("file"), "x").unwrap();
    let volume = mount.volume.clone();
    mount.unmount();
    assert!(volume.take_calls().contains(&FopKind::Release));
}

#[test]
fn a_panic_is_an_error_of_one_request() {
    let Some(mount) = TestMount::new() else { return };
    let failed = fs::metadata(mount.path("panic")).unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(Errno::EIO.0));
    fs::write(mount.path("file"), "it goes on").unwrap();
}
