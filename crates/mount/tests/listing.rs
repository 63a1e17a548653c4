//! Listings of a real mount over a real brick, whose positions are a file system's own, while the directory changes and
//! while part of the listing is fetched ahead. Needs root, /dev/fuse and trusted xattrs below the temporary directory.

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mortar_mount::bridge::Config;
use rustix::fs::{Dir, Mode, OFlags, SeekFrom};

use support::TestMount;

fn fill(directory: &Path, count: u32) {
    fs::create_dir(directory).unwrap();
    for number in 0..count {
        File::create(directory.join(format!("file-{number:05}"))).unwrap();
    }
}

fn open(directory: &Path) -> Dir {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Dir::new(rustix::fs::open(directory, flags, Mode::empty()).unwrap()).unwrap()
}

/// The next name that is no dot.
fn next(dir: &mut Dir) -> Option<String> {
    loop {
        let name = dir.read()?.unwrap().file_name().to_str().unwrap().to_owned();
        if name != "." && name != ".." {
            return Some(name);
        }
    }
}

fn rest(dir: &mut Dir) -> Vec<String> {
    std::iter::from_fn(|| next(dir)).collect()
}

/// How often each name came.
fn counted(names: impl IntoIterator<Item = String>) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    names.into_iter().for_each(|name| *counts.entry(name).or_default() += 1);
    counts
}

#[test]
fn five_thousand_names_come_once_each_with_their_attributes() {
    let Some(mount) = TestMount::over_brick(Config::default()) else { return };
    let directory = mount.path("dir");
    fill(&directory, 5000);
    fs::write(directory.join("file-04321"), "four").unwrap();
    let listed: Vec<_> = fs::read_dir(&directory).unwrap().map(Result::unwrap).collect();
    assert_eq!(listed.len(), 5000);
    for entry in &listed {
        let size = if entry.file_name() == "file-04321" { 4 } else { 0 };
        assert_eq!(entry.metadata().unwrap().len(), size);
    }
    assert!(counted(listed.iter().map(|entry| entry.file_name().into_string().unwrap())).len() == 5000);
}

#[test]
fn names_made_and_removed_meanwhile_disturb_no_other() {
    let Some(mount) = TestMount::over_brick(Config::default()) else { return };
    let directory = mount.path("dir");
    fill(&directory, 3000);
    let mut dir = open(&directory);
    let mut seen: Vec<_> = (0..100).map(|_| next(&mut dir).unwrap()).collect();
    for number in 0..3000_u32 {
        match number % 10 {
            3 => fs::remove_file(directory.join(format!("file-{number:05}"))).unwrap(),
            7 => drop(File::create(directory.join(format!("new-{number:05}"))).unwrap()),
            _ => {}
        }
    }
    seen.extend(rest(&mut dir));
    let counts = counted(seen);
    assert!(counts.values().all(|count| *count == 1));
    for number in (0..3000).filter(|number| number % 10 != 3) {
        assert!(counts.contains_key(&format!("file-{number:05}")), "{number}");
    }
}

#[test]
fn a_rewound_listing_shows_what_is_there_now() {
    let Some(mount) = TestMount::over_brick(Config::default()) else { return };
    let directory = mount.path("dir");
    fill(&directory, 1500);
    let mut dir = open(&directory);
    for _ in 0..700 {
        next(&mut dir);
    }
    fs::remove_file(directory.join("file-00000")).unwrap();
    File::create(directory.join("new")).unwrap();
    dir.rewind();
    let counts = counted(rest(&mut dir));
    assert_eq!(counts.len(), 1500);
    assert!(counts.contains_key("new") && !counts.contains_key("file-00000"));
}

