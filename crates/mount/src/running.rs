//! A mount from attaching to unmounting, over any volume.

use std::path::Path;
use std::sync::Arc;

use mortar_types::{Fops, Gfid};
use tokio::task::JoinHandle;

use crate::bridge::{Bridge, Config};
use crate::invalidate::Invalidator;
use crate::kernel::init::Wishes;
use crate::mountpoint::{self, Attachment, Mounted, attach};
use crate::session::{self, Session};

/// Why a mount did not come up or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Attach(#[from] mountpoint::Error),
    #[error(transparent)]
    Session(#[from] session::Error),
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// A mount that serves.
#[derive(Debug)]
pub struct Running {
    mounted: Mounted,
    serving: JoinHandle<Result<(), session::Error>>,
}

impl Running {
    /// Mounts `volume`, from its inode `root` on, on `directory`. To be called in a runtime, which then serves the mount.
    pub async fn start(
        volume: Arc<dyn Fops>,
        root: Gfid,
        directory: &Path,
        attachment: &Attachment,
        config: Config,
        wishes: &Wishes,
    ) -> Result<Self, Error> {
        let (device, mounted) = attach(directory, attachment)?;
        let bridge = Arc::new(Bridge::new(Arc::clone(&volume), root, config));
        let begun = match Session::begin(Arc::clone(&device), Arc::clone(&bridge), wishes).await {
            Ok(session) => Invalidator::start(device, bridge).map(|sink| (session, sink)).map_err(Error::Thread),
            Err(error) => Err(error.into()),
        };
        let (session, sink) = begun.inspect_err(|_| {
            // Otherwise a dead mount point stays behind.
            let _ = mounted.unmount(true);
        })?;
        volume.subscribe(sink);
        let serving = tokio::spawn(session.serve());
        let (at, bytes) = (mounted.clone(), wishes.transfer_bytes_max);
        // Asks the mount itself for its device number, so not from a thread that has to answer.
        tokio::task::spawn_blocking(move || at.set_read_ahead(bytes));
        Ok(Self { mounted, serving })
    }

    pub const fn mounted(&self) -> &Mounted {
        &self.mounted
    }

    /// Waits until the kernel has unmounted and the work behind is done.
    pub async fn ended(self) -> Result<(), Error> {
        match self.serving.await {
            Ok(ended) => Ok(ended?),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}
