//! From a brick volfile to the options of each layer. Option names are GlusterFS's, so that a volfile of either daemon
//! can be served; options without a meaning here are ignored, as GlusterFS ignores unknown ones.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use mortar_logic::locks;
use mortar_logic::values::{boolean, byte_size};
use mortar_types::Gfid;
use mortar_wire::volfile::{Volfile, VolfileVolume};

use crate::auth::{AddressList, Rules};
use crate::server::{Squash, SquashWho};
use crate::store::{Reserve, StoreOptions};
use crate::upcall;

/// Everything that a brick process is told.
#[derive(Clone)]
pub struct BrickOptions {
    /// The name clients ask for (`remote-subvolume`): the brick's path.
    pub name: String,
    pub store: StoreOptions,
    pub locks: locks::Config,
    pub upcall: upcall::Options,
    pub server: ServerOptions,
}

/// Options of `protocol/server` and of the layers that the server itself stands for here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerOptions {
    pub auth: Rules,
    /// `features.read-only`, `features.worm`: changes by ordinary callers are refused.
    pub read_only: bool,
    pub squash: Squash,
    /// `rpc.outstanding-rpc-limit`; `None`: no limit.
    pub outstanding_max: Option<usize>,
    pub keepalive_idle: Duration,
    pub keepalive_interval: Duration,
    pub keepalive_count: u32,
    /// `transport.tcp-user-timeout`; zero: the kernel's rule.
    pub user_timeout: Duration,
}

