//! From a volfile to the replica sets that heal works on.

use std::sync::Arc;
use std::time::Duration;

use mortar_logic::heal::Resolve;
use mortar_logic::heal::blocks::Algorithm;
use mortar_logic::replicate::quorum::Quorum;
use mortar_logic::values::boolean;
use mortar_types::{Fops, SubvolId, SubvolMap};
use mortar_wire::volfile::{Volfile, VolfileVolume};
use uuid::Uuid;

use crate::client::{self, BrickClient, Identity};
use crate::heal::set::ReplicaSet;
use crate::replicate;

/// Without the option `heal-timeout` (`cluster.heal-timeout`).
pub const HEAL_TIMEOUT_DEFAULT: Duration = Duration::from_secs(600);

/// Why a volfile section is no replica set that can be healed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Replicate(#[from] replicate::OptionsError),
    #[error(transparent)]
    Client(#[from] client::OptionsError),
    #[error("volume {volume}: its subvolume {subvolume} is not a brick connection")]
    NoBrick { volume: String, subvolume: String },
    #[error("volume {volume}: option volume-id is missing or no uuid")]
    NoVolumeId { volume: String },
}

/// One replica set and what its daemon needs beside it.
pub struct Section {
    pub set: ReplicaSet,
    /// `self-heal-daemon`.
    pub enabled: bool,
    pub heal_timeout: Duration,
}

/// All replica sets of a volfile, connecting to their bricks. `glusterd_port`: where the bricks' hosts are asked for ports,
/// when not at the usual one.
pub fn sections(volfile: &Volfile, identity: &Identity, glusterd_port: Option<u16>) -> Result<Vec<Section>, Error> {
    let replicas = volfile.volumes.iter().filter(|section| section.kind == "cluster/replicate");
    replicas.map(|section| self::section(volfile, section, identity, glusterd_port)).collect()
}

fn section(
    volfile: &Volfile,
    section: &VolfileVolume,
    identity: &Identity,
    glusterd_port: Option<u16>,
) -> Result<Section, Error> {
    let no_brick = |subvolume: &String| Error::NoBrick { volume: section.name.clone(), subvolume: subvolume.clone() };
    let mut options = Vec::with_capacity(section.subvolumes.len());
    for subvolume in &section.subvolumes {
        let brick = volfile.volume(subvolume).filter(|brick| brick.kind == "protocol/client");
        let brick = client::Options::from_volfile(brick.ok_or_else(|| no_brick(subvolume))?, identity)?;
        let glusterd_port = glusterd_port.unwrap_or(brick.glusterd_port);
        options.push(client::Options { glusterd_port, process_name: "glustershd".to_owned(), ..brick });
    }
    // Nothing connects before the whole section is known to be good.
    let children: Vec<Arc<dyn Fops>> =
        options.into_iter().map(|options| BrickClient::new(options) as Arc<dyn Fops>).collect();
    let set = replica_set(section, children.into())?;
    let enabled = section.option("self-heal-daemon").is_none_or(|value| boolean(value) != Some(false));
    let heal_timeout = section.option("heal-timeout").and_then(|text| text.parse().ok()).map(Duration::from_secs);
    Ok(Section { set, enabled, heal_timeout: heal_timeout.unwrap_or(HEAL_TIMEOUT_DEFAULT) })
}

/// The replica set that a section of type `cluster/replicate` describes, over children that the caller has.
pub fn replica_set(section: &VolfileVolume, children: SubvolMap<Arc<dyn Fops>>) -> Result<ReplicaSet, Error> {
    let options = replicate::Options::from_volfile(section)?;
    let volume_id = section.option("volume-id").and_then(|text| text.parse::<Uuid>().ok());
    let volume_id = volume_id.ok_or_else(|| Error::NoVolumeId { volume: section.name.clone() })?;
    Ok(ReplicaSet {
        arbiter: (options.arbiter_count > 0).then(|| SubvolId(children.len() - 1)),
        quorum: quorum(options.quorum, children.len()),
        name: options.name,
        keys: options.keys,
        children,
        volume_id: volume_id.into_bytes(),
        granular: options.granular_entry_heal,
        algorithm: match section.option("data-self-heal-algorithm") {
            Some("full") => Algorithm::Full,
            Some("diff") => Algorithm::Diff,
            _ => Algorithm::Auto,
        },
        policy: match section.option("favorite-child-policy") {
            Some("size") => Resolve::Size,
            Some("ctime") => Resolve::Ctime,
            Some("mtime") => Resolve::Mtime,
            Some("majority") => Resolve::Majority,
            _ => Resolve::Leave,
        },
    })
}

/// On how many copies an acknowledged change is at least.
fn quorum(quorum: Quorum, children: usize) -> Option<usize> {
    match quorum {
        Quorum::None => None,
        Quorum::Auto => Some(children / 2 + 1),
        Quorum::Fixed(count) => Some(count.min(children)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHD: &str = include_str!("testdata/replica3.shd.vol");

    #[tokio::test]
    async fn a_volfile_of_the_real_daemon_gives_its_replica_sets() {
        let volfile = Volfile::parse(SHD).unwrap();
        let sections = sections(&volfile, &Identity::of_process("test"), None).unwrap();
        let [section] = &sections[..] else { panic!("one replica set") };
        assert_eq!(section.set.name, "rep3-replicate-0");
        assert_eq!(section.set.children.len(), 3);
        assert_eq!(section.set.quorum, Some(2));
        assert!(section.set.granular && section.enabled);
        assert_eq!(section.heal_timeout, HEAL_TIMEOUT_DEFAULT);
        assert_eq!(section.set.keys.pending[SubvolId(2)], "trusted.afr.rep3-client-2");
        assert_eq!(section.set.parking_name(), ".glusterfs-anonymous-inode-87bda2a5-e25d-471d-90b0-91944177f4aa");
        assert_eq!(section.set.parking_gfid().to_string(), "86bda2a5-e25d-471d-90b0-91944177f4aa");
    }

    #[tokio::test]
    async fn a_section_without_volume_id_is_refused() {
        let text = SHD.lines().filter(|line| !line.contains("volume-id")).collect::<Vec<_>>().join("\n");
        let volfile = Volfile::parse(&text).unwrap();
        let error = sections(&volfile, &Identity::of_process("test"), None).err();
        assert_eq!(error, Some(Error::NoVolumeId { volume: "rep3-replicate-0".into() }));
    }
}
