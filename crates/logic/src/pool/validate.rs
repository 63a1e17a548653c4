//! Whether an option takes a value: GlusterFS's parsers and their complaints (`libglusterfs/src/options.c`,
//! `glusterd-volume-set.c`, `glusterd-op-sm.c: glusterd_op_stage_set_volume`).

use super::hint::did_you_mean;
use super::options::{self, Known, Rule, Scope, ValueKind};
use super::refusal::Refusal;
use super::v1::{Layout, Volume, VolumeState};
use crate::values::{boolean, byte_size, number};

/// The op-version this release has, as GlusterFS 10 numbers them.
const OP_VERSION: u32 = 100_000;

/// The options with full names, all checked for this volume.
pub(super) fn of_volume(volume: &Volume, wanted: &[(String, String)]) -> Result<Vec<(String, String)>, Refusal> {
    wanted.iter().map(|(key, value)| checked(volume, key, value)).collect()
}

fn checked(volume: &Volume, key: &str, value: &str) -> Result<(String, String), Refusal> {
    other_command(key, value)?;
    // For the admin's own notes and hooks; never interpreted (`is_key_glusterd_hooks_friendly`).
    if key.starts_with("user.") {
        return Ok((key.to_owned(), value.to_owned()));
    }
    let known = resolve(key)?;
    if known.scope == Scope::Pool {
        return Err(Refusal::OnlyGlobalOption);
    }
    if known.key == "cluster.granular-entry-heal" && volume.state != VolumeState::Created {
        return Err(Refusal::OtherCommand(format!(
            " 'gluster volume set <VOLNAME> {} {{enable, disable}}' is not supported. Use 'gluster volume heal <VOLNAME> \
             granular-entry-heal {{enable, disable}}' instead.",
            known.key
        )));
    }
    if matches!(known.key, "storage.linux-aio" | "storage.linux-io_uring") && volume.state == VolumeState::Started {
        return Err(Refusal::StopFirst(known.key.to_owned()));
    }
    fits_volume(volume, known, key, value)?;
    takes(known, value)?;
    Ok((known.key.to_owned(), value.to_owned()))
}

/// Checks a value alone, for commands that may set what `volume set` may not.
pub(super) fn value_of(volume: &Volume, key: &str, value: &str) -> Result<(), Refusal> {
    let known = resolve(key)?;
    fits_volume(volume, known, key, value)?;
    takes(known, value)
}

/// Options for `all`.
pub(super) fn global(wanted: &[(String, String)]) -> Result<Vec<(String, String)>, Refusal> {
    wanted
        .iter()
        .map(|(key, value)| {
            let known = resolve(key)?;
            if known.scope != Scope::Pool {
                return Err(Refusal::NotGlobalOption);
            }
            match known.key {
                "cluster.max-op-version" => return Err(Refusal::NotSettable),
                "cluster.op-version" => op_version(known.key, value)?,
                "cluster.max-bricks-per-process" => {
                    return Err(Refusal::BadValue(
                        "Brick-multiplexing is not enabled. Please enable brick multiplexing before trying to set this option."
                            .to_owned(),
                    ));
                }
                "cluster.localtime-logging" | "cluster.enable-shared-storage" => {
                    one_of(value, &["enable", "disable"], "'enable' and 'disable'")?;
                }
                "cluster.daemon-log-level" => one_of(
                    value,
                    &["INFO", "WARNING", "DEBUG", "TRACE", "ERROR"],
                    "'INFO' or 'WARNING' or 'ERROR' or 'DEBUG' or  'TRACE'",
                )?,
                _ => takes(known, value)?,
            }
            Ok((known.key.to_owned(), value.clone()))
        })
        .collect()
}

/// The full name of an option to reset.
pub(super) fn key_to_reset(typed: &str, scope: Scope) -> Result<&str, Refusal> {
    if typed.starts_with("user.") {
        return Ok(typed);
    }
    let Some(known) = options::complete(typed) else {
        return Err(Refusal::NoSuchOptionToReset { key: typed.to_owned(), hint: did_you_mean(typed) });
    };
    if matches!(known.key, "features.quota" | "features.inode-quota") {
        return Err(Refusal::OtherCommand(format!(
            "'gluster volume reset <VOLNAME> {}' is deprecated. Use 'gluster volume quota <VOLNAME> disable' instead.",
            known.key
        )));
    }
    match (scope, known.scope) {
        (Scope::Pool, Scope::Volume) => Err(Refusal::NotGlobalOption),
        (Scope::Volume, Scope::Pool) => Err(Refusal::OnlyGlobalOption),
        _ => Ok(known.key),
    }
}

