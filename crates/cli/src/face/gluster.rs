//! `gluster` in text: GlusterFS's words, streams and exit codes (`cli/src/cli-rpc-ops.c`).

use std::fmt::Write;

use mortar_api::peer::{Members, Probed};
use mortar_api::volume::{OptionValue, Volume};

use super::Output;
use super::gluster_growth;
use super::gluster_heal;
use super::gluster_split_brain;
use super::gluster_status;
use super::plain_heal;
use super::volume_words::{brick_count, peer_state, state_text, type_text};
use crate::Command;
use crate::client::CallError;
use crate::command::Misuse;
use crate::execute::Answer;

/// GlusterFS's words when its daemon is not there, for every command.
pub const NOT_RUNNING: &str = "Connection failed. Please check if gluster daemon is operational.\n";

const USAGE: &str = "
 Usage: gluster [options] <help> <peer> <pool> <volume>
 Options:
 --help  Shows the help information
 --version  Shows the version
 --print-logdir  Shows the log directory
 --print-statedumpdir Shows the state dump directory

";

/// `gluster --help` and the tail of complaints about unknown words.
pub fn usage() -> Output {
    Output::out(USAGE)
}

/// `gluster --version`; scripts take the second word of the first line.
pub fn version() -> Output {
    Output::out(format!(
        "glusterfs {}\nMortar {}, which speaks GlusterFS.\nLicence LGPL-3.0-or-later: free software, without any warranty.\n",
        crate::GLUSTER_VERSION,
        env!("CARGO_PKG_VERSION"),
    ))
}

/// An unknown `--option`.
pub fn unknown_option(text: &str) -> Output {
    Output { stdout: format!("{text}\n{USAGE}"), stderr: String::new(), code: 255 }
}

/// Words that are no command.
pub fn misuse(misuse: &Misuse) -> Output {
    match misuse {
        Misuse::UnknownWord { word, position } => Output {
            stdout: format!("unrecognized word: {word} (position {position})\n{USAGE}"),
            stderr: String::new(),
            code: 1,
        },
        Misuse::Incomplete => {
            Output { stdout: format!("unrecognized command\n{USAGE}"), stderr: String::new(), code: 1 }
        }
        Misuse::Usage { why, usage } => {
            let why = if why.is_empty() { String::new() } else { format!("{why}\n") };
            Output { stdout: String::new(), stderr: format!("{why}\nUsage:\n{usage}\n\n"), code: 1 }
        }
    }
}

/// The result of a command.
pub fn render(command: &Command, result: &Result<Answer, CallError>) -> Output {
    match result {
        Ok(answer) => success(command, answer),
        Err(CallError::NotRunning(_)) => Output { stdout: NOT_RUNNING.to_owned(), stderr: String::new(), code: 1 },
        Err(CallError::TimedOut(_)) => Output::fail("Error : Request timed out", 1),
        Err(error) => failure(command, &error.to_string()),
    }
}

const MISFIT: &str = "the daemon's answer does not fit the command; are its version and this one's the same?";

fn success(command: &Command, answer: &Answer) -> Output {
    match (command, answer) {
        (Command::Growth(growth), answer) => {
            gluster_growth::success(growth, answer).unwrap_or_else(|| Output::fail(MISFIT, 1))
        }
        (Command::PeerProbe { host }, Answer::Probed(probed)) => Output::out(match probed {
            Probed::Added => "peer probe: success\n".to_owned(),
            Probed::AlreadyMember => format!("peer probe: Host {host} port 24007 already in peer list\n"),
            Probed::Localhost => "peer probe: Probe on localhost not needed\n".to_owned(),
        }),
        (Command::PeerDetach { .. }, _) => Output::out("peer detach: success\n"),
        (Command::PeerStatus, Answer::Members(members)) => Output::out(peer_status(members)),
        (Command::PoolList, Answer::Members(members)) => Output::out(pool_list(members)),
        (Command::PoolRecover, _) => Output::out("pool recover: success\n"),
        (Command::VolumeCreate(create), _) => {
            Output::out(format!("volume create: {}: success: please start the volume to access data\n", create.name))
        }
        (Command::VolumeStart { name, .. }, _) => Output::out(format!("volume start: {name}: success\n")),
        (Command::VolumeStop { name, .. }, _) => Output::out(format!("volume stop: {name}: success\n")),
        (Command::VolumeDelete { name }, _) => Output::out(format!("volume delete: {name}: success\n")),
        (Command::VolumeInfo { .. }, Answer::Volumes(volumes)) if volumes.is_empty() => {
            Output::remark("No volumes present")
        }
        (Command::VolumeInfo { .. }, Answer::Volumes(volumes)) => {
            Output::out(volumes.iter().map(volume_info).collect::<String>())
        }
        (Command::VolumeList, Answer::Names(names)) if names.is_empty() => {
            Output::remark("No volumes present in cluster")
        }
        (Command::VolumeList, Answer::Names(names)) => {
            Output::out(names.iter().fold(String::new(), |text, name| text + name + "\n"))
        }
        (Command::VolumeStatus { view, .. }, Answer::Status(volumes)) => gluster_status::render(*view, volumes),
        (Command::VolumeSet { .. }, _) => Output::out("volume set: success\n"),
        (Command::VolumeReset { .. }, _) => Output::out("volume reset: success: reset volume successful\n"),
        (Command::VolumeGet { .. }, Answer::Options(options)) => Output::out(options_table(options)),
        (Command::VolumeSetHelp, Answer::OptionHelp(help)) => {
            Output::out(help.iter().fold(String::new(), |text, (key, default)| {
                text + &format!("Option: {key}\nDefault Value: {default}\n\n")
            }))
        }
        (Command::Heal { name, action }, _) => Output::out(gluster_heal::started(name, *action)),
        (Command::HealInfo { view, .. }, Answer::Pending(bricks)) => Output::out(gluster_heal::info(*view, bricks)),
        (Command::HealCount { name, replica: None }, Answer::Pending(bricks)) => {
            Output::out(gluster_heal::count(name, bricks))
        }
        (Command::HealCount { name, replica: Some(brick) }, Answer::Pending(bricks)) => {
            gluster_heal::count_of_replica(name, brick, bricks)
        }
        (Command::HealSettle { rule, target: Some(_), .. }, Answer::Settled(settled)) => {
            gluster_split_brain::one(rule, settled)
        }
        (Command::HealSettle { rule, .. }, Answer::Settled(settled)) => {
            Output::out(gluster_split_brain::all(rule, settled))
        }
        // GlusterFS has no such command.
        (Command::VolumeVerify { name }, Answer::Verified(verified)) => plain_heal::verified(name, verified),
        (Command::HealStatistics { name }, Answer::Crawls(bricks)) => {
            Output::out(gluster_split_brain::statistics(name, bricks))
        }
        (Command::UuidGet, Answer::Text(text)) => Output::out(format!("UUID: {text}\n")),
        (_, Answer::Text(text)) => Output::out(text.clone()),
        _ => Output::fail(MISFIT, 1),
    }
}

