//! The words of `mortar plan`: `replica=N [arbiter=1] bricks=BRICK,…`, a brick being `HOST:SIZE`, `SIZE` or `COUNTxSIZE`.

use mortar_logic::capacity::{self, Brick, Capacity, Copies};

/// More bricks than a volume of GlusterFS was ever seen with; a slip of the pen shall not fill the memory.
const BRICKS_MAX: usize = 4096;

/// A volume to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    pub copies: Copies,
    pub capacity: Capacity,
}

/// Reads the words and plans. An `Err` is what is wrong, in a sentence.
pub(crate) fn parse(words: &[String]) -> Result<Planned, String> {
    let (mut replica, mut arbiter, mut bricks) = (None, None, None);
    for word in words {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("{word}: give KEY=VALUE, such as replica=2"))?;
        let slot = match key {
            "replica" => &mut replica,
            "arbiter" => &mut arbiter,
            "bricks" => &mut bricks,
            _ => return Err(format!("{key}: there is replica=, arbiter= and bricks=")),
        };
        if slot.replace(value).is_some() {
            return Err(format!("{key} is given twice"));
        }
    }
    let copies = copies(replica, arbiter)?;
    let bricks = bricks_of(bricks.ok_or("say which bricks, such as bricks=gfs1:10G,gfs2:10G or bricks=4x10G")?)?;
    let capacity = capacity::plan(copies, &bricks).map_err(|error| error.to_string())?;
    Ok(Planned { copies, capacity })
}

/// As in `volume create`: replica 2 arbiter 1 and replica 3 arbiter 1 mean the same.
fn copies(replica: Option<&str>, arbiter: Option<&str>) -> Result<Copies, String> {
    let replica = match replica {
        None => 1,
        Some(text) => text.parse().map_err(|_| format!("replica={text}: give a number"))?,
    };
    match (replica, arbiter) {
        (replica, None | Some("0")) => Ok(Copies { replica, arbiter: false }),
        (2 | 3, Some("1")) => Ok(Copies { replica: 3, arbiter: true }),
        (_, Some("1")) => {
            Err("arbiter=1 goes with replica=2 or replica=3; the third brick of a set is the arbiter".into())
        }
        (_, Some(text)) => Err(format!("arbiter={text}: give 0 or 1")),
    }
}

fn bricks_of(list: &str) -> Result<Vec<Brick>, String> {
    let mut bricks = Vec::new();
    for word in list.split(',').filter(|word| !word.is_empty()) {
        let (host, size) = word.rsplit_once(':').map_or((None, word), |(host, size)| (Some(host), size));
        if host == Some("") {
            return Err(format!("{word}: no host before the colon"));
        }
        // Hosts that are not named are as many as there are bricks.
        let (count, size) = match (host, size.split_once('x')) {
            (None, Some((count, size))) => {
                (count.parse().map_err(|_| format!("{word}: {count} is no number of bricks"))?, size)
            }
            _ => (1, size),
        };
        let size_bytes = size_bytes(size).ok_or_else(|| format!("{word}: give a size such as 10G or 1.5T"))?;
        if count > BRICKS_MAX - bricks.len() {
            return Err(format!("more than {BRICKS_MAX} bricks"));
        }
        for _ in 0..count {
            let node = host.map_or_else(|| format!("host{}", bricks.len() + 1), str::to_owned);
            bricks.push(Brick { node, size_bytes });
        }
    }
    Ok(bricks)
}

/// `10G` and `10GiB` are 10 · 2^30 bytes, as lvcreate and `df -h` count; `10GB` are 10^10, as disks are sold.
fn size_bytes(text: &str) -> Option<u64> {
    let split = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let (letter, rest) = unit.split_at_checked(1).unwrap_or(("", ""));
    let power = match letter.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        "P" => 5,
        _ => return None,
    };
    let base: u64 = match (power, rest) {
        (0, "") | (_, "" | "iB" | "ib") => 1024,
        (_, "B" | "b") => 1000,
        _ => return None,
    };
    let unit = base.pow(power);
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let bytes = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    if part.is_empty() {
        return (bytes > 0).then_some(bytes);
    }
    let scale = 10_u128.pow(u32::try_from(part.len()).ok().filter(|digits| *digits <= 9)?);
    let part = u64::try_from(part.parse::<u128>().ok()? * u128::from(unit) / scale).ok()?;
    bytes.checked_add(part).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(usize, bool, u64, usize), String> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        parse(&words).map(|planned| {
            let capacity = planned.capacity;
            (planned.copies.replica, planned.copies.arbiter, capacity.usable_bytes, capacity.nodes)
        })
    }

    #[test]
    fn bricks_are_named_or_counted() {
        assert_eq!(check("replica=2 bricks=gfs1:10G,gfs2:10G"), Ok((2, false, 10 << 30, 2)));
        assert_eq!(check("bricks=4x10G replica=2"), Ok((2, false, 20 << 30, 4)));
        assert_eq!(check("bricks=fe80::1:10G,fe80::1:10G"), Ok((1, false, 20 << 30, 1)));
        assert_eq!(check("replica=2 arbiter=1 bricks=10G,10G,1G"), Ok((3, true, 10 << 30, 3)));
    }

    #[test]
    fn sizes_have_the_units_of_the_tools_and_of_the_shops() {
        assert_eq!(size_bytes("10G"), Some(10 << 30));
        assert_eq!(size_bytes("10GiB"), Some(10 << 30));
        assert_eq!(size_bytes("9GB"), Some(9_000_000_000));
        assert_eq!(size_bytes("1.5t"), Some(3 << 39));
        assert_eq!(size_bytes("512"), Some(512));
        for bad in ["", "G", "0", "-1G", "1.G5", "10Gx", "99999999P", "1..5G"] {
            assert_eq!(size_bytes(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn wrong_words_get_a_sentence() {
        for (words, says) in [
            ("replica=2", "say which bricks"),
            ("replica=2 bricks=3x1G", "add 1 or leave 1 away"),
            ("replica=2 replica=3 bricks=1G", "replica is given twice"),
            ("replica=4 arbiter=1 bricks=4x1G", "arbiter=1 goes with"),
            ("bricks=99999x1G", "more than 4096"),
            ("bricks=gfs1:big", "give a size"),
            ("spare=1", "there is replica="),
        ] {
            let error = check(words).unwrap_err();
            assert!(error.contains(says), "{words}: {error}");
        }
    }
}
