//! What the machine must have before anything is started.

use std::net::{IpAddr, TcpListener};
use std::path::Path;

use anyhow::{Result, bail};

/// Root and FUSE.
pub(super) fn machine() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "quickstart needs root: bricks carry trusted.* attributes, and mounting is root's. Try: sudo -E cargo run --release -- quickstart"
        );
    }
    if !Path::new("/dev/fuse").exists() {
        bail!("there is no /dev/fuse: the kernel's FUSE is needed for the mount. Try: modprobe fuse");
    }
    Ok(())
}

/// That nobody listens on `address:port`.
pub(super) fn port_free(address: IpAddr, port: u16) -> Result<()> {
    match TcpListener::bind((address, port)) {
        Ok(_) => Ok(()),
        Err(error) => bail!(
            "{address}:{port} cannot be listened on ({error}). Is a GlusterFS or another Mortar running? See: ss -ltnp 'sport = :{port}'"
        ),
    }
}

/// Whether something is mounted on exactly this folder.
pub(super) fn is_mounted(folder: &Path) -> Result<bool> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let folder = folder.display().to_string();
    Ok(mounts.lines().any(|line| line.split(' ').nth(1) == Some(folder.as_str())))
}
