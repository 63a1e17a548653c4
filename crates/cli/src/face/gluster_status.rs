//! `gluster volume status` in text: GlusterFS's column widths (`cli/src/cli-cmd-volume.c: cli_print_brick_status`).

use std::collections::BTreeMap;
use std::fmt::Write;

use mortar_api::volume::{Process, ProcessKind, VolumeStatus};

use super::Output;
use super::gluster_growth::removed_bricks;
use super::volume_words::human_size;
use crate::command::StatusView;

const RULE: &str = "------------------------------------------------------------------------------";
const SHORT_RULE: &str = "----------------------------------------------";
/// The width of a process's name; a longer one is cut into lines of this length.
const NAME_WIDTH: usize = 43;

pub(super) fn render(view: StatusView, volumes: &[VolumeStatus]) -> Output {
    if volumes.is_empty() {
        return Output::remark("No volumes present");
    }
    Output::out(volumes.iter().map(|volume| one(view, volume)).collect::<String>())
}

fn one(view: StatusView, volume: &VolumeStatus) -> String {
    match view {
        StatusView::Processes => processes(volume) + " \n" + &tasks(volume) + " \n",
        StatusView::Tasks => tasks(volume) + " \n",
        StatusView::Detail => detail(volume) + " \n",
        StatusView::Clients => clients(volume) + "\n",
        StatusView::ClientList => client_list(volume) + "\n",
    }
}

/// The process's name in the first column.
pub(super) fn process_name(process: &Process) -> String {
    match process.kind {
        ProcessKind::Brick => format!("Brick {}:{}", process.host, process.path),
        ProcessKind::SelfHealDaemon => format!("Self-heal Daemon on {}", process.host),
    }
}

/// A port, or `N/A` when there is none or the process is down.
pub(super) fn port(process: &Process) -> String {
    process.port.filter(|_| process.online).map_or_else(|| "N/A".to_owned(), |port| port.to_string())
}

fn rdma_port(process: &Process) -> &'static str {
    if process.online && process.port.is_some() { "0" } else { "N/A" }
}

fn pid(process: &Process) -> String {
    process.pid.filter(|_| process.online).map_or_else(|| "N/A".to_owned(), |pid| pid.to_string())
}

const fn online(process: &Process) -> &'static str {
    if process.online { "Y" } else { "N" }
}

fn processes(volume: &VolumeStatus) -> String {
    let mut text = format!(
        "Status of volume: {}\n{:<NAME_WIDTH$} TCP Port  RDMA Port  Online  Pid\n{RULE}\n",
        volume.name, "Gluster process",
    );
    for process in &volume.processes {
        let name: Vec<char> = process_name(process).chars().collect();
        let mut slices = name.chunks(NAME_WIDTH).map(|slice| slice.iter().collect::<String>()).collect::<Vec<_>>();
        let last = slices.pop().unwrap_or_default();
        for slice in slices {
            let _ = writeln!(text, "{slice}");
        }
        let _ = writeln!(
            text,
            "{last:<NAME_WIDTH$} {:<10}{:<11}{:<8}{:<5}",
            port(process),
            rdma_port(process),
            online(process),
            pid(process),
        );
    }
    text
}

fn tasks(volume: &VolumeStatus) -> String {
    let mut text = format!("Task Status of Volume {}\n{RULE}\n", volume.name);
    if volume.tasks.is_empty() {
        text.push_str("There are no active volume tasks\n");
    }
    for task in &volume.tasks {
        let _ = writeln!(
            text,
            "{:<20} : {:<20}\n{:<20} : {:<20}\n{}{:<20} : {:<20}",
            "Task",
            task.kind,
            "ID",
            task.id,
            removed_bricks(&task.bricks),
            "Status",
            task.status
        );
    }
    text
}

fn bricks(volume: &VolumeStatus) -> impl Iterator<Item = &Process> {
    volume.processes.iter().filter(|process| process.kind == ProcessKind::Brick)
}

fn detail(volume: &VolumeStatus) -> String {
    let mut text = format!("Status of volume: {}\n", volume.name);
    for process in bricks(volume) {
        let _ = writeln!(text, "{RULE}");
        let mut line = |key: &str, value: &str| {
            let _ = writeln!(text, "{key:<20} : {value:<20}");
        };
        line("Brick", &process_name(process));
        line("TCP Port", &port(process));
        line("RDMA Port", rdma_port(process));
        line("Online", online(process));
        line("Pid", &pid(process));
        if let Some(detail) = &process.detail {
            let inode_size = if detail.inode_size == 0 { "N/A".to_owned() } else { detail.inode_size.to_string() };
            line("File System", &detail.file_system);
            line("Device", &detail.device);
            line("Mount Options", &detail.mount_options);
            line("Inode Size", &inode_size);
            line("Disk Space Free", &human_size(detail.bytes_free));
            line("Total Disk Space", &human_size(detail.bytes_total));
            line("Inode Count", &detail.inodes_total.to_string());
            line("Free Inodes", &detail.inodes_free.to_string());
        }
    }
    text
}

fn clients(volume: &VolumeStatus) -> String {
    let mut text = format!("Client connections for volume {}\n{SHORT_RULE}\n", volume.name);
    for process in bricks(volume) {
        let _ = writeln!(text, "Brick : {}:{}", process.host, process.path);
        if process.online {
            let _ = writeln!(text, "Clients connected : {}", process.clients.len());
            let row = |a: &str, b: &str, c: &str, d: &str| format!("{a:<48} {b:>15} {c:>15} {d:>15}\n");
            text.push_str(&row("Hostname", "BytesRead", "BytesWritten", "OpVersion"));
            text.push_str(&row("--------", "---------", "------------", "---------"));
            for client in &process.clients {
                text.push_str(&row(
                    &client.hostname,
                    &client.bytes_read.to_string(),
                    &client.bytes_written.to_string(),
                    &client.op_version.to_string(),
                ));
            }
        } else {
            text.push_str("Brick is not online\n");
        }
        let _ = writeln!(text, "{SHORT_RULE}");
    }
    text
}

fn client_list(volume: &VolumeStatus) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for client in bricks(volume).flat_map(|process| &process.clients) {
        *counts.entry(&client.name).or_default() += 1;
    }
    let mut text = format!("Client connections for volume {}\n", volume.name);
    let _ = writeln!(text, "{:<48} {:>15}\n{:<48} {:>15}", "Name", "count", "-----", "------");
    for (name, count) in &counts {
        let _ = writeln!(text, "{name:<48} {count:>15}");
    }
    let _ = writeln!(
        text,
        "\ntotal clients for volume {} : {} \n{}",
        volume.name,
        counts.values().sum::<usize>(),
        "-".repeat(65)
    );
    text
}
