//! What a value becomes in MySQL and MariaDB, and the way back.
//!
//! A column has the type that holds every value of PostgreSQL's as it is, and text where there is
//! none. In a key a text has a length that an index takes. Everything without a type of its own is
//! PostgreSQL's text: `jsonb` and `json` too, because MySQL's `JSON` orders members anew and rounds
//! numbers.
//!
//! Covered by: `destination::mysql::value::tests`, `it::mysql`.

use sqlx::Arguments;
use sqlx::error::BoxDynError;
use sqlx::mysql::MySqlArguments;

use crate::destination::value::inverse::{hex_text, money_text, without_zeros};
use crate::destination::value::text::{Bounded, Date, DateTime, boolean, bytes};
use crate::destination::value::{DestinationColumn, Family, FamilyColumn, f64_of, float_text};

/// How a value's text is read before it is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Boolean,
    Integer,
    Unsigned,
    Float,
    Double,
    Decimal,
    Money,
    Date,
    Time,
    /// `true`: with PostgreSQL's `+00` behind it.
    DateTime(bool),
    Bytes,
    Uuid,
    Text,
}

/// The most digits of a `DECIMAL`, in total and behind the point.
const DIGITS: (i32, i32) = (65, 30);

/// Precision and scale of the `DECIMAL` that holds every value of a `numeric(p,s)`; `None` when
/// there is none.
pub(super) fn decimal(precision: u16, scale: i16) -> Option<(i32, i32)> {
    let (precision, scale) = (i32::from(precision), i32::from(scale));
    let decimal = if scale < 0 { (precision - scale, 0) } else { (precision.max(scale), scale) };
    (decimal.0 <= DIGITS.0 && decimal.1 <= DIGITS.1).then_some(decimal)
}

/// What a family is bound as.
pub(super) fn form(family: Family) -> Form {
    match family {
        Family::Boolean => Form::Boolean,
        Family::Integer(_) => Form::Integer,
        Family::Unsigned | Family::Unsigned8 => Form::Unsigned,
        Family::Float4 => Form::Float,
        Family::Float8 => Form::Double,
        Family::Decimal { precision, scale } if decimal(precision, scale).is_some() => Form::Decimal,
        Family::Money => Form::Money,
        Family::Date => Form::Date,
        Family::Time => Form::Time,
        Family::Timestamp => Form::DateTime(false),
        Family::TimestampTz => Form::DateTime(true),
        Family::Bytes => Form::Bytes,
        Family::Uuid => Form::Uuid,
        _ => Form::Text,
    }
}

impl Form {
    /// Stored as a number, which is the same one whatever it is printed with.
    pub const fn is_number(self) -> bool {
        matches!(
            self,
            Self::Boolean | Self::Integer | Self::Unsigned | Self::Float | Self::Double | Self::Decimal | Self::Money
        )
    }

    /// What a parameter is wrapped in where it is compared with a column: a text would be compared
    /// as a `DOUBLE`. Not that of a `TIME`, which MySQL 9.7 casts from `24:00:00` to `00:00:00`: it
    /// is bound with all its digits.
    pub const fn compared(self) -> &'static str {
        match self {
            Self::Decimal => "CAST(? AS DECIMAL(65,30))",
            Self::Money => "CAST(? AS DECIMAL(19,2))",
            Self::Date => "CAST(? AS DATE)",
            Self::DateTime(_) => "CAST(? AS DATETIME(6))",
            _ => "?",
        }
    }
}

/// Characters (or bytes) of a key column whose type has no length of its own: three of them fit
/// into InnoDB's 3072 bytes.
const KEY_LENGTH: i32 = 255;

/// The declared type of a column, as the server prints it; `length` is that of `varchar(n)` and
/// `char(n)`.
pub(super) fn declared(family: Family, length: Option<i32>, in_key: bool) -> String {
    match form(family) {
        Form::Boolean => "tinyint(1)".to_owned(),
        Form::Integer => match family {
            Family::Integer(2) => "smallint".to_owned(),
            Family::Integer(4) => "int".to_owned(),
            _ => "bigint".to_owned(),
        },
        Form::Unsigned if family == Family::Unsigned => "int unsigned".to_owned(),
        Form::Unsigned => "bigint unsigned".to_owned(),
        Form::Float => "float".to_owned(),
        Form::Double => "double".to_owned(),
        Form::Decimal => match family {
            Family::Decimal { precision, scale } => {
                let (precision, scale) = decimal(precision, scale).unwrap_or(DIGITS);
                format!("decimal({precision},{scale})")
            }
            _ => "decimal(65,30)".to_owned(),
        },
        Form::Money => "decimal(19,2)".to_owned(),
        Form::Date => "date".to_owned(),
        Form::Time => "time(6)".to_owned(),
        Form::DateTime(_) => "datetime(6)".to_owned(),
        Form::Bytes if in_key => format!("varbinary({KEY_LENGTH})"),
        Form::Bytes => "longblob".to_owned(),
        Form::Uuid => "char(36)".to_owned(),
        Form::Text if in_key => {
            let length = length.filter(|length| (1..=768).contains(length)).unwrap_or(KEY_LENGTH);
            format!("varchar({length})")
        }
        Form::Text => "longtext".to_owned(),
    }
}

