//! Kafka in the documentation of values. It exists in every build, so that the documentation is the
//! same.

use crate::destination::value::{DestinationColumn, Family, FamilyColumn};

/// Kafka in the documentation.
#[derive(Clone, Copy, Debug, Default)]
pub struct KafkaColumn;

impl DestinationColumn for KafkaColumn {
    fn destination(&self) -> &'static str {
        "Kafka"
    }

    fn family(&self, family: Family) -> FamilyColumn {
        let (declared, value, not_held) = match family {
            Family::Boolean => ("boolean", "`true` or `false`", "–"),
            Family::Integer(2) => ("int16", "the number", "–"),
            Family::Integer(4) => ("int32", "the number", "–"),
            Family::Integer(_) | Family::Unsigned => ("int64", "the number", "–"),
            Family::Float4 => ("float", "the number; `NaN` and infinities as strings", "–"),
            Family::Float8 => ("double", "the number; `NaN` and infinities as strings", "–"),
            Family::Numeric => (
                "VariableScaleDecimal; string; double",
                "scale and the unscaled number's bytes; PostgreSQL's text; the number",
                "`NaN` and infinities as bytes: policy",
            ),
            Family::Decimal { .. } => (
                "Decimal; string; double",
                "the unscaled number's bytes; PostgreSQL's text; the number",
                "`NaN` as bytes: policy",
            ),
            Family::Money => ("Decimal of scale 2; string; double", "hundredths; `1234.56`; the number", "–"),
            Family::Bytes => ("bytes; string", "base64; base64 or hexadecimal digits", "–"),
            Family::Date => ("Date; IsoDate", "days since 1970; `2024-02-29Z`", "`infinity`: policy"),
            Family::Time => (
                "Time or MicroTime; IsoTime",
                "milliseconds or microseconds; `13:14:15.5Z`",
                "`24:00:00` as ISO: policy",
            ),
            Family::TimeTz => ("ZonedTime", "`11:14:15.5Z`, in UTC", "–"),
            Family::Timestamp => (
                "Timestamp or MicroTimestamp; IsoTimestamp",
                "milliseconds or microseconds since 1970; `2024-02-29T13:14:15.5Z`",
                "`infinity`, and microseconds after the year 294246: policy",
            ),
            Family::TimestampTz => ("ZonedTimestamp", "`2024-02-29T11:14:15.5Z`, in UTC; `infinity`", "–"),
            Family::Interval => (
                "MicroDuration; Interval",
                "microseconds, a month as 30.4375 days; `P1Y2M3DT4H5M6.789S`",
                "`infinity`, and more microseconds than 64 bits hold: policy",
            ),
            Family::Uuid => ("Uuid", "PostgreSQL's text", "–"),
            Family::Json | Family::Jsonb => ("Json", "PostgreSQL's text, as a string", NOT_UTF8),
            Family::Xml => ("Xml", "PostgreSQL's text", NOT_UTF8),
            Family::Bits => (
                "Bits; bit(1): boolean",
                "bytes of the number that the bits are, the least significant first; `true` or `false`",
                "–",
            ),
            Family::Array => ("array", "an array", "with schemas, more dimensions than one: policy"),
            Family::Enum => ("Enum", "the label", NOT_UTF8),
            Family::Geometric => {
                ("point: Point; else string", "coordinates and well-known binary; PostgreSQL's text", "–")
            }
            Family::TextSearch => ("tsvector: Tsvector; else string", "PostgreSQL's text", "–"),
            Family::Text | Family::PaddedText | Family::Composite | Family::Other => {
                ("string", "PostgreSQL's text", NOT_UTF8)
            }
            _ => ("string", "PostgreSQL's text", "–"),
        };
        FamilyColumn { declared, value, order: "–", not_held }
    }

    fn notes(&self) -> &'static str {
        "\
What is separated by semicolons is chosen by `--kafka-decimal-handling`, `--kafka-time-precision`, `--kafka-binary-handling` and
`--kafka-interval-handling`. Names without a small letter at their beginning are Debezium's and Kafka Connect's semantic types, which a
schema names; [kafka.md](kafka.md) has the whole event.

*Policy* is `--unrepresentable`: `error` (default) stops before the row and names table, column and value; `null` writes null; `clamp` writes
the nearest number, and replaces what is not UTF-8 by U+FFFD; `text` writes PostgreSQL's text as a string, without schemas only. What the
policy has no answer for (`NaN` under `clamp`) stops.
"
    }
}

const NOT_UTF8: &str = "bytes that are not UTF-8 (`SQL_ASCII`): policy";
