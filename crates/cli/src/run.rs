//! From the words on the command line to what is printed: the thin shell around the pure parts.

use std::io::Write;

use crate::client::Client;
use crate::command::{Asked, Misuse, parse};
use crate::execute::{Answer, execute};
use crate::face::{self, Output, gluster, plain, xml};
use crate::globals::{Format, Globals, Instead};
use crate::grammar::Top;
use crate::prompt::{self, Reply};
use crate::{Command, client::CallError};

/// Under which name the command line was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    Mortar,
    Gluster,
}

/// What is left to do after the words were read.
pub enum Next {
    /// Print this and exit.
    Print(Output),
    /// One of the binary's own roles, which its caller runs.
    Role(Box<Top>),
}

/// Reads the words after the program's name and, for a command, asks the daemon.
pub async fn run(face: Face, words: Vec<String>) -> Next {
    // The roles take options of their own, which are not the command line's.
    if face == Face::Mortar && words.first().is_some_and(|word| is_role(word)) {
        return role(&words);
    }
    let (globals, words) = match Globals::extract(words) {
        Ok(extracted) => extracted,
        Err(unknown) => {
            return Next::Print(match face {
                Face::Gluster => gluster::unknown_option(&unknown.to_string()),
                Face::Mortar => Output::fail(format!("mortar: {unknown}\nSee `mortar --help`."), 2),
            });
        }
    };
    if let Some(instead) = globals.instead {
        return Next::Print(instead_of_command(face, instead, &words));
    }
    match parse(&words, face == Face::Mortar) {
        Ok(Asked::Role(role)) => Next::Role(role),
        Ok(Asked::Plan(planned)) => Next::Print(face::plan::render(globals.format, &planned)),
        Ok(Asked::Command(command)) => Next::Print(perform(face, &globals, &command).await),
        Err(misuse) => Next::Print(match face {
            Face::Gluster if matches!(&misuse, Misuse::Incomplete) && words == ["help"] => gluster::usage(),
            Face::Gluster => gluster::misuse(&misuse),
            Face::Mortar if words.is_empty() => help(&words),
            Face::Mortar => plain::misuse(&misuse),
        }),
    }
}

fn is_role(word: &str) -> bool {
    matches!(word, "quickstart" | "daemon" | "mount" | "brick" | "heald" | "rebalance" | "completions" | "man")
}

/// A role's words are plain clap: its options, its help, its complaints.
fn role(words: &[String]) -> Next {
    use clap::Parser;
    let args = std::iter::once("mortar".to_owned()).chain(words.iter().cloned());
    match crate::grammar::Words::try_parse_from(args) {
        Ok(parsed) => Next::Role(Box::new(parsed.top)),
        Err(error) => {
            let text = error.to_string();
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            Next::Print(if error.use_stderr() {
                Output { stderr: text, code, ..Output::default() }
            } else {
                Output::out(text)
            })
        }
    }
}

fn help(words: &[String]) -> Output {
    use clap::CommandFactory;
    let mut command = crate::grammar::Words::command();
    command.build();
    for word in words {
        match command.find_subcommand(word) {
            Some(next) => command = next.clone(),
            None => break,
        }
    }
    Output::out(command.render_long_help().to_string())
}

fn instead_of_command(face: Face, instead: Instead, words: &[String]) -> Output {
    match (face, instead) {
        (_, Instead::PrintLogdir) => Output::out("/var/log/mortar\n"),
        (_, Instead::PrintStatedumpdir) => Output::out("/run/mortar\n"),
        (Face::Gluster, Instead::Help) => gluster::usage(),
        (Face::Mortar, Instead::Help) => help(words),
        (Face::Gluster, Instead::Version) => gluster::version(),
        (Face::Mortar, Instead::Version) => Output::out(format!("mortar {}\n", env!("CARGO_PKG_VERSION"))),
    }
}

/// A comparison reads the whole volume.
const VERIFY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 3600);

async fn perform(face: Face, globals: &Globals, command: &Command) -> Output {
    if !globals.script
        && let Some(question) = prompt::question(command)
    {
        match confirm(question) {
            Ok(Reply::Yes) => {}
            Ok(Reply::No) => return Output::default(),
            Ok(Reply::Invalid) => return Output::out("Invalid input, please enter y/n\n"),
            Err(error) => return Output::fail(format!("cannot ask for confirmation: {error}"), 1),
        }
    }
    let timeout = match command {
        Command::VolumeVerify { .. } => globals.timeout.max(VERIFY_TIMEOUT),
        _ => globals.timeout,
    };
    let client = Client::new(&globals.socket, timeout);
    let result = execute(&client, command).await;
    word(face, globals.format, command, &result)
}

fn confirm(question: &str) -> std::io::Result<Reply> {
    prompt::ask(question, &mut std::io::stdin().lock(), &mut std::io::stdout().lock())
}

/// The wording of a result.
pub fn word(face: Face, format: Format, command: &Command, result: &Result<Answer, CallError>) -> Output {
    match (format, face) {
        (Format::Xml, _) => xml::render(command, result),
        (Format::Json, _) => json(result),
        (Format::Text, Face::Gluster) => gluster::render(command, result),
        (Format::Text, Face::Mortar) => plain::render(command, result),
    }
}

/// The API's own shapes: the answer, or `{"error": {"kind", "message", "hint"}}` with exit code 1.
fn json(result: &Result<Answer, CallError>) -> Output {
    let (value, code) = match result {
        Ok(answer) => (serde_json::to_value(answer), 0),
        Err(CallError::Refused(refusal)) => {
            (serde_json::to_value(refusal).map(|error| serde_json::json!({ "error": error })), 1)
        }
        Err(error) => (Ok(serde_json::json!({ "error": { "kind": "unreachable", "message": error.to_string() } })), 1),
    };
    match value.and_then(|value| serde_json::to_string_pretty(&value)) {
        Ok(text) => Output { stdout: text + "\n", stderr: String::new(), code },
        Err(error) => Output::fail(format!("mortar: {error}"), 1),
    }
}

/// Writes an output to the process's streams. A closed pipe is the reader's choice, not an error.
pub fn print(output: &Output) {
    let _ = std::io::stdout().write_all(output.stdout.as_bytes());
    let _ = std::io::stdout().flush();
    let _ = std::io::stderr().write_all(output.stderr.as_bytes());
}
