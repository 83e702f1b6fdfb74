//! SQLite's column of the value table: what is bound for a PostgreSQL text, and the way back.
//!
//! SQLite stores a value in one of five classes and converts by the column's *affinity*; what was
//! measured with it:
//!
//! - NaN is stored as NULL, so it is written as the text `NaN` (a REAL column leaves it a text; it
//!   sorts after all numbers, as in PostgreSQL).
//! - A REAL column keeps ±Infinity, but stores `-0.0` as the integer 0. The negative zero is
//!   written as the BLOB `-0`.
//! - A `real` is bound as the 64-bit number nearest to its shortest decimal text, not as the 32-bit
//!   number widened: `0.1` stays `0.1`, and the text comes back from the same digits.
//! - A number with at most 15 significant digits goes through a 64-bit float and back unharmed, so
//!   `numeric(p,s)` up to `p = 15` is a REAL that compares and sorts; its declared scale prints it
//!   as PostgreSQL does. Anything wider, and `numeric` without a precision (each value has a scale
//!   of its own there: `1.50` is not `1.5`), is text.
//!
//! The rule behind the exceptions: what a column cannot hold as a number is held as PostgreSQL's
//! text, and as a BLOB of that text where SQLite would turn the text into a number.

use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};

use crate::destination::value::text::{boolean, bytes, money};
use crate::destination::value::{DestinationColumn, Family, FamilyColumn, float_text};

/// The declared types of columns that we create, and the affinity that they mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// `INTEGER`
    Integer,
    /// `REAL`
    Real,
    /// `TEXT`
    Text,
    /// `BLOB`
    Blob,
}

impl Storage {
    /// The word in `CREATE TABLE`.
    #[must_use]
    pub const fn declared(self) -> &'static str {
        match self {
            Self::Integer => "INTEGER",
            Self::Real => "REAL",
            Self::Text => "TEXT",
            Self::Blob => "BLOB",
        }
    }
}

/// How a value's text is read before it is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Boolean,
    Integer,
    Money,
    Real,
    Text,
    TimestampTz,
    Bytes,
}

impl Form {
    /// Bound as a number, when it can be.
    pub const fn is_number(self) -> bool {
        matches!(self, Self::Boolean | Self::Integer | Self::Money | Self::Real)
    }
}

/// What a family is bound as.
pub(super) const fn form(family: Family) -> Form {
    match family {
        Family::Boolean => Form::Boolean,
        Family::Integer(_) | Family::Unsigned => Form::Integer,
        Family::Decimal { precision, scale } => match decimal_storage(precision, scale) {
            Storage::Integer => Form::Integer,
            Storage::Real => Form::Real,
            Storage::Text | Storage::Blob => Form::Text,
        },
        Family::Money => Form::Money,
        Family::Float4 | Family::Float8 => Form::Real,
        Family::TimestampTz => Form::TimestampTz,
        Family::Bytes => Form::Bytes,
        _ => Form::Text,
    }
}

const fn decimal_storage(precision: u16, scale: i16) -> Storage {
    if scale <= 0 {
        // At most `precision - scale` digits, and an i64 holds any 18.
        if precision as i32 - scale as i32 <= 18 { Storage::Integer } else { Storage::Text }
    } else if precision <= 15 && scale <= 300 {
        Storage::Real
    } else {
        Storage::Text
    }
}

/// The declared type of a column of this family.
#[must_use]
pub const fn storage(family: Family) -> Storage {
    match form(family) {
        Form::Boolean | Form::Integer | Form::Money => Storage::Integer,
        Form::Real => Storage::Real,
        Form::Text | Form::TimestampTz => Storage::Text,
        Form::Bytes => Storage::Blob,
    }
}

/// A value to bind; borrows from the frame, or from the scratch buffer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bound<'a> {
    Null,
    Integer(i64),
    Real(f64),
    Text(&'a [u8]),
    Blob(&'a [u8]),
}

impl ToSql for Bound<'_> {
    #[inline]
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match *self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(number),
            Self::Real(number) => ValueRef::Real(number),
            Self::Text(text) => ValueRef::Text(text),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// Why a text cannot be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// Bytes that are not UTF-8 (from a `SQL_ASCII` database): SQLite's TEXT has no other encoding.
    NotUtf8,
    /// Not what the type prints under the pinned settings.
    Malformed,
}

