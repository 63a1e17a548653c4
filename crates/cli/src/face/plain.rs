//! `mortar` in text: tables, and what to do next.

use mortar_api::peer::{Members, Probed};
use mortar_api::volume::{ProcessKind, State, Volume, VolumeStatus};

use super::Output;
use super::gluster;
use super::gluster_status::{port, process_name};
use super::plain_growth;
use super::plain_heal;
use super::table::{row, table};
use super::volume_words::{brick_count, peer_state, state_text, type_text};
use crate::Command;
use crate::client::CallError;
use crate::command::{HealView, Misuse, StatusView};
use crate::execute::Answer;

/// Words that are no command: what is wrong, and how to find what is right.
pub fn misuse(misuse: &Misuse) -> Output {
    let text = match misuse {
        Misuse::UnknownWord { word, .. } => {
            format!("mortar: there is no command \"{word}\" here.\nSee `mortar --help`.")
        }
        Misuse::Incomplete => "mortar: the command is not complete.\nSee `mortar --help`.".to_owned(),
        Misuse::Usage { why, usage } if why.is_empty() => format!("Usage: mortar {usage}"),
        Misuse::Usage { why, usage } => format!("mortar: {why}\nUsage: mortar {usage}"),
    };
    Output::fail(text, 2)
}

/// The result of a command.
pub fn render(command: &Command, result: &Result<Answer, CallError>) -> Output {
    match result {
        Ok(answer) => success(command, answer),
        Err(error) => failure(error),
    }
}

fn failure(error: &CallError) -> Output {
    let hint = match error {
        CallError::NotRunning(_) => {
            Some("Start it with `mortar daemon` (as root), or try everything at once with `mortar quickstart`.")
        }
        CallError::TimedOut(_) => Some("Look at its log, /var/log/mortar/mortard.log, and try again."),
        CallError::Refused(refusal) => refusal.hint.as_deref(),
        CallError::Protocol(_) => Some("Are the daemon's version and this command's the same?"),
    };
    let hint = hint.map(|hint| format!("\n{hint}")).unwrap_or_default();
    Output::fail(format!("mortar: {error}{hint}"), 1)
}

fn success(command: &Command, answer: &Answer) -> Output {
    match (command, answer) {
        (Command::PeerProbe { host }, Answer::Probed(probed)) => Output::out(match probed {
            Probed::Added => format!("{host} is now in the pool. See `mortar pool list`.\n"),
            Probed::AlreadyMember => format!("{host} is in the pool already.\n"),
            Probed::Localhost => format!("{host} is this node.\n"),
        }),
        (Command::PeerDetach { host, .. }, _) => Output::out(format!("{host} has left the pool.\n")),
        (Command::PeerStatus | Command::PoolList, Answer::Members(members)) => Output::out(pool(members)),
        (Command::PoolRecover, _) => Output::out("This node is the whole pool now. Probe the others to add them.\n"),
        (Command::VolumeCreate(create), Answer::Changed(changed)) => {
            let warnings: String = changed.warnings.iter().map(|warning| format!("Note: {warning}\n")).collect();
            Output::out(format!(
                "Volume {name} created. Start it: mortar volume start {name}\n{warnings}",
                name = create.name
            ))
        }
        (Command::VolumeStart { name, .. }, _) => {
            Output::out(format!("Volume {name} started. Mount it: mount -t mortar HOST:/{name} DIR\n"))
        }
        (Command::VolumeStop { name, .. }, _) => Output::out(format!("Volume {name} stopped.\n")),
        (Command::VolumeDelete { name }, _) => {
            Output::out(format!("Volume {name} deleted. Its bricks still hold their files.\n"))
        }
        (Command::VolumeInfo { .. }, Answer::Volumes(volumes)) if volumes.is_empty() => {
            Output::out("No volumes. Create one: mortar volume create NAME replica 2 HOST:/PATH HOST2:/PATH\n")
        }
        (Command::VolumeInfo { .. }, Answer::Volumes(volumes)) => {
            Output::out(volumes.iter().map(volume_info).collect::<Vec<_>>().join("\n"))
        }
        (Command::VolumeStatus { view: StatusView::Processes, .. }, Answer::Status(volumes)) => {
            Output::out(volumes.iter().map(status).collect::<Vec<_>>().join("\n"))
        }
        (Command::VolumeGet { .. }, Answer::Options(options)) => {
            let mut rows = vec![row(&["OPTION", "VALUE", "SET"])];
            rows.extend(
                options
                    .iter()
                    .map(|option| row(&[&option.key, &option.value, if option.default { "default" } else { "yes" }])),
            );
            Output::out(table(&rows))
        }
        (Command::HealInfo { view: HealView::Entries, .. }, Answer::Pending(bricks)) => {
            Output::out(plain_heal::pending(bricks))
        }
        (Command::HealSettle { name, target, .. }, Answer::Settled(settled)) => {
            plain_heal::settled(name, settled, target.is_some())
        }
        (Command::VolumeVerify { name }, Answer::Verified(verified)) => plain_heal::verified(name, verified),
        (Command::Growth(growth), answer) => plain_growth::success(growth, answer)
            .map_or_else(|| gluster::render(command, &Ok(answer.clone())), Output::out),
        // Where GlusterFS's words say all there is to say, they serve here too.
        _ => gluster::render(command, &Ok(answer.clone())),
    }
}