fn resolve(key: &str) -> Result<&'static Known, Refusal> {
    options::complete(key).ok_or_else(|| Refusal::NoSuchOption { key: key.to_owned(), hint: did_you_mean(key) })
}

fn one_of(value: &str, values: &[&str], words: &str) -> Result<(), Refusal> {
    if values.contains(&value) {
        return Ok(());
    }
    Err(Refusal::BadValue(format!("Invalid option({value}). Valid options are {words}")))
}

fn op_version(key: &str, value: &str) -> Result<(), Refusal> {
    let Ok(wanted) = value.parse::<u32>() else {
        return Err(Refusal::BadValue(format!("invalid number format \"{value}\" in option \"{key}\"")));
    };
    Err(Refusal::BadValue(if wanted == 0 || wanted > OP_VERSION {
        format!("Required op_version ({wanted}) is not supported. Max supported op version is {OP_VERSION}")
    } else {
        format!(
            "Required op-version ({wanted}) should not be equal or lower than current cluster op-version ({OP_VERSION})."
        )
    }))
}

/// Options that GlusterFS sets through commands of their own.
fn other_command(key: &str, value: &str) -> Result<(), Refusal> {
    let on = boolean(value) == Some(true);
    let text = match key {
        "features.bitrot" | "bitrot" => format!(
            " 'gluster volume set <VOLNAME> {key}' is invalid command. Use 'gluster volume bitrot <VOLNAME> \
             {{enable|disable}}' instead."
        ),
        "features.scrub" | "scrub" => format!(
            " 'gluster volume set <VOLNAME> {key}' is invalid command. Use 'gluster volume bitrot <VOLNAME> scrub \
             {{pause|resume}}' instead."
        ),
        "features.scrub-freq" | "scrub-freq" => format!(
            " 'gluster volume set <VOLNAME> {key}' is invalid command. Use 'gluster volume bitrot <VOLNAME> \
             scrub-frequency {{hourly|daily|weekly|biweekly|monthly}}' instead."
        ),
        "features.scrub-throttle" | "scrub-throttle" => format!(
            " 'gluster volume set <VOLNAME> {key}' is invalid command. Use 'gluster volume bitrot <VOLNAME> \
             scrub-throttle  {{lazy|normal|aggressive}}' instead."
        ),
        "features.quota" | "quota" | "features.inode-quota" | "inode-quota" => {
            let command = if on && key.ends_with("inode-quota") { "inode-quota" } else { "quota" };
            let verb = if on { "enable" } else { "disable" };
            format!(
                " 'gluster volume set <VOLNAME> {key} {value}' is deprecated. Use 'gluster volume {command} <VOLNAME> \
                 {verb}' instead."
            )
        }
        _ => return Ok(()),
    };
    Err(Refusal::OtherCommand(text))
}

fn fits_volume(volume: &Volume, known: &Known, typed: &str, value: &str) -> Result<(), Refusal> {
    let wrong = |kind: &str| Refusal::WrongVolumeKind { key: typed.to_owned(), kind: kind.to_owned() };
    match known.validator {
        "replica" | "replica_heal_enable_disable" | "quorum_count" if !volume.is_replicate() => Err(wrong("replicate")),
        "disperse" | "disperse_heal_enable_disable" | "disperse_quorum_count"
            if !matches!(volume.layout, Layout::Disperse { .. }) =>
        {
            Err(wrong("disperse"))
        }
        "quorum_count" => quorum_count(volume, known, value),
        "subvols_per_directory" => subvols_per_directory(volume, value),
        "mandatory_locking" => {
            if matches!(value, "off" | "file" | "forced" | "optimal") {
                return Ok(());
            }
            Err(Refusal::BadValue(format!(
                "Invalid option value '{value}': Available options are 'off', 'file', 'forced' or 'optimal'"
            )))
        }
        "boolean" | "parallel_readdir" | "uss" => must_be_boolean(known.key, value),
        _ => Ok(()),
    }
}

