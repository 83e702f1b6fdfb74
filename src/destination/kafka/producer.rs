//! The producer: transactions, sending, waiting.
//!
//! Promised: a record that was refused, or that the broker did not take, is never followed by a
//! commit; a commit whose answer is missing is asked for again, never assumed.
//!
//! Relied on (measured): `commit_transaction` of the crate takes 100 ms while anything is in
//! flight, so everything is in before it is called; `init_transactions` takes half a second unless
//! a broker is connected, so metadata comes first.
//!
//! Covered by: `it::kafka`, `it::kafka_faults::a_batch_that_is_refused_is_not_overtaken_by_the_next`.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::Message;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use tracing::{info, warn};

use super::client::{log, log_failure};
use super::events::Record;
use super::failure::{Marks, Next, code, failed, next};
use crate::destination::{DestinationError, FailureKind};

/// Limit for one call that waits for the broker; it is made again.
const CALL: Duration = Duration::from_secs(2);

/// Remembers the first record that the broker did not take.
#[derive(Default)]
pub(super) struct Undelivered(Mutex<Option<(String, Code)>>);

impl Undelivered {
    fn take(&self) -> Option<(String, Code)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Undelivered {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_failure(&error, reason);
    }
}

impl ProducerContext for Undelivered {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let Err((error, message)) = result else { return };
        let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
        // An abort purges what waits.
        if !matches!(code, Code::PurgeQueue | Code::PurgeInflight) {
            let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert_with(|| (message.topic().to_owned(), code));
        }
    }
}

/// A producer, and whether a transaction is open in it.
pub(super) struct Producer {
    inner: ThreadedProducer<Undelivered>,
    transactional: bool,
    /// Records were sent since the last commit.
    open: bool,
    /// A record was refused since the last commit.
    refused: bool,
}

impl Producer {
    /// Makes one; nothing is sent yet.
    pub(super) fn new(config: &ClientConfig, transactional: bool) -> Result<Self, DestinationError> {
        let inner = config
            .create_with_context(Undelivered::default())
            .map_err(|error| DestinationError::permanent("the Kafka producer's settings are refused").cause(error))?;
        Ok(Self { inner, transactional, open: false, refused: false })
    }

    /// Ends what an earlier producer of the same id left open, and fences it.
    pub(super) fn initialise(&self, topic: &str, timeout: Duration) -> Result<(), KafkaError> {
        self.inner.client().fetch_metadata(Some(topic), timeout)?;
        let deadline = Instant::now() + timeout;
        loop {
            match self.inner.init_transactions(CALL) {
                Err(error) if next(Marks::of(&error)) == Next::Again && Instant::now() < deadline => {}
                result => return result,
            }
        }
    }

    /// Opens a transaction unless one is open.
    pub(super) fn begin(&mut self) -> Result<(), DestinationError> {
        if !self.open && self.transactional {
            let begun = self.inner.begin_transaction();
            begun.map_err(|error| failed("beginning a Kafka transaction failed", error))?;
        }
        self.open = true;
        Ok(())
    }

    /// Whether anything was sent since the last commit.
    pub(super) const fn is_open(&self) -> bool {
        self.open
    }

    /// No commit before the next rollback.
    pub(super) const fn refuse(&mut self) {
        self.refused = true;
    }

    /// Queues a record; waits while the queue is full.
    pub(super) fn send(&mut self, record: &Record<'_>, partition: Option<i32>) -> Result<(), DestinationError> {
        let mut message: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(record.topic);
        message.partition = partition;
        message.key = record.key;
        message.payload = record.value;
        if !record.headers.is_empty() {
            let headers = record
                .headers
                .iter()
                .fold(OwnedHeaders::new_with_capacity(record.headers.len()), |headers, (key, value)| {
                    headers.insert(Header { key, value: Some(*value) })
                });
            message = message.headers(headers);
        }
        let mut full_since: Option<Instant> = None;
        loop {
            let (error, back) = match self.inner.send(message) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            if error.rdkafka_error_code() != Some(Code::QueueFull) {
                self.refused = true;
                return Err(failed(format!("sending a record to topic {} failed", record.topic), self.reason(error)));
            }
            if let Some((code, _)) = self.inner.client().fatal_error() {
                self.refused = true;
                return Err(failed("the Kafka producer ended", KafkaError::MessageProduction(code)));
            }
            let since = *full_since.get_or_insert_with(Instant::now);
            if since.elapsed() > Duration::from_secs(10) {
                warn!("the broker takes nothing; waiting");
                full_since = None;
            }
            std::thread::sleep(Duration::from_millis(1));
            message = back;
        }
    }

