//! From PostgreSQL's text of a value to its JSON, straight into the record's buffer.
//!
//! Covered by: the tests below, and `it::events::events_are_those_that_debezium_emits`.

use num_bigint::BigInt;

use super::column::{Kind, Unit};
use super::json::{base64, number, string};
use super::settings::{BinaryHandling, DecimalHandling, IntervalHandling, TimePrecision};
use crate::destination::value::text::{
    self, Bounded, Date, DateTime, Decimal, Element, Interval, Time, boolean, elements, money, twos_complement,
};

/// Why a value cannot be written as its column's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It is beyond what the kind holds; the nearest that it does.
    Beyond(i64),
    /// There is no such value, and none near it (`NaN` as a decimal, a time of `24:00:00`).
    None,
    /// Bytes that are not UTF-8.
    NotUtf8,
    /// Not what the type prints.
    Malformed,
}

/// Writes a value; on failure what was added to `out` means nothing.
pub(super) fn write(kind: &Kind, text: &[u8], out: &mut Vec<u8>) -> Result<(), Unfit> {
    use Unfit::Malformed;
    match kind {
        Kind::Whole(_) => plain(text, out),
        Kind::Text(_) | Kind::Enum(_) => {
            std::str::from_utf8(text).map_err(|_| Unfit::NotUtf8)?;
            string(out, text);
            Ok(())
        }
        Kind::Boolean => {
            out.extend_from_slice(if boolean(text).ok_or(Malformed)? { b"true" } else { b"false" });
            Ok(())
        }
        Kind::Bit => {
            out.extend_from_slice(if text == b"1" { b"true" } else { b"false" });
            Ok(())
        }
        Kind::Float(_) | Kind::DoubleDecimal => float(text, out),
        Kind::Decimal { scale, .. } => decimal(text, Some(i32::from(*scale)), out).map(|_| ()),
        Kind::VariableDecimal => {
            out.extend_from_slice(b"{\"scale\":");
            let decimal_at = out.len();
            let scale = decimal(text, None, out)?;
            let value = out.split_off(decimal_at);
            number(out, i64::from(scale));
            out.extend_from_slice(b",\"value\":");
            out.extend_from_slice(&value);
            out.push(b'}');
            Ok(())
        }
        Kind::Money(handling) => {
            let hundredths = money(text).ok_or(Malformed)?;
            let sign = if hundredths < 0 { "-" } else { "" };
            let (whole, cents) = (hundredths.unsigned_abs() / 100, hundredths.unsigned_abs() % 100);
            match handling {
                DecimalHandling::Precise => base64(out, twos_complement(i128::from(hundredths), &mut [0; 16])),
                DecimalHandling::String => out.extend_from_slice(format!("\"{sign}{whole}.{cents:02}\"").as_bytes()),
                DecimalHandling::Double => out.extend_from_slice(format!("{sign}{whole}.{cents:02}").as_bytes()),
            }
            Ok(())
        }
        Kind::Bytes(handling) => bytes(*handling, text, out),
        Kind::Date(precision) => date(*precision, text, out),
        Kind::Time(unit) => {
            let time = Time::parse(text).ok_or(Malformed)?;
            match unit {
                Unit::Micros => number(out, time.micros()),
                Unit::Millis | Unit::ConnectMillis => number(out, time.micros() / 1000),
                Unit::Iso if time.micros() == Time::DAY => return Err(Unfit::None),
                Unit::Iso => zulu(&[text], out),
            }
            Ok(())
        }
        Kind::TimeTz => {
            let (time, ahead) = Time::parse_zoned(text).ok_or(Malformed)?;
            let time = time.to_utc(ahead);
            let clock = format!("{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second());
            let micros = format!(".{:06}", time.microsecond());
            zulu(&[clock.as_bytes(), micros.trim_end_matches('0').trim_end_matches('.').as_bytes()], out);
            Ok(())
        }
        Kind::Timestamp(unit) => timestamp(*unit, text, out),
        Kind::TimestampTz => match DateTime::parse(text).ok_or(Malformed)? {
            Bounded::Finite(point) => {
                iso(text, point.date, out);
                Ok(())
            }
            _ => {
                string(out, text);
                Ok(())
            }
        },
        Kind::Interval(handling) => interval(*handling, text, out),
        Kind::Bits(_) => bits(text, out),
        Kind::Point => point(text, out),
        Kind::Array { element, delimiter, nested } => {
            let elements = elements(text, *delimiter).ok_or(Malformed)?;
            array(element, &elements, *nested, out)
        }
    }
}

/// A value that was not sent.
pub(super) fn placeholder(kind: &Kind, placeholder: &str) -> Vec<u8> {
    let mut out = Vec::new();
    match kind {
        Kind::Bytes(BinaryHandling::Hex) => {
            string(&mut out, placeholder.bytes().map(|byte| format!("{byte:02x}")).collect::<String>().as_bytes());
        }
        Kind::Bytes(_) | Kind::Decimal { .. } | Kind::Bits(_) => base64(&mut out, placeholder.as_bytes()),
        Kind::VariableDecimal => {
            out.extend_from_slice(b"{\"scale\":0,\"value\":");
            base64(&mut out, placeholder.as_bytes());
            out.push(b'}');
        }
        Kind::DoubleDecimal => out.extend_from_slice(b"\"NaN\""),
        Kind::Array { element, .. } => match **element {
            // Numbers have no room for a text: its bytes, each a number.
            Kind::Whole(_) | Kind::Float(_) => {
                let bytes: Vec<String> = placeholder.bytes().map(|byte| byte.to_string()).collect();
                out.extend_from_slice(format!("[{}]", bytes.join(",")).as_bytes());
            }
            _ => {
                out.push(b'[');
                out.extend_from_slice(&self::placeholder(element, placeholder));
                out.push(b']');
            }
        },
        _ => string(&mut out, placeholder.as_bytes()),
    }
    out
}

/// A number as PostgreSQL prints it.
fn plain(text: &[u8], out: &mut Vec<u8>) -> Result<(), Unfit> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Unfit::Malformed);
    }
    out.extend_from_slice(text);
    Ok(())
}

