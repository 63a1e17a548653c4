//! The documents of `volume status --xml`.

use mortar_api::volume::{Process, ProcessKind, VolumeStatus};

use super::gluster_status::port;
use super::xml::{Element, leaf, node};
use crate::command::StatusView;

pub(super) fn status(view: StatusView, volumes: &[VolumeStatus]) -> Element {
    let volumes = volumes.iter().map(|volume| one(view, volume)).collect();
    node("volStatus", vec![node("volumes", volumes)])
}

fn one(view: StatusView, volume: &VolumeStatus) -> Element {
    let mut children = vec![leaf("volName", &volume.name)];
    if view != StatusView::Tasks {
        let daemons = view == StatusView::Processes;
        let processes: Vec<&Process> =
            volume.processes.iter().filter(|process| daemons || process.kind == ProcessKind::Brick).collect();
        children.push(leaf("nodeCount", processes.len()));
        children.extend(processes.into_iter().map(|process| process_node(view, process)));
    }
    if matches!(view, StatusView::Processes | StatusView::Tasks) {
        let tasks = volume.tasks.iter().map(|task| {
            let mut children = vec![
                leaf("type", &task.kind),
                leaf("id", task.id),
                leaf("status", task.status_number),
                leaf("statusStr", &task.status),
            ];
            if !task.bricks.is_empty() {
                children.push(node("params", task.bricks.iter().map(|brick| leaf("brick", brick)).collect()));
            }
            node("task", children)
        });
        children.push(node("tasks", tasks.collect()));
    }
    node("volume", children)
}

fn process_node(view: StatusView, process: &Process) -> Element {
    let (hostname, path) = match process.kind {
        ProcessKind::Brick => (process.host.as_str(), process.path.as_str()),
        ProcessKind::SelfHealDaemon => ("Self-heal Daemon", process.host.as_str()),
    };
    let port = port(process);
    let pid = process.pid.filter(|_| process.online).map_or_else(|| "-1".to_owned(), |pid| pid.to_string());
    let mut children = vec![
        leaf("hostname", hostname),
        leaf("path", path),
        leaf("peerid", process.peer_id),
        leaf("status", u8::from(process.online)),
        leaf("port", &port),
        node("ports", vec![leaf("tcp", &port), leaf("rdma", "N/A")]),
        leaf("pid", pid),
    ];
    match view {
        StatusView::Detail => children.extend(detail(process)),
        StatusView::Clients => children.push(clients(process)),
        _ => {}
    }
    node("node", children)
}

fn detail(process: &Process) -> Vec<Element> {
    let Some(detail) = &process.detail else { return Vec::new() };
    let mut children = vec![
        leaf("sizeTotal", detail.bytes_total),
        leaf("sizeFree", detail.bytes_free),
        leaf("device", &detail.device),
        leaf("blockSize", detail.block_size),
        leaf("mntOptions", &detail.mount_options),
        leaf("fsName", &detail.file_system),
    ];
    if detail.inode_size > 0 {
        children.push(leaf("inodeSize", detail.inode_size));
    }
    children.extend([leaf("inodesTotal", detail.inodes_total), leaf("inodesFree", detail.inodes_free)]);
    children
}

fn clients(process: &Process) -> Element {
    let mut children = vec![leaf("clientCount", process.clients.len())];
    children.extend(process.clients.iter().map(|client| {
        node(
            "client",
            vec![
                leaf("hostname", &client.hostname),
                leaf("bytesRead", client.bytes_read),
                leaf("bytesWrite", client.bytes_written),
                leaf("opVersion", client.op_version),
            ],
        )
    }));
    node("clientsStatus", children)
}
