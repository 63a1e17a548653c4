//! The document of `volume info --xml`.

use mortar_api::volume::{Layout, Volume};

use super::volume_words::{groups, state_number, state_text, type_number, type_text};
use super::xml::{Element, leaf, node};

pub(super) fn info(volumes: &[Volume]) -> Element {
    let mut children: Vec<Element> = volumes.iter().map(volume).collect();
    children.push(leaf("count", volumes.len()));
    node("volInfo", vec![node("volumes", children)])
}

fn volume(volume: &Volume) -> Element {
    let (replica, arbiter, disperse, redundancy) = match volume.layout {
        Layout::Distribute => (1, 0, 0, 0),
        Layout::Replicate { replica, arbiter } => (replica, arbiter, 0, 0),
        Layout::Disperse { data, redundancy } => (1, 0, data + redundancy, redundancy),
    };
    let bricks = volume.bricks.iter().map(|brick| {
        let parts = vec![
            leaf("name", &brick.at),
            leaf("hostUuid", brick.host_uuid),
            leaf("isArbiter", u8::from(brick.arbiter)),
        ];
        Element::mixed("brick", &brick.at, parts).with("uuid", brick.host_uuid)
    });
    let options =
        volume.options.iter().map(|(name, value)| node("option", vec![leaf("name", name), leaf("value", value)]));
    node(
        "volume",
        vec![
            leaf("name", &volume.name),
            leaf("id", volume.id),
            leaf("status", state_number(volume.state)),
            leaf("statusStr", state_text(volume.state)),
            leaf("snapshotCount", volume.snapshot_count),
            leaf("brickCount", volume.bricks.len()),
            leaf("distCount", groups(volume)),
            leaf("replicaCount", replica),
            leaf("arbiterCount", arbiter),
            leaf("disperseCount", disperse),
            leaf("redundancyCount", redundancy),
            leaf("type", type_number(volume)),
            leaf("typeStr", type_text(volume)),
            leaf("transport", 0),
            node("bricks", bricks.collect()),
            leaf("optCount", volume.options.len()),
            node("options", options.collect()),
        ],
    )
}
