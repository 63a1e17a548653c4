//! Link files, and the marks of a file on its way between subvolumes (`dht-linkfile.c`, `dht-common.h`).

use mortar_types::{Dict, Iatt, Value, keys};

const PERMISSIONS: u32 = 0o7777;
const SETGID: u32 = 0o2000;
const STICKY: u32 = 0o1000;

/// The mode of a link file, permissions only.
pub const MODE: u32 = STICKY;

/// Where the move of a file stands, by the mode of the copy that was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Not on its way.
    Resting,
    /// Being copied: changes must be made to the target too (`IS_DHT_MIGRATION_PHASE1`).
    Copying,
    /// Copied: what was looked at has become a link file, the target is the file (`IS_DHT_MIGRATION_PHASE2`).
    Moved,
}

/// What a file's attributes say about its move.
pub const fn phase(stat: &Iatt) -> Phase {
    if !stat.is_regular() {
        return Phase::Resting;
    }
    let marks = stat.mode & (SETGID | STICKY);
    if stat.mode & PERMISSIONS == MODE {
        Phase::Moved
    } else if marks == SETGID | STICKY {
        Phase::Copying
    } else {
        Phase::Resting
    }
}

/// Takes the marks of a move away, for callers.
pub const fn strip(stat: &mut Iatt) {
    if matches!(phase(stat), Phase::Copying) {
        stat.mode &= !(SETGID | STICKY);
    }
}

/// Whether it can be a link file, by attributes alone: an empty file of mode 01000 looks the same.
pub const fn may_be_link(stat: &Iatt) -> bool {
    matches!(phase(stat), Phase::Moved)
}

/// Where a link file points, from a lookup's answer: the name of a subvolume. `None` when it is not one.
pub fn target<'d>(stat: &Iatt, xdata: Option<&'d Dict>) -> Option<&'d str> {
    if !may_be_link(stat) {
        return None;
    }
    named(xdata?)
}

/// The subvolume that a link xattr names, whatever the mode: on a file being copied it names the target.
pub fn named(xdata: &Dict) -> Option<&str> {
    xdata.get_str(keys::XATTR_DHT_LINKTO).filter(|name| !name.is_empty())
}

/// The xattr's value: the subvolume's name with the NUL that GlusterFS's readers expect.
pub fn value(subvolume: &str) -> Value {
    Value::ptr([subvolume.as_bytes(), b"\0"].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(mode: u32) -> Iatt {
        Iatt { mode: 0o100_000 | mode, ..Iatt::default() }
    }

    #[test]
    fn a_link_file_is_of_mode_1000_and_has_the_xattr() {
        let xdata = Dict::new().with(keys::XATTR_DHT_LINKTO, value("v-replicate-1"));
        assert_eq!(target(&file(0o1000), Some(&xdata)), Some("v-replicate-1"));
        assert_eq!(target(&file(0o1644), Some(&xdata)), None);
        assert_eq!(target(&file(0o1000), Some(&Dict::new())), None);
        assert_eq!(target(&Iatt { mode: 0o041_000, ..Iatt::default() }, Some(&xdata)), None);
    }

    #[test]
    fn marks_of_a_move_are_seen_and_taken_away() {
        let mut copying = file(0o3644);
        assert_eq!((phase(&copying), phase(&file(0o644))), (Phase::Copying, Phase::Resting));
        strip(&mut copying);
        assert_eq!(copying.mode, 0o100_644);
        assert_eq!(phase(&file(0o1000)), Phase::Moved);
        assert_eq!(phase(&Iatt { mode: 0o043_777, ..Iatt::default() }), Phase::Resting);
    }

    #[test]
    fn foreign_values_name_nothing() {
        for bytes in [&b""[..], b"\0", b"\xff\xfe"] {
            let xdata = Dict::new().with(keys::XATTR_DHT_LINKTO, Value::ptr(bytes.to_vec()));
            assert_eq!(named(&xdata), None);
        }
    }
}