/// A floating-point number stays one for who has no schema: with a point or an exponent.
fn float(text: &[u8], out: &mut Vec<u8>) -> Result<(), Unfit> {
    match text {
        b"NaN" | b"Infinity" | b"-Infinity" => string(out, text),
        [b'-' | b'0'..=b'9', ..] if text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'e' | b'.')) => {
            out.extend_from_slice(text);
            if !text.iter().any(|byte| matches!(byte, b'.' | b'e')) {
                out.extend_from_slice(b".0");
            }
        }
        _ => return Err(Unfit::Malformed),
    }
    Ok(())
}

/// The unscaled number; without a scale, with that of the text.
fn decimal(text: &[u8], scale: Option<i32>, out: &mut Vec<u8>) -> Result<i32, Unfit> {
    let decimal = Decimal::parse(text).ok_or(Unfit::Malformed)?;
    let Decimal::Finite { negative, whole, fraction } = decimal else { return Err(Unfit::None) };
    let given = i32::try_from(fraction.len()).map_err(|_| Unfit::Malformed)?;
    let scale = scale.unwrap_or(given);
    if let Some(unscaled) = decimal.unscaled(scale) {
        base64(out, twos_complement(unscaled, &mut [0; 16]));
        return Ok(scale);
    }
    let mut digits: Vec<u8> = if negative { vec![b'-'] } else { Vec::new() };
    digits.extend(whole.iter().chain(fraction));
    match usize::try_from(scale - given) {
        Ok(zeros) => digits.resize(digits.len() + zeros, b'0'),
        Err(_) => {
            let kept = digits.len().saturating_sub(usize::try_from(given - scale).unwrap_or(0));
            if digits.drain(kept..).any(|digit| digit != b'0') {
                return Err(Unfit::Malformed);
            }
        }
    }
    let unscaled = BigInt::parse_bytes(&digits, 10).ok_or(Unfit::Malformed)?;
    base64(out, &unscaled.to_signed_bytes_be());
    Ok(scale)
}

