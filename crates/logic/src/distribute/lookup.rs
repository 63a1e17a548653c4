//! What the answers of all subvolumes about one name add up to (`dht-common.c` dht_lookup_everywhere_done).

use mortar_types::{Errno, Gfid, SubvolId, SubvolMap};

/// One subvolume's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    Directory {
        gfid: Gfid,
    },
    /// Data, or anything else that is not a directory.
    File {
        gfid: Gfid,
    },
    /// A link file; `target` as its xattr says, `None` when no such subvolume is known.
    Link {
        gfid: Gfid,
        target: Option<SubvolId>,
        is_open: bool,
    },
    Absent,
    Failed(Errno),
}

/// What the name is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    Nothing,
    Directory,
    File {
        at: SubvolId,
    },
    /// It may be where nobody answers, or what it is cannot be said.
    Unknown(Errno),
}

/// What is to be tidied up at the hashed subvolume so that the next lookup is one round trip.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pointer {
    /// As it should be, or nobody can tell.
    Right,
    /// A link file is to be made.
    Make,
    /// A wrong one is to be replaced.
    Replace,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Findings {
    pub found: Found,
    pub pointer: Pointer,
    /// Link files that lead nowhere, and that nobody has open.
    pub stale: Vec<SubvolId>,
}

/// Judges. `hashed` is where the name should be; `None` in a layout's hole.
pub fn everywhere(answers: &SubvolMap<Answer>, hashed: Option<SubvolId>) -> Findings {
    let nothing_to_do = |found| Findings { found, pointer: Pointer::Right, stale: Vec::new() };
    let directories = answers.iter().filter(|(_, answer)| matches!(answer, Answer::Directory { .. })).count();
    let file = |preferred: bool| {
        answers.iter().find_map(|(id, answer)| match answer {
            Answer::File { gfid } if !preferred || Some(id) == hashed => Some((id, *gfid)),
            _ => None,
        })
    };
    // Twice the same file: a move was interrupted. The hashed place is where everybody looks first.
    let file = file(true).or_else(|| file(false));
    let failed = answers.iter().find_map(|(_, answer)| match answer {
        Answer::Failed(errno) => Some(*errno),
        _ => None,
    });
    match (directories > 0, file) {
        (true, Some(_)) => return nothing_to_do(Found::Unknown(Errno::EIO)),
        (true, None) => return nothing_to_do(Found::Directory),
        (false, _) => {}
    }
    let closed_links = |keep: Option<SubvolId>| {
        let stale = |(id, answer): (SubvolId, &Answer)| match answer {
            Answer::Link { is_open: false, .. } if Some(id) != keep => Some(id),
            _ => None,
        };
        answers.iter().filter_map(stale).collect::<Vec<_>>()
    };
    let Some((at, gfid)) = file else {
        // A link file may point to a file on a subvolume that does not answer.
        return match failed {
            Some(errno) => nothing_to_do(Found::Unknown(errno)),
            None => Findings { found: Found::Nothing, pointer: Pointer::Right, stale: closed_links(None) },
        };
    };
    let other = answers.iter().any(|(_, answer)| matches!(answer, Answer::File { gfid: other } if *other != gfid));
    let found = Found::File { at };
    // Two different files under one name, or somebody silent: nothing is removed.
    if other || failed.is_some() {
        return nothing_to_do(found);
    }
    let pointer = match hashed.map(|hashed| &answers[hashed]) {
        _ if hashed.is_none() || hashed == Some(at) => Pointer::Right,
        Some(Answer::Link { gfid: linked, target, .. }) if *linked == gfid && *target == Some(at) => Pointer::Right,
        Some(Answer::Link { is_open: false, .. }) => Pointer::Replace,
        Some(Answer::Absent) => Pointer::Make,
        _ => Pointer::Right,
    };
    Findings { found, pointer, stale: closed_links(hashed) }
}

/// What is known when the hashed subvolume says that a name is not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trust {
    pub subvolumes: usize,
    /// `cluster.lookup-optimize`.
    pub optimize: bool,
    /// `cluster.lookup-unhashed` is not off.
    pub unhashed: bool,
    /// The layout's and the volume's commit hashes, read no earlier than the layout was.
    pub layout_commit: u32,
    pub volume_commit: u32,
    /// Every subvolume that takes part has its range, nobody else has one.
    pub spans: bool,
}

