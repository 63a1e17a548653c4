//! The words that grow and shrink a volume: `add-brick`, `remove-brick`, `replace-brick`, `reset-brick`, `rebalance`
//! (GlusterFS `cli/src/cli-cmd-parser.c`, `cli-cmd-volume.c`). An `Err` is what is printed before the usage line; empty:
//! the usage only.

use mortar_api::brick::{Add, RemoveCommit, RemoveStart, RemoveStatus, RemoveStop, Replace, ResetCommit, ResetStart};
use mortar_api::rebalance::{Control, GetStatus, Mode, Start, Steer};
use mortar_api::volume::BrickRef;

use crate::create::brick;

/// A command that changes which bricks a volume has, or moves its files between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Growth {
    Add(Add),
    RemoveStart(RemoveStart),
    RemoveStatus(RemoveStatus),
    RemoveStop(RemoveStop),
    RemoveCommit(RemoveCommit),
    Replace(Replace),
    ResetStart(ResetStart),
    ResetCommit(ResetCommit),
    RebalanceStart(Start),
    RebalanceStatus(GetStatus),
    RebalanceControl(Steer),
}

/// `[replica N [arbiter N]] BRICK… [force]`.
pub(crate) fn add(volume: String, words: &[String]) -> Result<Growth, String> {
    let (words, force) = without_last(words, "force");
    let (replica, words) = count(words, "replica")?;
    let (arbiter, words) = count(words, "arbiter")?;
    let bricks = bricks(words)?;
    Ok(Growth::Add(Add { volume, bricks, replica, arbiter: arbiter.unwrap_or(0), force }))
}

/// `[replica N] BRICK… start|stop|status|commit|force`.
pub(crate) fn remove(volume: String, words: &[String]) -> Result<Growth, String> {
    let (action, words) = words.split_last().ok_or_else(String::new)?;
    let (replica, words) = count(words, "replica")?;
    let bricks = bricks(words)?;
    match (action.as_str(), replica) {
        ("start", replica) => Ok(Growth::RemoveStart(RemoveStart { volume, bricks, replica })),
        ("commit", replica) => Ok(Growth::RemoveCommit(RemoveCommit { volume, bricks, replica, force: false })),
        ("force", replica) => Ok(Growth::RemoveCommit(RemoveCommit { volume, bricks, replica, force: true })),
        ("status", None) => Ok(Growth::RemoveStatus(RemoveStatus { volume, bricks })),
        ("stop", None) => Ok(Growth::RemoveStop(RemoveStop { volume, bricks })),
        ("status" | "stop", Some(_)) => Err("replica option should not be used for stop/status".to_owned()),
        _ => Err(String::new()),
    }
}

/// `SOURCE-BRICK NEW-BRICK commit force`.
pub(crate) fn replace(volume: String, words: &[String]) -> Result<Growth, String> {
    match words {
        [from, to, commit, force] if commit == "commit" && force == "force" => {
            Ok(Growth::Replace(Replace { volume, from: one(from)?, to: one(to)?, force: true }))
        }
        _ => Err(String::new()),
    }
}

/// `SOURCE-BRICK start` or `SOURCE-BRICK NEW-BRICK commit [force]`.
pub(crate) fn reset(volume: String, words: &[String]) -> Result<Growth, String> {
    let (front, force) = without_last(words, "force");
    match front {
        [from, start] if start == "start" && !force => Ok(Growth::ResetStart(ResetStart { volume, brick: one(from)? })),
        [from, to, commit] if commit == "commit" => {
            Ok(Growth::ResetCommit(ResetCommit { volume, from: one(from)?, to: one(to)?, force }))
        }
        _ => Err(String::new()),
    }
}

/// `fix-layout start`, `start [force] [path=DIR] [dry-run]`, `status`, `stop`, `pause`, `resume`.
pub(crate) fn rebalance(volume: String, words: &[String]) -> Result<Growth, String> {
    let control = |control| Ok(Growth::RebalanceControl(Steer { volume: volume.clone(), control }));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["status"] => Ok(Growth::RebalanceStatus(GetStatus { volume })),
        ["stop"] => control(Control::Stop),
        ["pause"] => control(Control::Pause),
        ["resume"] => control(Control::Resume),
        ["fix-layout", "start", details @ ..] => start(volume, Mode::FixLayout, details),
        ["start", "force", details @ ..] => start(volume, Mode::Force, details),
        ["start", details @ ..] => start(volume, Mode::Rebalance, details),
        _ => Err(String::new()),
    }
}

