//! What PostgreSQL's types are to a destination: the value table.
//!
//! [`PG_TYPES`] lists every built-in type with its [`Family`]: types of one family print alike and
//! become the same thing. Each destination fills one column of the table ([`DestinationColumn`]):
//! for each family the type that a created column gets, what is bound, how it sorts and what it
//! cannot hold. `docs/values.md` is written from this code and a test keeps the two equal.
//!
//! Values arrive as the text that the type's output function prints under the pinned session
//! settings (ISO dates in UTC, hex bytea, shortest round-trip floats, `lc_monetary=C`), so a family
//! knows that form and no other.

mod document;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
#[cfg(any(feature = "mysql", feature = "sqlserver"))]
pub(crate) mod inverse;
pub mod text;
mod types;

use std::fmt::LowerExp;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use document::{DestinationColumn, FamilyColumn, document};
pub use types::{PG_TYPES, PgType};

use crate::change::{Relation, TypeKind};

/// Types that print alike and become the same thing at a destination; domains are what they stand
/// on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Family {
    /// `t` or `f`.
    Boolean,
    /// Signed integers of 2, 4 or 8 bytes.
    Integer(u8),
    /// Unsigned 32-bit numbers: `oid`, `xid`, `cid`.
    Unsigned,
    /// Unsigned 64-bit numbers: `xid8`.
    Unsigned8,
    /// `real`: shortest digits that make the same 32-bit number.
    Float4,
    /// `double precision`: shortest digits that make the same 64-bit number.
    Float8,
    /// `numeric` without precision: any number of digits, `NaN`, `Infinity`, `-Infinity`, and each
    /// value its own scale.
    Numeric,
    /// `numeric(precision, scale)`: `NaN` or a number with exactly `scale` digits after the point
    /// (none when negative).
    Decimal {
        /// Digits in total.
        precision: u16,
        /// Digits after the point; negative: zeros before it.
        scale: i16,
    },
    /// `money` under `lc_monetary=C`: `-$1,234.56`.
    Money,
    /// `text`, `varchar`, `name`, `"char"`, `refcursor`: the text itself.
    Text,
    /// `char(n)`: the text, padded with spaces as PostgreSQL prints it.
    PaddedText,
    /// `bytea` in hex.
    Bytes,
    /// `date`: ISO, with ` BC`, years above 9999, `infinity`, `-infinity`.
    Date,
    /// `time`: up to `24:00:00`.
    Time,
    /// `time with time zone`: with the offset that it was written with.
    TimeTz,
    /// `timestamp`: ISO, with ` BC`, years above 9999, `infinity`, `-infinity`.
    Timestamp,
    /// `timestamp with time zone`, in UTC.
    TimestampTz,
    /// `interval` under `intervalstyle=postgres`.
    Interval,
    /// `uuid`: lower-case, with dashes.
    Uuid,
    /// `json`: the text as it was written.
    Json,
    /// `jsonb`: as PostgreSQL prints it.
    Jsonb,
    /// `xml`.
    Xml,
    /// `inet`: the prefix length is left out when it is the whole address.
    Inet,
    /// `cidr`: always with its prefix length.
    Cidr,
    /// `macaddr`, `macaddr8`.
    MacAddress,
    /// `bit`, `bit varying`: zeros and ones.
    Bits,
    /// `pg_lsn`.
    Lsn,
    /// Arrays of any type and depth, in PostgreSQL's array notation.
    Array,
    /// Ranges.
    Range,
    /// Multiranges.
    Multirange,
    /// Enums: the label.
    Enum,
    /// Row types, in PostgreSQL's row notation.
    Composite,
    /// Points, lines, boxes, circles, …
    Geometric,
    /// `tsvector`, `tsquery`.
    TextSearch,
    /// Types that print the name of a thing of the catalogue (`regclass`, …) and others that only
    /// PostgreSQL reads.
    Catalogue,
    /// A type of an extension, and any type that the catalogue no longer knew: its text.
    Other,
}

impl Family {
    /// Values that are written differently are different, in PostgreSQL and wherever the column has
    /// a type of its own (`1.0` and `1.00` are not).
    #[must_use]
    pub const fn is_exact(self) -> bool {
        matches!(
            self,
            Self::Integer(_) | Self::Unsigned | Self::Unsigned8 | Self::Text | Self::Uuid | Self::Bytes | Self::Boolean
        )
    }

    /// The family of a column's type; domains are resolved with what the catalogue said.
    #[must_use]
    pub fn of(relation: &Relation, type_oid: u32, modifier: i32) -> Self {
        let (oid, modifier) = relation.base_type(type_oid, modifier);
        match relation.type_info(oid).map(|info| &info.kind) {
            Some(TypeKind::Array(_)) => Self::Array,
            Some(TypeKind::Enum(_)) => Self::Enum,
            Some(TypeKind::Composite(_)) => Self::Composite,
            Some(TypeKind::Range) => Self::Range,
            Some(TypeKind::Multirange) => Self::Multirange,
            Some(TypeKind::Base | TypeKind::Domain(..)) | None => Self::of_builtin(oid, modifier),
        }
    }

