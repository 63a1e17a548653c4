//! Starting the node's daemon: in the foreground, or in the background once it answers.
//!
//! The background is the same program started again with `--no-daemon`, so that nothing is forked with threads around.
//! Its standard output is a pipe to the starter until it says "ready"; what it says before that is why it did not start.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};

use mortar_cli::grammar::Daemon;

/// Set for the background process: it detaches from the terminal and reports on standard output.
const DETACHED: &str = "MORTAR_DAEMON_DETACHED";
const READY: &str = "ready";

/// Runs the daemon as asked.
pub(crate) fn run(options: &Daemon) -> ExitCode {
    let done = if options.no_daemon || std::env::var_os(DETACHED).is_some() {
        foreground(options)
    } else {
        background().map(ExitCode::from)
    };
    done.unwrap_or_else(|error| {
        // The background process's standard error is the starter's.
        eprintln!("mortard: {error:#}");
        ExitCode::FAILURE
    })
}

/// Starts this program again without a terminal; 0 when it answers.
fn background() -> Result<u8> {
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_else(|| "mortard".into());
    let mut child = Command::new(std::env::current_exe()?)
        .arg0(name)
        .args(words)
        .env(DETACHED, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .current_dir("/")
        .spawn()
        .context("start in the background")?;
    let pipe = child.stdout.take().context("the pipe that was asked for")?;
    for line in BufReader::new(pipe).lines() {
        if line? == READY {
            return Ok(0);
        }
    }
    let status = child.wait()?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0).unwrap_or(1))
}

fn foreground(options: &Daemon) -> Result<ExitCode> {
    let detached = std::env::var_os(DETACHED).is_some();
    if detached {
        rustix::process::setsid().context("leave the terminal")?;
    }
    std::fs::create_dir_all(&options.log_dir)
        .with_context(|| format!("the log folder {} cannot be made", options.log_dir.display()))?;
    let level = options.log_level.parse().map_err(|error| anyhow::anyhow!("{error}"))?;
    let log = options.log_dir.join("mortard.log");
    mortar_observe::init(Some(&log), level).with_context(|| format!("the log {} cannot be written", log.display()))?;
    std::fs::create_dir_all(&options.run_dir)
        .with_context(|| format!("the run folder {} cannot be made", options.run_dir.display()))?;
    let pid_file = options.run_dir.join("mortard.pid");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()?;
    let options = mortar_pool::Options {
        data_dir: options.data_dir.clone(),
        run_dir: options.run_dir.clone(),
        log_dir: options.log_dir.clone(),
        listen: options.listen,
        port: options.port,
        peer_port: options.peer_port,
        moves_files: true,
        ..mortar_pool::Options::default()
    };
    runtime.block_on(mortar_pool::run(options, move || {
        // Only now: before it, another daemon may hold the ports, and the file is that one's.
        if let Err(error) = std::fs::write(&pid_file, format!("{}\n", std::process::id())) {
            eprintln!("mortard: {}: {error}", pid_file.display());
        }
        ready(detached);
    }))?;
    Ok(ExitCode::SUCCESS)
}

/// Tells the starter, then lets go of its terminal: a caller that reads our output until its end must get one.
fn ready(detached: bool) {
    if !detached {
        return;
    }
    let _ = writeln!(std::io::stdout(), "{READY}");
    let _ = std::io::stdout().flush();
    if let Ok(null) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}
