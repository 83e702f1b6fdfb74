//! What a value becomes in SQL Server, and the way back.
//!
//! A column has the type that holds every value of PostgreSQL's as it is, and text where there is
//! none. In a key a text has a length that an index takes. Everything without a type of its own is
//! PostgreSQL's text.
//!
//! `time` and `datetimeoffset` have seven digits although PostgreSQL sends six: the driver declares
//! a bulk load's column of these types as `time` and `datetimeoffset`, whatever its digits are, and
//! a server that believes the declaration reads a tenth of the time.
//!
//! Covered by: `destination::sqlserver::value::tests`, `it::sqlserver`.

use std::borrow::Cow;

use tiberius::numeric::Numeric;
use tiberius::{ColumnData, Uuid, time};

use super::connection::BINARY;
use crate::destination::value::inverse::{hex_text, money_text, without_zeros};
use crate::destination::value::text::{Bounded, Date, DateTime, Decimal, Time, boolean, bytes, money};
use crate::destination::value::{Family, f64_of, float_text};

/// How a value's text is read before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Boolean,
    /// Of 2, 4 or 8 bytes.
    Integer(u8),
    Float,
    Double,
    /// With precision and scale.
    Decimal(u8, u8),
    Money,
    Date,
    Time,
    DateTime,
    /// In UTC.
    DateTimeOffset,
    Bytes,
    Uuid,
    Text,
}

/// The most digits of a `decimal`.
const DIGITS: i32 = 38;
/// Digits of a fraction, as the driver declares them.
const FRACTION: u8 = 7;
/// 0001-01-01 in days before 1970-01-01.
const FIRST_DAY: i64 = 719_162;
/// The years that SQL Server's calendar has.
const YEARS: std::ops::RangeInclusive<i32> = 1..=9999;

/// Precision and scale of the `decimal` that holds every value of a `numeric(p,s)`; `None` when
/// there is none.
fn decimal(precision: u16, scale: i16) -> Option<(u8, u8)> {
    let (precision, scale) = (i32::from(precision), i32::from(scale));
    let decimal = if scale < 0 { (precision - scale, 0) } else { (precision.max(scale), scale) };
    (decimal.0 <= DIGITS).then_some((u8::try_from(decimal.0).ok()?, u8::try_from(decimal.1).ok()?))
}

/// What a family is sent as.
pub(super) fn form(family: Family) -> Form {
    match family {
        Family::Boolean => Form::Boolean,
        Family::Integer(bytes) => Form::Integer(bytes),
        Family::Unsigned => Form::Integer(8),
        Family::Unsigned8 => Form::Decimal(20, 0),
        Family::Float4 => Form::Float,
        Family::Float8 => Form::Double,
        Family::Decimal { precision, scale } => {
            decimal(precision, scale).map_or(Form::Text, |(precision, scale)| Form::Decimal(precision, scale))
        }
        Family::Money => Form::Money,
        Family::Date => Form::Date,
        Family::Time => Form::Time,
        Family::Timestamp => Form::DateTime,
        Family::TimestampTz => Form::DateTimeOffset,
        Family::Bytes => Form::Bytes,
        Family::Uuid => Form::Uuid,
        _ => Form::Text,
    }
}

/// Characters of a key column whose type has no length of its own: three of them fit into the 1700
/// bytes of an index.
const KEY_LENGTH: i32 = 255;
/// Characters that an index takes.
pub(super) const LONGEST_KEY: i32 = 850;

impl Form {
    /// Stored as a number, which is the same one whatever it is printed with.
    pub const fn is_number(self) -> bool {
        matches!(self, Self::Boolean | Self::Integer(_) | Self::Float | Self::Double | Self::Decimal(..) | Self::Money)
    }