fn failure(command: &Command, why: &str) -> Output {
    let line = match command {
        Command::PeerProbe { .. } => format!("peer probe: failed: {why}"),
        Command::PeerDetach { .. } => format!("peer detach: failed: {why}"),
        Command::PoolRecover => format!("pool recover: failed: {why}"),
        Command::VolumeCreate(create) => format!("volume create: {}: failed: {why}", create.name),
        Command::VolumeStart { name, .. } => format!("volume start: {name}: failed: {why}"),
        Command::VolumeStop { name, .. } => format!("volume stop: {name}: failed: {why}"),
        Command::VolumeDelete { name } => format!("volume delete: {name}: failed: {why}"),
        Command::VolumeSet { .. } => format!("volume set: failed: {why}"),
        Command::VolumeGet { .. } => format!("volume get option: failed: {why}"),
        Command::VolumeReset { .. } => format!("volume reset: failed: {why}"),
        Command::Growth(growth) => gluster_growth::failure(growth, why),
        Command::Heal { name, action } => gluster_heal::not_started(name, *action, why),
        // GlusterFS's heal info is a program of its own: it complains on stdout and exits 254.
        Command::HealInfo { .. } | Command::HealSettle { .. } => {
            return Output { stdout: format!("{why}\nVolume heal failed.\n"), stderr: String::new(), code: 254 };
        }
        _ => why.to_owned(),
    };
    Output::fail(line, 1)
}

fn peer_status(members: &Members) -> String {
    let mut text = format!("Number of Peers: {}\n", members.peers.len());
    for peer in &members.peers {
        let connected = if peer.connected { "Connected" } else { "Disconnected" };
        let (_, state) = peer_state(peer.state);
        let _ = write!(text, "\nHostname: {}\nUuid: {}\nState: {state} ({connected})\n", peer.hostname, peer.uuid);
        if !peer.other_names.is_empty() {
            let _ = writeln!(text, "Other names:\n{}", peer.other_names.join("\n"));
        }
    }
    text
}

/// Columns are separated by one tab: gluster-ansible splits there.
fn pool_list(members: &Members) -> String {
    let width = members.peers.iter().map(|peer| peer.hostname.len()).max().unwrap_or(0).max("localhost".len());
    let mut text = format!("UUID\t\t\t\t\t{:<width$}\tState\n", "Hostname ");
    for peer in &members.peers {
        let connected = if peer.connected { "Connected" } else { "Disconnected" };
        let _ = writeln!(text, "{}\t{:<width$}\t{connected} ", peer.uuid, peer.hostname);
    }
    let _ = writeln!(text, "{}\t{:<width$}\tConnected ", members.local, "localhost");
    text
}

fn volume_info(volume: &Volume) -> String {
    let mut text = format!(
        " \nVolume Name: {}\nType: {}\nVolume ID: {}\nStatus: {}\nSnapshot Count: {}\nNumber of Bricks: {}\nTransport-type: tcp\nBricks:\n",
        volume.name,
        type_text(volume),
        volume.id,
        state_text(volume.state),
        volume.snapshot_count,
        brick_count(volume),
    );
    for (at, brick) in volume.bricks.iter().enumerate() {
        let arbiter = if brick.arbiter { " (arbiter)" } else { "" };
        let _ = writeln!(text, "Brick{}: {}{arbiter}", at + 1, brick.at);
    }
    text.push_str("Options Reconfigured:\n");
    for (key, value) in &volume.options {
        let _ = writeln!(text, "{key}: {value}");
    }
    text
}

fn options_table(options: &[OptionValue]) -> String {
    let mut text = format!("{:<40} {:<39}\n{:<40} {:<39}\n", "Option", "Value", "------", "-----");
    for option in options {
        let _ = writeln!(text, "{:<40} {:<39}", option.key, shown_value(option));
    }
    text
}

/// The value as `volume get` shows it.
pub(super) fn shown_value(option: &OptionValue) -> String {
    if option.default { format!("{} (DEFAULT)", option.value) } else { option.value.clone() }
}