fn bytes(handling: BinaryHandling, text: &[u8], out: &mut Vec<u8>) -> Result<(), Unfit> {
    if handling == BinaryHandling::Hex {
        let hex = text.strip_prefix(b"\\x").filter(|hex| hex.len() % 2 == 0 && hex.iter().all(u8::is_ascii_hexdigit));
        string(out, hex.ok_or(Unfit::Malformed)?);
        return Ok(());
    }
    let mut bytes = Vec::new();
    text::bytes(text, &mut bytes).ok_or(Unfit::Malformed)?;
    base64(out, &bytes);
    Ok(())
}

fn date(precision: TimePrecision, text: &[u8], out: &mut Vec<u8>) -> Result<(), Unfit> {
    let date = match (Date::parse(text).ok_or(Unfit::Malformed)?, precision) {
        (Bounded::Finite(date), _) => date,
        (_, TimePrecision::IsoString) => return Err(Unfit::None),
        (Bounded::Infinity, _) => return Err(Unfit::Beyond(i64::from(i32::MAX))),
        (Bounded::NegativeInfinity, _) => return Err(Unfit::Beyond(i64::from(i32::MIN))),
    };
    if precision == TimePrecision::IsoString {
        out.push(b'"');
        iso_day(text, date, out);
        out.extend_from_slice(b"Z\"");
    } else {
        number(out, date.days());
    }
    Ok(())
}

fn timestamp(unit: Unit, text: &[u8], out: &mut Vec<u8>) -> Result<(), Unfit> {
    let point = match (DateTime::parse(text).ok_or(Unfit::Malformed)?, unit) {
        (Bounded::Finite(point), _) => point,
        (_, Unit::Iso) => return Err(Unfit::None),
        (Bounded::Infinity, _) => return Err(Unfit::Beyond(i64::MAX)),
        (Bounded::NegativeInfinity, _) => return Err(Unfit::Beyond(i64::MIN)),
    };
    match unit {
        Unit::Micros => number(out, point.unix_micros().ok_or(Unfit::Beyond(i64::MAX))?),
        Unit::Millis | Unit::ConnectMillis => number(out, point.unix_millis()),
        Unit::Iso => iso(text, point.date, out),
    }
    Ok(())
}

fn zulu(parts: &[&[u8]], out: &mut Vec<u8>) {
    out.push(b'"');
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.extend_from_slice(b"Z\"");
}

/// `2024-02-29T13:14:15.123456Z`: PostgreSQL's text, in which only years outside of 1 to 9999 look
/// different.
fn iso(text: &[u8], date: Date, out: &mut Vec<u8>) {
    let place = text.iter().position(|byte| *byte == b' ').unwrap_or(text.len());
    let clock = text.get(place + 1..).unwrap_or_default();
    let end = clock.iter().position(|byte| matches!(byte, b'+' | b' ')).unwrap_or(clock.len());
    out.push(b'"');
    iso_day(&text[..place], date, out);
    out.push(b'T');
    out.extend_from_slice(&clock[..end]);
    out.extend_from_slice(b"Z\"");
}

fn iso_day(text: &[u8], date: Date, out: &mut Vec<u8>) {
    let (year, sign) = (date.year(), if date.year() > 9999 { "+" } else { "" });
    if (1..=9999).contains(&year) {
        out.extend_from_slice(text);
    } else {
        let width = if year < 0 { 5 } else { 4 };
        out.extend_from_slice(format!("{sign}{year:0width$}-{:02}-{:02}", date.month(), date.day()).as_bytes());
    }
}

/// Months have 30.4375 days, as a duration in microseconds has no months.
const MONTH: i64 = 2_629_800_000_000;

