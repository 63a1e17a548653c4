//! Options that may stand anywhere among the words (GlusterFS `cli/src/cli.c: cli_opt_parse`).

use std::path::PathBuf;
use std::time::Duration;

/// How answers are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    #[default]
    Text,
    Xml,
    Json,
}

/// The options found among the words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Globals {
    pub format: Format,
    /// `--mode=script` or `--yes`: no questions, every answer is yes.
    pub script: bool,
    /// The daemon's API socket.
    pub socket: PathBuf,
    /// How long to wait for an answer.
    pub timeout: Duration,
    /// What `--version` and the like ask for instead of a command.
    pub instead: Option<Instead>,
}

/// Options that replace the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instead {
    Version,
    Help,
    PrintLogdir,
    PrintStatedumpdir,
}

/// An option that nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unrecognized option {0}")]
pub struct UnknownOption(pub String);

/// Where the daemon's socket is when no option says otherwise: `MORTAR_SOCKET`, then `/run/mortar/mortard.sock`.
pub fn default_socket() -> PathBuf {
    std::env::var_os("MORTAR_SOCKET")
        .map_or_else(|| PathBuf::from("/run/mortar").join(mortar_api::SOCKET_NAME), PathBuf::from)
}

impl Globals {
    /// Takes the options out of `words`, which keeps the rest in order. `--` ends option parsing.
    pub fn extract(words: Vec<String>) -> Result<(Self, Vec<String>), UnknownOption> {
        let mut globals = Self {
            format: Format::Text,
            script: false,
            socket: default_socket(),
            timeout: Duration::from_secs(120),
            instead: None,
        };
        let mut rest = Vec::with_capacity(words.len());
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            if word == "--" {
                rest.extend(words);
                break;
            }
            if !word.starts_with("--") {
                rest.push(word);
                continue;
            }
            globals.take(&word)?;
        }
        Ok((globals, rest))
    }

    fn take(&mut self, word: &str) -> Result<(), UnknownOption> {
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        match (name, value) {
            ("--mode", Some("script")) | ("--yes", None) => self.script = true,
            ("--xml", None) => self.format = Format::Xml,
            ("--json", None) => self.format = Format::Json,
            ("--socket" | "--glusterd-sock", Some(path)) => self.socket = PathBuf::from(path),
            ("--timeout", Some(seconds)) => match seconds.parse() {
                Ok(seconds) => self.timeout = Duration::from_secs(seconds),
                Err(_) => return Err(UnknownOption(word.to_owned())),
            },
            ("--version", None) => self.instead = Some(Instead::Version),
            ("--help", None) => self.instead = Some(Instead::Help),
            ("--print-logdir", None) => self.instead = Some(Instead::PrintLogdir),
            ("--print-statedumpdir", None) => self.instead = Some(Instead::PrintStatedumpdir),
            // Accepted for scripts' sake; they concern GlusterFS's own logs, partitions or network families.
            ("--mode", Some("interactive"))
            | ("--nolog" | "--wignore" | "--wignore-partition" | "--inet6", None)
            | ("--log-file" | "--log-level" | "--secure-mgmt", Some(_)) => {}
            _ => return Err(UnknownOption(word.to_owned())),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_are_taken_wherever_they_stand() {
        let (globals, rest) = Globals::extract(words("volume --xml list --mode=script")).unwrap();
        assert_eq!((globals.format, globals.script), (Format::Xml, true));
        assert_eq!(rest, ["volume", "list"]);
    }

    #[test]
    fn an_unknown_option_is_named() {
        assert_eq!(Globals::extract(words("--badopt volume info")), Err(UnknownOption("--badopt".into())));
    }

    #[test]
    fn two_dashes_end_the_options() {
        let (_, rest) = Globals::extract(words("volume set v k -- --x")).unwrap();
        assert_eq!(rest, ["volume", "set", "v", "k", "--x"]);
    }
}