#[test]
fn a_listing_goes_on_wherever_it_is_told_to() {
    let Some(mount) = TestMount::over_brick(Config::default()) else { return };
    let directory = mount.path("dir");
    fill(&directory, 2000);
    let mut dir = open(&directory);
    let (mut names, mut positions) = (Vec::new(), Vec::new());
    while let Some(entry) = dir.read() {
        let entry = entry.unwrap();
        names.push(entry.file_name().to_owned());
        positions.push(entry.offset());
    }
    assert_eq!(names.len(), 2002);
    // Back, forth, and to where something was fetched ahead.
    for at in [1999, 3, 1000, 1001, 150, 0, 700, 2000] {
        let fd = rustix::fs::open(&directory, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        rustix::fs::seek(&fd, SeekFrom::Start(positions[at].cast_unsigned())).unwrap();
        let mut dir = Dir::new(fd).unwrap();
        let follows: Vec<_> =
            std::iter::from_fn(|| dir.read()).map(|entry| entry.unwrap().file_name().to_owned()).collect();
        assert_eq!(follows, names[at + 1..], "after entry {at}");
    }
    // The same through one descriptor, in the middle of its listing.
    let mut dir = open(&directory);
    for _ in 0..300 {
        next(&mut dir);
    }
    dir.seek(positions[1200]).unwrap();
    assert_eq!(next(&mut dir).unwrap().as_bytes(), names[1201].to_bytes());
}

#[test]
fn a_tree_is_removed_while_it_is_listed() {
    let Some(mount) = TestMount::over_brick(Config::default()) else { return };
    let directory = mount.path("dir");
    fill(&directory, 3000);
    let mut dir = open(&directory);
    next(&mut dir);
    let status = Command::new("rm").arg("-rf").arg(&directory).status().unwrap();
    assert!(status.success() && !directory.exists());
    // What the other had fetched may still come, once each; nothing of it exists.
    let counts = counted(rest(&mut dir));
    assert!(counts.values().all(|count| *count == 1));
    for name in counts.keys() {
        assert!(!directory.join(name).exists());
    }
}

#[test]
fn two_processes_list_one_directory_at_once() {
    let Some(mount) = TestMount::over_brick(Config::default()) else { return };
    let directory = mount.path("dir");
    fill(&directory, 2000);
    let list = || Command::new("ls").arg("-l").arg(&directory).stdout(std::process::Stdio::piped()).spawn().unwrap();
    for child in [list(), list(), list()] {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 2001);
    }
}

#[test]
fn two_threads_share_one_open_directory() {
    let Some(mount) = TestMount::over_brick(Config::default()) else { return };
    let directory = mount.path("dir");
    fill(&directory, 2000);
    let fd = rustix::fs::open(&directory, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let read = || {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 8192];
        let mut raw = rustix::fs::RawDir::new(&fd, &mut buffer);
        let mut names = Vec::new();
        while let Some(entry) = raw.next() {
            names.push(entry.unwrap().file_name().to_str().unwrap().to_owned());
        }
        names
    };
    let (one, two) = std::thread::scope(|scope| {
        let (one, two) = (scope.spawn(read), scope.spawn(read));
        (one.join().unwrap(), two.join().unwrap())
    });
    let counts = counted(one.into_iter().chain(two));
    assert_eq!(counts.len(), 2002);
    assert!(counts.values().all(|count| *count == 1));
}

/// Files in the tests of what was fetched ahead: the first answer holds less than half of them.
const FILES: u32 = 200;

/// A listing that is begun, and the names that it has not shown, which are on their way.
struct Begun {
    dir: Dir,
    directory: PathBuf,
    unseen: Vec<String>,
}

