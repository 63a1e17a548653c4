//! The file system below a brick, for `volume status detail`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use mortar_api::volume::BrickDetail;

/// What can be told of the file system at `path`; `None` when it cannot be asked.
pub(super) fn detail(path: &Path) -> Option<BrickDetail> {
    let statvfs = rustix::fs::statvfs(path).ok()?;
    let table = std::fs::read("/proc/self/mountinfo").ok()?;
    let real = std::fs::canonicalize(path).ok()?;
    let mount = mount_of(&table, &real)?;
    Some(BrickDetail {
        file_system: mount.kind,
        device: mount.source,
        mount_options: mount.options,
        // Not told by the kernel; GlusterFS runs the file system's tools for it.
        inode_size: 0,
        bytes_free: statvfs.f_bfree.saturating_mul(statvfs.f_frsize),
        bytes_total: statvfs.f_blocks.saturating_mul(statvfs.f_frsize),
        block_size: statvfs.f_bsize,
        inodes_total: statvfs.f_files,
        inodes_free: statvfs.f_ffree,
    })
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Mount {
    point: PathBuf,
    kind: String,
    source: String,
    options: String,
}

/// The deepest mount that holds the path; of several at one point the last.
fn mount_of(table: &[u8], path: &Path) -> Option<Mount> {
    let mounts = table.split(|byte| *byte == b'\n').filter_map(parse_line);
    mounts.filter(|mount| path.starts_with(&mount.point)).max_by_key(|mount| mount.point.components().count())
}

/// One line of proc_pid_mountinfo(5): six fields, optional ones, a dash, type, source, options of the superblock.
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let point = fields.by_ref().nth(4)?;
    let of_mount = fields.next()?;
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = text(rest.next()?);
    let source = text(rest.next()?);
    let of_superblock = text(rest.next()?);
    let mut options = text(of_mount);
    for option in of_superblock.split(',') {
        if !options.split(',').any(|known| known == option) {
            options.push(',');
            options.push_str(option);
        }
    }
    Some(Mount { point: PathBuf::from(OsStr::from_bytes(&unescape(point))), kind, source, options })
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(field)).into_owned()
}

/// Blanks and backslashes are written as `\ooo`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| *byte == b'\\');
        let value = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match value {
            Some(value) => {
                out.push(value);
                rest = &tail[3..];
            }
            None => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n\
        40 22 8:17 / /srv/gfs\\0401 rw,noatime - xfs /dev/sdb1 rw,attr2\n\
        41 22 0:5 / /srv rw - tmpfs tmpfs rw\n";

    #[test]
    fn the_deepest_mount_is_found() {
        let mount = mount_of(TABLE, Path::new("/srv/gfs 1/brick")).unwrap();
        assert_eq!((mount.kind.as_str(), mount.source.as_str()), ("xfs", "/dev/sdb1"));
        assert_eq!(mount.options, "rw,noatime,attr2");
        assert_eq!(mount_of(TABLE, Path::new("/srv/gfs")).unwrap().kind, "tmpfs");
        assert_eq!(mount_of(TABLE, Path::new("/home")).unwrap().kind, "ext4");
    }

    #[test]
    fn the_running_system_can_be_asked() {
        assert!(detail(Path::new("/")).is_some_and(|detail| detail.bytes_total > 0));
    }
}