fn pool(members: &Members) -> String {
    let mut rows = vec![row(&["HOST", "STATE", "CONNECTED", "VOTES", "UUID"])];
    for peer in &members.peers {
        let (_, state) = peer_state(peer.state);
        let connected = if peer.connected { "yes" } else { "no" };
        let votes = if peer.voter { "yes" } else { "no" };
        rows.push(row(&[&peer.hostname, state, connected, votes, &peer.uuid.to_string()]));
    }
    rows.push(row(&["localhost", "Peer in Cluster", "yes", "", &members.local.to_string()]));
    let mut text = table(&rows);
    if !members.freshness.quorum {
        text.push_str(
            "\nNo majority of the pool answers: what you see is this node's last knowledge, and the configuration\n\
             cannot be changed. Data is served all the same. Bring a member back, or see `mortar pool recover`.\n",
        );
    }
    text
}

fn volume_info(volume: &Volume) -> String {
    let mut text = format!(
        "Volume {} ({}, {})\n  id      {}\n  bricks  {}\n",
        volume.name,
        type_text(volume),
        state_text(volume.state),
        volume.id,
        brick_count(volume),
    );
    for brick in &volume.bricks {
        let arbiter = if brick.arbiter { " (arbiter)" } else { "" };
        text.push_str(&format!("    {}{arbiter}\n", brick.at));
    }
    text.push_str("  options\n");
    for (key, value) in &volume.options {
        text.push_str(&format!("    {key} = {value}\n"));
    }
    if volume.state != State::Started {
        text.push_str(&format!("Not started. Start it: mortar volume start {}\n", volume.name));
    }
    text
}

fn status(volume: &VolumeStatus) -> String {
    let mut rows = vec![row(&["PROCESS", "ONLINE", "PORT", "PID"])];
    for process in &volume.processes {
        let online = if process.online { "yes" } else { "NO" };
        let pid = process.pid.filter(|_| process.online).map_or_else(String::new, |pid| pid.to_string());
        rows.push(row(&[&process_name(process), online, &port(process), &pid]));
    }
    let mut text = format!("Volume {}\n{}", volume.name, table(&rows));
    let down = volume.processes.iter().any(|process| process.kind == ProcessKind::Brick && !process.online);
    if down {
        text.push_str(&format!(
            "A brick is down. The others serve, and it is healed when it returns. Look at its log on its host, or try:\n\
             mortar volume start {} force\n",
            volume.name
        ));
    }
    text
}
