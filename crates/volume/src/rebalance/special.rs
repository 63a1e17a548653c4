//! Symlinks, devices, fifos, sockets: made anew at the target, then removed from the source. They have no contents, so
//! there is nothing for clients to follow; between the two steps lookups find both alike.

use bytes::Bytes;
use mortar_types::fop::{Mknod, Readlink, Setattr, Setxattr, Symlink, setattr_valid};
use mortar_types::{Dict, Errno, FileType, Iatt, Value, keys};

use super::look::Look;
use super::migrate::{ONLY_IF_LINK, internal};
use super::{Error, File, Moved, Mover, Subvolume, unlink};

/// Moves it. Can be repeated after a crash at any point.
pub(super) async fn migrate(
    mover: &Mover,
    file: &File,
    source: &Subvolume,
    target: &Subvolume,
    look: &Look,
) -> Result<Moved, Error> {
    if look.stat.nlink > 1 {
        return Ok(Moved::Skipped(mortar_api::rebalance::SkipReason::HardLinks));
    }
    match mover.look_at_name(file, target, false).await? {
        Some(there) if there.stat.gfid != file.gfid => {
            return Err(Error::OtherFile { subvolume: target.name().to_owned() });
        }
        // Lookups that find nothing here look everywhere until the real one is made.
        Some(there) if there.is_link() => {
            unlink(mover, file, target, internal().with(ONLY_IF_LINK, Value::Uint(1))).await?;
            make(mover, file, source, target, look).await?;
        }
        Some(_) => {}
        None => make(mover, file, source, target, look).await?,
    }
    dress(mover, file, target, look).await?;
    unlink(mover, file, source, internal()).await?;
    Ok(Moved::Moved(0))
}

async fn make(mover: &Mover, file: &File, source: &Subvolume, target: &Subvolume, look: &Look) -> Result<(), Error> {
    let mut xdata = internal().with(keys::GFID_REQ, Value::Gfid(file.gfid));
    if let Some(mdata) = &look.mdata {
        xdata.set(keys::XATTR_MDATA, mdata.clone());
    }
    let (parent, name, xdata) = (file.parent, file.name.clone(), Some(xdata));
    if look.stat.file_type() == Some(FileType::Symlink) {
        let request = Readlink { gfid: file.gfid, size: 4096, xdata: None };
        let link: Bytes = mover.must(source, request).await?.target;
        mover.must(target, Symlink { parent, name, umask: 0, target: link, xdata }).await?;
    } else {
        let dev = encode_dev(look.stat.rdev);
        mover.must(target, Mknod { parent, dev, mode: look.stat.mode, umask: 0, name, xdata }).await?;
    }
    Ok(())
}

async fn dress(mover: &Mover, file: &File, target: &Subvolume, look: &Look) -> Result<(), Error> {
    let mut valid = setattr_valid::UID | setattr_valid::GID | setattr_valid::ATIME | setattr_valid::MTIME;
    if look.stat.file_type() != Some(FileType::Symlink) {
        valid |= setattr_valid::MODE;
    }
    let stat = Iatt { mode: look.mode(), ..look.stat };
    mover.must(target, Setattr { gfid: file.gfid, stat, valid, xdata: None }).await?;
    let mut dict = Dict::new();
    for (key, value) in &look.xattrs {
        dict.set(key.clone(), Value::Ptr(value.clone()));
    }
    if dict.keys().next().is_none() {
        return Ok(());
    }
    let request = Setxattr { gfid: file.gfid, flags: 0, dict: Some(dict), xdata: Some(internal()) };
    match mover.must(target, request).await {
        Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => Ok(()),
        outcome => outcome.map(drop),
    }
}

/// From an iatt's `major << 32 | minor` to what MKNOD carries (Linux's new_encode_dev).
const fn encode_dev(rdev: u64) -> u64 {
    let (major, minor) = (rdev >> 32, rdev & 0xffff_ffff);
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}