fn start(volume: String, mode: Mode, details: &[&str]) -> Result<Growth, String> {
    let mut start = Start { volume, mode, path: None, dry_run: false };
    for detail in details {
        match detail.strip_prefix("path=") {
            Some(path) if path.starts_with('/') => start.path = Some(path.to_owned()),
            Some(path) => return Err(format!("{path}: the path must be absolute, from the volume's root")),
            None if *detail == "dry-run" => start.dry_run = true,
            None => return Err(String::new()),
        }
    }
    Ok(Growth::RebalanceStart(start))
}

/// The words without a last `word`, and whether it was there.
fn without_last<'a>(words: &'a [String], word: &str) -> (&'a [String], bool) {
    match words.split_last() {
        Some((last, front)) if last == word => (front, true),
        _ => (words, false),
    }
}

/// The number after `word`, when the words begin with it, and the words that follow.
fn count<'a>(words: &'a [String], word: &str) -> Result<(Option<u32>, &'a [String]), String> {
    match words {
        [first, number, rest @ ..] if first == word => match number.parse() {
            Ok(number) => Ok((Some(number), rest)),
            Err(_) => Err(format!("{word} takes a number, not {number}")),
        },
        _ => Ok((None, words)),
    }
}

fn one(word: &str) -> Result<BrickRef, String> {
    brick(word).map_err(|error| error.to_string())
}

fn bricks(words: &[String]) -> Result<Vec<BrickRef>, String> {
    let bricks = words.iter().map(|word| one(word)).collect::<Result<Vec<_>, _>>()?;
    if bricks.is_empty() {
        return Err(String::new());
    }
    match bricks.iter().enumerate().find(|(at, brick)| bricks[..*at].contains(brick)) {
        Some((_, brick)) => Err(format!("Found duplicate exports {brick}")),
        None => Ok(bricks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn add_brick_takes_a_replica_count_and_force() {
        let Ok(Growth::Add(add)) = add("v".into(), &words("replica 3 arbiter 1 a:/x b:/y force")) else { panic!() };
        assert_eq!((add.replica, add.arbiter, add.force, add.bricks.len()), (Some(3), 1, true, 2));
    }

    #[test]
    fn a_brick_named_twice_and_no_brick_at_all_are_refused() {
        assert_eq!(add("v".into(), &words("a:/x a:/x")), Err("Found duplicate exports a:/x".into()));
        assert_eq!(add("v".into(), &words("force")), Err(String::new()));
        assert_eq!(remove("v".into(), &words("start")), Err(String::new()));
        assert_eq!(remove("v".into(), &[]), Err(String::new()));
    }

    #[test]
    fn replica_must_be_a_number() {
        assert_eq!(add("v".into(), &words("replica three a:/x")), Err("replica takes a number, not three".into()));
    }

    #[test]
    fn remove_brick_ends_with_what_to_do() {
        let check = |text: &str| remove("v".into(), &words(text));
        assert!(matches!(check("a:/x start"), Ok(Growth::RemoveStart(_))));
        assert!(matches!(check("a:/x commit"), Ok(Growth::RemoveCommit(RemoveCommit { force: false, .. }))));
        assert!(matches!(check("replica 2 a:/x force"), Ok(Growth::RemoveCommit(RemoveCommit { force: true, .. }))));
        assert!(check("a:/x").is_err());
        assert!(check("replica 2 a:/x status").is_err());
    }

    #[test]
    fn rebalance_starts_below_a_path_and_dry() {
        let Ok(Growth::RebalanceStart(start)) = rebalance("v".into(), &words("start force path=/user/a dry-run"))
        else {
            panic!()
        };
        assert_eq!((start.mode, start.path.as_deref(), start.dry_run), (Mode::Force, Some("/user/a"), true));
        assert!(rebalance("v".into(), &words("start path=user")).is_err());
        assert!(rebalance("v".into(), &words("fix-layout")).is_err());
    }

    #[test]
    fn replace_brick_wants_commit_force() {
        assert_eq!(replace("v".into(), &words("a:/x b:/y commit")), Err(String::new()));
        assert!(replace("v".into(), &words("a:/x b:/y commit force")).is_ok());
    }
}
