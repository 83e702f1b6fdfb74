//! From a change to its records: the envelope's outline, every value as PostgreSQL's text.
//!
//! The writer knows [`Renderer::topic`], [`Renderer::render`] and the records that come out of it.
//!
//! Covered by: `it::kafka::each_kind_of_change_arrives_in_order_in_the_topic_of_its_table`.

use std::collections::HashMap;
use std::sync::Arc;

use crate::change::{Cell, Command, Identity, Relation, RelationVersion, Row, TransactionInfo};
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

/// Renders changes.
pub(super) struct Renderer {
    prefix: String,
    mapping: SchemaMapping,
    topics: HashMap<RelationVersion, Arc<str>>,
    key: Vec<u8>,
    value: Vec<u8>,
}

/// What all records of a command share.
struct Event<'a> {
    relation: &'a Relation,
    topic: &'a str,
    transaction: &'a TransactionInfo,
    position: Position,
    key: &'a mut Vec<u8>,
    value: &'a mut Vec<u8>,
}

impl Renderer {
    pub(super) fn new(prefix: String, mapping: SchemaMapping) -> Self {
        Self { prefix, mapping, topics: HashMap::new(), key: Vec::new(), value: Vec::new() }
    }

    /// The topic of a table.
    pub(super) fn topic(&mut self, relation: &Relation) -> Arc<str> {
        let topic = self.topics.entry(relation.version).or_insert_with(|| {
            let schema = self.mapping.get(&relation.schema).unwrap_or(&relation.schema);
            format!("{}.{schema}.{}", self.prefix, relation.name).into()
        });
        Arc::clone(topic)
    }

    /// Renders one command.
    pub(super) fn render(
        &mut self,
        transaction: &TransactionInfo,
        position: Position,
        command: &Command<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<(), DestinationError> {
        let relations = match command {
            Command::Insert { relation, .. } | Command::Update { relation, .. } | Command::Delete { relation, .. } => {
                std::slice::from_ref(*relation)
            }
            Command::Truncate { relations, .. } => relations,
        };
        for relation in relations {
            let topic = self.topic(relation);
            let (key, value) = (&mut self.key, &mut self.value);
            let mut event = Event { relation, topic: &topic, transaction, position, key, value };
            match command {
                Command::Insert { new, .. } => event.send("c", None, Some(new), new, sink)?,
                Command::Update { identity: Identity::Unchanged, new, .. } => {
                    event.send("u", None, Some(new), new, sink)?
                }
                Command::Update { identity: Identity::Full(old), new, .. } => {
                    event.send("u", Some(old), Some(new), new, sink)?;
                }
                Command::Update { identity: Identity::Key(old), new, .. } => {
                    event.delete(old, sink)?;
                    event.send("c", None, Some(new), new, sink)?;
                }
                Command::Delete { identity: Identity::Key(old) | Identity::Full(old), .. } => {
                    event.delete(old, sink)?
                }
                Command::Delete { identity: Identity::Unchanged, .. } => {}
                Command::Truncate { .. } => {
                    event.envelope("t", None, None);
                    let value = Some(event.value.as_slice());
                    sink(&Record { topic: &topic, partition: Partition::Every, value, ..Record::default() })?;
                }
            }
        }
        Ok(())
    }
}

impl Event<'_> {
    fn delete(&mut self, old: &Row<'_>, sink: &mut Sink<'_>) -> Result<(), DestinationError> {
        self.send("d", Some(old), None, old, sink)?;
        self.sink(None, sink)
    }

    fn send<'r>(
        &mut self,
        op: &str,
        before: Option<&Row<'r>>,
        after: Option<&Row<'r>>,
        keyed: &Row<'r>,
        sink: &mut Sink<'_>,
    ) -> Result<(), DestinationError> {
        self.key.clear();
        if self.relation.identity_columns().next().is_some() {
            object(self.key, self.relation, keyed, true);
        }
        self.envelope(op, before, after);
        self.sink(Some(()), sink)
    }

    fn sink(&self, value: Option<()>, sink: &mut Sink<'_>) -> Result<(), DestinationError> {
        let key = (!self.key.is_empty()).then_some(self.key.as_slice());
        let partition = if key.is_some() { Partition::ByKey } else { Partition::Fixed(0) };
        sink(&Record { topic: self.topic, partition, key, value: value.map(|()| self.value.as_slice()), headers: &[] })
    }

    fn envelope<'r>(&mut self, op: &str, before: Option<&Row<'r>>, after: Option<&Row<'r>>) {
        let out = &mut *self.value;
        out.clear();
        for (name, row) in [("{\"before\":", before), (",\"after\":", after)] {
            out.extend_from_slice(name.as_bytes());
            match row {
                Some(row) => object(out, self.relation, row, false),
                None => out.extend_from_slice(b"null"),
            }
        }
        out.extend_from_slice(b",\"source\":{\"schema\":");
        string(out, self.relation.schema.as_bytes());
        out.extend_from_slice(b",\"table\":");
        string(out, self.relation.name.as_bytes());
        let TransactionInfo { xid, commit_lsn, commit_time, .. } = self.transaction;
        let rest = format!(
            ",\"txId\":{xid},\"lsn\":{},\"sequence\":{},\"ts_us\":{}}},\"op\":\"{op}\"}}",
            commit_lsn.0,
            self.position.command.0,
            commit_time.unix_micros()
        );
        out.extend_from_slice(rest.as_bytes());
    }
}

fn object(out: &mut Vec<u8>, relation: &Relation, row: &Row<'_>, key: bool) {
    let mut separator = b'{';
    for (cell, column) in row.iter().zip(&relation.columns).filter(|(_, column)| !key || column.in_identity) {
        out.push(separator);
        separator = b',';
        string(out, column.name.as_bytes());
        out.push(b':');
        match cell {
            Cell::Null => out.extend_from_slice(b"null"),
            Cell::Unchanged => out.extend_from_slice(b"\"__debezium_unavailable_value\""),
            Cell::Value(bytes) => string(out, bytes),
        }
    }
    if separator == b'{' {
        out.push(b'{');
    }
    out.push(b'}');
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            0..=0x1F => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(*byte),
        }
    }
    out.push(b'"');
}