    /// A fatal error hides behind a general one.
    fn reason(&self, error: KafkaError) -> KafkaError {
        match self.inner.client().fatal_error() {
            Some((code, _)) => KafkaError::MessageProduction(code),
            None => error,
        }
    }

    /// Commits what was sent, and returns when the broker has said that it is.
    pub(super) fn commit(&mut self) -> Result<(), DestinationError> {
        if self.refused {
            return Err(DestinationError::new(FailureKind::Retry, "a record was refused, so nothing is committed"));
        }
        self.drain()?;
        if self.transactional {
            self.again_and_again("committing a Kafka transaction", |producer| producer.commit_transaction(CALL))?;
        } else if let Some((topic, code)) = self.inner.context().take() {
            self.refused = true;
            return Err(undelivered(&topic, code));
        }
        self.open = false;
        Ok(())
    }

    /// Waits until the broker has everything; for ever, because giving up would not make it come
    /// sooner.
    fn drain(&self) -> Result<(), DestinationError> {
        let mut since = Instant::now();
        while self.inner.in_flight_count() > 0 {
            if let Some((code, text)) = self.inner.client().fatal_error() {
                info!("the Kafka producer ended: {text}");
                return Err(failed("the Kafka producer ended", KafkaError::MessageProduction(code)));
            }
            if since.elapsed() > Duration::from_secs(10) {
                warn!(records = self.inner.in_flight_count(), "the broker does not confirm records; waiting");
                since = Instant::now();
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// Aborts what was sent.
    pub(super) fn abort(&mut self) -> Result<(), DestinationError> {
        if !self.transactional {
            let what = "records that were sent without a transaction cannot be taken back";
            return Err(DestinationError::new(FailureKind::Reconnect, what));
        }
        if self.open {
            self.again_and_again("aborting a Kafka transaction", |producer| producer.abort_transaction(CALL))?;
        }
        self.inner.context().take();
        (self.open, self.refused) = (false, false);
        Ok(())
    }

    fn again_and_again(
        &self,
        doing: &str,
        call: impl Fn(&ThreadedProducer<Undelivered>) -> Result<(), KafkaError>,
    ) -> Result<(), DestinationError> {
        let mut said = false;
        loop {
            let Err(error) = call(&self.inner) else { return Ok(()) };
            if next(Marks::of(&error)) == Next::Again {
                if !said {
                    warn!(%error, "{doing} takes long; asking again until the broker answers");
                    said = true;
                }
                continue;
            }
            return Err(match self.inner.context().take() {
                // Several of a batch; only the transaction's error says what is wrong with them.
                Some((topic, Code::InvalidRecord)) => undelivered(&topic, code(&error).unwrap_or(Code::InvalidRecord)),
                Some((topic, code)) => undelivered(&topic, code),
                None => failed(format!("{doing} failed"), error),
            });
        }
    }
}

/// A record that the broker did not take.
fn undelivered(topic: &str, code: Code) -> DestinationError {
    let what = format!("the broker did not take a record for topic {topic} ({code})");
    match code {
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => DestinationError::permanent(what)
            .hint(format!("Raise max.message.bytes of topic {topic}, or leave the transaction out with `pg2any skip`")),
        Code::TopicAuthorizationFailed => {
            DestinationError::permanent(what).hint(format!("Allow this user WRITE on topic {topic}"))
        }
        // Gone since it was looked up: the batch is run again, which creates it again.
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
            DestinationError::new(FailureKind::Reconnect, what)
        }
        Code::InvalidRecord => DestinationError::new(FailureKind::Reconnect, what).hint(format!(
            "The broker's log says what it does not like. A topic that is compacted takes no record without a key: set \
             cleanup.policy=delete for topic {topic}, or give the table a primary key"
        )),
        Code::InvalidTimestamp => DestinationError::new(FailureKind::Reconnect, what).hint(format!(
            "This machine's clock is further from the broker's than message.timestamp.after.max.ms (usually 1 h) and \
             message.timestamp.before.max.ms of topic {topic} allow: set it right; pg2any tries again by itself"
        )),
        _ => DestinationError::new(FailureKind::Reconnect, what),
    }
}
