//! Performs the steps of a plan with the system's tools.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::facts::Tool;
use crate::fstab;
use crate::program::program;
use crate::step::{Performed, Step};

/// How long the kernel and udev may take to show a new partition or logical volume.
const DEVICE_WAIT: Duration = Duration::from_secs(20);

/// A step that failed; those before it are done.
#[derive(Debug, thiserror::Error)]
#[error("step failed: {step}\n{message}\nWhat was done so far stays; the same command continues from here")]
pub struct Error {
    pub step: Step,
    pub message: String,
}

/// Performs the steps in order. `begins` hears of each before it is done.
pub fn apply(steps: &[Step], begins: &mut dyn FnMut(&Step)) -> Result<(), Error> {
    for step in steps {
        begins(step);
        perform(step).map_err(|message| Error { step: step.clone(), message })?;
    }
    Ok(())
}

fn perform(step: &Step) -> Result<(), String> {
    match step {
        Step::MakeFolder { path } => fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display())),
        Step::Fstab { table, line, replaces } => {
            change_fstab(table, &|text| fstab::with_line(text, line, replaces.as_deref()))
        }
        Step::FstabWithout { table, line } => change_fstab(table, &|text| fstab::without(text, &[line])),
        _ => {
            let Performed::By(tool, words) = step.performed() else { return Ok(()) };
            run(tool, &words)?;
            await_device(step)
        }
    }
}

fn run(tool: Tool, words: &[String]) -> Result<(), String> {
    let output = program(tool.program())
        .args(words)
        .output()
        .map_err(|error| format!("{}: {error} (package {})", tool.program(), tool.package()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let hint = if tool == Tool::Lvcreate && !has_device_mapper() {
        "\nThe kernel has no device-mapper, which logical volumes need: modprobe dm_mod, or leave --lvm away"
    } else {
        ""
    };
    Err(format!("{}{hint}", said.trim()))
}

/// Whether the running kernel lists device-mapper among its drivers.
pub fn has_device_mapper() -> bool {
    fs::read_to_string("/proc/devices")
        .is_ok_and(|drivers| drivers.lines().any(|line| line.ends_with(" device-mapper")))
}

/// Waits for the device that the step made.
fn await_device(step: &Step) -> Result<(), String> {
    let device = match step {
        Step::Partition { partition, .. } => partition.clone(),
        Step::LogicalVolume { group, .. } => PathBuf::from(format!("/dev/{group}/{}", crate::LOGICAL_VOLUME)),
        _ => return Ok(()),
    };
    let started = Instant::now();
    while !device.exists() {
        if started.elapsed() > DEVICE_WAIT {
            return Err(format!("{} does not appear; does udev run, and what does dmesg say?", device.display()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn change_fstab(path: &Path, change: &dyn Fn(&str) -> String) -> Result<(), String> {
    rewrite(path, change).map_err(|error| format!("{}: {error}", path.display()))
}

/// Writes the table anew beside the old one and renames, so that a crash leaves one or the other.
fn rewrite(path: &Path, change: &dyn Fn(&str) -> String) -> io::Result<()> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let (table, mode) = match fs::read_to_string(&path) {
        Ok(table) => (table, fs::metadata(&path)?.permissions().mode()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (String::new(), 0o644),
        Err(error) => return Err(error),
    };
    let mut name = path.as_os_str().to_owned();
    name.push(".mortar-new");
    let fresh = PathBuf::from(name);
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&fresh)?;
    file.write_all(change(&table).as_bytes())?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()?;
    fs::rename(&fresh, &path)?;
    match path.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_keeps_its_mode_and_gets_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join("fstab");
        fs::write(&table, "a\n").unwrap();
        fs::set_permissions(&table, fs::Permissions::from_mode(0o600)).unwrap();
        rewrite(&table, &|text| format!("{text}b\n")).unwrap();
        assert_eq!(fs::read_to_string(&table).unwrap(), "a\nb\n");
        assert_eq!(fs::metadata(&table).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_table_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join("fstab");
        rewrite(&table, &|text| format!("{text}b\n")).unwrap();
        assert_eq!(fs::read_to_string(&table).unwrap(), "b\n");
    }
}
