//! From a change to its records.

use crate::change::{Cell, Command, Identity, Relation, Row, TransactionInfo};
use crate::destination::{DestinationError, SchemaMapping};
use crate::position::Position;

/// Where a record goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Partition {
    /// By its key, as Kafka's Java producers do it.
    #[default]
    ByKey,
    /// To this one.
    Fixed(i32),
    /// To each of the topic.
    Every,
}

/// A record to be sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Record<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: Partition,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: &'a [(&'a str, &'a [u8])],
}

impl Record<'_> {
    /// What it takes without framing.
    pub(super) fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(key, value)| key.len() + value.len()).sum();
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len) + headers
    }
}

/// Takes records.
pub(super) type Sink<'s> = dyn FnMut(&Record<'_>) -> Result<(), DestinationError> + 's;

/// Renders changes: every value as PostgreSQL's text.
pub(super) struct Renderer {
    prefix: String,
    mapping: SchemaMapping,
}

impl Renderer {
    pub(super) const fn new(prefix: String, mapping: SchemaMapping) -> Self {
        Self { prefix, mapping }
    }

    /// The topic of a table.
    pub(super) fn topic(&self, relation: &Relation) -> String {
        let schema = self.mapping.get(&relation.schema).unwrap_or(&relation.schema);
        format!("{}.{schema}.{}", self.prefix, relation.name)
    }

    /// The topics that a command's records go to.
    pub(super) fn topics(&self, command: &Command<'_>) -> Vec<String> {
        match command {
            Command::Insert { relation, .. } | Command::Update { relation, .. } | Command::Delete { relation, .. } => {
                vec![self.topic(relation)]
            }
            Command::Truncate { relations, .. } => relations.iter().map(|relation| self.topic(relation)).collect(),
        }
    }

    /// Renders one command.
    pub(super) fn render(
        &mut self,
        transaction: &TransactionInfo,
        position: Position,
        command: &Command<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<(), DestinationError> {
        let value = |relation: &Relation, op: &str, before: Option<&Row<'_>>, after: Option<&Row<'_>>| {
            let source = serde_json::json!({
                "schema": relation.schema, "table": relation.name, "txId": transaction.xid,
                "lsn": transaction.commit_lsn.0, "sequence": position.command.0,
                "ts_us": transaction.commit_time.unix_micros(),
            });
            let row = |row: Option<&Row<'_>>| row.map(|row| object(relation, row, |_| true));
            let value = serde_json::json!({ "before": row(before), "after": row(after), "source": source, "op": op });
            value.to_string().into_bytes()
        };
        let key = |relation: &Relation, row: &Row<'_>| {
            let found = relation.identity_columns().next().is_some();
            found.then(|| object(relation, row, |index| relation.columns[index].in_identity).to_string().into_bytes())
        };
        let mut send = |relation: &Relation, key: Option<&[u8]>, value: Option<&[u8]>| {
            let partition = if key.is_some() { Partition::ByKey } else { Partition::Fixed(0) };
            sink(&Record { topic: &self.topic(relation), partition, key, value, headers: &[] })
        };
        match command {
            Command::Insert { relation, new } => {
                send(relation, key(relation, new).as_deref(), Some(&value(relation, "c", None, Some(new))))
            }
            Command::Update { relation, identity, new } => {
                let new_key = key(relation, new);
                let (old, full) = match identity {
                    Identity::Unchanged => (None, None),
                    Identity::Key(old) => (Some(old), None),
                    Identity::Full(old) => (None, Some(old)),
                };
                if let Some(old) = old {
                    let old_key = key(relation, old);
                    send(relation, old_key.as_deref(), Some(&value(relation, "d", Some(old), None)))?;
                    send(relation, old_key.as_deref(), None)?;
                    return send(relation, new_key.as_deref(), Some(&value(relation, "c", None, Some(new))));
                }
                send(relation, new_key.as_deref(), Some(&value(relation, "u", full, Some(new))))
            }
            Command::Delete { relation, identity } => {
                let (Identity::Key(old) | Identity::Full(old)) = identity else { return Ok(()) };
                let old_key = key(relation, old);
                send(relation, old_key.as_deref(), Some(&value(relation, "d", Some(old), None)))?;
                send(relation, old_key.as_deref(), None)
            }
            Command::Truncate { relations, .. } => relations.iter().try_for_each(|relation| {
                let value = value(relation, "t", None, None);
                let topic = self.topic(relation);
                sink(&Record { topic: &topic, partition: Partition::Every, value: Some(&value), ..Record::default() })
            }),
        }
    }
}

fn object(relation: &Relation, row: &Row<'_>, chosen: impl Fn(usize) -> bool) -> serde_json::Value {
    let cells = row.iter().zip(&relation.columns).enumerate().filter(|(index, _)| chosen(*index));
    let pairs = cells.map(|(_, (cell, column))| {
        let value = match cell {
            Cell::Null => serde_json::Value::Null,
            Cell::Unchanged => "__debezium_unavailable_value".into(),
            Cell::Value(bytes) => String::from_utf8_lossy(bytes).into_owned().into(),
        };
        (column.name.clone(), value)
    });
    serde_json::Value::Object(pairs.collect())
}
