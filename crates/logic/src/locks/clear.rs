//! `gluster volume clear-locks`: the command in the virtual xattr name `glusterfs.clrlk.…`, and `glusterfs.intrlk.…`, by
//! which a client interrupts its own waiting POSIX lock (GlusterFS `xlators/features/locks/src/clear.c`).

use mortar_types::{ClientId, Pid};

/// Which locks are cleared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClearType {
    Inode,
    Entry,
    Posix,
}

impl ClearType {
    /// The word in the summary.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Inode => "inode",
            Self::Entry => "entry",
            Self::Posix => "posix",
        }
    }
}

/// Whether waiting requests, granted locks or both are cleared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClearKind {
    Blocked,
    Granted,
    All,
}

impl ClearKind {
    pub(super) const fn blocked(self) -> bool {
        !matches!(self, Self::Granted)
    }

    pub(super) const fn granted(self) -> bool {
        !matches!(self, Self::Blocked)
    }
}

/// The optional last word: only locks with exactly this range or name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClearFilter {
    Any,
    /// Start and length as the request had them.
    Range {
        start: u64,
        len: u64,
    },
    Name(Vec<u8>),
}

/// A parsed command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClearCommand {
    pub lock_type: ClearType,
    pub kind: ClearKind,
    pub filter: ClearFilter,
    /// Only locks of this client and process: an interrupt, not an administrator.
    pub only: Option<(ClientId, Pid)>,
}

/// How many were cleared.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Cleared {
    pub blocked: u64,
    pub granted: u64,
}

impl Cleared {
    /// The xattr's value, as GlusterFS prints it; `brick` is `HOST:PATH`.
    pub fn summary(&self, brick: &str, lock_type: ClearType) -> String {
        if *self == Self::default() {
            return "No locks cleared.".to_owned();
        }
        let Self { blocked, granted } = self;
        format!("{brick}: {} blocked locks={blocked} granted locks={granted}", lock_type.label())
    }
}

/// The name begins like a clear command but is none. Answered with EINVAL.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "not a clear-locks command: expected glusterfs.clrlk.t{{inode|entry|posix}}.k{{blocked|granted|all}}[.range|.name]"
)]
pub struct InvalidClearCommand;

impl ClearCommand {
    const CLEAR: &'static [u8] = b"glusterfs.clrlk.";
    const INTERRUPT: &'static [u8] = b"glusterfs.intrlk.";

    /// Parses an xattr name; `None` when it is another xattr. An interrupt concerns the caller's own locks only.
    pub fn parse(name: &[u8], client: ClientId, pid: Pid) -> Option<Result<Self, InvalidClearCommand>> {
        let (words, interrupt) = match name.strip_prefix(Self::CLEAR) {
            Some(words) => (words, false),
            None => (name.strip_prefix(Self::INTERRUPT)?, true),
        };
        Some(Self::parse_words(words, interrupt.then_some((client, pid))))
    }

    fn parse_words(words: &[u8], only: Option<(ClientId, Pid)>) -> Result<Self, InvalidClearCommand> {
        let mut parts = words.splitn(3, |byte| *byte == b'.');
        let lock_type = match parts.next() {
            Some(b"tinode") => ClearType::Inode,
            Some(b"tentry") => ClearType::Entry,
            Some(b"tposix") => ClearType::Posix,
            _ => return Err(InvalidClearCommand),
        };
        let kind = match parts.next() {
            Some(b"kblocked") => ClearKind::Blocked,
            Some(b"kgranted") => ClearKind::Granted,
            Some(b"kall") => ClearKind::All,
            _ => return Err(InvalidClearCommand),
        };
        let filter = match (parts.next(), lock_type) {
            (None | Some(b""), _) => ClearFilter::Any,
            (Some(name), ClearType::Entry) => ClearFilter::Name(name.to_vec()),
            (Some(range), _) => parse_range(range).ok_or(InvalidClearCommand)?,
        };
        Ok(Self { lock_type, kind, filter, only })
    }
}

/// `WHENCE,START-LEN`.
fn parse_range(text: &[u8]) -> Option<ClearFilter> {
    let (whence, rest) = std::str::from_utf8(text).ok()?.split_once(',')?;
    let _: i16 = whence.parse().ok()?;
    let (start, len) = rest.split_once('-')?;
    Some(ClearFilter::Range { start: start.parse().ok()?, len: len.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str) -> Option<Result<ClearCommand, InvalidClearCommand>> {
        ClearCommand::parse(name.as_bytes(), ClientId(3), Pid(9))
    }

    #[test]
    fn commands_of_the_command_line_are_understood() {
        let command = |lock_type, kind, filter| Some(Ok(ClearCommand { lock_type, kind, filter, only: None }));
        assert_eq!(parse("glusterfs.clrlk.tinode.kall"), command(ClearType::Inode, ClearKind::All, ClearFilter::Any));
        assert_eq!(
            parse("glusterfs.clrlk.tposix.kgranted.0,7-5"),
            command(ClearType::Posix, ClearKind::Granted, ClearFilter::Range { start: 7, len: 5 })
        );
        assert_eq!(
            parse("glusterfs.clrlk.tentry.kblocked.a.txt"),
            command(ClearType::Entry, ClearKind::Blocked, ClearFilter::Name(b"a.txt".to_vec()))
        );
    }

    #[test]
    fn an_interrupt_concerns_only_the_caller() {
        let command = parse("glusterfs.intrlk.tposix.kblocked").unwrap().unwrap();
        assert_eq!(command.only, Some((ClientId(3), Pid(9))));
    }

    #[test]
    fn other_names_and_wrong_words_are_told_apart() {
        assert_eq!(parse("user.note"), None);
        assert_eq!(parse("glusterfs.clrlk.tother.kall"), Some(Err(InvalidClearCommand)));
        assert_eq!(parse("glusterfs.clrlk.tinode.kall.x"), Some(Err(InvalidClearCommand)));
    }

    #[test]
    fn the_summary_reads_as_glusterfs_prints_it() {
        assert_eq!(Cleared::default().summary("gfs1:/b", ClearType::Inode), "No locks cleared.");
        let cleared = Cleared { blocked: 1, granted: 2 };
        assert_eq!(cleared.summary("gfs1:/b", ClearType::Posix), "gfs1:/b: posix blocked locks=1 granted locks=2");
    }
}
