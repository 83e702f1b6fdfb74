//! The destination: from connect to commit, in terms of the modules beside it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode as Code;
use tracing::warn;

use super::address::Address;
use super::checkpoint::{Entry, Reader};
use super::client;
use super::events::{Record, Renderer};
use super::failure::failed;
use super::outbox::{Outbox, SetAside};
use super::preflight::preflight;
use super::producer::Producer;
use super::settings::{Delivery, OnOversize};
use super::topics::Topics;
use super::transaction::{Counts, heartbeat};
use crate::change::{Batch, Execution, Relation, TransactionInfo};
use crate::destination::checkpoint::own;
use crate::destination::error::{pass, pass_after_commit};
use crate::destination::{
    Capabilities, Checkpoint, Destination, DestinationError, FailureKind, Options, Prepared, Unrepresentable,
};
use crate::finding::Finding;
use crate::position::Position;

/// As long as brokers allow by default: what the last run left open is ended by the next at once,
/// whatever this says.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// What is tried when the broker allows less.
const SHORTER: [Duration; 3] = [Duration::from_secs(300), Duration::from_secs(60), Duration::from_secs(10)];
/// 64 kB make the producer six times slower; more than 1 MB brings nothing.
const BATCH_BYTES: usize = 1_000_000;

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
    set_aside: Option<SetAside>,
    heartbeat: Option<Heartbeat>,
    epoch: u64,
    position: Option<Position>,
    /// What a transaction that was committed in parts had by then.
    counts: Option<Counts>,
}

/// A heartbeat is written beside a checkpoint, when the last one was so long ago.
struct Heartbeat {
    topic: String,
    prefix: String,
    schemas: bool,
    every: Duration,
    last: Option<Instant>,
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

    fn producer_config(&self, address: &Address) -> ClientConfig {
        let Options { kafka, cursor, .. } = &self.options;
        client::producer(address, kafka, cursor, self.batch_bytes, self.timeout)
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
            (Some(ours), Some(entry)) if entry.epoch > ours => Err(fenced(&self.options.cursor, ours)),
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

    /// Notes how much a topic takes at once; whether that is less than what batches have.
    fn fit_batches(&mut self, largest: usize) -> bool {
        let smaller = largest < self.batch_bytes;
        self.batch_bytes = self.batch_bytes.min(largest);
        smaller
    }

    fn session(&mut self) -> Result<&mut Session, DestinationError> {
        let missing = || DestinationError::new(FailureKind::Reconnect, "there is no connection to Kafka");
        self.session.as_mut().ok_or_else(missing)
    }
}

/// Another writer has the checkpoint.
fn fenced(cursor: &str, epoch: u64) -> DestinationError {
    DestinationError::fenced(cursor, epoch, "topics of the same prefix")
}

impl Session {
    /// Renders and sends.
    fn execute(&mut self, batch: &Batch) -> Result<(), DestinationError> {
        let Self { producer, renderer, set_aside, .. } = self;
        producer.begin()?;
        let mut outbox = Outbox { producer, set_aside: set_aside.as_ref() };
        let mut last: Option<&TransactionInfo> = None;
        for (position, command) in batch.commands() {
            let stop = |what: &str| DestinationError::permanent(what).at(position);
            let command = command.map_err(|error| stop("a change does not decode").cause(error))?;
            let known = last.filter(|transaction| transaction.commit_end == position.commit_end);
            let transaction = known.or_else(|| batch.transaction(position));
            let transaction = transaction.ok_or_else(|| stop("a change came before its commit"))?;
            last = Some(transaction);
            let mut send = |record: &Record<'_>| outbox.send(record, position);
            renderer.render(transaction, position, &command, &mut send).map_err(|error| error.at(position))?;
        }
        Ok(())
    }

    /// Adds the checkpoint to what was sent, and commits both.
    fn commit(&mut self, cursor: &str, mut entry: Entry) -> Result<(), DestinationError> {
        let Self { producer, renderer, set_aside, .. } = self;
        producer.begin()?;
        if let Some(position) = entry.position {
            if position.is_end() {
                let mut outbox = Outbox { producer, set_aside: set_aside.as_ref() };
                renderer.end(&mut |record: &Record<'_>| outbox.send(record, position))?;
            } else {
                entry.counts = renderer.counts().cloned().or(entry.counts);
            }
        }
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.send(producer)?;
        }
        let value = entry.encode()?;
        let record = Record {
            topic: &self.checkpoint_topic,
            key: Some(cursor.as_bytes()),
            value: Some(&value),
            ..Record::default()
        };
        producer.send(&record, Some(0))?;
        pass("kafka.checkpoint_written")?;
        producer.commit()?;
        (self.position, self.counts) = (entry.position, entry.counts);
        Ok(())
    }
}

impl Heartbeat {
    fn send(&mut self, producer: &mut Producer) -> Result<(), DestinationError> {
        if self.last.is_some_and(|last| last.elapsed() < self.every) {
            return Ok(());
        }
        let (key, value) = heartbeat(&self.prefix, self.schemas);
        self.last = Some(Instant::now());
        let record = Record { topic: &self.topic, key: Some(&key), value: Some(&value), ..Record::default() };
        producer.send(&record, None)
    }
}

#[async_trait]
impl Destination for Kafka {
    fn capabilities(&self) -> Capabilities {
        // A streamed transaction's commit time and LSN, which every event carries, are known at its
        // commit only.
        let longest_transaction = self.is_transactional().then_some(self.timeout / 2);
        let usual = Capabilities::default();
        // Each change is an event, so a larger batch brings nothing and takes memory.
        Capabilities { held_open: Duration::ZERO, longest_transaction, batch: usual.batch_in_large, ..usual }
    }

