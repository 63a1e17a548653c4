//! The words of `glusterfs` as a client: `glusterfs --volfile-server=S --volfile-id=V MOUNT`, or `-f VOLFILE MOUNT`.
//!
//! Names follow GlusterFS 10's `glusterfsd.c: gf_options`. Mount scripts, systemd units and containers call it directly, and
//! so does mount.fuse(8) as `glusterfs SOURCE DIRECTORY -o OPTIONS`.

use std::path::{Path, PathBuf};

use crate::helper::{Asked, HelperError};
use crate::options::{Face, Options};
use crate::source::Source;

/// Short options and their long names; all of these have a value.
const SHORT: [(&str, &str); 8] = [
    ("-s", "volfile-server"),
    ("-f", "volfile"),
    ("-L", "log-level"),
    ("-l", "log-file"),
    ("-p", "pid-file"),
    ("-S", "socket-file"),
    ("-r", "run-id"),
    ("-o", "options"),
];

/// Long options without a value, or with one after `=` only.
const FLAGS: [&str; 22] = [
    "no-daemon",
    "debug",
    "read-only",
    "acl",
    "selinux",
    "capability",
    "worm",
    "mac-compat",
    "fopen-keep-cache",
    "enable-ino32",
    "aux-gfid-mount",
    "thin-client",
    "global-timer-wheel",
    "global-threading",
    "resolve-gids",
    "volfile-check",
    "no-mem-accounting",
    "mem-accounting",
    "secure-mgmt",
    "localtime-logging",
    "brick-mux",
    "no-root-squash",
];

/// Values that are taken and mean nothing here.
const IGNORED: [&str; 11] = [
    "socket-file",
    "run-id",
    "logger",
    "log-format",
    "log-buf-size",
    "log-flush-timeout",
    "volfile-max-fetch-attempts",
    "client-pid",
    "user-map-root",
    "fs-display-name",
    "volume-name",
];

/// What the words name, before it is put together.
#[derive(Default)]
struct Words<'a> {
    servers: Vec<&'a str>,
    volfile_id: Option<&'a str>,
    volfile: Option<&'a str>,
    positional: Vec<&'a str>,
    set: Vec<(&'a str, Option<&'a str>)>,
    pid_file: Option<&'a str>,
    foreground: bool,
}

/// Reads the words after `glusterfs`.
pub fn parse(words: &[String]) -> Result<Asked, HelperError> {
    let mut found = Words::default();
    let mut rest = words.iter().map(String::as_str);
    while let Some(word) = rest.next() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let name = match SHORT.iter().find(|(short, _)| *short == name) {
            Some((_, long)) => long,
            None => match name {
                "-V" | "--version" => return Ok(Asked::Version),
                "-?" | "--help" | "--usage" => return Ok(Asked::Usage(usage())),
                "-N" => "no-daemon",
                _ => match name.strip_prefix("--") {
                    Some(long) => long,
                    None if name.starts_with('-') => return Err(unknown(word)),
                    None => {
                        found.positional.push(word);
                        continue;
                    }
                },
            },
        };
        if FLAGS.contains(&name) {
            found.flag(name, value);
            continue;
        }
        let value = match value {
            Some(value) => value,
            None => rest.next().ok_or_else(|| HelperError::new(64, format!("glusterfs: --{name} needs a value")))?,
        };
        found.value(name, value).ok_or_else(|| unknown(word))?;
    }
    found.options().map(|options| Asked::Mount(Box::new(options)))
}

impl<'a> Words<'a> {
    fn flag(&mut self, name: &'a str, value: Option<&'a str>) {
        match name {
            "no-daemon" => self.foreground = true,
            "debug" => {
                self.foreground = true;
                self.set.push(("log-level", Some("DEBUG")));
            }
            "read-only" => self.set.push(("ro", None)),
            "fopen-keep-cache" => {
                self.set.push((name, Some(value.map_or("yes", |value| value.trim_start_matches('=')))));
            }
            "acl" | "selinux" | "enable-ino32" | "worm" | "aux-gfid-mount" => self.set.push((name, None)),
            _ => {}
        }
    }

