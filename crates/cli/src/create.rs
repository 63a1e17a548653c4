//! The words of `volume create` (GlusterFS `cli/src/cli-cmd-parser.c: cli_cmd_volume_create_parse`).

use mortar_api::volume::{BrickRef, Create, Layout};

/// Why the words do not describe a volume. The text is what the CLI prints before the usage line; empty: usage only.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CreateError(pub String);

fn refuse<T>(text: impl Into<String>) -> Result<T, CreateError> {
    Err(CreateError(text.into()))
}

#[derive(Default)]
struct Counts {
    replica: Option<u32>,
    arbiter: Option<u32>,
    disperse: Option<Option<u32>>,
    disperse_data: Option<u32>,
    redundancy: Option<u32>,
}

/// From the volume's name and the words after it.
pub fn parse(name: &str, words: &[String]) -> Result<Create, CreateError> {
    check_name(name)?;
    let (words, force) = match words.split_last() {
        Some((last, front)) if last == "force" => (front, true),
        _ => (words, false),
    };
    let mut counts = Counts::default();
    let mut at = 0;
    while let Some(taken) = counts.take(&words[at..])? {
        at += taken;
    }
    let bricks = words[at..].iter().map(|word| brick(word)).collect::<Result<Vec<_>, _>>()?;
    if bricks.is_empty() {
        return refuse("");
    }
    for (position, brick) in bricks.iter().enumerate() {
        if bricks[..position].contains(brick) {
            return refuse(format!("Found duplicate exports {brick}"));
        }
    }
    let layout = counts.layout(bricks.len())?;
    Ok(Create { name: name.to_owned(), layout, bricks, force })
}

fn check_name(name: &str) -> Result<(), CreateError> {
    if name == "all" {
        return refuse("\"all\" cannot be the name of a volume.");
    }
    if name.starts_with('-') {
        return refuse("Volume name cannot start with \"-\"");
    }
    if name.len() > 255 {
        return refuse("Volname can not exceed 255 characters.");
    }
    if name.contains('/') {
        return refuse("");
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')) {
        return refuse(
            "Volume name should not contain \"~`!@#$%^&*()+={}[]|:;'<>,.?/ or whitespace; use letters, digits, - and _.",
        );
    }
    Ok(())
}

/// `HOST:/absolute/path`; the last colon before the path splits, so that IPv6 hosts work.
pub fn brick(word: &str) -> Result<BrickRef, CreateError> {
    let wrong = || CreateError(format!("Wrong brick type: {word}, use <HOSTNAME>:<export-dir-abs-path>"));
    let split = word.find(":/").ok_or_else(wrong)?;
    let (host, path) = (&word[..split], &word[split + 1..]);
    if host.is_empty() || path.len() < 2 || path.contains('\0') {
        return Err(wrong());
    }
    if path.split('/').any(|part| part == ".." || part == ".") {
        return refuse(format!("{word}: the brick path must not contain \".\" or \"..\""));
    }
    let path = path.split('/').filter(|part| !part.is_empty()).fold(String::new(), |whole, part| whole + "/" + part);
    Ok(BrickRef { host: host.to_owned(), path })
}

impl Counts {
    /// Takes one option and its value from the front; how many words, or `None` where the bricks begin.
    fn take(&mut self, words: &[String]) -> Result<Option<usize>, CreateError> {
        let Some(word) = words.first() else { return Ok(None) };
        let value = words.get(1).map(String::as_str);
        match word.as_str() {
            "replica" => once(&mut self.replica, number(value, "replica")?, "replica")?,
            "arbiter" => once(&mut self.arbiter, number(value, "arbiter")?, "arbiter")?,
            "disperse-data" => once(&mut self.disperse_data, number(value, "disperse-data")?, "disperse-data")?,
            "redundancy" => once(&mut self.redundancy, number(value, "redundancy")?, "redundancy")?,
            "disperse" => match value.map(str::parse) {
                Some(Ok(count)) => once(&mut self.disperse, Some(count), "disperse")?,
                _ => {
                    once(&mut self.disperse, None, "disperse")?;
                    return Ok(Some(1));
                }
            },
            "transport" => match value {
                Some("tcp") => {}
                Some(other) => {
                    return refuse(format!("transport {other} is not served: Mortar speaks tcp only"));
                }
                None => return refuse("missing value for transport"),
            },
            "thin-arbiter" => return refuse("thin-arbiter volumes are not served; use arbiter 1 or replica 3"),
            "stripe" => return refuse("stripe option not supported"),
            _ => return Ok(None),
        }
        Ok(Some(2))
    }

