//! Who may connect: the rules of GlusterFS's `auth/addr` and `auth/login` modules (`xlators/protocol/auth`).
//!
//! Each module accepts, rejects or does not care; one rejection is enough to refuse, one acceptance is needed to admit.
//! Pure: host names in the lists are resolved by the caller, who passes the addresses in.
//!
//! One difference: GlusterFS ignores `!` before a plain address and keeps it in force for all entries after it; here it
//! negates the entry that it precedes, whatever its form.

use std::collections::HashMap;
use std::net::IpAddr;

/// Ports below it can only be bound by root.
const PRIVILEGED_PORT_CEILING: u16 = 1024;

/// The lists and passwords of one brick, as the volfile has them. Made by [`crate::options::BrickOptions`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    /// `auth.addr.BRICK.reject`.
    pub reject: Option<AddressList>,
    /// `auth.addr.BRICK.allow`.
    pub allow: Option<AddressList>,
    /// `auth.login.BRICK.allow`: user names that may be wildcards; `None` when the option is absent.
    pub users: Option<Vec<String>>,
    /// `auth.login.USER.password`.
    pub passwords: HashMap<String, String>,
    /// `auth.login.BRICK.ssl-allow`: names in certificates.
    pub ssl_users: Option<Vec<String>>,
    /// `strict-auth-accept`: who shows no valid user name and password is rejected.
    pub strict: bool,
    /// `rpc-auth-allow-insecure`: source ports from 1024 on are accepted.
    pub allow_insecure: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            reject: None,
            allow: Some(AddressList::parse("*")),
            users: None,
            passwords: HashMap::new(),
            ssl_users: None,
            strict: false,
            allow_insecure: true,
        }
    }
}

/// Where a client connects from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    Address(IpAddr, u16),
    /// A local socket: only wildcards match it.
    Unix,
}

/// What a client shows at SETVOLUME.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim<'a> {
    pub origin: Origin,
    pub username: Option<&'a str>,
    pub password: Option<&'a str>,
    /// The verified name in its certificate, when the connection has one.
    pub certificate_name: Option<&'a str>,
    /// The directory it mounts, `/` for all.
    pub subdir: &'a str,
}

/// The decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Refused,
    Admitted {
        /// It knows the volume's password: a process of the pool. Squashing spares those.
        trusted: bool,
    },
}

/// What one module says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Opinion {
    Accept,
    Reject,
    DoNotCare,
}

/// The addresses of the host names in the lists.
pub type Resolved = HashMap<String, Vec<IpAddr>>;

impl Rules {
    /// Judges a client.
    pub fn judge(&self, claim: &Claim<'_>, resolved: &Resolved) -> Verdict {
        let login = self.judge_login(claim);
        let opinions = [login, self.judge_address(claim, resolved)];
        if opinions.contains(&Opinion::Reject) || !opinions.contains(&Opinion::Accept) {
            return Verdict::Refused;
        }
        Verdict::Admitted { trusted: login == Opinion::Accept && claim.certificate_name.is_none() }
    }

    /// Host names whose addresses [`Self::judge`] needs.
    pub fn host_names(&self) -> impl Iterator<Item = &str> {
        [&self.reject, &self.allow].into_iter().flatten().flat_map(AddressList::host_names)
    }

    fn judge_address(&self, claim: &Claim<'_>, resolved: &Resolved) -> Opinion {
        if self.allow.is_none() && self.reject.is_none() {
            return Opinion::DoNotCare;
        }
        let insecure = matches!(claim.origin, Origin::Address(_, port) if port >= PRIVILEGED_PORT_CEILING);
        let listed = |list: &Option<AddressList>| {
            list.as_ref().is_some_and(|list| list.matches(claim.origin, claim.subdir, resolved))
        };
        if (insecure && !self.allow_insecure) || listed(&self.reject) {
            Opinion::Reject
        } else if listed(&self.allow) {
            Opinion::Accept
        } else {
            Opinion::DoNotCare
        }
    }

    fn judge_login(&self, claim: &Claim<'_>) -> Opinion {
        if let Some(name) = claim.certificate_name {
            return match &self.ssl_users {
                None => Opinion::DoNotCare,
                Some(users) if is_listed(users, name) => Opinion::Accept,
                Some(_) => Opinion::Reject,
            };
        }
        let otherwise = if self.strict { Opinion::Reject } else { Opinion::DoNotCare };
        let (Some(username), Some(password), Some(users)) = (claim.username, claim.password, &self.users) else {
            // Without a list GlusterFS's strict mode has no opinion either, but then nobody is to be let in by it.
            return otherwise;
        };
        if !is_listed(users, username) {
            return otherwise;
        }
        match self.passwords.get(username) {
            Some(expected) if is_equal(expected, password) => Opinion::Accept,
            _ => Opinion::Reject,
        }
    }
}

