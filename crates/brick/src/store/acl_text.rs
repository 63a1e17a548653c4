//! POSIX ACLs in text, as the virtual keys `glusterfs.posix.acl` and `glusterfs.posix.default_acl` carry them.

pub(crate) const ACCESS_KEY: &str = "glusterfs.posix.acl";
pub(crate) const DEFAULT_KEY: &str = "glusterfs.posix.default_acl";

const NO_ID: u32 = u32::MAX;

/// The text of a stored ACL (`system.posix_acl_*`): one entry a line, numeric ids, as acl_to_text(3) writes it.
pub(crate) fn to_text(raw: &[u8]) -> Option<String> {
    let entries = raw.strip_prefix(&[2, 0, 0, 0])?;
    if entries.len() % 8 != 0 {
        return None;
    }
    let mut text = String::new();
    for entry in entries.chunks_exact(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let bits = u16::from_le_bytes([entry[2], entry[3]]);
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let id = if id == NO_ID { String::new() } else { id.to_string() };
        let who = match tag {
            0x01 => "user::".to_owned(),
            0x02 => format!("user:{id}:"),
            0x04 => "group::".to_owned(),
            0x08 => format!("group:{id}:"),
            0x10 => "mask::".to_owned(),
            0x20 => "other::".to_owned(),
            _ => return None,
        };
        let bit = |mask, letter| if bits & mask != 0 { letter } else { '-' };
        text.push_str(&who);
        text.extend([bit(4, 'r'), bit(2, 'w'), bit(1, 'x'), '\n']);
    }
    Some(text)
}

/// The stored form of a text; `None` when it is not one with numeric ids.
pub(crate) fn from_text(text: &str) -> Option<Vec<u8>> {
    let mut entries = Vec::new();
    for line in text.split(['\n', ',']).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut parts = line.splitn(3, ':');
        let (kind, id, bits) = (parts.next()?, parts.next()?, parts.next()?);
        let tag: u16 = match (kind, id.is_empty()) {
            ("user" | "u", true) => 0x01,
            ("user" | "u", false) => 0x02,
            ("group" | "g", true) => 0x04,
            ("group" | "g", false) => 0x08,
            ("mask" | "m", true) => 0x10,
            ("other" | "o", true) => 0x20,
            _ => return None,
        };
        let id: u32 = if id.is_empty() { NO_ID } else { id.parse().ok()? };
        // An effective-rights comment may follow.
        let bits = bits.split_whitespace().next()?.bytes().try_fold(0_u16, |bits, letter| {
            Some(
                bits | match letter {
                    b'r' => 4,
                    b'w' => 2,
                    b'x' => 1,
                    b'-' => 0,
                    _ => return None,
                },
            )
        })?;
        entries.push((tag, id, bits));
    }
    // The kernel wants them by tag, then by id.
    entries.sort_unstable();
    let mut raw = vec![2, 0, 0, 0];
    for (tag, id, bits) in entries {
        raw.extend_from_slice(&tag.to_le_bytes());
        raw.extend_from_slice(&bits.to_le_bytes());
        raw.extend_from_slice(&id.to_le_bytes());
    }
    (raw.len() > 4).then_some(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_stored_form_say_the_same() {
        let text = "user::rwx\nuser:1001:rw-\ngroup::r-x\nmask::rwx\nother::---\n";
        let raw = from_text(text).expect("it is one");
        assert_eq!(to_text(&raw).as_deref(), Some(text));
        assert_eq!(from_text("u::rwx,o::r--,g::r-x"), from_text("user::rwx\ngroup::r-x\nother::r--"));
        assert_eq!(from_text("user:alice:rwx"), None);
        assert_eq!(from_text(""), None);
        assert_eq!(to_text(&raw[..9]), None);
    }
}