    fn layout(&self, bricks: usize) -> Result<Layout, CreateError> {
        if self.disperse.is_some() || self.disperse_data.is_some() || self.redundancy.is_some() {
            if self.replica.is_some() {
                return refuse("replicated-dispersed volume is not supported");
            }
            return self.disperse_layout(bricks);
        }
        let arbiter = self.arbiter.unwrap_or(0);
        match self.replica {
            None if self.arbiter.is_some() => refuse("arbiter option must be preceded by replica"),
            None => Ok(Layout::Distribute),
            Some(replica) if replica < 2 => refuse("replica count should be greater than 1"),
            Some(_) if arbiter > 1 => refuse(
                "For arbiter configuration, replica count must be 2 and arbiter count must be 1. The 3rd brick of the replica will be the arbiter",
            ),
            // "replica 2 arbiter 1" and "replica 3 arbiter 1" mean the same: the third brick is the arbiter.
            Some(2) if arbiter == 1 => Ok(Layout::Replicate { replica: 3, arbiter }),
            Some(replica) if arbiter == 1 && replica != 3 => refuse(
                "For arbiter configuration, replica count must be 2 and arbiter count must be 1. The 3rd brick of the replica will be the arbiter",
            ),
            Some(replica) => Ok(Layout::Replicate { replica, arbiter }),
        }
    }

    fn disperse_layout(&self, bricks: usize) -> Result<Layout, CreateError> {
        let bricks = u32::try_from(bricks).unwrap_or(u32::MAX);
        let total = match (self.disperse.flatten(), self.disperse_data) {
            (Some(count), _) => count,
            (None, Some(data)) => data.saturating_add(self.redundancy.unwrap_or(0)),
            (None, None) => bricks,
        };
        if total < 3 {
            return refuse("disperse count must be greater than 2\ndisperse option given twice");
        }
        let redundancy = self.redundancy.unwrap_or_else(|| match self.disperse_data {
            Some(data) => total.saturating_sub(data),
            None => 1,
        });
        if redundancy < 1 || redundancy.saturating_mul(2) >= total {
            let below = total.div_ceil(2);
            return refuse(format!(
                "redundancy must be greater than or equal to 1 and less than {below} for a disperse {total} volume"
            ));
        }
        Ok(Layout::Disperse { data: total - redundancy, redundancy })
    }
}

fn once<T>(slot: &mut Option<T>, value: T, name: &str) -> Result<(), CreateError> {
    if slot.is_some() {
        return refuse(format!("{name} option given twice"));
    }
    *slot = Some(value);
    Ok(())
}

fn number(value: Option<&str>, name: &str) -> Result<u32, CreateError> {
    match value.map(str::parse) {
        Some(Ok(number)) => Ok(number),
        Some(Err(_)) => refuse(format!("{name} count must be a number")),
        None => refuse(format!("missing value for {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(Layout, usize, bool), String> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        parse("imap0", &words)
            .map(|create| (create.layout, create.bricks.len(), create.force))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_howto_line_is_a_replica_two() {
        let layout = Layout::Replicate { replica: 2, arbiter: 0 };
        assert_eq!(check("replica 2 gfs1:/srv/gfs/brick gfs2:/srv/gfs/brick"), Ok((layout, 2, false)));
    }

    #[test]
    fn arbiter_is_the_third_brick_in_both_spellings() {
        let layout = Layout::Replicate { replica: 3, arbiter: 1 };
        assert_eq!(check("replica 2 arbiter 1 a:/b c:/d e:/f force"), Ok((layout, 3, true)));
        assert_eq!(check("replica 3 arbiter 1 transport tcp a:/b c:/d e:/f"), Ok((layout, 3, false)));
    }

    #[test]
    fn wrong_words_are_refused_in_glusterfs_words() {
        let wrong = "Wrong brick type: node1:relative, use <HOSTNAME>:<export-dir-abs-path>";
        assert_eq!(check("node1:relative"), Err(wrong.into()));
        assert_eq!(check("replica 2"), Err(String::new()));
        assert_eq!(check("replica two a:/b"), Err("replica count must be a number".into()));
        assert_eq!(check("replica 2 replica 2 a:/b"), Err("replica option given twice".into()));
        assert_eq!(check("a:/b/../c"), Err("a:/b/../c: the brick path must not contain \".\" or \"..\"".into()));
        assert_eq!(
            check("disperse 4 redundancy 2 a:/b a:/c a:/d a:/e"),
            Err("redundancy must be greater than or equal to 1 and less than 2 for a disperse 4 volume".into())
        );
        assert_eq!(check("a:/b a:/b"), Err("Found duplicate exports a:/b".into()));
    }

    #[test]
    fn slashes_in_brick_paths_are_tidied_and_ipv6_hosts_split_at_the_path() {
        assert_eq!(brick("fe80::1://srv//gfs/").unwrap(), BrickRef { host: "fe80::1".into(), path: "/srv/gfs".into() });
    }
}
