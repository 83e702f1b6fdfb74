//! On the way to the producer: to which partitions a record goes, and what becomes of one that its
//! topic does not take.
//!
//! Covered by: `it::kafka::a_record_too_large_for_its_topic_stops_before_it_is_sent`,
//! `it::kafka::a_record_too_large_for_its_topic_is_set_aside_by_policy`.

use std::sync::Arc;

use super::events::{Partition, Record};
use super::producer::Producer;
use crate::destination::DestinationError;
use crate::metrics::Metrics;
use crate::position::Position;

/// A record's and its batch's own fields, more rather than less.
const OVERHEAD: usize = 128;
/// A key that is longer is not repeated where a record is set aside.
const LONGEST_KEY: usize = 10_000;

/// Where records go that their topic does not take.
pub(super) struct SetAside {
    pub(super) topic: String,
    pub(super) metrics: Arc<Metrics>,
}

/// Sends records.
pub(super) struct Outbox<'a> {
    pub(super) producer: &'a mut Producer,
    pub(super) set_aside: Option<&'a SetAside>,
}

impl Outbox<'_> {
    /// Sends a record of the command at this position.
    pub(super) fn send(&mut self, record: &Record<'_>, position: Position) -> Result<(), DestinationError> {
        let bytes = record.bytes() + OVERHEAD;
        if bytes > record.known.largest {
            return match self.set_aside {
                Some(place) => self.set_aside(place, record, bytes, position),
                None => Err(too_large(record, bytes)),
            };
        }
        match record.partition {
            Partition::ByKey => self.producer.send(record, None),
            Partition::Fixed(partition) => self.producer.send(record, Some(partition)),
            Partition::Every => {
                (0..record.known.partitions).try_for_each(|number| self.producer.send(record, Some(number)))
            }
        }
    }

    /// Says what it was, under its key, in the same transaction.
    fn set_aside(
        &mut self,
        place: &SetAside,
        record: &Record<'_>,
        bytes: usize,
        position: Position,
    ) -> Result<(), DestinationError> {
        let note = serde_json::json!({
            "topic": record.topic,
            "position": position.to_string(),
            "bytes": bytes,
            "largest": record.known.largest,
            "tombstone": record.value.is_none(),
        })
        .to_string();
        let key = record.key.filter(|key| key.len() <= LONGEST_KEY);
        tracing::warn!(%position, topic = record.topic, bytes, "a record is too large for its topic and was set aside");
        place.metrics.records_set_aside.add(1);
        let note = Record { topic: &place.topic, key, value: Some(note.as_bytes()), ..Record::default() };
        self.producer.send(&note, if key.is_some() { None } else { Some(0) })
    }
}

fn too_large(record: &Record<'_>, bytes: usize) -> DestinationError {
    let key = record.key.map(|key| String::from_utf8_lossy(key).into_owned()).unwrap_or_default();
    let Record { topic, known, .. } = record;
    DestinationError::permanent(format!(
        "a record of {bytes} bytes is too large for topic {topic}, which takes {}",
        known.largest
    ))
    .key(key)
    .hint(format!(
        "Raise it: kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config max.message.bytes=N; or \
         leave the transaction out with `pg2any skip`; or go on without such records with --kafka-on-oversize set-aside"
    ))
}
