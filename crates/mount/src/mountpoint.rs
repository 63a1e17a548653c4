//! Attaching the device to a directory, and taking it off again.

use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::kernel::device::Device;

/// What mount(2) is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attachment {
    /// Shown as the device: the source as typed.
    pub source: String,
    /// Shown as `fuse.SUBTYPE`.
    pub subtype: String,
    pub flags: MountFlags,
    pub allow_other: bool,
    /// The kernel checks permission bits (implied by ACL support).
    pub default_permissions: bool,
    /// Longest read, bytes.
    pub max_read: u32,
    /// Further options for the kernel (`fuse-mountopts` that are no flags), comma separated.
    pub further: Vec<String>,
}

/// Why the device could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{} does not exist; create it with: mkdir -p {}", .0.display(), .0.display())]
    Missing(PathBuf),
    #[error("{} is not a directory", .0.display())]
    NotDirectory(PathBuf),
    #[error("{at} cannot be used: {error}; if a dead mount is left there, take it off with: umount {at}",
        at = .directory.display())]
    Unusable { directory: PathBuf, error: io::Error },
    #[error("/dev/fuse cannot be opened: {0}; load the module with: modprobe fuse")]
    NoDevice(io::Error),
    #[error("mounting on {} needs root", .0.display())]
    NotPermitted(PathBuf),
    #[error("the kernel refused the mount on {} with options {options:?}: {error}", .directory.display())]
    Refused { directory: PathBuf, options: String, error: io::Error },
    #[error("the source or an option has a NUL byte")]
    Nul,
}

/// A mount that we made. It stays when this value is dropped: the kernel outlives a crash of ours, and an admin's umount
/// is told apart from it.
#[derive(Clone, Debug)]
pub struct Mounted {
    directory: PathBuf,
}

/// Mounts a new device on a directory.
pub fn attach(directory: &Path, attachment: &Attachment) -> Result<(Arc<Device>, Mounted), Error> {
    check_directory(directory)?;
    let device = Device::open().map_err(Error::NoDevice)?;
    let options = attachment.options(device.as_raw_fd());
    let text = |text: &[u8]| CString::new(text).map_err(|_| Error::Nul);
    let (source, kind) =
        (text(attachment.source.as_bytes())?, text(format!("fuse.{}", attachment.subtype).as_bytes())?);
    let (target, data) = (text(directory.as_os_str().as_bytes())?, text(options.as_bytes())?);
    match mount(source.as_c_str(), target.as_c_str(), kind.as_c_str(), attachment.flags, data.as_c_str()) {
        Ok(()) => Ok((Arc::new(device), Mounted { directory: directory.to_path_buf() })),
        Err(rustix::io::Errno::PERM) => Err(Error::NotPermitted(directory.to_path_buf())),
        Err(error) => Err(Error::Refused { directory: directory.to_path_buf(), options, error: error.into() }),
    }
}

impl Attachment {
    fn options(&self, device: i32) -> String {
        let mut options = format!("fd={device},rootmode=40000,user_id=0,group_id=0,max_read={}", self.max_read);
        for (wanted, option) in [(self.default_permissions, ",default_permissions"), (self.allow_other, ",allow_other")]
        {
            if wanted {
                options.push_str(option);
            }
        }
        for option in &self.further {
            options.push(',');
            options.push_str(option);
        }
        options
    }
}

impl Mounted {
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Takes the mount off; `lazy`: open files keep it alive until they are closed.
    pub fn unmount(&self, lazy: bool) -> io::Result<()> {
        let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
        Ok(unmount(self.directory.as_path(), flags)?)
    }

    /// Lets the kernel read ahead as far as a request may be long: its own default of 128 KiB is for disks without a
    /// network in front. Best effort, the mount works without.
    pub fn set_read_ahead(&self, bytes: u32) {
        let Ok(metadata) = std::fs::metadata(&self.directory) else { return };
        let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
        let path = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
        if let Err(error) = std::fs::write(&path, (bytes / 1024).to_string()) {
            tracing::debug!(path, %error, "read-ahead stays at the kernel's default");
        }
    }
}

fn check_directory(directory: &Path) -> Result<(), Error> {
    match std::fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(Error::NotDirectory(directory.to_path_buf())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::Missing(directory.to_path_buf())),
        Err(error) => Err(Error::Unusable { directory: directory.to_path_buf(), error }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment() -> Attachment {
        Attachment {
            source: "gfs1:/imap0".into(),
            subtype: "glusterfs".into(),
            flags: MountFlags::empty(),
            allow_other: true,
            default_permissions: true,
            max_read: 131_072,
            further: vec!["context=x".into()],
        }
    }

    #[test]
    fn options_for_the_kernel() {
        assert_eq!(
            attachment().options(5),
            "fd=5,rootmode=40000,user_id=0,group_id=0,max_read=131072,default_permissions,allow_other,context=x"
        );
    }

    #[test]
    fn a_mount_point_that_is_missing_or_a_file_is_named() {
        let missing = attach(Path::new("/nowhere/at/all"), &attachment()).unwrap_err();
        assert!(matches!(missing, Error::Missing(_)), "{missing}");
        let file = attach(Path::new("/proc/self/status"), &attachment()).unwrap_err();
        assert!(matches!(file, Error::NotDirectory(_)), "{file}");
    }
}