/// Why a volfile describes no brick.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OptionsError {
    #[error("the volfile has no volume of type {0}; it must be a brick's volfile")]
    NoLayer(&'static str),
    #[error("volume \"{volume}\": option {option} is missing")]
    Missing { volume: String, option: &'static str },
    #[error("volume \"{volume}\": option {option} is \"{value}\", which is not {expected}")]
    Invalid { volume: String, option: String, value: String, expected: &'static str },
    #[error("volume \"{volume}\": option {option} is on, but this brick cannot do that; set it to off")]
    Unsupported { volume: String, option: &'static str },
}

impl BrickOptions {
    /// Reads a parsed volfile. `node_uuid` is the `glusterd-uuid` that the daemon gives on the command line.
    pub fn from_volfile(volfile: &Volfile, node_uuid: Option<Gfid>) -> Result<Self, OptionsError> {
        let server = Layer::need(volfile, "protocol/server")?;
        let name = server.0.subvolumes.first().ok_or_else(|| server.missing("subvolumes"))?.clone();
        Ok(Self {
            store: store_options(volfile, node_uuid)?,
            locks: locks_options(volfile)?,
            upcall: upcall_options(volfile)?,
            server: server_options(volfile, &server, &name)?,
            name,
        })
    }
}

fn store_options(volfile: &Volfile, node_uuid: Option<Gfid>) -> Result<StoreOptions, OptionsError> {
    let layer = Layer::need(volfile, "storage/posix")?;
    let root = PathBuf::from(layer.0.option("directory").ok_or_else(|| layer.missing("directory"))?);
    let volume_id = layer.parsed("volume-id", "a UUID")?.ok_or_else(|| layer.missing("volume-id"))?;
    let mut options = StoreOptions::new(root, volume_id);
    options.name.clone_from(&layer.0.name);
    options.node_uuid = layer.parsed("glusterd-uuid", "a UUID")?.or(node_uuid);
    if let Some(hostname) = layer.0.option("hostname") {
        hostname.clone_into(&mut options.hostname);
    }
    if let Some(reserve) = layer.reserve()? {
        options.reserve = reserve;
    }
    options.ctime = layer.switch("ctime", options.ctime)?;
    options.gfid2path = layer.switch("gfid2path", options.gfid2path)?;
    options.max_hardlinks = layer.number("max-hardlinks", options.max_hardlinks)?;
    options.health_check_interval = layer.seconds("health-check-interval", options.health_check_interval)?;
    options.health_check_timeout = layer.seconds("health-check-timeout", options.health_check_timeout)?;
    options.shared_brick_count = layer.number("shared-brick-count", options.shared_brick_count)?.max(1);
    if layer.switch("disable-landfill-purge", false)? {
        options.landfill_purge_interval = None;
    }
    if let Some(index) = Layer::find(volfile, "features/index") {
        index.list("xattrop-pending-watchlist", &mut options.pending_watchlist);
        index.list("xattrop-dirty-watchlist", &mut options.dirty_watchlist);
    }
    Ok(options)
}

fn locks_options(volfile: &Volfile) -> Result<locks::Config, OptionsError> {
    let mut options = locks::Config::default();
    if let Some(layer) = Layer::find(volfile, "features/locks") {
        options.notify_contention = layer.switch("notify-contention", options.notify_contention)?;
        options.notify_delay = layer.seconds("notify-contention-delay", options.notify_delay)?;
    }
    Ok(options)
}

fn upcall_options(volfile: &Volfile) -> Result<upcall::Options, OptionsError> {
    let mut options = upcall::Options::default();
    if let Some(layer) = Layer::find(volfile, "features/upcall") {
        options.enabled = layer.switch("cache-invalidation", options.enabled)?;
        options.timeout = layer.seconds("cache-invalidation-timeout", options.timeout)?;
    }
    Ok(options)
}

fn server_options(volfile: &Volfile, layer: &Layer<'_>, brick: &str) -> Result<ServerOptions, OptionsError> {
    if layer.switch("transport.socket.ssl-enabled", false)? {
        return Err(OptionsError::Unsupported { volume: layer.0.name.clone(), option: "transport.socket.ssl-enabled" });
    }
    let is_on = |kind, option| Layer::find(volfile, kind).map_or(Ok(false), |layer| layer.switch(option, false));
    let outstanding: usize = layer.number("rpc.outstanding-rpc-limit", 64)?;
    Ok(ServerOptions {
        auth: auth_rules(layer, brick)?,
        read_only: is_on("features/read-only", "read-only")? || is_on("features/worm", "worm")?,
        squash: squash(layer)?,
        outstanding_max: (outstanding > 0).then_some(outstanding),
        keepalive_idle: layer.seconds("transport.socket.keepalive-time", Duration::from_secs(20))?,
        keepalive_interval: layer.seconds("transport.socket.keepalive-interval", Duration::from_secs(2))?,
        keepalive_count: layer.number("transport.socket.keepalive-count", 9)?,
        user_timeout: layer.seconds("transport.tcp-user-timeout", Duration::from_secs(42))?,
    })
}

fn auth_rules(layer: &Layer<'_>, brick: &str) -> Result<Rules, OptionsError> {
    let option = |key: String| layer.0.option(&key);
    let addresses = |list| option(format!("auth.addr.{brick}.{list}")).map(AddressList::parse);
    let words = |text: &str| text.split([' ', ',']).filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let passwords = layer.0.options.iter().filter_map(|(key, value)| {
        let user = key.strip_prefix("auth.login.")?.strip_suffix(".password")?;
        Some((user.to_owned(), value.clone()))
    });
    Ok(Rules {
        reject: addresses("reject"),
        allow: addresses("allow"),
        users: option(format!("auth.login.{brick}.allow")).map(words),
        passwords: passwords.collect(),
        ssl_users: option(format!("auth.login.{brick}.ssl-allow")).map(words),
        strict: layer.switch("strict-auth-accept", false)?,
        allow_insecure: layer.switch("rpc-auth-allow-insecure", true)?,
    })
}

fn squash(layer: &Layer<'_>) -> Result<Squash, OptionsError> {
    let who = match (layer.switch("all-squash", false)?, layer.switch("root-squash", false)?) {
        (true, _) => SquashWho::Everybody,
        (false, true) => SquashWho::Root,
        (false, false) => SquashWho::Nobody,
    };
    Ok(Squash { who, uid: layer.number("anonuid", Squash::NOBODY)?, gid: layer.number("anongid", Squash::NOBODY)? })
}

/// One volume of the file, with readers for its options.
struct Layer<'a>(&'a VolfileVolume);

impl<'a> Layer<'a> {
    fn find(volfile: &'a Volfile, kind: &str) -> Option<Self> {
        volfile.volumes.iter().find(|volume| volume.kind == kind).map(Self)
    }

    fn need(volfile: &'a Volfile, kind: &'static str) -> Result<Self, OptionsError> {
        Self::find(volfile, kind).ok_or(OptionsError::NoLayer(kind))
    }

    fn missing(&self, option: &'static str) -> OptionsError {
        OptionsError::Missing { volume: self.0.name.clone(), option }
    }

    fn invalid(&self, option: &str, value: &str, expected: &'static str) -> OptionsError {
        OptionsError::Invalid {
            volume: self.0.name.clone(),
            option: option.to_owned(),
            value: value.to_owned(),
            expected,
        }
    }

    fn parsed<T: FromStr>(&self, option: &str, expected: &'static str) -> Result<Option<T>, OptionsError> {
        let Some(value) = self.0.option(option) else { return Ok(None) };
        value.parse().map(Some).map_err(|_| self.invalid(option, value, expected))
    }

    fn number<T: FromStr>(&self, option: &str, default: T) -> Result<T, OptionsError> {
        Ok(self.parsed(option, "a number")?.unwrap_or(default))
    }

    fn seconds(&self, option: &str, default: Duration) -> Result<Duration, OptionsError> {
        Ok(self.parsed(option, "a number of seconds")?.map_or(default, Duration::from_secs))
    }

    fn switch(&self, option: &str, default: bool) -> Result<bool, OptionsError> {
        let Some(value) = self.0.option(option) else { return Ok(default) };
        boolean(value).ok_or_else(|| self.invalid(option, value, "on or off"))
    }

    fn list(&self, option: &str, into: &mut Vec<String>) {
        if let Some(value) = self.0.option(option) {
            *into = value.split([',', ' ']).filter(|word| !word.is_empty()).map(str::to_owned).collect();
        }
    }

    /// A percentage, or a size with an optional unit.
    fn reserve(&self) -> Result<Option<Reserve>, OptionsError> {
        let Some(value) = self.0.option("reserve") else { return Ok(None) };
        let invalid = || self.invalid("reserve", value, "a percentage or a size");
        if let Some(percent) = value.strip_suffix('%') {
            let percent = percent.parse().ok().filter(|percent| (0.0..=100.0).contains(percent));
            return percent.map(Reserve::Percent).map(Some).ok_or_else(invalid);
        }
        byte_size(value).map(Reserve::from_option).map(Some).ok_or_else(invalid)
    }
}

/// The address in `--listen`.
pub fn parse_listen(text: &str) -> Option<IpAddr> {
    text.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Claim, Origin, Resolved, Verdict};

    const VOLUME_ID: &str = "b7857191-63b2-4d58-baa1-ab87bf78b7dc";

    fn volfile(posix: &str, server: &str) -> Volfile {
        let text = format!(
            "volume imap0-posix\ntype storage/posix\noption directory /srv/gfs/brick\n{posix}\nend-volume\n\
             volume imap0-locks\ntype features/locks\noption notify-contention-delay 2\nsubvolumes imap0-posix\nend-volume\n\
             volume imap0-index\ntype features/index\noption xattrop-pending-watchlist trusted.afr.imap0-\n\
             subvolumes imap0-locks\nend-volume\n\
             volume /srv/gfs/brick\ntype debug/io-stats\nsubvolumes imap0-index\nend-volume\n\
             volume imap0-server\ntype protocol/server\n{server}\nsubvolumes /srv/gfs/brick\nend-volume\n"
        );
        Volfile::parse(&text).unwrap()
    }

    fn options(posix: &str, server: &str) -> Result<BrickOptions, OptionsError> {
        let posix = format!("option volume-id {VOLUME_ID}\n{posix}");
        BrickOptions::from_volfile(&volfile(&posix, server), None)
    }

    #[test]
    fn the_brick_is_named_by_the_servers_subvolume() {
        let options = options("", "").unwrap();
        assert_eq!(options.name, "/srv/gfs/brick");
        assert_eq!(options.store.root, PathBuf::from("/srv/gfs/brick"));
        assert_eq!(options.store.volume_id.to_string(), VOLUME_ID);
        assert_eq!(options.store.pending_watchlist, ["trusted.afr.imap0-"]);
        assert_eq!(options.locks.notify_delay, Duration::from_secs(2));
    }

    #[test]
    fn a_volfile_without_its_layers_is_refused_with_a_sentence() {
        let no_id = BrickOptions::from_volfile(&volfile("", ""), None).err().unwrap();
        assert_eq!(no_id.to_string(), "volume \"imap0-posix\": option volume-id is missing");
        let client = Volfile::parse("volume a\ntype protocol/client\nend-volume").unwrap();
        let error = BrickOptions::from_volfile(&client, None).err().unwrap();
        assert_eq!(error, OptionsError::NoLayer("protocol/server"));
    }

    #[test]
    fn wrong_values_are_named() {
        let error = options("option max-hardlinks many", "").err().unwrap();
        let text = "volume \"imap0-posix\": option max-hardlinks is \"many\", which is not a number";
        assert_eq!(error.to_string(), text);
        assert!(options("", "option root-squash maybe").is_err());
        assert!(options("", "option transport.socket.ssl-enabled on").is_err());
    }

    #[test]
    fn reserve_is_a_percentage_or_a_size() {
        let reserve = |text| options(&format!("option reserve {text}"), "").map(|options| options.store.reserve);
        assert_eq!(reserve("5"), Ok(Reserve::Percent(5.0)));
        assert_eq!(reserve("2.5%"), Ok(Reserve::Percent(2.5)));
        assert_eq!(reserve("2GB"), Ok(Reserve::Bytes(2 << 30)));
        assert!(reserve("much").is_err());
    }

    #[test]
    fn auth_options_are_those_of_this_brick() {
        let server = "option auth.addr./srv/gfs/brick.allow 10.0.0.*\noption auth.addr./other.allow *\n\
                      option auth.login./srv/gfs/brick.allow user\noption auth.login.user.password secret";
        let rules = options("", server).unwrap().server.auth;
        let claim = |address: &str, password| Claim {
            origin: Origin::Address(address.parse().unwrap(), 1000),
            username: Some("user"),
            password,
            certificate_name: None,
            subdir: "/",
        };
        let judge = |claim| rules.judge(&claim, &Resolved::new());
        assert_eq!(judge(claim("10.0.0.9", None)), Verdict::Admitted { trusted: false });
        assert_eq!(judge(claim("10.1.0.9", None)), Verdict::Refused);
        assert_eq!(judge(claim("10.1.0.9", Some("secret"))), Verdict::Admitted { trusted: true });
    }

    #[test]
    fn a_volfile_that_glusterfs_wrote_is_understood() {
        let text = include_str!("testdata/replica2.brick.vol");
        let options = BrickOptions::from_volfile(&Volfile::parse(text).unwrap(), None).unwrap();
        assert_eq!(options.name, "/srv/gfs/brick");
        assert!(!options.server.read_only && !options.upcall.enabled);
        assert_eq!(options.store.dirty_watchlist, ["trusted.afr.dirty"]);
    }
}
