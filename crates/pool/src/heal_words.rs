//! Why something does not heal, in words, and what to do about it: the reasons of crate `volume` with the volume's, the
//! bricks' and the file's own names in them.

use mortar_logic::heal::name::Conflict;
use mortar_logic::pool::Brick;
use mortar_types::SubvolId;
use mortar_volume::heal::{Error, SplitBrain};

/// Names of a directory that are explained one by one.
const NAMES_MAX: usize = 3;

/// One replica set's bricks, as its reasons number them.
pub(crate) struct Words<'a> {
    pub(crate) volume: &'a str,
    pub(crate) bricks: &'a [Brick],
    /// Whether each of `bricks` answers.
    pub(crate) connected: &'a [bool],
    /// Whether heal daemons run for the volume.
    pub(crate) heals: bool,
}

impl Words<'_> {
    /// What is said of the entry that commands call `name` (a path, or `gfid:` and a gfid); `None`: it heals by itself.
    pub(crate) fn why(&self, name: &str, reason: Option<&Error>) -> Option<String> {
        match reason {
            Some(Error::SplitBrain(split_brain)) => Some(self.split_brain(name, split_brain)),
            Some(Error::OnlyArbiterIsGood) => Some(format!(
                "only the arbiter has seen every write, and it holds no content: it heals when the brick with the good \
                 copy is back; if that is lost for ever, replace it (mortar volume replace-brick {} …) and restore the file",
                self.volume
            )),
            Some(Error::Fop { child, fop, errno }) if self.is_connected(*child) => Some(format!(
                "{} answers {} with \"{}\": look at that brick's log and disk; it heals when this is mended",
                self.brick(*child),
                fop.label(),
                errno.text()
            )),
            Some(Error::NotAllUp | Error::Fop { .. }) => Some(self.down()),
            _ if !self.heals => Some(format!(
                "the self-heal daemon is off for this volume; turn it on: mortar volume heal {} enable",
                self.volume
            )),
            Some(error) => Some(format!("{error}; this passes by itself")),
            None => None,
        }
    }

    fn split_brain(&self, name: &str, split_brain: &SplitBrain) -> String {
        let settle = format!("mortar volume heal {} split-brain", self.volume);
        match split_brain {
            SplitBrain::Data => format!(
                "{split_brain}; choose the copy to keep: {settle} latest-mtime {name}, or bigger-file {name}, or \
                 source-brick HOST:BRICK {name}, where the brick is one of {}",
                self.sources()
            ),
            SplitBrain::Metadata => format!(
                "{split_brain}; choose the copy to keep: {settle} latest-mtime {name}, or source-brick HOST:BRICK {name}, \
                 where the brick is one of {}",
                self.sources()
            ),
            SplitBrain::Type => format!(
                "its type differs between bricks, and no rule chooses between kinds: move one of them away on its brick, \
                 with its hard link in .glusterfs, then: mortar volume heal {}",
                self.volume
            ),
            SplitBrain::Names(names) => {
                let shown = names.iter().take(NAMES_MAX);
                let told = shown.map(|(entry, conflict)| {
                    let entry = String::from_utf8_lossy(entry);
                    self.conflict(&settle, &format!("{}/{entry}", name.trim_end_matches('/')), *conflict)
                });
                let mut told = told.collect::<Vec<_>>().join("; ");
                if names.len() > NAMES_MAX {
                    told += &format!("; and {} more names", names.len() - NAMES_MAX);
                }
                told
            }
        }
    }

    fn conflict(&self, settle: &str, path: &str, conflict: Conflict) -> String {
        match conflict {
            Conflict::Gfid { one, other } => {
                let (one, other) = (self.brick(one), self.brick(other));
                format!(
                    "{path} is one file on {one} and another on {other}: choose the one to keep: {settle} \
                     source-brick {one} {path} (or {other}), or latest-mtime {path}, or bigger-file {path}"
                )
            }
            Conflict::Type { one, other } => {
                let (one, other) = (self.brick(one), self.brick(other));
                format!(
                    "{path} has one type on {one} and another on {other}: keep the directory, if one is: {settle} \
                     source-brick {one} {path} (or {other})"
                )
            }
            Conflict::NoGfid => format!("{path} has no gfid on any brick: look it up through a mount"),
            Conflict::NoAnswer { child, errno } => {
                format!("{} does not say what {path} is ({}): look at its log", self.brick(child), errno.text())
            }
        }
    }

    fn down(&self) -> String {
        let down = self.bricks.iter().zip(self.connected).filter(|(_, connected)| !**connected);
        let down: Vec<String> = down.map(|(brick, _)| format!("{}:{}", brick.host, brick.path)).collect();
        if down.is_empty() {
            return "a brick did not answer just now; ask again".to_owned();
        }
        format!(
            "{} does not answer, and heal needs all bricks of the replica set: it heals when the brick is back (see: mortar \
             volume status {})",
            down.join(", "),
            self.volume
        )
    }

    fn is_connected(&self, child: SubvolId) -> bool {
        self.connected.get(child.0).copied().unwrap_or(false)
    }

    fn brick(&self, child: SubvolId) -> String {
        self.bricks
            .get(child.0)
            .map_or_else(|| format!("brick {}", child.0), |brick| format!("{}:{}", brick.host, brick.path))
    }

    fn sources(&self) -> String {
        let with_content = self.bricks.iter().filter(|brick| !brick.arbiter);
        with_content.map(|brick| format!("{}:{}", brick.host, brick.path)).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use mortar_types::{Errno, FopKind};
    use uuid::Uuid;

    use super::*;

    fn brick(host: &str, arbiter: bool) -> Brick {
        Brick {
            host: host.into(),
            node: Uuid::nil(),
            path: "/b".into(),
            brick_id: String::new(),
            arbiter,
            decommissioned: false,
            reset: false,
        }
    }

    fn why(connected: [bool; 3], heals: bool, reason: Option<&Error>) -> Option<String> {
        let bricks = [brick("one", false), brick("two", false), brick("three", true)];
        Words { volume: "vol", bricks: &bricks, connected: &connected, heals }.why("/dir", reason)
    }

    const UP: [bool; 3] = [true; 3];

    fn says(reason: &Error, words: &[&str]) {
        let told = why(UP, true, Some(reason)).unwrap();
        assert!(words.iter().all(|word| told.contains(word)), "{told}");
    }

    #[test]
    fn split_content_names_the_commands_and_the_bricks_that_have_content() {
        let told = why(UP, true, Some(&Error::SplitBrain(SplitBrain::Data))).unwrap();
        assert!(told.contains("mortar volume heal vol split-brain latest-mtime /dir, or bigger-file /dir"), "{told}");
        assert!(told.ends_with("one of one:/b, two:/b"), "no arbiter: {told}");
    }

    #[test]
    fn bigger_file_is_not_advised_where_sizes_say_nothing() {
        let told = why(UP, true, Some(&Error::SplitBrain(SplitBrain::Metadata))).unwrap();
        assert!(told.contains("latest-mtime /dir") && !told.contains("bigger-file"), "{told}");
    }

    #[test]
    fn names_that_are_two_files_are_told_by_path_and_brick() {
        let gfid = Conflict::Gfid { one: SubvolId(0), other: SubvolId(1) };
        let names = |count| (0..count).map(|number| (format!("n{number}").into(), gfid)).collect();
        says(
            &Error::SplitBrain(SplitBrain::Names(names(1))),
            &["/dir/n0 is one file on one:/b and another on two:/b", "split-brain source-brick one:/b /dir/n0"],
        );
        says(&Error::SplitBrain(SplitBrain::Names(names(5))), &["/dir/n2", "and 2 more names"]);
    }

    #[test]
    fn a_brick_that_is_down_is_named() {
        let told = why([true, false, true], true, Some(&Error::NotAllUp)).unwrap();
        assert!(told.starts_with("two:/b does not answer") && told.contains("volume status vol"), "{told}");
        let failed = Error::fop(SubvolId(1), FopKind::Lookup, Errno::EIO);
        says(&failed, &["two:/b answers", "Input/output error", "log and disk"]);
    }

    #[test]
    fn only_what_does_not_heal_by_itself_is_explained() {
        assert_eq!(why(UP, true, None), None);
        assert!(why(UP, false, None).unwrap().contains("mortar volume heal vol enable"));
        says(&Error::Busy, &["passes by itself"]);
        says(&Error::OnlyArbiterIsGood, &["only the arbiter", "replace-brick vol"]);
    }
}
