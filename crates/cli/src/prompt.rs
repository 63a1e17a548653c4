//! Questions before commands that cannot be taken back (GlusterFS `cli/src/cli.c: cli_get_user_answer`).

use std::io::{BufRead, Write};

use mortar_api::volume::Layout;

use crate::Command;
use crate::face::gluster_growth;

/// What to ask before the command, if anything; GlusterFS's words.
pub fn question(command: &Command) -> Option<&'static str> {
    match command {
        Command::VolumeStop { .. } => Some("Stopping volume will make its data inaccessible. Do you want to continue?"),
        Command::VolumeDelete { .. } => {
            Some("Deleting volume will erase all information about the volume. Do you want to continue?")
        }
        Command::PeerDetach { .. } => Some(
            "All clients mounted through the peer which is getting detached need to be remounted using one of the other \
             active peers in the trusted storage pool to ensure client gets notification on any changes done on the \
             gluster configuration and if the same has been done do you want to proceed?",
        ),
        Command::VolumeCreate(create)
            if matches!(create.layout, Layout::Replicate { replica: 2, .. }) && !create.force =>
        {
            Some(
                "Replica 2 volumes are prone to split-brain. Use Arbiter or Replica 3 to avoid this. See: \
                 http://docs.gluster.org/en/latest/Administrator-Guide/Split-brain-and-ways-to-deal-with-it/.\n\
                 Do you still want to continue?\n",
            )
        }
        Command::PoolRecover => Some(
            "Recovering makes this node the whole pool. The other members must never come back as they are: their \
             copies of the configuration would disagree with this one. Are they lost for good?",
        ),
        Command::Growth(growth) => gluster_growth::question(growth),
        _ => None,
    }
}

/// The answer to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    Yes,
    No,
    /// Neither; the command is not run.
    Invalid,
}

/// Asks on `out` and reads one line of `input`. The end of the input means no.
pub fn ask(question: &str, input: &mut dyn BufRead, out: &mut dyn Write) -> std::io::Result<Reply> {
    write!(out, "{question} (y/n) ")?;
    out.flush()?;
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Ok(Reply::No);
    }
    Ok(match line.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Reply::Yes,
        "n" | "no" => Reply::No,
        _ => Reply::Invalid,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str) -> (Reply, String) {
        let mut out = Vec::new();
        let reply = ask("Sure?", &mut line.as_bytes(), &mut out).unwrap();
        (reply, String::from_utf8(out).unwrap())
    }

    #[test]
    fn answers_are_read_without_regard_to_case() {
        assert_eq!(check("Y\n"), (Reply::Yes, "Sure? (y/n) ".into()));
        assert_eq!(check("No\n").0, Reply::No);
        assert_eq!(check("").0, Reply::No);
        assert_eq!(check("maybe\n").0, Reply::Invalid);
    }
}