    async fn connect(&mut self) -> Result<Checkpoint, DestinationError> {
        self.session = None;
        let Options { uri, kafka, cursor, unrepresentable, .. } = self.options.clone();
        if kafka.events.schemas && unrepresentable == Unrepresentable::Text {
            return Err(DestinationError::permanent("a text in a column whose schema says number is no legal event")
                .hint("Use another policy than --unrepresentable text, or leave --kafka-schemas away"));
        }
        let address = Address::parse(uri.expose(), kafka.prefix.as_deref())?;
        let (base, limit) = (client::base(&address, &kafka), self.options.connect_timeout);
        let checkpoint_topic = format!("{}.pg2any-checkpoint", address.prefix);
        let reader = Reader::new(&base, checkpoint_topic.clone(), limit)?;
        let mut topics = Topics::new(&base, address.brokers.clone(), kafka.clone(), limit)?;
        let topic = topics.need_checkpoint(reader.client(), &checkpoint_topic).await?;
        self.warn_once(topic.replicas);
        if self.epoch.is_some() {
            // Looking first: becoming the producer would fence the other one.
            self.compare_epoch(reader.last(&cursor)?.as_ref())?;
        }
        let mut set_aside = None;
        if kafka.on_oversize == OnOversize::SetAside {
            let topic = format!("{}.pg2any-oversize", address.prefix);
            self.fit_batches(topics.need(reader.client(), &topic).await?.largest);
            set_aside = Some(SetAside { topic, metrics: Arc::clone(&self.options.metrics) });
        }
        let mut heartbeat = None;
        if let Some(every) = kafka.heartbeat {
            let topic = format!("__debezium-heartbeat.{}", address.prefix);
            self.fit_batches(topics.need(reader.client(), &topic).await?.largest);
            let (prefix, schemas) = (address.prefix.clone(), kafka.events.schemas);
            heartbeat = Some(Heartbeat { topic, prefix, schemas, every, last: None });
        }
        let producer = self.producer(&address, &checkpoint_topic)?;
        pass("kafka.initialised")?;
        reader.wait_until_settled()?;
        let last = reader.last(&cursor)?;
        self.compare_epoch(last.as_ref())?;
        let theirs = last.as_ref().and_then(|entry| entry.source.as_deref());
        own(&self.options, theirs, &format!("the checkpoint {cursor:?} in topic {checkpoint_topic}")).map_err(|error| {
            error.hint(
                "Use another prefix (kafka://host/PREFIX) or another cursor name. If it is the same database after an upgrade, run \
                 `pg2any source adopt`",
            )
        })?;
        let mut entry = last.unwrap_or_default();
        entry.epoch += 1;
        entry.source = self.options.source.clone().or(entry.source);
        let (position, counts, epoch) = (entry.position, entry.counts.clone(), entry.epoch);
        let mut renderer = Renderer::new(self.options.clone(), address.prefix, position, counts.clone());
        if let Some(topic) = renderer.transaction_topic() {
            renderer.know_transaction_topic(topics.need(reader.client(), &topic).await?);
        }
        let checkpoint = entry.clone().checkpoint();
        let mut session = Session {
            producer,
            reader,
            topics,
            renderer,
            checkpoint_topic,
            set_aside,
            heartbeat,
            epoch,
            position,
            counts,
        };
        // Before it is written: the answer can be lost.
        self.epoch = Some(epoch);
        session.commit(&cursor, entry)?;
        pass("kafka.epoch_written")?;
        self.session = Some(session);
        Ok(checkpoint)
    }

    fn bind(&mut self, source: String) {
        if let Some(session) = &mut self.session {
            session.renderer.name_source(source.clone());
        }
        self.options.source = Some(source);
    }

    async fn prepare(&mut self, relations: &[Arc<Relation>]) -> Result<Prepared, DestinationError> {
        for relation in relations {
            let session = self.session()?;
            let mut template = session.renderer.template(relation)?;
            template.known = session.topics.need(session.reader.client(), &template.topic).await?;
            let largest = template.known.largest;
            let topic = template.topic.clone();
            session.renderer.keep(relation.version, template);
            if self.fit_batches(largest) {
                return Err(DestinationError::new(
                    FailureKind::Reconnect,
                    format!("topic {topic} takes {largest} bytes at once; connecting again with smaller batches"),
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
            return Err(fenced(&cursor, session.epoch));
        }
        let entry = Entry { epoch: session.epoch, source, position: Some(position), digest, counts: None };
        session.commit(&cursor, entry).inspect_err(|_| session.topics.forget())?;
        pass_after_commit("kafka.committed")
    }

    async fn preflight(&mut self, relations: &[Arc<Relation>]) -> Result<Vec<Finding>, DestinationError> {
        preflight(&self.options, relations)
    }

    async fn rollback(&mut self) -> Result<(), DestinationError> {
        let Some(session) = &mut self.session else { return Ok(()) };
        session.renderer.go_back(session.position, session.counts.clone());
        session.producer.abort()
    }

    async fn close(&mut self) -> Result<(), DestinationError> {
        let Some(mut session) = self.session.take() else { return Ok(()) };
        if session.producer.is_open() && self.is_transactional() { session.producer.abort() } else { Ok(()) }
    }
}
