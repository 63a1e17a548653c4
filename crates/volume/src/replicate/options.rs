//! What a replicate layer is told: the options of `cluster/replicate` in a volfile, and our own times.

use std::time::Duration;

use mortar_logic::replicate::changelog::Keys;
use mortar_logic::replicate::quorum::Quorum;
use mortar_logic::replicate::read_child::HashMode;
use mortar_types::SubvolId;
use mortar_wire::volfile::VolfileVolume;

use crate::section::{BadValue, Reader};

/// Options of one replica set. [`Options::new`] has the defaults of GlusterFS 10 and ours.
#[derive(Clone, Debug)]
pub struct Options {
    /// The layer's name (`imap0-replicate-0`): the domain of its locks, so all clients must agree on it.
    pub name: String,
    /// Names of the counters, from `afr-pending-xattr`.
    pub keys: Keys,
    pub quorum: Quorum,
    /// Keep data and metadata locks over several operations (`cluster.eager-lock`).
    pub eager_lock: bool,
    /// Flush to disk before the dirty mark goes (`cluster.ensure-durability`).
    pub ensure_durability: bool,
    /// Skip the dirty mark of names and attributes while every child takes part (`cluster.optimistic-change-log`).
    pub optimistic_change_log: bool,
    /// Name the entries that a child missed in its index (`granular-entry-heal`).
    pub granular_entry_heal: bool,
    /// The last so many children hold names and attributes only (`arbiter-count`).
    pub arbiter_count: usize,
    pub read_subvolume: Option<SubvolId>,
    pub choose_local: bool,
    pub read_hash_mode: HashMode,
    /// A kept lock that nobody used for so long is given back.
    pub keep_idle: Duration,
    /// A kept lock is given back after so long even in constant use: where notices of contention are switched off
    /// (`features.lock-notify-contention`) or get lost, another client must not starve.
    pub keep_age_max: Duration,
    /// After another client showed up in a directory, lock single names for so long.
    pub contended_for: Duration,
    /// How long the first operations wait for children that are still connecting, so that they are not taken for dead.
    pub settle: Duration,
}

/// Why a volfile section cannot be a replica set.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OptionsError {
    #[error(transparent)]
    BadValue(#[from] BadValue),
    #[error("volume {volume}: afr-pending-xattr names {named} bricks, but there are {subvolumes} subvolumes")]
    PendingXattrCount { volume: String, named: usize, subvolumes: usize },
    #[error("volume {volume}: a replica set needs at least one subvolume")]
    NoSubvolumes { volume: String },
}

impl Options {
    pub fn new<I: IntoIterator<Item: AsRef<str>>>(name: impl Into<String>, brick_ids: I) -> Self {
        let keys = Keys::new(brick_ids);
        Self {
            name: name.into(),
            quorum: Quorum::default_for(keys.pending.len()),
            keys,
            eager_lock: true,
            ensure_durability: true,
            optimistic_change_log: true,
            granular_entry_heal: true,
            arbiter_count: 0,
            read_subvolume: None,
            choose_local: true,
            read_hash_mode: HashMode::Gfid,
            keep_idle: Duration::from_secs(1),
            keep_age_max: Duration::from_secs(3),
            contended_for: Duration::from_secs(5),
            settle: Duration::from_secs(3),
        }
    }

    /// Reads a section of type `cluster/replicate`. Unknown options are left alone, as in GlusterFS.
    pub fn from_volfile(section: &VolfileVolume) -> Result<Self, OptionsError> {
        let volume = || section.name.clone();
        if section.subvolumes.is_empty() {
            return Err(OptionsError::NoSubvolumes { volume: volume() });
        }
        let brick_ids: Vec<&str> = match section.option("afr-pending-xattr") {
            Some(list) => list.split(',').map(str::trim).filter(|id| !id.is_empty()).collect(),
            // Volfiles of old volumes lack the option: the subvolumes' names are the keys (`afr/afr.c` init).
            None => section.subvolumes.iter().map(String::as_str).collect(),
        };
        if brick_ids.len() != section.subvolumes.len() {
            let (named, subvolumes) = (brick_ids.len(), section.subvolumes.len());
            return Err(OptionsError::PendingXattrCount { volume: volume(), named, subvolumes });
        }
        let read = Reader { section };
        let mut options = Self::new(section.name.clone(), brick_ids);
        let count = read.number("quorum-count")?;
        options.quorum = match section.option("quorum-type") {
            None => options.quorum,
            Some("none") => Quorum::None,
            Some("auto") => Quorum::Auto,
            Some("fixed") => Quorum::Fixed(count.unwrap_or(0) as usize),
            Some(_) => return Err(read.bad("quorum-type", "none, auto or fixed").into()),
        };
        options.eager_lock = read.flag("eager-lock", options.eager_lock)?;
        options.ensure_durability = read.flag("ensure-durability", options.ensure_durability)?;
        options.optimistic_change_log = read.flag("optimistic-change-log", options.optimistic_change_log)?;
        options.granular_entry_heal = read.flag("granular-entry-heal", false)?;
        options.choose_local = read.flag("choose-local", options.choose_local)?;
        options.arbiter_count = read.number("arbiter-count")?.unwrap_or(0) as usize;
        options.read_hash_mode = match read.number("read-hash-mode")? {
            None => options.read_hash_mode,
            Some(mode) => HashMode::from_number(mode).ok_or_else(|| read.bad("read-hash-mode", "0 to 5"))?,
        };
        options.read_subvolume = match (section.option("read-subvolume"), section.option("read-subvolume-index")) {
            (Some(name), _) => section.subvolumes.iter().position(|known| known == name).map(SubvolId),
            // -1 is GlusterFS's default: no preference.
            (None, Some(index)) => index.parse().ok().filter(|at| *at < section.subvolumes.len()).map(SubvolId),
            (None, None) => None,
        };
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(options: &[(&str, &str)]) -> VolfileVolume {
        let section =
            VolfileVolume::new("v-replicate-0", "cluster/replicate").with_subvolumes(["v-client-0", "v-client-1"]);
        options.iter().fold(section, |section, (key, value)| section.with_option(*key, value))
    }

    #[test]
    fn pending_keys_come_from_the_option_not_from_the_names() {
        let options = Options::from_volfile(&section(&[("afr-pending-xattr", "v-client-0,v-client-7")])).unwrap();
        assert_eq!(options.keys.pending[SubvolId(1)], "trusted.afr.v-client-7");
        assert_eq!(options.quorum, Quorum::None);
        let wrong = Options::from_volfile(&section(&[("afr-pending-xattr", "v-client-0")]));
        assert!(matches!(wrong, Err(OptionsError::PendingXattrCount { named: 1, subvolumes: 2, .. })));
    }

    #[test]
    fn quorum_and_flags_are_read_and_nonsense_is_refused() {
        let options = Options::from_volfile(&section(&[("quorum-type", "fixed"), ("quorum-count", "2")])).unwrap();
        assert_eq!(options.quorum, Quorum::Fixed(2));
        assert!(Options::from_volfile(&section(&[("quorum-type", "maybe")])).is_err());
        assert!(Options::from_volfile(&section(&[("eager-lock", "perhaps")])).is_err());
        assert!(!Options::from_volfile(&section(&[("eager-lock", "off")])).unwrap().eager_lock);
    }
}