fn quorum_count(volume: &Volume, known: &Known, value: &str) -> Result<(), Refusal> {
    let replica = volume.layout.group();
    match value.parse::<u32>() {
        Ok(count) if (1..=replica).contains(&count) => Ok(()),
        _ => Err(Refusal::BadValue(format!("{value} in {} {value} is out of range [1 - {replica}]", known.key))),
    }
}

fn subvols_per_directory(volume: &Volume, value: &str) -> Result<(), Refusal> {
    let subvolumes = volume.bricks.len() / volume.layout.group().max(1) as usize;
    match value.parse::<usize>() {
        Ok(wanted) if wanted > subvolumes => Err(Refusal::BadValue(format!(
            "subvols-per-directory({wanted}) is greater than the number of subvolumes({subvolumes})."
        ))),
        _ => Ok(()),
    }
}

fn must_be_boolean(key: &str, value: &str) -> Result<(), Refusal> {
    match boolean(value) {
        Some(_) => Ok(()),
        None => Err(Refusal::BadValue(format!("option {key} {value}: '{value}' is not a valid boolean value"))),
    }
}

/// The name GlusterFS's messages use: the option's own, without the mark of those that are handled apart.
fn name_in_messages(known: &Known) -> &'static str {
    match known.option.strip_prefix('!') {
        Some("perf" | "server-auth") => known.key.split_once('.').map_or(known.key, |(_, rest)| rest),
        Some(name) => name,
        None => known.option,
    }
}

fn takes(known: &Known, value: &str) -> Result<(), Refusal> {
    let name = name_in_messages(known);
    let outcome = match known.kind {
        ValueKind::Any => Ok(()),
        ValueKind::Text => text(known, name, value),
        ValueKind::Integer => integer(known, name, value),
        ValueKind::Size => size(known, name, value),
        ValueKind::Percent => percent(name, value),
        ValueKind::PercentOrSize => percent_or_size(known, name, value),
        ValueKind::Boolean => return must_be_boolean(name, value),
        ValueKind::Path => path(name, value),
        ValueKind::Time => time(known, name, value),
        ValueKind::AddressList => address_list(name, value),
    };
    outcome.and_then(|()| fits_a_volfile(name, value)).map_err(Refusal::BadValue)
}

/// A value is written as it is into files that shell-minded parsers read: they run what stands between backticks, and
/// a line's end would begin an option of its own.
fn fits_a_volfile(name: &str, value: &str) -> Result<(), String> {
    let bad = |character: char| character.is_control() || character.is_whitespace() || matches!(character, '`' | '"');
    if value.is_empty() || value.chars().any(bad) {
        return Err(format!(
            "option {name} {value}: '{value}' is empty or contains white space, quotes or control characters"
        ));
    }
    Ok(())
}

fn text(known: &Known, name: &str, value: &str) -> Result<(), String> {
    if known.values.is_empty() || known.values.contains(&value) {
        return Ok(());
    }
    let possible = known.values.join(", ");
    Err(format!("option {name} {value}: '{value}' is not valid (possible options are {possible}.)"))
}

fn integer(known: &Known, name: &str, value: &str) -> Result<(), String> {
    let Some(number) = decimal_or_hex(value) else {
        return Err(format!("invalid number format \"{value}\" in option \"{name}\""));
    };
    let range = known.range;
    #[expect(clippy::cast_precision_loss, reason = "ranges of the table are far below 2^53")]
    let measured = number as f64;
    match range.rule {
        Rule::Minimum if measured < range.min => {
            Err(format!("'{number}' in 'option {name} {value}' is smaller than minimum value '{:.0}'", range.min))
        }
        Rule::Maximum if measured > range.max => {
            Err(format!("'{number}' in 'option {name} {value}' is greater than maximum value '{:.0}'", range.max))
        }
        Rule::Both if has_range(known) && (measured < range.min || measured > range.max) => {
            Err(out_of_range(known, name, &number.to_string(), value))
        }
        _ => Ok(()),
    }
}

fn has_range(known: &Known) -> bool {
    known.range.min != 0.0 || known.range.max != 0.0
}

