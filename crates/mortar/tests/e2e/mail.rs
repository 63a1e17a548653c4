//! Real mail: Cyrus with its spool on the volume takes and gives out messages while a node dies and returns.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use mortar_testkit::lab::Lab;
use mortar_testkit::needs::{self, Need};
use mortar_testkit::wait;

use crate::cluster::{self, Systems};
use crate::script::Script;

const USERS: &str = "anna berta clara dora";

/// Cyrus's configuration: all of it local to the host but the spool, as in the HOWTO.
const IMAPD_CONF: &str = "\
configdirectory: /run/imap/config
proc_path: /run/imap/proc
mboxname_lockpath: /run/imap/lock
sievedir: /run/imap/sieve
lmtpsocket: /run/imap/lmtp
idlesocket: /run/imap/idle
defaultpartition: default
partition-default: /var/spool/imap
admins: cyrus
altnamespace: no
unixhierarchysep: no
allowplaintext: yes
umask: 077
";

/// `imapd -N` asks no password; the recovery is what Debian's own configuration runs.
const CYRUS_CONF: &str = "\
START { recover cmd=\"/usr/lib/cyrus/bin/ctl_cyrusdb -r -C /run/imap/imapd.conf\" }
SERVICES {
  imap     cmd=\"imapd -C /run/imap/imapd.conf -N -U 30\" listen=\"127.0.0.1:143\" prefork=0 maxchild=50
  lmtpunix cmd=\"lmtpd -C /run/imap/imapd.conf\" listen=\"/run/imap/lmtp\" prefork=0 maxchild=20
}
";

const MAKE_USERS: &str = "
import imaplib, sys
session = imaplib.IMAP4('127.0.0.1', 143)
session.login('cyrus', 'any')
for user in sys.argv[1:]:
    answer = session.create('user.' + user)
    assert answer[0] == 'OK', answer
session.logout()
";

/// How much mail, and how long the node is away.
struct Size {
    messages: usize,
    outage: Duration,
}

impl Size {
    /// Small enough for every run; `MORTAR_MAIL_MESSAGES` and `MORTAR_MAIL_OUTAGE_SECONDS` ask for more.
    fn from_env() -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
        Self {
            messages: number("MORTAR_MAIL_MESSAGES").unwrap_or(400),
            outage: Duration::from_secs(number("MORTAR_MAIL_OUTAGE_SECONDS").unwrap_or(10) as u64),
        }
    }

    /// Messages a second, so that a quarter comes before the outage, half during and a quarter after it.
    fn rate(&self) -> f64 {
        self.messages as f64 / (2.0 * self.outage.as_secs_f64())
    }
}

fn needs() -> Vec<Need> {
    let mut wanted = needs::LAB.to_vec();
    wanted.push(Need::Program("python3", "python3"));
    wanted.push(Need::Program("/usr/sbin/cyrmaster", "cyrus-imapd"));
    wanted
}

fn start_cyrus(lab: &Lab) -> Result<()> {
    let kolab = lab.host("kolab");
    kolab.ok("chown cyrus:mail /var/spool/imap/ && chmod 750 /var/spool/imap/")?;
    let conf = lab.dir().join("imap");
    fs::create_dir(&conf)?;
    fs::write(conf.join("imapd.conf"), IMAPD_CONF)?;
    fs::write(conf.join("cyrus.conf"), CYRUS_CONF)?;
    kolab.ok(&format!("cp -r {} /run/imap && chmod 755 /run/imap && chown -R cyrus:mail /run/imap", conf.display()))?;
    kolab.ok("su cyrus -s /bin/sh -c 'for d in config proc lock sieve; do mkdir -p /run/imap/$d; done'")?;
    kolab.ok("/usr/sbin/cyrmaster -d -C /run/imap/imapd.conf -M /run/imap/cyrus.conf -p /run/imap/master.pid")?;
    let limit = Duration::from_secs(30);
    let up = wait::until(limit, || kolab.ok("test -S /run/imap/lmtp && exec 3<>/dev/tcp/127.0.0.1/143").is_ok());
    ensure!(up, "Cyrus does not come up");
    Script::run(lab, "kolab", "users", MAKE_USERS, USERS, limit).map(drop)
}

