//! Graphs of the client side: mounts, the self-heal daemon, rebalance.

use mortar_logic::pool::options;
use mortar_logic::pool::{Brick, Layout, Volume};

use super::graph::{Graph, Translator, Values, is_true};

/// Who gets a client volfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// With the volume's login; for processes on the pool's own nodes.
    Trusted,
    Untrusted,
}

/// The volfile of a mount.
pub fn client(volume: &Volume, trust: Trust) -> String {
    let mut graph = Graph::default();
    let clusters = clients_and_clusters(&mut graph, volume, trust);
    distribute(&mut graph, volume, clusters);
    let values = Values::new(volume);
    for (switch, kind) in [("features.cloudsync", "features/cloudsync"), ("features.shard", "features/shard")] {
        if values.is_on(switch) {
            graph.layer(volume, kind);
        }
    }
    if values.get("features.ctime").is_none_or(is_true) {
        graph.layer(volume, "features/utime");
    }
    // Where bricks resolve groups themselves, clients need not send them.
    let send_gids = if values.is_on("server.manage-gids") { "false" } else { "true" };
    let values = values.preset("client.send-gids", send_gids);
    performance_layers(&mut graph, volume, &values);
    io_stats(&mut graph, volume, &values);
    graph.set_plain_options(&values);
    graph.text()
}

/// The volfile of the self-heal daemon (`shd/VOL`); `None` for volumes that nothing heals.
pub fn self_heal_daemon(volume: &Volume) -> Option<String> {
    let (kind, switch) = match volume.layout {
        Layout::Distribute => return None,
        Layout::Replicate { .. } => ("cluster/replicate", "cluster.self-heal-daemon"),
        Layout::Disperse { .. } => ("cluster/disperse", "cluster.disperse-self-heal-daemon"),
    };
    let mut graph = Graph::default();
    let clusters = clients_and_clusters(&mut graph, volume, Trust::Trusted);
    let values = Values::new(volume).preset(switch, "enable");
    if volume.is_replicate() {
        for (key, value) in [
            ("background-self-heal-count", "0"),
            ("metadata-self-heal", "on"),
            ("data-self-heal", "on"),
            ("entry-self-heal", "on"),
        ] {
            graph.set_all(kind, key, value);
        }
    }
    graph.each_option(&values, |graph, known, value| match known.option {
        "!self-heal-daemon" | "!heal-timeout" => graph.set_all(known.translator, &known.option[1..], value),
        option if option.starts_with('!') => {}
        option => graph.set_all(known.translator, option, value),
    });
    graph.set_all(kind, "iam-self-heal-daemon", "yes");
    graph.push(Translator::new(volume.name.clone(), "debug/io-stats", clusters));
    io_stats_options(&mut graph, &values, "client");
    Some(graph.text())
}

/// The volfile of a rebalance; `None` for volumes with one subvolume.
pub fn rebalance(volume: &Volume) -> Option<String> {
    if volume.bricks.len() <= volume.layout.group() as usize {
        return None;
    }
    let mut graph = Graph::default();
    let clusters = clients_and_clusters(&mut graph, volume, Trust::Trusted);
    distribute(&mut graph, volume, clusters);
    let values = Values::new(volume);
    io_stats(&mut graph, volume, &values);
    graph.set_plain_options(&values);
    Some(graph.text())
}

fn io_stats(graph: &mut Graph, volume: &Volume, values: &Values<'_>) {
    graph.stack(volume.name.clone(), "debug/io-stats");
    io_stats_options(graph, values, "client");
}

/// Options of `debug/io-stats` that exist once for clients and once for bricks.
pub(super) fn io_stats_options(graph: &mut Graph, values: &Values<'_>, role: &str) {
    const APART: &[(&str, &str)] = &[
        ("log-level", "log-level"),
        ("sys-log-level", "sys-log-level"),
        ("logger", "logger"),
        ("log-format", "log-format"),
        ("log-buf-size", "log-buf-size"),
        ("log-flush-timeout", "log-flush-timeout"),
        ("threads", "threads"),
    ];
    for (suffix, option) in APART {
        let key = match *suffix {
            "threads" => format!("config.{role}-threads"),
            suffix => format!("diagnostics.{role}-{suffix}"),
        };
        let value = values.get(&key).or_else(|| options::find(&key).and_then(|known| known.map_default));
        if let Some(value) = value {
            graph.set_all("debug/io-stats", option, value);
        }
    }
}

