//! Where a name lies on the ring: Davies-Meyer over a TEA-like round (`libglusterfs/src/hashfn.c` gf_dm_hashfn), after
//! the parts of the name that must not count are cut off (`dht-hashfn.c` dht_hash_compute).

use regex::bytes::{Regex, RegexBuilder};

const DELTA: u32 = 0x9E37_79B9;
const FULL_BLOCK_ROUNDS: u32 = 6;
const LAST_BLOCK_ROUNDS: u32 = 10;
/// GlusterFS's default of `cluster.rsync-hash-regex`: `.NAME.SUFFIX`, rsync's temporary file, lies where `NAME` does.
pub const RSYNC_DEFAULT: &str = r"^\.(.+)\.[^.]+$";

struct State {
    h0: u32,
    h1: u32,
}

impl State {
    fn mix(&mut self, rounds: u32, key: [u32; 4]) {
        let (mut b0, mut b1, mut sum) = (self.h0, self.h1, 0_u32);
        for _ in 0..rounds {
            sum = sum.wrapping_add(DELTA);
            b0 =
                b0.wrapping_add((b1 << 4).wrapping_add(key[0]) ^ b1.wrapping_add(sum) ^ (b1 >> 5).wrapping_add(key[1]));
            b1 =
                b1.wrapping_add((b0 << 4).wrapping_add(key[2]) ^ b0.wrapping_add(sum) ^ (b0 >> 5).wrapping_add(key[3]));
        }
        self.h0 = self.h0.wrapping_add(b0);
        self.h1 = self.h1.wrapping_add(b1);
    }
}

/// The hash of bytes as an x86-64 GlusterFS computes it: bytes that do not fill a word are signed there, and clients of
/// one volume must agree.
pub fn davies_meyer(bytes: &[u8]) -> u32 {
    let mut state = State { h0: 0x9464_a485, h1: 0x542e_1a94 };
    let (blocks, rest) = bytes.as_chunks::<16>();
    for block in blocks {
        let (words, _) = block.as_chunks::<4>();
        state.mix(FULL_BLOCK_ROUNDS, std::array::from_fn(|at| u32::from_le_bytes(words[at])));
    }
    state.mix(LAST_BLOCK_ROUNDS, last_block(rest, bytes.len() as u32));
    state.h0 ^ state.h1
}

/// Whole words first, then the left-over bytes shifted into the padding, then padding made of the length.
fn last_block(rest: &[u8], len: u32) -> [u32; 4] {
    let pad = len | len.wrapping_shl(8);
    let pad = pad | pad.wrapping_shl(16);
    let (words, tail) = rest.as_chunks::<4>();
    let mut key = [pad; 4];
    for (slot, word) in key.iter_mut().zip(words) {
        *slot = u32::from_le_bytes(*word);
    }
    if let Some(slot) = key.get_mut(words.len()) {
        for byte in tail {
            let signed = i32::from(byte.cast_signed()).cast_unsigned();
            *slot = (*slot << 8) | signed;
        }
    }
    key
}

/// The pattern is not a regular expression.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{pattern:?} is not a regular expression")]
pub struct BadPattern {
    pub pattern: String,
}

/// Which part of a name is hashed (`cluster.rsync-hash-regex`, `cluster.extra-hash-regex`). All clients of a volume
/// must have the same, or they look for files in different places.
#[derive(Clone, Debug)]
pub struct NameHash {
    extra: Option<Regex>,
    rsync: Rsync,
}

#[derive(Clone, Debug)]
enum Rsync {
    Off,
    /// [`RSYNC_DEFAULT`], without the cost of an expression: this runs for every name.
    Default,
    Other(Regex),
}

impl Default for NameHash {
    fn default() -> Self {
        Self { extra: None, rsync: Rsync::Default }
    }
}

impl NameHash {
    /// From the two options' values; `None` is the default, `none` switches a pattern off.
    pub fn new(rsync: Option<&str>, extra: Option<&str>) -> Result<Self, BadPattern> {
        let rsync = match rsync {
            None | Some(RSYNC_DEFAULT) => Rsync::Default,
            Some("none") => Rsync::Off,
            Some(pattern) => Rsync::Other(compile(pattern)?),
        };
        let extra = extra.filter(|pattern| *pattern != "none").map(compile).transpose()?;
        Ok(Self { extra, rsync })
    }

