//! Mounts for tests: a volume in memory behind a real FUSE mount, unmounted when dropped.

pub(crate) mod memory;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mortar_mount::bridge::Config;
use mortar_mount::mountpoint::{Attachment, Mounted};
use mortar_mount::options::{Face, Options, TRANSFER_BYTES_MAX};
use mortar_mount::running::Running;
use mortar_mount::source::Source;
use mortar_types::{Fops, Gfid};
use rustix::mount::MountFlags;
use tokio::runtime::Runtime;

use self::memory::Memory;

pub(crate) struct TestMount {
    pub(crate) volume: Arc<Memory>,
    directory: tempfile::TempDir,
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
            println!("skipped: needs root and /dev/fuse");
            return None;
        }
        let volume = Memory::new();
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
        let fops: Arc<dyn Fops> = volume.clone();
        let running =
            runtime.block_on(Running::start(fops, Gfid::ROOT, directory.path(), &attachment, config, &wishes)).unwrap();
        Some(Self { volume, mounted: running.mounted().clone(), directory, runtime: Some((runtime, running)) })
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
