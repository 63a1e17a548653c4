//! What the layer is told: the options of `performance/quick-read` in a volfile, and whether opens wait.

use std::time::Duration;

use mortar_logic::values::is_on;
use mortar_wire::volfile::VolfileVolume;

use crate::section::{BadValue, Reader, bytes};

/// More of a file than this is never asked for: the most that GlusterFS lets `max-file-size` be (`quick-read.c`).
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Options of the layer. [`Options::new`] has the defaults of GlusterFS 10.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// The layer's name (`imap0-quick-read`).
    pub name: String,
    /// Contents kept at most, bytes.
    pub cache_bytes_max: u64,
    /// Files above are not kept, bytes; 0 keeps nothing.
    pub file_bytes_max: u64,
    /// How long contents are believed without asking the bricks whether they are current.
    pub cache_timeout: Duration,
    /// Answer opens from what is kept and open really when it is needed (`performance/open-behind`).
    pub lazy_open: bool,
}

impl Options {
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            cache_bytes_max: 128 << 20,
            file_bytes_max: 64 << 10,
            cache_timeout: Duration::from_secs(1),
            lazy_open: true,
        }
    }

    /// Reads a section of type `performance/quick-read`; `open_behind` is the volfile's section of that type.
    pub fn from_volfile(section: &VolfileVolume, open_behind: Option<&VolfileVolume>) -> Result<Self, BadValue> {
        let read = Reader { section };
        let size = |key, default| match section.option(key) {
            None => Ok(default),
            Some(text) => bytes(text).ok_or_else(|| read.bad(key, "a size in bytes, KB, MB, GB, TB or PB")),
        };
        let defaults = Self::new(section.name.clone());
        let cache_timeout = match section.option("cache-timeout") {
            None => defaults.cache_timeout,
            Some(text) => {
                Duration::from_secs(text.trim().parse().map_err(|_| read.bad("cache-timeout", "a number of seconds"))?)
            }
        };
        let is_lazy = |section: &VolfileVolume| {
            section.option("lazy-open").is_none_or(is_on) && !section.option("pass-through").is_some_and(is_on)
        };
        Ok(Self {
            cache_bytes_max: size("cache-size", defaults.cache_bytes_max)?,
            file_bytes_max: size("max-file-size", defaults.file_bytes_max)?.min(FILE_BYTES_MAX),
            cache_timeout,
            lazy_open: open_behind.is_some_and(is_lazy),
            ..defaults
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(kind: &str, options: &[(&str, &str)]) -> VolfileVolume {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        VolfileVolume { name: "v-quick-read".into(), kind: kind.into(), options, subvolumes: vec!["below".into()] }
    }

    fn read(options: &[(&str, &str)]) -> Result<Options, BadValue> {
        let open_behind = section("performance/open-behind", &[]);
        Options::from_volfile(&section("performance/quick-read", options), Some(&open_behind))
    }

    #[test]
    fn a_section_without_options_has_the_defaults() {
        assert_eq!(read(&[]), Ok(Options::new("v-quick-read")));
    }

    #[test]
    fn sizes_have_units_and_files_a_limit() {
        let options = read(&[("cache-size", "64MB"), ("max-file-size", "4kb"), ("cache-timeout", "3")]).unwrap();
        assert_eq!((options.cache_bytes_max, options.file_bytes_max), (64 << 20, 4096));
        assert_eq!(options.cache_timeout, Duration::from_secs(3));
        assert_eq!(read(&[("max-file-size", "5MB")]).unwrap().file_bytes_max, 1 << 20);
        assert_eq!(read(&[("cache-size", "1.5MB")]).unwrap().cache_bytes_max, 3 << 19);
        let error = read(&[("cache-size", "much")]).unwrap_err().to_string();
        assert!(error.starts_with("volume v-quick-read: option cache-size has the value \"much\""), "{error}");
    }

    #[test]
    fn opens_wait_only_where_the_volfile_has_them_wait() {
        let quick_read = section("performance/quick-read", &[]);
        let lazy =
            |open_behind: Option<&VolfileVolume>| Options::from_volfile(&quick_read, open_behind).unwrap().lazy_open;
        assert!(!lazy(None));
        assert!(lazy(Some(&section("performance/open-behind", &[]))));
        assert!(!lazy(Some(&section("performance/open-behind", &[("lazy-open", "no")]))));
        assert!(!lazy(Some(&section("performance/open-behind", &[("pass-through", "on")]))));
    }
}
