//! The destination: from connect to commit, in terms of the modules beside it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode as Code;
use tracing::warn;

use super::address::Address;
use super::checkpoint::{Entry, Reader};
use super::events::{Partition, Record, Renderer};
use super::failure::failed;
use super::producer::Producer;
use super::settings::Delivery;
use super::topics::Topics;
use crate::change::{Batch, Execution, Relation};
use crate::destination::{Capabilities, Checkpoint, Destination, DestinationError, FailureKind, Options, Prepared};
use crate::failpoint;
use crate::position::Position;

/// As long as brokers allow by default: what the last run left open is ended by the next at once, whatever this says.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// What is tried when the broker allows less.
const SHORTER: [Duration; 3] = [Duration::from_secs(300), Duration::from_secs(60), Duration::from_secs(10)];
/// 64 kB make the producer six times slower; more than 1 MB brings nothing.
const BATCH_BYTES: usize = 1_000_000;
/// A record's and its batch's own fields, more rather than less.
const OVERHEAD: usize = 128;

/// Topics of a Kafka broker as a destination.
pub struct Kafka {
    options: Options,
    session: Option<Session>,
    /// The last epoch that was written here.
    epoch: Option<u64>,
    /// How long a transaction may be open.
    timeout: Duration,
    /// The smallest `max.message.bytes` of a topic so far.
    batch_bytes: usize,
    warned: bool,
}

struct Session {
    producer: Producer,
    reader: Reader,
    topics: Topics,
    renderer: Renderer,
    checkpoint_topic: String,
    epoch: u64,
    position: Option<Position>,
}

impl Kafka {
    /// A destination that has not looked for a broker yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let timeout = options.kafka.properties.get("transaction.timeout.ms").and_then(|text| text.parse().ok());
        let timeout = timeout.map_or(TRANSACTION_TIMEOUT, Duration::from_millis);
        Self { options, session: None, epoch: None, timeout, batch_bytes: BATCH_BYTES, warned: false }
    }

    fn is_transactional(&self) -> bool {
        self.options.kafka.delivery == Delivery::ExactlyOnce
    }

    fn base(&self, address: &Address) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", "pg2any").set("topic.metadata.refresh.interval.ms", "60000");
        config.set("bootstrap.servers", &address.brokers);
        for (key, value) in address.properties.iter().chain(&self.options.kafka.properties) {
            if !is_for_producers(key) {
                config.set(key, value);
            }
        }
        config
    }

    fn producer_config(&self, address: &Address) -> ClientConfig {
        let mut config = self.base(address);
        for (key, value) in [
            ("compression.type", "lz4"),
            ("linger.ms", "0"),
            ("queue.buffering.max.kbytes", "32768"),
            ("queue.buffering.max.messages", "0"),
            ("delivery.report.only.error", "true"),
            ("partitioner", "murmur2_random"),
            // What a topic takes is compared before a record is sent.
            ("message.max.bytes", "1000000000"),
            ("acks", "all"),
        ] {
            config.set(key, value);
        }
        for (key, value) in address.properties.iter().chain(&self.options.kafka.properties) {
            if is_for_producers(key) {
                config.set(key, value);
            }
        }
        config.set("batch.size", self.batch_bytes.to_string());
        if self.is_transactional() {
            config
                .set("enable.idempotence", "true")
                .set("transaction.timeout.ms", self.timeout.as_millis().to_string());
            config.set("transactional.id", format!("pg2any-{}-{}", address.prefix, self.options.cursor));
        } else {
            // Without sequence numbers the order holds only while one request at a time is under way.
            config.set("enable.idempotence", "false").set("max.in.flight", "1").remove("transaction.timeout.ms");
        }
        config
    }

    /// A producer that has ended whatever its predecessor left open.
    fn producer(&mut self, address: &Address, topic: &str) -> Result<Producer, DestinationError> {
        loop {
            let producer = Producer::new(&self.producer_config(address), self.is_transactional())?;
            if !self.is_transactional() {
                return Ok(producer);
            }
            let Err(error) = producer.initialise(topic, self.options.connect_timeout) else { return Ok(producer) };
            let shorter = SHORTER.into_iter().find(|shorter| *shorter < self.timeout);
            match (error.rdkafka_error_code(), shorter) {
                (Some(Code::InvalidTransactionTimeout), Some(shorter)) => {
                    warn!("the broker does not let a transaction be open for {:?}; trying {shorter:?}", self.timeout);
                    self.timeout = shorter;
                }
                (Some(Code::InvalidTransactionTimeout), None) => {
                    return Err(failed("the broker lets no transaction be open for as long as is needed", error)
                        .hint("Raise transaction.max.timeout.ms of the broker to a minute or more"));
                }
                _ => return Err(failed("becoming the one producer of this checkpoint failed", error)),
            }
        }
    }

    /// Another writer has the checkpoint when its epoch is higher than the one written here.
    fn compare_epoch(&self, entry: Option<&Entry>) -> Result<(), DestinationError> {
        match (self.epoch, entry) {
            (Some(ours), Some(entry)) if entry.epoch > ours => Err(DestinationError::new(
                FailureKind::Fenced,
                format!(
                    "another writer has taken the checkpoint {:?} since this one connected (epoch {}, ours was {ours})",
                    self.options.cursor, entry.epoch
                ),
            )
            .hint("Let one process write; give another pipeline another prefix or another cursor name")),
            _ => Ok(()),
        }
    }

    fn warn_once(&mut self, replicas: usize) {
        if std::mem::replace(&mut self.warned, true) {
            return;
        }
        if replicas == 1 {
            warn!(
                "the checkpoint topic has one replica: brokers do not sync, so a power cut can keep the checkpoint and lose \
                 records. Use 3 replicas and min.insync.replicas=2"
            );
        }
        if !self.is_transactional() {
            warn!("delivery is at-least-once: after a failure the changes since the last checkpoint come again");
        }
    }

    fn session(&mut self) -> Result<&mut Session, DestinationError> {
        let missing = || DestinationError::new(FailureKind::Reconnect, "there is no connection to Kafka");
        self.session.as_mut().ok_or_else(missing)
    }
}

