//! From words to a command: what the admin means, checked as far as words alone can tell.

use clap::{CommandFactory, Parser};

use mortar_api::heal::{Action, Rule};
use mortar_api::volume::{BrickRef, Create};

use crate::create;
use crate::grammar::{Peer, Pool, System, Top, Volume, Words};
use crate::growth::{self, Growth};
use crate::plan::{self, Planned};

/// A command for the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    PeerProbe { host: String },
    PeerDetach { host: String, force: bool },
    PeerStatus,
    PoolList,
    PoolRecover,
    VolumeCreate(Create),
    VolumeStart { name: String, force: bool },
    VolumeStop { name: String, force: bool },
    VolumeDelete { name: String },
    VolumeInfo { name: Option<String> },
    VolumeList,
    VolumeStatus { name: Option<String>, brick: Option<BrickRef>, view: StatusView },
    VolumeSet { name: String, options: Vec<(String, String)> },
    VolumeSetHelp,
    VolumeGet { name: String, key: String },
    VolumeReset { name: String, key: Option<String>, force: bool },
    Heal { name: String, action: Action },
    HealInfo { name: String, view: HealView },
    HealCount { name: String, replica: Option<BrickRef> },
    HealSettle { name: String, rule: Rule, target: Option<String> },
    HealStatistics { name: String },
    VolumeVerify { name: String },
    Growth(Growth),
    Getspec { name: String },
    UuidGet,
}

/// Which part of a volume's status to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusView {
    Processes,
    Detail,
    Clients,
    ClientList,
    Tasks,
}

/// Which part of the heal info to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealView {
    Entries,
    Summary,
    SplitBrain,
}

/// What the words ask for: a command, or one of the binary's own roles.
#[derive(Debug)]
pub enum Asked {
    Command(Command),
    /// A volume that does not exist yet; nobody is asked.
    Plan(Planned),
    Role(Box<Top>),
}

/// Words that are no command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misuse {
    /// The word at `position` fits nothing there.
    UnknownWord { word: String, position: usize },
    /// The words end in the middle of a command.
    Incomplete,
    /// The command is known, its arguments are not right. `usage`: its pattern. `why` may be empty.
    Usage { why: String, usage: String },
}

/// Top-level words that only `mortar` knows.
const ROLES: [&str; 9] = ["plan", "quickstart", "daemon", "mount", "brick", "heald", "rebalance", "completions", "man"];

/// Reads the words after the program's name. `roles`: whether the binary's own roles are among the words.
pub fn parse(words: &[String], roles: bool) -> Result<Asked, Misuse> {
    if let [first, rest @ ..] = words
        && first == "volume"
        && rest.first().is_some_and(|word| word == "set")
        && rest.len() == 1
    {
        return Err(Misuse::Usage { why: String::new(), usage: usage_of(words) });
    }
    let args = std::iter::once("mortar".to_owned()).chain(words.iter().cloned());
    let top = match Words::try_parse_from(args) {
        Ok(parsed) => parsed.top,
        Err(error) => return Err(misuse(words, roles, &error)),
    };
    match command_of(top) {
        // Words that GlusterFS has not.
        Ok(Asked::Role(_) | Asked::Plan(_)) if !roles => {
            Err(Misuse::UnknownWord { word: words.first().cloned().unwrap_or_default(), position: 0 })
        }
        Ok(asked) => Ok(asked),
        Err(why) => Err(Misuse::Usage { why, usage: usage_of(words) }),
    }
}

/// Finds where the words leave the grammar, as GlusterFS counts positions.
fn misuse(words: &[String], roles: bool, error: &clap::Error) -> Misuse {
    let mut command = Words::command();
    command.build();
    for (position, word) in words.iter().enumerate() {
        if !command.has_subcommands() {
            let why = match error.kind() {
                clap::error::ErrorKind::DisplayHelp => command.clone().render_help().to_string(),
                _ => String::new(),
            };
            return Misuse::Usage { why, usage: usage_of(words) };
        }
        let Some(next) = subcommand(&command, word, roles) else {
            return Misuse::UnknownWord { word: word.clone(), position };
        };
        command = next;
    }
    if command.has_subcommands() {
        Misuse::Incomplete
    } else {
        Misuse::Usage { why: String::new(), usage: usage_of(words) }
    }
}

/// The subcommand that `word` names, in full or by a prefix that is no other's.
fn subcommand(command: &clap::Command, word: &str, roles: bool) -> Option<clap::Command> {
    let known = |name: &str| roles || !ROLES.contains(&name);
    if let Some(exact) = command.get_subcommands().find(|sub| sub.get_name() == word && known(sub.get_name())) {
        return Some(exact.clone());
    }
    let mut starting =
        command.get_subcommands().filter(|sub| sub.get_name().starts_with(word) && known(sub.get_name()));
    let only = starting.next()?;
    starting.next().is_none().then(|| only.clone())
}