impl Begun {
    fn new(directory: PathBuf) -> Self {
        let mut dir = open(&directory);
        let seen: Vec<_> = (0..20).map(|_| next(&mut dir).unwrap()).collect();
        let begun = Self { dir, directory, unseen: Vec::new() };
        // The kernel asks for attributes only while somebody makes use of them.
        seen.iter().for_each(|name| drop(fs::metadata(begun.path(name))));
        std::thread::sleep(Duration::from_millis(20));
        let all = (0..FILES).map(|number| format!("file-{number:05}"));
        Self { unseen: all.filter(|name| !seen.contains(name)).collect(), ..begun }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Goes on as `ls -l` does, which looks at every name when it comes. Returns how many came.
    fn rest(&mut self, mut look: impl FnMut(&str, &Path)) -> usize {
        let mut count = 0;
        while let Some(name) = next(&mut self.dir) {
            look(&name, &self.directory.join(&name));
            count += 1;
        }
        count
    }
}

#[test]
fn what_was_written_meanwhile_is_not_unwritten_by_the_listing() {
    let Some(mount) = TestMount::over_brick(Config::default()) else { return };
    let directory = mount.path("dir");
    fill(&directory, FILES);
    let mut begun = Begun::new(directory);
    // All that the volume told before these writes says that the files are empty.
    for name in &begun.unseen {
        File::options().append(true).open(begun.path(name)).unwrap().write_all(b"12345").unwrap();
    }
    let unseen = begun.unseen.clone();
    let count = begun.rest(|name, path| {
        if unseen.iter().any(|unseen| unseen == name) {
            assert_eq!(fs::metadata(path).unwrap().len(), 5, "{name}");
            assert_eq!(fs::read(path).unwrap(), b"12345", "{name}");
        }
    });
    assert_eq!(count, unseen.len());
}

#[test]
fn what_was_removed_meanwhile_does_not_come_back_with_the_listing() {
    let Some(mount) = TestMount::over_brick(Config::default()) else { return };
    let directory = mount.path("dir");
    fill(&directory, FILES);
    let mut begun = Begun::new(directory);
    begun.unseen.iter().for_each(|name| fs::remove_file(begun.path(name)).unwrap());
    let again = begun.unseen.last().unwrap().clone();
    fs::write(begun.path(&again), "again").unwrap();
    begun.rest(|name, path| {
        // The second look comes from the kernel's cache.
        for _ in 0..2 {
            assert_eq!(fs::metadata(path).map_or(0, |file| file.len()), if name == again { 5 } else { 0 });
            assert_eq!(path.exists(), name == again, "{name}");
        }
    });
}

#[test]
fn a_lost_name_is_missing_from_the_count_of_its_files_other_names() {
    let Some(mount) = TestMount::over_brick(Config::default()) else { return };
    let directory = mount.path("dir");
    fill(&directory, FILES);
    let other = mount.path("other");
    fs::create_dir(&other).unwrap();
    for number in 0..FILES {
        let name = format!("file-{number:05}");
        fs::hard_link(directory.join(&name), other.join(&name)).unwrap();
    }
    let mut begun = Begun::new(directory);
    begun.unseen.iter().for_each(|name| fs::remove_file(other.join(name)).unwrap());
    let unseen = begun.unseen.clone();
    begun.rest(|name, path| {
        if unseen.iter().any(|unseen| unseen == name) {
            assert_eq!(fs::metadata(path).unwrap().nlink(), 1, "{name}");
        }
    });
}

#[test]
fn changed_permissions_hold_against_the_listing() {
    let hour = Duration::from_secs(3600);
    let config = Config { attribute_timeout: hour, entry_timeout: hour, ..Config::default() };
    let Some(mount) = TestMount::over_brick(config) else { return };
    let directory = mount.path("dir");
    fill(&directory, FILES);
    let mut begun = Begun::new(directory);
    for name in &begun.unseen {
        fs::set_permissions(begun.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let unseen = begun.unseen.clone();
    begun.rest(|name, path| {
        if unseen.iter().any(|unseen| unseen == name) {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o600, "{name}");
        }
    });
}

#[test]
fn a_listing_that_pauses_shows_no_old_attributes() {
    let Some(mount) = TestMount::over_brick(Config::default()) else { return };
    let directory = mount.path("dir");
    fill(&directory, FILES);
    // So that the kernel knows nothing of the files from before.
    std::thread::sleep(Duration::from_millis(1100));
    let mut begun = Begun::new(directory);
    std::thread::sleep(Duration::from_millis(1100));
    // Behind the mount's back: only age can tell.
    let brick = mount.brick().unwrap().join("dir");
    begun.unseen.iter().for_each(|name| fs::write(brick.join(name), "elsewhere").unwrap());
    // The kernel's own buffer, filled before, ages too.
    let unseen = begun.unseen.clone();
    begun.rest(|name, path| {
        if unseen.iter().any(|unseen| unseen == name) {
            assert_eq!(fs::metadata(path).unwrap().len(), 9, "{name}");
        }
    });
}

#[test]
fn timeouts_of_nothing_list_completely() {
    let config = Config { attribute_timeout: Duration::ZERO, entry_timeout: Duration::ZERO, ..Config::default() };
    let Some(mount) = TestMount::over_brick(config) else { return };
    let directory = mount.path("dir");
    fill(&directory, 1000);
    let counts = counted(rest(&mut open(&directory)));
    assert_eq!(counts.len(), 1000);
    assert!(counts.values().all(|count| *count == 1));
}
