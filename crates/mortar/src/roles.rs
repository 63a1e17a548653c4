//! Each role's entry: words in, exit code out.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use mortar_cli::grammar::{Brick, BrickTask, BrickWords, Heald, Rebalance, Top, Words};
use mortar_cli::run::{Face, Next, print, run};
use mortar_cli::{Output, documents};

use mortar_mount::helper::{Asked, HelperError};
use mortar_mount::options::Options;
use mortar_mount::{glusterfs_args, helper};
use mortar_volume::role;

use crate::{daemon, glusterd_args, prepare, quickstart};

fn finish(output: &Output) -> ExitCode {
    print(output);
    ExitCode::from(output.code)
}

/// `name: error`, and exit code 1.
fn fail(name: &str, error: &dyn std::fmt::Display) -> ExitCode {
    finish(&Output::fail(format!("{name}: {error}"), 1))
}

fn small_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// `mortar …` and `gluster …`.
pub(crate) fn command_line(face: Face, words: Vec<String>) -> ExitCode {
    let next = match small_runtime() {
        Ok(runtime) => runtime.block_on(run(face, words)),
        Err(error) => return fail("mortar", &error),
    };
    match next {
        Next::Print(output) => finish(&output),
        Next::Role(role) => play(*role),
    }
}

/// `glusterd …`: GlusterFS's options, our daemon.
pub(crate) fn glusterd(words: &[String]) -> ExitCode {
    let Top::Daemon(defaults) = Words::parse_from(["mortar", "daemon"]).top else {
        return fail("glusterd", &"the grammar has lost the daemon");
    };
    match glusterd_args::parse(words, defaults) {
        Ok(glusterd_args::Asked::Run(options)) => daemon::run(&options),
        Ok(glusterd_args::Asked::Version) => finish(&mortar_cli::face::gluster::version()),
        Err(error) => finish(&Output::fail(error.to_string(), 255)),
    }
}

fn play(role: Top) -> ExitCode {
    match role {
        Top::Daemon(options) => daemon::run(&options),
        Top::Brick(BrickWords { task: Some(BrickTask::Prepare(words)), .. }) => match prepare::run(&words) {
            Ok(output) => finish(&output),
            Err(error) => fail("mortar brick prepare", &error),
        },
        Top::Brick(BrickWords { serve: Some(options), .. }) => brick(&options),
        Top::Brick(_) => fail("mortar brick", &"nothing to do; see `mortar brick prepare --help`"),
        Top::Heald(options) => heald(options),
        Top::Rebalance(options) => rebalance(options),
        Top::Mount(mount) => mount_helper("mount.mortar", &mount.words),
        Top::Quickstart(options) => {
            let runtime = match tokio::runtime::Runtime::new() {
                Ok(runtime) => runtime,
                Err(error) => return fail("mortar quickstart", &error),
            };
            match runtime.block_on(quickstart::run(&options)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail("mortar quickstart", &format!("{error:#}")),
            }
        }
        Top::Completions { shell } => {
            finish(&Output::out(String::from_utf8_lossy(&documents::completions(shell)).into_owned()))
        }
        Top::Man { folder } => match documents::man_pages(&folder) {
            Ok(pages) => finish(&Output::out(format!("{} pages written to {}\n", pages.len(), folder.display()))),
            Err(error) => fail("mortar man", &format!("{}: {error}", folder.display())),
        },
        Top::Peer(_) | Top::Pool(_) | Top::Plan { .. } | Top::Volume(_) | Top::System(_) => {
            fail("mortar", &"a command was taken for a role")
        }
    }
}

fn brick(words: &Brick) -> ExitCode {
    let options = mortar_brick::run::Options {
        listen: words.listen,
        port: words.port,
        control: Some(words.control.clone()),
        pid_file: Some(words.pid_file.clone()),
        log_file: Some(words.log_file.clone()),
        node_uuid: Some(words.node_uuid),
        ..mortar_brick::run::Options::new(&words.volfile)
    };
    match mortar_brick::run::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail("mortar brick", &error),
    }
}

fn role_options(server: String, control: PathBuf, pid_file: PathBuf, log_file: PathBuf) -> role::Options {
    role::Options { server, control, pid_file: Some(pid_file), log_file: Some(log_file) }
}

fn play_until_ended(name: &str, role: impl Future<Output = Result<(), role::Error>>) -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(name, &error),
    };
    match runtime.block_on(role) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(name, &error),
    }
}

fn heald(words: Heald) -> ExitCode {
    let options = mortar_volume::heal::daemon::Options {
        role: role_options(words.server, words.control, words.pid_file, words.log_file),
        volumes: words.volumes,
        node_uuid: words.node_uuid,
    };
    play_until_ended("mortar heald", mortar_volume::heal::daemon::run(options))
}

fn rebalance(words: Rebalance) -> ExitCode {
    let options = mortar_volume::rebalance::process::Options {
        role: role_options(words.server, words.control, words.pid_file, words.log_file),
        volume: words.volume,
        mode: words.mode,
        task: words.task,
        node_uuid: words.node_uuid,
        path: words.path,
        dry_run: words.dry_run,
        checkpoint: words.checkpoint,
    };
    play_until_ended("mortar rebalance", mortar_volume::rebalance::process::run(options))
}

/// `mount.glusterfs SOURCE DIR [-o OPTIONS]`, as mount(8) calls it, and `mortar mount` with the same words.
pub(crate) fn mount_helper(name: &str, words: &[String]) -> ExitCode {
    mount_asked(name, helper::parse(name, words))
}

/// `glusterfs --volfile-server=… MOUNT`.
pub(crate) fn glusterfs(words: &[String]) -> ExitCode {
    mount_asked("glusterfs", glusterfs_args::parse(words))
}

fn mount_asked(name: &str, asked: Result<Asked, HelperError>) -> ExitCode {
    let mounted = asked.and_then(|asked| match asked {
        Asked::Mount(options) => mount(name, &options),
        Asked::Version => Ok(mortar_cli::face::gluster::version()),
        Asked::Usage(text) => Ok(Output::out(text)),
    });
    finish(&mounted.unwrap_or_else(|error| Output::fail(&error.message, error.exit_code)))
}

fn mount(name: &str, options: &Options) -> Result<Output, HelperError> {
    if !options.remount {
        helper::check_directory(name, &options.directory)?;
    }
    match mortar_mount::run::run(options) {
        Ok(()) => Ok(Output::default()),
        Err(error) => Err(HelperError::new(1, format!("{name}: {error}"))),
    }
}