    /// The place of a name on the ring.
    pub fn of(&self, name: &[u8]) -> u32 {
        davies_meyer(self.hashed_part(name))
    }

    /// The first group of the first pattern that matches, when it is shorter than the name; otherwise the name.
    pub fn hashed_part<'n>(&self, name: &'n [u8]) -> &'n [u8] {
        let extra = self.extra.as_ref().and_then(|pattern| first_group(pattern, name));
        extra
            .or_else(|| match &self.rsync {
                Rsync::Off => None,
                Rsync::Default => rsync_group(name),
                Rsync::Other(pattern) => first_group(pattern, name),
            })
            .unwrap_or(name)
    }
}

/// Bytes, not characters: GlusterFS matches in the C locale.
fn compile(pattern: &str) -> Result<Regex, BadPattern> {
    RegexBuilder::new(pattern)
        .unicode(false)
        .dot_matches_new_line(true)
        .build()
        .map_err(|_| BadPattern { pattern: pattern.to_owned() })
}

fn first_group<'n>(pattern: &Regex, name: &'n [u8]) -> Option<&'n [u8]> {
    let group = pattern.captures(name)?.get(1)?;
    (!group.is_empty() && group.len() < name.len()).then_some(group.as_bytes())
}

/// What [`RSYNC_DEFAULT`] captures.
fn rsync_group(name: &[u8]) -> Option<&[u8]> {
    let inner = name.strip_prefix(b".")?;
    let dot = inner.iter().rposition(|byte| *byte == b'.')?;
    let (group, suffix) = (inner.get(..dot)?, inner.get(dot + 1..)?);
    (!group.is_empty() && !suffix.is_empty()).then_some(group)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unhex(text: &str) -> Vec<u8> {
        text.as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn vectors_of_glusterfs_hash_as_there() {
        let names = NameHash::default();
        let mut seen = 0;
        for line in
            include_str!("../../tests/fixtures/dht-hash-vectors.tsv").lines().filter(|line| !line.starts_with('#'))
        {
            let mut fields = line.split('\t');
            let (name, hash) = (unhex(fields.next().unwrap()), fields.next().unwrap());
            assert_eq!(format!("{:08x}", names.of(&name)), hash, "{}", String::from_utf8_lossy(&name));
            seen += 1;
        }
        assert!(seen > 20);
    }

    #[test]
    fn left_over_bytes_are_signed() {
        assert_eq!(davies_meyer("é".as_bytes()), 0x65cf_caa1);
    }

    #[test]
    fn temporary_names_of_rsync_hash_as_the_final_ones() {
        let names = NameHash::default();
        assert_eq!(names.hashed_part(b".foo.txt.XXXXXX"), b"foo.txt");
        for whole in [&b".foo"[..], b"..x", b".foo.", b"foo.bar", b"", b"."] {
            assert_eq!(names.hashed_part(whole), whole);
        }
        assert_eq!(NameHash::new(Some("none"), None).unwrap().hashed_part(b".foo.x"), b".foo.x");
    }

    #[test]
    fn an_extra_pattern_comes_first_and_falls_back() {
        let names = NameHash::new(None, Some("^(.+):2,[A-Za-z]*$")).unwrap();
        assert_eq!(names.of(b"1700.M1P2.host:2,S"), names.of(b"1700.M1P2.host:2,RS"));
        assert_eq!(names.hashed_part(b".foo.txt.X"), b"foo.txt");
        assert!(NameHash::new(None, Some("(")).is_err());
    }

    proptest! {
        #[test]
        fn the_built_in_pattern_is_the_expression(name in "[.a\n]{0,8}") {
            let slow = first_group(&compile(RSYNC_DEFAULT).unwrap(), name.as_bytes());
            prop_assert_eq!(rsync_group(name.as_bytes()), slow);
        }

        #[test]
        fn any_bytes_hash(name in proptest::collection::vec(any::<u8>(), 0..300)) {
            NameHash::default().of(&name);
        }
    }
}