fn is_listed(users: &[String], name: &str) -> bool {
    users.iter().any(|pattern| wildcard(pattern.as_bytes(), name.as_bytes()))
}

/// Compares in a time that does not tell how much of a guess was right.
fn is_equal(expected: &str, given: &str) -> bool {
    let differing = expected.bytes().zip(given.bytes()).fold(0, |seen, (a, b)| seen | (a ^ b));
    expected.len() == given.len() && differing == 0
}

/// `auth.allow` or `auth.reject`: either plain entries, or entries per mounted directory, `/dir(a|b),/other(c)`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AddressList(Scope);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Scope {
    Whole(Vec<Entry>),
    PerDirectory(Vec<(String, Vec<Entry>)>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry {
    negated: bool,
    pattern: Pattern,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Pattern {
    Address(IpAddr),
    Net { base: IpAddr, prefix_bits: u8 },
    Wildcard(String),
    HostName(String),
}

impl AddressList {
    /// Reads the option's value. Anything is a list: what is no address is taken for a name or wildcard.
    pub fn parse(text: &str) -> Self {
        if !text.starts_with('/') && !text.contains('(') {
            return Self(Scope::Whole(entries(text, ',')));
        }
        let directories = text.split(',').filter_map(|entry| {
            let (directory, rest) = entry.trim().split_once('(')?;
            let addresses = rest.strip_suffix(')')?;
            directory.starts_with('/').then(|| (directory.to_owned(), entries(addresses, '|')))
        });
        Self(Scope::PerDirectory(directories.collect()))
    }

    fn matches(&self, origin: Origin, subdir: &str, resolved: &Resolved) -> bool {
        match &self.0 {
            Scope::Whole(entries) => entries.iter().any(|entry| entry.matches(origin, resolved)),
            Scope::PerDirectory(directories) => directories
                .iter()
                .filter(|(directory, _)| directory == subdir)
                .any(|(_, entries)| entries.iter().any(|entry| entry.matches(origin, resolved))),
        }
    }

    fn host_names(&self) -> impl Iterator<Item = &str> {
        let (whole, directories) = match &self.0 {
            Scope::Whole(entries) => (Some(entries), None),
            Scope::PerDirectory(directories) => (None, Some(directories)),
        };
        let of_directories = directories.into_iter().flatten().flat_map(|(_, entries)| entries);
        whole.into_iter().flatten().chain(of_directories).filter_map(|entry| match &entry.pattern {
            Pattern::HostName(name) => Some(name.as_str()),
            _ => None,
        })
    }
}

fn entries(text: &str, delimiter: char) -> Vec<Entry> {
    text.split(delimiter).map(str::trim).filter(|word| !word.is_empty()).map(Entry::parse).collect()
}

impl Entry {
    fn parse(word: &str) -> Self {
        let (negated, word) = match word.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, word),
        };
        Self { negated, pattern: Pattern::parse(word) }
    }

    fn matches(&self, origin: Origin, resolved: &Resolved) -> bool {
        self.pattern.matches(origin, resolved) != self.negated
    }
}

impl Pattern {
    fn parse(word: &str) -> Self {
        if let Ok(address) = word.parse::<IpAddr>() {
            return Self::Address(address.to_canonical());
        }
        if let Some(net) = parse_net(word) {
            return net;
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if word.bytes().all(plain) { Self::HostName(word.to_owned()) } else { Self::Wildcard(word.to_owned()) }
    }

    fn matches(&self, origin: Origin, resolved: &Resolved) -> bool {
        let Origin::Address(address, _) = origin else {
            return matches!(self, Self::Wildcard(pattern) if wildcard(pattern.as_bytes(), b"unix"));
        };
        let address = address.to_canonical();
        match self {
            Self::Address(allowed) => *allowed == address,
            Self::Net { base, prefix_bits } => is_in_net(address, *base, *prefix_bits),
            Self::Wildcard(pattern) => wildcard(pattern.as_bytes(), address.to_string().as_bytes()),
            Self::HostName(name) => {
                resolved.get(name).is_some_and(|known| known.iter().any(|known| known.to_canonical() == address))
            }
        }
    }
}

fn parse_net(word: &str) -> Option<Pattern> {
    let (base, bits) = word.split_once('/')?;
    let base: IpAddr = base.parse().ok()?;
    let prefix_bits: u8 = bits.parse().ok()?;
    let bits_max = if base.is_ipv4() { 32 } else { 128 };
    (prefix_bits <= bits_max).then_some(Pattern::Net { base, prefix_bits })
}

fn is_in_net(address: IpAddr, base: IpAddr, prefix_bits: u8) -> bool {
    match (address, base) {
        (IpAddr::V4(address), IpAddr::V4(base)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix_bits)).unwrap_or(0);
            (address.to_bits() ^ base.to_bits()) & mask == 0
        }
        (IpAddr::V6(address), IpAddr::V6(base)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix_bits)).unwrap_or(0);
            (address.to_bits() ^ base.to_bits()) & mask == 0
        }
        _ => false,
    }
}