fn out_of_range(known: &Known, name: &str, number: &str, value: &str) -> String {
    format!("'{number}' in 'option {name} {value}' is out of range [{:.0} - {:.0}]", known.range.min, known.range.max)
}

fn size(known: &Known, name: &str, value: &str) -> Result<(), String> {
    let Some(bytes) = byte_size(value) else {
        return Err(format!("invalid number format \"{value}\" in option \"{name}\""));
    };
    if has_range(known) && (bytes < known.range.min || bytes > known.range.max) {
        return Err(out_of_range(known, name, &format!("{bytes:.0}"), value));
    }
    Ok(())
}

fn percent(name: &str, value: &str) -> Result<(), String> {
    let Some(number) = number(value.strip_suffix('%').unwrap_or(value)) else {
        return Err(format!("invalid percent format \"{value}\" in \"option {name}\""));
    };
    if (0.0..=100.0).contains(&number) {
        return Ok(());
    }
    Err(format!("'{number:.6}' in 'option {name} {value}' is out of range [0 - 100]"))
}

fn percent_or_size(known: &Known, name: &str, value: &str) -> Result<(), String> {
    if value.ends_with('%') {
        return percent(name, value).map_err(|error| error.replace("invalid percent format", "invalid number format"));
    }
    let Some(bytes) = byte_size(value) else {
        return Err(format!("invalid number format \"{value}\" in \"option {name}\""));
    };
    if value.split_once('.').is_some_and(|(_, fraction)| fraction.bytes().any(|byte| byte != b'0')) {
        return Err(format!(
            "'{bytes:.6}' in 'option {name} {value}' should not be fractional value. Use valid unsigned integer value."
        ));
    }
    if has_range(known) && (bytes < known.range.min || bytes > known.range.max) {
        return Err(out_of_range(known, name, &format!("{bytes:.6}"), value));
    }
    Ok(())
}

fn path(name: &str, value: &str) -> Result<(), String> {
    if value.contains("../") {
        return Err(format!("invalid path given '{value}'"));
    }
    if !value.starts_with('/') {
        return Err(format!("option {name} {value}: '{value}' is not an absolute path name"));
    }
    Ok(())
}

fn time(known: &Known, name: &str, value: &str) -> Result<(), String> {
    let Some(seconds) = seconds(value) else {
        return Err(format!("invalid time format \"{value}\" in \"option {name}\""));
    };
    #[expect(clippy::cast_precision_loss, reason = "ranges of the table are far below 2^53")]
    let measured = seconds as f64;
    if has_range(known) && (measured < known.range.min || measured > known.range.max) {
        return Err(out_of_range(known, name, &seconds.to_string(), value));
    }
    Ok(())
}

/// `a,b,10.0.0.*,10.0.0.0/8`, or `/dir(a|b),/dir2(c)`; each address may be negated by `!`.
fn address_list(name: &str, value: &str) -> Result<(), String> {
    let plain = |list: &str, separator| !list.is_empty() && list.split(separator).all(is_address);
    let fits = if value.starts_with('/') || value.contains('(') {
        value.split(',').all(|entry| {
            entry.starts_with('/')
                && entry
                    .strip_suffix(')')
                    .and_then(|entry| entry.split_once('('))
                    .is_some_and(|(_, list)| plain(list, '|'))
        })
    } else {
        plain(value, ',')
    };
    if fits {
        return Ok(());
    }
    Err(format!("option {name} {value}: '{value}' is not a valid internet-address-list"))
}

fn is_address(address: &str) -> bool {
    let address = address.strip_prefix('!').unwrap_or(address);
    !address.is_empty()
        && address.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'*' | b'?' | b'[' | b']' | b'/')
        })
}

fn decimal_or_hex(value: &str) -> Option<i64> {
    match value.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None => value.parse().ok(),
    }
}

fn seconds(value: &str) -> Option<i64> {
    let split = value.find(|byte: char| byte.is_ascii_alphabetic()).unwrap_or(value.len());
    let (digits, unit) = value.split_at(split);
    let factor = match unit {
        "" | "s" | "sec" => 1,
        "m" | "min" => 60,
        "h" | "hr" => 3600,
        "d" | "days" => 86_400,
        "w" | "wk" => 604_800,
        _ => return None,
    };
    digits.parse::<i64>().ok().filter(|count| *count >= 0)?.checked_mul(factor)
}