fn stop_cyrus(lab: &Lab) -> Result<()> {
    let kolab = lab.host("kolab");
    kolab.ok("kill $(cat /run/imap/master.pid)")?;
    let gone = wait::until(Duration::from_secs(30), || kolab.signal("/run/imap/", rustix::process::Signal::TERM) == 0);
    ensure!(gone, "Cyrus does not stop: {:?}", kolab.processes());
    Ok(())
}

fn acknowledged(ledger: &PathBuf) -> usize {
    fs::read_to_string(ledger).unwrap_or_default().lines().count()
}

fn mail_survives_the_death_of_a_node(systems: Systems, size: &Size) -> Result<()> {
    let lab = cluster::imap0_of(systems)?;
    cluster::mount_spool(&lab)?;
    cluster::both_bricks_written(&lab)?;
    start_cyrus(&lab)?;

    let (ledger, stop) = (lab.dir().join("ledger"), lab.dir().join("stop"));
    let args = format!("/run/imap/lmtp {} {} {} {USERS}", ledger.display(), size.messages, size.rate());
    let mut deliver = Script::start(&lab, "kolab", "deliver", include_str!("mail/deliver.py"), &args)?;
    let args = format!("{} {USERS}", stop.display());
    let mut fetch = Script::start(&lab, "kolab", "fetch", include_str!("mail/fetch.py"), &args)?;
    let flows = wait::until(size.outage + Duration::from_secs(60), || acknowledged(&ledger) > size.messages / 4);
    ensure!(flows, "mail does not flow:\n{}\n{}", deliver.output(), fetch.output());

    lab.host("gfs2").kill_all();
    let before = acknowledged(&ledger);
    cluster::peer_is(&lab, "gfs1", "Disconnected")?;
    std::thread::sleep(size.outage);
    ensure!(acknowledged(&ledger) > before, "no mail while gfs2 is away:\n{}", deliver.output());
    ensure!(deliver.runs() && fetch.runs(), "mail stopped:\n{}\n{}", deliver.output(), fetch.output());
    cluster::peer_is(&lab, "gfs1", "Disconnected")?;
    cluster::start_daemon(lab.host("gfs2"))?;
    cluster::peer_is(&lab, "gfs1", "Connected")?;

    let limit = 4 * size.outage + Duration::from_secs(120);
    print!("{}", deliver.finish(limit)?);
    fs::write(&stop, "")?;
    print!("{}", fetch.finish(Duration::from_secs(60))?);
    cluster::healed(&lab, limit)?;
    print!(
        "{}",
        Script::run(&lab, "kolab", "verify", include_str!("mail/verify.py"), &ledger.display().to_string(), limit)?
    );
    stop_cyrus(&lab)?;
    cluster::healed(&lab, limit)?;
    cluster::bricks_are_identical(&lab)
}

#[test]
fn acknowledged_mail_survives_the_death_of_a_node() {
    if needs::met("acknowledged_mail_survives_the_death_of_a_node", &needs()) {
        cluster::must(mail_survives_the_death_of_a_node(Systems::OURS, &Size::from_env()));
    }
}

#[test]
#[ignore = "GlusterFS itself, which proves the scenario: cargo test -p mortar --test e2e -- --ignored"]
fn acknowledged_mail_survives_the_death_of_a_node_on_glusterfs() {
    if needs::met("acknowledged_mail_survives_the_death_of_a_node_on_glusterfs", &cluster::with_glusterfs(&needs())) {
        cluster::must(mail_survives_the_death_of_a_node(Systems::GLUSTERFS, &Size::from_env()));
    }
}
