//! "Did you mean …": the nearest option names.
//!
//! GlusterFS measures edit distance over a trie of the names' first words, then over one of the second words below the
//! winner, and names up to two equally near ones (`libglusterfs/src/trie.c`, `glusterd-volgen.c: volopt_trie`). A trie
//! walked in byte order meets words in sorted order, so a sorted set does the same here.

use std::collections::BTreeSet;

use super::options;

/// The text behind "Did you mean ", such as `nfs.acl or ...drc`.
pub fn did_you_mean(typed: &str) -> Option<String> {
    let Some((domain, rest)) = typed.split_once('.') else {
        let words: BTreeSet<&str> = options::all().iter().filter_map(|known| second_word(known.key)).collect();
        return joined(&nearest(typed, &words), "");
    };
    let domains: BTreeSet<&str> = options::all().iter().filter_map(|known| known.key.split('.').next()).collect();
    let domain = *nearest(domain, &domains).first()?;
    let words: BTreeSet<&str> = options::all()
        .iter()
        .filter(|known| known.key.split('.').next() == Some(domain))
        .filter_map(|known| second_word(known.key))
        .collect();
    joined(&nearest(rest, &words), "...").map(|words| format!("{domain}.{words}"))
}

fn second_word(key: &'static str) -> Option<&'static str> {
    key.split('.').nth(1)
}

fn joined(words: &[&str], infix: &str) -> Option<String> {
    match words {
        [] => None,
        [only] => Some((*only).to_owned()),
        [first, second, ..] => Some(format!("{first} or {infix}{second}")),
    }
}

/// Up to two words at the least distance.
fn nearest<'a>(word: &str, words: &BTreeSet<&'a str>) -> Vec<&'a str> {
    let least = words.iter().map(|known| distance(word, known)).min();
    words.iter().copied().filter(|known| Some(distance(word, known)) == least).take(2).collect()
}

/// Levenshtein's distance in bytes.
fn distance(left: &str, right: &str) -> usize {
    let left = left.as_bytes();
    let mut row: Vec<usize> = (0..=left.len()).collect();
    for (index, byte) in right.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for column in 1..row.len() {
            let substituted = diagonal + usize::from(left[column - 1] != byte);
            diagonal = row[column];
            row[column] = substituted.min(row[column] + 1).min(row[column - 1] + 1);
        }
    }
    row[left.len()]
}

#[cfg(test)]
mod tests {
    use super::{did_you_mean, distance};

    #[test]
    fn distances() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn hints_are_those_of_the_real_one() {
        // data/cli/volume-set.txt
        assert_eq!(did_you_mean("no.such.option").as_deref(), Some("nfs.drc-size or ...mem-factor"));
        assert_eq!(did_you_mean("no.such").as_deref(), Some("nfs.acl or ...drc"));
    }
}