    /// The declared type, as `describe` reads it; `length` is that of `varchar(n)` and `char(n)`.
    pub fn declared(self, length: Option<i32>, in_key: bool) -> String {
        match self {
            Self::Boolean => "bit".to_owned(),
            Self::Integer(2) => "smallint".to_owned(),
            Self::Integer(4) => "int".to_owned(),
            Self::Integer(_) => "bigint".to_owned(),
            Self::Float => "real".to_owned(),
            Self::Double => "float".to_owned(),
            Self::Decimal(precision, scale) => format!("decimal({precision},{scale})"),
            Self::Money => "decimal(19,2)".to_owned(),
            Self::Date => "date".to_owned(),
            Self::Time => format!("time({FRACTION})"),
            Self::DateTime => "datetime2(6)".to_owned(),
            Self::DateTimeOffset => format!("datetimeoffset({FRACTION})"),
            Self::Bytes if in_key => format!("varbinary({KEY_LENGTH})"),
            Self::Bytes => "varbinary(max)".to_owned(),
            Self::Uuid => "uniqueidentifier".to_owned(),
            // A character may be two of UTF-16.
            Self::Text if in_key => {
                let length = length.map_or(KEY_LENGTH, |length| length.saturating_mul(2).clamp(1, LONGEST_KEY));
                format!("nvarchar({length})")
            }
            Self::Text => "nvarchar(max)".to_owned(),
        }
    }

    /// NULL of this form.
    pub const fn null(self) -> ColumnData<'static> {
        match self {
            Self::Boolean => ColumnData::Bit(None),
            Self::Integer(2) => ColumnData::I16(None),
            Self::Integer(4) => ColumnData::I32(None),
            Self::Integer(_) => ColumnData::I64(None),
            Self::Float => ColumnData::F32(None),
            Self::Double => ColumnData::F64(None),
            Self::Decimal(..) | Self::Money => ColumnData::Numeric(None),
            Self::Date => ColumnData::Date(None),
            Self::Time => ColumnData::Time(None),
            Self::DateTime => ColumnData::DateTime2(None),
            Self::DateTimeOffset => ColumnData::DateTimeOffset(None),
            Self::Bytes => ColumnData::Binary(None),
            Self::Uuid => ColumnData::Guid(None),
            Self::Text => ColumnData::String(None),
        }
    }
}

/// A declaration with the collation of bytes, where it is one of a text.
pub(super) fn with_collation(declared: &str, collation: Option<&str>) -> String {
    if declared.contains("char") {
        format!("{declared} COLLATE {}", collation.unwrap_or(BINARY))
    } else {
        declared.to_owned()
    }
}

/// Why a value cannot be sent.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Unfit {
    /// The column's type has no such value; with the nearest one that it has.
    OutOfRange(Option<ColumnData<'static>>),
    /// Bytes that are not UTF-8 (from a `SQL_ASCII` database).
    NotUtf8,
    /// Not what the type prints under the pinned settings.
    Malformed,
}

fn parsed<T: std::str::FromStr>(text: &[u8]) -> Result<T, Unfit> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(Unfit::Malformed)
}

fn date_of(date: Date) -> Option<time::Date> {
    let days = u32::try_from(date.days() + FIRST_DAY).ok()?;
    YEARS.contains(&date.year()).then(|| time::Date::new(days))
}

fn time_of(at: Time, digits: u8) -> time::Time {
    let micros = u64::try_from(at.micros()).unwrap_or(0);
    time::Time::new(micros * 10_u64.pow(u32::from(digits.saturating_sub(6))), digits)
}

/// The first and the last day, and the last microsecond of it.
fn bounds() -> [(time::Date, Time); 2] {
    let day = |year, month, day| Date::new(year, month, day).and_then(date_of).unwrap_or_else(|| time::Date::new(0));
    [(day(1, 1, 1), Time::default()), (day(9999, 12, 31), last_moment())]
}

fn last_moment() -> Time {
    Time::from_micros(Time::DAY - 1).unwrap_or_default()
}

