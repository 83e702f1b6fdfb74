//! What all events of one relation version share, made once: names, schemas, the order of the key.

use crate::change::{Cell, Relation, ReplicaIdentity, Row};
use crate::destination::{DestinationError, SchemaMapping, Unrepresentable};

use super::column::Kind;
use super::json::quoted;
use super::names;
use super::settings::{EventSettings, Format};
use super::topics::Topic;
use super::value::{self, Unfit};

/// A column of the table.
pub(super) struct Column {
    /// `"name":`, after `{` or `,`.
    label: Vec<u8>,
    kind: Kind,
    in_key: bool,
    optional: bool,
    /// What stands for NULL where the column cannot be NULL and the row has its key only.
    nothing: Vec<u8>,
    /// What stands for a value that was not sent.
    placeholder: Vec<u8>,
}

/// A relation version as events need it.
pub(super) struct Template {
    pub(super) topic: String,
    /// What the broker said of the topic.
    pub(super) known: Topic,
    /// `schema.table` at the source.
    pub(super) collection: String,
    /// `"schema":"…","table":"…"` of the source block.
    pub(super) source: Vec<u8>,
    /// Whatever precedes a value's payload, and what follows it.
    pub(super) value_frame: (Vec<u8>, &'static [u8]),
    key_frame: (Vec<u8>, &'static [u8]),
    columns: Vec<Column>,
    /// The key's columns in the order of the primary key, each with its `"name":`.
    key: Vec<(usize, Vec<u8>)>,
}

/// What a value that cannot be written means: set by policy, and where it was.
pub(super) struct Policy<'a> {
    pub(super) unrepresentable: Unrepresentable,
    pub(super) relation: &'a Relation,
    pub(super) metrics: &'a crate::metrics::Metrics,
}

/// The columns that tell the table's rows apart, in the order of the primary key where they are its
/// columns.
fn key_columns(relation: &Relation) -> Vec<usize> {
    let place = |name: &String| relation.columns.iter().position(|column| column.name == *name);
    let primary: Option<Vec<usize>> = relation.catalogue.primary_key.iter().map(place).collect();
    let primary = primary.unwrap_or_default();
    match relation.replica_identity {
        ReplicaIdentity::Full | ReplicaIdentity::Nothing => primary,
        ReplicaIdentity::Default | ReplicaIdentity::Index => {
            let identity: Vec<usize> = relation.identity_columns().collect();
            let mut sorted = primary.clone();
            sorted.sort_unstable();
            if sorted == identity { primary } else { identity }
        }
    }
}

/// A column's default as PostgreSQL's text, when it is a literal.
fn literal(expression: &str) -> Option<Vec<u8>> {
    let bare = expression.trim_matches(['(', ')']);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'-'));
    match bare {
        "true" => Some(b"t".to_vec()),
        "false" => Some(b"f".to_vec()),
        _ if is_number(bare) => Some(bare.as_bytes().to_vec()),
        _ => {
            let (text, kind) = expression.strip_prefix('\'')?.rsplit_once("'::")?;
            let is_type = kind
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b' ' | b'_' | b'.' | b'"' | b'(' | b')' | b','));
            (is_type && !text.replace("''", "").contains('\'')).then(|| text.replace("''", "'").into_bytes())
        }
    }
}

