//! Tracing: where a process's log goes and how much of it.
#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::str::FromStr;

use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::fmt::time::SystemTime;

/// Log levels by GlusterFS's names (`--log-level`, `diagnostics.client-log-level`), in any case.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Level {
    None,
    Error,
    Warning,
    #[default]
    Info,
    Debug,
    Trace,
}

/// The name is none of the levels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownLevel(pub String);

impl std::fmt::Display for UnknownLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\" is not a log level (NONE, CRITICAL, ERROR, WARNING, INFO, DEBUG, TRACE)", self.0)
    }
}

impl std::error::Error for UnknownLevel {}

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(name: &str) -> Result<Self, UnknownLevel> {
        match name.to_ascii_uppercase().as_str() {
            "NONE" => Ok(Self::None),
            // There is nothing above ERROR here.
            "CRITICAL" | "ERROR" => Ok(Self::Error),
            "WARNING" | "WARN" => Ok(Self::Warning),
            "INFO" => Ok(Self::Info),
            "DEBUG" => Ok(Self::Debug),
            "TRACE" => Ok(Self::Trace),
            _ => Err(UnknownLevel(name.to_owned())),
        }
    }
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::None => Self::OFF,
            Level::Error => Self::ERROR,
            Level::Warning => Self::WARN,
            Level::Info => Self::INFO,
            Level::Debug => Self::DEBUG,
            Level::Trace => Self::TRACE,
        }
    }
}

/// Sends the process's log to a file (appended to, its directory made when missing) or, without one, to stderr.
/// The environment variable `MORTAR_LOG` (`tracing_subscriber`'s filter syntax) wins over `level`. The first call of a
/// process counts; later ones change nothing.
pub fn init(file: Option<&Path>, level: Level) -> io::Result<()> {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::from(level).into())
        .with_env_var("MORTAR_LOG")
        .from_env_lossy();
    // The consensus library tells every step it takes, and an error per message to a member that is away; the pool says
    // itself what of it matters. Whoever sets the variable gets what they ask for.
    let filter = match (std::env::var_os("MORTAR_LOG"), "openraft=off".parse()) {
        (None, Ok(quiet)) => filter.add_directive(quiet),
        _ => filter,
    };
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_timer(SystemTime).with_target(true);
    // An error means that a log is set up already.
    let _ = match file {
        Some(path) => {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            subscriber.with_ansi(false).with_writer(file).try_init()
        }
        None => subscriber.with_ansi(false).with_writer(io::stderr).try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_glusterfs_names_in_any_case() {
        assert_eq!("warning".parse(), Ok(Level::Warning));
        assert_eq!("CRITICAL".parse(), Ok(Level::Error));
        let error = "loud".parse::<Level>().unwrap_err();
        assert!(error.to_string().starts_with("\"loud\" is not a log level"));
    }

    #[test]
    fn the_log_file_and_its_directory_are_made() {
        let folder = std::env::temp_dir().join(format!("mortar-observe-{}", std::process::id()));
        let path = folder.join("deep/log");
        init(Some(&path), Level::Info).unwrap();
        tracing::info!(answer = 42, "hello");
        tracing::debug!("too quiet");
        let log = std::fs::read_to_string(&path).unwrap();
        assert!(log.contains("hello answer=42") && !log.contains("too quiet"), "{log}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
