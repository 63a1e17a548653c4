//! The gfid: the identity of an inode in a volume, the same on every brick.

use std::fmt;
use std::str::FromStr;

/// 16 raw bytes, printed as lower-case RFC 4122 text. On disk in the xattr `trusted.gfid`, on the wire as fixed opaque.
///
/// The all-zero gfid means "none" (GlusterFS `gf_uuid_is_null`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Gfid(pub [u8; 16]);

impl Gfid {
    /// No gfid.
    pub const NULL: Self = Self([0; 16]);
    /// The root directory of every volume, `00000000-0000-0000-0000-000000000001`.
    pub const ROOT: Self = Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    /// `/.trashcan`.
    pub const TRASH: Self = Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]);

    /// A random (version 4) gfid for a new object.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().into_bytes())
    }

    pub const fn is_null(&self) -> bool {
        u128::from_be_bytes(self.0) == 0
    }

    pub const fn is_root(&self) -> bool {
        u128::from_be_bytes(self.0) == 1
    }

    /// The inode number that clients see: the last 8 bytes, big-endian; 1 for the root (GlusterFS `gfid_to_ino`).
    pub const fn ino(&self) -> u64 {
        (u128::from_be_bytes(self.0) & u64::MAX as u128) as u64
    }

    /// From exactly 16 bytes, otherwise `None`.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Gfid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = uuid::Uuid::from_bytes(self.0);
        fmt::Display::fmt(&text.hyphenated(), f)
    }
}

impl fmt::Debug for Gfid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a hyphenated UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a gfid: expected 36 characters like 00000000-0000-0000-0000-000000000001")]
pub struct ParseGfidError;

impl FromStr for Gfid {
    type Err = ParseGfidError;

    /// Accepts only the hyphenated 36-character form, the one used in handle names.
    fn from_str(text: &str) -> Result<Self, ParseGfidError> {
        if text.len() != 36 {
            return Err(ParseGfidError);
        }
        uuid::Uuid::try_parse(text).map(|uuid| Self(uuid.into_bytes())).map_err(|_| ParseGfidError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_prints_as_in_handles_and_has_inode_one() {
        assert_eq!(Gfid::ROOT.to_string(), "00000000-0000-0000-0000-000000000001");
        assert_eq!(Gfid::ROOT.ino(), 1);
        assert!(Gfid::NULL.is_null() && !Gfid::ROOT.is_null());
    }

    #[test]
    fn text_round_trips_and_other_forms_are_refused() {
        let gfid = Gfid::random();
        assert_eq!(gfid.to_string().parse(), Ok(gfid));
        assert!("00000000000000000000000000000001".parse::<Gfid>().is_err());
        assert!("".parse::<Gfid>().is_err());
    }
}
