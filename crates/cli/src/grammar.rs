//! The grammar: every word of `mortar` and `gluster`, from which help, completions and man pages are made.
//!
//! Usage lines are GlusterFS's patterns (`cli/src/cli-cmd-*.c`), which its CLI prints on a wrong argument.

use clap::{Args, Parser, Subcommand};

/// Mortar holds bricks together: a replicated, self-healing file system that speaks GlusterFS.
#[derive(Parser, Debug)]
#[command(
    name = "mortar",
    version,
    infer_subcommands = true,
    disable_help_subcommand = true,
    after_help = "Anywhere among the words of a command:
  --json             Answer in JSON, as the API has it
  --xml              Answer in GlusterFS's XML
  --yes              Ask nothing (also --mode=script)
  --socket=PATH      The daemon's socket (default /run/mortar/mortard.sock, or MORTAR_SOCKET)
  --timeout=SECONDS  How long to wait for an answer (default 120)"
)]
pub struct Words {
    #[command(subcommand)]
    pub top: Top,
}

#[derive(Subcommand, Debug)]
pub enum Top {
    /// Members of the pool
    #[command(subcommand, infer_subcommands = true)]
    Peer(Peer),
    /// The pool as a whole
    #[command(subcommand, infer_subcommands = true)]
    Pool(Pool),
    /// Volumes
    #[command(subcommand, infer_subcommands = true)]
    Volume(Box<Volume>),
    /// How much storage bricks would make, and what may fail
    #[command(
        override_usage = "plan [replica=<COUNT>] [arbiter=1] bricks=<BRICK>[,<BRICK>...]",
        after_help = "A BRICK is HOST:SIZE, SIZE (each on a host of its own) or COUNTxSIZE, in the order of volume create. 10G is \
                      10 GiB, 10GB is 10 000 000 000 bytes. Nothing is asked of a daemon.

  mortar plan replica=2 bricks=gfs1:9G,gfs2:9G,gfs3:9G,gfs4:9G
  mortar plan replica=3 bricks=6x2T --json"
    )]
    Plan {
        #[arg(required = true)]
        words: Vec<String>,
    },
    /// What GlusterFS keeps for its own tools
    #[command(subcommand, name = "system::", infer_subcommands = true)]
    System(System),
    /// Start a whole cluster on this machine: two nodes, volume imap0, mounted
    Quickstart(Quickstart),
    /// Run the node's daemon (mortard)
    Daemon(Daemon),
    /// Mount a volume: mortar mount SERVER:/VOLUME DIR [-o OPTIONS]
    Mount(Mount),
    /// Prepare a disk for a brick
    Brick(BrickWords),
    /// Heal this node's volumes (started by the daemon)
    #[command(hide = true)]
    Heald(Heald),
    /// Do this node's part of a volume's rebalance (started by the daemon)
    #[command(hide = true)]
    Rebalance(Rebalance),
    /// Print a shell's completion script
    Completions { shell: clap_complete::Shell },
    /// Write the man pages into a folder
    Man { folder: std::path::PathBuf },
}

#[derive(Subcommand, Debug)]
pub enum Peer {
    /// Take a host into the pool
    #[command(override_usage = "peer probe { <HOSTNAME> | <IP-address> }")]
    Probe { host: String },
    /// Remove a host that holds no brick from the pool
    #[command(override_usage = "peer detach { <HOSTNAME> | <IP-address> } [force]")]
    Detach { host: String, force: Option<Force> },
    /// List the other members and whether they answer
    #[command(override_usage = "peer status")]
    Status,
}

#[derive(Subcommand, Debug)]
pub enum Pool {
    /// List all members
    #[command(override_usage = "pool list")]
    List,
    /// Make this node the whole pool after the others are lost for good
    #[command(override_usage = "pool recover")]
    Recover,
}

/// The literal word `force`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Force {
    Force,
}