    /// The family of a built-in type; [`Family::Other`] when there is none with this OID.
    #[must_use]
    pub fn of_builtin(oid: u32, modifier: i32) -> Self {
        let found = PG_TYPES.iter().find(|entry| entry.oid == oid || (entry.array_oid == oid && oid != 0));
        match found {
            None => Self::Other,
            Some(entry) if entry.oid != oid => Self::Array,
            Some(PgType { family: Self::Numeric, .. }) if modifier >= 4 => {
                // numeric's modifier: ((precision << 16) | (scale in 11 bits, two's complement)) +
                // 4.
                let packed = modifier - 4;
                let precision = u16::try_from(packed >> 16 & 0xFFFF).unwrap_or(u16::MAX);
                let scale = i16::try_from(((packed & 0x7FF) ^ 0x400) - 0x400).unwrap_or(0);
                Self::Decimal { precision, scale }
            }
            Some(entry) => entry.family,
        }
    }

    /// Each family once, for the documentation; the parameters are examples.
    #[must_use]
    pub fn examples() -> Vec<Self> {
        let mut families = Vec::new();
        for entry in PG_TYPES {
            if !families.contains(&entry.family) {
                families.push(entry.family);
            }
            if entry.family == Self::Numeric && families.last() == Some(&Self::Numeric) {
                families.push(Self::Decimal { precision: 10, scale: 0 });
                families.push(Self::Decimal { precision: 10, scale: 2 });
                families.push(Self::Decimal { precision: 30, scale: 10 });
            }
        }
        families.extend([Self::Array, Self::Enum, Self::Composite, Self::Other]);
        families
    }
}

/// A built-in type as a person writes it: `numeric(10,2)`, `varchar(20)`, `int4[]`.
#[must_use]
pub fn type_name(oid: u32, modifier: i32) -> String {
    let Some(entry) = PG_TYPES.iter().find(|entry| entry.oid == oid || (entry.array_oid == oid && oid != 0)) else {
        return format!("the type with OID {oid}");
    };
    let length = match (Family::of_builtin(entry.oid, modifier), entry.family) {
        (Family::Decimal { precision, scale }, _) => format!("({precision},{scale})"),
        (_, Family::Text | Family::PaddedText) if modifier > 4 => format!("({})", modifier - 4),
        (_, Family::Bits | Family::Time | Family::TimeTz | Family::Timestamp | Family::TimestampTz)
            if modifier >= 0 =>
        {
            format!("({modifier})")
        }
        _ => String::new(),
    };
    format!("{}{length}{}", entry.name, if entry.oid == oid { "" } else { "[]" })
}