impl Template {
    pub(super) fn new(
        relation: &Relation,
        prefix: &str,
        mapping: &SchemaMapping,
        settings: &EventSettings,
        policy: Unrepresentable,
    ) -> Result<Self, DestinationError> {
        let schema = mapping.get(&relation.schema).unwrap_or(&relation.schema);
        let topic = names::of_table(prefix, schema, &relation.name).ok_or_else(|| {
            DestinationError::permanent("the table's name makes a topic's name that is longer than a broker takes")
                .table(relation.full_name())
                .hint("Use a shorter prefix, or give its schema a shorter name with --schema-mapping")
        })?;
        let key = key_columns(relation);
        let (mut columns, mut fields, mut key_fields) = (Vec::new(), Vec::new(), Vec::new());
        for (place, column) in relation.columns.iter().enumerate() {
            let kind = Kind::of(relation, column.type_oid, column.type_modifier, settings);
            let known = relation.column_catalogue(&column.name);
            let not_null = known.is_some_and(|known| known.not_null);
            let in_key = key.contains(&place);
            let optional = !not_null || (policy == Unrepresentable::Null && !in_key && !kind.always_fits());
            let default = known.and_then(|known| literal(known.default_expression.as_deref()?)).and_then(|text| {
                let mut out = Vec::new();
                value::write(&kind, &text, &mut out).ok()?;
                String::from_utf8(out).ok()
            });
            fields.push(kind.schema(optional, default.as_deref(), Some(&column.name)));
            columns.push(Column {
                label: format!("{}:", quoted(&column.name)).into_bytes(),
                in_key,
                optional,
                nothing: default.map_or_else(|| kind.nothing().as_bytes().to_vec(), String::into_bytes),
                placeholder: value::placeholder(&kind, &settings.unavailable),
                kind,
            });
        }
        for place in &key {
            key_fields.extend(fields.get(*place).cloned());
        }
        let framed = |schema: String| match settings.schemas {
            true => (format!("{{\"schema\":{schema},\"payload\":").into_bytes(), &b"}"[..]),
            false => (Vec::new(), &b""[..]),
        };
        let fields = fields.join(",");
        let key = key.into_iter().map(|place| (place, columns.get(place).map_or_else(Vec::new, |c| c.label.clone())));
        Ok(Self {
            collection: relation.full_name(),
            source: format!("{},\"table\":{}", quoted(&relation.schema), quoted(&relation.name)).into_bytes(),
            value_frame: framed(match settings.format {
                Format::Debezium => envelope_schema(&topic, &fields),
                Format::Plain => {
                    format!(
                        "{{\"type\":\"struct\",\"fields\":[{fields}],\"optional\":false,\"name\":\"{topic}.Value\"}}"
                    )
                }
            }),
            key_frame: framed(format!(
                "{{\"type\":\"struct\",\"fields\":[{}],\"optional\":false,\"name\":\"{topic}.Key\"}}",
                key_fields.join(",")
            )),
            key: key.collect(),
            columns,
            topic,
            known: Topic::default(),
        })
    }

    /// Writes the key of a row; nothing when the table has none. What the row does not have is
    /// taken from `old`.
    pub(super) fn write_key(
        &self,
        row: &Row<'_>,
        old: Option<&Row<'_>>,
        policy: &Policy<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), DestinationError> {
        out.clear();
        if self.key.is_empty() {
            return Ok(());
        }
        out.extend_from_slice(&self.key_frame.0);
        let mut separator = b'{';
        for (place, label) in &self.key {
            let Some(column) = self.columns.get(*place) else { continue };
            out.push(separator);
            separator = b',';
            out.extend_from_slice(label);
            self.write_cell(column, *place, row, old, policy, out)?;
        }
        out.push(b'}');
        out.extend_from_slice(self.key_frame.1);
        Ok(())
    }

    /// A key without its schema, as headers have it.
    pub(super) fn bare_key<'k>(&self, key: &'k [u8]) -> &'k [u8] {
        let (head, tail) = &self.key_frame;
        key.get(head.len()..key.len().saturating_sub(tail.len())).unwrap_or_default()
    }

    /// Writes a row. Of one that has `key_only` the other cells mean nothing.
    pub(super) fn write_row(
        &self,
        row: &Row<'_>,
        old: Option<&Row<'_>>,
        key_only: bool,
        policy: &Policy<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), DestinationError> {
        let mut separator = b'{';
        for (place, column) in self.columns.iter().enumerate() {
            out.push(separator);
            separator = b',';
            out.extend_from_slice(&column.label);
            if key_only && !column.in_key {
                out.extend_from_slice(if column.optional { b"null" } else { &column.nothing });
            } else {
                self.write_cell(column, place, row, old, policy, out)?;
            }
        }
        if self.columns.is_empty() {
            out.push(b'{');
        }
        out.push(b'}');
        Ok(())
    }

    fn write_cell(
        &self,
        column: &Column,
        place: usize,
        row: &Row<'_>,
        old: Option<&Row<'_>>,
        policy: &Policy<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), DestinationError> {
        let cell = match row.get(place) {
            Some(Cell::Unchanged) => old.and_then(|old| old.get(place)).filter(|cell| matches!(cell, Cell::Value(_))),
            Some(cell) => Some(cell),
            None => Some(&Cell::Null),
        };
        match cell {
            None | Some(Cell::Unchanged) => out.extend_from_slice(&column.placeholder),
            Some(Cell::Null) => out.extend_from_slice(b"null"),
            Some(Cell::Value(text)) => {
                let start = out.len();
                if let Err(unfit) = value::write(&column.kind, text, out) {
                    out.truncate(start);
                    policy.apply(place, text, unfit, out)?;
                }
            }
        }
        Ok(())
    }
}