#[derive(Subcommand, Debug)]
pub enum Volume {
    /// Create a volume from bricks
    #[command(
        override_usage = "volume create <NEW-VOLNAME> [[replica <COUNT> [arbiter <COUNT>]]|[replica 2 thin-arbiter 1]] [disperse [<COUNT>]] [disperse-data <COUNT>] [redundancy <COUNT>] [transport <tcp|rdma|tcp,rdma>] <NEW-BRICK> <TA-BRICK>... [force]"
    )]
    Create {
        name: String,
        #[arg(required = true)]
        words: Vec<String>,
    },
    /// Start a volume: its bricks are served
    #[command(override_usage = "volume start <VOLNAME> [force]")]
    Start { name: String, force: Option<Force> },
    /// Stop a volume: its data is not reachable until it is started
    #[command(override_usage = "volume stop <VOLNAME> [force]")]
    Stop { name: String, force: Option<Force> },
    /// Forget a stopped volume; its bricks keep their files
    #[command(override_usage = "volume delete <VOLNAME>")]
    Delete { name: String },
    /// Describe volumes
    #[command(override_usage = "volume info [all|<VOLNAME>]")]
    Info { name: Option<String> },
    /// Show the processes of volumes
    #[command(
        override_usage = "volume status [all | <VOLNAME> [nfs|shd|<BRICK>|quotad]] [detail|clients|mem|inode|fd|callpool|tasks|client-list]"
    )]
    Status { words: Vec<String> },
    /// List volume names
    #[command(override_usage = "volume list")]
    List {
        #[arg(hide = true)]
        surplus: Vec<String>,
    },
    /// Set options
    #[command(override_usage = "volume set <VOLNAME> <KEY> <VALUE>")]
    Set {
        #[arg(required = true)]
        words: Vec<String>,
    },
    /// Show the value of an option or of all
    #[command(override_usage = "volume get <VOLNAME|all> <key|all>")]
    Get { name: String, key: String },
    /// Return options to their defaults
    #[command(override_usage = "volume reset <VOLNAME> [option] [force]")]
    Reset { name: String, words: Vec<String> },
    /// Heal a volume, or show what is to be healed
    #[command(
        override_usage = "volume heal <VOLNAME> [enable | disable | full |statistics [heal-count [replica <HOSTNAME:BRICKNAME>]] |info [summary | split-brain] |split-brain {bigger-file <FILE> | latest-mtime <FILE> |source-brick <HOSTNAME:BRICKNAME> [<FILE>]} |granular-entry-heal {enable | disable}]"
    )]
    Heal { name: String, words: Vec<String> },
    /// Add bricks: more room, or with a higher replica count more copies
    #[command(
        override_usage = "volume add-brick <VOLNAME> [<replica> <COUNT> [arbiter <COUNT>]] <NEW-BRICK> ... [force]"
    )]
    AddBrick { name: String, words: Vec<String> },
    /// Move everything off bricks, then let them go
    #[command(
        override_usage = "volume remove-brick <VOLNAME> [replica <COUNT>] <BRICK> ... <start|stop|status|commit|force>"
    )]
    RemoveBrick { name: String, words: Vec<String> },
    /// Put another brick in the place of one
    #[command(override_usage = "volume replace-brick <VOLNAME> <SOURCE-BRICK> <NEW-BRICK> {commit force}")]
    ReplaceBrick { name: String, words: Vec<String> },
    /// Take a brick out of service and bring it back
    #[command(override_usage = "volume reset-brick <VOLNAME> <SOURCE-BRICK> {{start} | {<NEW-BRICK> commit}}")]
    ResetBrick { name: String, words: Vec<String> },
    /// Spread the files over all bricks
    #[command(
        override_usage = "volume rebalance <VOLNAME> {{fix-layout start} | {start [force]|stop|status}}",
        after_help = "start also takes path=/DIR (only what is below it) and dry-run (counts only); pause and resume hold a \
                      rebalance and let it go on."
    )]
    Rebalance { name: String, words: Vec<String> },
    /// Compare the replicas of a volume beyond what the changelogs say; reads only
    #[command(override_usage = "volume verify <VOLNAME>")]
    Verify { name: String },
    // GlusterFS's further words: known, so that abbreviations mean what they mean there, and answered with a sentence.
    #[command(hide = true)]
    Quota(Unserved),
    #[command(hide = true)]
    InodeQuota(Unserved),
    #[command(hide = true)]
    Profile(Unserved),
    #[command(hide = true)]
    Top(Unserved),
    #[command(hide = true)]
    Statedump(Unserved),
    #[command(hide = true)]
    Log(Unserved),
    #[command(hide = true)]
    Sync(Unserved),
    #[command(hide = true)]
    Barrier(Unserved),
    #[command(hide = true)]
    ClearLocks(Unserved),
    #[command(hide = true)]
    Bitrot(Unserved),
}

