//! Sizes and durations as people write them.

use std::time::Duration;

/// `10GB`, `64 MB`, `4096`: powers of 1024, as in PostgreSQL's own settings; `GiB` means the same.
///
/// # Errors
///
/// What is wrong with the text.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let error = || format!("{text:?} is not a size: write it like 512MB or 10GB");
    let (number, unit) = split(text).ok_or_else(error)?;
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(error()),
    };
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is more than can be counted"))
}

/// `15m`, `500ms`, `1h`, `30` (seconds).
///
/// # Errors
///
/// What is wrong with the text.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let error = || format!("{text:?} is not a duration: write it like 30s, 15m or 500ms (a bare number is seconds)");
    let (number, unit) = split(text).ok_or_else(error)?;
    let millis: u64 = match unit.to_ascii_lowercase().as_str() {
        "ms" => 1,
        "" | "s" | "sec" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(error()),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(|| format!("{text:?} is more than can be counted"))
}

/// `true`, `on`, `yes`, `1` and their opposites.
///
/// # Errors
///
/// What is wrong with the text.
pub fn parse_switch(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Ok(true),
        "false" | "off" | "no" | "0" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

/// A number that is at least 1.
pub(crate) fn parse_count(text: &str) -> Result<u64, String> {
    let count = text.trim().parse::<u64>().ok().filter(|count| *count > 0);
    count.ok_or_else(|| format!("{text:?} is not a number of at least 1"))
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    Some((digits.parse().ok()?, unit.trim()))
}

/// A size for people: `1.5 GB`, `12 kB`.
#[must_use]
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 100.0 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024_with_or_without_a_unit() {
        for (text, bytes) in
            [("0", 0), ("17", 17), ("1kB", 1024), ("64 MB", 64 << 20), ("10GB", 10 << 30), ("2GiB", 2 << 30)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "GB", "-1", "1.5GB", "10XB", "99999999999999999999", "17179869184TB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_carry_a_unit_and_bare_numbers_are_seconds() {
        for (text, millis) in
            [("30", 30_000), ("500ms", 500), ("15m", 900_000), ("1h", 3_600_000), ("0", 0), ("2 d", 172_800_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "m", "1w", "-5s", "1.5h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_for_people_have_three_digits_at_most() {
        assert_eq!(human_size(17), "17 B");
        assert_eq!(human_size(1536), "1.5 kB");
        assert_eq!(human_size(3 << 40), "3.0 TB");
        assert_eq!(human_size(700 << 20), "700 MB");
    }
}
