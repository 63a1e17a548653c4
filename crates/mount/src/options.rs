//! What a mount was told: one set of options behind the three grammars ([`crate::helper`], [`crate::glusterfs_args`] and
//! `mortar mount`), named as mount.glusterfs names them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mortar_observe::Level;
use rustix::mount::MountFlags;

use crate::attr::InodeNumbers;
use crate::bridge::{Config, DirectIo};
use crate::kernel::init::Wishes;
use crate::source::{PORT, Source};

/// Under which name the mount was asked for; decides the type that is shown and where the log goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Face {
    Glusterfs,
    Mortar,
}

impl Face {
    /// The second half of `fuse.SUBTYPE` in /proc/mounts.
    pub const fn subtype(self) -> &'static str {
        match self {
            Self::Glusterfs => "glusterfs",
            Self::Mortar => "mortar",
        }
    }

    const fn log_directory(self) -> &'static str {
        match self {
            Self::Glusterfs => "/var/log/glusterfs",
            Self::Mortar => "/var/log/mortar",
        }
    }
}

/// An option that cannot be taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OptionError {
    #[error("Invalid option: {0}")]
    UnknownWithValue(String),
    #[error("Invalid option {0}")]
    Unknown(String),
    #[error("Invalid value of option {key}: {value:?} is not {expected}")]
    Value { key: String, value: String, expected: &'static str },
    #[error("ERROR: Invalid backup-volfile-servers specified.. exiting")]
    BackupServers,
}

/// Everything that a mount can be told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    pub face: Face,
    pub source: Source,
    /// The source as typed: what /proc/mounts shows.
    pub source_text: String,
    pub directory: PathBuf,
    pub port: u16,
    pub read_only: bool,
    /// Kernel flags such as noatime.
    pub flags: MountFlags,
    /// Kernel options that are no flags, such as an SELinux context.
    pub further: Vec<String>,
    pub config: Config,
    pub readdirplus: bool,
    pub auto_invalidation: bool,
    pub background: u16,
    pub congestion: u16,
    pub log_file: Option<PathBuf>,
    pub log_level: Level,
    pub process_name: Option<String>,
    /// `VOLUME.KEY=VALUE` settings for the volfile's layers, names may have wildcards.
    pub layer_options: Vec<String>,
    pub oom_score_adj: Option<i32>,
    pub pid_file: Option<PathBuf>,
    /// Stay in the foreground and log to stderr.
    pub foreground: bool,
    /// Threads of the runtime: reading the device, the bricks' connections and all between share them.
    pub threads: usize,
    /// How long the mount may take to come up.
    pub wait: Duration,
    /// Change a mount that is there instead of making one.
    pub remount: bool,
    /// What is to be said about options that are taken and not followed.
    pub warnings: Vec<String>,
    backups: Vec<String>,
    backup: Option<String>,
    transport: Option<String>,
}

impl Options {
    /// The defaults for a source and a directory.
    pub fn new(face: Face, source: Source, source_text: impl Into<String>, directory: impl Into<PathBuf>) -> Self {
        Self {
            face,
            read_only: source.is_snapshot(),
            source,
            source_text: source_text.into(),
            directory: directory.into(),
            port: PORT,
            flags: MountFlags::empty(),
            further: Vec::new(),
            config: Config::default(),
            readdirplus: true,
            auto_invalidation: true,
            background: 64,
            congestion: 48,
            log_file: None,
            log_level: Level::default(),
            process_name: None,
            layer_options: Vec::new(),
            oom_score_adj: None,
            pid_file: None,
            foreground: false,
            threads: 2,
            wait: Duration::from_secs(30),
            remount: false,
            warnings: Vec::new(),
            backups: Vec::new(),
            backup: None,
            transport: None,
        }
    }

    /// Takes one option of a mount helper: `key=value` or a word.
    pub fn set(&mut self, key: &str, value: Option<&str>) -> Result<(), OptionError> {
        if key.starts_with("x-") {
            return Ok(());
        }
        match value {
            Some(value) => self.set_value(key, value),
            None => self.set_word(key),
        }
    }

