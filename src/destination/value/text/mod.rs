//! PostgreSQL's text of a value, taken apart: what every destination needs that does not keep the
//! text.
//!
//! The text is what the type's output function prints under the pinned session settings
//! (`datestyle=ISO`, `intervalstyle=postgres`, `timezone=UTC`, `bytea_output=hex`,
//! `lc_monetary=C`), so each parser knows one form and no other. What is not of that form is
//! `None`: never a guess, never a panic. Nothing here knows a destination.
//!
//! Covered by: the tests of each file.

mod array;
mod calendar;
mod interval;
mod number;

pub use array::{Element, elements};
pub use calendar::{Bounded, Date, DateTime, Time};
pub use interval::Interval;
pub use number::{Decimal, money, twos_complement};

/// `t` or `f`.
#[must_use]
pub const fn boolean(text: &[u8]) -> Option<bool> {
    match text {
        b"t" => Some(true),
        b"f" => Some(false),
        _ => None,
    }
}

/// The bytes of a `bytea`: `\x` and two digits each. They are added to `out`; on `None` what was
/// added means nothing.
pub fn bytes(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let hex = text.strip_prefix(b"\\x").filter(|hex| hex.len().is_multiple_of(2))?;
    out.reserve(hex.len() / 2);
    for pair in hex.chunks_exact(2) {
        let [high, low] = pair else { return None };
        out.push(nibble(*high)? << 4 | nibble(*low)?);
    }
    Some(())
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// The number of a run of one or more decimal digits.
fn digits(text: &[u8]) -> Option<i64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_i64, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number.checked_mul(10)?.checked_add(i64::from(digit))
    })
}

/// Text before and after the first such byte; the byte itself is in neither.
fn split_at(text: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let place = text.iter().position(|found| *found == byte)?;
    Some((&text[..place], &text[place + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_becomes_bytes() {
        let mut out = vec![1];
        assert_eq!(bytes(b"\\xdeadbeef00", &mut out), Some(()));
        assert_eq!(out, [1, 0xde, 0xad, 0xbe, 0xef, 0]);
        for bad in [&b"\\xd"[..], b"xdd", b"\\xg0", b"\\xDD", b""] {
            assert_eq!(bytes(bad, &mut Vec::new()), None);
        }
        assert_eq!((boolean(b"t"), boolean(b"f"), boolean(b"true")), (Some(true), Some(false), None));
    }
}
