//! `mortar brick prepare` as typed, on a loop device: what it shows, asks, does, and does not do twice.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use mortar_testkit::needs::{self, Need};

use crate::cluster;

const NEEDS: [Need; 4] = [
    Need::Root,
    Need::Program("losetup", "util-linux"),
    Need::Program("parted", "parted"),
    Need::Program("mkfs.ext4", "e2fsprogs"),
];

/// A sparse file as a disk; gone when dropped.
struct LoopDisk {
    folder: tempfile::TempDir,
    device: String,
}

impl LoopDisk {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let image = folder.path().join("disk");
        fs::File::create(&image)?.set_len(1 << 30)?;
        let output = Command::new("losetup").args(["--find", "--show"]).arg(&image).output()?;
        ensure!(output.status.success(), "losetup: {}", String::from_utf8_lossy(&output.stderr));
        let device = String::from_utf8(output.stdout)?.trim().to_owned();
        // The kernel may still show the partitions of the disk that had this loop device before.
        let _ = Command::new("partx").args(["--delete", &device]).output();
        Ok(Self { folder, device })
    }

    fn mount_point(&self) -> PathBuf {
        self.folder.path().join("gfs")
    }

    fn fstab(&self) -> PathBuf {
        self.folder.path().join("fstab")
    }

    /// Types the command with `more` words and `answer` on its input.
    fn prepare(&self, more: &[&str], answer: &str) -> Result<Output> {
        let mut child = Command::new(cluster::binary())
            .args(["brick", "prepare", &self.device, "--mount"])
            .arg(self.mount_point())
            .arg("--fstab")
            .arg(self.fstab())
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // A command that does not ask may be gone already.
        let _ = child.stdin.take().context("a pipe")?.write_all(answer.as_bytes());
        Ok(child.wait_with_output()?)
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let quiet = |program: &str, words: &[&Path]| {
            let _ = Command::new(program).args(words).output();
        };
        quiet("umount", &[&self.mount_point()]);
        quiet("partx", &[Path::new("--delete"), Path::new(&self.device)]);
        quiet("losetup", &[Path::new("--detach"), Path::new(&self.device)]);
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn one_command_asks_prepares_and_repeats_harmlessly() -> Result<()> {
    if !needs::met("one_command_asks_prepares_and_repeats_harmlessly", &NEEDS) {
        return Ok(());
    }
    let disk = LoopDisk::new()?;
    let brick = disk.mount_point().join("brick");

    for (words, answer, code) in [(&["--dry-run"][..], "", 0), (&[], "", 1), (&[], "n\n", 1)] {
        let output = disk.prepare(words, answer)?;
        let text = said(&output);
        ensure!(output.status.code() == Some(code), "{words:?} {answer:?}: {text}");
        ensure!(text.contains("1. parted ") && text.contains("Nothing was done"), "the plan is shown: {text}");
        ensure!(!disk.mount_point().exists() && !disk.fstab().exists(), "nothing was done: {text}");
    }

    let output = disk.prepare(&[], "y\n")?;
    ensure!(output.status.success() && brick.is_dir(), "{}", said(&output));
    ensure!(
        said(&output).contains(&format!("Prepared. The brick's folder: {}\n", brick.display())),
        "{}",
        said(&output)
    );
    let table = fs::read_to_string(disk.fstab())?;
    ensure!(table.starts_with("UUID=") && table.contains(" noatime,nofail "), "{table}");

    fs::write(brick.join("mail"), "kept")?;
    let output = disk.prepare(&["--yes", "--force"], "")?;
    ensure!(output.status.success() && said(&output).contains("is prepared already"), "{}", said(&output));
    ensure!(fs::read_to_string(brick.join("mail"))? == "kept");
    ensure!(fs::read_to_string(disk.fstab())? == table, "no second line");
    Ok(())
}

#[test]
fn a_disk_with_something_on_it_is_refused_and_force_says_what_is_lost() -> Result<()> {
    if !needs::met("a_disk_with_something_on_it_is_refused_and_force_says_what_is_lost", &NEEDS) {
        return Ok(());
    }
    let disk = LoopDisk::new()?;
    let made = Command::new("mkfs.ext4").args(["-q", "-L", "mail", &disk.device]).status()?;
    ensure!(made.success());
    let output = disk.prepare(&["--yes"], "")?;
    let text = said(&output);
    ensure!(output.status.code() == Some(1) && text.contains("is not empty: it holds ext4 \"mail\""), "{text}");

    let output = disk.prepare(&["--force"], "n\n")?;
    let text = said(&output);
    ensure!(output.status.code() == Some(1) && text.contains("ALL OF THIS WILL BE LOST:\n  ext4 \"mail\""), "{text}");
    let label =
        Command::new("blkid").args(["--probe", "--output", "value", "--match-tag", "LABEL", &disk.device]).output()?;
    ensure!(label.stdout == b"mail\n", "it is still there: {label:?}");

    let output = disk.prepare(&["--force", "--yes"], "")?;
    ensure!(output.status.success() && disk.mount_point().join("brick").is_dir(), "{}", said(&output));
    Ok(())
}
