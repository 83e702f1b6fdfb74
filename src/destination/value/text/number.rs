//! `numeric` and `money`.

/// A `numeric`: its digits without the point, and how many of them come after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decimal<'a> {
    /// `NaN`
    NaN,
    /// `Infinity`
    Infinity,
    /// `-Infinity`
    NegativeInfinity,
    /// Any other.
    Finite {
        /// Below zero.
        negative: bool,
        /// The digits before the point.
        whole: &'a [u8],
        /// The digits after it.
        fraction: &'a [u8],
    },
}

impl<'a> Decimal<'a> {
    /// `-123.450`: never with an exponent, always with a digit before the point.
    #[must_use]
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        match text {
            b"NaN" => return Some(Self::NaN),
            b"Infinity" => return Some(Self::Infinity),
            b"-Infinity" => return Some(Self::NegativeInfinity),
            _ => {}
        }
        let (negative, rest) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
        let (whole, fraction) = super::split_at(rest, b'.').unwrap_or((rest, b""));
        let well_formed = !whole.is_empty()
            && (fraction.is_empty() == (whole.len() == rest.len()))
            && whole.iter().chain(fraction).all(u8::is_ascii_digit);
        well_formed.then_some(Self::Finite { negative, whole, fraction })
    }

    /// The number times ten to the power of `scale`, when that is whole and fits.
    #[must_use]
    pub fn unscaled(&self, scale: i32) -> Option<i128> {
        let Self::Finite { negative, whole, fraction } = self else { return None };
        let given = i32::try_from(fraction.len()).ok()?;
        let mut number: i128 = 0;
        for byte in whole.iter().chain(*fraction) {
            number = number.checked_mul(10)?.checked_sub(i128::from(byte - b'0'))?;
        }
        let ten = 10_i128.checked_pow(scale.abs_diff(given));
        let number = if scale >= given {
            if number == 0 { 0 } else { number.checked_mul(ten?)? }
        } else {
            let ten = ten?;
            if number % ten != 0 {
                return None;
            }
            number / ten
        };
        if *negative { Some(number) } else { number.checked_neg() }
    }
}

/// A `money` in hundredths: `-$1,234.56` is -123456.
#[must_use]
pub fn money(text: &[u8]) -> Option<i64> {
    let (negative, rest) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let rest = rest.strip_prefix(b"$")?;
    let (whole, cents) = rest.split_at_checked(rest.len().checked_sub(3)?)?;
    let mut number: i64 = 0;
    for byte in whole.iter().filter(|byte| **byte != b',').chain(cents.strip_prefix(b".")?) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // Downwards, because there is one more below zero than above.
        number = number.checked_mul(10)?.checked_sub(i64::from(digit))?;
    }
    if negative { Some(number) } else { number.checked_neg() }
}

/// The shortest big-endian two's complement of a number: at least one byte, the first bit is its
/// sign.
#[must_use]
pub fn twos_complement(number: i128, buffer: &mut [u8; 16]) -> &[u8] {
    *buffer = number.to_be_bytes();
    let sign = if number < 0 { 0xFF } else { 0 };
    let needless = buffer.windows(2).take_while(|pair| pair[0] == sign && (pair[1] ^ sign) & 0x80 == 0).count();
    &buffer[needless..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numerics_are_digits_and_a_scale() {
        for (text, scale, unscaled) in [
            ("12345678.90", 2, Some(1_234_567_890)),
            ("-0.01", 2, Some(-1)),
            ("1.5", 3, Some(1500)),
            ("1.50", 1, Some(15)),
            ("1.51", 1, None),
            ("1200", -2, Some(12)),
            ("0", 1000, Some(0)),
            ("170141183460469231731687303715884105728", 0, None),
            ("-170141183460469231731687303715884105728", 0, Some(i128::MIN)),
        ] {
            assert_eq!(Decimal::parse(text.as_bytes()).unwrap().unscaled(scale), unscaled, "{text}");
        }
        assert_eq!(Decimal::parse(b"NaN"), Some(Decimal::NaN));
        assert_eq!(Decimal::parse(b"-Infinity"), Some(Decimal::NegativeInfinity));
        assert_eq!(Decimal::parse(b"Infinity").unwrap().unscaled(0), None);
        for bad in ["", "-", ".5", "1.", "1e5", "1.2.3", "+1", "1 "] {
            assert_eq!(Decimal::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn money_is_hundredths() {
        for (text, hundredths) in [
            ("$1,234.56", Some(123_456)),
            ("-$0.01", Some(-1)),
            ("-$92,233,720,368,547,758.08", Some(i64::MIN)),
            ("$92,233,720,368,547,758.08", None),
            ("1.00", None),
            ("$1.0", None),
        ] {
            assert_eq!(money(text.as_bytes()), hundredths, "{text}");
        }
    }

    #[test]
    fn twos_complement_is_as_short_as_it_can_be() {
        for (number, bytes) in [
            (0, &[0][..]),
            (-1, &[0xFF]),
            (127, &[0x7F]),
            (128, &[0, 0x80]),
            (-128, &[0x80]),
            (-129, &[0xFF, 0x7F]),
            (i128::MIN, &i128::MIN.to_be_bytes()),
        ] {
            assert_eq!(twos_complement(number, &mut [0; 16]), bytes, "{number}");
        }
    }
}
