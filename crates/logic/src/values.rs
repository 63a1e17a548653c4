//! What the values of options mean: GlusterFS's words for truth and its sizes, wherever options are read or checked.

/// GlusterFS's words for truth, in any case (`common-utils.c: gf_string2boolean`); `None`: the value is neither.
pub fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "on" | "yes" | "true" | "enable" => Some(true),
        "0" | "off" | "no" | "false" | "disable" => Some(false),
        _ => None,
    }
}

/// Whether the value is one of the words for yes.
pub fn is_on(value: &str) -> bool {
    boolean(value) == Some(true)
}

/// A size in bytes: a number not below zero, perhaps with a fraction, perhaps with a unit of 1024
/// (`common-utils.c: gf_string2bytesize_range`).
pub fn byte_size(value: &str) -> Option<f64> {
    let value = value.trim();
    let split = value.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(value.len());
    let (digits, unit) = value.split_at(split);
    let power = match unit.trim().to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "KB" => 1,
        "MB" => 2,
        "GB" => 3,
        "TB" => 4,
        "PB" => 5,
        _ => return None,
    };
    number(digits.trim()).filter(|bytes| *bytes >= 0.0).map(|bytes| bytes * 1024_f64.powi(power))
}

/// Digits, perhaps with a sign and a fraction; no exponent, no infinity.
pub(crate) fn number(value: &str) -> Option<f64> {
    let plain = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-'));
    plain.then(|| value.parse().ok()).flatten()
}

/// A size for people, `10.0 GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [(&str, u32); 5] = [("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match UNITS.iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) => format!("{:.1} {unit}", bytes as f64 / (1_u64 << shift) as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truth_has_five_words_and_untruth_as_many() {
        assert!(["1", "on", "Yes", "TRUE", "enable"].into_iter().all(is_on));
        assert!(["0", "off", "No", "FALSE", "disable"].into_iter().all(|word| boolean(word) == Some(false)));
        assert_eq!((boolean("perhaps"), boolean("")), (None, None));
    }

    #[test]
    fn sizes_have_units_of_1024() {
        assert_eq!(byte_size("20GB"), Some(f64::from(20_u32) * 1_073_741_824.0));
        assert_eq!(byte_size(" 1.5kb"), Some(1536.0));
        assert_eq!(byte_size("7"), Some(7.0));
        for bad in ["", "GB", "much", "1XB", "1.2.3", "-1", "1e3", "inf"] {
            assert_eq!(byte_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_for_people_have_one_decimal_and_a_binary_unit() {
        assert_eq!(size(10 << 30), "10.0 GiB");
        assert_eq!(size(1 << 40), "1.0 TiB");
        assert_eq!(size(512), "512 bytes");
    }
}