    /// Options whose meaning depends on others; to be called after the last [`Self::set`].
    pub fn complete(&mut self) {
        let backups = if self.backups.is_empty() {
            self.backup.take().into_iter().collect()
        } else {
            std::mem::take(&mut self.backups)
        };
        self.source.add_servers(backups.iter().map(String::as_str));
        if let (Source::Volume { volfile_id, .. }, Some(transport)) = (&mut self.source, self.transport.take()) {
            volfile_id.push('.');
            volfile_id.push_str(&transport);
        }
        // Without invalidation by mtime, what is kept over an open could be stale for good.
        self.config.keep_cache &= self.auto_invalidation;
    }

    /// Where the log goes when no file was named: the mount point with dashes for slashes.
    pub fn log_path(&self) -> PathBuf {
        self.log_file.clone().unwrap_or_else(|| {
            let name = dashed(&self.directory);
            Path::new(self.face.log_directory()).join(format!("{name}.log"))
        })
    }

    /// What the session asks of the kernel.
    pub const fn wishes(&self) -> Wishes {
        Wishes {
            acl: self.config.acl,
            writeback_cache: self.config.writeback_cache,
            readdirplus: self.readdirplus,
            auto_invalidation: self.auto_invalidation,
            transfer_bytes_max: TRANSFER_BYTES_MAX,
            background: self.background,
            congestion: self.congestion,
        }
    }

    fn set_value(&mut self, key: &str, value: &str) -> Result<(), OptionError> {
        let parsed = Parsed { key, value };
        match key {
            "log-level" => match value.parse() {
                Ok(level) => self.log_level = level,
                Err(_) => self.warnings.push(format!("invalid log level {value}, using INFO")),
            },
            "log-file" => self.log_file = Some(PathBuf::from(value)),
            "transport" => self.transport = Some(value.to_owned()),
            "direct-io-mode" => {
                let on = value != "auto" && parsed.switch()?;
                self.config.direct_io = if on { DirectIo::Always } else { DirectIo::Asked };
            }
            "subdir-mount" => self.set_subdir(value),
            "server-port" | "volfile-server-port" => self.port = parsed.number()?,
            "attribute-timeout" => self.config.attribute_timeout = parsed.seconds()?,
            "entry-timeout" => self.config.entry_timeout = parsed.seconds()?,
            "negative-timeout" => self.config.negative_timeout = parsed.seconds()?,
            "gid-timeout" => self.config.gid_timeout = parsed.seconds()?,
            "background-qlen" => self.background = parsed.number()?,
            "congestion-threshold" => self.congestion = parsed.number()?,
            "oom-score-adj" => self.oom_score_adj = Some(parsed.number()?),
            "backup-volfile-servers" => {
                self.backups = crate::source::backup_servers(value).ok_or(OptionError::BackupServers)?;
            }
            "backupvolfile-server" => self.backup = Some(value.to_owned()),
            "xlator-option" => self.layer_options.push(value.to_owned()),
            "halo-max-latency" | "halo-max-replicas" | "halo-min-replicas" => {
                self.layer_options.push(format!("*replicate*.{key}={value}"));
            }
            "fuse-mountopts" => self.set_kernel_options(value),
            "context" | "fscontext" | "defcontext" | "rootcontext" => self.further.push(format!("{key}=\"{value}\"")),
            "use-readdirp" => self.readdirplus = parsed.switch()?,
            "auto-invalidation" => self.auto_invalidation = parsed.switch()?,
            "kernel-writeback-cache" => self.config.writeback_cache = parsed.switch()?,
            "fopen-keep-cache" => self.config.keep_cache = parsed.switch()?,
            "reader-thread-count" | "threads" => self.threads = parsed.number::<usize>()?.clamp(1, 64),
            "process-name" => self.process_name = Some(value.to_owned()),
            "mount-timeout" => self.wait = parsed.seconds()?,
            // Taken for fstab lines that have them; what they tune does not exist here or tunes itself.
            "volume-name"
            | "volume-id"
            | "volfile-check"
            | "lru-limit"
            | "invalidate-limit"
            | "inode-table-size"
            | "fetch-attempts"
            | "event-history"
            | "no-root-squash"
            | "root-squash"
            | "attr-times-granularity"
            | "dump-fuse"
            | "fuse-flush-handle-interrupt"
            | "fuse-setlk-handle-interrupt"
            | "fuse-handle-copy_file_range"
            | "fuse-dev-eperm-ratelimit-ns"
            | "io-engine" => {}
            // What /proc/mounts shows of us, handed back by mount(8) on a remount.
            "user_id" | "group_id" | "max_read" | "rootmode" | "fd" | "blksize" if self.remount => {}
            _ => return Err(OptionError::UnknownWithValue(key.to_owned())),
        }
        Ok(())
    }

