//! Several hosts on one machine: each a network, mount and UTS namespace on one bridge, with its own `/srv/gfs` (a
//! loop-mounted ext4), `/var/lib`, `/var/log`, `/run`, `/etc/fstab`, `/usr/sbin` overlay, and one common `/etc/hosts`.
//!
//! A host lives as long as its holder process; dropping the [`Lab`] kills every process of every host, and the kernel then
//! takes mounts, links and namespaces down. Nothing outside the lab's temporary folder is written.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

/// What lab to build.
#[derive(Clone, Debug)]
pub struct Options {
    /// Host names, in address order from `.11`.
    pub hosts: Vec<String>,
    /// Further names and the hosts that each resolves to (`gfs` → `gfs1`, `gfs2`).
    pub aliases: Vec<(String, Vec<String>)>,
    /// The `mortar` binary to install under all its names; `None`: the machine's own GlusterFS is used.
    pub binary: Option<PathBuf>,
    /// Hosts that keep the machine's own GlusterFS although `binary` is given.
    pub without_binary: Vec<String>,
    /// Size of each host's brick disk, bytes (sparse).
    pub disk_bytes: u64,
}

impl Options {
    /// `gfs1` … `gfsN` and `kolab`; `gfs` names the first two.
    pub fn howto(servers: usize, binary: Option<PathBuf>) -> Self {
        let mut hosts: Vec<String> = (1..=servers).map(|number| format!("gfs{number}")).collect();
        hosts.push("kolab".to_owned());
        let gfs = hosts.iter().take(2).cloned().collect();
        Self { hosts, aliases: vec![("gfs".to_owned(), gfs)], binary, without_binary: Vec::new(), disk_bytes: 2 << 30 }
    }

    /// The same lab, where the hosts that `keeps` names use the machine's own GlusterFS instead of `binary`.
    #[must_use]
    pub fn without_binary_on(mut self, keeps: impl Fn(&str) -> bool) -> Self {
        self.without_binary = self.hosts.iter().filter(|host| keeps(host)).cloned().collect();
        self
    }

    fn installs_on(&self, host: &str) -> bool {
        self.binary.is_some() && !self.without_binary.iter().any(|kept| kept == host)
    }
}

/// How long [`Host::run`] lets a line run.
pub const LINE_SECONDS_MAX: &str = "120";

/// The names that the binary answers to.
const NAMES: [&str; 11] = [
    "mortar",
    "mortard",
    "gluster",
    "glusterd",
    "glusterfs",
    "glusterfsd",
    "mount.glusterfs",
    "mount.mortar",
    "mount.fuse.glusterfs",
    "mount.fuse.mortar",
    "umount.mortar",
];

/// A running lab.
pub struct Lab {
    hosts: Vec<Host>,
    // After the hosts: they must be gone before their switch and their folder.
    _switch: Holder,
    dir: TempDir,
}

/// One host of a lab.
pub struct Host {
    name: String,
    address: Ipv4Addr,
    dir: PathBuf,
    holder: Holder,
}

/// A process that keeps namespaces alive, killed when dropped (and by the kernel when its parent thread dies).
struct Holder {
    child: Child,
}