/// Day and time of a date that SQL Server has, else of the nearest.
fn moment<T>(
    value: Bounded<T>,
    parts: impl FnOnce(T) -> (Date, Time),
) -> Result<(time::Date, Time), (time::Date, Time)> {
    let [first, last] = bounds();
    match value {
        Bounded::NegativeInfinity => Err(first),
        Bounded::Infinity => Err(last),
        Bounded::Finite(value) => {
            let (date, time) = parts(value);
            date_of(date).map(|date| (date, time)).ok_or(if date.year() < 1 { first } else { last })
        }
    }
}

/// What a text of PostgreSQL's becomes.
pub(super) fn value(form: Form, text: &[u8]) -> Result<ColumnData<'_>, Unfit> {
    Ok(match form {
        Form::Text => ColumnData::String(Some(Cow::Borrowed(std::str::from_utf8(text).map_err(|_| Unfit::NotUtf8)?))),
        Form::Integer(2) => ColumnData::I16(Some(parsed(text)?)),
        Form::Integer(4) => ColumnData::I32(Some(parsed(text)?)),
        Form::Integer(_) => ColumnData::I64(Some(parsed(text)?)),
        Form::Boolean => ColumnData::Bit(Some(boolean(text).ok_or(Unfit::Malformed)?)),
        Form::Float => {
            let value: f32 = parsed(text)?;
            if !value.is_finite() {
                let most = (!value.is_nan()).then(|| ColumnData::F32(Some(f32::MAX.copysign(value))));
                return Err(Unfit::OutOfRange(most));
            }
            ColumnData::F32(Some(value))
        }
        Form::Double => {
            let value: f64 = parsed(text)?;
            if !value.is_finite() {
                let most = (!value.is_nan()).then(|| ColumnData::F64(Some(f64::MAX.copysign(value))));
                return Err(Unfit::OutOfRange(most));
            }
            ColumnData::F64(Some(value))
        }
        Form::Decimal(_, scale) => match Decimal::parse(text).ok_or(Unfit::Malformed)? {
            Decimal::Finite { .. } => {
                let digits = Decimal::parse(text).and_then(|number| number.unscaled(i32::from(scale)));
                ColumnData::Numeric(Some(Numeric::new_with_scale(digits.ok_or(Unfit::Malformed)?, scale)))
            }
            Decimal::NaN | Decimal::Infinity | Decimal::NegativeInfinity => return Err(Unfit::OutOfRange(None)),
        },
        Form::Money => {
            let hundredths = money(text).ok_or(Unfit::Malformed)?;
            ColumnData::Numeric(Some(Numeric::new_with_scale(hundredths.into(), 2)))
        }
        Form::Date => {
            let date = Date::parse(text).ok_or(Unfit::Malformed)?;
            let day = moment(date, |date| (date, Time::default()));
            ColumnData::Date(Some(day.map_err(|(day, _)| Unfit::OutOfRange(Some(ColumnData::Date(Some(day)))))?.0))
        }
        Form::Time => {
            let time = Time::parse(text).ok_or(Unfit::Malformed)?;
            let sent = |time| ColumnData::Time(Some(time_of(time, FRACTION)));
            if time.micros() >= Time::DAY {
                return Err(Unfit::OutOfRange(Some(sent(last_moment()))));
            }
            sent(time)
        }
        Form::DateTime => {
            let at = moment(DateTime::parse(text).ok_or(Unfit::Malformed)?, |at: DateTime| (at.date, at.time));
            let sent = |(day, time)| ColumnData::DateTime2(Some(time::DateTime2::new(day, time_of(time, 6))));
            sent(at.map_err(|nearest| Unfit::OutOfRange(Some(sent(nearest))))?)
        }
        Form::DateTimeOffset => {
            if !text.ends_with(b"+00") && !text.ends_with(b"infinity") && !text.ends_with(b" BC") {
                return Err(Unfit::Malformed);
            }
            let at = moment(DateTime::parse(text).ok_or(Unfit::Malformed)?, |at: DateTime| (at.date, at.time));
            let sent = |(day, time)| {
                let at = time::DateTime2::new(day, time_of(time, FRACTION));
                ColumnData::DateTimeOffset(Some(time::DateTimeOffset::new(at, 0)))
            };
            sent(at.map_err(|nearest| Unfit::OutOfRange(Some(sent(nearest))))?)
        }
        Form::Bytes => {
            let mut plain = Vec::new();
            bytes(text, &mut plain).ok_or(Unfit::Malformed)?;
            ColumnData::Binary(Some(Cow::Owned(plain)))
        }
        Form::Uuid => ColumnData::Guid(Some(parsed::<Uuid>(text)?)),
    })
}