/// The words of a command that is not served.
#[derive(Args, Debug, Clone)]
pub struct Unserved {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

#[derive(Subcommand, Debug)]
pub enum System {
    /// Print a volume's client volfile
    #[command(override_usage = "system:: getspec <VOLNAME>")]
    Getspec { name: String },
    /// Print this node's uuid
    #[command(override_usage = "system:: uuid get")]
    Uuid { get: Option<String> },
}

#[derive(Args, Debug, Clone)]
pub struct Quickstart {
    /// Where the two nodes keep everything
    #[arg(long, default_value = "/tmp/mortar-quickstart")]
    pub dir: std::path::PathBuf,
    /// Stop what runs, unmount and remove the folder
    #[arg(long)]
    pub clean: bool,
}

#[derive(Args, Debug, Clone)]
pub struct Daemon {
    #[arg(long, default_value = "/var/lib/mortar")]
    pub data_dir: std::path::PathBuf,
    #[arg(long, default_value = "/run/mortar")]
    pub run_dir: std::path::PathBuf,
    #[arg(long, default_value = "/var/log/mortar")]
    pub log_dir: std::path::PathBuf,
    /// The address to serve on
    #[arg(long, default_value = "0.0.0.0")]
    pub listen: std::net::IpAddr,
    /// GlusterFS's port: volfiles and the brick port map
    #[arg(long, default_value_t = 24007)]
    pub port: u16,
    /// The pool's own port (mutual TLS)
    #[arg(long, default_value_t = 24008)]
    pub peer_port: u16,
    /// Stay in the foreground
    #[arg(long, short = 'N')]
    pub no_daemon: bool,
    /// ERROR, WARNING, INFO, DEBUG or TRACE
    #[arg(long, short = 'L', default_value = "INFO")]
    pub log_level: String,
}

#[derive(Args, Debug, Clone)]
pub struct Mount {
    /// What mount(8) would pass to mount.glusterfs
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub words: Vec<String>,
}

/// `mortar brick prepare …`, or the options with which the daemon starts a brick's process.
#[derive(Args, Debug, Clone)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct BrickWords {
    #[command(subcommand)]
    pub task: Option<BrickTask>,
    #[command(flatten)]
    pub serve: Option<Brick>,
}

#[derive(Subcommand, Debug, Clone)]
pub enum BrickTask {
    /// Make a disk a mounted file system with a brick folder: partition, format, fstab, mount
    Prepare(Prepare),
}

#[derive(Args, Debug, Clone)]
pub struct Prepare {
    /// A whole disk, which gets a GPT, or a partition, which is used as it is
    pub device: std::path::PathBuf,
    /// Make the brick a logical volume
    #[arg(long)]
    pub lvm: bool,
    /// With --lvm: how much of the volume group to leave for snapshots
    #[arg(long, requires = "lvm", default_value = "10%", value_name = "SHARE")]
    pub spare: String,
    #[arg(long, default_value = "ext4", value_name = "TYPE")]
    pub fs: BrickFileSystem,
    /// Where to mount it, now and at boot
    #[arg(long, value_name = "DIR")]
    pub mount: std::path::PathBuf,
    /// The brick's folder, below the mount point
    #[arg(long, default_value = "brick", value_name = "NAME")]
    pub brick: std::path::PathBuf,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Also when the device is mounted or holds something, which is then destroyed
    #[arg(long)]
    pub force: bool,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The table of file systems to add the mount to
    #[arg(long, default_value = "/etc/fstab", value_name = "FILE")]
    pub fstab: std::path::PathBuf,
}

