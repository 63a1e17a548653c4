//! Where the daemon keeps what.

use std::io;
use std::path::{Path, PathBuf};

use crate::volgen::{brick_volfile_id, dashed};

/// The daemon's three directories and the files in them.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    /// Kept: identity, log, volfiles.
    pub data: PathBuf,
    /// Gone after a reboot: sockets, pid files.
    pub run: PathBuf,
    pub log: PathBuf,
}

impl Paths {
    /// Makes the directories.
    ///
    /// # Errors
    /// When one cannot be made.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        for dir in [&self.data, &self.run, &self.log] {
            std::fs::create_dir_all(dir)?;
        }
        for dir in [self.data.join("vols"), self.run.join("vols"), self.log.join("bricks")] {
            std::fs::create_dir_all(dir)?;
        }
        Ok(())
    }

    pub(crate) fn identity(&self) -> PathBuf {
        self.data.join("node.json")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.data.join("pool.redb")
    }

    /// Which port each brick had last.
    pub(crate) fn ports(&self) -> PathBuf {
        self.data.join("ports.json")
    }

    pub(crate) fn api_socket(&self) -> PathBuf {
        self.run.join(mortar_api::SOCKET_NAME)
    }

    pub(crate) fn volume_dir(&self, volume: &str) -> PathBuf {
        self.data.join("vols").join(volume)
    }

    pub(crate) fn brick_volfile(&self, volume: &str, host: &str, path: &str) -> PathBuf {
        self.volume_dir(volume).join(format!("{}.vol", brick_volfile_id(volume, host, path)))
    }

    pub(crate) fn brick_pid_file(&self, volume: &str, host: &str, path: &str) -> PathBuf {
        self.run.join("vols").join(volume).join(format!("{host}-{}.pid", dashed(path)))
    }

    /// Socket paths are limited to 107 bytes, so the brick is in it as a short hash.
    pub(crate) fn brick_control(&self, volume: &str, path: &str) -> PathBuf {
        self.run.join(format!("brick-{:016x}.ctl", short_hash(&format!("{volume}\0{path}"))))
    }

    pub(crate) fn brick_log(&self, path: &str) -> PathBuf {
        self.log.join("bricks").join(format!("{}.log", dashed(path)))
    }

    /// Where the node's part of the volume's rebalance goes on after a restart.
    pub(crate) fn rebalance_checkpoint(&self, volume: &str) -> PathBuf {
        self.volume_dir(volume).join("rebalance.checkpoint")
    }

    /// How far that part was when it last said so.
    pub(crate) fn rebalance_progress(&self, volume: &str) -> PathBuf {
        self.volume_dir(volume).join("rebalance.json")
    }

    pub(crate) fn rebalance_pid_file(&self, volume: &str) -> PathBuf {
        self.run.join("vols").join(volume).join("rebalance.pid")
    }

    pub(crate) fn rebalance_control(&self, volume: &str) -> PathBuf {
        self.run.join(format!("rebalance-{:016x}.ctl", short_hash(volume)))
    }

    pub(crate) fn rebalance_log(&self, volume: &str) -> PathBuf {
        self.log.join(format!("{volume}-rebalance.log"))
    }

    pub(crate) fn heald_control(&self) -> PathBuf {
        self.run.join("heald.ctl")
    }

    pub(crate) fn heald_pid_file(&self) -> PathBuf {
        self.run.join("heald.pid")
    }

    pub(crate) fn heald_log(&self) -> PathBuf {
        self.log.join("heald.log")
    }
}

/// FNV-1a: stable over releases, which file names must be.
fn short_hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Replaces a file so that a crash leaves the old or the new content, readable by root only.
///
/// # Errors
/// When the directory cannot be written.
pub(crate) fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;

    let dir = path.parent().ok_or_else(|| io::Error::other("a file has a directory"))?;
    let temporary = path.with_extension("tmp");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    std::fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::{Paths, replace_file};

    #[test]
    fn files_are_replaced_whole_and_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("x.json");
        replace_file(&file, b"one").expect("writes");
        replace_file(&file, b"two").expect("writes");
        assert_eq!(std::fs::read(&file).expect("reads"), b"two");
        assert_eq!(std::fs::metadata(&file).expect("is there").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn control_sockets_differ_by_volume_and_path() {
        let paths = Paths { data: "/d".into(), run: "/r".into(), log: "/l".into() };
        assert_ne!(paths.brick_control("a", "/b"), paths.brick_control("b", "/b"));
        assert_ne!(paths.brick_control("a", "/b"), paths.brick_control("a", "/c"));
    }
}