/// GlusterFS's pattern of the command that the words begin with.
fn usage_of(words: &[String]) -> String {
    let mut command = Words::command();
    command.build();
    for word in words {
        match subcommand(&command, word, true) {
            Some(next) => command = next,
            None => break,
        }
    }
    let usage = command.render_usage().to_string();
    usage.trim_start_matches("Usage: ").trim().to_owned()
}

fn command_of(top: Top) -> Result<Asked, String> {
    let command = match top {
        Top::Peer(Peer::Probe { host }) => Command::PeerProbe { host },
        Top::Peer(Peer::Detach { host, force }) => Command::PeerDetach { host, force: force.is_some() },
        Top::Peer(Peer::Status) => Command::PeerStatus,
        Top::Pool(Pool::List) => Command::PoolList,
        Top::Pool(Pool::Recover) => Command::PoolRecover,
        Top::Volume(volume) => volume_command(*volume)?,
        Top::System(System::Getspec { name }) => Command::Getspec { name },
        Top::System(System::Uuid { get }) if get.as_deref() == Some("get") => Command::UuidGet,
        Top::System(System::Uuid { .. }) => return Err(String::new()),
        Top::Plan { words } => return Ok(Asked::Plan(plan::parse(&words)?)),
        role => return Ok(Asked::Role(Box::new(role))),
    };
    Ok(Asked::Command(command))
}

fn volume_command(volume: Volume) -> Result<Command, String> {
    Ok(match volume {
        Volume::Create { name, words } => {
            Command::VolumeCreate(create::parse(&name, &words).map_err(|error| error.to_string())?)
        }
        Volume::Start { name, force } => Command::VolumeStart { name, force: force.is_some() },
        Volume::Stop { name, force } => Command::VolumeStop { name, force: force.is_some() },
        Volume::Delete { name } => Command::VolumeDelete { name },
        Volume::Info { name } => Command::VolumeInfo { name: name.filter(|name| name != "all") },
        Volume::List { .. } => Command::VolumeList,
        Volume::Status { words } => status(&words)?,
        Volume::Set { words } => set(&words)?,
        Volume::Get { name, key } => Command::VolumeGet { name, key },
        Volume::Reset { name, words } => reset(name, &words)?,
        Volume::Heal { name, words } => heal(name, &words)?,
        Volume::Verify { name } => Command::VolumeVerify { name },
        Volume::AddBrick { name, words } => Command::Growth(growth::add(name, &words)?),
        Volume::RemoveBrick { name, words } => Command::Growth(growth::remove(name, &words)?),
        Volume::ReplaceBrick { name, words } => Command::Growth(growth::replace(name, &words)?),
        Volume::ResetBrick { name, words } => Command::Growth(growth::reset(name, &words)?),
        Volume::Rebalance { name, words } => Command::Growth(growth::rebalance(name, &words)?),
        Volume::Quota(_) => return unserved("volume quota"),
        Volume::InodeQuota(_) => return unserved("volume inode-quota"),
        Volume::Profile(_) => return unserved("volume profile"),
        Volume::Top(_) => return unserved("volume top"),
        Volume::Statedump(_) => return unserved("volume statedump"),
        Volume::Log(_) => return unserved("volume log"),
        Volume::Sync(_) => return unserved("volume sync"),
        Volume::Barrier(_) => return unserved("volume barrier"),
        Volume::ClearLocks(_) => return unserved("volume clear-locks"),
        Volume::Bitrot(_) => return unserved("volume bitrot"),
    })
}

/// A command of GlusterFS's that this version does not have: said plainly, nothing is done.
fn unserved(name: &str) -> Result<Command, String> {
    Err(format!("{name}: GlusterFS has this command, Mortar {} does not serve it.", env!("CARGO_PKG_VERSION")))
}

fn status(words: &[String]) -> Result<Command, String> {
    let view_of = |word: &str| match word {
        "detail" => Some(StatusView::Detail),
        "clients" => Some(StatusView::Clients),
        "client-list" => Some(StatusView::ClientList),
        "tasks" => Some(StatusView::Tasks),
        _ => None,
    };
    let (name, rest) = match words.split_first() {
        None => (None, words),
        Some((first, rest)) if first == "all" => (None, rest),
        Some((first, rest)) => (Some(first.clone()), rest),
    };
    let mut brick = None;
    let mut view = StatusView::Processes;
    for (at, word) in rest.iter().enumerate() {
        match view_of(word) {
            Some(found) if at + 1 == rest.len() => view = found,
            None if at == 0 && name.is_some() => brick = Some(named_brick(word)),
            _ => return Err(String::new()),
        }
    }
    Ok(Command::VolumeStatus { name, brick, view })
}

