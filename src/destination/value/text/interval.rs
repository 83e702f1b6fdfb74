//! Intervals under `intervalstyle=postgres`.

use super::calendar::{Bounded, fraction_micros};
use super::{digits, split_at};

/// Months, days and microseconds: none of them is so many of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interval {
    /// Years are twelve of them.
    pub months: i32,
    /// Days.
    pub days: i32,
    /// The rest.
    pub micros: i64,
}

impl Interval {
    /// `1 year 2 mons -3 days +04:05:06.789`, `00:00:00`; since PostgreSQL 17 `infinity` too.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Bounded<Self>> {
        match text {
            b"infinity" => return Some(Bounded::Infinity),
            b"-infinity" => return Some(Bounded::NegativeInfinity),
            _ => {}
        }
        let mut interval = Self::default();
        let mut words = text.split(|byte| *byte == b' ');
        while let Some(word) = words.next() {
            if word.contains(&b':') {
                interval.micros = clock(word)?;
                return words.next().is_none().then_some(Bounded::Finite(interval));
            }
            let (negative, number) = sign(word);
            let number = i32::try_from(digits(number)?).ok()?;
            let number = if negative { -number } else { number };
            match words.next()? {
                b"year" | b"years" => interval.months = number.checked_mul(12)?,
                b"mon" | b"mons" => interval.months = interval.months.checked_add(number)?,
                b"day" | b"days" => interval.days = number,
                _ => return None,
            }
        }
        Some(Bounded::Finite(interval))
    }
}

fn sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    }
}

/// `-123:04:05.6`: any number of hours.
fn clock(text: &[u8]) -> Option<i64> {
    let (negative, text) = sign(text);
    let (hours, rest) = split_at(text, b':')?;
    let (minutes, seconds) = split_at(rest, b':')?;
    let (seconds, fraction) = match split_at(seconds, b'.') {
        Some((seconds, fraction)) => (seconds, fraction_micros(fraction)?),
        None => (seconds, 0),
    };
    let (minutes, seconds) = (digits(minutes)?, digits(seconds)?);
    if minutes > 59 || seconds > 59 {
        return None;
    }
    // Downwards, because there is one more below zero than above.
    let micros = digits(hours)?
        .checked_mul(-3_600_000_000)?
        .checked_sub((minutes * 60 + seconds) * 1_000_000)?
        .checked_sub(fraction)?;
    if negative { Some(micros) } else { micros.checked_neg() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_taken_apart() {
        for (text, months, days, micros) in [
            ("00:00:00", 0, 0, 0),
            ("1 year 2 mons 3 days 04:05:06.789", 14, 3, 14_706_789_000),
            ("-1 mons -2 days -03:00:00.5", -1, -2, -10_800_500_000),
            ("-1 years -2 mons +3 days -04:05:06", -14, 3, -14_706_000_000),
            ("1 mon", 1, 0, 0),
            ("-178000000 years", -2_136_000_000, 0, 0),
            ("-2562047788:00:54.775808", 0, 0, i64::MIN),
        ] {
            assert_eq!(
                Interval::parse(text.as_bytes()),
                Some(Bounded::Finite(Interval { months, days, micros })),
                "{text}"
            );
        }
        assert_eq!(Interval::parse(b"-infinity"), Some(Bounded::NegativeInfinity));
        for bad in ["", "1", "1 week", "1:2", "00:60:00", "1 day 00:00:00 1 day", "x days"] {
            assert_eq!(Interval::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