    fn set_word(&mut self, word: &str) -> Result<(), OptionError> {
        match word {
            "ro" => self.read_only = true,
            "rw" => {}
            "acl" => self.config.acl = true,
            "selinux" => self.config.selinux = true,
            "enable-ino32" => self.config.inode_numbers = InodeNumbers::Folded,
            "fopen-keep-cache" => self.config.keep_cache = true,
            "remount" => self.remount = true,
            "worm" | "mem-accounting" | "aux-gfid-mount" | "thin-client" => {
                self.warnings.push(format!("mount option '{word}' is not handled"));
            }
            "resolve-gids" | "global-threading" | "localtime-logging" | "auto" | "noauto" | "_netdev" | "defaults" => {}
            "async" | "sync" | "dirsync" | "mand" | "nomand" | "silent" | "loud" | "iversion" | "noiversion"
            | "nofail" => self.warnings.push(format!("mount option '{word}' is not handled (yet?)")),
            "default_permissions" | "allow_other" if self.remount => {}
            _ if kernel_flag(word).is_some() => self.set_kernel_options(word),
            _ => return Err(OptionError::Unknown(word.to_owned())),
        }
        Ok(())
    }

    fn set_subdir(&mut self, directory: &str) {
        if let Source::Volume { subdir, .. } = &mut self.source {
            let directory = directory.trim_matches('/');
            *subdir = (!directory.is_empty()).then(|| format!("/{directory}"));
        }
    }

    fn set_kernel_options(&mut self, list: &str) {
        for option in list.split(',').filter(|option| !option.is_empty()) {
            match kernel_flag(option) {
                Some((flag, true)) => self.flags |= flag,
                Some((flag, false)) => self.flags -= flag,
                None => self.further.push(option.to_owned()),
            }
        }
    }
}

/// Longest read and write of one request. GlusterFS's bridge has 128 KiB; its bricks take more from libgfapi.
pub const TRANSFER_BYTES_MAX: u32 = 1 << 20;

/// A path as a file name: `/mnt/data` is `mnt-data`.
pub fn dashed(path: &Path) -> String {
    let text = path.to_string_lossy();
    let name = text.trim_matches('/').replace('/', "-");
    if name.is_empty() { "root".to_owned() } else { name }
}

/// The kernel flag of a word, and whether the word sets or clears it.
fn kernel_flag(word: &str) -> Option<(MountFlags, bool)> {
    Some(match word {
        "noatime" => (MountFlags::NOATIME, true),
        "atime" => (MountFlags::NOATIME, false),
        "nodiratime" => (MountFlags::NODIRATIME, true),
        "diratime" => (MountFlags::NODIRATIME, false),
        "relatime" => (MountFlags::RELATIME, true),
        "norelatime" => (MountFlags::RELATIME, false),
        "strictatime" => (MountFlags::STRICTATIME, true),
        "nostrictatime" => (MountFlags::STRICTATIME, false),
        "lazytime" | "lazyatime" => (MountFlags::LAZYTIME, true),
        "nolazytime" | "nolazyatime" => (MountFlags::LAZYTIME, false),
        "nodev" => (MountFlags::NODEV, true),
        "dev" => (MountFlags::NODEV, false),
        "noexec" => (MountFlags::NOEXEC, true),
        "exec" => (MountFlags::NOEXEC, false),
        "nosuid" => (MountFlags::NOSUID, true),
        "suid" => (MountFlags::NOSUID, false),
        // Ours unmounts when it ends; there is no flag for it.
        "auto_unmount" => (MountFlags::empty(), true),
        _ => return None,
    })
}