/// Whether others must be asked (`dht_should_lookup_everywhere`).
pub const fn asks_everywhere(trust: &Trust) -> bool {
    if trust.subvolumes <= 1 {
        return false;
    }
    if trust.optimize {
        return !(trust.spans
            && trust.layout_commit == trust.volume_commit
            && trust.layout_commit != super::layout::COMMIT_INVALID);
    }
    trust.unhashed
}

#[cfg(test)]
mod tests {
    use super::*;

    const GFID: Gfid = Gfid([7; 16]);
    const OTHER: Gfid = Gfid([8; 16]);

    fn judge(answers: &[Answer]) -> Findings {
        everywhere(&answers.to_vec().into(), Some(SubvolId(0)))
    }

    const fn link(target: usize, is_open: bool) -> Answer {
        Answer::Link { gfid: GFID, target: Some(SubvolId(target)), is_open }
    }

    const FILE: Answer = Answer::File { gfid: GFID };

    #[test]
    fn a_misplaced_file_gets_a_pointer() {
        let findings = judge(&[Answer::Absent, FILE]);
        assert_eq!((findings.found, findings.pointer), (Found::File { at: SubvolId(1) }, Pointer::Make));
        assert_eq!(judge(&[link(1, false), FILE]).pointer, Pointer::Right);
        assert_eq!(judge(&[link(2, false), FILE, Answer::Absent]).pointer, Pointer::Replace);
        assert_eq!(judge(&[link(2, true), FILE, Answer::Absent]).pointer, Pointer::Right);
        assert_eq!(judge(&[FILE, Answer::Absent]).pointer, Pointer::Right);
    }

    #[test]
    fn links_to_nothing_are_stale_unless_open_or_somebody_is_silent() {
        let findings = judge(&[link(1, false), Answer::Absent]);
        assert_eq!((findings.found, findings.stale), (Found::Nothing, vec![SubvolId(0)]));
        assert!(judge(&[link(1, true), Answer::Absent]).stale.is_empty());
        let silent = judge(&[link(1, false), Answer::Failed(Errno::ENOTCONN)]);
        assert_eq!((silent.found, silent.stale.len()), (Found::Unknown(Errno::ENOTCONN), 0));
        assert_eq!(judge(&[FILE, link(0, false)]).stale, [SubvolId(1)]);
    }

    #[test]
    fn a_file_and_a_directory_of_one_name_are_an_error() {
        let directory = Answer::Directory { gfid: OTHER };
        assert_eq!(judge(&[directory.clone(), FILE]).found, Found::Unknown(Errno::EIO));
        assert_eq!(judge(&[Answer::Absent, directory]).found, Found::Directory);
    }

    #[test]
    fn two_copies_are_served_from_the_hashed_place_and_two_files_touch_nothing() {
        assert_eq!(judge(&[FILE, FILE]).found, Found::File { at: SubvolId(0) });
        let findings = judge(&[link(2, false), FILE, Answer::File { gfid: OTHER }]);
        assert_eq!((findings.pointer, findings.stale.len()), (Pointer::Right, 0));
    }

    #[test]
    fn only_a_layout_of_the_volume_s_commit_hash_is_trusted() {
        let trust =
            Trust { subvolumes: 2, optimize: true, unhashed: true, layout_commit: 5, volume_commit: 5, spans: true };
        assert!(!asks_everywhere(&trust));
        assert!(asks_everywhere(&Trust { volume_commit: 6, ..trust }));
        assert!(asks_everywhere(&Trust { spans: false, ..trust }));
        assert!(asks_everywhere(&Trust { layout_commit: 1, volume_commit: 1, ..trust }));
        assert!(asks_everywhere(&Trust { optimize: false, ..trust }));
        assert!(!asks_everywhere(&Trust { optimize: false, unhashed: false, ..trust }));
        assert!(!asks_everywhere(&Trust { subvolumes: 1, volume_commit: 6, ..trust }));
    }
}