/// One connection per brick, and the clusters over them; answers the names of what goes below distribute.
fn clients_and_clusters(graph: &mut Graph, volume: &Volume, trust: Trust) -> Vec<String> {
    let clients: Vec<Translator> = volume.bricks.iter().map(|brick| brick_client(volume, brick, trust)).collect();
    let names: Vec<String> = clients.iter().map(|client| client.name().to_owned()).collect();
    for client in clients {
        graph.push(client);
    }
    let group = volume.layout.group().max(1) as usize;
    let clusters: Vec<Translator> = match volume.layout {
        Layout::Distribute => return names,
        Layout::Replicate { arbiter, .. } => names
            .chunks(group)
            .zip(volume.bricks.chunks(group))
            .enumerate()
            .map(|(index, (names, bricks))| replicate(volume, index, names, bricks, arbiter))
            .collect(),
        Layout::Disperse { redundancy, .. } => names
            .chunks(group)
            .enumerate()
            .map(|(index, names)| {
                Translator::new(format!("{}-disperse-{index}", volume.name), "cluster/disperse", names.to_vec())
                    .with("redundancy", redundancy.to_string())
            })
            .collect(),
    };
    let names = clusters.iter().map(|cluster| cluster.name().to_owned()).collect();
    for cluster in clusters {
        graph.push(cluster);
    }
    names
}

fn replicate(volume: &Volume, index: usize, names: &[String], bricks: &[Brick], arbiter: u32) -> Translator {
    let pending: Vec<&str> = bricks.iter().map(|brick| brick.brick_id.as_str()).collect();
    let mut cluster =
        Translator::new(format!("{}-replicate-{index}", volume.name), "cluster/replicate", names.to_vec())
            .with("afr-pending-xattr", pending.join(","))
            .with("volume-id", volume.id.to_string());
    if arbiter > 0 {
        cluster.set("arbiter-count", arbiter.to_string());
    }
    cluster
}

fn brick_client(volume: &Volume, brick: &Brick, trust: Trust) -> Translator {
    let mut client = Translator::new(brick.brick_id.clone(), "protocol/client", Vec::new())
        .with("ping-timeout", "42")
        .with("remote-host", &brick.host)
        .with("remote-subvolume", &brick.path)
        .with("transport-type", "tcp");
    if let Some(family) = volume.option("transport.address-family") {
        client.set("transport.address-family", family);
    }
    if trust == Trust::Trusted {
        client.set("username", volume.username.to_string());
        client.set("password", volume.password.to_string());
    }
    client
}

fn distribute(graph: &mut Graph, volume: &Volume, subvolumes: Vec<String>) {
    let group = volume.layout.group().max(1) as usize;
    let sets = volume.bricks.chunks(group).zip(&subvolumes);
    let leaving: Vec<&str> = sets
        .filter(|(bricks, _)| bricks.iter().any(|brick| brick.decommissioned))
        .map(|(_, name)| name.as_str())
        .collect();
    let leaving = leaving.join(" ");
    let mut distribute = Translator::new(format!("{}-dht", volume.name), "cluster/distribute", subvolumes);
    if !leaving.is_empty() {
        distribute.set("decommissioned-bricks", leaving);
    }
    graph.push(distribute);
}

/// Performance translators in the table's order, bottom up.
fn performance_layers(graph: &mut Graph, volume: &Volume, values: &Values<'_>) {
    graph.each_option(values, |graph, known, value| {
        if known.option == "!perf" && is_true(value) {
            graph.layer(volume, known.translator);
        }
    });
}
