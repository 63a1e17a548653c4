//! Names of directory entries, checked once where they enter.

use std::fmt;

use bytes::Bytes;

/// Why bytes cannot be a name in a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidName {
    #[error("the name is empty")]
    Empty,
    #[error("the name is longer than 255 bytes")]
    TooLong,
    #[error("the name has a slash or a NUL byte")]
    ForbiddenByte,
    #[error("the name is \".\" or \"..\"")]
    DotOrDotDot,
}

impl InvalidName {
    /// What a brick answers (`server-resolve.c: resolve_entry_simple`, observed on 10.3).
    pub const fn errno(self) -> crate::Errno {
        match self {
            Self::Empty => crate::Errno::EINVAL,
            Self::TooLong => crate::Errno::ENAMETOOLONG,
            Self::ForbiddenByte | Self::DotOrDotDot => crate::Errno::EPERM,
        }
    }
}

/// One path component: 1 to 255 bytes, no `/`, no NUL, not `.` or `..`. Bytes, not text: POSIX knows no encoding.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryName(Bytes);

impl EntryName {
    pub const BYTES_MAX: usize = 255;

    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, InvalidName> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Err(InvalidName::Empty);
        }
        if bytes.len() > Self::BYTES_MAX {
            return Err(InvalidName::TooLong);
        }
        if bytes.iter().any(|byte| matches!(byte, b'/' | 0)) {
            return Err(InvalidName::ForbiddenByte);
        }
        if matches!(&bytes[..], b"." | b"..") {
            return Err(InvalidName::DotOrDotDot);
        }
        Ok(Self(bytes))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_directory_are_refused() {
        let check = |bytes: &'static [u8]| EntryName::new(bytes).map(|_| ());
        assert_eq!(check(b""), Err(InvalidName::Empty));
        assert_eq!(check(b".."), Err(InvalidName::DotOrDotDot));
        assert_eq!(check(b"."), Err(InvalidName::DotOrDotDot));
        assert_eq!(check(b"a/b"), Err(InvalidName::ForbiddenByte));
        assert_eq!(check(b"a\0"), Err(InvalidName::ForbiddenByte));
        assert_eq!(EntryName::new(vec![b'x'; 256]).map(|_| ()), Err(InvalidName::TooLong));
        assert!(EntryName::new(vec![b'x'; 255]).is_ok());
        assert!(EntryName::new(&b"\xff..."[..]).is_ok());
    }
}