/// Reads a value's text.
#[inline]
pub(super) fn bound<'a>(form: Form, text: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<Bound<'a>, Unfit> {
    match form {
        Form::Text => {
            if std::str::from_utf8(text).is_err() {
                return Err(Unfit::NotUtf8);
            }
            Ok(Bound::Text(text))
        }
        Form::Integer => match integer(text) {
            Some(number) => Ok(Bound::Integer(number)),
            None if text == b"NaN" => Ok(Bound::Text(text)),
            None => Err(Unfit::Malformed),
        },
        Form::Boolean => boolean(text).map(|value| Bound::Integer(value.into())).ok_or(Unfit::Malformed),
        Form::Real => real(text),
        Form::Money => money(text).map(Bound::Integer).ok_or(Unfit::Malformed),
        Form::TimestampTz => {
            if !text.is_ascii() {
                return Err(Unfit::Malformed);
            }
            let (instant, era) = match text.strip_suffix(b" BC") {
                Some(instant) => (instant, &b" BC"[..]),
                None => (text, &b""[..]),
            };
            if !instant.ends_with(b"+00") {
                return Ok(Bound::Text(text));
            }
            scratch.clear();
            scratch.extend_from_slice(instant);
            scratch.extend_from_slice(b":00");
            scratch.extend_from_slice(era);
            Ok(Bound::Text(scratch))
        }
        Form::Bytes => {
            scratch.clear();
            bytes(text, scratch).ok_or(Unfit::Malformed)?;
            Ok(Bound::Blob(scratch))
        }
    }
}

#[inline]
fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    let mut number: u64 = 0;
    for digit in digits {
        let value = digit.wrapping_sub(b'0');
        if value > 9 {
            return None;
        }
        // Nineteen digits are below 10^19 and fit in 64 bits.
        number = number * 10 + u64::from(value);
    }
    if negative { 0i64.checked_sub_unsigned(number) } else { i64::try_from(number).ok() }
}

fn real(text: &[u8]) -> Result<Bound<'_>, Unfit> {
    if text == b"NaN" {
        return Ok(Bound::Text(text));
    }
    let number: f64 = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(Unfit::Malformed)?;
    if number.is_nan() {
        // In other letters than PostgreSQL's: SQLite would store NULL.
        return Err(Unfit::Malformed);
    }
    if number == 0.0 && number.is_sign_negative() {
        return Ok(Bound::Blob(b"-0"));
    }
    Ok(Bound::Real(number))
}

/// A stored value is not what this destination writes for the family.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {class} is not what is stored for {family:?}")]
pub struct NotOurs {
    class: &'static str,
    family: Family,
}

/// The inverse: PostgreSQL's text for a value read back, `None` for NULL. Byte by byte what
/// PostgreSQL printed under the pinned settings.
///
/// # Errors
///
/// [`NotOurs`] when the value's storage class is none that is written for this family.
pub fn postgres_text(family: Family, value: ValueRef<'_>) -> Result<Option<Vec<u8>>, NotOurs> {
    let not_ours = |class| NotOurs { class, family };
    let text = match value {
        ValueRef::Null => return Ok(None),
        ValueRef::Blob(bytes) if form(family) == Form::Bytes => {
            let mut text = b"\\x".to_vec();
            for byte in bytes {
                text.extend_from_slice(format!("{byte:02x}").as_bytes());
            }
            text
        }
        ValueRef::Blob(bytes) => bytes.to_vec(),
        ValueRef::Text(text) => match form(family) {
            Form::Boolean if text == b"1" => b"t".to_vec(),
            Form::Boolean if text == b"0" => b"f".to_vec(),
            Form::TimestampTz => {
                let text = String::from_utf8_lossy(text);
                text.strip_suffix("+00:00")
                    .map(|instant| format!("{instant}+00"))
                    .or_else(|| text.strip_suffix("+00:00 BC").map(|instant| format!("{instant}+00 BC")))
                    .unwrap_or_else(|| text.into_owned())
                    .into_bytes()
            }
            Form::Money => match integer(text) {
                Some(hundredths) => money_text(hundredths),
                None => text.to_vec(),
            },
            Form::Bytes => return Err(not_ours("text")),
            _ => text.to_vec(),
        },
        ValueRef::Integer(number) => match form(family) {
            Form::Boolean => if number == 0 { "f" } else { "t" }.into(),
            Form::Integer => number.to_string().into_bytes(),
            Form::Money => money_text(number),
            #[allow(clippy::cast_precision_loss)]
            Form::Real => real_text(family, number as f64),
            Form::Text | Form::TimestampTz | Form::Bytes => return Err(not_ours("integer")),
        },
        ValueRef::Real(number) => match form(family) {
            Form::Real => real_text(family, number),
            _ => return Err(not_ours("floating-point number")),
        },
    };
    Ok(Some(text))
}

fn real_text(family: Family, number: f64) -> Vec<u8> {
    match family {
        Family::Decimal { scale, .. } => format!("{number:.*}", usize::try_from(scale).unwrap_or(0)),
        Family::Float4 => float_text(number, 6),
        _ => float_text(number, 15),
    }
    .into_bytes()
}