/// File systems that a brick may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum BrickFileSystem {
    Ext4,
    Xfs,
}

/// Serve one brick (started by the daemon).
#[derive(Args, Debug, Clone)]
pub struct Brick {
    #[arg(long, hide = true)]
    pub volfile: std::path::PathBuf,
    #[arg(long, hide = true)]
    pub listen: std::net::IpAddr,
    #[arg(long, hide = true)]
    pub port: u16,
    #[arg(long, hide = true)]
    pub control: std::path::PathBuf,
    #[arg(long, hide = true)]
    pub pid_file: std::path::PathBuf,
    #[arg(long, hide = true)]
    pub log_file: std::path::PathBuf,
    #[arg(long, hide = true)]
    pub node_uuid: uuid::Uuid,
}

#[derive(Args, Debug, Clone)]
pub struct Heald {
    /// The volfile server, HOST:PORT
    #[arg(long)]
    pub server: String,
    #[arg(long = "volume")]
    pub volumes: Vec<String>,
    #[arg(long)]
    pub control: std::path::PathBuf,
    #[arg(long)]
    pub pid_file: std::path::PathBuf,
    #[arg(long)]
    pub log_file: std::path::PathBuf,
    #[arg(long)]
    pub node_uuid: uuid::Uuid,
}

#[derive(Args, Debug, Clone)]
pub struct Rebalance {
    /// The volfile server, HOST:PORT
    #[arg(long)]
    pub server: String,
    #[arg(long)]
    pub volume: String,
    /// fix-layout, rebalance, force or decommission
    #[arg(long)]
    pub mode: mortar_api::rebalance::Mode,
    /// What the job is known by in the pool
    #[arg(long)]
    pub task: uuid::Uuid,
    /// Only this directory and what is below it
    #[arg(long)]
    pub path: Option<String>,
    /// Count what would move
    #[arg(long)]
    pub dry_run: bool,
    /// Where the job goes on after this process
    #[arg(long)]
    pub checkpoint: std::path::PathBuf,
    #[arg(long)]
    pub control: std::path::PathBuf,
    #[arg(long)]
    pub pid_file: std::path::PathBuf,
    #[arg(long)]
    pub log_file: std::path::PathBuf,
    #[arg(long)]
    pub node_uuid: uuid::Uuid,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Words::command().debug_assert();
    }

    fn brick(words: &str) -> Result<BrickWords, clap::Error> {
        match Words::try_parse_from(words.split(' '))?.top {
            Top::Brick(brick) => Ok(brick),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn brick_is_both_a_task_and_a_process() {
        let prepare = brick("mortar brick prepare /dev/vdb --lvm --mount /srv/gfs --dry-run").unwrap();
        let Some(BrickTask::Prepare(prepare)) = prepare.task else { panic!("prepare is a task") };
        assert_eq!((prepare.spare.as_str(), prepare.fs), ("10%", BrickFileSystem::Ext4));

        let process = "mortar brick --volfile v --listen ::1 --port 1 --control c --pid-file p --log-file l \
                       --node-uuid 00000000-0000-4000-8000-000000000000";
        let serve = brick(&process.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap();
        assert!(serve.task.is_none() && serve.serve.is_some());

        assert!(brick("mortar brick --volfile v").is_err(), "the process needs all its options");
        assert!(brick("mortar brick prepare /dev/vdb --mount /srv/gfs --spare 10%").is_err(), "--spare wants --lvm");
    }

    #[test]
    fn words_may_be_abbreviated_while_unique() {
        assert!(Words::try_parse_from(["mortar", "pe", "st"]).is_ok());
        assert!(Words::try_parse_from(["mortar", "vol", "li"]).is_ok());
        assert!(Words::try_parse_from(["mortar", "vo", "st", "imap0"]).is_err());
    }
}
