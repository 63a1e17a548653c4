//! The words of mount(8)'s helper: `mount.glusterfs SOURCE DIRECTORY [-V] [-h] [-nsfv] [-o OPTION,…]`, and of
//! `mortar mount`, which has the same and `--foreground`.
//!
//! Grammar and messages follow GlusterFS 10's `mount.glusterfs.in`. Helpers must be linked under `mount.TYPE` for the types
//! that users write (`glusterfs`, `mortar`) and under `mount.fuse.TYPE` for `mount -o remount`, where mount(8) takes the
//! type from /proc/mounts.

use std::path::Path;

use crate::options::{Face, OptionError, Options};
use crate::source::{self, Source};

/// What a helper was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Asked {
    Mount(Box<Options>),
    /// `-V`.
    Version,
    /// `-h`: the text for stdout.
    Usage(String),
}

/// Why a helper cannot do what it was asked; the message is for stderr.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct HelperError {
    pub exit_code: u8,
    pub message: String,
}

impl HelperError {
    /// mount(8)'s exit codes: 1 wrong call, 2 system error, 32 mount failure.
    pub fn new(exit_code: u8, message: impl Into<String>) -> Self {
        Self { exit_code, message: message.into() }
    }
}

impl From<OptionError> for HelperError {
    fn from(error: OptionError) -> Self {
        Self::new(1, error.to_string())
    }
}

/// Reads the words after the helper's `name`, which also tells the face: `mount.mortar`, or anything else for GlusterFS's.
pub fn parse(name: &str, words: &[String]) -> Result<Asked, HelperError> {
    let mut positional: Vec<&str> = Vec::new();
    let mut lists: Vec<&str> = Vec::new();
    let mut foreground = false;
    let mut rest = words.iter().map(String::as_str);
    while let Some(word) = rest.next() {
        match word {
            "-V" | "--version" => return Ok(Asked::Version),
            "-h" | "--help" => return Ok(Asked::Usage(usage(name))),
            "-o" => lists.push(rest.next().ok_or_else(|| HelperError::new(1, usage(name)))?),
            // -f is a dry run for mount(8), which does not call helpers then; -t and -N come with values.
            "-n" | "-s" | "-v" | "-f" => {}
            "-t" | "-N" => drop(rest.next()),
            "--foreground" | "--no-daemon" => foreground = true,
            _ => match word.strip_prefix("-o") {
                Some(list) if positional.len() >= 2 => lists.push(list),
                Some(_) => return Err(HelperError::new(1, misplaced_options(name))),
                None if word.starts_with('-') => return Ok(Asked::Usage(usage(name))),
                None => positional.push(word),
            },
        }
    }
    let [source, directory] = positional[..] else { return Err(HelperError::new(1, usage(name))) };
    let mut options = options(name, source, directory, &lists)?;
    options.foreground = foreground;
    Ok(Asked::Mount(Box::new(options)))
}

fn options(name: &str, source: &str, directory: &str, lists: &[&str]) -> Result<Options, HelperError> {
    let face = if name.ends_with("mortar") { Face::Mortar } else { Face::Glusterfs };
    let parsed = Source::parse(source).map_err(|error| match (face, error) {
        (Face::Mortar, error) => HelperError::new(1, error.to_string()),
        (_, source::Error::NoServer(_)) => {
            HelperError::new(1, "ERROR: No valid servers found on command line.. exiting")
        }
        (_, source::Error::Malformed(_)) => HelperError::new(
            1,
            format!(
                "ERROR: Server name/volume name unspecified cannot proceed further..\nPlease specify correct format\n\
                 Usage:\nman 8 {name}"
            ),
        ),
    })?;
    let mut options = Options::new(face, parsed, source, directory);
    let words = || lists.iter().flat_map(|list| list.split(',')).filter(|word| !word.is_empty());
    // First, because it decides which words are taken.
    options.remount = words().any(|word| word == "remount");
    for word in words() {
        match word.split_once('=') {
            Some((key, value)) => options.set(key, Some(value))?,
            None => options.set(word, None)?,
        }
    }
    options.complete();
    Ok(options)
}

/// Does what a helper was asked with `options`: mounts, or changes a mount that is there.
pub fn mount(name: &str, options: &Options) -> Result<(), HelperError> {
    if !options.remount {
        check_directory(name, &options.directory)?;
    }
    crate::run(options).map_err(|error| {
        let directory = options.directory.display();
        let last = match (options.remount, options.face) {
            (true, _) => format!("Remounting {directory} failed."),
            (false, Face::Glusterfs) => format!("Mounting glusterfs on {directory} failed."),
            (false, Face::Mortar) => {
                format!("Mounting on {directory} failed; see also {}", options.log_path().display())
            }
        };
        HelperError::new(if options.remount { 32 } else { 1 }, format!("{error}\n{last}"))
    })
}