/// Writes a number's shortest digits as PostgreSQL prints a float: plain for decimal exponents from
/// -4 up to `limit` (15 for `double precision`, 6 for `real`), else with an exponent of at least
/// two digits.
#[must_use]
pub fn float_text(value: f64, limit: i32) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_sign_negative() {
        return format!("-{}", float_text(-value, limit));
    }
    if value.is_infinite() {
        return "Infinity".to_owned();
    }
    // A `real` is held as the 64-bit number nearest to its few digits, which are the shortest
    // whatever lies around them.
    let scientific = if limit == 15 { shortest_inside(value, HALF_WAY) } else { format!("{value:e}") };
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value == 0.0 || (-4..limit).contains(&exponent) {
        return positional(mantissa, exponent);
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// The 64-bit number with the digits that PostgreSQL prints of this one.
#[cfg(any(test, feature = "mysql", feature = "sqlserver", feature = "fuzzing"))]
pub(crate) fn f64_of(value: f32) -> f64 {
    // 2^24.
    let digits = shortest_inside(value.abs(), 16_777_216.0);
    digits.parse().map_or(f64::from(value), |number: f64| number.copysign(f64::from(value)))
}

/// Scientific digits without their exponent.
fn positional(mantissa: &str, exponent: i32) -> String {
    let digits = mantissa.replace('.', "");
    match usize::try_from(exponent) {
        Err(_) => format!("0.{}{digits}", "0".repeat(usize::try_from(-exponent - 1).unwrap_or(0))),
        Ok(whole) if digits.len() <= whole + 1 => format!("{digits:0<0$}", whole + 1),
        Ok(whole) => format!("{}.{}", &digits[..=whole], &digits[whole + 1..]),
    }
}

/// The shortest digits, in scientific notation, that are nearer to this number than to any other,
/// as PostgreSQL chooses them. Rust's differ twice: where the number lies half-way between two of
/// so few digits, Rust takes the upper and PostgreSQL the even one; and digits that lie half-way to
/// another number are read as the even one of the two, which is not enough for PostgreSQL.
/// That is so from `half_way` on: below, what lies half-way has more digits than are ever needed.
fn shortest_inside<F: LowerExp + FromStr + PartialOrd>(value: F, half_way: F) -> String {
    let shortest = format!("{value:e}");
    let mut places = shortest.find('e').unwrap_or(0).saturating_sub(2);
    let even = format!("{value:.places$e}");
    if even != shortest && is_inside(&even, &value) {
        return even;
    }
    let mut scientific = shortest;
    while value >= half_way && !is_inside(&scientific, &value) {
        places = places.max(1) + usize::from(scientific.contains('.'));
        scientific = format!("{value:.places$e}");
    }
    scientific
}

/// Whether a little more and a little less than these digits are read as `value` too.
fn is_inside<F: FromStr + PartialEq>(scientific: &str, value: &F) -> bool {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let places = i32::try_from(mantissa.len().saturating_sub(2)).unwrap_or(0);
    let (Ok(digits), Ok(exponent)) = (mantissa.replace('.', "").parse::<u64>(), exponent.parse::<i32>()) else {
        return true;
    };
    [format!("{digits}.{:060}1", 0), format!("{}.{:9<60}", digits.saturating_sub(1), "")]
        .iter()
        .all(|near| format!("{near}e{}", exponent - places).parse().is_ok_and(|near: F| near == *value))
}

/// 2^53.
const HALF_WAY: f64 = 9_007_199_254_740_992.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numeric_modifiers_are_taken_apart_with_negative_scales() {
        let modifier = |precision: i32, scale: i32| ((precision << 16) | (scale & 0x7FF)) + 4;
        let of = |precision, scale| Family::of_builtin(1700, modifier(precision, scale));
        assert_eq!(of(10, 2), Family::Decimal { precision: 10, scale: 2 });
        assert_eq!(of(3, -2), Family::Decimal { precision: 3, scale: -2 });
        assert_eq!(of(1000, 1000), Family::Decimal { precision: 1000, scale: 1000 });
        assert_eq!(of(1000, -1000), Family::Decimal { precision: 1000, scale: -1000 });
        assert_eq!(Family::of_builtin(1700, -1), Family::Numeric);
    }

    #[test]
    fn floats_print_as_postgresql_prints_them() {
        for (value, text) in [
            (1.0, "1"),
            (0.1, "0.1"),
            (1e15, "1e+15"),
            (123_456_789_012_345.0, "123456789012345"),
            (1e-4, "0.0001"),
            (1.5e-5, "1.5e-05"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (-0.0, "-0"),
            (f64::NEG_INFINITY, "-Infinity"),
            (0.300_000_000_000_000_04, "0.30000000000000004"),
            (-12.5, "-12.5"),
            // Half-way between 512.3333129882812 and 512.3333129882813.
            (512.0 + 10_922.0 / 32_768.0, "512.3333129882812"),
            (1_125_899_906_842_623.0 + 0.75, "1.1258999068426238e+15"),
            // 1e+23 lies half-way to the next number.
            (1e23, "9.999999999999999e+22"),
            (9_007_199_254_740_992.0, "9.007199254740992e+15"),
            (-5.480_179_964_356_68e17, "-5.4801799643566797e+17"),
        ] {
            assert_eq!(float_text(value, 15), text);
        }
        assert_eq!(float_text(1e6, 6), "1e+06");
        assert_eq!(float_text(123_456.0, 6), "123456");
        assert_eq!(float_text(3.402_823_5e38, 6), "3.4028235e+38");
        for (value, text) in [
            (0.1, "0.1"),
            (-0.0, "-0"),
            (f32::NEG_INFINITY, "-Infinity"),
            (f32::NAN, "NaN"),
            (f32::MAX, "3.4028235e+38"),
            (1e-45, "1e-45"),
            // Half-way between 1149669.2 and 1149669.3.
            (1_149_669.0 + 0.25, "1.1496692e+06"),
            // 149440200 lies half-way to the next number.
            (149_440_192.0, "1.4944019e+08"),
            (-149_440_192.0, "-1.4944019e+08"),
        ] {
            assert_eq!(float_text(f64_of(value), 6), text);
        }
    }

    #[test]
    fn types_are_named_as_they_are_written() {
        for (oid, modifier, name) in [
            (23, -1, "int4"),
            (1700, (10 << 16 | 2) + 4, "numeric(10,2)"),
            (1043, 24, "varchar(20)"),
            (1114, 3, "timestamp(3)"),
            (1015, 24, "varchar(20)[]"),
            (99999, -1, "the type with OID 99999"),
        ] {
            assert_eq!(type_name(oid, modifier), name);
        }
    }

    #[test]
    fn no_type_is_listed_twice() {
        let mut seen = std::collections::HashSet::new();
        for entry in PG_TYPES {
            assert!(seen.insert(entry.oid), "{}", entry.name);
            assert!(entry.array_oid == 0 || seen.insert(entry.array_oid), "array of {}", entry.name);
        }
    }
}
