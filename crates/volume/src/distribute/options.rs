//! What a distribute layer is told: the options of `cluster/distribute` in a volfile.

use std::collections::BTreeSet;

use mortar_logic::distribute::hash::{BadPattern, NameHash};
use mortar_logic::distribute::space::{FreeDisk, Limits};
use mortar_wire::volfile::VolfileVolume;

use crate::section::{BadValue, Reader, bytes};

/// Options of the layer; [`Options::default`] has GlusterFS 10's.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names of subvolumes that get no new files and no part of new layouts (`decommissioned-bricks`).
    pub decommissioned: BTreeSet<String>,
    /// When a subvolume counts as full (`min-free-disk`, `min-free-inodes`).
    pub limits: Limits,
    /// A name that is not where it should be is believed not to exist when layout and volume agree on a commit hash.
    pub lookup_optimize: bool,
    /// Without that, all subvolumes are asked (`lookup-unhashed`).
    pub lookup_unhashed: bool,
    /// Layouts in proportion to the subvolumes' sizes (`weighted-rebalance`).
    pub weighted: bool,
    /// At most so many subvolumes per directory (`directory-layout-spread`).
    pub spread: Option<usize>,
    /// Layouts start by the directory's gfid, not its path (`randomize-hash-range-by-gfid`).
    pub by_gfid: bool,
    /// What of a name is hashed (`rsync-hash-regex`, `extra-hash-regex`).
    pub names: NameHash,
    /// Copies also where a client writes (`force-migration`).
    pub force_migration: bool,
    /// Locks move with a file (`lock-migration`).
    pub lock_migration: bool,
    /// What a rebalance marks layouts with (`commit-hash`).
    pub commit_hash: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            decommissioned: BTreeSet::new(),
            limits: Limits::default(),
            lookup_optimize: true,
            lookup_unhashed: true,
            weighted: true,
            spread: None,
            by_gfid: false,
            names: NameHash::default(),
            force_migration: false,
            lock_migration: false,
            commit_hash: None,
        }
    }
}

/// Why a volfile section cannot be a distribute layer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OptionsError {
    #[error(transparent)]
    BadValue(#[from] BadValue),
    #[error("volume {volume}: {error}")]
    BadPattern { volume: String, error: BadPattern },
}

impl Options {
    /// From a section of type `cluster/distribute`.
    pub fn from_volfile(section: &VolfileVolume) -> Result<Self, OptionsError> {
        let read = Reader { section };
        let default = Self::default();
        let leaving = section.option("decommissioned-bricks").unwrap_or_default();
        let names = NameHash::new(section.option("rsync-hash-regex"), section.option("extra-hash-regex"))
            .map_err(|error| OptionsError::BadPattern { volume: section.name.clone(), error })?;
        let lookup_unhashed = match section.option("lookup-unhashed").map(str::to_ascii_lowercase).as_deref() {
            // Which directories have misplaced names is not remembered: all may.
            None | Some("auto") => true,
            Some(_) => read.flag("lookup-unhashed", true)?,
        };
        Ok(Self {
            decommissioned: leaving.split([',', ' ']).filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            limits: Limits {
                free_disk: free_disk(&read, default.limits.free_disk)?,
                free_inodes: percent(&read, "min-free-inodes", default.limits.free_inodes)?,
            },
            lookup_optimize: read.flag("lookup-optimize", default.lookup_optimize)?,
            lookup_unhashed,
            weighted: read.flag("weighted-rebalance", default.weighted)?,
            spread: read.number("directory-layout-spread")?.map(|count| count as usize).filter(|count| *count > 0),
            by_gfid: read.flag("randomize-hash-range-by-gfid", default.by_gfid)?,
            names,
            force_migration: read.flag("force-migration", default.force_migration)?,
            lock_migration: read.flag("lock-migration", default.lock_migration)?,
            commit_hash: read.number("commit-hash")?,
        })
    }
}

fn percent(read: &Reader<'_>, key: &'static str, default: f64) -> Result<f64, BadValue> {
    let Some(text) = read.section.option(key) else { return Ok(default) };
    let number: Option<f64> = text.trim_end_matches('%').parse().ok();
    number.filter(|number| (0.0..=100.0).contains(number)).ok_or_else(|| read.bad(key, "a percentage"))
}

/// A percentage when it says so or is at most 100, as GlusterFS reads it; otherwise a size.
fn free_disk(read: &Reader<'_>, default: FreeDisk) -> Result<FreeDisk, BadValue> {
    const KEY: &str = "min-free-disk";
    let Some(text) = read.section.option(KEY) else { return Ok(default) };
    if text.ends_with('%') || text.parse().is_ok_and(|number: f64| number <= 100.0) {
        return Ok(FreeDisk::Percent(percent(read, KEY, 0.0)?));
    }
    bytes(text).map(FreeDisk::Bytes).ok_or_else(|| read.bad(KEY, "a percentage or a size such as 10GB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[(&str, &str)]) -> Result<Options, OptionsError> {
        let section = VolfileVolume::new("v-dht", "cluster/distribute").with_subvolumes(["a", "b"]);
        let section = options.iter().fold(section, |section, (key, value)| section.with_option(*key, value));
        Options::from_volfile(&section)
    }

    #[test]
    fn options_are_read() {
        let options = read(&[
            ("decommissioned-bricks", "v-replicate-1,v-replicate-2 "),
            ("min-free-disk", "20GB"),
            ("lookup-optimize", "off"),
            ("lookup-unhashed", "auto"),
            ("directory-layout-spread", "3"),
            ("extra-hash-regex", "^(.+):2,[A-Za-z]*$"),
        ])
        .unwrap();
        assert_eq!(options.decommissioned.iter().collect::<Vec<_>>(), ["v-replicate-1", "v-replicate-2"]);
        assert_eq!(options.limits.free_disk, FreeDisk::Bytes(20 << 30));
        assert!(!options.lookup_optimize && options.lookup_unhashed && options.weighted);
        assert_eq!((options.spread, options.names.hashed_part(b"a:2,S")), (Some(3), &b"a"[..]));
        assert_eq!(read(&[("min-free-disk", "7%")]).unwrap().limits.free_disk, FreeDisk::Percent(7.0));
        assert_eq!(read(&[("min-free-disk", "7")]).unwrap().limits.free_disk, FreeDisk::Percent(7.0));
    }

    #[test]
    fn nonsense_is_refused_with_a_sentence() {
        let sentence = |key, value| read(&[(key, value)]).unwrap_err().to_string();
        assert_eq!(
            sentence("min-free-disk", "much"),
            "volume v-dht: option min-free-disk has the value \"much\", expected a percentage or a size such as 10GB"
        );
        assert!(sentence("extra-hash-regex", "(").contains("not a regular expression"));
        assert!(sentence("lookup-optimize", "perhaps").ends_with("expected on or off"));
    }
}