/// The inverse: PostgreSQL's text for a value read back, `None` for NULL. Byte by byte what
/// PostgreSQL printed under the pinned settings.
#[must_use]
pub fn postgres_text(family: Family, value: &ColumnData<'_>) -> Option<Vec<u8>> {
    let text = match value {
        ColumnData::Bit(bit) => if (*bit)? { "t" } else { "f" }.to_owned(),
        ColumnData::U8(number) => (*number)?.to_string(),
        ColumnData::I16(number) => (*number)?.to_string(),
        ColumnData::I32(number) => (*number)?.to_string(),
        ColumnData::I64(number) => (*number)?.to_string(),
        ColumnData::F32(number) => float_text(f64_of((*number)?), 6),
        ColumnData::F64(number) => float_text((*number)?, 15),
        ColumnData::Numeric(number) => {
            let number = decimal_text((*number)?);
            return Some(if family == Family::Money { money_text(number.as_bytes()) } else { number.into_bytes() });
        }
        ColumnData::Guid(uuid) => (*uuid)?.to_string(),
        ColumnData::Date(date) => date_text((*date)?),
        ColumnData::Time(time) => time_text((*time)?),
        ColumnData::DateTime2(at) => date_time_text((*at)?),
        ColumnData::DateTimeOffset(at) => date_time_text((*at)?.datetime2()) + "+00",
        ColumnData::Binary(bytes) => return bytes.as_deref().map(hex_text),
        ColumnData::String(text) => text.as_deref()?.to_owned(),
        other => format!("{other:?}"),
    };
    Some(text.into_bytes())
}

