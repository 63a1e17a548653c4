//! Mounts for tests: a volume in memory behind a real FUSE mount, unmounted when dropped.

#![allow(dead_code, reason = "no test file uses all of it")]

pub(crate) mod distant;
pub(crate) mod memory;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mortar_mount::bridge::Config;
use mortar_mount::mountpoint::{Attachment, Mounted};
use mortar_mount::options::{Face, Options, TRANSFER_BYTES_MAX};
use mortar_mount::running::Running;
use mortar_mount::source::Source;
use mortar_types::{Fops, Gfid};
use rustix::mount::MountFlags;
use tokio::runtime::Runtime;

use self::distant::Distant;
use self::memory::Memory;

pub(crate) struct TestMount {
    /// Nothing is in it when the mount is over a brick.
    pub(crate) volume: Arc<Memory>,
    directory: tempfile::TempDir,
    brick: Option<tempfile::TempDir>,
    mounted: Mounted,
    runtime: Option<(Runtime, Running)>,
}

impl TestMount {
    /// `None`, with the reason printed, where FUSE cannot be used.
    pub(crate) fn new() -> Option<Self> {
        Self::with(Config::default())
    }

    pub(crate) fn with(config: Config) -> Option<Self> {
        let root = rustix::process::geteuid().is_root();
        if !root || std::fs::File::open("/dev/fuse").is_err() {
            mortar_testkit::needs::skip("needs root and /dev/fuse");
            return None;
        }
        let volume = Memory::new();
        let fops: Arc<dyn Fops> = volume.clone();
        Some(Self::mount(volume, fops, None, config))
    }

    /// A mount of a real brick in a temporary directory that takes a moment for listings.
    pub(crate) fn over_brick(config: Config) -> Option<Self> {
        let root = rustix::process::geteuid().is_root();
        if !root || std::fs::File::open("/dev/fuse").is_err() {
            mortar_testkit::needs::skip("needs root and /dev/fuse");
            return None;
        }
        let brick = tempfile::tempdir().unwrap();
        let id = Gfid::random();
        if let Err(errno) = mortar_brick::store::initialise(brick.path(), id) {
            mortar_testkit::needs::skip(&format!("no trusted xattrs in {}: {errno}", brick.path().display()));
            return None;
        }
        let options = mortar_brick::store::StoreOptions {
            health_check_interval: Duration::ZERO,
            landfill_purge_interval: None,
            ..mortar_brick::store::StoreOptions::new(brick.path(), id)
        };
        let store: Arc<dyn Fops> = mortar_brick::store::Store::open(options).unwrap();
        Some(Self::mount(Memory::new(), Arc::new(Distant(store)), Some(brick), config))
    }

    /// The brick's directory.
    pub(crate) fn brick(&self) -> Option<&Path> {
        self.brick.as_ref().map(tempfile::TempDir::path)
    }

    fn mount(volume: Arc<Memory>, fops: Arc<dyn Fops>, brick: Option<tempfile::TempDir>, config: Config) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let source = Source::Volume { servers: vec!["test".into()], volfile_id: "/memory".into(), subdir: None };
        let wishes = Options::new(Face::Mortar, source, "test:/memory", directory.path()).wishes();
        let attachment = Attachment {
            source: "test:/memory".into(),
            subtype: "mortar".into(),
            flags: MountFlags::empty(),
            allow_other: true,
            default_permissions: true,
            max_read: TRANSFER_BYTES_MAX,
            further: vec![],
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let running =
            runtime.block_on(Running::start(fops, Gfid::ROOT, directory.path(), &attachment, config, &wishes)).unwrap();
        Self { volume, mounted: running.mounted().clone(), directory, brick, runtime: Some((runtime, running)) }
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }

    /// Unmounts and waits for the session's end.
    pub(crate) fn unmount(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some((runtime, running)) = self.runtime.take() else { return };
        if self.mounted.unmount(false).is_err() {
            self.mounted.unmount(true).unwrap();
        }
        runtime.block_on(running.ended()).unwrap();
    }
}

impl Drop for TestMount {
    fn drop(&mut self) {
        self.end();
    }
}