impl Holder {
    fn start(unshare: &[&str]) -> Result<Self> {
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare"])
            .args(unshare)
            .args(["sleep", "infinity"])
            .stdin(Stdio::null())
            .spawn()
            .context("start a namespace holder")?;
        let holder = Self { child };
        let own = fs::read_link("/proc/self/ns/net")?;
        let apart = crate::wait::until(std::time::Duration::from_secs(5), || {
            let comm = fs::read_to_string(format!("/proc/{}/comm", holder.pid())).unwrap_or_default();
            comm.trim() == "sleep" && holder.net().is_ok_and(|net| net != own)
        });
        ensure!(apart, "the namespace holder did not come up");
        Ok(holder)
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn net(&self) -> Result<PathBuf> {
        Ok(fs::read_link(format!("/proc/{}/ns/net", self.pid()))?)
    }

    /// A command inside.
    fn enter(&self, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid().to_string()]).args(args).arg("--");
        command
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn check(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Lab {
    pub fn start(options: &Options) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("mortar-lab-").tempdir_in("/tmp")?;
        let names = dir.path().join("names");
        fs::create_dir(&names)?;
        if let Some(binary) = &options.binary {
            for name in NAMES {
                symlink(binary, names.join(name))?;
            }
        }
        let switch = Holder::start(&["--net"])?;
        for args in ["link add br0 type bridge", "link set br0 up", "link set lo up"] {
            check(switch.enter(&["--net"]).arg("ip").args(args.split(' ')))?;
        }
        fs::write(dir.path().join("hosts"), hosts_file(options))?;
        let mut hosts = Vec::new();
        for (at, name) in options.hosts.iter().enumerate() {
            let address = address(at);
            hosts.push(Host::start(name, address, dir.path(), &switch, options)?);
        }
        Ok(Self { hosts, _switch: switch, dir })
    }

    /// The host of that name.
    ///
    /// # Panics
    /// When there is none: the test is wrong.
    pub fn host(&self, name: &str) -> &Host {
        self.hosts.iter().find(|host| host.name == name).unwrap_or_else(|| panic!("no host {name} in the lab"))
    }

    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter()
    }

    /// The lab's folder, with a folder per host.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // A mount whose server is dead would hold its users for a while: clients go first.
        for host in self.hosts.iter().rev() {
            host.kill_all();
        }
    }
}

fn address(at: usize) -> Ipv4Addr {
    let last = u8::try_from(11 + at).expect("a lab has fewer than 200 hosts");
    Ipv4Addr::new(10, 77, 0, last)
}

fn hosts_file(options: &Options) -> String {
    let mut text = "127.0.0.1 localhost\n".to_owned();
    for (at, name) in options.hosts.iter().enumerate() {
        text.push_str(&format!("{} {name}\n", address(at)));
    }
    for (alias, targets) in &options.aliases {
        for target in targets {
            if let Some(at) = options.hosts.iter().position(|host| host == target) {
                text.push_str(&format!("{} {alias}\n", address(at)));
            }
        }
    }
    text
}

impl Host {
    fn start(name: &str, address: Ipv4Addr, lab: &Path, switch: &Holder, options: &Options) -> Result<Self> {
        let dir = lab.join(name);
        for folder in ["lib", "log", "run", "srv", "upper", "work", "spool"] {
            fs::create_dir_all(dir.join(folder))?;
        }
        fs::write(dir.join("fstab"), "")?;
        let disk = fs::File::create(dir.join("disk.img"))?;
        disk.set_len(options.disk_bytes)?;
        check(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(dir.join("disk.img")))?;
        let holder = Holder::start(&["--net", "--mount", "--uts", "--propagation", "private"])?;
        let host = Self { name: name.to_owned(), address, dir, holder };
        host.connect(switch)?;
        check(host.command("bash").args(["-ec", &host.preparation(lab, options.installs_on(name))]))?;
        Ok(host)
    }

    fn connect(&self, switch: &Holder) -> Result<()> {
        let pid = self.holder.pid().to_string();
        let port = format!("p{}", self.name);
        let link = ["ip", "link", "add", port.as_str(), "type", "veth", "peer", "name", "eth0", "netns", pid.as_str()];
        check(switch.enter(&["--net"]).args(link))?;
        check(switch.enter(&["--net"]).args(["ip", "link", "set", port.as_str(), "master", "br0", "up"]))?;
        check(self.command("ip").args(["link", "set", "lo", "up"]))?;
        check(self.command("ip").args(["addr", "add", &format!("{}/24", self.address), "dev", "eth0"]))?;
        check(self.command("ip").args(["link", "set", "eth0", "up"]))?;
        Ok(())
    }