/// Why a value cannot be bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// The column's type has no such value; with the nearest one that it has.
    OutOfRange(Option<String>),
    /// Bytes that are not UTF-8 (from a `SQL_ASCII` database).
    NotUtf8,
    /// Not what the type prints under the pinned settings.
    Malformed,
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Result<T, Unfit> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(Unfit::Malformed)
}

fn utf8(text: &[u8]) -> Result<&str, Unfit> {
    std::str::from_utf8(text).map_err(|_| Unfit::NotUtf8)
}

/// `YYYY-MM-DD` of the years 1 to 9999 begins such a text, and nothing of another era ends it.
fn is_in_range(text: &[u8]) -> bool {
    text.get(4) == Some(&b'-') && !text.starts_with(b"0000") && !text.ends_with(b" BC")
}

/// The nearest of the points that a column has.
fn nearest(past: bool, with_time: bool) -> Unfit {
    let date = if past { "0001-01-01" } else { "9999-12-31" };
    let time = match (with_time, past) {
        (false, _) => "",
        (true, true) => " 00:00:00",
        (true, false) => " 23:59:59.999999",
    };
    Unfit::OutOfRange(Some(format!("{date}{time}")))
}

/// Adds a value to a statement's parameters.
#[inline]
pub(super) fn bind(
    arguments: &mut MySqlArguments,
    form: Form,
    text: &[u8],
    scratch: &mut Vec<u8>,
) -> Result<Result<(), BoxDynError>, Unfit> {
    Ok(match form {
        Form::Text => arguments.add(utf8(text)?),
        Form::Integer => arguments.add(number::<i64>(text)?),
        Form::Boolean => arguments.add(i64::from(boolean(text).ok_or(Unfit::Malformed)?)),
        Form::Unsigned => arguments.add(number::<u64>(text)?),
        Form::Float => {
            let value: f32 = number(text)?;
            if !value.is_finite() {
                // Its digits as a `DOUBLE`: those of a `FLOAT` are rounded up, out of range.
                let most = (!value.is_nan()).then(|| f64::from(f32::MAX.copysign(value)).to_string());
                return Err(Unfit::OutOfRange(most));
            }
            arguments.add(value)
        }
        Form::Double => {
            let value: f64 = number(text)?;
            if !value.is_finite() {
                let most = (!value.is_nan()).then(|| f64::MAX.copysign(value).to_string());
                return Err(Unfit::OutOfRange(most));
            }
            arguments.add(value)
        }
        Form::Decimal if text == b"NaN" => return Err(Unfit::OutOfRange(None)),
        Form::Decimal | Form::Uuid => arguments.add(utf8(text)?),
        Form::Time => {
            let text = utf8(text)?;
            let (time, fraction) = text.split_once('.').unwrap_or((text, ""));
            arguments.add(format!("{time}.{fraction:0<6}"))
        }
        Form::Money => {
            let plain: String = utf8(text)?.chars().filter(|char| !matches!(char, '$' | ',')).collect();
            arguments.add(plain.as_str())
        }
        Form::Date => {
            if !is_in_range(text) {
                let date = Date::parse(text).ok_or(Unfit::Malformed)?;
                return Err(nearest(is_past(date, |date: Date| date.year() < 1), false));
            }
            arguments.add(utf8(text)?)
        }
        Form::DateTime(zoned) => {
            if !is_in_range(text) {
                let at = DateTime::parse(text).ok_or(Unfit::Malformed)?;
                return Err(nearest(is_past(at, |at: DateTime| at.date.year() < 1), true));
            }
            let local = if zoned { text.strip_suffix(b"+00").ok_or(Unfit::Malformed)? } else { text };
            arguments.add(utf8(local)?)
        }
        Form::Bytes => {
            scratch.clear();
            bytes(text, scratch).ok_or(Unfit::Malformed)?;
            arguments.add(scratch.as_slice())
        }
    })
}

fn is_past<T>(value: Bounded<T>, is_before: impl FnOnce(T) -> bool) -> bool {
    match value {
        Bounded::NegativeInfinity => true,
        Bounded::Infinity => false,
        Bounded::Finite(value) => is_before(value),
    }
}