/// Shell wildcards as fnmatch(3) without flags: `*`, `?` and `[...]` sets with ranges and `!`.
pub fn wildcard(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    // Where to go on when what follows the last star does not fit: one byte later.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(at) {
            Some(b'*') => {
                at += 1;
                retry = Some((at, from));
                continue;
            }
            None if from == text.len() => return true,
            None => None,
            Some(_) => text.get(from).and_then(|byte| one(&pattern[at..], *byte)),
        };
        match (step, retry) {
            (Some(used), _) => (at, from) = (at + used, from + 1),
            (None, Some((star, begin))) if begin < text.len() => {
                retry = Some((star, begin + 1));
                (at, from) = (star, begin + 1);
            }
            (None, _) => return false,
        }
    }
}

/// How many pattern bytes the byte uses up, `None` when it does not fit.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'[', rest @ ..] => match set(rest, byte) {
            Some((fits, used)) => fits.then_some(used + 1),
            // An unclosed set is a bracket.
            None => (byte == b'[').then_some(1),
        },
        [b'\\', literal, ..] => (*literal == byte).then_some(2),
        [literal, ..] => (*literal == byte).then_some(1),
        [] => None,
    }
}

/// Whether the byte is in the set that follows a bracket, and the set's length with its closing bracket.
fn set(rest: &[u8], byte: u8) -> Option<(bool, usize)> {
    let negated = matches!(rest.first(), Some(b'!' | b'^'));
    let mut at = usize::from(negated);
    let first = at;
    let mut found = false;
    loop {
        let low = *rest.get(at)?;
        if low == b']' && at > first {
            return Some((found != negated, at + 1));
        }
        match (rest.get(at + 1), rest.get(at + 2)) {
            (Some(b'-'), Some(high)) if *high != b']' => {
                found |= (low..=*high).contains(&byte);
                at += 3;
            }
            _ => {
                found |= low == byte;
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &str) -> Claim<'static> {
        Claim {
            origin: Origin::Address(address.parse().unwrap(), 49_151),
            username: None,
            password: None,
            certificate_name: None,
            subdir: "/",
        }
    }

    fn allows(list: &str, address: &str) -> bool {
        let rules = Rules { allow: Some(AddressList::parse(list)), ..Rules::default() };
        rules.judge(&from(address), &Resolved::new()) == Verdict::Admitted { trusted: false }
    }

    fn with_user() -> Rules {
        Rules {
            users: Some(vec!["user".to_owned()]),
            passwords: HashMap::from([("user".to_owned(), "secret".to_owned())]),
            ..Rules::default()
        }
    }

    fn login(username: &'static str, password: &'static str) -> Claim<'static> {
        Claim { username: Some(username), password: Some(password), ..from("10.0.0.1") }
    }

    #[test]
    fn lists_take_addresses_wildcards_and_nets() {
        assert!(allows("*", "10.0.0.1"));
        assert!(allows("10.0.0.2,10.0.0.1", "10.0.0.1"));
        assert!(!allows("10.0.0.2", "10.0.0.1"));
        assert!(allows("10.0.*", "10.0.7.1") && !allows("10.0.*", "10.1.7.1"));
        assert!(allows("10.0.0.0/8", "10.200.0.1") && !allows("10.0.0.0/9", "10.200.0.1"));
        assert!(allows("0.0.0.0/0", "192.168.1.1") && allows("fd00::/8", "fd01::1"));
        assert!(allows("10.0.0.1", "::ffff:10.0.0.1"));
    }

    #[test]
    fn a_bang_negates_its_entry() {
        assert!(!allows("!10.0.0.1", "10.0.0.1") && allows("!10.0.0.1", "10.0.0.2"));
        assert!(!allows("!10.0.*", "10.0.3.4") && allows("!10.0.0.0/8", "11.0.0.1"));
    }

    #[test]
    fn a_name_matches_by_its_addresses() {
        let rules = Rules { allow: Some(AddressList::parse("gfs1.example,10.9.*")), ..Rules::default() };
        assert_eq!(rules.host_names().collect::<Vec<_>>(), ["gfs1.example"]);
        let resolved = Resolved::from([("gfs1.example".to_owned(), vec!["10.0.0.1".parse().unwrap()])]);
        assert_eq!(rules.judge(&from("10.0.0.1"), &resolved), Verdict::Admitted { trusted: false });
        assert_eq!(rules.judge(&from("10.0.0.2"), &resolved), Verdict::Refused);
    }

    #[test]
    fn rejection_wins_over_acceptance() {
        let rules = Rules { reject: Some(AddressList::parse("10.0.0.1")), ..with_user() };
        assert_eq!(rules.judge(&login("user", "secret"), &Resolved::new()), Verdict::Refused);
    }

    #[test]
    fn directories_have_lists_of_their_own() {
        let rules = Rules { allow: Some(AddressList::parse("/a(10.0.0.1|10.0.0.2),/(*)")), ..Rules::default() };
        let judge = |subdir, address| rules.judge(&Claim { subdir, ..from(address) }, &Resolved::new());
        assert_eq!(judge("/a", "10.0.0.2"), Verdict::Admitted { trusted: false });
        assert_eq!(judge("/a", "10.0.0.3"), Verdict::Refused);
        assert_eq!(judge("/b", "10.0.0.1"), Verdict::Refused);
        assert_eq!(judge("/", "10.0.0.3"), Verdict::Admitted { trusted: false });
    }

    #[test]
    fn the_password_makes_a_client_trusted_and_a_wrong_one_is_refused() {
        let judge = |claim| with_user().judge(&claim, &Resolved::new());
        assert_eq!(judge(login("user", "secret")), Verdict::Admitted { trusted: true });
        assert_eq!(judge(login("user", "wrong")), Verdict::Refused);
        // As a real brick: unknown users are judged by their address.
        assert_eq!(judge(login("other", "x")), Verdict::Admitted { trusted: false });
    }

    #[test]
    fn strict_mode_wants_the_password() {
        let rules = Rules { strict: true, ..with_user() };
        assert_eq!(rules.judge(&from("10.0.0.1"), &Resolved::new()), Verdict::Refused);
        assert_eq!(rules.judge(&login("other", "x"), &Resolved::new()), Verdict::Refused);
        assert_eq!(rules.judge(&login("user", "secret"), &Resolved::new()), Verdict::Admitted { trusted: true });
    }

    #[test]
    fn high_ports_are_refused_when_told_so() {
        let rules = Rules { allow_insecure: false, ..Rules::default() };
        assert_eq!(rules.judge(&from("10.0.0.1"), &Resolved::new()), Verdict::Refused);
        let low = Claim { origin: Origin::Address("10.0.0.1".parse().unwrap(), 1023), ..from("10.0.0.1") };
        assert_eq!(rules.judge(&low, &Resolved::new()), Verdict::Admitted { trusted: false });
    }

    #[test]
    fn certificate_names_are_checked_when_there_is_a_list() {
        let rules = Rules { ssl_users: Some(vec!["gfs*".to_owned()]), ..Rules::default() };
        let judge = |name| rules.judge(&Claim { certificate_name: Some(name), ..from("10.0.0.1") }, &Resolved::new());
        assert_eq!(judge("gfs1"), Verdict::Admitted { trusted: false });
        assert_eq!(judge("other"), Verdict::Refused);
    }

    #[test]
    fn wildcards_match_as_in_the_shell() {
        let check = |pattern: &str, text: &str| wildcard(pattern.as_bytes(), text.as_bytes());
        assert!(check("a*c*e", "abcde") && !check("a*c*e", "abcdf"));
        assert!(check("10.[0-2].?", "10.1.5") && !check("10.[!0-2].?", "10.1.5"));
        assert!(check("[]x]", "]") && check("[", "[") && check("\\*", "*") && !check("\\*", "a"));
        assert!(check("", "") && !check("", "a") && check("**", "") && !check("*a", "ab"));
    }
}