    /// What makes the mount namespace a host of its own.
    fn preparation(&self, lab: &Path, ours: bool) -> String {
        let (dir, lab, name) = (self.dir.display(), lab.display(), &self.name);
        let install = if ours {
            format!(
                "mount -t overlay overlay -o lowerdir=/usr/sbin,upperdir={dir}/upper,workdir={dir}/work /usr/sbin
                 for n in {lab}/names/*; do ln -sf $(readlink $n) /usr/sbin/$(basename $n); done"
            )
        } else {
            String::new()
        };
        format!(
            "hostname {name}
             mount --bind {dir}/srv /srv; mkdir -p /srv/gfs; mount -o loop {dir}/disk.img /srv/gfs
             for d in mortar glusterd; do mkdir -p {dir}/lib/$d; done
             mkdir -p {dir}/var; mount -t overlay overlay -o lowerdir=/var/lib,upperdir={dir}/lib,workdir={dir}/var /var/lib
             mount --bind {dir}/log /var/log; mkdir -p /var/log/glusterfs /var/log/mortar
             mount --bind {lab}/hosts /etc/hosts; mount --bind {dir}/fstab /etc/fstab
             mount --bind {dir}/run /run; mkdir -p /run/gluster /run/lock
             mkdir -p {dir}/spool/imap; mount --bind {dir}/spool /var/spool; mkdir -p /var/spool/imap
             {install}"
        )
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The process that holds the host's namespaces: `/proc/PID/root` is the host's view of the file system.
    pub fn holder_pid(&self) -> u32 {
        self.holder.pid()
    }

    /// A command inside the host.
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.holder.enter(&["--net", "--mount", "--uts"]);
        command.arg(program).current_dir("/");
        command
    }

    /// Runs a line as an admin types it. After [`LINE_SECONDS_MAX`] it is killed, with exit code 124 or 137: a command on
    /// a mount that hangs must not hang the test.
    pub fn run(&self, line: &str) -> Result<Output> {
        let mut command = self.command("timeout");
        command.args(["-k", "5", LINE_SECONDS_MAX, "bash", "-c", line]);
        command.stdin(Stdio::null()).output().with_context(|| line.to_owned())
    }

    /// Runs a line that must succeed; its standard output.
    pub fn ok(&self, line: &str) -> Result<String> {
        let output = self.run(line)?;
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{}# {line}\n{stdout}{stderr}({})", self.name, output.status);
        Ok(stdout.into_owned())
    }

    /// Starts a line in the background.
    pub fn spawn(&self, line: &str) -> Result<Child> {
        let mut command = self.command("bash");
        Ok(command.args(["-c", line]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
    }

    /// Processes of the host and their command lines, without the lab's own.
    pub fn processes(&self) -> Vec<(u32, String)> {
        let Ok(net) = self.holder.net() else { return Vec::new() };
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| *pid != self.holder.pid())
            .filter(|pid| fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|found| found == net))
            .map(|pid| {
                let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                (pid, String::from_utf8_lossy(&words).replace('\0', " "))
            })
            .collect()
    }

    /// Kills (SIGKILL) every process whose command line contains `part`; how many.
    pub fn kill(&self, part: &str) -> usize {
        self.signal(part, rustix::process::Signal::KILL)
    }

    /// Sends a signal to every process whose command line contains `part`; how many.
    pub fn signal(&self, part: &str, signal: rustix::process::Signal) -> usize {
        let matching = self.processes().into_iter().filter(|(_, words)| words.contains(part));
        matching
            .filter(|(pid, _)| {
                i32::try_from(*pid)
                    .ok()
                    .and_then(rustix::process::Pid::from_raw)
                    .is_some_and(|pid| rustix::process::kill_process(pid, signal).is_ok())
            })
            .count()
    }

    /// The power cut: SIGKILL to everything, until nothing is left.
    pub fn kill_all(&self) {
        crate::wait::until(std::time::Duration::from_secs(10), || self.kill("") == 0);
    }

    /// Takes the host's link away, or brings it back; nobody is told.
    pub fn link(&self, up: bool) -> Result<()> {
        self.ok(if up { "ip link set eth0 up" } else { "ip link set eth0 down" }).map(drop)
    }
}