/// The number as PostgreSQL prints it.
pub(super) fn decimal_text(number: Numeric) -> String {
    let scale = usize::from(number.scale());
    let digits = number.value().unsigned_abs().to_string();
    let digits = format!("{digits:0>0$}", scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if number.value() < 0 { "-" } else { "" };
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

fn date_text(date: time::Date) -> String {
    match Date::from_days(i64::from(date.days()) - FIRST_DAY) {
        Some(date) => format!("{:04}-{:02}-{:02}", date.year(), date.month(), date.day()),
        None => String::new(),
    }
}

fn time_text(time: time::Time) -> String {
    let digits = u32::from(time.scale());
    let second = 10_u64.pow(digits);
    let (seconds, fraction) = (time.increments() / second, time.increments() % second);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let text = format!("{hours:02}:{minutes:02}:{seconds:02}.{fraction:0>0$}", digits as usize);
    String::from_utf8_lossy(without_zeros(text.as_bytes())).into_owned()
}

fn date_time_text(at: time::DateTime2) -> String {
    format!("{} {}", date_text(at.date()), time_text(at.time()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn comes_back(family: Family, text: &str) {
        let stored = value(form(family), text.as_bytes()).unwrap();
        let back = postgres_text(family, &stored).unwrap();
        assert_eq!(String::from_utf8(back).unwrap(), text, "{family:?}");
    }

    #[test]
    fn values_come_back_as_postgresql_printed_them() {
        for (family, texts) in [
            (Family::Boolean, &["t", "f"][..]),
            (Family::Integer(2), &["-32768"]),
            (Family::Integer(8), &["9223372036854775807"]),
            (Family::Unsigned, &["4294967295"]),
            (Family::Unsigned8, &["18446744073709551615"]),
            (Family::Float4, &["0.1", "-3.4028235e+38", "-0"]),
            (Family::Float8, &["0.30000000000000004", "5e-324"]),
            (Family::Decimal { precision: 10, scale: 2 }, &["-0.05", "12345678.90"]),
            (Family::Decimal { precision: 3, scale: -2 }, &["12300"]),
            (Family::Decimal { precision: 38, scale: 38 }, &["0.00000000000000000000000000000000000001"]),
            (Family::Numeric, &["NaN", "1e1"]),
            (Family::Money, &["-$92,233,720,368,547,758.08", "$0.05"]),
            (Family::Date, &["0001-01-01", "9999-12-31", "2024-02-29"]),
            (Family::Time, &["00:00:00", "23:59:59.999999", "12:34:56.7"]),
            (Family::Timestamp, &["0001-01-01 00:00:00", "2024-02-01 12:34:56.789"]),
            (Family::TimestampTz, &["9999-12-31 23:59:59.999999+00", "2024-02-01 12:34:56+00"]),
            (Family::Bytes, &["\\x6100", "\\x"]),
            (Family::Uuid, &["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
            (Family::Text, &["", "a ", "🌍"]),
            (Family::Jsonb, &["{\"a\": 1}"]),
        ] {
            texts.iter().for_each(|text| comes_back(family, text));
        }
        assert_eq!(postgres_text(Family::Text, &ColumnData::String(None)), None);
    }

    #[test]
    fn what_a_column_cannot_hold_has_the_nearest_value_or_none() {
        let nearest = |family: Family, text: &str| match value(form(family), text.as_bytes()) {
            Err(Unfit::OutOfRange(nearest)) => {
                nearest.map(|value| String::from_utf8(postgres_text(family, &value).unwrap_or_default()).unwrap())
            }
            other => panic!("{family:?} {text}: {other:?}"),
        };
        for (family, text, expected) in [
            (Family::Date, "10000-01-01", Some("9999-12-31")),
            (Family::Date, "0044-03-15 BC", Some("0001-01-01")),
            (Family::Date, "infinity", Some("9999-12-31")),
            (Family::Time, "24:00:00", Some("23:59:59.999999")),
            (Family::Timestamp, "294276-01-01 00:00:00", Some("9999-12-31 23:59:59.999999")),
            (Family::TimestampTz, "-infinity", Some("0001-01-01 00:00:00+00")),
            (Family::Float8, "NaN", None),
            (Family::Float4, "-Infinity", Some("-3.4028235e+38")),
            (Family::Decimal { precision: 10, scale: 2 }, "NaN", None),
        ] {
            assert_eq!(nearest(family, text).as_deref(), expected, "{family:?} {text}");
        }
        for (family, text, unfit) in [
            (Family::TimestampTz, &b"2024-02-01 12:34:56.789"[..], Unfit::Malformed),
            (Family::Bytes, b"\\x0", Unfit::Malformed),
            (Family::Boolean, b"true", Unfit::Malformed),
            (Family::Decimal { precision: 5, scale: 1 }, b"1.55", Unfit::Malformed),
            (Family::Text, b"\xff", Unfit::NotUtf8),
        ] {
            assert_eq!(value(form(family), text), Err(unfit), "{family:?}");
        }
    }

    #[test]
    fn keys_have_lengths_that_an_index_takes() {
        let declared = |family, length, in_key| form(family).declared(length, in_key);
        assert_eq!(declared(Family::Text, None, true), "nvarchar(255)");
        assert_eq!(declared(Family::Text, Some(20), true), "nvarchar(40)");
        assert_eq!(declared(Family::Text, Some(800), true), "nvarchar(850)");
        assert_eq!(declared(Family::Text, Some(20), false), "nvarchar(max)");
        assert_eq!(declared(Family::Decimal { precision: 39, scale: 0 }, None, false), "nvarchar(max)");
        assert_eq!(declared(Family::Decimal { precision: 2, scale: 4 }, None, false), "decimal(4,4)");
    }
}
