//! From a change to its records.
//!
//! What a relation version's events share is in its [`Template`], what a transaction's events share
//! in [`Open`]; the rest goes from the frame's bytes into the record's buffer.
//!
//! Covered by: `it::events`, and
//! `it::kafka::each_kind_of_change_arrives_in_order_in_the_topic_of_its_table`.

use std::sync::Arc;

use super::settings::{EventSettings, Format};
use super::template::{Policy, Template};
use super::topics::Topic;
use super::transaction::{Counts, Open, Origin};
use crate::change::{Command, Identity, Relation, RelationVersion, Row, TransactionInfo};
use crate::destination::{DestinationError, Options};
use crate::position::{Lsn, Position};

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
    pub(super) known: Topic,
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
    options: Options,
    prefix: String,
    database: String,
    transaction_topic: Topic,
    /// By their version.
    templates: Vec<Option<Arc<Template>>>,
    open: Option<Open>,
    /// The end of the last transaction that was rendered whole, or that the checkpoint knows of.
    previous: Option<Lsn>,
    /// What the transaction had before this connection, when the checkpoint is inside of one.
    resumed: Option<(Lsn, Counts)>,
    key: Vec<u8>,
    other_key: Vec<u8>,
    value: Vec<u8>,
}

/// One command, and where its records go.
struct Event<'e, 's> {
    template: &'e Template,
    settings: &'e EventSettings,
    policy: Policy<'e>,
    open: &'e mut Open,
    headers: &'e [(&'e str, &'e [u8])],
    sink: &'e mut Sink<'s>,
}

/// Debezium's headers of a changed key.
const NEW_KEY: &str = "__debezium.newkey";
const OLD_KEY: &str = "__debezium.oldkey";

impl Renderer {
    /// A renderer that goes on from a checkpoint, with what its transaction had by then.
    pub(super) fn new(options: Options, prefix: String, position: Option<Position>, counts: Option<Counts>) -> Self {
        let mut renderer = Self {
            options,
            prefix,
            database: String::new(),
            transaction_topic: Topic::default(),
            templates: Vec::new(),
            open: None,
            previous: None,
            resumed: None,
            key: Vec::new(),
            other_key: Vec::new(),
            value: Vec::new(),
        };
        renderer.bind();
        renderer.go_back(position, counts);
        renderer
    }

    /// Takes the database's name from the source's, which is `system/database/slot`.
    fn bind(&mut self) {
        let source = self.options.source.as_deref().unwrap_or_default();
        let inner = source.split_once('/').and_then(|(_, rest)| rest.rsplit_once('/'));
        self.database = inner.map_or("", |(database, _)| database).to_owned();
    }

    /// Names the source.
    pub(super) fn name_source(&mut self, source: String) {
        self.options.source = Some(source);
        self.bind();
    }

    /// Forgets what was rendered since this checkpoint.
    pub(super) fn go_back(&mut self, position: Option<Position>, counts: Option<Counts>) {
        self.open = None;
        self.previous = position.filter(Position::is_end).map(|position| position.commit_end);
        self.resumed =
            position.filter(|position| !position.is_end()).map(|p| (p.commit_end, counts.unwrap_or_default()));
    }

    /// What the transaction that is being rendered has had so far.
    pub(super) fn counts(&self) -> Option<&Counts> {
        self.open.as_ref().map(|open| &open.counts).filter(|_| self.settings().transactions)
    }

    fn settings(&self) -> &EventSettings {
        &self.options.kafka.events
    }

    /// The name of the topic that says when transactions begin and end, when there is to be one.
    pub(super) fn transaction_topic(&self) -> Option<String> {
        self.settings().transactions.then(|| format!("{}.transaction", self.prefix))
    }

    /// What the broker said of that topic.
    pub(super) const fn know_transaction_topic(&mut self, known: Topic) {
        self.transaction_topic = known;
    }

    /// Makes the template of a relation version.
    pub(super) fn template(&self, relation: &Relation) -> Result<Template, DestinationError> {
        let Options { schema_mapping, unrepresentable, .. } = &self.options;
        Template::new(relation, &self.prefix, schema_mapping, self.settings(), *unrepresentable)
    }

    /// Keeps it, with what the broker said of its topic.
    pub(super) fn keep(&mut self, version: RelationVersion, template: Template) {
        let place = version.0 as usize;
        if self.templates.len() <= place {
            self.templates.resize(place + 1, None);
        }
        self.templates[place] = Some(Arc::new(template));
    }