/// Consumers warn about these.
fn is_for_producers(key: &str) -> bool {
    [
        "linger.",
        "queue.buffering.",
        "batch.",
        "compression",
        "transaction.",
        "sticky.",
        "retry.backoff",
        "topic.metadata.prop",
    ]
    .iter()
    .any(|prefix| key.starts_with(prefix))
}

/// A failpoint's failure as a failed step.
fn pass(name: &str) -> Result<(), DestinationError> {
    failpoint::pass(name).map_err(|error| DestinationError::new(FailureKind::Retry, "a failpoint failed").cause(error))
}

impl Session {
    /// Renders and sends.
    fn execute(&mut self, batch: &Batch) -> Result<(), DestinationError> {
        let Self { producer, topics, renderer, .. } = self;
        producer.begin()?;
        for (position, command) in batch.commands() {
            let stop = |what: &str| DestinationError::permanent(what).at(position);
            let command = command.map_err(|error| stop("a change does not decode").cause(error))?;
            let transaction = batch.transaction(position).ok_or_else(|| stop("a change came before its commit"))?;
            let mut send = |record: &Record<'_>| {
                // Every table was prepared before its first change.
                let topic = topics.known(record.topic).ok_or_else(|| stop("a record's topic was not looked up"))?;
                let bytes = record.bytes() + OVERHEAD;
                if bytes > topic.largest {
                    return Err(too_large(record, bytes, topic.largest));
                }
                match record.partition {
                    Partition::ByKey => producer.send(record, None),
                    Partition::Fixed(partition) => producer.send(record, Some(partition)),
                    Partition::Every => {
                        (0..topic.partitions).try_for_each(|number| producer.send(record, Some(number)))
                    }
                }
            };
            renderer.render(transaction, position, &command, &mut send).map_err(|error| error.at(position))?;
        }
        Ok(())
    }

    /// Adds the checkpoint to what was sent, and commits both.
    fn commit(&mut self, cursor: &str, entry: &Entry) -> Result<(), DestinationError> {
        self.producer.begin()?;
        let value = entry.encode()?;
        let record = Record {
            topic: &self.checkpoint_topic,
            key: Some(cursor.as_bytes()),
            value: Some(&value),
            ..Record::default()
        };
        self.producer.send(&record, Some(0))?;
        pass("kafka.checkpoint_written")?;
        self.producer.commit()?;
        self.position = entry.position;
        Ok(())
    }
}

#[async_trait]
impl Destination for Kafka {
    fn capabilities(&self) -> Capabilities {
        // A streamed transaction's commit time and LSN, which every event carries, are known at its commit only.
        let longest_transaction = self.is_transactional().then_some(self.timeout / 2);
        Capabilities { early_execution: false, longest_transaction }
    }

