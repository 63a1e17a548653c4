//! fnmatch(3) patterns over xattr names: `*`, `?`, `[…]`, `\`.

/// Whether the text has any character with a meaning of its own.
pub(crate) fn is_pattern(text: &str) -> bool {
    text.bytes().any(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\'))
}

/// Whether the whole name matches. Walks back to the last `*` only, so no pattern takes more than length × length steps.
pub(crate) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where to go on when the last `*` must take one more byte.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            retry = Some((p + 1, n));
            p += 1;
            continue;
        }
        if p == pattern.len() && n == name.len() {
            return true;
        }
        if let Some(byte) = name.get(n)
            && let Some(next) = match_one(pattern, p, *byte)
        {
            p = next;
            n += 1;
            continue;
        }
        match retry {
            Some((after_star, taken)) if taken < name.len() => {
                retry = Some((after_star, taken + 1));
                p = after_star;
                n = taken + 1;
            }
            _ => return false,
        }
    }
}

/// Matches one byte at `at`; returns where the pattern goes on.
fn match_one(pattern: &[u8], at: usize, byte: u8) -> Option<usize> {
    match *pattern.get(at)? {
        b'?' => Some(at + 1),
        b'\\' => (pattern.get(at + 1) == Some(&byte)).then_some(at + 2),
        b'[' => match set_end(pattern, at) {
            Some(end) => in_set(&pattern[at + 1..end], byte).then_some(end + 1),
            None => (byte == b'[').then_some(at + 1),
        },
        literal => (literal == byte).then_some(at + 1),
    }
}

/// The `]` that closes a set; one right after the opening (or its `!`) is a member.
fn set_end(pattern: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    if matches!(pattern.get(at), Some(b'!' | b'^')) {
        at += 1;
    }
    let members = pattern.get(at + 1..)?;
    members.iter().position(|byte| *byte == b']').map(|offset| at + 1 + offset)
}

fn in_set(set: &[u8], byte: u8) -> bool {
    let (negated, mut rest) = match set.split_first() {
        Some((b'!' | b'^', rest)) => (true, rest),
        _ => (false, set),
    };
    let mut found = false;
    while let [first, tail @ ..] = rest {
        if let [b'-', last, after @ ..] = tail {
            found |= (*first..=*last).contains(&byte);
            rest = after;
        } else {
            found |= *first == byte;
            rest = tail;
        }
    }
    found != negated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_fnmatch_does() {
        for (pattern, name, expected) in [
            ("trusted.afr.*", "trusted.afr.vol-client-0", true),
            ("trusted.glusterfs.quota.*.contri", "trusted.glusterfs.quota.abc.contri", true),
            ("trusted.glusterfs.quota.*.contri", "trusted.glusterfs.quota.contri", false),
            ("a*b*c", "a123b456bc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a[0-9x]c", "a7c", true),
            ("a[!0-9]c", "a7c", false),
            ("a[]]c", "a]c", true),
            ("a[c", "a[c", true),
            ("a\\*c", "a*c", true),
            ("a\\*c", "abc", false),
            ("", "", true),
            ("*", "", true),
            ("abc", "abcd", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        let pattern = "*a".repeat(100);
        assert!(!matches(pattern.as_bytes(), &[b'a'; 99]));
        assert!(matches(pattern.as_bytes(), &[b'a'; 100]));
    }
}