fn money_text(hundredths: i64) -> Vec<u8> {
    let magnitude = hundredths.unsigned_abs();
    let digits = (magnitude / 100).to_string();
    let mut text = if hundredths < 0 { "-$" } else { "$" }.to_owned();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text.push_str(&format!(".{:02}", magnitude % 100));
    text.into_bytes()
}

/// SQLite in the documentation.
#[derive(Clone, Copy, Debug, Default)]
pub struct SqliteColumn;

impl DestinationColumn for SqliteColumn {
    fn destination(&self) -> &'static str {
        "SQLite"
    }

    fn family(&self, family: Family) -> FamilyColumn {
        let nothing = "–";
        let not_utf8 = "bytes that are not UTF-8 (`SQL_ASCII`): policy";
        let (value, order, not_held) = match (family, form(family)) {
            (_, Form::Boolean) => ("0 or 1", "as in PostgreSQL", nothing),
            (_, Form::Money) => ("hundredths: `-$1,234.56` is -123456", "as in PostgreSQL", nothing),
            (Family::Decimal { .. }, Form::Integer) => {
                ("the number; `NaN` as text", "as in PostgreSQL, `NaN` last", nothing)
            }
            (_, Form::Integer) => ("the number", "as in PostgreSQL", nothing),
            (Family::Decimal { .. }, Form::Real) => (
                "the number (15 digits survive a 64-bit float; the scale is the column's); `NaN` as text",
                "as in PostgreSQL, `NaN` last",
                nothing,
            ),
            (Family::Float4, _) => (
                "the 64-bit number with the same shortest digits; `NaN` as text, `-0` as the BLOB `-0`",
                "as in PostgreSQL, `NaN` and then `-0` last",
                nothing,
            ),
            (_, Form::Real) => (
                "the number, ±Infinity included; `NaN` as text, `-0` as the BLOB `-0`",
                "as in PostgreSQL, `NaN` and then `-0` last",
                nothing,
            ),
            (Family::Numeric | Family::Decimal { .. }, _) => {
                ("PostgreSQL's text: every digit and the scale", "as text; `CAST(c AS REAL)` to sort by size", nothing)
            }
            (_, Form::Bytes) => ("the bytes", "as in PostgreSQL", nothing),
            (_, Form::TimestampTz) => (
                "`2024-02-01 12:34:56.789+00:00`, always UTC (SQLite's date functions read it)",
                "as in PostgreSQL for years 1 to 9999 and ±infinity",
                nothing,
            ),
            (Family::Date | Family::Timestamp, _) => {
                ("PostgreSQL's ISO text", "as in PostgreSQL for years 1 to 9999 and ±infinity", nothing)
            }
            (Family::Time, _) => ("PostgreSQL's ISO text, `24:00:00` included", "as in PostgreSQL", nothing),
            (Family::Uuid, _) => ("PostgreSQL's text", "as in PostgreSQL", nothing),
            (Family::Text, _) => ("the text", "by bytes (as with `COLLATE \"C\"`)", not_utf8),
            (Family::PaddedText, _) => ("the text with its padding", "by bytes", not_utf8),
            (Family::Enum, _) => ("the label", "by the label's bytes, not by the enum's order", not_utf8),
            (Family::Bits, _) => ("zeros and ones", "by bytes", nothing),
            (Family::Xml | Family::Json | Family::Other | Family::Array | Family::Composite, _) => {
                ("PostgreSQL's text", "as text", not_utf8)
            }
            _ => ("PostgreSQL's text", "as text", nothing),
        };
        FamilyColumn { declared: storage(family).declared(), value, order, not_held }
    }

    fn notes(&self) -> &'static str {
        NOTES
    }
}

const NOTES: &str = "\
What the columns cannot hold as a number is held as PostgreSQL's text, and as a BLOB of that text where SQLite would turn
the text into a number (`-0`). `typeof(c)` tells them apart. SQLite itself stores NaN as NULL and `-0.0` in a REAL column
as 0, which is why they are not bound as numbers.

*Policy* is the setting for values that cannot be held: `error` (default) stops before the row and names table, column and
value; `null` writes NULL; `clamp` replaces what is not UTF-8 by U+FFFD; `text` writes the bytes as they came, as a BLOB.
Each has a counter (`values_nulled`, `values_clamped`, `values_as_text`).

A key column is compared by its bytes: `'a'`, `'A'` and `'a '` are three keys.

`pg2any_lib::destination::sqlite::postgres_text` is the way back: the family of the PostgreSQL type and the stored value
make PostgreSQL's text again, byte by byte.
";