    async fn connect(&mut self) -> Result<Checkpoint, DestinationError> {
        self.session = None;
        let address = Address::parse(&self.options.uri)?;
        let (base, limit) = (self.base(&address), self.options.connect_timeout);
        let checkpoint_topic = format!("{}.pg2any-checkpoint", address.prefix);
        let reader = Reader::new(&base, checkpoint_topic.clone(), limit)?;
        let mut topics = Topics::new(&base, address.brokers.clone(), self.options.kafka.clone(), limit)?;
        let topic = topics.need_checkpoint(reader.client(), &checkpoint_topic).await?;
        self.warn_once(topic.replicas);
        if self.epoch.is_some() {
            // Looking first: becoming the producer would fence the other one.
            self.compare_epoch(reader.last(&self.options.cursor)?.as_ref())?;
        }
        let producer = self.producer(&address, &checkpoint_topic)?;
        pass("kafka.initialised")?;
        reader.wait_until_settled()?;
        let last = reader.last(&self.options.cursor)?;
        self.compare_epoch(last.as_ref())?;
        let theirs = last.as_ref().and_then(|entry| entry.source.as_deref());
        if !self.options.owns(theirs) {
            return Err(DestinationError::permanent(format!(
                "the checkpoint {:?} in topic {checkpoint_topic} belongs to another source: {}, not {}",
                self.options.cursor,
                theirs.unwrap_or_default(),
                self.options.source.as_deref().unwrap_or_default()
            ))
            .hint(
                "Use another prefix (kafka://host/PREFIX) or another cursor name. If it is the same database after an upgrade, run \
                 `pg2any source adopt`",
            ));
        }
        let mut entry = last.unwrap_or(Entry { epoch: 0, source: None, position: None, digest: None });
        entry.epoch += 1;
        entry.source = self.options.source.clone().or(entry.source);
        let renderer = Renderer::new(address.prefix, self.options.schema_mapping.clone());
        let position = entry.position;
        let mut session =
            Session { producer, reader, topics, renderer, checkpoint_topic, epoch: entry.epoch, position };
        session.commit(&self.options.cursor, &entry)?;
        pass("kafka.epoch_written")?;
        self.epoch = Some(entry.epoch);
        self.session = Some(session);
        Ok(entry.checkpoint())
    }

    fn bind(&mut self, source: String) {
        self.options.source = Some(source);
    }

    async fn prepare(&mut self, relations: &[Arc<Relation>]) -> Result<Prepared, DestinationError> {
        for relation in relations {
            let session = self.session()?;
            let name = session.renderer.topic(relation);
            let topic = session.topics.need(session.reader.client(), &name).await?;
            if topic.largest < self.batch_bytes {
                self.batch_bytes = topic.largest;
                return Err(DestinationError::new(
                    FailureKind::Reconnect,
                    format!(
                        "topic {name} takes {} bytes at once; connecting again with smaller batches",
                        topic.largest
                    ),
                ));
            }
        }
        pass("kafka.prepared").map(|()| Prepared::Ready)
    }

    async fn execute(&mut self, batch: &Batch, _: Execution) -> Result<(), DestinationError> {
        let session = self.session()?;
        session.execute(batch).inspect_err(|_| session.producer.refuse())?;
        pass("kafka.executed")
    }

    async fn commit(
        &mut self,
        previous: Option<Position>,
        position: Position,
        digest: Option<u64>,
    ) -> Result<(), DestinationError> {
        let (cursor, source) = (self.options.cursor.clone(), self.options.source.clone());
        let session = self.session()?;
        if session.position != previous {
            return Err(DestinationError::new(FailureKind::Reconnect, "the checkpoint is not where it was left"));
        }
        let entry = Entry { epoch: session.epoch, source, position: Some(position), digest };
        session.commit(&cursor, &entry).inspect_err(|_| session.topics.forget())?;
        pass("kafka.committed")
            .map_err(|_| DestinationError::new(FailureKind::Reconnect, "a failpoint failed after the commit"))
    }

    async fn rollback(&mut self) -> Result<(), DestinationError> {
        match &mut self.session {
            Some(session) => session.producer.abort(),
            None => Ok(()),
        }
    }

    async fn close(&mut self) -> Result<(), DestinationError> {
        let Some(mut session) = self.session.take() else { return Ok(()) };
        if session.producer.is_open() && self.is_transactional() { session.producer.abort() } else { Ok(()) }
    }
}

fn too_large(record: &Record<'_>, bytes: usize, largest: usize) -> DestinationError {
    let key = record.key.map(|key| String::from_utf8_lossy(key).into_owned()).unwrap_or_default();
    DestinationError::permanent(format!("a record of {bytes} bytes is too large for topic {}, which takes {largest}", record.topic))
        .key(key)
        .hint(format!(
            "Raise it: kafka-configs.sh --alter --entity-type topics --entity-name {} --add-config max.message.bytes=N; or leave \
             the transaction out with `pg2any skip`",
            record.topic
        ))
}