/// A value of this type's column as the server prints it (numbers of floating point: their bits).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stored<'a> {
    /// NULL
    Null,
    /// A `FLOAT`.
    Float(f32),
    /// A `DOUBLE`.
    Double(f64),
    /// Everything else as text; of a binary column its bytes.
    Text(&'a [u8]),
}

/// The inverse: PostgreSQL's text for a value read back, `None` for NULL. Byte by byte what
/// PostgreSQL printed under the pinned settings.
#[must_use]
pub fn postgres_text(family: Family, value: Stored<'_>) -> Option<Vec<u8>> {
    let text = match value {
        Stored::Null => return None,
        Stored::Float(value) => return Some(float_text(f64_of(value), 6).into_bytes()),
        Stored::Double(value) => return Some(float_text(value, 15).into_bytes()),
        Stored::Text(text) => text,
    };
    Some(match form(family) {
        Form::Boolean => if text == b"0" { "f" } else { "t" }.into(),
        Form::Bytes => hex_text(text),
        Form::Money => money_text(text),
        Form::Time | Form::DateTime(false) => without_zeros(text).to_vec(),
        Form::DateTime(true) => [without_zeros(text), b"+00"].concat(),
        _ => text.to_vec(),
    })
}

/// MySQL and MariaDB in the documentation.
#[derive(Clone, Copy, Debug, Default)]
pub struct MySqlColumn;

impl DestinationColumn for MySqlColumn {
    fn destination(&self) -> &'static str {
        "MySQL and MariaDB"
    }

    fn family(&self, family: Family) -> FamilyColumn {
        let nothing = "–";
        let not_utf8 = "bytes that are not UTF-8 (`SQL_ASCII`): policy";
        let (value, order, not_held) = match form(family) {
            Form::Boolean => ("0 or 1", "as in PostgreSQL", nothing),
            Form::Integer | Form::Unsigned => ("the number", "as in PostgreSQL", nothing),
            Form::Float | Form::Double => (
                "the number, bit for bit (MariaDB stores `-0` as `0`, which is counted)",
                "as in PostgreSQL",
                "`NaN`, ±`Infinity`: policy",
            ),
            Form::Decimal => ("the number", "as in PostgreSQL", "`NaN`: policy"),
            Form::Money => ("the number: `-$1,234.56` is -1234.56", "as in PostgreSQL", nothing),
            Form::Date => ("the date", "as in PostgreSQL", "BC, years above 9999, ±`infinity`: policy"),
            Form::Time => ("the time, `24:00:00` included", "as in PostgreSQL", nothing),
            Form::DateTime(false) => {
                ("date and time to the microsecond", "as in PostgreSQL", "BC, years above 9999, ±`infinity`: policy")
            }
            Form::DateTime(true) => (
                "date and time in UTC, to the microsecond",
                "as in PostgreSQL",
                "BC, years above 9999, ±`infinity`: policy",
            ),
            Form::Bytes => ("the bytes", "as in PostgreSQL", nothing),
            Form::Uuid => ("PostgreSQL's text", "as in PostgreSQL", nothing),
            Form::Text => match family {
                Family::Numeric | Family::Decimal { .. } => (
                    "PostgreSQL's text: every digit and the scale",
                    "as text; `CAST(c AS DECIMAL(65,30))` to sort by size",
                    nothing,
                ),
                Family::Text => ("the text", "by bytes (as with `COLLATE \"C\"`)", not_utf8),
                Family::PaddedText => ("the text with its padding", "by bytes", not_utf8),
                Family::Enum => ("the label", "by the label's bytes, not by the enum's order", not_utf8),
                _ => ("PostgreSQL's text", "as text", not_utf8),
            },
        };
        FamilyColumn { declared: documented(family), value, order, not_held }
    }

    fn notes(&self) -> &'static str {
        NOTES
    }
}

/// The type in the documentation's table; those with parameters by an example.
fn documented(family: Family) -> &'static str {
    match form(family) {
        Form::Boolean => "TINYINT(1)",
        Form::Integer => match family {
            Family::Integer(2) => "SMALLINT",
            Family::Integer(4) => "INT",
            _ => "BIGINT",
        },
        Form::Unsigned if family == Family::Unsigned => "INT UNSIGNED",
        Form::Unsigned => "BIGINT UNSIGNED",
        Form::Float => "FLOAT",
        Form::Double => "DOUBLE",
        Form::Decimal => "DECIMAL(p,s), p ≤ 65, s ≤ 30; else LONGTEXT",
        Form::Money => "DECIMAL(19,2)",
        Form::Date => "DATE",
        Form::Time => "TIME(6)",
        Form::DateTime(_) => "DATETIME(6)",
        Form::Bytes => "LONGBLOB; VARBINARY(255) in a key",
        Form::Uuid => "CHAR(36)",
        Form::Text => "LONGTEXT; VARCHAR(n) in a key",
    }
}

