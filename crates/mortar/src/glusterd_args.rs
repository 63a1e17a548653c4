//! The command line of `glusterd`, as init scripts write it (`glusterfsd/src/glusterfsd.c: gf_options`).

use mortar_cli::grammar::Daemon;

/// What the words ask for.
#[derive(Debug)]
pub(crate) enum Asked {
    Run(Box<Daemon>),
    Version,
}

/// An option of which the meaning is not known; nothing is started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArgsError {
    #[error("glusterd: unknown option {0}")]
    Unknown(String),
    #[error("glusterd: option {0} needs a value")]
    NoValue(String),
}

/// Options whose values concern files of GlusterFS's own and change nothing here.
const IGNORED: [&str; 10] = [
    "-p",
    "--pid-file",
    "-l",
    "--log-file",
    "-f",
    "--volfile",
    "--xlator-option",
    "--logger",
    "--log-format",
    "--log-buf-size",
];

pub(crate) fn parse(words: &[String], defaults: Daemon) -> Result<Asked, ArgsError> {
    let mut daemon = defaults;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (word.as_str(), None),
        };
        let mut value =
            || value.clone().or_else(|| words.next().cloned()).ok_or_else(|| ArgsError::NoValue(name.to_owned()));
        match name {
            "-N" | "--no-daemon" | "--debug" => daemon.no_daemon = true,
            "-L" | "--log-level" => daemon.log_level = value()?,
            "-V" | "--version" => return Ok(Asked::Version),
            name if IGNORED.contains(&name) => drop(value()?),
            _ => return Err(ArgsError::Unknown(word.clone())),
        }
    }
    Ok(Asked::Run(Box::new(daemon)))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use mortar_cli::grammar::{Top, Words};

    use super::*;

    fn check(text: &str) -> Result<Asked, ArgsError> {
        let Top::Daemon(defaults) = Words::parse_from(["mortar", "daemon"]).top else { unreachable!() };
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        parse(&words, defaults)
    }

    #[test]
    fn the_unit_files_line_is_taken() {
        let Ok(Asked::Run(daemon)) = check("-p /var/run/glusterd.pid --log-level DEBUG -N") else { panic!() };
        assert_eq!((daemon.log_level.as_str(), daemon.no_daemon), ("DEBUG", true));
    }

    #[test]
    fn unknown_options_and_missing_values_are_named() {
        assert_eq!(check("--frobnicate").unwrap_err(), ArgsError::Unknown("--frobnicate".into()));
        assert_eq!(check("--log-level").unwrap_err(), ArgsError::NoValue("--log-level".into()));
    }
}