fn interval(handling: IntervalHandling, text: &[u8], out: &mut Vec<u8>) -> Result<(), Unfit> {
    let Interval { months, days, micros } = match (Interval::parse(text).ok_or(Unfit::Malformed)?, handling) {
        (Bounded::Finite(interval), _) => interval,
        (_, IntervalHandling::String) => return Err(Unfit::None),
        (Bounded::Infinity, _) => return Err(Unfit::Beyond(i64::MAX)),
        (Bounded::NegativeInfinity, _) => return Err(Unfit::Beyond(i64::MIN)),
    };
    if handling == IntervalHandling::Numeric {
        let total =
            i128::from(months) * i128::from(MONTH) + i128::from(days) * i128::from(Time::DAY) + i128::from(micros);
        let nearest = if total < 0 { i64::MIN } else { i64::MAX };
        number(out, i64::try_from(total).map_err(|_| Unfit::Beyond(nearest))?);
        return Ok(());
    }
    let (hours, minutes, rest) = (micros / 3_600_000_000, micros / 60_000_000 % 60, micros % 60_000_000);
    let sign = if rest < 0 { "-" } else { "" };
    let seconds = format!("{sign}{}.{:06}", rest.abs() / 1_000_000, rest.abs() % 1_000_000);
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    let (years, months) = (months / 12, months % 12);
    out.extend_from_slice(format!("\"P{years}Y{months}M{days}DT{hours}H{minutes}M{seconds}S\"").as_bytes());
    Ok(())
}

/// The bits as one number, least significant byte first, without the zeros at its end.
fn bits(text: &[u8], out: &mut Vec<u8>) -> Result<(), Unfit> {
    let mut bytes = vec![0_u8; text.len().div_ceil(8)];
    for (place, byte) in text.iter().rev().enumerate() {
        match byte {
            b'1' => bytes[place / 8] |= 1 << (place % 8),
            b'0' => {}
            _ => return Err(Unfit::Malformed),
        }
    }
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    base64(out, &bytes[..used]);
    Ok(())
}

/// `(1.5,2)`, with the same as well-known binary.
fn point(text: &[u8], out: &mut Vec<u8>) -> Result<(), Unfit> {
    let inner = std::str::from_utf8(text).ok().and_then(|text| text.strip_prefix('(')?.strip_suffix(')'));
    let (x, y) = inner.and_then(|inner| inner.split_once(',')).ok_or(Unfit::Malformed)?;
    let coordinate = |text: &str| text.parse::<f64>().map_err(|_| Unfit::Malformed);
    let mut wkb = vec![1, 1, 0, 0, 0];
    wkb.extend(coordinate(x)?.to_le_bytes());
    wkb.extend(coordinate(y)?.to_le_bytes());
    out.extend_from_slice(b"{\"x\":");
    float(x.as_bytes(), out)?;
    out.extend_from_slice(b",\"y\":");
    float(y.as_bytes(), out)?;
    out.extend_from_slice(b",\"wkb\":");
    base64(out, &wkb);
    out.extend_from_slice(b",\"srid\":null}");
    Ok(())
}