/// A brick as written; a word that is no brick is passed on so that the daemon says that the volume has none such.
fn named_brick(word: &str) -> BrickRef {
    create::brick(word).unwrap_or_else(|_| BrickRef { host: word.to_owned(), path: String::new() })
}

fn set(words: &[String]) -> Result<Command, String> {
    match words {
        [only] if only == "help" => Ok(Command::VolumeSetHelp),
        [name, pairs @ ..] if !pairs.is_empty() && pairs.len() % 2 == 0 => {
            let options = pairs.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
            Ok(Command::VolumeSet { name: name.clone(), options })
        }
        _ => Err(String::new()),
    }
}

fn reset(name: String, words: &[String]) -> Result<Command, String> {
    match words {
        [] => Ok(Command::VolumeReset { name, key: None, force: false }),
        [word] if word == "force" => Ok(Command::VolumeReset { name, key: None, force: true }),
        [key] => Ok(Command::VolumeReset { name, key: Some(key.clone()), force: false }),
        [key, word] if word == "force" => Ok(Command::VolumeReset { name, key: Some(key.clone()), force: true }),
        _ => Err(String::new()),
    }
}

fn heal(name: String, words: &[String]) -> Result<Command, String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let action = |action| Command::Heal { name: name.clone(), action };
    let info = |view| Command::HealInfo { name: name.clone(), view };
    let settle = |rule, target: Option<&str>| Command::HealSettle {
        name: name.clone(),
        rule,
        target: target.map(str::to_owned),
    };
    Ok(match words.as_slice() {
        [] => action(Action::Index),
        ["full"] => action(Action::Full),
        ["enable"] => action(Action::Enable),
        ["disable"] => action(Action::Disable),
        ["granular-entry-heal", "enable"] => action(Action::GranularEnable),
        ["granular-entry-heal", "disable"] => action(Action::GranularDisable),
        ["info"] => info(HealView::Entries),
        ["info", "summary"] => info(HealView::Summary),
        ["info", "split-brain"] => info(HealView::SplitBrain),
        ["statistics"] => Command::HealStatistics { name },
        ["statistics", "heal-count"] => Command::HealCount { name, replica: None },
        ["statistics", "heal-count", "replica", brick] => {
            Command::HealCount { name, replica: Some(named_brick(brick)) }
        }
        ["split-brain", "bigger-file", file] => settle(Rule::BiggerFile, Some(*file)),
        ["split-brain", "latest-mtime", file] => settle(Rule::LatestMtime, Some(*file)),
        ["split-brain", "source-brick", brick] => settle(Rule::SourceBrick(named_brick(brick)), None),
        ["split-brain", "source-brick", brick, file] => settle(Rule::SourceBrick(named_brick(brick)), Some(*file)),
        _ => return Err(String::new()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Command, Misuse> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        match parse(&words, false)? {
            Asked::Command(command) => Ok(command),
            Asked::Role(_) | Asked::Plan(_) => unreachable!("roles are off"),
        }
    }

    #[test]
    fn abbreviations_and_unknown_words_are_told_as_glusterfs_does() {
        assert_eq!(check("vol li"), Ok(Command::VolumeList));
        assert_eq!(check("v i imap0"), Err(Misuse::UnknownWord { word: "i".into(), position: 1 }));
        assert_eq!(check("vo st imap0"), Err(Misuse::UnknownWord { word: "st".into(), position: 1 }));
        assert_eq!(check("badword"), Err(Misuse::UnknownWord { word: "badword".into(), position: 0 }));
        assert_eq!(check("volume"), Err(Misuse::Incomplete));
        assert_eq!(check("volume list extra"), Ok(Command::VolumeList));
        assert_eq!(check("daemon"), Err(Misuse::UnknownWord { word: "daemon".into(), position: 0 }));
    }

    #[test]
    fn wrong_arguments_get_the_pattern() {
        let usage = |text: &str| match check(text) {
            Err(Misuse::Usage { usage, .. }) => usage,
            other => panic!("{other:?}"),
        };
        assert_eq!(usage("volume start"), "volume start <VOLNAME> [force]");
        assert_eq!(usage("peer probe"), "peer probe { <HOSTNAME> | <IP-address> }");
        assert_eq!(usage("volume info imap0 extra"), "volume info [all|<VOLNAME>]");
        assert!(usage("volume heal imap0 badop").starts_with("volume heal <VOLNAME> [enable | disable"));
    }

    #[test]
    fn status_takes_a_brick_and_a_view() {
        let brick = Some(BrickRef { host: "gfs1".into(), path: "/b".into() });
        let expected = Command::VolumeStatus { name: Some("v".into()), brick, view: StatusView::Detail };
        assert_eq!(check("volume status v gfs1:/b detail"), Ok(expected));
        let all = Command::VolumeStatus { name: None, brick: None, view: StatusView::Tasks };
        assert_eq!(check("volume status all tasks"), Ok(all));
    }
}