/// What speaks against mounting there, apart from the volume.
pub fn check_directory(name: &str, directory: &Path) -> Result<(), HelperError> {
    if !directory.is_dir() {
        let message = format!("ERROR: Mount point does not exist\nPlease specify a mount point\nUsage:\nman 8 {name}");
        return Err(HelperError::new(1, message));
    }
    let real = directory.canonicalize().unwrap_or_else(|_| directory.to_path_buf());
    for forbidden in ["/", "/tmp"] {
        if real == Path::new(forbidden) {
            let place = if forbidden == "/" { "root" } else { forbidden };
            return Err(HelperError::new(2, format!("Cannot mount over {place}")));
        }
    }
    let mut gfid = [0_u8; 16];
    if rustix::fs::lgetxattr(&real, "trusted.gfid", &mut gfid[..]).is_ok() && !is_own_mount(&real) {
        let message = format!("ERROR: {} is in use as a brick of a gluster volume", directory.display());
        return Err(HelperError::new(2, message));
    }
    if is_own_mount(&real) {
        let message = format!(
            "{name}: according to mtab, GlusterFS is already mounted on {}; take it off first with: umount {}",
            directory.display(),
            directory.display()
        );
        return Err(HelperError::new(32, message));
    }
    Ok(())
}

/// Whether a volume is mounted on the directory.
pub fn is_own_mount(directory: &Path) -> bool {
    mounted_source(directory).is_some()
}

/// The source of the volume that is mounted on the directory.
pub fn mounted_source(directory: &Path) -> Option<String> {
    let table = std::fs::read_to_string("/proc/self/mounts").ok()?;
    mount_in(&table, directory)
}

fn mount_in(table: &str, directory: &Path) -> Option<String> {
    table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (source, target, kind) = (fields.next()?, fields.next()?, fields.next()?);
            let ours = matches!(kind, "fuse.glusterfs" | "fuse.mortar");
            (ours && Path::new(&unescaped(target)) == directory).then(|| unescaped(source))
        })
        .next_back()
}

/// Space, tab, newline and backslash are octal in /proc/mounts.
fn unescaped(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(field.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

fn usage(name: &str) -> String {
    format!(
        "Usage: {name} <server>:<volume/subdir> <mountpoint> -o<options>\nOptions:\nman 8 {name}\n\
         To display the version number of the mount helper: {name} -V"
    )
}

fn misplaced_options(name: &str) -> String {
    format!(
        "ERROR: -o options cannot be specified in either first two arguments..\nPlease specify correct style\nUsage:\n\
         man 8 {name}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    fn mount(line: &str) -> Options {
        match parse("mount.glusterfs", &words(line)) {
            Ok(Asked::Mount(options)) => *options,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn refused(line: &str) -> HelperError {
        parse("mount.glusterfs", &words(line)).unwrap_err()
    }

    #[test]
    fn an_fstab_line_as_mount_hands_it_over() {
        let options = mount("gfs1:/imap0 /var/spool/imap -o rw,_netdev,backup-volfile-servers=gfs2,log-level=WARNING");
        assert_eq!(options.source_text, "gfs1:/imap0");
        assert_eq!(options.directory, Path::new("/var/spool/imap"));
        assert_eq!(options.log_level, mortar_observe::Level::Warning);
        assert!(!options.read_only);
        let Source::Volume { servers, .. } = options.source else { panic!() };
        assert_eq!(servers, ["gfs1", "gfs2"]);
    }

    #[test]
    fn an_invalid_option_is_named() {
        assert_eq!(refused("gfs1:/v /mnt -o user"), HelperError::new(1, "Invalid option user"));
        assert_eq!(refused("gfs1:/v /mnt -o uid=5"), HelperError::new(1, "Invalid option: uid"));
    }

    #[test]
    fn options_may_not_come_first() {
        assert!(refused("-oro gfs1:/v /mnt").message.starts_with("ERROR: -o options cannot be specified"));
    }

    #[test]
    fn the_name_chooses_the_face() {
        let Ok(Asked::Mount(options)) = parse("mount.mortar", &words("gfs1:/v /mnt")) else { panic!() };
        assert_eq!(options.face, Face::Mortar);
        assert_eq!(mount("gfs1:/v /mnt").face, Face::Glusterfs);
    }

    #[test]
    fn version_usage_and_ignored_flags() {
        assert_eq!(parse("mount.glusterfs", &words("-V")), Ok(Asked::Version));
        assert!(matches!(parse("mount.glusterfs", &words("-h")), Ok(Asked::Usage(_))));
        mount("gfs1:/v /mnt -n -s -o ro");
    }

    #[test]
    fn a_remount_takes_what_the_kernel_shows() {
        let line = "gfs1:/v /mnt -o rw,relatime,user_id=0,group_id=0,default_permissions,allow_other,remount";
        assert!(mount(line).remount);
    }

    #[test]
    fn a_mount_is_found_under_its_escaped_name() {
        let table = "gfs1:/v /mnt/my\\040data fuse.glusterfs rw 0 0\n/dev/sda / ext4 rw 0 0\n";
        assert_eq!(mount_in(table, Path::new("/mnt/my data")).as_deref(), Some("gfs1:/v"));
        assert_eq!(mount_in(table, Path::new("/")), None);
    }

    #[test]
    fn mounting_over_root_is_refused() {
        assert_eq!(check_directory("mount.glusterfs", Path::new("/")).unwrap_err().exit_code, 2);
        assert_eq!(check_directory("mount.glusterfs", Path::new("/nowhere")).unwrap_err().exit_code, 1);
    }
}
