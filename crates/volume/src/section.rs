//! Reading the options of one volfile section, the same way in every layer.

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

    /// Booleans as volfiles spell them (`common-utils.c: gf_string2boolean`).
    pub(crate) fn flag(&self, key: &'static str, default: bool) -> Result<bool, BadValue> {
        match self.section.option(key).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(default),
            Some("on" | "yes" | "true" | "enable" | "1") => Ok(true),
            Some("off" | "no" | "false" | "disable" | "0") => Ok(false),
            Some(_) => Err(self.bad(key, "on or off")),
        }
    }
}

/// A size as GlusterFS writes it, in bytes: a number, perhaps with a fraction, perhaps with a unit of 1024
/// (`common-utils.c: gf_string2bytesize_range`). Saturates.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_uppercase();
    let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "B" => 1.0,
        "KB" => 1024.0,
        "MB" => 1024.0 * 1024.0,
        "GB" => 1024.0 * 1024.0 * 1024.0,
        "TB" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        "PB" => 1024.0 * 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    number.parse::<f64>().ok().map(|number| (number * factor) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_1024() {
        assert_eq!(bytes("20GB"), Some(20 << 30));
        assert_eq!(bytes(" 1.5kb"), Some(1536));
        assert_eq!(bytes("7"), Some(7));
        for bad in ["", "GB", "much", "1XB", "1.2.3"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn flags_are_read_and_nonsense_is_a_sentence() {
        let section = VolfileVolume::new("v", "t").with_option("a", "Enable").with_option("b", "perhaps");
        let read = Reader { section: &section };
        assert_eq!((read.flag("a", false), read.flag("none", true)), (Ok(true), Ok(true)));
        let sentence = read.flag("b", true).unwrap_err().to_string();
        assert_eq!(sentence, "volume v: option b has the value \"perhaps\", expected on or off");
    }
}
