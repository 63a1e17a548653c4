//! Named sets of options, for `volume set VOL group NAME`.
//!
//! The files are lines of `KEY=VALUE`. Those named as GlusterFS's hold the same settings as the ones that it installs in
//! `/var/lib/glusterd/groups`; `mail` is ours (docs/groups.md says what it does and why).

/// Name and text of each set that comes with the program.
const BUILT_IN: &[(&str, &str)] = &[
    ("db-workload", include_str!("groups/db-workload")),
    ("distributed-virt", include_str!("groups/distributed-virt")),
    ("gluster-block", include_str!("groups/gluster-block")),
    ("mail", include_str!("groups/mail")),
    ("metadata-cache", include_str!("groups/metadata-cache")),
    ("nl-cache", include_str!("groups/nl-cache")),
    ("samba", include_str!("groups/samba")),
    ("virt", include_str!("groups/virt")),
];

/// A set that comes with the program.
pub fn built_in(name: &str) -> Option<&'static str> {
    BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

pub fn names() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, _)| *name)
}

/// A line of a set that is not `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {number} is not KEY=VALUE: {line}")]
pub struct BadLine {
    pub number: usize,
    pub line: String,
}

/// The options of a set; empty lines and those that begin with `#` say nothing.
///
/// # Errors
/// The first line that makes no sense.
pub fn parse(text: &str) -> Result<Vec<(String, String)>, BadLine> {
    let lines = text.lines().map(str::trim).enumerate();
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(index, line)| match line.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
            _ => Err(BadLine { number: index + 1, line: line.to_owned() }),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{BadLine, built_in, names, parse};
    use crate::pool::{Command, Layout, Member, NewBrick, NewVolume, State, apply, check};

    fn volume(layout: Layout) -> State {
        let mut state = State::default();
        let mut bricks = Vec::new();
        for number in 1..=2 {
            let uuid = Uuid::from_u128(number);
            let hostname = format!("node{number}");
            bricks.push(NewBrick { host: hostname.clone(), node: Some(uuid), path: "/b".to_owned() });
            let member = Member { uuid, hostname, other_names: Vec::new(), peer_port: 1, port: 2 };
            apply(&mut state, Command::AddMember { member }).expect("adds");
        }
        let new = NewVolume::for_test(layout, bricks);
        apply(&mut state, Command::CreateVolume(new)).expect("creates");
        state
    }

    #[test]
    fn every_set_can_be_set() {
        let state = volume(Layout::Replicate { replica: 2, arbiter: 0 });
        for name in names() {
            let options = parse(built_in(name).expect("is there")).expect("parses");
            assert!(!options.is_empty());
            let set = Command::SetOptions { volume: "v".to_owned(), options };
            check(&state, &set).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        }
    }

    #[test]
    fn lines_are_settings_or_notes() {
        let parsed = parse("# a note\n\n a.b = x=y \n").expect("parses");
        assert_eq!(parsed, [("a.b".to_owned(), "x=y".to_owned())]);
        assert_eq!(parse("a.b=1\nrubbish"), Err(BadLine { number: 2, line: "rubbish".to_owned() }));
    }

    /// What the expression makes of a name: what is hashed in its place. Group 1, as in `dht_munge_name`.
    fn hashed(name: &str) -> String {
        let options = parse(built_in("mail").expect("is there")).expect("parses");
        let (_, expression) = options.iter().find(|(key, _)| key == "cluster.extra-hash-regex").expect("is set");
        let expression = regex::Regex::new(expression).expect("is an expression");
        expression.captures(name).and_then(|found| found.get(1)).map_or(name, |part| part.as_str()).to_owned()
    }

    #[test]
    fn a_message_keeps_its_hash_through_its_life() {
        let base = "1700000000.M12P34.kolab";
        for name in ["", ":2,", ":2,S", ":2,FRS", ",S=1234,W=1260", ",S=1234,W=1260:2,Sa"] {
            assert_eq!(hashed(&format!("{base}{name}")), base);
        }
        assert_eq!(hashed("cyrus.index.NEW"), "cyrus.index");
        for name in ["cyrus.index", "123.", "Re: report, final", "dovecot.index.log", "a:b", "17:00"] {
            assert_eq!(hashed(name), name);
        }
    }
}