impl Policy<'_> {
    fn apply(&self, place: usize, text: &[u8], unfit: Unfit, out: &mut Vec<u8>) -> Result<(), DestinationError> {
        match (self.unrepresentable, unfit) {
            (Unrepresentable::Null, _) => {
                self.metrics.values_nulled.add(1);
                out.extend_from_slice(b"null");
            }
            (Unrepresentable::Clamp, Unfit::Beyond(nearest)) => {
                self.metrics.values_clamped.add(1);
                super::json::number(out, nearest);
            }
            (Unrepresentable::Clamp, Unfit::NotUtf8) => {
                self.metrics.values_clamped.add(1);
                super::json::string(out, String::from_utf8_lossy(text).as_bytes());
            }
            (Unrepresentable::Text, Unfit::Beyond(_) | Unfit::None | Unfit::Malformed) if text.is_ascii() => {
                self.metrics.values_as_text.add(1);
                super::json::string(out, text);
            }
            _ => {
                let column = self.relation.columns.get(place);
                let kind = column.map_or_else(String::new, |column| {
                    crate::destination::value::type_name(column.type_oid, column.type_modifier)
                });
                let mut shown = String::from_utf8_lossy(text).into_owned();
                if let Some((end, _)) = shown.char_indices().nth(60) {
                    shown.truncate(end);
                    shown.push('…');
                }
                let name = column.map_or("", |column| column.name.as_str());
                return Err(DestinationError::permanent(format!(
                    "the value {shown:?} of column {name} ({kind}) has no place in an event"
                ))
                .table(self.relation.full_name())
                .hint("Choose what is written in its place with --unrepresentable null, clamp or text"));
            }
        }
        Ok(())
    }
}

const SOURCE_SCHEMA: &str = concat!(
    r#"{"type":"struct","fields":[{"type":"string","optional":false,"field":"version"},"#,
    r#"{"type":"string","optional":false,"field":"connector"},{"type":"string","optional":false,"field":"name"},"#,
    r#"{"type":"int64","optional":false,"field":"ts_ms"},{"type":"string","optional":true,"name":"io.debezium.data.Enum","#,
    r#""version":1,"parameters":{"allowed":"true,first,first_in_data_collection,last_in_data_collection,last,false,"#,
    r#"incremental"},"default":"false","field":"snapshot"},{"type":"string","optional":false,"field":"db"},"#,
    r#"{"type":"string","optional":true,"field":"sequence"},{"type":"int64","optional":true,"field":"ts_us"},"#,
    r#"{"type":"int64","optional":true,"field":"ts_ns"},{"type":"string","optional":false,"field":"schema"},"#,
    r#"{"type":"string","optional":false,"field":"table"},{"type":"int64","optional":true,"field":"txId"},"#,
    r#"{"type":"int64","optional":true,"field":"lsn"},{"type":"int64","optional":true,"field":"xmin"},"#,
    r#"{"type":"string","optional":true,"field":"origin"},{"type":"int64","optional":true,"field":"origin_lsn"}],"#,
    r#""optional":false,"name":"io.debezium.connector.postgresql.Source","version":1,"field":"source"}"#
);

const BLOCK_SCHEMA: &str = concat!(
    r#"{"type":"struct","fields":[{"type":"string","optional":false,"field":"id"},"#,
    r#"{"type":"int64","optional":false,"field":"total_order"},"#,
    r#"{"type":"int64","optional":false,"field":"data_collection_order"}],"#,
    r#""optional":true,"name":"event.block","version":1,"field":"transaction"}"#
);

fn envelope_schema(topic: &str, fields: &str) -> String {
    let row = |field: &str| {
        format!(
            "{{\"type\":\"struct\",\"fields\":[{fields}],\"optional\":true,\"name\":\"{topic}.Value\",\"field\":\"{field}\"}}"
        )
    };
    let time = |field: &str| format!("{{\"type\":\"int64\",\"optional\":true,\"field\":\"{field}\"}}");
    format!(
        "{{\"type\":\"struct\",\"fields\":[{},{},{SOURCE_SCHEMA},{BLOCK_SCHEMA},\
         {{\"type\":\"string\",\"optional\":false,\"field\":\"op\"}},{},{},{}],\
         \"optional\":false,\"name\":\"{topic}.Envelope\",\"version\":2}}",
        row("before"),
        row("after"),
        time("ts_ms"),
        time("ts_us"),
        time("ts_ns")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_default_is_told_from_an_expression() {
        for (expression, expected) in [
            ("7", Some("7")),
            ("(-1.5)", Some("-1.5")),
            ("'-5'::integer", Some("-5")),
            ("'it''s'::character varying(10)", Some("it's")),
            ("true", Some("t")),
            ("now()", None),
            ("nextval('t_id_seq'::regclass)", None),
            ("'a'::text || 'b'::text", None),
        ] {
            assert_eq!(literal(expression), expected.map(|text| text.as_bytes().to_vec()), "{expression}");
        }
    }
}