    /// `None`: there is no such option.
    fn value(&mut self, name: &'a str, value: &'a str) -> Option<()> {
        match name {
            "volfile-server" => self.servers.push(value),
            "volfile-id" => self.volfile_id = Some(value),
            "volfile" | "spec-file" => self.volfile = Some(value),
            "pid-file" => self.pid_file = Some(value),
            "volfile-server-transport" => {}
            "options" => {
                let pair = |word: &'a str| word.split_once('=').map_or((word, None), |(key, value)| (key, Some(value)));
                self.set.extend(value.split(',').filter(|word| !word.is_empty()).map(pair));
            }
            "process-name" => self.set.push((name, value.strip_prefix("fuse.").or(Some(value)))),
            _ if IGNORED.contains(&name) => {}
            "log-level"
            | "log-file"
            | "volfile-server-port"
            | "subdir-mount"
            | "direct-io-mode"
            | "entry-timeout"
            | "negative-timeout"
            | "attribute-timeout"
            | "gid-timeout"
            | "lru-limit"
            | "invalidate-limit"
            | "background-qlen"
            | "congestion-threshold"
            | "oom-score-adj"
            | "xlator-option"
            | "fuse-mountopts"
            | "use-readdirp"
            | "event-history"
            | "reader-thread-count"
            | "kernel-writeback-cache"
            | "attr-times-granularity"
            | "auto-invalidation"
            | "fuse-flush-handle-interrupt"
            | "dump-fuse"
            | "fuse-dev-eperm-ratelimit-ns"
            | "io-engine" => self.set.push((name, Some(value))),
            _ => return None,
        }
        Some(())
    }

    fn options(self) -> Result<Options, HelperError> {
        let no_mount_point = || HelperError::new(64, "glusterfs: no mount point is given; the last word names it");
        let (source, source_text, directory) = match (self.volfile, &self.servers[..], &self.positional[..]) {
            (Some(volfile), _, [directory]) => (Source::File(PathBuf::from(volfile)), volfile.to_owned(), *directory),
            (None, [first, ..], [directory]) => {
                let missing = || HelperError::new(64, "glusterfs: --volfile-server needs --volfile-id beside it");
                let volfile_id = self.volfile_id.ok_or_else(missing)?;
                let mut source =
                    Source::Volume { servers: Vec::new(), volfile_id: volfile_id.to_owned(), subdir: None };
                source.add_servers(self.servers.iter().copied());
                (source, format!("{first}:{volfile_id}"), *directory)
            }
            // As mount.fuse(8) calls it.
            (None, [], [source, directory]) => {
                let parsed = Source::parse(source).map_err(|error| HelperError::new(64, error.to_string()))?;
                (parsed, (*source).to_owned(), *directory)
            }
            (None, [], [_]) | (_, _, []) => return Err(no_mount_point()),
            _ => return Err(HelperError::new(64, "glusterfs: more than one mount point is given")),
        };
        let mut options = Options::new(Face::Glusterfs, source, source_text, Path::new(directory));
        options.remount = self.set.contains(&("remount", None));
        for (key, value) in &self.set {
            options.set(key, *value)?;
        }
        options.complete();
        options.foreground = self.foreground;
        options.pid_file = self.pid_file.map(PathBuf::from);
        Ok(options)
    }
}

fn unknown(word: &str) -> HelperError {
    HelperError::new(64, format!("glusterfs: unrecognized option '{word}'\n{}", usage()))
}

fn usage() -> String {
    "Usage: glusterfs [OPTION...] --volfile-server=SERVER --volfile-id=VOLUME MOUNT-POINT\n  or:  glusterfs [OPTION...] \
     --volfile=VOLFILE MOUNT-POINT"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, HelperError> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        match parse(&words)? {
            Asked::Mount(options) => Ok(*options),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_line_that_mount_glusterfs_runs() {
        let line = "--read-only --acl --log-level=DEBUG --process-name fuse --volfile-server=gfs1 --volfile-server=gfs2 \
                    --volfile-id=/imap0 --subdir-mount=/user /mnt";
        let options = parsed(line).unwrap();
        let (servers, volfile_id) = (vec!["gfs1".to_owned(), "gfs2".to_owned()], "/imap0".to_owned());
        assert_eq!(options.source, Source::Volume { servers, volfile_id, subdir: Some("/user".into()) });
        assert_eq!(options.source_text, "gfs1:/imap0");
        assert!(options.read_only && options.config.acl && !options.foreground);
    }

    #[test]
    fn a_volfile_of_this_machine() {
        let options = parsed("-f /etc/v.vol -N -l /tmp/log /mnt").unwrap();
        assert_eq!(options.source, Source::File("/etc/v.vol".into()));
        assert!(options.foreground);
        assert_eq!(options.log_path(), Path::new("/tmp/log"));
    }

    #[test]
    fn values_come_after_an_equals_sign_or_as_the_next_word() {
        let options = parsed("-s gfs1 --volfile-id v --entry-timeout 0 --attribute-timeout=5 /mnt").unwrap();
        assert!(options.config.entry_timeout.is_zero());
        assert_eq!(options.config.attribute_timeout.as_secs(), 5);
    }

    #[test]
    fn the_line_that_mount_fuse_runs() {
        assert!(parsed("gfs1:/imap0 /mnt -o rw,remount,allow_other,max_read=131072").unwrap().remount);
    }

    #[test]
    fn what_is_missing_or_unknown_is_said() {
        for line in ["--volfile-server=gfs1 /mnt", "--volfile-server=gfs1 --volfile-id=v", "--no-such=1 /mnt", "-s"] {
            assert_eq!(parsed(line).unwrap_err().exit_code, 64, "{line}");
        }
    }
}