const NOTES: &str = "\
Tables that pg2any makes are InnoDB, in `utf8mb4` under a collation of bytes that does not pad (`utf8mb4_nopad_bin` in MariaDB,
`utf8mb4_0900_bin` in MySQL): `'a'`, `'A'` and `'a '` are three keys. In a key a text has the length of its `varchar(n)` or 255
characters; a longer one is refused, and named.

MariaDB has no `-0`: whatever way it is written in, `0` is stored, which is equal to it (as number, as key, and when an old row is looked
for). It is no error under any policy, and counted in `values_clamped`. MySQL keeps it.

`json` and `jsonb` are kept as text: MySQL's own `JSON` orders members anew and rounds numbers. Point JSON functions at the text.

*Policy* is the setting for values that cannot be held: `error` (default) stops before the row and names table, column and
value; `null` writes NULL; `clamp` writes the nearest value that the column has (`9999-12-31`, the largest number; there is
none for `NaN`) and replaces what is not UTF-8 by U+FFFD. `text` is as `error`, because a column of another type holds no text.
Each has a counter (`values_nulled`, `values_clamped`).

`pg2any_lib::destination::mysql::postgres_text` is the way back.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn unfit(family: Family, text: &str) -> Option<Unfit> {
        bind(&mut MySqlArguments::default(), form(family), text.as_bytes(), &mut Vec::new()).err()
    }

    #[test]
    fn what_a_column_cannot_hold_has_the_nearest_value_or_none() {
        let nearest = |text: &str| Some(Unfit::OutOfRange(Some(text.to_owned())));
        for (family, text, expected) in [
            (Family::Date, "9999-12-31", None),
            (Family::Date, "10000-01-01", nearest("9999-12-31")),
            (Family::Date, "0044-03-15 BC", nearest("0001-01-01")),
            (Family::Date, "infinity", nearest("9999-12-31")),
            (Family::TimestampTz, "-infinity", nearest("0001-01-01 00:00:00")),
            (Family::TimestampTz, "2024-02-01 12:34:56.789+00", None),
            (Family::TimestampTz, "2024-02-01 12:34:56.789", Some(Unfit::Malformed)),
            (Family::Timestamp, "294276-01-01 00:00:00", nearest("9999-12-31 23:59:59.999999")),
            (Family::Float8, "NaN", Some(Unfit::OutOfRange(None))),
            (Family::Decimal { precision: 10, scale: 2 }, "NaN", Some(Unfit::OutOfRange(None))),
            (Family::Numeric, "NaN", None),
            (Family::Time, "24:00:00", None),
            (Family::Bytes, "\\x0", Some(Unfit::Malformed)),
            (Family::Boolean, "true", Some(Unfit::Malformed)),
        ] {
            assert_eq!(unfit(family, text), expected, "{family:?} {text}");
        }
        assert!(
            matches!(unfit(Family::Float8, "-Infinity"), Some(Unfit::OutOfRange(Some(text))) if text.starts_with("-1797"))
        );
        let broken = bind(&mut MySqlArguments::default(), Form::Text, b"\xff", &mut Vec::new());
        assert_eq!(broken.err(), Some(Unfit::NotUtf8));
    }

    #[test]
    fn numerics_are_decimals_as_far_as_they_go() {
        for (precision, scale, expected) in [
            (10, 2, Some((10, 2))),
            (65, 30, Some((65, 30))),
            (66, 0, None),
            (40, 31, None),
            (3, -2, Some((5, 0))),
            (2, 4, Some((4, 4))),
        ] {
            assert_eq!(decimal(precision, scale), expected, "{precision} {scale}");
        }
    }

    #[test]
    fn values_come_back_as_postgresql_printed_them() {
        let text = |family, stored: &str| {
            String::from_utf8(postgres_text(family, Stored::Text(stored.as_bytes())).unwrap()).unwrap()
        };
        assert_eq!(text(Family::Boolean, "1"), "t");
        assert_eq!(text(Family::Money, "-1234567.89"), "-$1,234,567.89");
        assert_eq!(text(Family::Money, "0.05"), "$0.05");
        assert_eq!(text(Family::Time, "24:00:00.000000"), "24:00:00");
        assert_eq!(text(Family::TimestampTz, "2024-02-01 12:34:56.789000"), "2024-02-01 12:34:56.789+00");
        assert_eq!(text(Family::Bytes, "a\0"), "\\x6100");
        assert_eq!(postgres_text(Family::Float4, Stored::Float(0.1)).unwrap(), b"0.1");
        assert_eq!(postgres_text(Family::Float8, Stored::Double(-0.0)).unwrap(), b"-0");
        assert_eq!(postgres_text(Family::Text, Stored::Null), None);
    }
}
