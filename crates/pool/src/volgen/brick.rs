//! The graph of a brick process.

use std::path::Path;

use mortar_logic::pool::{Layout, Volume};

use super::client::io_stats_options;
use super::graph::{Graph, Values};

/// What the node knows of the brick's surroundings.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// The daemon's data directory; holds the marker's time stamp file.
    pub data_dir: &'a Path,
    /// Bricks of the volume on the same file system, on this node; statfs is divided by it.
    pub shared_brick_count: u32,
}

/// The volfile of the volume's brick number `index`; `None` when there is none.
pub fn brick(volume: &Volume, index: usize, around: Surroundings<'_>) -> Option<String> {
    let brick = volume.bricks.get(index)?;
    let path = brick.path.as_str();
    let id = volume.id.to_string();
    let values = Values::new(volume);
    let mut graph = Graph::default();

    let posix = graph.layer(volume, "storage/posix");
    posix.set("directory", path);
    posix.set("volume-id", id.as_str());
    if values.is_on("features.quota") || values.is_on("features.trash") {
        posix.set("update-link-count-parent", "on");
    }
    posix.set("fips-mode-rchecksum", "on");
    posix.set("shared-brick-count", around.shared_brick_count.to_string());
    if brick.arbiter {
        graph.layer(volume, "features/arbiter");
    }
    let trash = graph.layer(volume, "features/trash");
    trash.set("trash-dir", ".trashcan");
    trash.set("brick-path", path);
    trash.set("trash-internal-op", "off");
    let bitrot = values.get("features.bitrot").unwrap_or("disable");
    let changelog = graph.layer(volume, "features/changelog");
    changelog.set("changelog-brick", path);
    changelog.set("changelog-dir", format!("{path}/.glusterfs/changelogs"));
    changelog.set("changelog-notification", if super::graph::is_true(bitrot) { "on" } else { "off" });
    let stub = graph.layer(volume, "features/bitrot-stub");
    stub.set("export", path);
    stub.set("bitrot", bitrot);
    graph.layer(volume, "features/access-control");
    graph.layer(volume, "features/locks");
    graph.layer(volume, "features/worm");
    graph.layer(volume, "features/read-only").set("read-only", "off");
    graph.layer(volume, "features/leases");
    graph.layer(volume, "features/upcall");
    graph.layer(volume, "performance/io-threads");
    graph.layer(volume, "features/selinux");
    let marker = graph.layer(volume, "features/marker");
    marker.set("volume-uuid", id.as_str());
    let stamp = around.data_dir.join("vols").join(&volume.name).join("marker.tstamp");
    marker.set("timestamp-file", stamp.display().to_string());
    marker.set("quota-version", "0");
    graph.layer(volume, "features/barrier");
    index_layer(&mut graph, volume, path);
    let quota = graph.layer(volume, "features/quota");
    quota.set("volume-uuid", volume.name.as_str());
    quota.set("server-quota", values.get("features.quota").unwrap_or("off"));
    let stats = graph.stack(path.to_owned(), "debug/io-stats");
    stats.set("unique-id", path);
    stats.set("volume-id", id.as_str());
    server(&mut graph, volume, path, &values);
    io_stats_options(&mut graph, &values, "brick");
    graph.set_plain_options(&values);
    Some(graph.text())
}

fn index_layer(graph: &mut Graph, volume: &Volume, path: &str) {
    let index = graph.layer(volume, "features/index");
    index.set("index-base", format!("{path}/.glusterfs/indices"));
    if matches!(volume.layout, Layout::Disperse { .. }) {
        index.set("xattrop64-watchlist", "trusted.ec.dirty");
    } else {
        index.set("xattrop-dirty-watchlist", "trusted.afr.dirty");
        index.set("xattrop-pending-watchlist", format!("trusted.afr.{}-", volume.name));
    }
}

fn server(graph: &mut Graph, volume: &Volume, path: &str, values: &Values<'_>) {
    let server = graph.layer(volume, "protocol/server");
    server.set("transport-type", "tcp");
    if let Some(family) = values.get("transport.address-family") {
        server.set("transport.address-family", family);
    }
    server.set(format!("auth.login.{path}.allow"), volume.username.to_string());
    server.set(format!("auth.login.{}.password", volume.username), volume.password.to_string());
    server.set("auth-path", path);
    if let Some(users) = values.get("auth.ssl-allow") {
        server.set(format!("auth.login.{path}.ssl-allow"), users);
    }
    server.set(format!("auth.addr.{path}.allow"), values.get("auth.allow").unwrap_or("*"));
    if let Some(addresses) = values.get("auth.reject") {
        server.set(format!("auth.addr.{path}.reject"), addresses);
    }
}
