//! What a column is in an event: how its text is written, and what its schema says of it.
//!
//! As Debezium's connector for PostgreSQL does it; what differs is in `docs/kafka.md`.
//!
//! Covered by: `it::events::events_are_those_that_debezium_emits`.

use super::json::quoted;
use super::settings::{BinaryHandling, DecimalHandling, EventSettings, IntervalHandling, TimePrecision};
use crate::change::{Relation, TypeKind};
use crate::destination::value::{Family, PG_TYPES};

/// How a value is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Boolean,
    /// A whole number, of this schema type.
    Whole(&'static str),
    /// `float` or `double`.
    Float(&'static str),
    /// The unscaled number's bytes.
    Decimal {
        precision: Option<u16>,
        scale: i16,
    },
    /// The same, with its scale beside it.
    VariableDecimal,
    /// A `numeric` as a `double`.
    DoubleDecimal,
    /// Hundredths.
    Money(DecimalHandling),
    /// PostgreSQL's text, under the name of this semantic type.
    Text(Option<&'static str>),
    Enum(String),
    Bytes(BinaryHandling),
    Date(TimePrecision),
    Time(Unit),
    TimeTz,
    Timestamp(Unit),
    TimestampTz,
    Interval(IntervalHandling),
    Bit,
    /// So many bits at most.
    Bits(i32),
    Point,
    Array {
        element: Box<Kind>,
        delimiter: u8,
        nested: bool,
    },
}

/// What a time is counted in, and whose name the type has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Micros,
    Millis,
    /// Milliseconds, under Kafka Connect's own name.
    ConnectMillis,
    Iso,
}

impl Unit {
    const fn of(precision: TimePrecision, modifier: i32) -> Self {
        match precision {
            TimePrecision::Adaptive if modifier >= 0 && modifier <= 3 => Self::Millis,
            TimePrecision::Adaptive | TimePrecision::Microseconds => Self::Micros,
            TimePrecision::Connect => Self::ConnectMillis,
            TimePrecision::IsoString => Self::Iso,
        }
    }
}

impl Kind {
    /// The kind of a column of this type.
    pub(super) fn of(relation: &Relation, oid: u32, modifier: i32, settings: &EventSettings) -> Self {
        let (oid, modifier) = relation.base_type(oid, modifier);
        match Family::of(relation, oid, modifier) {
            Family::Boolean => Self::Boolean,
            Family::Integer(2) => Self::Whole("int16"),
            Family::Integer(4) => Self::Whole("int32"),
            Family::Integer(_) | Family::Unsigned => Self::Whole("int64"),
            Family::Float4 => Self::Float("float"),
            Family::Float8 => Self::Float("double"),
            Family::Decimal { .. } | Family::Numeric if settings.decimal == DecimalHandling::Double => {
                Self::DoubleDecimal
            }
            Family::Decimal { .. } | Family::Numeric if settings.decimal == DecimalHandling::String => Self::Text(None),
            Family::Decimal { precision, scale } => Self::Decimal { precision: Some(precision), scale },
            Family::Numeric => Self::VariableDecimal,
            Family::Money => Self::Money(settings.decimal),
            Family::Bytes => Self::Bytes(settings.binary),
            Family::Date => Self::Date(settings.time),
            Family::Time => Self::Time(Unit::of(settings.time, modifier)),
            Family::TimeTz => Self::TimeTz,
            Family::Timestamp => Self::Timestamp(Unit::of(settings.time, modifier)),
            Family::TimestampTz => Self::TimestampTz,
            Family::Interval => Self::Interval(settings.interval),
            Family::Uuid => Self::Text(Some("io.debezium.data.Uuid")),
            Family::Json | Family::Jsonb => Self::Text(Some("io.debezium.data.Json")),
            Family::Xml => Self::Text(Some("io.debezium.data.Xml")),
            Family::TextSearch if oid == TSVECTOR => Self::Text(Some("io.debezium.data.Tsvector")),
            Family::Bits if oid == BIT && modifier == 1 => Self::Bit,
            Family::Bits => Self::Bits(if modifier < 0 { i32::MAX } else { modifier }),
            Family::Geometric if oid == POINT => Self::Point,
            Family::Enum => match relation.type_info(oid).map(|info| &info.kind) {
                Some(TypeKind::Enum(labels)) => Self::Enum(labels.join(",")),
                _ => Self::Text(None),
            },
            Family::Array => {
                let of_builtin = || PG_TYPES.iter().find(|entry| entry.array_oid == oid).map(|entry| entry.oid);
                let element = match relation.type_info(oid).map(|info| &info.kind) {
                    Some(TypeKind::Array(element)) => Some(*element),
                    _ => of_builtin(),
                };
                let Some(element) = element else { return Self::Text(None) };
                Self::Array {
                    element: Box::new(Self::of(relation, element, modifier, settings)),
                    delimiter: if element == BOX { b';' } else { b',' },
                    nested: !settings.schemas,
                }
            }
            _ => Self::Text(None),
        }
    }

    /// Whether every value that PostgreSQL prints can be written.
    pub(super) const fn always_fits(&self) -> bool {
        matches!(self, Self::Boolean | Self::Whole(_) | Self::Float(_) | Self::Bit)
    }

    /// The schema: `{"type":…}`.
    pub(super) fn schema(&self, optional: bool, default: Option<&str>, field: Option<&str>) -> String {
        let Described { kind, name, parameters, doc } = self.describe();
        let mut text = format!("{{{kind},\"optional\":{optional}");
        if let Some(name) = name {
            text.push_str(&format!(",\"name\":\"{name}\",\"version\":1"));
        }
        if let Some(parameters) = parameters {
            text.push_str(&format!(",\"parameters\":{{{parameters}}}"));
        }
        if let Some(doc) = doc {
            text.push_str(&format!(",\"doc\":\"{doc}\""));
        }
        if let Some(default) = default {
            text.push_str(&format!(",\"default\":{default}"));
        }
        if let Some(field) = field {
            text.push_str(&format!(",\"field\":{}", quoted(field)));
        }
        text.push('}');
        text
    }

    fn describe(&self) -> Described {
        use {
            BinaryHandling as Binary, DecimalHandling as Decimal, IntervalHandling as Interval,
            TimePrecision as Precision,
        };
        const CONNECT_DECIMAL: &str = "org.apache.kafka.connect.data.Decimal";
        let plain = |kind: &str| Described::new(format!("\"type\":\"{kind}\""), None);
        let named = |kind: &str, name: &'static str| Described::new(format!("\"type\":\"{kind}\""), Some(name));
        match self {
            Self::Boolean | Self::Bit => plain("boolean"),
            Self::Whole(kind) | Self::Float(kind) => plain(kind),
            Self::Decimal { precision, scale } => {
                let precision = precision.map(|digits| format!(",\"connect.decimal.precision\":\"{digits}\""));
                let parameters = format!("\"scale\":\"{scale}\"{}", precision.unwrap_or_default());
                Described { parameters: Some(parameters), ..named("bytes", CONNECT_DECIMAL) }
            }
            Self::VariableDecimal => Described {
                kind: concat!(
                    r#""type":"struct","fields":[{"type":"int32","optional":false,"field":"scale"},"#,
                    r#"{"type":"bytes","optional":false,"field":"value"}]"#
                )
                .to_owned(),
                name: Some("io.debezium.data.VariableScaleDecimal"),
                parameters: None,
                doc: Some("Variable scaled decimal"),
            },
            Self::Money(Decimal::Precise) => Self::Decimal { precision: None, scale: 2 }.describe(),
            Self::DoubleDecimal | Self::Money(Decimal::Double) => plain("double"),
            Self::Text(None) | Self::Money(Decimal::String) | Self::Bytes(Binary::Base64 | Binary::Hex) => {
                plain("string")
            }
            Self::Text(Some(name)) => named("string", name),
            Self::Enum(labels) => Described {
                parameters: Some(format!("\"allowed\":{}", quoted(labels))),
                ..named("string", "io.debezium.data.Enum")
            },
            Self::Bytes(Binary::Bytes) => plain("bytes"),
            Self::Date(Precision::Adaptive | Precision::Microseconds) => named("int32", "io.debezium.time.Date"),
            Self::Date(Precision::Connect) => named("int32", "org.apache.kafka.connect.data.Date"),
            Self::Date(Precision::IsoString) => named("string", "io.debezium.time.IsoDate"),
            Self::Time(Unit::Micros) => named("int64", "io.debezium.time.MicroTime"),
            Self::Time(Unit::Millis) => named("int32", "io.debezium.time.Time"),
            Self::Time(Unit::ConnectMillis) => named("int32", "org.apache.kafka.connect.data.Time"),
            Self::Time(Unit::Iso) => named("string", "io.debezium.time.IsoTime"),
            Self::TimeTz => named("string", "io.debezium.time.ZonedTime"),
            Self::Timestamp(Unit::Micros) => named("int64", "io.debezium.time.MicroTimestamp"),
            Self::Timestamp(Unit::Millis) => named("int64", "io.debezium.time.Timestamp"),
            Self::Timestamp(Unit::ConnectMillis) => named("int64", "org.apache.kafka.connect.data.Timestamp"),
            Self::Timestamp(Unit::Iso) => named("string", "io.debezium.time.IsoTimestamp"),
            Self::TimestampTz => named("string", "io.debezium.time.ZonedTimestamp"),
            Self::Interval(Interval::Numeric) => named("int64", "io.debezium.time.MicroDuration"),
            Self::Interval(Interval::String) => named("string", "io.debezium.time.Interval"),
            Self::Bits(length) => Described {
                parameters: Some(format!("\"length\":\"{length}\"")),
                ..named("bytes", "io.debezium.data.Bits")
            },
            Self::Point => Described {
                kind: concat!(
                    r#""type":"struct","fields":[{"type":"double","optional":false,"field":"x"},"#,
                    r#"{"type":"double","optional":false,"field":"y"},{"type":"bytes","optional":true,"field":"wkb"},"#,
                    r#"{"type":"int32","optional":true,"field":"srid"}]"#
                )
                .to_owned(),
                name: Some("io.debezium.data.geometry.Point"),
                parameters: None,
                doc: Some("Geometry (POINT)"),
            },
            Self::Array { element, .. } => {
                let optional = !matches!(**element, Self::Enum(_));
                Described::new(format!("\"type\":\"array\",\"items\":{}", element.schema(optional, None, None)), None)
            }
        }
    }

    /// What stands for NULL in a column that cannot be NULL and of which nothing is known: the row
    /// before a DELETE has its key only.
    pub(super) fn nothing(&self) -> &'static str {
        match self {
            Self::Boolean | Self::Bit => "false",
            Self::Float(_) | Self::DoubleDecimal | Self::Money(DecimalHandling::Double) => "0.0",
            Self::Decimal { .. } | Self::Money(DecimalHandling::Precise) => "\"AA==\"",
            Self::VariableDecimal => r#"{"scale":0,"value":"AA=="}"#,
            Self::Whole(_)
            | Self::Date(TimePrecision::Adaptive | TimePrecision::Microseconds | TimePrecision::Connect)
            | Self::Time(Unit::Micros | Unit::Millis | Unit::ConnectMillis)
            | Self::Timestamp(Unit::Micros | Unit::Millis | Unit::ConnectMillis)
            | Self::Interval(IntervalHandling::Numeric) => "0",
            Self::Date(TimePrecision::IsoString) => "\"1970-01-01Z\"",
            Self::Time(Unit::Iso) | Self::TimeTz => "\"00:00:00Z\"",
            Self::Timestamp(Unit::Iso) | Self::TimestampTz => "\"1970-01-01T00:00:00Z\"",
            Self::Interval(IntervalHandling::String) => "\"P0Y0M0DT0H0M0S\"",
            Self::Money(DecimalHandling::String) | Self::Text(_) | Self::Enum(_) | Self::Bytes(_) | Self::Bits(_) => {
                "\"\""
            }
            Self::Point => r#"{"x":0.0,"y":0.0,"wkb":null,"srid":null}"#,
            Self::Array { .. } => "[]",
        }
    }
}

/// The parts of a schema.
struct Described {
    kind: String,
    name: Option<&'static str>,
    parameters: Option<String>,
    doc: Option<&'static str>,
}

impl Described {
    const fn new(kind: String, name: Option<&'static str>) -> Self {
        Self { kind, name, parameters: None, doc: None }
    }
}

const TSVECTOR: u32 = 3614;
const BIT: u32 = 1560;
const POINT: u32 = 600;
const BOX: u32 = 603;
