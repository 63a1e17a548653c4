//! The table of volume options: names, where each goes in a volfile, what values it takes.
//!
//! The table is `options.tsv`, facts of GlusterFS 10.3. Its order is GlusterFS's (`volume get VOL all` prints it so, and
//! volfiles list options in its reverse).

use std::sync::LazyLock;

/// An option of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// `cluster.quorum-type`.
    pub key: &'static str,
    /// The translator it is for, such as `cluster/replicate`.
    pub translator: &'static str,
    /// Its name there; names that begin with `!` are handled apart and not written as they are.
    pub option: &'static str,
    /// The value written to volfiles when it is not set.
    pub map_default: Option<&'static str>,
    /// Listed by `volume set help`.
    pub documented: bool,
    pub scope: Scope,
    flags: &'static str,
    /// The lowest op-version that has it.
    pub op_version: u32,
    /// A further check by name (`replica`, `quorum_count`, …), or empty.
    pub(super) validator: &'static str,
    pub kind: ValueKind,
    pub(super) range: Range,
    /// The values a `Text` option takes; empty: any.
    pub values: Vec<&'static str>,
    /// The translator's own default, or empty.
    pub default: &'static str,
    /// As `volume get VOL all` shows it when it is not set; empty: it does not show it.
    shown: &'static str,
}

/// What an option is set on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Volume,
    /// On `all` only.
    Pool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    Any,
    Text,
    Integer,
    Size,
    Percent,
    PercentOrSize,
    Boolean,
    Path,
    Time,
    AddressList,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Range {
    pub(super) rule: Rule,
    pub(super) min: f64,
    pub(super) max: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    Both,
    Minimum,
    Maximum,
}

impl Known {
    /// `volume reset` leaves it alone unless forced.
    pub fn needs_force(&self) -> bool {
        self.flags.split('|').any(|flag| flag == "FORCE")
    }

    pub fn never_reset(&self) -> bool {
        self.flags.split('|').any(|flag| flag == "NEVER_RESET")
    }

    /// Clients read it, so that they fetch the volfile again when it changes.
    pub fn is_for_clients(&self) -> bool {
        self.flags.split('|').any(|flag| flag == "CLIENT_OPT")
    }

    /// The value of `volume get` when it is not set, and whether that is marked as a default. `None`: not shown.
    pub fn shown(&self) -> Option<(&'static str, bool)> {
        match self.shown.strip_suffix(" (DEFAULT)") {
            Some(value) => Some((value, true)),
            None if self.shown.is_empty() => None,
            None => Some((self.shown, false)),
        }
    }
}

/// Options that are set on `all` (`valid_all_vol_opts`); the rest are set on volumes.
const POOL_OPTIONS: &[&str] = &[
    "cluster.server-quorum-ratio",
    "cluster.enable-shared-storage",
    "cluster.op-version",
    "cluster.max-op-version",
    "cluster.brick-multiplex",
    "cluster.max-bricks-per-process",
    "glusterd.vol_count_per_thread",
    "cluster.localtime-logging",
    "cluster.daemon-log-level",
];

static TABLE: LazyLock<Vec<Known>> = LazyLock::new(|| {
    include_str!("options.tsv").lines().filter(|line| !line.starts_with('#')).filter_map(parse).collect()
});

/// All, in GlusterFS's order. A few keys come twice because two translators take them.
pub fn all() -> &'static [Known] {
    &TABLE
}

/// By full name.
pub fn find(key: &str) -> Option<&'static Known> {
    all().iter().find(|known| known.key == key)
}

/// By what the admin typed: the full name, or the part behind the first dot when only one option ends so
/// (`cache-size`, `quorum-type`; `glusterd-volgen.c: option_complete`).
pub fn complete(typed: &str) -> Option<&'static Known> {
    if typed.contains('.') {
        return find(typed);
    }
    let mut matches = all().iter().filter(|known| known.key.split_once('.').is_some_and(|(_, rest)| rest == typed));
    let first = matches.next()?;
    matches.all(|other| other.key == first.key).then_some(first)
}

fn parse(line: &'static str) -> Option<Known> {
    let mut fields = line.split('\t');
    let mut next = || fields.next();
    let (key, translator, option) = (next()?, next()?, next()?);
    let map_default = next()?;
    let doc = next()?;
    let (flags, op_version, validator, kind) = (next()?, next()?, next()?, next()?);
    let range = Range {
        rule: match next()? {
            "1" => Rule::Minimum,
            "2" => Rule::Maximum,
            _ => Rule::Both,
        },
        min: next()?.parse().ok()?,
        max: next()?.parse().ok()?,
    };
    let values = next()?;
    let (default, shown) = (next()?, next()?);
    Some(Known {
        key,
        translator,
        option,
        map_default: (map_default != "\\N").then_some(map_default),
        documented: doc.ends_with('d'),
        scope: if POOL_OPTIONS.contains(&key) { Scope::Pool } else { Scope::Volume },
        flags,
        op_version: op_version.parse().unwrap_or(1),
        validator,
        kind: kind_named(kind),
        range,
        values: values.split('|').filter(|value| !value.is_empty()).collect(),
        default,
        shown,
    })
}

fn kind_named(name: &str) -> ValueKind {
    match name {
        "str" => ValueKind::Text,
        "int" => ValueKind::Integer,
        "size" => ValueKind::Size,
        "percent" => ValueKind::Percent,
        "percent-or-size" => ValueKind::PercentOrSize,
        "bool" => ValueKind::Boolean,
        "path" => ValueKind::Path,
        "time" => ValueKind::Time,
        "addr-list" => ValueKind::AddressList,
        _ => ValueKind::Any,
    }
}

#[cfg(test)]
mod tests {
    use super::{all, complete, find};

    #[test]
    fn every_line_of_the_table_is_read() {
        let lines = include_str!("options.tsv").lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(all().len(), lines);
        assert!(lines > 390);
    }

    #[test]
    fn shown_defaults_are_those_of_volume_get_all() {
        let heal = find("cluster.heal-timeout").expect("in the table");
        assert_eq!(heal.shown(), Some(("600", true)));
        assert_eq!(find("diagnostics.client-log-level").and_then(super::Known::shown), Some(("INFO", false)));
        assert_eq!(find("nfs.acl").and_then(super::Known::shown), None);
    }

    #[test]
    fn the_part_behind_the_dot_is_enough_when_unique() {
        assert_eq!(complete("cache-size").map(|known| known.key), Some("performance.cache-size"));
        assert_eq!(complete("eager-lock"), None, "cluster.eager-lock and disperse.eager-lock");
        assert_eq!(complete("no-such"), None);
    }
}
