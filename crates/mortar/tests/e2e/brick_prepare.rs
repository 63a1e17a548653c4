//! `mortar brick prepare` as typed, on a loop device: what it shows, asks, does, and does not do twice.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use mortar_testkit::loop_disk::LoopDisk;
use mortar_testkit::needs::{self, Need};

use crate::cluster;

const NEEDS: [Need; 4] = [
    Need::Root,
    Need::Program("losetup", "util-linux"),
    Need::Program("parted", "parted"),
    Need::Program("mkfs.ext4", "e2fsprogs"),
];

/// Types the command with `more` words and `answer` on its input.
fn prepare(disk: &LoopDisk, more: &[&str], answer: &str) -> Result<Output> {
    let mut child = Command::new(cluster::binary())
        .args(["brick", "prepare"])
        .arg(disk.device())
        .arg("--mount")
        .arg(disk.mount_point())
        .arg("--fstab")
        .arg(disk.fstab())
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // A command that does not ask may be gone already.
    let _ = child.stdin.take().context("a pipe")?.write_all(answer.as_bytes());
    Ok(child.wait_with_output()?)
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn one_command_asks_prepares_and_repeats_harmlessly() -> Result<()> {
    if !needs::met("one_command_asks_prepares_and_repeats_harmlessly", &NEEDS) {
        return Ok(());
    }
    let disk = LoopDisk::new(1 << 30)?;
    let brick = disk.mount_point().join("brick");

    for (words, answer, code) in [(&["--dry-run"][..], "", 0), (&[], "", 1), (&[], "n\n", 1)] {
        let output = prepare(&disk, words, answer)?;
        let text = said(&output);
        ensure!(output.status.code() == Some(code), "{words:?} {answer:?}: {text}");
        ensure!(text.contains("1. parted ") && text.contains("Nothing was done"), "the plan is shown: {text}");
        ensure!(!disk.mount_point().exists() && !disk.fstab().exists(), "nothing was done: {text}");
    }

    let output = prepare(&disk, &[], "y\n")?;
    ensure!(output.status.success() && brick.is_dir(), "{}", said(&output));
    ensure!(
        said(&output).contains(&format!("Prepared. The brick's folder: {}\n", brick.display())),
        "{}",
        said(&output)
    );
    let table = fs::read_to_string(disk.fstab())?;
    ensure!(table.starts_with("UUID=") && table.contains(" noatime,nofail "), "{table}");

    fs::write(brick.join("mail"), "kept")?;
    let output = prepare(&disk, &["--yes", "--force"], "")?;
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
    let disk = LoopDisk::new(1 << 30)?;
    let made = Command::new("mkfs.ext4").args(["-q", "-L", "mail"]).arg(disk.device()).status()?;
    ensure!(made.success());
    let output = prepare(&disk, &["--yes"], "")?;
    let text = said(&output);
    ensure!(output.status.code() == Some(1) && text.contains("is not empty: it holds ext4 \"mail\""), "{text}");

    let output = prepare(&disk, &["--force"], "n\n")?;
    let text = said(&output);
    ensure!(output.status.code() == Some(1) && text.contains("ALL OF THIS WILL BE LOST:\n  ext4 \"mail\""), "{text}");
    let label = Command::new("blkid")
        .args(["--probe", "--output", "value", "--match-tag", "LABEL"])
        .arg(disk.device())
        .output()?;
    ensure!(label.stdout == b"mail\n", "it is still there: {label:?}");

    let output = prepare(&disk, &["--force", "--yes"], "")?;
    ensure!(output.status.success() && disk.mount_point().join("brick").is_dir(), "{}", said(&output));
    Ok(())
}