/// An option's value on its way to a type.
struct Parsed<'a> {
    key: &'a str,
    value: &'a str,
}

impl Parsed<'_> {
    fn wrong(&self, expected: &'static str) -> OptionError {
        OptionError::Value { key: self.key.to_owned(), value: self.value.to_owned(), expected }
    }

    fn number<N: std::str::FromStr>(&self) -> Result<N, OptionError> {
        self.value.parse().map_err(|_| self.wrong("a number in range"))
    }

    /// Seconds with an optional fraction. Longer than a year is as good as for ever.
    fn seconds(&self) -> Result<Duration, OptionError> {
        const YEAR: f64 = 365.0 * 86_400.0;
        let seconds: f64 = self.value.parse().map_err(|_| self.wrong("a number of seconds"))?;
        if seconds.is_nan() || seconds < 0.0 {
            return Err(self.wrong("a number of seconds"));
        }
        Ok(Duration::from_secs_f64(seconds.min(YEAR)))
    }

    fn switch(&self) -> Result<bool, OptionError> {
        mortar_logic::values::boolean(self.value).ok_or_else(|| self.wrong("yes or no"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options::new(Face::Glusterfs, Source::parse("gfs1:/imap0").unwrap(), "gfs1:/imap0", "/mnt/data")
    }

    fn with(list: &[(&str, Option<&str>)]) -> Options {
        let mut options = options();
        for (key, value) in list {
            options.set(key, *value).unwrap();
        }
        options.complete();
        options
    }

    #[test]
    fn timeouts_may_have_fractions() {
        assert_eq!(with(&[("entry-timeout", Some("0.5"))]).config.entry_timeout, Duration::from_millis(500));
        assert!(options().set("entry-timeout", Some("soon")).is_err());
        assert!(options().set("entry-timeout", Some("-1")).is_err());
    }

    #[test]
    fn the_transport_ends_the_volfile_id() {
        let Source::Volume { volfile_id, .. } = with(&[("transport", Some("tcp"))]).source else { panic!() };
        assert_eq!(volfile_id, "/imap0.tcp");
    }

    #[test]
    fn the_single_backup_server_counts_only_without_the_list() {
        let servers = |options: Options| match options.source {
            Source::Volume { servers, .. } => servers.join(" "),
            Source::File(_) => panic!(),
        };
        assert_eq!(servers(with(&[("backupvolfile-server", Some("gfs2"))])), "gfs1 gfs2");
        let both = [("backupvolfile-server", Some("gfs2")), ("backup-volfile-servers", Some("gfs3:gfs1"))];
        assert_eq!(servers(with(&both)), "gfs1 gfs3");
    }

    #[test]
    fn kernel_flags_are_told_from_kernel_options() {
        let options = with(&[("noatime", None), ("fuse-mountopts", Some("nodev,foo=1"))]);
        assert_eq!(options.flags, MountFlags::NOATIME | MountFlags::NODEV);
        assert_eq!(options.further, ["foo=1"]);
    }

    #[test]
    fn unknown_options_are_named_as_mount_glusterfs_does() {
        assert_eq!(options().set("user", None).unwrap_err().to_string(), "Invalid option user");
        assert_eq!(options().set("uid", Some("5")).unwrap_err().to_string(), "Invalid option: uid");
        assert!(options().set("x-systemd.automount", None).is_ok());
    }

    #[test]
    fn the_log_is_named_after_the_mount_point() {
        assert_eq!(options().log_path(), Path::new("/var/log/glusterfs/mnt-data.log"));
    }

    #[test]
    fn data_is_not_kept_without_a_way_to_invalidate_it() {
        assert!(!with(&[("auto-invalidation", Some("no"))]).config.keep_cache);
        assert!(with(&[]).config.keep_cache);
    }

    #[test]
    fn what_proc_mounts_shows_is_taken_back_on_a_remount_only() {
        assert!(options().set("allow_other", None).is_err());
        let remount = [("remount", None), ("allow_other", None), ("max_read", Some("131072"))];
        assert!(with(&remount).remount);
    }
}