    /// Renders one command.
    pub(super) fn render(
        &mut self,
        transaction: &TransactionInfo,
        position: Position,
        command: &Command<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<(), DestinationError> {
        if self.open.as_ref().is_none_or(|open| open.commit_end != transaction.commit_end) {
            self.end(sink)?;
            self.begin(transaction, sink)?;
        }
        let relations = match command {
            Command::Insert { relation, .. } | Command::Update { relation, .. } | Command::Delete { relation, .. } => {
                std::slice::from_ref(*relation)
            }
            Command::Truncate { relations, .. } => relations,
        };
        let Self { options, templates, open: Some(open), key, other_key, value, .. } = self else { return Ok(()) };
        // A header costs a quarter of the rate.
        let texts = options.kafka.events.headers.then(|| (position.to_string(), transaction.xid.to_string()));
        let headers = texts
            .as_ref()
            .map(|(position, xid)| [("pg2any.position", position.as_bytes()), ("pg2any.xid", xid.as_bytes())]);
        let headers = headers.as_ref().map_or(&[][..], |headers| &headers[..]);
        for relation in relations {
            let template = templates.get(relation.version.0 as usize).and_then(Option::as_deref).ok_or_else(|| {
                // Every table is prepared before its first change.
                DestinationError::permanent("a table was not prepared").table(relation.full_name())
            })?;
            let settings = &options.kafka.events;
            let policy = Policy { unrepresentable: options.unrepresentable, relation, metrics: &options.metrics };
            let mut event = Event { template, settings, policy, open, headers, sink };
            match command {
                Command::Truncate { .. } => event.truncate(value)?,
                Command::Insert { new, .. } => {
                    event.write_key(new, None, key)?;
                    event.send("c", None, Some(new), None, (key, value), None)?;
                }
                Command::Update { identity, new, .. } => event.update(identity, new, key, other_key, value)?,
                Command::Delete { identity, .. } => {
                    let Some((old, key_only)) = old_row(identity) else { continue };
                    event.write_key(old, None, key)?;
                    event.delete(old, key_only, (key, value), None)?;
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, info: &TransactionInfo, sink: &mut Sink<'_>) -> Result<(), DestinationError> {
        let origin = Origin { prefix: &self.prefix, database: &self.database, previous: self.previous };
        let resumed = self.resumed.take().filter(|(commit_end, _)| *commit_end == info.commit_end);
        let begins = resumed.is_none();
        let open = Open::new(info, &origin, resumed.map(|(_, counts)| counts).unwrap_or_default());
        let open = self.open.insert(open);
        if begins && self.options.kafka.events.transactions {
            Self::mark(&self.prefix, open, false, self.options.kafka.events.schemas, self.transaction_topic, sink)?;
        }
        Ok(())
    }

    /// The transaction is whole.
    pub(super) fn end(&mut self, sink: &mut Sink<'_>) -> Result<(), DestinationError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        self.previous = Some(open.commit_end);
        if self.settings().transactions {
            Self::mark(&self.prefix, &open, true, self.settings().schemas, self.transaction_topic, sink)?;
        }
        Ok(())
    }

    fn mark(
        prefix: &str,
        open: &Open,
        ended: bool,
        schemas: bool,
        known: Topic,
        sink: &mut Sink<'_>,
    ) -> Result<(), DestinationError> {
        let (key, value) = open.marker(ended, schemas);
        let topic = format!("{prefix}.transaction");
        sink(&Record { topic: &topic, known, key: Some(&key), value: Some(&value), ..Record::default() })
    }
}

/// The old row, and whether only its key means something.
const fn old_row<'a, 'b>(identity: &'a Identity<'b>) -> Option<(&'a Row<'b>, bool)> {
    match identity {
        Identity::Key(old) => Some((old, true)),
        Identity::Full(old) => Some((old, false)),
        Identity::Unchanged => None,
    }
}

impl Event<'_, '_> {
    fn write_key(&self, row: &Row<'_>, old: Option<&Row<'_>>, out: &mut Vec<u8>) -> Result<(), DestinationError> {
        self.template.write_key(row, old, &self.policy, out)
    }

    /// An UPDATE; one that changes the key is a delete of the old one and a create of the new.
    fn update(
        &mut self,
        identity: &Identity<'_>,
        new: &Row<'_>,
        key: &mut Vec<u8>,
        old_key: &mut Vec<u8>,
        value: &mut Vec<u8>,
    ) -> Result<(), DestinationError> {
        let old = old_row(identity);
        let row = old.map(|(row, _)| row);
        self.write_key(new, row, key)?;
        if let Some((row, key_only)) = old {
            self.write_key(row, None, old_key)?;
            if old_key != key {
                let (new_bare, old_bare) = (self.template.bare_key(key), self.template.bare_key(old_key));
                self.delete(row, key_only, (old_key, value), Some((NEW_KEY, new_bare)))?;
                return self.send("c", None, Some(new), Some(row), (key, value), Some((OLD_KEY, old_bare)));
            }
        }
        let before = old.filter(|(_, key_only)| !key_only).map(|(row, _)| (row, false));
        self.send("u", before, Some(new), row, (key, value), None)
    }

    /// A DELETE's event, and its tombstone.
    fn delete(
        &mut self,
        old: &Row<'_>,
        key_only: bool,
        (key, value): (&[u8], &mut Vec<u8>),
        header: Option<(&str, &[u8])>,
    ) -> Result<(), DestinationError> {
        if self.settings.format == Format::Debezium {
            self.send("d", Some((old, key_only)), None, None, (key, value), header)?;
        }
        self.sink(key, None, header)
    }

    fn truncate(&mut self, value: &mut Vec<u8>) -> Result<(), DestinationError> {
        if self.settings.format == Format::Plain {
            let table = &self.template.collection;
            tracing::warn!(
                "TRUNCATE of {table}: the plain format has no event for it, the rows stay in topic {}",
                self.template.topic
            );
            return Ok(());
        }
        self.write_value("t", None, None, None, value)?;
        (self.sink)(&Record {
            topic: &self.template.topic,
            known: self.template.known,
            partition: Partition::Every,
            key: None,
            value: Some(value),
            headers: self.headers,
        })
    }

    fn send(
        &mut self,
        op: &str,
        before: Option<(&Row<'_>, bool)>,
        after: Option<&Row<'_>>,
        old: Option<&Row<'_>>,
        (key, value): (&[u8], &mut Vec<u8>),
        header: Option<(&str, &[u8])>,
    ) -> Result<(), DestinationError> {
        self.write_value(op, before, after, old, value)?;
        self.sink(key, Some(value), header)
    }

    fn sink(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        header: Option<(&str, &[u8])>,
    ) -> Result<(), DestinationError> {
        let key = (!key.is_empty()).then_some(key);
        let all;
        let headers = match header {
            None => self.headers,
            Some(header) => {
                all = self.headers.iter().copied().chain([header]).collect::<Vec<_>>();
                &all
            }
        };
        (self.sink)(&Record {
            topic: &self.template.topic,
            known: self.template.known,
            partition: if key.is_some() { Partition::ByKey } else { Partition::Fixed(0) },
            key,
            value,
            headers,
        })
    }

    fn write_value(
        &mut self,
        op: &str,
        before: Option<(&Row<'_>, bool)>,
        after: Option<&Row<'_>>,
        old: Option<&Row<'_>>,
        out: &mut Vec<u8>,
    ) -> Result<(), DestinationError> {
        let Self { template, policy, open, .. } = self;
        out.clear();
        out.extend_from_slice(&template.value_frame.0);
        if self.settings.format == Format::Plain {
            if let Some(after) = after {
                template.write_row(after, old, false, policy, out)?;
            }
            out.extend_from_slice(template.value_frame.1);
            return Ok(());
        }
        out.extend_from_slice(b"{\"before\":");
        match before {
            Some((row, key_only)) => template.write_row(row, None, key_only, policy, out)?,
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"after\":");
        match after {
            Some(row) => template.write_row(row, old, false, policy, out)?,
            None => out.extend_from_slice(b"null"),
        }
        out.push(b',');
        out.extend_from_slice(&open.before_table);
        out.extend_from_slice(&template.source);
        out.extend_from_slice(&open.after_table);
        if self.settings.transactions {
            open.write_block(&template.collection, out);
        } else {
            out.extend_from_slice(b"null");
        }
        out.extend_from_slice(b",\"op\":\"");
        out.extend_from_slice(op.as_bytes());
        out.extend_from_slice(b"\",");
        out.extend_from_slice(&open.times);
        out.extend_from_slice(template.value_frame.1);
        Ok(())
    }
}