/// A schema has room for one dimension.
fn array(kind: &Kind, elements: &[Element], nested: bool, out: &mut Vec<u8>) -> Result<(), Unfit> {
    let mut separator = b'[';
    for element in elements {
        out.push(separator);
        separator = b',';
        match element {
            Element::Null => out.extend_from_slice(b"null"),
            Element::Value(value) => write(kind, value, out).map_err(|unfit| match unfit {
                Unfit::Beyond(_) => Unfit::None,
                unfit => unfit,
            })?,
            Element::Array(elements) if nested => array(kind, elements, nested, out)?,
            Element::Array(_) => return Err(Unfit::None),
        }
    }
    if elements.is_empty() {
        out.push(b'[');
    }
    out.push(b']');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(kind: &Kind, text: &str) -> Result<String, Unfit> {
        let mut out = Vec::new();
        write(kind, text.as_bytes(), &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn values_beyond_what_the_samples_have() {
        let micros = Kind::Timestamp(Unit::Micros);
        let iso = Kind::Timestamp(Unit::Iso);
        let clock = Kind::Time(Unit::Iso);
        let decimal = |scale| Kind::Decimal { precision: Some(60), scale };
        let integers = |nested| Kind::Array { element: Box::new(Kind::Whole("int32")), delimiter: b',', nested };
        for (kind, text, expected) in [
            (&micros, "infinity", Err(Unfit::Beyond(i64::MAX))),
            (&micros, "294276-12-31 23:59:59", Err(Unfit::Beyond(i64::MAX))),
            (&micros, "yesterday", Err(Unfit::Malformed)),
            (&iso, "0001-01-01 00:00:00 BC", Ok("\"0000-01-01T00:00:00Z\"")),
            (&iso, "12345-01-01 10:00:00.5", Ok("\"+12345-01-01T10:00:00.5Z\"")),
            (&iso, "-infinity", Err(Unfit::None)),
            (&clock, "24:00:00", Err(Unfit::None)),
            (&Kind::TimeTz, "00:30:00+05:30", Ok("\"19:00:00Z\"")),
            (&decimal(2), "NaN", Err(Unfit::None)),
            (&decimal(-2), "1200", Ok("\"DA==\"")),
            (&Kind::Whole("int32"), "1e5", Err(Unfit::Malformed)),
            (&Kind::Bytes(BinaryHandling::Hex), "\\x0g", Err(Unfit::Malformed)),
            (&Kind::Bytes(BinaryHandling::Hex), "\\x0", Err(Unfit::Malformed)),
            (&Kind::Text(None), "\u{1f600}", Ok("\"\u{1f600}\"")),
            (&Kind::Bits(16), "0000000000000000", Ok("\"\"")),
            (&Kind::Bits(16), "0000000100000010", Ok("\"AgE=\"")),
            (&Kind::Interval(IntervalHandling::String), "00:00:00", Ok("\"P0Y0M0DT0H0M0S\"")),
            (&Kind::Interval(IntervalHandling::Numeric), "178000000 years", Err(Unfit::Beyond(i64::MAX))),
            (&integers(true), "{{1,2},{3,NULL}}", Ok("[[1,2],[3,null]]")),
            (&integers(false), "{{1,2},{3,4}}", Err(Unfit::None)),
            (&integers(false), "{}", Ok("[]")),
        ] {
            assert_eq!(written(kind, text), expected.map(str::to_owned), "{kind:?} {text}");
        }
        assert_eq!(write(&Kind::Text(None), b"\xff", &mut Vec::new()), Err(Unfit::NotUtf8));
    }

    #[test]
    fn decimals_of_any_length_are_twos_complement() {
        let kind = Kind::Decimal { precision: None, scale: 0 };
        for digits in [1, 18, 19, 37, 38, 39, 40, 200] {
            for sign in ["", "-"] {
                let text = format!("{sign}{}", "9".repeat(digits));
                let expected = BigInt::parse_bytes(text.as_bytes(), 10).unwrap().to_signed_bytes_be();
                let mut out = Vec::new();
                base64(&mut out, &expected);
                assert_eq!(written(&kind, &text), Ok(String::from_utf8(out).unwrap()), "{text}");
            }
        }
    }

    #[test]
    fn a_placeholder_is_of_the_columns_type() {
        for (kind, expected) in [
            (Kind::Text(None), "\"_u\""),
            (Kind::Bytes(BinaryHandling::Bytes), "\"X3U=\""),
            (Kind::Bytes(BinaryHandling::Hex), "\"5f75\""),
            (Kind::Array { element: Box::new(Kind::Text(None)), delimiter: b',', nested: false }, "[\"_u\"]"),
            (Kind::Array { element: Box::new(Kind::Whole("int32")), delimiter: b',', nested: false }, "[95,117]"),
        ] {
            assert_eq!(String::from_utf8(placeholder(&kind, "_u")).unwrap(), expected, "{kind:?}");
        }
    }
}
