//! `mortar brick prepare`: shows the plan, asks, and performs it.

use std::io::{Write, stderr, stdin, stdout};

use mortar_cli::Output;
use mortar_cli::grammar::{BrickFileSystem, Prepare};
use mortar_cli::prompt::{self, Reply};
use mortar_prepare::request::{BadSpare, FileSystem};
use mortar_prepare::{Plan, Refusal, Request, Step, apply, plan, probe, words};

/// Why the disk is not, or not wholly, prepared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("--spare: {0}")]
    Spare(#[from] BadSpare),
    #[error("only root may prepare disks")]
    NotRoot,
    #[error(transparent)]
    Probe(#[from] probe::Error),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("{0}")]
    Missing(String),
    #[error("the device changed while the question was open. Nothing was done; look again")]
    Changed,
    #[error(transparent)]
    Apply(#[from] apply::Error),
    #[error("cannot ask for confirmation: {0}. Say --yes to go on without")]
    Ask(std::io::Error),
}

fn request(words: &Prepare) -> Result<Request, Error> {
    let request = Request {
        device: words.device.clone(),
        lvm: if words.lvm { Some(words.spare.parse()?) } else { None },
        file_system: match words.fs {
            BrickFileSystem::Ext4 => FileSystem::Ext4,
            BrickFileSystem::Xfs => FileSystem::Xfs,
        },
        mount: words.mount.components().collect(),
        brick: words.brick.components().collect(),
        force: words.force,
        fstab: words.fstab.clone(),
    };
    request.check().map_err(Refusal::from)?;
    Ok(request)
}

/// Runs the command. Declined: nothing is done and the exit code is 1, so that a script does not go on.
pub(crate) fn run(words: &Prepare) -> Result<Output, Error> {
    let request = request(words)?;
    if !rustix::process::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let facts = probe::probe(&request)?;
    let uuid = uuid::Uuid::new_v4().to_string();
    let planned = plan(&request, &facts, &uuid)?;
    let described = words::describe(&planned, &facts.disk.node.path, facts.disk.node.size_bytes);
    if planned.steps.is_empty() {
        return Ok(Output::out(described));
    }
    let missing = words::missing(&planned.missing);
    if words.dry_run {
        let missing = missing.map(|missing| format!("Before that: {missing}\n")).unwrap_or_default();
        return Ok(Output::out(format!("{described}{missing}Nothing was done (--dry-run).\n")));
    }
    say(&described);
    if let Some(missing) = missing {
        return Err(Error::Missing(missing));
    }
    if !words.yes && !confirmed(&planned)? {
        return Ok(Output::fail("Nothing was done.", 1));
    }
    // The answer was given for what was shown. Somebody may have mounted or formatted the device since.
    if probe::probe(&request)? != facts {
        return Err(Error::Changed);
    }
    apply::apply(&planned.steps, &mut |step: &Step| {
        let _ = writeln!(stderr(), "{step}");
    })?;
    Ok(Output::out(format!("Prepared. The brick's folder: {}\n", planned.brick.display())))
}

fn say(text: &str) {
    let _ = stdout().write_all(text.as_bytes());
    let _ = stdout().flush();
}

fn confirmed(planned: &Plan) -> Result<bool, Error> {
    let question = if planned.destroys.is_empty() { "Go on?" } else { "Destroy this and go on?" };
    let reply = prompt::ask(question, &mut stdin().lock(), &mut stdout().lock()).map_err(Error::Ask)?;
    Ok(reply == Reply::Yes)
}
