//! Which volfile a GETSPEC key means (wire.md 7.1).

use std::path::Path;

use mortar_logic::pool::{State, Volume};
use mortar_types::Errno;

use crate::volgen::{self, Surroundings, Trust, brick_volfile_id};

/// GlusterFS's limit of a volume name (`GD_VOLUME_NAME_MAX`).
const KEY_BYTES_MAX: usize = 4096;

/// The volfile text of a key such as `imap0`, `/imap0`, `shd/imap0`, `imap0.gfs1.srv-gfs-brick`.
///
/// # Errors
/// `ENOENT` for what is not there, `EINVAL` for what cannot be.
pub(crate) fn volfile(state: &State, key: &str, trust: Trust, data_dir: &Path) -> Result<String, Errno> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(Errno::EINVAL);
    }
    let named = |name: &str| state.volumes.get(name).ok_or(Errno::ENOENT);
    let path = key.strip_prefix('/').unwrap_or(key);
    if let Some((service, name)) = path.split_once('/') {
        return match service {
            "shd" => volgen::self_heal_daemon(named(name)?).ok_or(Errno::ENOENT),
            "rebalance" => volgen::rebalance(named(name)?).ok_or(Errno::ENOENT),
            _ => Err(Errno::ENOENT),
        };
    }
    if let Some(volume) = state.volumes.get(path) {
        return Ok(volgen::client(volume, trust));
    }
    // `VOL.tcp`, unless a volume is called so; `VOL.rdma` never existed here.
    if let Some(volume) = path.strip_suffix(".tcp").and_then(|name| state.volumes.get(name)) {
        return Ok(volgen::client(volume, trust));
    }
    let (volume, index) = brick_of(state, path).ok_or(Errno::ENOENT)?;
    let around = Surroundings { data_dir, shared_brick_count: shared_brick_count(volume, index) };
    volgen::brick(volume, index, around).ok_or(Errno::ENOENT)
}

fn brick_of<'a>(state: &'a State, id: &str) -> Option<(&'a Volume, usize)> {
    state.volumes.values().find_map(|volume| {
        let is_it = |brick: &mortar_logic::pool::Brick| brick_volfile_id(&volume.name, &brick.host, &brick.path) == id;
        volume.bricks.iter().position(is_it).map(|index| (volume, index))
    })
}

/// How many bricks of the volume that this node owns are on the file system of this one.
pub(crate) fn shared_brick_count(volume: &Volume, index: usize) -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    let device = |path: &str| std::fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let Some(brick) = volume.bricks.get(index) else { return 0 };
    let Some(own) = device(&brick.path) else { return 1 };
    let sharing = volume.bricks.iter().filter(|other| other.node == brick.node && device(&other.path) == Some(own));
    u32::try_from(sharing.count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mortar_logic::pool::{Command, Layout, Member, NewBrick, NewVolume, State, apply};
    use mortar_types::Errno;
    use uuid::Uuid;

    use super::volfile;
    use crate::volgen::Trust;

    fn state() -> State {
        let mut state = State::default();
        let mut bricks = Vec::new();
        for number in 1..=2 {
            let uuid = Uuid::from_u128(number);
            let hostname = format!("gfs{number}");
            bricks.push(NewBrick { host: hostname.clone(), node: Some(uuid), path: "/srv/gfs/brick".to_owned() });
            let member = Member { uuid, hostname, other_names: Vec::new(), peer_port: 1, port: 2 };
            apply(&mut state, Command::AddMember { member }).expect("adds");
        }
        let new = NewVolume {
            name: "imap0".to_owned(),
            id: Uuid::from_u128(3),
            layout: Layout::Replicate { replica: 2, arbiter: 0 },
            bricks,
            force: false,
            username: Uuid::from_u128(4),
            password: Uuid::from_u128(5),
            created_ms: 0,
        };
        apply(&mut state, Command::CreateVolume(new)).expect("creates");
        state
    }

    #[test]
    fn keys_name_volfiles() {
        let get = |key: &str, trust| volfile(&state(), key, trust, Path::new("/d"));
        let client = get("imap0", Trust::Untrusted).expect("is there");
        assert!(!client.contains("option password"));
        assert_eq!(get("/imap0", Trust::Untrusted), Ok(client.clone()));
        assert_eq!(get("imap0.tcp", Trust::Untrusted), Ok(client));
        assert!(get("/imap0", Trust::Trusted).expect("is there").contains("option password"));
        assert!(get("shd/imap0", Trust::Trusted).expect("is there").contains("iam-self-heal-daemon"));
        let brick = get("imap0.gfs1.srv-gfs-brick", Trust::Trusted).expect("is there");
        assert!(brick.contains("type protocol/server"));
    }

    #[test]
    fn unknown_keys_are_errors() {
        let get = |key: &str| volfile(&state(), key, Trust::Trusted, Path::new("/d"));
        for key in ["nosuch", "shd/nosuch", "x/imap0", "imap0.gfs3.srv-gfs-brick", "rebalance/imap0"] {
            assert_eq!(get(key), Err(Errno::ENOENT), "{key}");
        }
        assert_eq!(get(""), Err(Errno::EINVAL));
    }
}
