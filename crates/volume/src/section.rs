//! Reading the options of one volfile section, the same way in every layer.

use mortar_logic::values::{boolean, byte_size};
use mortar_wire::volfile::VolfileVolume;

/// An option whose value makes no sense.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("volume {volume}: option {key} has the value {value:?}, expected {expected}")]
pub struct BadValue {
    pub volume: String,
    pub key: &'static str,
    pub value: String,
    pub expected: &'static str,
}

/// The options of a section.
pub(crate) struct Reader<'a> {
    pub(crate) section: &'a VolfileVolume,
}

impl Reader<'_> {
    pub(crate) fn bad(&self, key: &'static str, expected: &'static str) -> BadValue {
        let value = self.section.option(key).unwrap_or_default().to_owned();
        BadValue { volume: self.section.name.clone(), key, value, expected }
    }

    pub(crate) fn number(&self, key: &'static str) -> Result<Option<u32>, BadValue> {
        let Some(text) = self.section.option(key) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| self.bad(key, "a number"))
    }

    pub(crate) fn flag(&self, key: &'static str, default: bool) -> Result<bool, BadValue> {
        let Some(text) = self.section.option(key) else { return Ok(default) };
        boolean(text).ok_or_else(|| self.bad(key, "on or off"))
    }
}

/// A size in bytes. Saturates.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    byte_size(text).map(|bytes| bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_and_nonsense_is_a_sentence() {
        let section = VolfileVolume::new("v", "t").with_option("a", "Enable").with_option("b", "perhaps");
        let read = Reader { section: &section };
        assert_eq!((read.flag("a", false), read.flag("none", true)), (Ok(true), Ok(true)));
        let sentence = read.flag("b", true).unwrap_err().to_string();
        assert_eq!(sentence, "volume v: option b has the value \"perhaps\", expected on or off");
    }
}
